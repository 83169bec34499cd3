//! What a runtime and the writer hand each other: data each way, no calls.
//!
//! The runtime leaves acks in the outbox and room in its inboxes. A turn reads both, and puts claimed jobs into the inboxes
//! once it is committed. Everything in here only changes memory: no function writes the file or runs a user's code, and
//! only `wait_for_jobs` waits.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::alarm::Alarm;
use super::inbox::{Inbox, Put, Task};
use super::outbox::{Ended, Mail, Outbox};
use super::tx::{Claimed, Demand, Member, Part};
use crate::clock::Clock;
use crate::error::Error;
use crate::event::Event;
use crate::job::{End, Notice, QueuePlan, QueueSettings};
use crate::presence::Sidecar;
use crate::report::Pulse;

pub(crate) struct Mailbox {
    pub runtime: Arc<Member>,
    pub clock: Clock,
    pub sidecar: Option<Arc<Sidecar>>,
    pub alarm: Alarm,
    pub outbox: Mutex<Outbox>,
    /// The queues as they are run now. A closed inbox stays until its last job and thread are gone.
    inboxes: RwLock<Vec<Arc<Inbox>>>,
    /// The queues as this runtime means to run them.
    plans: Arc<Mutex<Vec<QueuePlan>>>,
    /// What holds for the queues of all runtimes on the file.
    settings: Mutex<QueueSettings>,
    /// The plans changed since they were written into the runtime's row.
    unannounced: AtomicBool,
    stopping: AtomicBool,
    /// Threads that were written off and still run.
    pub stuck: AtomicUsize,
    max_stuck: usize,
    claim_ahead: Duration,
    /// Whether the scheduler looks after acks that wait for company and claimed jobs that wait for a thread.
    tended: AtomicBool,
    /// Whether anything has waited since the scheduler last looked.
    waited: AtomicBool,
}

/// How often the scheduler looks after what waits, while anything does.
const TEND: Duration = Duration::from_millis(5);

/// What a mailbox gave to a turn, beside the part that the turn works on.
pub(crate) struct Given {
    pub part: Part,
    pub ended: Vec<Ended>,
}

impl Given {
    /// Each ack and each claim by itself.
    pub fn split(self) -> impl Iterator<Item = Given> {
        let Part { runtime, now, acks, demands, held } = self.part;
        let part = move |acks, demands| Part { runtime: Arc::clone(&runtime), now, acks, demands, held: held.clone() };
        let of_claims = part.clone();
        let acks = acks.into_iter().zip(self.ended);
        let acks = acks.map(move |(ack, ended)| Given { part: part(vec![ack], Vec::new()), ended: vec![ended] });
        acks.chain(
            demands.into_iter().map(move |it| Given { part: of_claims(Vec::new(), vec![it]), ended: Vec::new() }),
        )
    }
}

impl Mailbox {
    pub fn new(
        runtime: Member,
        clock: Clock,
        sidecar: Option<Arc<Sidecar>>,
        plans: Arc<Mutex<Vec<QueuePlan>>>,
        max_stuck: usize,
        claim_ahead: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime: Arc::new(runtime),
            clock,
            sidecar,
            alarm: Alarm::default(),
            outbox: Mutex::default(),
            inboxes: RwLock::default(),
            plans,
            settings: Mutex::default(),
            unannounced: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stuck: AtomicUsize::new(0),
            max_stuck,
            claim_ahead,
            tended: AtomicBool::new(false),
            waited: AtomicBool::new(false),
        })
    }

    pub fn inboxes(&self) -> Vec<Arc<Inbox>> {
        self.inboxes.read().clone()
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// From now on nothing is claimed.
    pub fn stop_claiming(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn is_claiming(&self) -> bool {
        !self.is_stopping() && self.stuck.load(Ordering::Acquire) < self.max_stuck
    }

    /// Whether a turn would have something to do.
    pub fn has_mail(&self) -> bool {
        let outbox = self.outbox.lock();
        let (has_acks, halted) = (outbox.has_mail(), outbox.is_halted());
        drop(outbox);
        has_acks || (!halted && self.is_claiming() && self.inboxes.read().iter().any(|inbox| inbox.wants_jobs()))
    }

    // ---- what a turn reads and puts

    /// Reads what the runtime wants of a turn.
    pub fn collect(&self, notice: &Notice) -> Given {
        let Mail { acks, ended, may_claim, queues_aside } = self.outbox.lock().collect();
        let claiming = may_claim && self.is_claiming();
        let (mut demands, mut held) = (Vec::new(), HashSet::new());
        for inbox in self.inboxes.read().iter() {
            if notice.concerns(&inbox.queue) {
                inbox.ring();
            }
            if claiming && !queues_aside.iter().any(|aside| Arc::ptr_eq(aside, &inbox.queue)) {
                demands.extend(inbox.demand(&mut held));
            }
        }
        let part = Part { runtime: Arc::clone(&self.runtime), now: self.clock.now(), acks, demands, held };
        Given { part, ended }
    }

    /// So many acks were committed, and the claims for these demands: takes in what they claimed. Returns what to tell
    /// observers.
    pub fn put(
        &self,
        acks: usize,
        demands: Vec<Demand>,
        claimed: Vec<Claimed>,
        more: bool,
        waiting: &[Arc<str>],
    ) -> Option<Event> {
        let (freed, event) = self.outbox.lock().written(acks, Instant::now());
        if freed {
            self.alarm.ring(|wake| wake.turn = true);
        }
        let mut claimed = claimed.into_iter().peekable();
        for demand in demands {
            let own = std::iter::from_fn(|| claimed.next_if(|claim| *claim.job.queue == *demand.queue)).collect();
            let Some(inbox) = self.inbox_of(&demand) else { continue };
            let suspect_waits = waiting.iter().any(|queue| Arc::ptr_eq(queue, &demand.queue));
            let Put { refused, hire, waits } = inbox.put(demand.limit, own, suspect_waits);
            self.release(refused);
            if hire {
                self.alarm.ring(|wake| wake.hire = true);
            }
            if waits {
                self.waits();
            }
            if more {
                inbox.ring();
            }
        }
        event
    }

    /// A claim passed these jobs over, since threads still had earlier attempts of them. They are to be claimed when those
    /// attempts have ended.
    pub fn passed(&self, ids: &[i64]) {
        let all_end_later = self.inboxes.read().iter().fold(0, |count, inbox| count + inbox.passed(ids)) == ids.len();
        if !all_end_later {
            // A thread let go of its attempt meanwhile, and may have asked for a turn before.
            self.inboxes.read().iter().for_each(|inbox| inbox.ring());
            self.alarm.ring(|wake| wake.turn = true);
        }
    }

    /// Nothing of the turn was written: everything it took goes back.
    pub fn return_all(&self, Given { part, ended }: Given, error: &Error) -> Option<Event> {
        if part.acks.is_empty() && part.demands.is_empty() {
            return None;
        }
        part.demands.iter().for_each(|demand| self.return_demand(demand));
        self.outbox.lock().return_all(part.acks, ended, error, Instant::now())
    }

    /// This ack, or this claim, failed by itself.
    pub fn put_aside(&self, Given { part, ended }: Given, error: &Error) -> Option<Event> {
        if error.is_of_the_file() {
            return self.return_all(Given { part, ended }, error);
        }
        part.demands.iter().for_each(|demand| self.return_demand(demand));
        let mut outbox = self.outbox.lock();
        let acks = part.acks.into_iter().zip(ended);
        let of_acks: Vec<_> = acks.map(|(ack, ended)| outbox.put_aside(ack, ended, error, Instant::now())).collect();
        let demands = part.demands.iter();
        let of_queues: Vec<_> = demands.map(|it| outbox.put_queue_aside(&it.queue, error, Instant::now())).collect();
        of_acks.into_iter().chain(of_queues).flatten().next()
    }

    fn return_demand(&self, demand: &Demand) {
        if let Some(inbox) = self.inbox_of(demand) {
            inbox.take_back(demand.limit);
        }
    }

    /// The inbox that made a demand, which may be closed by now and have a namesake.
    fn inbox_of(&self, demand: &Demand) -> Option<Arc<Inbox>> {
        self.inboxes.read().iter().find(|inbox| Arc::ptr_eq(&inbox.queue, &demand.queue)).cloned()
    }

    /// Something was committed that may concern this runtime.
    pub fn notify(&self, notice: &Notice) {
        self.inboxes.read().iter().filter(|inbox| notice.concerns(&inbox.queue)).for_each(|inbox| inbox.ring());
        self.alarm.notify(notice);
    }

    // ---- what the runtime leaves

    /// Leaves the ack of an attempt that ended; says whether a turn should be run now.
    pub fn acknowledge(&self, task: Task, end: End, run_time: Option<Duration>, now: Instant) -> bool {
        let Task { attempt, job, listed, place: _ } = task;
        let ack = attempt.ack(end, self.clock.now());
        self.outbox.lock().add(ack, Ended::new(job, run_time, listed), now)
    }

    /// Gives back jobs that no thread has begun; says how many.
    pub fn release(&self, tasks: Vec<Task>) -> usize {
        let (count, now) = (tasks.len(), Instant::now());
        for task in tasks {
            self.acknowledge(task, End::Interrupted, None, now);
        }
        count
    }

    /// Gives back all jobs that no thread has begun; says how many.
    pub fn release_ready(&self) -> usize {
        self.inboxes().iter().map(|inbox| self.release(inbox.clear())).sum()
    }

    /// Something waits, and may need looking after: an ack for company, or a claimed job for a thread.
    pub fn waits(&self) {
        if !self.waited.load(Ordering::SeqCst) {
            self.waited.store(true, Ordering::SeqCst);
            if !self.tended.swap(true, Ordering::SeqCst) {
                self.alarm.ring_by(Instant::now() + TEND);
            }
        }
    }

    /// Gives back the jobs that slow ones keep waiting, if anything waits. Says when to look again.
    pub fn tend(&self, now: Instant) -> Option<Instant> {
        if !self.tended.load(Ordering::SeqCst) {
            return None;
        }
        let waited = self.waited.swap(false, Ordering::SeqCst);
        let patience = self.claim_ahead.max(TEND).saturating_mul(2);
        let inboxes = self.inboxes();
        for inbox in &inboxes {
            self.release(inbox.stale(now, patience));
        }
        if !waited && inboxes.iter().all(|inbox| inbox.ready() == 0) {
            self.tended.store(false, Ordering::SeqCst);
            // Somebody may have seen that everything is tended until just now.
            if !self.waited.load(Ordering::SeqCst) || self.tended.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
        Some(now + TEND)
    }

    // ---- which queues are run

    /// Changes how this runtime means to run its queues, and brings the inboxes to it.
    pub fn plan(
        &self,
        change: impl FnOnce(&mut Vec<QueuePlan>) -> crate::error::Result<()>,
    ) -> crate::error::Result<()> {
        change(&mut self.plans.lock())?;
        self.arrange();
        self.set_unannounced();
        Ok(())
    }

    /// Takes in what holds for the queues of all runtimes on the file.
    pub fn apply(&self, settings: &QueueSettings) {
        *self.settings.lock() = settings.clone();
        self.arrange();
    }

    /// Brings the inboxes to what is planned here and set for all: opens, sets and closes them.
    pub fn arrange(&self) {
        let mut inboxes = self.inboxes.write();
        if self.is_stopping() {
            return;
        }
        let mut withdrawn = Vec::new();
        let mut plans = self.plans.lock();
        let settings = self.settings.lock();
        settings.apply_to(&mut plans);
        let run: Vec<&mut QueuePlan> = plans.iter_mut().filter(|plan| plan.is_run(&settings.of(&plan.queue))).collect();
        for inbox in inboxes.iter().filter(|inbox| inbox.is_open()) {
            if !run.iter().any(|plan| *plan.queue == *inbox.queue) {
                withdrawn.extend(inbox.close());
                self.set_unannounced();
            }
        }
        inboxes.retain(|inbox| !inbox.is_over());
        for plan in run {
            let there = inboxes.iter().position(|inbox| inbox.is_open() && *inbox.queue == *plan.queue);
            let there = there.unwrap_or_else(|| {
                self.set_unannounced();
                plan.started_at = self.clock.now().as_microsecond();
                inboxes.push(Arc::new(Inbox::new(&plan.queue, self.claim_ahead, self.sidecar.clone())));
                inboxes.len() - 1
            });
            let setting = settings.of(&plan.queue);
            withdrawn.extend(inboxes[there].set(plan.limit(&setting), plan.paused(&setting)));
        }
        drop((settings, plans, inboxes));
        self.release(withdrawn);
        if self.unannounced.load(Ordering::Acquire) {
            // Other queues have other due times.
            self.alarm.ring(|wake| wake.due = true);
        }
    }

    /// The plans of the queues that are run.
    pub fn plans(&self) -> Vec<QueuePlan> {
        let plans = self.plans.lock();
        let settings = self.settings.lock();
        plans.iter().filter(|plan| plan.is_run(&settings.of(&plan.queue))).cloned().collect()
    }

    /// The names of the queues that are run.
    pub fn queues(&self) -> Vec<String> {
        self.plans().into_iter().map(|plan| plan.queue).collect()
    }

    /// The plans have to be written into the runtime's row.
    pub fn set_unannounced(&self) {
        self.unannounced.store(true, Ordering::Release);
    }

    pub fn is_unannounced(&self) -> bool {
        self.unannounced.load(Ordering::Acquire)
    }

    /// Whether the plans have to be written into the runtime's row; the caller does so.
    pub fn take_unannounced(&self) -> bool {
        self.unannounced.swap(false, Ordering::AcqRel)
    }

    // ---- how the runtime is doing

    /// How many jobs threads have begun.
    pub fn executing(&self) -> usize {
        self.inboxes.read().iter().map(|inbox| inbox.executing()).sum()
    }

    /// Waits until no job executes, no longer than `until`; says how many do.
    pub fn wait_for_jobs(&self, until: Instant) -> usize {
        self.inboxes().iter().map(|inbox| inbox.wait_for_jobs(until)).sum()
    }

    pub fn unwritten(&self) -> usize {
        self.outbox.lock().unwritten()
    }

    pub fn pulse(&self) -> Pulse {
        // Before the outbox is locked: no lock of the inboxes is taken beneath it.
        let executing = self.executing();
        let outbox = self.outbox.lock();
        Pulse {
            executing,
            stuck: self.stuck.load(Ordering::Acquire),
            claiming: self.is_claiming() && !outbox.is_halted(),
            unwritten: outbox.unwritten(),
            trouble: outbox.trouble().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests;
