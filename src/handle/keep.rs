//! The verbs of those who run jobs, told of: ack, stage, rescue, prune.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Kiln;
use crate::Result;
use crate::engine::{Changed, Cutoffs, Pruned, Staged, Told};
use crate::event::Event;
use crate::job::{Job, State};

impl Kiln {
    pub(crate) fn stage(&self, queues: &[String], batch: u32) -> Result<Staged> {
        let mut told = |Changed { job, .. }| self.0.observers.tell(|| Event::Staged { job });
        self.0.engine.stage(queues, self.0.clock.now(), batch, self.told(&mut told))
    }

    pub(crate) fn rescue(&self, batch: u32) -> Result<u64> {
        let mut told = |rescued| self.tell_rescued(rescued);
        self.0.engine.rescue(self.0.clock.now(), batch, self.told(&mut told))
    }

    pub(crate) fn rescue_older(&self, before: Timestamp, batch: u32) -> Result<u64> {
        let mut told = |rescued| self.tell_rescued(rescued);
        self.0.engine.rescue_older(before, self.0.clock.now(), batch, self.told(&mut told))
    }

    pub(crate) fn prune(&self, cutoffs: &Cutoffs, batch: u32) -> Result<Pruned> {
        let mut told = |Changed { job, state, .. }| self.0.observers.tell(|| Event::Pruned { job, state });
        self.0.engine.prune(cutoffs, batch, self.told(&mut told))
    }

    /// To be told, where anybody observes.
    pub(super) fn told<'t>(&self, told: &'t mut dyn FnMut(Changed)) -> Told<'t> {
        self.0.observers.any().then_some(told)
    }

    /// Tells what came of an attempt, and how long its `process` took, where that has ended.
    pub(crate) fn tell_acked(
        &self,
        job: &Arc<Job>,
        state: Option<State>,
        run_time: Option<Duration>,
        error: Option<String>,
    ) {
        self.0.observers.tell(|| {
            let error = error.map(|error| self.own_shared(job).shown(&error).into_owned());
            Event::Acked { job: (&**job).into(), state, queue_time: job.queue_time(), run_time, error }
        });
    }

    fn tell_rescued(&self, Changed { job, state, error }: Changed) {
        let error = error.map(|error| self.shown(job.id, error));
        self.0.observers.tell(|| Event::Rescued { job, state, error });
    }

    /// A text about a job as it may be shown to anybody.
    fn shown(&self, id: i64, text: String) -> String {
        match self.get(id) {
            Ok(Some(job)) => job.shown(&text).into_owned(),
            // It holds nothing any more that could be in the text.
            _ => text,
        }
    }
}
