mod invariants;
mod listing;
mod threads;

use super::*;
use crate::job::NewJob;

const MS: Duration = Duration::from_millis(1);
const QUICK: Duration = Duration::from_micros(1);
const SLOW: Duration = Duration::from_secs(1);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

fn inbox(limit: usize) -> Inbox {
    let inbox = Inbox::new("q", 10 * MS, None);
    assert!(wanted(&inbox).is_none(), "nothing may enter an inbox that was not set");
    assert!(inbox.set(limit, false).is_empty());
    inbox
}

fn job() -> Job {
    NewJob::new("w").build(jiff::Timestamp::UNIX_EPOCH, |_| ()).unwrap().job
}

fn claimed(ids: impl IntoIterator<Item = i64>) -> Vec<Claimed> {
    let attempt = |id| Attempt { fence: Fence { id, attempt: 1, attempted_at: 7 * id }, max_attempts: 20 };
    ids.into_iter().map(|id| Claimed { attempt: attempt(id), job: Job { id, ..job() }, suspect: None }).collect()
}

/// For how many jobs a claim is asked.
fn wanted(inbox: &Inbox) -> Option<usize> {
    inbox.demand(&mut HashSet::new()).map(|demand| demand.limit)
}

fn ids<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Vec<i64> {
    tasks.into_iter().map(|task| task.fence().id).collect()
}

fn next(inbox: &Inbox) -> i64 {
    inbox.next().unwrap().fence().id
}

/// A job has ended, and took long.
fn done(inbox: &Inbox, id: i64) {
    assert!(inbox.done(id, SLOW, Instant::now(), false).is_none(), "its ack is to be written");
}

/// An inbox whose jobs were quick so far, and two threads that are about to look for work.
fn quick_inbox() -> Inbox {
    let inbox = inbox(2);
    assert_eq!(wanted(&inbox), Some(2), "nothing is known of its jobs yet");
    assert!(inbox.put(2, claimed([1, 2]), false).hire);
    assert_eq!(inbox.hire(), 2);
    for id in [1, 2] {
        assert_eq!(next(&inbox), id);
    }
    for id in [1, 2] {
        assert!(inbox.done(id, QUICK, Instant::now(), false).is_none(), "nothing is ready");
    }
    inbox
}

#[test]
fn a_paused_inbox_wants_nothing_and_gives_back_what_no_thread_has_begun() {
    let inbox = inbox(3);
    assert_eq!(wanted(&inbox), Some(3));
    inbox.put(3, claimed([1, 2, 3]), false);
    assert_eq!(inbox.hire(), 3);
    assert_eq!(next(&inbox), 1);
    assert_eq!(ids(&inbox.set(3, true)), [2, 3]);
    inbox.ring();
    assert!(!inbox.wants_jobs() && wanted(&inbox).is_none());
    assert!(inbox.set(3, false).is_empty());
    assert_eq!(wanted(&inbox), Some(2), "the job that runs keeps its slot, and the ring was not lost");
}

#[test]
fn what_was_claimed_before_a_pause_and_comes_after_it_is_refused() {
    let inbox = inbox(2);
    assert_eq!(wanted(&inbox), Some(2));
    inbox.set(2, true);
    let put = inbox.put(2, claimed([1, 2]), false);
    assert_eq!((put.hire, put.waits, ids(&put.refused)), (false, false, vec![1, 2]));
    inbox.set(2, false);
    assert_eq!(wanted(&inbox), Some(2), "its slots are free again");
}

#[test]
fn an_inbox_scaled_down_keeps_the_first_of_its_jobs() {
    let inbox = inbox(4);
    assert_eq!(wanted(&inbox), Some(4));
    inbox.put(4, claimed([1, 2, 3]), false);
    inbox.hire();
    assert_eq!(next(&inbox), 1);
    assert_eq!(ids(&inbox.set(2, false)), [3]);
    assert_eq!(wanted(&inbox), None, "one runs, one is ready");
    inbox.set(4, false);
    assert_eq!(wanted(&inbox), Some(2));
    inbox.set(3, false);
    assert_eq!(ids(&inbox.put(2, claimed([4, 5]), false).refused), [5], "claimed before, and one too many after");
}

#[test]
fn a_ring_during_a_claim_is_not_lost_and_a_claim_that_found_less_is_not_repeated() {
    let inbox = inbox(2);
    let mut held = HashSet::new();
    let demand = inbox.demand(&mut held).unwrap();
    assert_eq!((&*demand.queue, demand.limit, demand.slots), ("q", 2, 2));
    inbox.put(2, claimed([1]), false);
    assert!(!inbox.wants_jobs(), "the table had no more");
    inbox.ring();
    assert_eq!(wanted(&inbox), Some(1));
    inbox.ring();
    inbox.put(1, Vec::new(), false);
    assert!(inbox.wants_jobs(), "the claim may not have seen what was rung for");
    assert_eq!(wanted(&inbox), Some(1));
    inbox.put(1, claimed([2]), false);
    inbox.hire();
    next(&inbox);
    done(&inbox, 1);
    assert_eq!(inbox.demand(&mut held).map(|it| it.limit), Some(1), "there may be more than was asked for");
    assert!(held.is_empty());
    next(&inbox);
    inbox.take_back(1);
    assert_eq!(inbox.demand(&mut held).map(|it| it.limit), Some(1), "a claim that was rolled back is made again");
    assert_eq!(held, HashSet::from([2]), "the job that executes");
}

#[test]
fn of_quick_jobs_more_are_claimed_than_there_are_slots_and_done_one_after_the_other() {
    let inbox = quick_inbox();
    let demand = inbox.demand(&mut HashSet::new()).unwrap();
    assert_eq!((demand.limit, demand.slots), (402, 2));
    assert!(inbox.put(402, claimed(3..405), false).refused.is_empty());
    assert_eq!([next(&inbox), next(&inbox)], [3, 4]);
    let now = Instant::now();
    let (mut id, mut straight_on) = (4, 0);
    while let Some(task) = inbox.done(id, QUICK, now, false) {
        (id, straight_on) = (task.fence().id, straight_on + 1);
    }
    assert_eq!(straight_on, 200, "a claim is in order while there is enough left to do");
    assert_eq!(wanted(&inbox), Some(201));
}

#[test]
fn the_larger_the_jobs_the_fewer_are_claimed_ahead() {
    let weighing = |bytes: usize, id| {
        let args = serde_json::json!({ "text": "h".repeat(bytes) });
        let job = NewJob::new("w").args(args).build(jiff::Timestamp::UNIX_EPOCH, |_| ()).unwrap().job;
        Claimed { job, ..claimed([id]).remove(0) }
    };
    for (part, ahead) in [(1000, 400), (11, 10), (2, 1), (1, 0)] {
        let bytes = MOST_BYTES / part;
        let inbox = quick_inbox();
        assert_eq!(wanted(&inbox), Some(402));
        inbox.put(402, vec![weighing(bytes, 3), weighing(bytes, 4)], false);
        assert_eq!([next(&inbox), next(&inbox)], [3, 4]);
        inbox.ring();
        let demand = inbox.demand(&mut HashSet::new());
        assert_eq!(demand.map(|it| (it.limit, it.slots)), (ahead > 0).then_some((ahead, 0)), "{bytes}");
    }
}

#[test]
fn a_thread_in_a_hurry_or_with_slow_jobs_sees_to_its_ack_first() {
    let inbox = quick_inbox();
    assert_eq!(wanted(&inbox), Some(402));
    inbox.put(402, claimed(3..405), false);
    assert_eq!([next(&inbox), next(&inbox)], [3, 4]);
    assert!(inbox.done(3, QUICK, Instant::now(), true).is_none());
    done(&inbox, 4);
}

#[test]
fn jobs_claimed_ahead_are_given_back_when_a_slow_one_keeps_every_thread() {
    let inbox = quick_inbox();
    assert_eq!(wanted(&inbox), Some(402));
    assert!(inbox.put(402, claimed(3..12), false).waits);
    next(&inbox);
    let later = Instant::now() + SLOW;
    assert!(inbox.stale(later, 20 * MS).is_empty(), "a thread is coming");
    next(&inbox);
    assert!(inbox.stale(Instant::now(), LONG).is_empty(), "it has just begun");
    assert_eq!(ids(&inbox.stale(later, 20 * MS)), [5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(wanted(&inbox), None, "both slots are taken, and nothing is claimed ahead");
}

#[test]
fn what_was_asked_for_before_jobs_became_stale_is_refused_beyond_the_limit() {
    let inbox = quick_inbox();
    assert_eq!(wanted(&inbox), Some(402));
    inbox.put(402, claimed(3..13), false);
    assert_eq!([next(&inbox), next(&inbox)], [3, 4]);
    inbox.ring();
    assert_eq!(wanted(&inbox), Some(392));
    assert_eq!(inbox.stale(Instant::now() + SLOW, 20 * MS).len(), 8);
    assert_eq!(inbox.put(392, claimed(20..30), false).refused.len(), 10);
}

#[test]
fn a_pause_gives_back_what_was_claimed_ahead() {
    let inbox = quick_inbox();
    assert_eq!(wanted(&inbox), Some(402));
    inbox.put(402, claimed(3..13), false);
    next(&inbox);
    assert_eq!(inbox.set(2, true).len(), 9);
    assert_eq!(inbox.set(2, false).len(), 0);
    assert_eq!(wanted(&inbox), Some(401));
    assert_eq!(inbox.set(1, false).len(), 0);
    assert_eq!(inbox.put(401, claimed(20..30), false).refused.len(), 10, "asked for before it was scaled down");
}

#[test]
fn what_no_thread_has_begun_can_be_taken_away_and_others_come_in_its_place() {
    let inbox = inbox(3);
    assert_eq!(wanted(&inbox), Some(3));
    inbox.put(3, claimed([1, 2, 3]), false);
    inbox.hire();
    next(&inbox);
    assert_eq!((inbox.ready(), inbox.executing()), (2, 1));
    assert_eq!(ids(&inbox.clear()), [2, 3]);
    assert_eq!((inbox.ready(), inbox.executing()), (0, 1));
    assert_eq!(wanted(&inbox), Some(2));
}

#[test]
fn threads_above_the_limit_leave_when_they_come_by() {
    let inbox = inbox(2);
    assert_eq!(wanted(&inbox), Some(2));
    inbox.put(2, claimed([1, 2]), false);
    assert_eq!(inbox.hire(), 2);
    assert_eq!([next(&inbox), next(&inbox)], [1, 2]);
    inbox.set(1, false);
    done(&inbox, 1);
    assert!(inbox.next().is_none(), "the first to come is one too many");
    inbox.left();
    done(&inbox, 2);
    assert_eq!(wanted(&inbox), Some(1));
    assert!(!inbox.put(1, claimed([3]), false).hire, "the other is enough");
    assert_eq!(next(&inbox), 3);
    inbox.set(2, false);
    assert_eq!(wanted(&inbox), Some(1));
    assert!(inbox.put(1, claimed([4]), false).hire);
    assert_eq!(inbox.hire(), 1, "a wider inbox gets a thread when there is work");
}

#[test]
fn threads_are_hired_up_to_the_limit_and_again_if_they_could_not_be_had() {
    let inbox = quick_inbox();
    inbox.set(3, false);
    assert_eq!(wanted(&inbox), Some(403));
    assert!(inbox.put(403, claimed(3..406), false).hire);
    assert_eq!((inbox.hire(), inbox.hire()), (1, 0));
    inbox.not_hired(1);
    assert_eq!((inbox.hire(), inbox.hire()), (1, 0));
    inbox.set(1, false);
    assert_eq!(inbox.hire(), 0);
    (0..2).for_each(|_| assert!(inbox.next().is_none()));
    assert!(!inbox.is_without_threads());
    assert_eq!(next(&inbox), 3);
}

#[test]
fn a_thread_that_was_written_off_leaves_its_place_to_another() {
    let inbox = inbox(1);
    assert_eq!(wanted(&inbox), Some(1));
    inbox.put(1, claimed([1]), false);
    assert!(inbox.is_without_threads());
    assert_eq!(inbox.hire(), 1);
    assert!(!inbox.is_without_threads());
    next(&inbox);
    inbox.write_off(1);
    assert!(inbox.is_without_threads());
    assert_eq!((inbox.executing(), inbox.wait_for_jobs(Instant::now())), (0, 0));
    assert_eq!(wanted(&inbox), Some(1));
    assert!(inbox.put(1, claimed([2]), false).hire);
    assert_eq!(inbox.hire(), 1);
    assert_eq!(next(&inbox), 2);
}

#[test]
fn a_closed_inbox_is_over_once_its_jobs_and_threads_are_gone() {
    let inbox = inbox(2);
    assert_eq!(wanted(&inbox), Some(2));
    inbox.put(1, claimed([1]), false);
    assert_eq!(inbox.hire(), 1);
    next(&inbox);
    assert!(inbox.close().is_empty() && !inbox.is_open());
    assert_eq!(ids(&inbox.put(1, claimed([2]), false).refused), [2]);
    assert!(!inbox.wants_jobs() && !inbox.is_over(), "a job runs");
    done(&inbox, 1);
    assert!(!inbox.is_over(), "a thread is there");
    assert!(inbox.next().is_none() && !inbox.is_over(), "it is leaving");
    inbox.left();
    assert!(inbox.is_over());
    inbox.wait_for_threads(Instant::now() + LONG);
}

#[test]
fn a_closed_inbox_gives_back_what_no_thread_has_begun_and_hires_nobody() {
    let inbox = inbox(2);
    assert_eq!(wanted(&inbox), Some(2));
    inbox.put(2, claimed([1, 2]), false);
    assert_eq!(ids(&inbox.close()), [1, 2]);
    inbox.set(3, false);
    assert_eq!((inbox.hire(), inbox.wants_jobs(), inbox.is_over()), (0, false, true));
}

#[test]
fn a_job_that_a_claim_passed_over_rings_when_the_thread_lets_go_of_its_earlier_attempt() {
    let inbox = inbox(2);
    assert_eq!(wanted(&inbox), Some(2));
    inbox.put(2, claimed([1, 2]), false);
    inbox.hire();
    assert_eq!([next(&inbox), next(&inbox)], [1, 2]);
    done(&inbox, 2);
    assert_eq!(wanted(&inbox), Some(1));
    inbox.put(1, Vec::new(), false);
    assert!(!inbox.wants_jobs(), "the table had no more that it may have");
    for _ in 0..2 {
        assert_eq!(inbox.passed(&[1, 2]), 1, "a thread has an attempt of the first");
    }
    assert!(!inbox.wants_jobs());
    done(&inbox, 1);
    assert!(inbox.wants_jobs());
    assert!(inbox.state.lock().passed.is_empty());
}
