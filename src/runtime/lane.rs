//! A lane: the threads that execute one queue's jobs. Lanes share nothing, so that none can delay another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::Job;
use crate::job::Fence;
use crate::worker::Flag;

pub(super) struct Lane {
    pub queue: Arc<str>,
    /// Whether the table may hold jobs for this lane.
    rung: AtomicBool,
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
}

#[derive(Default)]
struct State {
    limit: usize,
    paused: bool,
    /// Slots taken, from the moment a claim asks for them until their job has ended.
    taken: usize,
    /// Those of them that a claim was asked to fill, and has not answered yet.
    asked: usize,
    ready: VecDeque<Task>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    /// Threads that will look for work without being woken.
    returning: usize,
    /// Threads that will not look for work any more.
    leaving: usize,
    closed: bool,
}

impl State {
    fn free(&self) -> usize {
        if self.paused || self.closed { 0 } else { self.limit.saturating_sub(self.taken) }
    }

    /// Takes out the jobs that may not begin; the first to be claimed stay.
    fn excess(&mut self) -> Vec<Task> {
        let keep = if self.paused || self.closed {
            0
        } else {
            self.ready.len().saturating_sub((self.taken - self.asked).saturating_sub(self.limit))
        };
        let excess: Vec<Task> = self.ready.drain(keep..).collect();
        self.taken -= excess.len();
        excess
    }
}

impl Lane {
    /// A lane that nothing may enter until it is [set](Self::set).
    pub fn new(queue: &str) -> Self {
        // A new lane does not know what the table holds.
        let rung = AtomicBool::new(true);
        Self { queue: queue.into(), rung, state: Mutex::default(), work: Condvar::new() }
    }

    /// What holds from now on; gives back the jobs that no thread has begun and none may begin. What runs goes on.
    pub fn set(&self, limit: usize, paused: bool) -> Vec<Task> {
        let mut state = self.state.lock();
        if (state.limit, state.paused) == (limit, paused) {
            return Vec::new();
        }
        (state.limit, state.paused) = (limit, paused);
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

    /// Whether a claim may find something, and there is room for it.
    pub fn wants(&self) -> bool {
        self.rung.load(Ordering::Acquire) && self.state.lock().free() > 0
    }

    /// Takes the free slots for a claim, when there may be jobs for them.
    pub fn demand(&self) -> Option<usize> {
        if !self.rung.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state.lock();
        let free = state.free();
        if free == 0 {
            return None;
        }
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
        let hands = state.idle + state.returning;
        state.ready.extend(tasks);
        let refused = state.excess();
        let to_wake = state.ready.len().saturating_sub(state.returning).min(state.idle);
        let room = state.limit.saturating_sub(state.threads - state.leaving);
        let missing = state.ready.len().saturating_sub(hands).min(room);
        state.threads += missing;
        // A thread about to be born looks for work by itself.
        state.returning += missing;
        drop(state);
        for _ in 0..to_wake {
            self.work.notify_one();
        }
        Delivered { missing, refused }
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
            if let Some(task) = state.ready.pop_front() {
                return Some(task);
            }
            if state.closed || state.threads - state.leaving > state.limit {
                state.leaving += 1;
                return None;
            }
            state.idle += 1;
            self.work.wait(&mut state);
            state.idle -= 1;
        }
    }

    /// The calling thread was sent away, and has let go of all it held.
    pub fn left(&self) {
        let mut state = self.state.lock();
        state.threads -= 1;
        state.leaving -= 1;
        self.work.notify_all();
    }

    /// The calling thread's job has ended: its slot is free, and the thread comes back for more.
    pub fn done(&self) {
        let mut state = self.state.lock();
        state.taken -= 1;
        state.returning += 1;
    }

    /// A thread does not come back: its slot is another's.
    pub fn write_off(&self) {
        let mut state = self.state.lock();
        state.taken -= 1;
        state.threads -= 1;
        self.work.notify_all();
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
        let lane = Lane::new("q");
        assert!(lane.demand().is_none(), "nothing may enter a lane that was not set");
        assert!(lane.set(limit, false).is_empty());
        lane
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

    #[test]
    fn threads_above_the_limit_leave_when_they_come_by() {
        let lane = lane(2);
        lane.demand();
        assert_eq!(lane.deliver(2, tasks([1, 2])).missing, 2);
        assert!(lane.next().is_some() && lane.next().is_some());
        lane.set(1, false);
        lane.done();
        assert!(lane.next().is_none(), "the first to come is one too many");
        lane.left();
        lane.done();
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
        lane.done();
        assert!(!lane.is_over(), "a thread is there");
        assert!(lane.next().is_none() && !lane.is_over(), "it is leaving");
        lane.left();
        assert!(lane.is_over());
    }
}
