//! Clocks that jump, computers that sleep, days that are not every year's. Summer time is told in `tests/crons.rs`, any
//! jumps at all in `tests/simulation.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kiln::testing::{Hand, ManualClock};
use kiln::{Failure, Job, Kiln, NewCron, NewJob, Outcome, Running, State, Worker};

use crate::common::{DEADLINE, Folder, Gate, Meter, count, get, reaches, until};
use crate::report;

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Waits at a gate, and has half a minute for it.
struct Sleeper(Gate, Meter);

impl Worker for Sleeper {
    const NAME: &'static str = "sleeper";
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        let _inside = self.1.enter();
        self.0.pass();
        job.check()?;
        Ok(Outcome::Complete)
    }

    fn timeout(&self, _: &Job) -> Option<Duration> {
        Some(DEADLINE * 2)
    }
}

#[test]
fn a_computer_that_sleeps_for_hours_times_nothing_out_and_runs_what_became_due() {
    let folder = Folder::new();
    let clock = ManualClock::at(at("2026-03-02T22:00:00Z"));
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    let (gate, meter) = (Gate::default(), Meter::default());
    let runtime = kiln.runtime().queue("default", 4).worker(Sleeper(gate.clone(), meter.clone()));
    let runtime = runtime.worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    let asleep = kiln.enqueue(NewJob::new("sleeper")).unwrap().id;
    let due = kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_secs(3 * 3600))).unwrap().id;
    let not_due = kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_secs(30 * 3600))).unwrap().id;
    until("it runs", || meter.inside() == 1);

    // The wall clock goes on while the computer sleeps, the monotonic one does not.
    clock.set(clock.now() + HOUR * 10);
    reaches(&kiln, due, State::Completed);
    assert_eq!(get(&kiln, not_due).state, State::Scheduled);
    gate.open();
    let job = reaches(&kiln, asleep, State::Completed);
    assert_eq!((job.attempt, job.errors.len()), (1, 0), "its time ran while it was awake only");
    runtime.stop();
    report(
        "the computer sleeps for 10 hours in the middle of a job with a timeout of a minute",
        1,
        "nothing timed out, what became due ran",
    );
}

#[test]
fn a_clock_set_back_and_forward_by_hours_loses_no_job_and_leaves_none_stuck() {
    let folder = Folder::new();
    let clock = ManualClock::at(at("2026-03-02T12:00:00Z"));
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    let runtime = kiln.runtime().queue("default", 4).worker_fn("w", |job: &Running<()>| match job.attempt {
        1 => Err(Failure::from("the first time")),
        _ => Ok(Outcome::Complete),
    });
    let runtime = runtime.start().unwrap();
    let mut ids = Vec::new();
    let jumps = [5, -9, 3, -48, 20, -1, 40, -12, 6, 24];
    for hours in jumps {
        ids.push(kiln.enqueue(NewJob::new("w")).unwrap().id);
        ids.push(kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_secs(1800))).unwrap().id);
        clock.set(clock.now() + HOUR * hours);
    }
    // The last of the clocks reaches all that was due by any of them.
    clock.set(at("2026-04-01T00:00:00Z"));
    until("each has failed once", || ids.iter().all(|id| get(&kiln, *id).attempt >= 1));
    until("all have ended", || {
        clock.advance(Duration::from_secs(3600));
        count(&kiln, State::Completed) == ids.len() as u64
    });
    assert!(ids.iter().all(|id| get(&kiln, *id).attempt == 2));
    runtime.stop();
    report(
        "the clock is set back and forward by hours",
        jumps.len(),
        format!("{} jobs, each executed as often as it asked for", ids.len()),
    );
}

#[test]
fn a_leap_day_comes_once_in_four_years_however_the_clock_gets_there() {
    let clock = ManualClock::at(at("2026-01-01T00:00:00Z"));
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let hand = Hand::new(&kiln, ["w"]);
    kiln.cron(NewCron::new("30 12 29 2 *", NewJob::new("w")).name("leap")).unwrap();
    let mut fired = Vec::new();
    let mut jumps = 0;
    for year in 2026..=2033 {
        for day in ["02-28T23:59:59Z", "03-01T00:00:00Z", "02-28T12:00:00Z", "12-31T23:59:59Z"] {
            clock.set(at(&format!("{year}-{day}")));
            jumps += 1;
            fired.extend(hand.fire().unwrap().into_iter().map(|job| job.scheduled_at.to_string()[..4].to_owned()));
        }
    }
    let entry = kiln.crons().unwrap().remove(0);
    assert_eq!(fired.len(), 2, "{fired:?}");
    assert_eq!(entry.last_slot, Some(at("2032-02-29T12:30:00Z")));

    clock.set(at("2028-02-28T12:00:00Z"));
    let job = kiln.enqueue(NewJob::new("w").queue("q").schedule_in(Duration::from_secs(24 * 3600))).unwrap();
    assert_eq!(job.scheduled_at, at("2028-02-29T12:00:00Z"));
    clock.set(at("2028-02-29T11:59:59Z"));
    assert_eq!(hand.stage(&["q"]).unwrap(), 0);
    clock.set(at("2028-02-29T12:00:00Z"));
    assert_eq!(hand.stage(&["q"]).unwrap(), 1);
    report("a leap day, with the clock jumping about it", jumps, "its slot was fired once in each of the 2 leap years");
}

#[test]
fn a_timeout_runs_while_the_clock_stands_still_or_is_set_back() {
    struct Late(Arc<AtomicUsize>);
    impl Worker for Late {
        const NAME: &'static str = "late";
        type Args = ();

        fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
            self.0.fetch_add(1, Ordering::SeqCst);
            job.poll(Duration::from_millis(1), || None::<()>)?;
            Ok(Outcome::Complete)
        }

        fn timeout(&self, _: &Job) -> Option<Duration> {
            Some(Duration::from_millis(300))
        }
    }
    let clock = ManualClock::at(at("2026-03-02T22:00:00Z"));
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let runtime = kiln.runtime().worker(Late(Arc::clone(&begun))).start().unwrap();
    let ids = [(1, 0), (2, -5)].map(|(nth, hours)| {
        let id = kiln.enqueue(NewJob::new("late").max_attempts(1)).unwrap().id;
        // Not whether it is inside: on a machine that is busy it may have left before anybody has looked.
        until("it has begun", || begun.load(Ordering::SeqCst) == nth);
        clock.set(clock.now() + HOUR * hours);
        let job = reaches(&kiln, id, State::Discarded);
        assert!(job.errors[0].error.contains("timed out"), "{:?}", job.errors);
        id
    });
    runtime.stop();
    report("the clock stands still, or is set back by 5 hours, during a job with a timeout", ids.len(), "it timed out");
}

#[test]
fn cron_slots_come_once_while_summer_time_comes_and_goes_and_the_clock_is_set_back_about_it() {
    let mut looks = 0;
    // Days of 23 and of 25 hours.
    for (begin, hours) in [("2026-03-28T12:00:00Z", 47), ("2026-10-24T12:00:00Z", 49)] {
        let clock = ManualClock::at(at(begin));
        let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
        let hand = Hand::new(&kiln, ["w"]);
        for (name, expression) in [("fixed", "30 2 * * *"), ("interval", "*/20 * * * *")] {
            kiln.cron(NewCron::new(expression, NewJob::new("w")).zone("Europe/Berlin").name(name)).unwrap();
        }
        let mut fired: Vec<(String, Timestamp)> = Vec::new();
        for minutes in (10..=hours * 60).step_by(10) {
            let now = at(begin) + SignedDuration::from_mins(minutes);
            // Each time, somebody turns the clock an hour or two back, and looks; then it is right again.
            for time in [now, now - HOUR, now - HOUR * 2, now] {
                clock.set(time);
                looks += 1;
                fired.extend(hand.fire().unwrap().into_iter().map(|job| {
                    let text = |key: &str| job.meta.get(key).unwrap().as_str().unwrap().to_owned();
                    (text("cron_name"), text("cron_at").parse().unwrap())
                }));
            }
        }
        let of = |name: &str| -> Vec<Timestamp> {
            fired.iter().filter(|(fired, _)| fired == name).map(|(_, slot)| *slot).collect()
        };
        assert_eq!(of("fixed").len(), 2, "once a day, also on one where 02:30 is not shown or shown twice");
        let interval = of("interval");
        assert_eq!(interval.len() as i64, hours * 3);
        assert!(interval.windows(2).all(|pair| pair[1].duration_since(pair[0]) == SignedDuration::from_mins(20)));
    }
    report(
        "summer time comes and goes, with the clock set back by an hour and by two at every look",
        looks,
        "a fixed time was fired once a day, an interval in every 20 minutes",
    );
}
