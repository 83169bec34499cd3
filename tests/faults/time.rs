//! Clocks that jump, computers that sleep, days that are not every year's. Summer time is told in `tests/crons.rs`, any
//! jumps at all in `tests/simulation.rs`.

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
