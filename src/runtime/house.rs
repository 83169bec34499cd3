//! The house at work: what the threads of a runtime share, and its part in every transaction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, RwLock};

use super::alarm::Alarm;
use super::lane::{Delivered, Lane, Task};
use super::pending::{Claims, Pending, Share};
use super::{Around, Settings, execute};
use crate::engine::{Claimed, Crew, Demand, Done, Engine, Member, News, Turn};
use crate::event::{Event, Observers};
use crate::health::Pulse;
use crate::job::{Ack, Attempt, End, Fence};
use crate::queues::{Plan, Rulings};
use crate::worker::{Desk, Flag, Reason, Registry, Reporter};
use crate::{Error, Job, Kiln};

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
    /// What came of those that were written last.
    acked: Mutex<Vec<Event>>,
    runs: Mutex<HashMap<i64, Run>>,
    /// Rung whenever a run ends.
    ended: Condvar,
    /// Running jobs that told how far they are, and were too early to be written.
    reporters: Mutex<Vec<Arc<Reporter>>>,
    stuck: AtomicUsize,
    stopping: AtomicBool,
    pub itself: Weak<House>,
}

/// A claimed attempt, until it is acknowledged.
struct Run {
    attempt: Attempt,
    job: Arc<Job>,
    lane: Arc<Lane>,
    flag: Arc<Flag>,
    /// When its time is up; then, when it is written off.
    deadline: Option<Instant>,
    timed_out: bool,
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
            acked: Mutex::default(),
            runs: Mutex::default(),
            ended: Condvar::new(),
            reporters: Mutex::default(),
            stuck: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
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

    fn claiming(&self) -> bool {
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

    pub fn unwritten(&self) -> usize {
        self.acks.lock().unwritten()
    }

    fn acknowledge(&self, ack: Ack, job: Arc<Job>) {
        self.acks.lock().add(ack, job);
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

    /// Takes the attempt out of the house and its ack in, at once, so that a stop sees one or the other. Says whose lane
    /// it was; `None` when somebody else was faster.
    pub fn settle(&self, fence: Fence, end: End) -> Option<Arc<Lane>> {
        let mut runs = self.runs.lock();
        if runs.get(&fence.id).is_none_or(|run| run.attempt.fence != fence) {
            return None;
        }
        let Run { attempt, job, lane, .. } = runs.remove(&fence.id)?;
        self.acknowledge(attempt.ack(end, self.now()), job);
        if runs.is_empty() {
            self.ended.notify_all();
        }
        Some(lane)
    }

    /// A thread that was written off has come back after all.
    pub fn unstuck(&self) {
        self.stuck.fetch_sub(1, Ordering::AcqRel);
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
        tasks.iter().filter_map(|task| self.settle(task.fence, End::Interrupted)).count()
    }

    /// Gives back the jobs that still run; says how many. Their threads are on their own.
    pub fn give_back_running(&self) -> usize {
        let runs: Vec<Run> = self.runs.lock().drain().map(|(_, run)| run).collect();
        for run in &runs {
            run.lane.write_off();
            self.stuck.fetch_add(1, Ordering::AcqRel);
        }
        let count = runs.len();
        for run in runs {
            self.acknowledge(run.attempt.ack(End::Interrupted, self.now()), run.job);
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
        if let Some(lane) = self.settle(fence, End::Failed(error, delay.unwrap_or_default())) {
            self.stuck.fetch_add(1, Ordering::AcqRel);
            lane.write_off();
            self.observers().tell(|| Event::Stuck { job: (&*job).into() });
        }
    }

    /// The lane that made a demand, which may be closed by now and have a namesake.
    fn lane_of(&self, demand: &Demand) -> Option<Arc<Lane>> {
        self.lanes.read().iter().find(|lane| Arc::ptr_eq(&lane.queue, &demand.queue)).cloned()
    }

    fn enter(&self, lane: &Arc<Lane>, Claimed { attempt, job }: Claimed) -> Task {
        let flag = Arc::new(Flag::default());
        let job = Arc::new(job);
        let task = Task { fence: attempt.fence, job: Arc::clone(&job), flag: Arc::clone(&flag) };
        let lane = Arc::clone(lane);
        let run = Run { attempt, job, lane, flag, deadline: None, timed_out: false };
        self.runs.lock().insert(task.fence.id, run);
        task
    }

    fn hire(&self, lane: &Arc<Lane>) {
        let house = self.itself.upgrade().expect("BUG: a house that delivers is not gone");
        let name = format!("kiln-{}", lane.queue);
        let place = Arc::clone(lane);
        let hired = thread::Builder::new().name(name).spawn(move || execute::live(house, &place));
        if hired.is_err() && lane.unborn() {
            // Better done elsewhere or later than never.
            self.give_back_ready();
            lane.ring();
        }
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

impl Crew for House {
    fn gather(&self, news: &News) -> Turn {
        let mut demands = Vec::new();
        let claiming = self.claiming();
        let mut pending = self.acks.lock();
        let Share { acks, claims } = pending.share();
        for lane in self.lanes.read().iter() {
            if news.rings(&lane.queue) {
                lane.ring();
            }
            let may = match &claims {
                Claims::All => !pending.is_aside(&lane.queue),
                Claims::One(queue) => Arc::ptr_eq(queue, &lane.queue),
                Claims::None => false,
            };
            if claiming
                && may
                && let Some(slots) = lane.demand()
            {
                demands.push(Demand { queue: Arc::clone(&lane.queue), limit: slots });
            }
        }
        if pending.has_suspects() {
            self.alarm.carry_on();
        }
        drop(pending);
        Turn { runtime: Arc::clone(&self.member), now: self.now(), acks, demands }
    }

    fn deliver(&self, turn: Turn, done: Done) {
        let mut pending = self.acks.lock();
        let (jobs, again) = pending.written(Instant::now());
        drop(pending);
        if again {
            self.alarm.carry_on();
        }
        if self.observers().any() {
            let event = |(job, state): (Arc<Job>, _)| Event::Acked { job: (&*job).into(), state };
            let events = jobs.into_iter().zip(done.acked).map(event);
            let expired = done.expired.iter().map(|job| Event::Expired { job: job.into() });
            self.acked.lock().extend(events.chain(expired));
        }
        let mut claimed = done.claimed.into_iter().peekable();
        for demand in turn.demands {
            let Some(lane) = self.lane_of(&demand) else { continue };
            let mut tasks = Vec::new();
            while let Some(claim) = claimed.next_if(|claim| *claim.job.queue == *demand.queue) {
                tasks.push(self.enter(&lane, claim));
            }
            let Delivered { missing, refused } = lane.deliver(demand.limit, tasks);
            self.give_back_tasks(&refused);
            for _ in 0..missing {
                self.hire(&lane);
            }
            if done.more {
                lane.ring();
            }
        }
    }

    fn give_back(&self, turn: Turn, error: &Error) {
        let mut pending = self.acks.lock();
        pending.unwritable(turn.acks, &turn.demands, error, Instant::now());
        if pending.has_suspects() {
            self.alarm.carry_on();
        }
        drop(pending);
        for demand in turn.demands {
            if let Some(lane) = self.lane_of(&demand) {
                lane.give_back(demand.limit);
            }
        }
    }

    fn tell(&self) {
        let told = std::mem::take(&mut self.acks.lock().untold);
        let acked = std::mem::take(&mut *self.acked.lock());
        told.into_iter().chain(acked).for_each(|event| self.observers().tell(|| event));
    }

    fn hear(&self, news: &News) {
        self.lanes.read().iter().filter(|lane| news.rings(&lane.queue)).for_each(|lane| lane.ring());
        self.cancel(&news.cancelling);
        self.alarm.due(news);
    }

    fn carry_on(&self) {
        self.alarm.carry_on();
    }

    fn heed(&self, rulings: &Rulings) {
        *self.rulings.lock() = rulings.clone();
        self.arrange();
    }

    fn plans(&self) -> Vec<Plan> {
        self.run_plans()
    }

    fn changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    fn change(&self) {
        self.changed.store(true, Ordering::Release);
    }

    fn pulse(&self) -> Pulse {
        Pulse {
            executing: self.runs.lock().len(),
            stuck: self.stuck.load(Ordering::Acquire),
            claiming: self.claiming() && !self.acks.lock().is_halted(),
            unwritten: self.unwritten(),
            trouble: self.acks.lock().trouble().map(str::to_owned),
        }
    }
}
