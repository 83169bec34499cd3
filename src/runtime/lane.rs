//! A lane: the threads that execute one queue's jobs. Lanes share nothing, so that none can delay another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::listing::Listing;
use super::pace::Pace;
use crate::Job;
use crate::engine::{LOAD, Ledger};
use crate::job::Fence;
use crate::worker::Flag;

pub(super) struct Lane {
    pub queue: Arc<str>,
    /// Whether the table may hold jobs for this lane.
    rung: AtomicBool,
    /// How far a claim may run ahead of the free slots.
    ahead: Duration,
    state: Mutex<State>,
    work: Condvar,
}

/// A claimed job on its way to a thread.
pub(super) struct Task {
    pub job: Arc<Job>,
    pub fence: Fence,
    pub flag: Arc<Flag>,
}

/// What came of a delivery.
#[derive(Default)]
pub(super) struct Delivered {
    /// How many threads are missing for it.
    pub missing: usize,
    /// Jobs that may not begin any more: the lane was paused, scaled down or closed since they were asked for.
    pub refused: Vec<Task>,
    /// Whether jobs wait for a thread that is busy.
    pub ahead: bool,
}

#[derive(Default)]
struct State {
    limit: usize,
    paused: bool,
    /// Jobs claimed, from the moment a claim asks for them until they have ended.
    taken: usize,
    /// Those of them that a claim was asked for, and has not answered yet.
    asked: usize,
    /// How many may be taken: the limit, and what the last claim asked for beyond.
    bound: usize,
    ready: VecDeque<Task>,
    /// Which of them are listed as not begun, once any were.
    listing: Option<Listing>,
    /// When a job became ready, or a thread took one, for the last time.
    moved: Option<Instant>,
    pace: Pace,
    /// How many bytes a job had, in the mean of the last delivery.
    weight: usize,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    /// Threads that will look for work, or have been called to it.
    returning: usize,
    /// Those of them that were called, and have not woken up yet.
    called: usize,
    /// Threads that will not look for work any more.
    leaving: usize,
    closed: bool,
}

impl State {
    fn may_begin(&self) -> bool {
        !self.paused && !self.closed
    }

    fn is_one_too_many(&self) -> bool {
        self.closed || self.threads - self.leaving > self.limit
    }

    /// Takes out the jobs that may not begin; the first to be claimed stay.
    fn excess(&mut self) -> Vec<Task> {
        let keep = match self.may_begin() {
            true => self.ready.len().saturating_sub((self.taken - self.asked).saturating_sub(self.bound)),
            false => 0,
        };
        let excess: Vec<Task> = self.ready.drain(keep..).collect();
        self.unlist();
        self.taken -= excess.len();
        excess
    }

    /// There are fewer jobs ready, and the last are gone.
    fn unlist(&mut self) {
        if let Some(listing) = &mut self.listing {
            listing.shorten(self.ready.len());
        }
    }

    /// How many threads may be made.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.threads - self.leaving)
    }

    /// Calls waiting threads to work; says how many are to be woken.
    fn call(&mut self, threads: usize) -> usize {
        let threads = threads.min(self.idle);
        self.idle -= threads;
        self.returning += threads;
        self.called += threads;
        threads
    }
}

impl Lane {
    /// A lane that nothing may enter until it is [set](Self::set).
    pub fn new(queue: &str, ahead: Duration) -> Self {
        // A new lane does not know what the table holds.
        let rung = AtomicBool::new(true);
        Self { queue: queue.into(), rung, ahead, state: Mutex::default(), work: Condvar::new() }
    }

    /// What holds from now on; gives back the jobs that no thread has begun and none may begin. What runs goes on.
    pub fn set(&self, limit: usize, paused: bool) -> Vec<Task> {
        let mut state = self.state.lock();
        if (state.limit, state.paused) == (limit, paused) {
            return Vec::new();
        }
        (state.limit, state.paused, state.bound) = (limit, paused, limit);
        let excess = state.excess();
        drop(state);
        self.ring();
        // Threads above the limit leave.
        self.work.notify_all();
        excess
    }

    pub fn is_open(&self) -> bool {
        !self.state.lock().closed
    }

    /// Whether it is closed and nobody will ask for it any more.
    pub fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.taken == 0 && state.threads == 0
    }

    pub fn ring(&self) {
        self.rung.store(true, Ordering::Release);
    }

    /// How many jobs may be taken: the limit, and what is expected to be finished soon.
    fn bound(&self, state: &State) -> usize {
        state.limit + self.ahead(state)
    }

    /// How many jobs may be claimed ahead: what is expected to be finished soon, and does not fill the memory meanwhile.
    fn ahead(&self, state: &State) -> usize {
        state.pace.ahead(self.ahead, state.limit).min(LOAD / state.weight.max(1))
    }

    fn free(&self, state: &State) -> usize {
        if state.may_begin() { self.bound(state).saturating_sub(state.taken) } else { 0 }
    }

    /// With so few jobs ready, it is time for a claim.
    fn low(&self, state: &State) -> usize {
        self.ahead(state) / 2
    }

    /// Whether a claim may find something, and there is room for it.
    pub fn wants(&self) -> bool {
        self.rung.load(Ordering::Acquire) && self.free(&self.state.lock()) > 0
    }

    /// Takes room for a claim, when there may be jobs for it; says for how many, and how many of them have a thread.
    pub fn demand(&self) -> Option<(usize, usize)> {
        if !self.rung.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state.lock();
        let free = self.free(&state);
        if free == 0 {
            return None;
        }
        state.bound = self.bound(&state);
        let slots = state.limit.saturating_sub(state.taken);
        state.taken += free;
        state.asked += free;
        // Before the claim: a ring from now on means a job it may not have seen.
        self.rung.store(false, Ordering::Release);
        Some((free, slots))
    }

    /// These are about to be delivered: those that will wait for a busy thread are listed before they are claimed.
    pub fn foresee(&self, fences: impl ExactSizeIterator<Item = Fence>, ledger: &Arc<dyn Ledger>) {
        let mut state = self.state.lock();
        let (ready, coming) = (state.ready.len(), state.idle + state.returning + state.room());
        if ready + fences.len() > coming {
            if state.listing.is_none() {
                state.listing = Listing::new(ledger, ready);
            }
            if let Some(listing) = &mut state.listing {
                listing.foresee(ready, fences);
            }
        }
    }

    /// Lists again what was taken for begun and was not.
    pub fn list_again(&self) {
        let mut state = self.state.lock();
        let State { ready, listing, .. } = &mut *state;
        if let Some(listing) = listing {
            listing.list_again(ready.iter().map(|task| task.fence));
        }
    }

    /// The answer to a demand.
    pub fn deliver(&self, demanded: usize, tasks: Vec<Task>) -> Delivered {
        let mut state = self.state.lock();
        state.taken -= demanded - tasks.len();
        state.asked -= demanded;
        if tasks.len() == demanded {
            self.ring();
        }
        if !tasks.is_empty() {
            state.moved = Some(Instant::now());
            state.weight = tasks.iter().map(|task| task.job.bytes()).sum::<usize>() / tasks.len();
        }
        let before = state.ready.len();
        state.ready.extend(tasks);
        let after = state.ready.len();
        if let Some(listing) = &mut state.listing {
            listing.arrived(before, after);
        }
        let refused = state.excess();
        let room = state.room();
        let missing = state.ready.len().saturating_sub(state.idle + state.returning).min(room);
        state.threads += missing;
        // A thread about to be born looks for work by itself.
        state.returning += missing;
        let ahead = state.ready.len() > state.idle + state.returning;
        let calls = match state.pace.is_quick() {
            // One who seems to come may lead on instead.
            true if ahead => 1,
            // Of quick jobs a thread does several before another has woken up; who comes calls the next.
            true => state.ready.len().min(1).saturating_sub(state.returning),
            false => state.ready.len().saturating_sub(state.returning),
        };
        self.call(state, calls);
        Delivered { missing, refused, ahead }
    }

    fn call(&self, mut state: MutexGuard<'_, State>, threads: usize) {
        let calls = state.call(threads);
        drop(state);
        for _ in 0..calls {
            self.work.notify_one();
        }
    }

    /// Takes the next job out.
    fn take(&self, mut state: MutexGuard<'_, State>, now: Instant) -> Option<Task> {
        let task = state.ready.pop_front()?;
        let (stride, left) = (state.pace.stride(), state.ready.len());
        if let Some(listing) = &mut state.listing {
            listing.taken(stride, left);
        }
        state.moved = Some(now);
        self.call_for_the_rest(state);
        Some(task)
    }

    /// Calls a thread where something is ready and nobody is coming for it.
    fn call_for_the_rest(&self, state: MutexGuard<'_, State>) {
        let alone = !state.ready.is_empty() && state.returning == 0;
        self.call(state, usize::from(alone));
    }

    /// A thread that was counted on could not be made; `true` when none is left to do the work.
    pub fn unborn(&self) -> bool {
        let mut state = self.state.lock();
        state.threads -= 1;
        state.returning -= 1;
        state.threads == 0
    }

    /// The next job for the calling thread; `None` when the lane has no place for it any more.
    pub fn next(&self) -> Option<Task> {
        let mut state = self.state.lock();
        state.returning -= 1;
        loop {
            if state.is_one_too_many() {
                state.leaving += 1;
                self.call_for_the_rest(state);
                return None;
            }
            if !state.ready.is_empty() {
                return self.take(state, Instant::now());
            }
            state.idle += 1;
            while state.called == 0 && !state.is_one_too_many() {
                self.work.wait(&mut state);
            }
            if state.called > 0 {
                state.called -= 1;
                state.returning -= 1;
            } else {
                state.idle -= 1;
            }
        }
    }

    /// The calling thread was sent away, and has let go of all it held.
    pub fn left(&self) {
        let mut state = self.state.lock();
        state.threads -= 1;
        state.leaving -= 1;
        self.work.notify_all();
    }

    /// The calling thread's job has ended at `now` and took so long. Gives it the next one where enough is ready and
    /// nothing is in a `hurry`; otherwise it is to see to a transaction first, and then comes back for more.
    pub fn done(&self, took: Duration, now: Instant, hurry: bool) -> Option<Task> {
        let mut state = self.state.lock();
        state.taken -= 1;
        state.pace.note(took);
        let enough = state.ready.len() > self.low(&state) && !state.is_one_too_many();
        if enough && !hurry && state.pace.is_quick() {
            return self.take(state, now);
        }
        state.returning += 1;
        None
    }

    /// The jobs claimed ahead that no thread came for within `patience`, since all are busy: somebody else may do them.
    pub fn stale(&self, now: Instant, patience: Duration) -> Vec<Task> {
        let mut state = self.state.lock();
        let waited = state.moved.map_or(Duration::ZERO, |moved| now.saturating_duration_since(moved));
        if state.ready.is_empty() || state.returning > 0 || state.idle > 0 || waited < patience {
            return Vec::new();
        }
        state.pace.stalls(waited);
        state.bound = state.limit;
        self.ring();
        state.excess()
    }

    /// A thread does not come back: its slot is another's.
    pub fn write_off(&self) {
        let mut state = self.state.lock();
        state.taken -= 1;
        state.threads -= 1;
        self.work.notify_all();
    }

    /// How many jobs no thread has begun.
    pub fn ready(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Gives back slots that were asked for in vain.
    pub fn give_back(&self, slots: usize) {
        let mut state = self.state.lock();
        state.taken -= slots;
        state.asked -= slots;
        if let Some(listing) = &mut state.listing {
            listing.in_vain();
        }
        drop(state);
        self.ring();
    }

    /// Takes away the jobs that no thread has begun.
    pub fn clear(&self) -> Vec<Task> {
        let mut state = self.state.lock();
        state.taken -= state.ready.len();
        let ready = state.ready.drain(..).collect();
        state.unlist();
        ready
    }

    /// No more work: the threads leave as soon as they come by. Gives back the jobs that no thread has begun.
    pub fn close(&self) -> Vec<Task> {
        let mut state = self.state.lock();
        state.closed = true;
        self.work.notify_all();
        state.excess()
    }

    /// Waits until the threads have left, but for `except` and no longer than `until`.
    pub fn wait_for_threads(&self, except: usize, until: std::time::Instant) {
        let mut state = self.state.lock();
        while state.threads > except && !self.work.wait_until(&mut state, until).timed_out() {}
    }
}

#[cfg(test)]
mod tests;
