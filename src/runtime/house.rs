//! The house at work: what the threads of a runtime share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, RwLock};

use super::alarm::Alarm;
use super::lane::{Lane, Task};
use super::pending::{Ended, Outcomes, Pending};
use super::{Around, Settings, execute};
use crate::engine::{Company, Engine, Ledger, Member};
use crate::event::{Event, Observers};
use crate::job::{Ack, Attempt, End, Fence};
use crate::queues::{Plan, Rulings};
use crate::worker::{Desk, Flag, Reason, Registry, Reporter};
use crate::{Job, Kiln};

pub(super) struct House {
    pub kiln: Kiln,
    pub member: Arc<Member>,
    pub settings: Settings,
    pub workers: Registry,
    pub hooks: Vec<Around>,
    /// The queues, as they are run just now; a closed lane stays until its last job and thread are gone.
    pub lanes: RwLock<Vec<Arc<Lane>>>,
    /// The queues, as this runtime means to run them.
    pub plans: Arc<Mutex<Vec<Plan>>>,
    pub rulings: Mutex<Rulings>,
    /// Which queues are run changed since it was made known.
    pub changed: AtomicBool,
    pub alarm: Alarm,
    /// Acks of finished attempts, until they are written.
    pub acks: Mutex<Pending>,
    /// What came of those that were written last, and the jobs that were found to have expired: to be told.
    pub outcomes: Mutex<Outcomes>,
    pub runs: Mutex<HashMap<i64, Run>>,
    /// The job that nothing is begun together with, and until when.
    pub alone: Mutex<Option<(Fence, Instant)>>,
    /// When to ask again for what had to wait.
    held: Mutex<Option<Instant>>,
    /// Where is written what no thread has begun.
    ledger: OnceLock<Arc<dyn Ledger>>,
    /// Rung whenever a run ends.
    ended: Condvar,
    /// Running jobs that told how far they are, and were too early to be written.
    reporters: Mutex<Vec<Arc<Reporter>>>,
    pub stuck: AtomicUsize,
    stopping: AtomicBool,
    /// Whether the scheduler looks after what waits: acks for company, claimed jobs for a thread.
    tended: AtomicBool,
    /// Whether anything has waited since it last looked.
    waited: AtomicBool,
    pub itself: Weak<House>,
}

/// How often the scheduler looks after what waits, while anything does.
const TEND: Duration = Duration::from_millis(5);

/// An attempt that has ended.
pub(super) struct Settled {
    pub lane: Arc<Lane>,
    /// Whether its ack should be written now.
    pub hurry: bool,
}

/// A claimed attempt, until it is acknowledged.
pub(super) struct Run {
    pub attempt: Attempt,
    pub job: Arc<Job>,
    pub lane: Arc<Lane>,
    pub flag: Arc<Flag>,
    /// When its time is up; then, when it is written off.
    pub deadline: Option<Instant>,
    pub timed_out: bool,
}

impl House {
    pub fn new(
        kiln: Kiln,
        member: Member,
        settings: Settings,
        workers: Registry,
        hooks: Vec<Around>,
        plans: Arc<Mutex<Vec<Plan>>>,
    ) -> Arc<House> {
        let house = Arc::new_cyclic(|itself| House {
            kiln,
            member: Arc::new(member),
            settings,
            workers,
            hooks,
            lanes: RwLock::default(),
            plans,
            rulings: Mutex::default(),
            changed: AtomicBool::new(false),
            alarm: Alarm::default(),
            acks: Mutex::default(),
            outcomes: Mutex::default(),
            runs: Mutex::default(),
            alone: Mutex::default(),
            held: Mutex::default(),
            ledger: OnceLock::new(),
            ended: Condvar::new(),
            reporters: Mutex::default(),
            stuck: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            tended: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            itself: itself.clone(),
        });
        house.arrange();
        house
    }

    pub fn engine(&self) -> &dyn Engine {
        &**self.kiln.engine()
    }

    pub fn observers(&self) -> &Observers {
        self.kiln.observers()
    }

    pub fn now(&self) -> Timestamp {
        self.kiln.clock().now()
    }

    pub fn claiming(&self) -> bool {
        !self.stopping.load(Ordering::Acquire) && self.stuck.load(Ordering::Acquire) < self.settings.max_stuck
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// From now on nothing is claimed.
    pub fn stop_claiming(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether a transaction would have something to do.
    pub fn has_business(&self) -> bool {
        !self.acks.lock().is_halted()
            && (self.unwritten() > 0 || (self.claiming() && self.lanes.read().iter().any(|lane| lane.wants())))
    }

    /// From now on what no thread has begun is listed there.
    pub fn list_in(&self, ledger: Option<Arc<dyn Ledger>>) {
        if let Some(ledger) = ledger {
            let _ = self.ledger.set(ledger);
        }
    }

    pub fn ledger(&self) -> Option<&Arc<dyn Ledger>> {
        self.ledger.get()
    }

    /// Who runs here. Somebody who was to run alone and takes too long is like any other.
    pub fn company(&self) -> Company {
        let mut alone = self.alone.lock();
        let runs = self.runs.lock();
        let now = Instant::now();
        let is_alone = |(fence, until): &(Fence, Instant)| {
            now < *until && runs.get(&fence.id).is_some_and(|run| run.attempt.fence == *fence)
        };
        *alone = alone.filter(is_alone);
        match *alone {
            Some(_) => Company::Suspect,
            None if runs.is_empty() => Company::Nobody,
            None => Company::Somebody,
        }
    }

    /// Others wait for somebody to be alone, until then.
    pub fn hold(&self, until: Instant) {
        let mut held = self.held.lock();
        if held.is_none_or(|other| until < other) {
            *held = Some(until);
            self.alarm.by(until);
        }
    }

    /// Asks again for those who have waited for long enough. Says when to look again.
    pub fn let_go(&self, now: Instant) -> Option<Instant> {
        let over = self.held.lock().take_if(|until| *until <= now).is_some();
        if over {
            self.engine().turn();
        }
        *self.held.lock()
    }

    /// How many jobs threads have begun.
    pub fn executing(&self) -> usize {
        let ready: usize = self.lanes.read().iter().map(|lane| lane.ready()).sum();
        self.runs.lock().len().saturating_sub(ready)
    }

    pub fn unwritten(&self) -> usize {
        self.acks.lock().unwritten()
    }

    fn acknowledge(&self, ack: Ack, ended: Ended, now: Instant) -> bool {
        self.acks.lock().add(ack, ended, now)
    }

    /// Something waits, and may need looking after: an ack for company, or a claimed job for a thread.
    pub fn waits(&self) {
        if !self.waited.load(Ordering::SeqCst) {
            self.waited.store(true, Ordering::SeqCst);
            if !self.tended.swap(true, Ordering::SeqCst) {
                self.alarm.by(Instant::now() + TEND);
            }
        }
    }

    /// Writes acks that got no company, and gives back jobs that slow ones keep waiting. Says when to look again.
    pub fn tend(&self, now: Instant) -> Option<Instant> {
        if !self.tended.load(Ordering::SeqCst) {
            return None;
        }
        let waited = self.waited.swap(false, Ordering::SeqCst);
        let patience = self.settings.claim_ahead.max(TEND) * 2;
        let stale: Vec<Task> = self.lanes.read().iter().flat_map(|lane| lane.stale(now, patience)).collect();
        self.give_back_tasks(&stale);
        self.lanes.read().iter().for_each(|lane| lane.list_again());
        if self.unwritten() > 0 {
            self.engine().turn();
        }
        if !waited && self.lanes.read().iter().all(|lane| lane.ready() == 0) {
            self.tended.store(false, Ordering::SeqCst);
            // Somebody may have seen it tended until just now.
            if !self.waited.load(Ordering::SeqCst) || self.tended.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
        Some(now + TEND)
    }

    /// A thread begins a task: from now on its time runs.
    pub fn begin(&self, fence: Fence, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let mut runs = self.runs.lock();
        if let Some(run) = runs.get_mut(&fence.id).filter(|run| run.attempt.fence == fence) {
            run.deadline = Some(deadline);
            drop(runs);
            self.alarm.ring();
        }
    }

    /// Takes the attempt out of the house and its ack in, at once, so that a stop sees one or the other. `None` when
    /// somebody else was faster.
    pub fn settle(&self, fence: Fence, end: End, run_time: Option<Duration>, now: Instant) -> Option<Settled> {
        let mut runs = self.runs.lock();
        if runs.get(&fence.id).is_none_or(|run| run.attempt.fence != fence) {
            return None;
        }
        let Run { attempt, job, lane, .. } = runs.remove(&fence.id)?;
        let hurry = self.acknowledge(attempt.ack(end, self.now()), Ended { job, run_time }, now);
        if runs.is_empty() {
            self.ended.notify_all();
        }
        Some(Settled { lane, hurry })
    }

    /// A thread that was written off has come back after all.
    pub fn unstuck(&self) {
        self.stuck.fetch_sub(1, Ordering::AcqRel);
        self.engine().stray(false);
        self.engine().turn();
    }

    /// Raises the flag of these jobs, where they run here.
    pub fn cancel(&self, ids: &[i64]) {
        let runs = self.runs.lock();
        ids.iter().filter_map(|id| runs.get(id)).for_each(|run| run.flag.raise(Reason::Cancel));
    }

    /// Asks everything that runs to leave.
    pub fn ask_to_leave(&self) {
        self.runs.lock().values().for_each(|run| run.flag.raise(Reason::Stop));
    }

    /// Waits until nothing runs, no longer than `until`, not counting runs of the calling thread; says how many do.
    pub fn wait_for_runs(&self, until: Instant) -> usize {
        let mut runs = self.runs.lock();
        while !runs.is_empty() && !self.ended.wait_until(&mut runs, until).timed_out() {}
        runs.len()
    }

    /// Gives back the jobs that no thread has begun; says how many.
    pub fn give_back_ready(&self) -> usize {
        let tasks: Vec<Task> = self.lanes.read().iter().flat_map(|lane| lane.clear()).collect();
        self.give_back_tasks(&tasks)
    }

    /// Gives back these jobs, which no thread has begun; says how many.
    pub fn give_back_tasks(&self, tasks: &[Task]) -> usize {
        let now = Instant::now();
        tasks.iter().filter_map(|task| self.settle(task.fence, End::Interrupted, None, now)).count()
    }

    /// Gives back the jobs that still run; says how many. Their threads are on their own.
    pub fn give_back_running(&self) -> usize {
        let runs: Vec<Run> = self.runs.lock().drain().map(|(_, run)| run).collect();
        for run in &runs {
            self.stray(&run.lane);
        }
        let count = runs.len();
        for run in runs {
            let ended = Ended { job: run.job, run_time: None };
            self.acknowledge(run.attempt.ack(End::Interrupted, self.now()), ended, Instant::now());
        }
        count
    }

    /// Looks after those whose time is up: first they are asked to leave, then written off. Says when to look again.
    pub fn watch(&self, now: Instant) -> Option<Instant> {
        let mut written_off = Vec::new();
        let mut runs = self.runs.lock();
        for run in runs.values_mut().filter(|run| run.deadline.is_some_and(|deadline| deadline <= now)) {
            if run.timed_out {
                written_off.push(run.attempt.fence);
            } else {
                run.timed_out = true;
                run.deadline = now.checked_add(self.settings.timeout_grace);
                run.flag.raise(Reason::Timeout);
            }
        }
        let next = runs.values().filter_map(|run| run.deadline).filter(|deadline| *deadline > now).min();
        drop(runs);
        for fence in &written_off {
            self.write_off(*fence);
        }
        if !written_off.is_empty() {
            self.engine().turn();
        }
        next
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

    fn write_off(&self, fence: Fence) {
        let Some(job) = self.runs.lock().get(&fence.id).map(|run| Arc::clone(&run.job)) else { return };
        let grace = self.settings.timeout_grace;
        let error =
            format!("timed out and stuck: asked to leave, it did not within {grace:?}; its thread is written off");
        let delay = self.workers.get(&job.worker).map(|worker| execute::delay(self, &**worker, &job));
        let end = End::Failed(error, delay.unwrap_or_default());
        if let Some(Settled { lane, .. }) = self.settle(fence, end, None, Instant::now()) {
            self.stray(&lane);
            self.observers().tell(|| Event::Stuck { job: (&*job).into() });
        }
    }

    /// A thread of this lane is on its own from now on, with its attempt.
    fn stray(&self, lane: &Lane) {
        self.engine().stray(true);
        self.stuck.fetch_add(1, Ordering::AcqRel);
        lane.write_off();
    }
}

impl Desk for House {
    fn remind(&self, reporter: &Arc<Reporter>) {
        let mut reporters = self.reporters.lock();
        if !reporters.iter().any(|other| Arc::ptr_eq(other, reporter)) {
            reporters.push(Arc::clone(reporter));
        }
        drop(reporters);
        self.alarm.ring();
    }
}
