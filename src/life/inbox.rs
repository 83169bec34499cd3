//! The inbox of a queue: the jobs that were claimed for it, on their way to its threads.
//!
//! Inboxes share nothing, so that no queue can delay another. Two invariants hold whenever the lock is free:
//!
//! 1. `claiming + ready + executing <= allowance`, but for jobs that were there or asked for before the allowance shrank.
//! 2. `idle + woken + executing <= threads`: each thread waits, was woken, executes a job, or is about to look for one.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::claim::MOST_BYTES;
use super::pace::Pace;
use super::tx::{Claimed, Demand};
use crate::job::{Attempt, Fence, Job, SUSPECT};
use crate::presence::{BLOCK, Listed, Place, Sidecar};

pub(crate) struct Inbox {
    pub queue: Arc<str>,
    /// Whether the table may hold jobs for this queue.
    rung: AtomicBool,
    /// How far a claim may run ahead of the free threads.
    ahead: Duration,
    /// Where the attempts that have begun are listed; `None` for jobs in memory.
    sidecar: Option<Arc<Sidecar>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Notified when the last job that executes has ended.
    rested: Condvar,
}

/// A claimed job that no thread has begun, or that a thread has just taken.
#[derive(Debug)]
pub(crate) struct Task {
    pub attempt: Attempt,
    pub job: Arc<Job>,
    /// Its entry in the sidecar, from shortly before it begins.
    pub listed: Option<Listed>,
    /// The place of a suspect.
    pub place: Option<Place>,
}

/// What a delivery leaves to do.
#[derive(Default)]
pub(crate) struct Put {
    /// Jobs that may not begin any more: the queue was paused, scaled down or closed since they were asked for.
    pub refused: Vec<Task>,
    /// Whether more threads should be hired.
    pub hire: bool,
    /// Whether jobs wait for a thread that is busy.
    pub waits: bool,
}

#[derive(Default)]
struct State {
    limit: usize,
    paused: bool,
    closed: bool,
    /// Jobs that a claim was asked for and that it has not delivered yet.
    claiming: usize,
    /// Jobs that no thread has begun, in claim order.
    ready: VecDeque<Task>,
    /// Jobs that threads execute.
    executing: Vec<i64>,
    /// How many jobs may be held at once: the limit, and what the last claim asked for beyond.
    allowance: usize,
    /// Threads that will take jobs.
    threads: usize,
    /// Threads of these that wait for a job.
    idle: usize,
    /// Threads that were woken and have not noticed yet.
    woken: usize,
    /// Threads that exist, those that leave included.
    alive: usize,
    /// When a job became ready, or a thread took a job, for the last time.
    moved: Option<Instant>,
    pace: Pace,
    /// The mean size of a job in the last delivery, in bytes.
    weight: usize,
    /// A suspect may wait until a thread is free.
    suspect_waits: bool,
    /// Jobs that are available again although a thread still has an earlier attempt.
    passed: Vec<i64>,
}

impl State {
    fn is_open(&self) -> bool {
        !self.paused && !self.closed
    }

    /// Threads that look for a job without being woken.
    fn coming(&self) -> usize {
        self.threads.saturating_sub(self.idle + self.executing.len())
    }

    /// How many jobs a thread would begin at once.
    fn slots(&self) -> usize {
        self.limit.saturating_sub(self.claiming + self.ready.len() + self.executing.len())
    }

    fn has_too_many_threads(&self) -> bool {
        self.closed || self.threads > self.limit
    }

    /// Takes out the jobs that may not begin; the first to be claimed stay.
    fn withdraw_excess(&mut self) -> Vec<Task> {
        let keep = if self.is_open() { self.allowance.saturating_sub(self.executing.len()) } else { 0 };
        self.ready.split_off(keep.min(self.ready.len())).into()
    }

    fn wants_threads(&self) -> usize {
        let missing = self.ready.len().saturating_sub(self.idle + self.coming());
        missing.min(self.limit.saturating_sub(self.threads))
    }
}

impl Inbox {
    /// An inbox that nothing may enter until it is [set](Self::set).
    pub fn new(queue: &str, ahead: Duration, sidecar: Option<Arc<Sidecar>>) -> Self {
        // Nobody knows yet what the table holds.
        let rung = AtomicBool::new(true);
        Self {
            queue: queue.into(),
            rung,
            ahead,
            sidecar,
            state: Mutex::default(),
            changed: Condvar::new(),
            rested: Condvar::new(),
        }
    }

    /// Sets what holds from now on; gives back the jobs that may not begin any more. Jobs that execute go on.
    pub fn set(&self, limit: usize, paused: bool) -> Vec<Task> {
        let mut state = self.state.lock();
        if (state.limit, state.paused) == (limit, paused) {
            return Vec::new();
        }
        (state.limit, state.paused, state.allowance) = (limit, paused, limit);
        let excess = state.withdraw_excess();
        drop(state);
        self.ring();
        // Threads above the limit leave.
        self.changed.notify_all();
        excess
    }

    pub fn is_open(&self) -> bool {
        !self.state.lock().closed
    }

    /// Whether the inbox is closed and everything that was in it is gone.
    pub fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.alive == 0 && state.claiming + state.ready.len() + state.executing.len() == 0
    }

    /// The table may hold new jobs for this queue.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::Release);
    }

    /// How many jobs may be claimed ahead: what is expected to be finished soon, and does not fill the memory meanwhile.
    fn ahead(&self, state: &State) -> usize {
        state.pace.ahead(self.ahead, state.limit).min(MOST_BYTES / state.weight.max(1))
    }

    fn free(&self, state: &State) -> usize {
        let held = state.claiming + state.ready.len() + state.executing.len();
        if state.is_open() { (state.limit + self.ahead(state)).saturating_sub(held) } else { 0 }
    }

    /// Whether a claim may find something, and there is room for it.
    pub fn wants_jobs(&self) -> bool {
        self.rung.load(Ordering::Acquire) && self.free(&self.state.lock()) > 0
    }

    /// Asks for as many jobs as there is room for, if the table may hold any; adds the jobs that execute to `held`.
    pub fn demand(&self, held: &mut HashSet<i64>) -> Option<Demand> {
        if !self.rung.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state.lock();
        let free = self.free(&state);
        if free == 0 {
            return None;
        }
        held.extend(&state.executing);
        state.allowance = state.limit + self.ahead(&state);
        let slots = state.slots();
        state.claiming += free;
        state.suspect_waits = false;
        // Before the claim: a ring from now on may mean a job that the claim does not see.
        self.rung.store(false, Ordering::Release);
        Some(Demand { queue: Arc::clone(&self.queue), limit: free, slots })
    }

    /// The claim that asked for so many jobs was not committed.
    pub fn take_back(&self, demanded: usize) {
        self.state.lock().claiming -= demanded;
        self.ring();
    }

    /// Delivers what was claimed for a demand, and wakes a thread.
    pub fn put(&self, demanded: usize, claimed: Vec<Claimed>, suspect_waits: bool) -> Put {
        let mut state = self.state.lock();
        state.claiming -= demanded;
        state.suspect_waits = suspect_waits;
        if claimed.len() == demanded {
            self.ring();
        }
        if !claimed.is_empty() {
            state.moved = Some(Instant::now());
            state.weight = claimed.iter().map(|claim| claim.job.bytes()).sum::<usize>() / claimed.len();
        }
        state.ready.extend(claimed.into_iter().map(Task::from));
        // A thread may have become free meanwhile.
        self.ring_for_suspect(&state);
        let refused = state.withdraw_excess();
        let hire = state.wants_threads() > 0;
        let waits = state.ready.len() > state.idle + state.coming();
        if waits {
            // A thread that is on its way may run further turns first.
            self.wake(state);
        } else {
            self.wake_for_the_rest(state);
        }
        Put { refused, hire, waits }
    }

    /// Wakes a thread if a job is ready and no thread is on its way. That thread wakes the next.
    fn wake_for_the_rest(&self, state: MutexGuard<'_, State>) {
        if !state.ready.is_empty() && state.coming() == 0 {
            self.wake(state);
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.idle > 0 {
            state.idle -= 1;
            state.woken += 1;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// How many threads should be hired now; they count as threads from here on.
    pub fn hire(&self) -> usize {
        let mut state = self.state.lock();
        let missing = if state.closed { 0 } else { state.wants_threads() };
        state.threads += missing;
        state.alive += missing;
        missing
    }

    /// So many threads that were counted could not be had.
    pub fn not_hired(&self, threads: usize) {
        let mut state = self.state.lock();
        state.threads -= threads;
        state.alive -= threads;
        self.changed.notify_all();
    }

    pub fn is_without_threads(&self) -> bool {
        self.state.lock().threads == 0
    }

    /// The next job for the calling thread; `None` if the thread is to leave.
    pub fn next(&self) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.has_too_many_threads() {
                state.threads -= 1;
                self.wake_for_the_rest(state);
                return None;
            }
            if !state.ready.is_empty() {
                return self.take(state, Instant::now());
            }
            state.idle += 1;
            while state.woken == 0 && !state.has_too_many_threads() {
                self.changed.wait(&mut state);
            }
            match state.woken {
                0 => state.idle -= 1,
                _ => state.woken -= 1,
            }
        }
    }

    fn take(&self, mut state: MutexGuard<'_, State>, now: Instant) -> Option<Task> {
        if let Some(sidecar) = &self.sidecar {
            state.list_next(sidecar);
        }
        let task = state.ready.pop_front()?;
        state.executing.push(task.fence().id);
        state.moved = Some(now);
        self.wake_for_the_rest(state);
        Some(task)
    }

    /// The calling thread's job has ended. Gives the thread the next job if enough are ready and nothing is in a `hurry`;
    /// otherwise the thread is to see to a turn first, and then asks for the [next](Self::next).
    pub fn done(&self, id: i64, took: Duration, now: Instant, hurry: bool) -> Option<Task> {
        let mut state = self.state.lock();
        self.forget(&mut state, id);
        state.pace.note(took);
        let enough = state.ready.len() > self.ahead(&state) / 2 && !state.has_too_many_threads();
        if enough && !hurry && state.pace.is_quick() { self.take(state, now) } else { None }
    }

    fn forget(&self, state: &mut State, id: i64) {
        if let Some(at) = state.executing.iter().position(|executing| *executing == id) {
            state.executing.swap_remove(at);
        }
        if state.passed.contains(&id) {
            state.passed.retain(|passed| *passed != id);
            self.ring();
        }
        if state.executing.is_empty() {
            self.rested.notify_all();
        }
        self.ring_for_suspect(state);
    }

    /// Of these jobs that a claim passed over, remembers those of which a thread has an earlier attempt, and says how many
    /// there are. The inbox is rung when such an attempt ends.
    pub fn passed(&self, ids: &[i64]) -> usize {
        let mut state = self.state.lock();
        let of_threads: Vec<i64> = ids.iter().copied().filter(|id| state.executing.contains(id)).collect();
        state.passed.retain(|id| !of_threads.contains(id));
        state.passed.extend(&of_threads);
        of_threads.len()
    }

    fn ring_for_suspect(&self, state: &State) {
        if state.suspect_waits && state.slots() > 0 {
            self.ring();
        }
    }

    /// Waits until no job executes, no longer than `until`; says how many do.
    pub fn wait_for_jobs(&self, until: Instant) -> usize {
        let mut state = self.state.lock();
        while !state.executing.is_empty() && !self.rested.wait_until(&mut state, until).timed_out() {}
        state.executing.len()
    }

    /// The jobs claimed ahead that no thread came for within `patience`, since all are busy: others may do them.
    pub fn stale(&self, now: Instant, patience: Duration) -> Vec<Task> {
        let mut state = self.state.lock();
        let waited = state.moved.map_or(Duration::ZERO, |moved| now.saturating_duration_since(moved));
        if state.ready.is_empty() || state.coming() > 0 || state.idle > 0 || waited < patience {
            return Vec::new();
        }
        state.pace.stalls(waited);
        state.allowance = state.limit;
        self.ring();
        state.withdraw_excess()
    }

    /// The thread that executes this job does not come back: another thread may have its place.
    pub fn write_off(&self, id: i64) {
        let mut state = self.state.lock();
        self.forget(&mut state, id);
        state.threads = state.threads.saturating_sub(1);
        state.alive = state.alive.saturating_sub(1);
        self.changed.notify_all();
    }

    /// How many jobs no thread has begun.
    pub fn ready(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// How many jobs threads execute.
    pub fn executing(&self) -> usize {
        self.state.lock().executing.len()
    }

    /// Takes away the jobs that no thread has begun.
    pub fn clear(&self) -> Vec<Task> {
        self.state.lock().ready.drain(..).collect()
    }

    /// Closes the inbox: its threads leave as soon as they come by. Gives back the jobs that no thread has begun.
    pub fn close(&self) -> Vec<Task> {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed.notify_all();
        state.withdraw_excess()
    }

    /// The calling thread has left, and has let go of everything it held.
    pub fn left(&self) {
        self.state.lock().alive -= 1;
        self.changed.notify_all();
    }

    /// Waits until the threads have left, no longer than `until`.
    pub fn wait_for_threads(&self, until: Instant) {
        let mut state = self.state.lock();
        while state.alive > 0 && !self.changed.wait_until(&mut state, until).timed_out() {}
    }
}

impl State {
    /// Lists the next job as begun, unless it is; with it the quick jobs after it, since a write costs about as much as
    /// a tiny job.
    fn list_next(&mut self, sidecar: &Arc<Sidecar>) {
        if self.ready.front().is_none_or(|task| task.listed.is_some()) {
            return;
        }
        let batch = self.pace.stride().min(BLOCK);
        let together = self.ready.iter().take(batch).take_while(|task| !task.begins_alone()).count().max(1);
        let fences: Vec<Fence> = self.ready.iter().take(together).map(Task::fence).collect();
        let listed = sidecar.list(&fences);
        for (task, listed) in self.ready.iter_mut().zip(listed) {
            task.listed = Some(listed);
        }
    }
}

impl Task {
    pub fn fence(&self) -> Fence {
        self.attempt.fence
    }

    /// Whether the job must not be listed before it really begins: it is at its last attempt, or a suspect.
    fn begins_alone(&self) -> bool {
        self.attempt.fence.attempt >= self.attempt.max_attempts || self.job.crashes >= SUSPECT
    }
}

impl From<Claimed> for Task {
    fn from(Claimed { attempt, job, suspect }: Claimed) -> Self {
        Self { attempt, job: Arc::new(job), listed: None, place: suspect }
    }
}

#[cfg(test)]
mod tests;
