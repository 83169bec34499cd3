//! What the threads of a runtime share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::attempts::{Attempts, Begun};
use super::settings::{Around, Settings};
use crate::event::{Event, Observers};
use crate::guard::catch;
use crate::job::{End, Fence, Job, backoff};
use crate::kiln::Kiln;
use crate::life::{Inbox, Mailbox, Task};
use crate::presence::{Stray, Suspects};
use crate::worker::{Entry, Registry, Reporter, Reports};

pub(super) struct Shared {
    pub kiln: Kiln,
    pub mailbox: Arc<Mailbox>,
    pub settings: Settings,
    pub workers: Registry,
    pub hooks: Vec<Around>,
    pub attempts: Attempts,
    /// Running jobs that reported progress too early for it to be written.
    reporters: Mutex<Vec<Arc<Reporter>>>,
    /// One for each thread that was written off and still runs.
    strays: Mutex<Vec<Stray>>,
}

impl Shared {
    pub fn new(
        kiln: Kiln,
        mailbox: Arc<Mailbox>,
        settings: Settings,
        workers: Registry,
        hooks: Vec<Around>,
    ) -> Arc<Self> {
        let attempts = Attempts::default();
        let (reporters, strays) = (Mutex::default(), Mutex::default());
        Arc::new(Self { kiln, mailbox, settings, workers, hooks, attempts, reporters, strays })
    }

    pub fn observers(&self) -> &Observers {
        self.kiln.observers()
    }

    pub fn now(&self) -> Timestamp {
        self.kiln.clock().now()
    }

    /// Runs a turn, unless another thread does.
    pub fn turn(&self) {
        self.kiln.life().turn();
    }

    /// A thread begins an attempt.
    pub fn begin(&self, begun: Begun) {
        let timed = begun.deadline.is_some();
        self.attempts.begin(begun);
        if timed {
            // The scheduler has to know of the deadline.
            self.mailbox.alarm.ring(|_| ());
        }
    }

    /// An attempt has ended: its ack waits from now on. Says whether a turn should be run now; `None` if the attempt was
    /// taken from its thread.
    pub fn end(&self, fence: Fence, end: End, run_time: Option<Duration>, now: Instant) -> Option<bool> {
        self.attempts.end(fence, |begun| self.acknowledge(begun, end, run_time, now))
    }

    fn acknowledge(&self, begun: Begun, end: End, run_time: Option<Duration>, now: Instant) -> bool {
        let Begun { attempt, job, window, .. } = begun;
        let task = Task { attempt, job, listed: window.lock().close(), place: None };
        self.mailbox.acknowledge(task, end, run_time, now)
    }

    /// How long to wait after a failure. A backoff that panics is taken for none.
    pub fn delay(&self, worker: &dyn Entry, job: &Job) -> Duration {
        let own = catch(|| worker.backoff(job)).ok().flatten();
        own.unwrap_or_else(|| backoff::default_delay(job.attempt, job.max_attempts, self.kiln.dice().draw()))
    }

    /// Gives back the jobs that still run; says how many. Their threads are on their own.
    pub fn give_back_running(&self) -> usize {
        let all = self.attempts.end_all();
        let (count, now) = (all.len(), Instant::now());
        for begun in all {
            self.stray(&begun.inbox, begun.job.id);
            self.acknowledge(begun, End::Interrupted, None, now);
        }
        count
    }

    /// Looks after the attempts whose time is up: first they are asked to leave, then written off. Says when to look again.
    pub fn watch(&self, now: Instant) -> Option<Instant> {
        let (late, next) = self.attempts.time_out(now, self.settings.timeout_grace);
        late.iter().for_each(|fence| self.write_off(*fence));
        if !late.is_empty() {
            self.turn();
        }
        let outlived = self.attempts.outlive(now);
        next.into_iter().chain(outlived).min()
    }

    fn write_off(&self, fence: Fence) {
        let Some(job) = self.attempts.job(fence) else { return };
        let grace = self.settings.timeout_grace;
        let error =
            format!("timed out and stuck: asked to leave, it did not within {grace:?}; its thread is written off");
        let delay = self.workers.get(&job.worker).map(|worker| self.delay(&**worker, &job));
        let end = End::Failed(error, delay.unwrap_or_default());
        let written_off = self.attempts.end(fence, |begun| {
            let inbox = Arc::clone(&begun.inbox);
            self.acknowledge(begun, end, None, Instant::now());
            inbox
        });
        if let Some(inbox) = written_off {
            self.stray(&inbox, job.id);
            self.observers().tell(|| Event::Stuck { job: (&*job).into() });
        }
    }

    /// The thread that executes this job is on its own from now on.
    fn stray(&self, inbox: &Inbox, id: i64) {
        self.strays.lock().push(Suspects::of_process().stray());
        self.mailbox.stuck.fetch_add(1, Ordering::AcqRel);
        inbox.write_off(id);
    }

    /// A thread that was written off has come back after all.
    pub fn unstick(&self) {
        self.strays.lock().pop();
        self.mailbox.stuck.fetch_sub(1, Ordering::AcqRel);
        self.turn();
    }

    /// Writes the progress that is due. Says when to look again.
    pub fn write_reports(&self, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        let mut reporters = self.reporters.lock();
        reporters.retain(|reporter| match reporter.due() {
            Some(at) if at <= now => {
                due.push(Arc::clone(reporter));
                false
            }
            waiting => waiting.is_some(),
        });
        let next = reporters.iter().filter_map(|reporter| reporter.due()).min();
        drop(reporters);
        due.iter().for_each(|reporter| reporter.write());
        next
    }
}

impl Reports for Shared {
    fn remind(&self, reporter: &Arc<Reporter>) {
        let mut reporters = self.reporters.lock();
        if !reporters.iter().any(|other| Arc::ptr_eq(other, reporter)) {
            reporters.push(Arc::clone(reporter));
        }
        drop(reporters);
        self.mailbox.alarm.ring(|_| ());
    }
}
