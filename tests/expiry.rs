//! Jobs that expire: too late to begin is too late, and only that.

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::{DEADLINE, get, reaches};
use kiln::testing::{Hand, ManualClock};
use kiln::{Changes, Event, Job, Kiln, NewJob, Outcome, Running, State, Unique};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn place() -> (ManualClock, Kiln, Hand) {
    let clock = ManualClock::at("2026-03-02T09:00:00Z".parse().unwrap());
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let hand = Hand::new(&kiln, ["w"]);
    (clock, kiln, hand)
}

fn job() -> NewJob {
    NewJob::new("w")
}

/// Claims, and finds that it is too late.
fn expires(kiln: &Kiln, hand: &Hand, id: i64) -> Job {
    hand.stage(&["default"]).unwrap();
    assert!(hand.claim("default", 9).unwrap().is_empty());
    let job = get(kiln, id);
    assert_eq!(job.state, State::Cancelled, "{:?}", job.errors);
    assert!(job.errors.last().unwrap().error.starts_with("expired: "), "{:?}", job.errors);
    job
}

#[test]
fn a_job_not_claimed_before_it_expires_is_cancelled_and_says_so() {
    let (clock, kiln, hand) = place();
    let id = kiln.enqueue(job().expires_in(MINUTE)).unwrap().id;
    clock.advance(MINUTE);
    assert_eq!(get(&kiln, id).state, State::Available, "nobody asked for it");
    let job = expires(&kiln, &hand, id);
    assert_eq!((job.attempt, job.attempted_at, job.cancelled_at), (0, None, Some(clock.now())));
    let told: Vec<_> = job.errors.iter().map(|error| (error.attempt, error.error.as_str())).collect();
    assert_eq!(told, [(0, "expired: not claimed before 2026-03-02T09:01:00Z")]);
    assert!(hand.claim("default", 9).unwrap().is_empty(), "once");
    assert_eq!(get(&kiln, id), job);
}

#[test]
fn a_job_claimed_in_time_runs_to_its_end_however_late_that_is() {
    let (clock, kiln, hand) = place();
    let id = kiln.enqueue(job().expires_in(MINUTE)).unwrap().id;
    clock.advance(MINUTE - Duration::from_micros(1));
    let claimed = hand.claim("default", 1).unwrap().remove(0);
    clock.advance(24 * HOUR);
    assert!(hand.ack(&claimed, Outcome::Complete).unwrap());
    assert_eq!(get(&kiln, id).state, State::Completed);
}

#[test]
fn a_job_that_waits_once_more_may_be_too_late_for_that() {
    // However the first attempt came to an end, the second is too late.
    type End = fn(&Hand, &Job) -> bool;
    let endings: [(End, i64, usize); 4] = [
        (|hand, job| hand.ack(job, Outcome::snooze(2 * MINUTE)).unwrap(), 0, 1),
        (|hand, job| hand.fail(job, "no luck", 2 * MINUTE).unwrap(), 1, 2),
        (|hand, job| hand.release(job).unwrap(), 0, 1),
        (|hand, job| hand.abandon(job).unwrap(), 1, 2),
    ];
    for (n, (end, attempt, errors)) in endings.into_iter().enumerate() {
        let (clock, kiln, hand) = place();
        let id = kiln.enqueue(job().expires_in(MINUTE)).unwrap().id;
        let claimed = hand.claim("default", 1).unwrap().remove(0);
        assert!(end(&hand, &claimed));
        clock.advance(2 * MINUTE);
        let job = expires(&kiln, &hand, id);
        assert_eq!((job.attempt, job.errors.len()), (attempt, errors), "ending {n}");
    }
}

#[test]
fn a_job_scheduled_past_its_expiry_never_runs_and_one_due_before_it_does() {
    let (clock, kiln, hand) = place();
    let late = kiln.enqueue(job().schedule_in(HOUR).expires_in(MINUTE)).unwrap().id;
    let early = kiln.enqueue(job().schedule_in(MINUTE).expires_in(HOUR)).unwrap().id;
    clock.advance(MINUTE);
    hand.stage(&["default"]).unwrap();
    assert_eq!(hand.claim("default", 9).unwrap()[0].id, early);
    assert_eq!(get(&kiln, late).state, State::Scheduled, "it is not claimed yet");
    clock.advance(HOUR);
    expires(&kiln, &hand, late);
}

#[test]
fn a_job_that_somebody_retries_is_wanted_and_does_not_expire_again() {
    let (clock, kiln, hand) = place();
    let id = kiln.enqueue(job().expires_in(MINUTE)).unwrap().id;
    clock.advance(HOUR);
    expires(&kiln, &hand, id);
    assert_eq!(kiln.retry(id).unwrap(), 1);
    assert_eq!(get(&kiln, id).expires_at, None);
    assert_eq!(hand.claim("default", 1).unwrap()[0].id, id);
}

#[test]
fn expired_jobs_stand_in_nobody_s_way_whatever_their_priority() {
    let (clock, kiln, hand) = place();
    let expired = kiln.enqueue_many((0..40).map(|n| job().priority(n % 5).expires_in(MINUTE))).unwrap();
    let live = kiln.enqueue_many((0..3).map(|_| job().priority(9))).unwrap();
    clock.advance(MINUTE);
    for job in live {
        assert_eq!(hand.claim("default", 1).unwrap()[0].id, job.id);
    }
    assert!(hand.claim("default", 1).unwrap().is_empty());
    assert!(expired.iter().all(|job| get(&kiln, job.id).state == State::Cancelled));
}

#[test]
fn a_runtime_gets_past_a_thousand_expired_jobs_and_tells_of_each() {
    let (told, events) = mpsc::channel();
    let observer = move |event: &Event| match event {
        Event::Expired { .. } => told.send(event.to_string()).unwrap(),
        Event::Claimed { job, .. } => told.send(format!("claimed {}", job.id)).unwrap(),
        _ => {}
    };
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).observe(observer).open().unwrap();
    kiln.enqueue_many((0..1000).map(|_| job().expires_in(MINUTE))).unwrap();
    let live = kiln.enqueue(job().priority(9)).unwrap().id;
    clock.advance(MINUTE);
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
    reaches(&kiln, live, State::Completed);
    let mut lines: Vec<String> = Vec::new();
    while lines.len() < 1001 {
        lines.push(events.recv_timeout(DEADLINE).unwrap());
    }
    assert!(lines.contains(&"expired job=1 queue=default worker=w".to_owned()));
    assert!(lines.contains(&format!("claimed {live}")), "and begins none of them");
    let waited = kiln.wait(1, Duration::ZERO).unwrap().expect("an expired job has ended");
    assert_eq!(waited.state, State::Cancelled);
    runtime.stop();
    assert!(events.try_recv().is_err());
}

#[test]
fn an_update_sets_an_expiry_moves_it_and_takes_it_away() {
    let (clock, kiln, hand) = place();
    let new = |queue| kiln.enqueue(job().queue(queue).expires_in(MINUTE)).unwrap().id;
    let [never, sooner, later, gone] = ["default", "other", "default", "default"].map(new);
    kiln.update(never, Changes::new().expires_at(None)).unwrap();
    kiln.update(sooner, Changes::new().expires_in(Duration::from_secs(5))).unwrap();
    kiln.update(later, Changes::new().expires_at(clock.now() + jiff::SignedDuration::from_hours(2))).unwrap();
    kiln.update(gone, Changes::new().priority(3)).unwrap();
    assert_eq!(get(&kiln, gone).expires_at, Some(clock.now() + jiff::SignedDuration::from_mins(1)), "left as it was");
    clock.advance(Duration::from_secs(10));
    assert!(hand.claim("other", 1).unwrap().is_empty());
    assert_eq!(hand.claim("default", 1).unwrap()[0].id, never);
    assert_eq!(get(&kiln, sooner).state, State::Cancelled);
    clock.advance(HOUR);
    assert_eq!(hand.claim("default", 9).unwrap()[0].id, later);
    assert_eq!(get(&kiln, gone).state, State::Cancelled);

    // What runs is left to run; what has ended gets an expiry that it will never need.
    for id in [later, never, gone] {
        kiln.update(id, Changes::new().expires_at(clock.now())).unwrap();
    }
    assert!(hand.ack(&get(&kiln, later), Outcome::Complete).unwrap());
    assert_eq!(
        [never, later, gone].map(|id| get(&kiln, id).state),
        [State::Executing, State::Completed, State::Cancelled]
    );
    let error = kiln.update(later, Changes::new().expires_in(Duration::MAX)).unwrap_err();
    assert_eq!(error.field(), Some("expires_in"));
    assert_eq!(kiln.update(never, |_: &Job| Changes::new().expires_at(None)).unwrap(), 1);
    assert_eq!(get(&kiln, never).expires_at, None);
}

#[test]
fn a_job_that_expired_makes_no_other_a_double_unless_cancelled_ones_do() {
    for (states, counts) in [(State::INCOMPLETE.to_vec(), false), (State::ALL.to_vec(), true)] {
        let (clock, kiln, hand) = place();
        let unique = || job().expires_in(MINUTE).unique(Unique::new().states(states.clone()));
        let waits = kiln.enqueue(unique()).unwrap();
        assert!(kiln.enqueue(unique()).unwrap().conflict);
        clock.advance(MINUTE);
        assert_eq!(kiln.enqueue(unique()).unwrap().conflict, counts, "it waits, though it is too late");
        hand.claim("default", 1).unwrap();
        assert_eq!(get(&kiln, waits.id).state, State::Cancelled);
        assert_eq!(kiln.enqueue(unique()).unwrap().id == waits.id, counts);
    }
    // One that was begun in time is as good as any.
    let (clock, kiln, hand) = place();
    let unique = || job().expires_in(MINUTE).unique(Unique::new());
    kiln.enqueue(unique()).unwrap();
    let claimed = hand.claim("default", 1).unwrap();
    clock.advance(HOUR);
    assert!(kiln.enqueue(unique()).unwrap().conflict);
    hand.ack(&claimed[0], Outcome::Complete).unwrap();
    assert!(kiln.enqueue(unique()).unwrap().conflict);
}

#[test]
fn a_job_of_a_paused_queue_or_of_no_worker_waits_to_be_told_that_it_is_too_late() {
    let (clock, kiln, hand) = place();
    let ghost = kiln.enqueue(NewJob::new("nobody").expires_in(MINUTE)).unwrap().id;
    clock.advance(HOUR);
    assert!(hand.claim("default", 1).unwrap().is_empty());
    assert_eq!(get(&kiln, ghost).state, State::Available);
    let knows = Hand::new(&kiln, ["nobody"]);
    expires(&kiln, &knows, ghost);

    let runtime = kiln.runtime().queue("q", 1).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
    kiln.pause("q").unwrap();
    let paused = kiln.enqueue(job().queue("q").expires_in(MINUTE)).unwrap().id;
    clock.advance(HOUR);
    assert_eq!(get(&kiln, paused).state, State::Available);
    kiln.resume("q").unwrap();
    reaches(&kiln, paused, State::Cancelled);
    runtime.stop();
}
