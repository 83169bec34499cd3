use std::sync::mpsc;
use std::thread;

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

/// For how many jobs a claim is asked.
fn wanted(lane: &Lane) -> Option<usize> {
    lane.demand().map(|(limit, _)| limit)
}

fn ids(tasks: &[Task]) -> Vec<i64> {
    tasks.iter().map(|task| task.fence.id).collect()
}

#[test]
fn a_paused_lane_wants_nothing_and_gives_back_what_no_thread_has_begun() {
    let lane = lane(3);
    assert_eq!(wanted(&lane), Some(3));
    assert_eq!(lane.deliver(3, tasks([1, 2, 3])).missing, 3);
    assert_eq!(lane.next().unwrap().fence.id, 1);
    assert_eq!(ids(&lane.set(3, true)), [2, 3]);
    lane.ring();
    assert!(!lane.wants() && lane.demand().is_none());
    assert!(lane.set(3, false).is_empty());
    assert_eq!(wanted(&lane), Some(2), "the job that runs keeps its slot, and the ring was not lost");
}

#[test]
fn what_was_claimed_before_a_pause_and_comes_after_it_is_refused() {
    let lane = lane(2);
    assert_eq!(wanted(&lane), Some(2));
    lane.set(2, true);
    let delivered = lane.deliver(2, tasks([1, 2]));
    assert_eq!((delivered.missing, ids(&delivered.refused)), (0, vec![1, 2]));
    lane.set(2, false);
    assert_eq!(wanted(&lane), Some(2), "its slots are free again");
}

#[test]
fn a_lane_scaled_down_keeps_the_first_of_its_jobs() {
    let lane = lane(4);
    assert_eq!(wanted(&lane), Some(4));
    lane.deliver(4, tasks([1, 2, 3]));
    assert_eq!(lane.next().unwrap().fence.id, 1);
    assert_eq!(ids(&lane.set(2, false)), [3]);
    assert_eq!(wanted(&lane), None, "one runs, one is ready");
    lane.set(4, false);
    assert_eq!(wanted(&lane), Some(2));
    lane.set(3, false);
    assert_eq!(ids(&lane.deliver(2, tasks([4, 5])).refused), [5], "claimed before, and one too many after");
}

/// A lane whose jobs were quick so far, and two threads that are about to look for work.
fn quick_lane() -> Lane {
    let lane = lane(2);
    assert_eq!(wanted(&lane), Some(2), "nothing is known of its jobs yet");
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
    assert_eq!(wanted(&lane), Some(402));
    assert!(lane.deliver(402, tasks(3..405)).refused.is_empty());
    assert!(lane.next().is_some() && lane.next().is_some());
    let quick = Duration::from_micros(1);
    let now = Instant::now();
    let straight_on = (0..).take_while(|_| lane.done(quick, now, false).is_some()).count();
    assert_eq!(straight_on, 200, "a claim is in order while there is enough left to do");
    assert_eq!(wanted(&lane), Some(201));
}

#[test]
fn a_thread_that_sleeps_is_called_to_quick_jobs_while_the_one_that_claimed_them_sees_to_the_next_transaction() {
    let lane = Arc::new(quick_lane());
    let (begun, begins) = mpsc::channel();
    let sleeper = Arc::clone(&lane);
    let thread = thread::spawn(move || begun.send(sleeper.next().map(|task| task.fence.id)));
    while lane.state.lock().idle == 0 {
        thread::yield_now();
    }
    assert_eq!(wanted(&lane), Some(402));
    lane.deliver(402, tasks(3..405));
    assert_eq!(begins.recv_timeout(Duration::from_secs(60)), Ok(Some(3)));
    thread.join().unwrap().unwrap();
}

#[test]
fn the_larger_the_jobs_the_fewer_are_claimed_ahead() {
    let weighing = |bytes: usize, id| {
        let job = NewJob::new("w").args(serde_json::json!({ "text": "h".repeat(bytes) }));
        let job = Arc::new(job.build(jiff::Timestamp::UNIX_EPOCH, |_| ()).unwrap().job);
        Task { job, ..tasks([id]).remove(0) }
    };
    for (bytes, ahead) in [(LOAD / 1000, 400), (LOAD / 11, 10), (LOAD / 2, 1), (LOAD, 0), (LOAD * 2, 0)] {
        let lane = quick_lane();
        assert_eq!(lane.demand(), Some((402, 2)));
        lane.deliver(402, vec![weighing(bytes, 3), weighing(bytes, 4)]);
        assert!(lane.next().is_some() && lane.next().is_some());
        lane.ring();
        assert_eq!(lane.demand(), (ahead > 0).then_some((ahead, 0)), "{bytes}");
    }
}

#[test]
fn a_thread_in_a_hurry_or_with_slow_jobs_sees_to_its_ack_first() {
    let lane = quick_lane();
    assert_eq!(wanted(&lane), Some(402));
    lane.deliver(402, tasks(3..405));
    assert!(lane.next().is_some() && lane.next().is_some());
    assert!(lane.done(Duration::from_micros(1), Instant::now(), true).is_none());
    done(&lane);
}

#[test]
fn jobs_claimed_ahead_are_given_back_when_a_slow_one_keeps_every_thread() {
    let lane = quick_lane();
    assert_eq!(wanted(&lane), Some(402));
    lane.deliver(402, tasks(3..12));
    assert!(lane.next().is_some());
    let later = Instant::now() + Duration::from_secs(1);
    assert!(lane.stale(later, Duration::from_millis(20)).is_empty(), "a thread is coming");
    assert!(lane.next().is_some());
    assert!(lane.stale(Instant::now(), Duration::from_secs(60)).is_empty(), "it has just begun");
    let ids = ids(&lane.stale(later, Duration::from_millis(20)));
    assert_eq!(ids, [5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(wanted(&lane), None, "both slots are taken, and nothing is claimed ahead");
}

#[test]
fn a_pause_gives_back_what_was_claimed_ahead() {
    let lane = quick_lane();
    assert_eq!(wanted(&lane), Some(402));
    lane.deliver(402, tasks(3..13));
    assert!(lane.next().is_some());
    assert_eq!(lane.set(2, true).len(), 9);
    assert_eq!(lane.set(2, false).len(), 0);
    assert_eq!(wanted(&lane), Some(401));
    assert_eq!(lane.set(1, false).len(), 0);
    assert_eq!(lane.deliver(401, tasks(20..30)).refused.len(), 10, "asked for before it was scaled down");
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
    assert_eq!(wanted(&lane), Some(1));
    assert_eq!(lane.deliver(1, tasks([3])).missing, 0, "the other is enough");
    assert_eq!(lane.next().unwrap().fence.id, 3);
    lane.set(2, false);
    assert_eq!(wanted(&lane), Some(1));
    assert_eq!(lane.deliver(1, tasks([4])).missing, 1, "a wider lane gets a thread when there is work");
}

#[test]
fn a_closed_lane_is_over_once_its_jobs_and_threads_are_gone() {
    let lane = lane(2);
    assert_eq!(wanted(&lane), Some(2));
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
