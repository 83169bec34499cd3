//! What runtimes do by themselves, told to observers: stage, rescue, prune.

use std::sync::Arc;

use jiff::Timestamp;

use super::handle::Kiln;
use crate::error::Result;
use crate::event::Event;
use crate::file::care;
use crate::life::Need;
use crate::life::rescue::{rescue, rescue_older};
use crate::life::sweep::{Cutoffs, next_due, prune, stage};
use crate::life::tx::Batch;
use crate::store;
use crate::store::sweep::Changed;

impl Kiln {
    /// Makes due jobs of these queues available, a batch of each; says how many, and when the next one is due.
    pub(crate) fn stage(&self, queues: &[String], batch: u32) -> Result<(u64, Option<Timestamp>)> {
        let (life, batch) = (&self.0.life, self.batch(batch));
        let next = || life.read(|conn| next_due(conn, queues));
        let next_due = next()?;
        if next_due.is_none_or(|due| due > batch.now) {
            return Ok((0, next_due));
        }
        let names = queues.to_vec();
        let staged = life.call(Need::Ride, move |tx| stage(tx, &names, batch))?;
        self.tell(staged.jobs, |Changed { job, .. }| Event::Staged { job });
        // The jobs are staged. If it cannot be told now when to stage again, the scheduler asks again.
        Ok((staged.count, next().unwrap_or(Some(batch.now))))
    }

    /// Rescues the jobs of dead runtimes, and discards available jobs without an attempt left; a batch in a transaction.
    pub(crate) fn rescue(&self, batch: u32) -> Result<u64> {
        let (life, batch) = (&self.0.life, self.batch(batch));
        life.live.refresh();
        let exhausted = life.read(store::rescue::any_exhausted)?;
        let dead = Arc::new(life.live.dead(&life.named()?));
        let (mut count, mut more) = (0, exhausted || !dead.is_empty());
        while more {
            let (rescued, left) = {
                let dead = Arc::clone(&dead);
                life.call(Need::Ride, move |tx| rescue(tx, &dead, batch))?
            };
            count += rescued.count;
            self.tell_rescued(rescued.jobs);
            more = left;
        }
        dead.keys().for_each(|id| life.live.remove(id));
        Ok(count)
    }

    /// Ends the attempts that were claimed before a time, whoever owns them but the runtimes here.
    pub(crate) fn rescue_older(&self, before: Timestamp, batch: u32) -> Result<u64> {
        let (life, batch) = (&self.0.life, self.batch(batch));
        let here = life.live.here();
        let rescued = life.call(Need::Ride, move |tx| rescue_older(tx, before, &here, batch))?;
        self.tell_rescued(rescued.jobs);
        Ok(rescued.count)
    }

    /// Deletes jobs that ended long ago, a batch of each state, and gives a little free space back. Says how many jobs
    /// were deleted, and whether there may be more to do.
    pub(crate) fn prune(&self, cutoffs: &Cutoffs, batch: u32) -> Result<(u64, bool)> {
        let (life, cutoffs, batch) = (&self.0.life, *cutoffs, self.batch(batch));
        let pruned = life.call(Need::Ride, move |tx| prune(tx, &cutoffs, batch))?;
        self.tell(pruned.jobs, |Changed { job, state, .. }| Event::Pruned { job, state });
        // The jobs are gone either way. Space that cannot be given back now is given back later.
        let more = life.writer()?.with(care::shrink).unwrap_or(false) || pruned.count >= u64::from(batch.size);
        Ok((pruned.count, more))
    }

    fn batch(&self, size: u32) -> Batch {
        Batch { now: self.0.clock.now(), size, wanted: self.0.observers.any() }
    }

    /// Tells observers of each job.
    pub(super) fn tell(&self, jobs: Vec<Changed>, event: impl Fn(Changed) -> Event) {
        jobs.into_iter().for_each(|changed| self.0.observers.tell(|| event(changed)));
    }

    fn tell_rescued(&self, jobs: Vec<Changed>) {
        for Changed { job, state, error, is_suspect } in jobs {
            let error = error.map(|error| self.shown(job.id, error));
            let suspect = is_suspect.then(|| job.clone());
            self.0.observers.tell(|| Event::Rescued { job, state, error });
            if let Some(job) = suspect {
                self.0.observers.tell(|| Event::Suspected { job });
            }
        }
    }

    fn shown(&self, id: i64, text: String) -> String {
        match self.get(id) {
            Ok(Some(job)) => job.shown(&text).into_owned(),
            // The job holds nothing any more that could be in the text.
            _ => text,
        }
    }
}
