//! A lane: the threads that execute one queue's jobs. Lanes share nothing, so that none can delay another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::pace::Pace;
use crate::Job;
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
    /// When a job became ready, or a thread took one, for the last time.
    moved: Option<Instant>,
    pace: Pace,
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
        self.taken -= excess.len();
        excess
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
        state.limit + state.pace.ahead(self.ahead, state.limit)
    }

    fn free(&self, state: &State) -> usize {
        if state.may_begin() { self.bound(state).saturating_sub(state.taken) } else { 0 }
    }

    /// With so few jobs ready, it is time for a claim.
    fn low(&self, state: &State) -> usize {
        state.pace.ahead(self.ahead, state.limit) / 2
    }

    /// Whether a claim may find something, and there is room for it.
    pub fn wants(&self) -> bool {
        self.rung.load(Ordering::Acquire) && self.free(&self.state.lock()) > 0
    }

    /// Takes room for a claim, when there may be jobs for it.
    pub fn demand(&self) -> Option<usize> {
        if !self.rung.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state.lock();
        let free = self.free(&state);
        if free == 0 {
            return None;
        }
        state.bound = self.bound(&state);
        state.taken += free;
        state.asked += free;
        // Before the claim: a ring from now on means a job it may not have seen.
        self.rung.store(false, Ordering::Release);
        Some(free)
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
        }
        state.ready.extend(tasks);
        let refused = state.excess();
        let room = state.limit.saturating_sub(state.threads - state.leaving);
        let missing = state.ready.len().saturating_sub(state.idle + state.returning).min(room);
        state.threads += missing;
        // A thread about to be born looks for work by itself.
        state.returning += missing;
        // Of quick jobs a thread does several before another has woken up; who comes calls the next.
        let wanted = if state.pace.is_quick() { 1 } else { state.ready.len() };
        let calls = wanted.min(state.ready.len()).saturating_sub(state.returning);
        let ahead = state.ready.len() > state.idle + state.returning;
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
        drop(state);
        self.ring();
    }

    /// Takes away the jobs that no thread has begun.
    pub fn clear(&self) -> Vec<Task> {
        let mut state = self.state.lock();
        state.taken -= state.ready.len();
        state.ready.drain(..).collect()
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
mod tests {
    use super::*;
    use crate::NewJob;

    fn lane(limit: usize) -> Lane {
        let lane = Lane::new("q", Duration::from_millis(10));
        assert!(lane.demand().is_none(), "nothing may enter a lane that was not set");
        assert!(lane.set(limit, false).is_empty());
        lane
    }

    /// A job has ended, and took long.
    fn done(lane: &Lane) {
        assert!(lane.done(Duration::from_secs(1), Instant::now(), false).is_none(), "its ack is to be written");
    }

    fn tasks(ids: impl IntoIterator<Item = i64>) -> Vec<Task> {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let task = |id| Task {
            job: Arc::new(NewJob::new("w").build(now, |_| ()).unwrap().job),
            fence: Fence { id, attempt: 1, attempted_at: 0 },
            flag: Arc::default(),
        };
        ids.into_iter().map(task).collect()
    }

    fn ids(tasks: &[Task]) -> Vec<i64> {
        tasks.iter().map(|task| task.fence.id).collect()
    }

    #[test]
    fn a_paused_lane_wants_nothing_and_gives_back_what_no_thread_has_begun() {
        let lane = lane(3);
        assert_eq!(lane.demand(), Some(3));
        assert_eq!(lane.deliver(3, tasks([1, 2, 3])).missing, 3);
        assert_eq!(lane.next().unwrap().fence.id, 1);
        assert_eq!(ids(&lane.set(3, true)), [2, 3]);
        lane.ring();
        assert!(!lane.wants() && lane.demand().is_none());
        assert!(lane.set(3, false).is_empty());
        assert_eq!(lane.demand(), Some(2), "the job that runs keeps its slot, and the ring was not lost");
    }

    #[test]
    fn what_was_claimed_before_a_pause_and_comes_after_it_is_refused() {
        let lane = lane(2);
        assert_eq!(lane.demand(), Some(2));
        lane.set(2, true);
        let delivered = lane.deliver(2, tasks([1, 2]));
        assert_eq!((delivered.missing, ids(&delivered.refused)), (0, vec![1, 2]));
        lane.set(2, false);
        assert_eq!(lane.demand(), Some(2), "its slots are free again");
    }

    #[test]
    fn a_lane_scaled_down_keeps_the_first_of_its_jobs() {
        let lane = lane(4);
        assert_eq!(lane.demand(), Some(4));
        lane.deliver(4, tasks([1, 2, 3]));
        assert_eq!(lane.next().unwrap().fence.id, 1);
        assert_eq!(ids(&lane.set(2, false)), [3]);
        assert_eq!(lane.demand(), None, "one runs, one is ready");
        lane.set(4, false);
        assert_eq!(lane.demand(), Some(2));
        lane.set(3, false);
        assert_eq!(ids(&lane.deliver(2, tasks([4, 5])).refused), [5], "claimed before, and one too many after");
    }

    /// A lane whose jobs were quick so far, and two threads that are about to look for work.
    fn quick_lane() -> Lane {
        let lane = lane(2);
        assert_eq!(lane.demand(), Some(2), "nothing is known of its jobs yet");
        assert_eq!(lane.deliver(2, tasks([1, 2])).missing, 2);
        for _ in 0..2 {
            assert!(lane.next().is_some());
        }
        for _ in 0..2 {
            assert!(lane.done(Duration::from_micros(1), Instant::now(), false).is_none(), "nothing is ready");
        }
        lane
    }

    #[test]
    fn of_quick_jobs_more_are_claimed_than_there_are_slots_and_done_one_after_the_other() {
        let lane = quick_lane();
        assert_eq!(lane.demand(), Some(252));
        assert!(lane.deliver(252, tasks(3..255)).refused.is_empty());
        assert!(lane.next().is_some() && lane.next().is_some());
        let quick = Duration::from_micros(1);
        let now = Instant::now();
        let straight_on = (0..).take_while(|_| lane.done(quick, now, false).is_some()).count();
        assert_eq!(straight_on, 125, "a claim is in order while there is enough left to do");
        assert_eq!(lane.demand(), Some(126));
    }

    #[test]
    fn a_thread_in_a_hurry_or_with_slow_jobs_sees_to_its_ack_first() {
        let lane = quick_lane();
        assert_eq!(lane.demand(), Some(252));
        lane.deliver(252, tasks(3..255));
        assert!(lane.next().is_some() && lane.next().is_some());
        assert!(lane.done(Duration::from_micros(1), Instant::now(), true).is_none());
        done(&lane);
    }

    #[test]
    fn jobs_claimed_ahead_are_given_back_when_a_slow_one_keeps_every_thread() {
        let lane = quick_lane();
        assert_eq!(lane.demand(), Some(252));
        lane.deliver(252, tasks(3..12));
        assert!(lane.next().is_some());
        let later = Instant::now() + Duration::from_secs(1);
        assert!(lane.stale(later, Duration::from_millis(20)).is_empty(), "a thread is coming");
        assert!(lane.next().is_some());
        assert!(lane.stale(Instant::now(), Duration::from_secs(60)).is_empty(), "it has just begun");
        let ids = ids(&lane.stale(later, Duration::from_millis(20)));
        assert_eq!(ids, [5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(lane.demand(), None, "both slots are taken, and nothing is claimed ahead");
    }

    #[test]
    fn a_pause_gives_back_what_was_claimed_ahead() {
        let lane = quick_lane();
        assert_eq!(lane.demand(), Some(252));
        lane.deliver(252, tasks(3..13));
        assert!(lane.next().is_some());
        assert_eq!(lane.set(2, true).len(), 9);
        assert_eq!(lane.set(2, false).len(), 0);
        assert_eq!(lane.demand(), Some(251));
        assert_eq!(lane.set(1, false).len(), 0);
        assert_eq!(lane.deliver(251, tasks(20..30)).refused.len(), 10, "asked for before it was scaled down");
    }

    #[test]
    fn threads_above_the_limit_leave_when_they_come_by() {
        let lane = lane(2);
        lane.demand();
        assert_eq!(lane.deliver(2, tasks([1, 2])).missing, 2);
        assert!(lane.next().is_some() && lane.next().is_some());
        lane.set(1, false);
        done(&lane);
        assert!(lane.next().is_none(), "the first to come is one too many");
        lane.left();
        done(&lane);
        assert_eq!(lane.demand(), Some(1));
        assert_eq!(lane.deliver(1, tasks([3])).missing, 0, "the other is enough");
        assert_eq!(lane.next().unwrap().fence.id, 3);
        lane.set(2, false);
        assert_eq!(lane.demand(), Some(1));
        assert_eq!(lane.deliver(1, tasks([4])).missing, 1, "a wider lane gets a thread when there is work");
    }

    #[test]
    fn a_closed_lane_is_over_once_its_jobs_and_threads_are_gone() {
        let lane = lane(2);
        assert_eq!(lane.demand(), Some(2));
        assert_eq!(lane.deliver(1, tasks([1])).missing, 1);
        assert!(lane.next().is_some());
        assert!(lane.close().is_empty() && !lane.is_open());
        assert_eq!(ids(&lane.deliver(1, tasks([2])).refused), [2]);
        assert!(!lane.wants() && !lane.is_over(), "a job runs");
        done(&lane);
        assert!(!lane.is_over(), "a thread is there");
        assert!(lane.next().is_none() && !lane.is_over(), "it is leaving");
        lane.left();
        assert!(lane.is_over());
    }
}
