//! Cron entries: what is fired, when, and how often, whatever the clock and other processes do.
//!
//! `KILN_CRONS_DRAWS` says how many stories are drawn (25), `KILN_CRONS_SEED` with which seed the first one is.

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use kiln::testing::{Hand, ManualClock};
use kiln::{CronEntry, Durability, Event, Filter, Job, Kiln, Missed, NewCron, NewJob, Running, State, Unique};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(30);

/// A kiln in memory on a clock that stands at this time, and a hand to fire with.
fn at(time: &str) -> (ManualClock, Kiln, Hand) {
    let clock = ManualClock::at(time.parse().unwrap());
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let hand = Hand::new(&kiln, ["app.Worker"]);
    (clock, kiln, hand)
}

fn on_file(path: &Path, clock: &ManualClock) -> Kiln {
    Kiln::builder(path).durability(Durability::Normal).clock(clock).open().unwrap()
}

fn job() -> NewJob {
    NewJob::new("app.Worker")
}

/// Turns the clock, and fires; says which slots were.
fn fired_at(clock: &ManualClock, hand: &Hand, time: &str) -> Vec<String> {
    clock.set(time.parse().unwrap());
    hand.fire().unwrap().iter().map(cron_at).collect()
}

fn note(job: &Job, key: &str) -> Value {
    job.meta.get(key).unwrap_or_default()
}

fn cron_at(job: &Job) -> String {
    note(job, "cron_at").as_str().unwrap().to_owned()
}

fn slot(job: &Job) -> Timestamp {
    cron_at(job).parse().unwrap()
}

fn entry(kiln: &Kiln, name: &str) -> CronEntry {
    kiln.crons().unwrap().into_iter().find(|entry| entry.name == name).unwrap()
}

/// Waits until it is so.
fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_job_has_what_its_entry_says_and_tells_where_it_comes_from() {
    let (clock, kiln, hand) = at("2026-03-02T08:59:59Z");
    let job = job().args(json!({ "n": 1 })).queue("mail").priority(3).max_attempts(7).tags(["B", "a"]);
    let new = NewCron::new("0 9 * * MON-FRI", job.meta(json!({ "by": "me", "cron_at": "overwritten" })));
    let added = kiln.cron(new.zone("Europe/London")).unwrap();
    assert!(hand.fire().unwrap().is_empty());
    clock.set("2026-03-02T09:00:00.25Z".parse().unwrap());
    let fired = hand.fire().unwrap();
    assert_eq!(fired.len(), 1);
    let stored = kiln.get(fired[0].id).unwrap().unwrap();
    assert_eq!(stored, fired[0]);
    assert_eq!((stored.worker.as_str(), stored.queue.as_str()), ("app.Worker", "mail"));
    assert_eq!((stored.state, stored.priority, stored.max_attempts), (State::Available, 3, 7));
    assert_eq!(stored.args, json!({ "n": 1 }));
    assert_eq!(stored.tags, ["a", "b"]);
    assert_eq!((stored.inserted_at, stored.scheduled_at), (clock.now(), clock.now()));
    let expected = json!({
        "by": "me",
        "cron": true,
        "cron_at": "2026-03-02T09:00:00+00:00",
        "cron_expr": "0 9 * * MON-FRI",
        "cron_name": added.name,
        "cron_tz": "Europe/London",
    });
    assert_eq!(stored.meta, expected);
    assert_eq!(hand.claim("mail", 5).unwrap().len(), 1);
}

#[test]
fn an_entry_is_named_as_the_reference_names_it() {
    let kiln = Kiln::in_memory().unwrap();
    let name = |new| kiln.cron(new).unwrap().name;
    assert_eq!(name(NewCron::new("@daily", job())), "bde5273e");
    assert_eq!(name(NewCron::new("@daily", job()).zone("America/New_York")), "0a39abc5");
    assert_eq!(name(NewCron::new("@daily", job()).name("mine")), "mine");
    assert_eq!(entry(&kiln, "bde5273e").zone, "UTC");
}

#[test]
fn the_system_s_zone_is_taken_by_its_name() {
    if env::var("KILN_CRONS_ROLE").is_ok() {
        let kiln = Kiln::in_memory().unwrap();
        let entry = kiln.cron(NewCron::new("@daily", job()).system_zone()).unwrap();
        let next = entry.schedule().unwrap().next_after("2026-07-01T12:00:00Z".parse().unwrap());
        println!("zone {} next {} name {}", entry.zone, next.unwrap(), entry.name);
        return;
    }
    // A zone of its own needs a process of its own.
    let says = |zone: &str| {
        let output = std::process::Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_system_s_zone_is_taken_by_its_name", "--nocapture"])
            .envs([("TZ", zone), ("KILN_CRONS_ROLE", "zone")])
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let line = output.lines().find_map(|line| line.split_once("zone ")).expect("it says so").1;
        line.split_once(" name ").map(|(zone, name)| (zone.to_owned(), name.to_owned())).unwrap()
    };
    let [(tokyo, name), (lima, same)] = ["Asia/Tokyo", "America/Lima"].map(says);
    assert_eq!(tokyo, "Asia/Tokyo next 2026-07-01T15:00:00Z");
    assert_eq!(lima, "America/Lima next 2026-07-02T05:00:00Z");
    assert_eq!(name, same, "it is the same entry, wherever the computer is");
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_written() {
    let kiln = Kiln::in_memory().unwrap();
    let run_all = |max| NewCron::new("@daily", job()).missed(Missed::RunAll { max, within: DAY });
    let refused = [
        ("cron", NewCron::new("0 25 * * *", job())),
        ("cron", NewCron::every(Duration::ZERO, job())),
        ("zone", NewCron::new("@daily", job()).zone("Europe/Atlantis")),
        ("name", NewCron::new("@daily", job()).name(" ")),
        ("missed", run_all(0)),
        ("missed", run_all(1001)),
        ("priority", NewCron::new("@daily", job().priority(10))),
        ("worker", NewCron::new("@daily", NewJob::new(""))),
        ("args", NewCron::new("@daily", job().args([1]))),
        ("scheduled_at", NewCron::new("@daily", job().schedule_in(MINUTE))),
        ("expires_at", NewCron::new("@daily", job().expires_at(Timestamp::UNIX_EPOCH))),
        ("state", NewCron::new("@daily", job().state(State::Suspended))),
        ("unique", NewCron::new("@daily", job().unique(Unique::new().by([])))),
        ("extra", NewCron::new("@daily", job().extra("a", 1))),
    ];
    for (field, new) in refused {
        let shown = format!("{new:?}");
        assert_eq!(kiln.cron(new).unwrap_err().field(), Some(field), "{shown}");
    }
    let twice = || NewCron::new("@daily", job());
    let error = kiln.runtime().cron(twice()).cron(twice()).build().err().unwrap();
    assert_eq!(error.to_string(), "cron entry \"bde5273e\" was given twice; names must differ");
    assert!(kiln.crons().unwrap().is_empty());
}

#[test]
fn an_entry_added_again_is_the_same_entry_with_a_new_definition() {
    let (clock, kiln, hand) = at("2026-03-02T08:30:00Z");
    let first = kiln.cron(NewCron::new("@hourly", job()).name("e")).unwrap();
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:00:00Z").len(), 1);
    kiln.pause_cron("e").unwrap();
    let new = NewCron::new("@hourly", job().queue("other").tags(["t"])).name("e").missed(Missed::Skip);
    let second = kiln.cron(new).unwrap();
    assert_eq!((second.queue.as_str(), second.missed, second.paused), ("other", Missed::Skip, true));
    assert_eq!(second.last_slot, Some("2026-03-02T09:00:00Z".parse().unwrap()));
    assert_eq!(second.inserted_at, first.inserted_at);
    assert_eq!(kiln.crons().unwrap(), [second]);
}

#[test]
fn an_entry_whose_definition_changed_still_owes_what_was_missed_unless_its_slots_changed() {
    for (expression, zone, owed) in [("@hourly", "UTC", 1), ("0 * * * *", "UTC", 0), ("@hourly", "Asia/Kolkata", 0)] {
        let (clock, kiln, hand) = at("2026-03-02T08:20:00Z");
        kiln.cron(NewCron::new("@hourly", job()).name("e").zone("UTC")).unwrap();
        clock.set("2026-03-02T09:50:00Z".parse().unwrap());
        kiln.cron(NewCron::new(expression, job().queue("new")).name("e").zone(zone)).unwrap();
        assert_eq!(hand.fire().unwrap().len(), owed, "{expression} {zone}");
        assert_eq!(fired_at(&clock, &hand, "2026-03-02T10:45:00Z").len(), 1, "{expression} {zone}");
    }
}

#[test]
fn a_new_entry_fires_nothing_of_the_past() {
    let (clock, kiln, hand) = at("2026-03-02T09:00:00Z");
    let all = Missed::RunAll { max: 1000, within: 100 * DAY };
    let added = kiln.cron(NewCron::new("@hourly", job()).missed(all)).unwrap();
    assert_eq!(added.next_slot(), Some("2026-03-02T10:00:00Z".parse().unwrap()));
    assert!(hand.fire().unwrap().is_empty());
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T10:00:00Z"), ["2026-03-02T10:00:00+00:00"]);
}

#[test]
fn two_handles_make_one_entry_and_both_fire_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let clock = ManualClock::at("2026-03-02T08:59:00Z".parse().unwrap());
    let kilns = [on_file(&path, &clock), on_file(&path, &clock)];
    for kiln in &kilns {
        kiln.cron(NewCron::new("* * * * *", job())).unwrap();
    }
    let hands = kilns.each_ref().map(|kiln| Hand::new(kiln, ["app.Worker"]));
    for round in 0..4 {
        assert_eq!(kilns[round % 2].crons().unwrap().len(), 1);
        clock.advance(MINUTE);
        let (first, second) = (&hands[round % 2], &hands[(round + 1) % 2]);
        assert_eq!(first.fire().unwrap().len(), 1);
        assert_eq!(second.fire().unwrap().len(), 0);
    }
}

#[test]
fn a_paused_entry_lets_its_slots_pass_and_goes_on_when_it_is_resumed() {
    let (clock, kiln, hand) = at("2026-03-02T08:30:00Z");
    let all = Missed::RunAll { max: 100, within: DAY };
    kiln.cron(NewCron::new("@hourly", job()).name("e").missed(all)).unwrap();
    kiln.cron(NewCron::new("@hourly", job()).name("bystander")).unwrap();
    assert!(kiln.pause_cron("e").unwrap());
    assert!(!kiln.pause_cron("e").unwrap());
    assert!(!kiln.pause_cron("nobody").unwrap());
    assert_eq!(entry(&kiln, "e").next_slot(), None);
    let fired = |time: &str| {
        clock.set(time.parse().unwrap());
        let jobs = hand.fire().unwrap();
        jobs.iter().filter(|job| note(job, "cron_name") == "e").map(cron_at).collect::<Vec<_>>()
    };
    assert!(fired("2026-03-02T11:00:00Z").is_empty());
    clock.set("2026-03-02T12:30:00Z".parse().unwrap());
    assert!(kiln.resume_cron("e").unwrap());
    assert!(!kiln.resume_cron("e").unwrap());
    assert!(fired("2026-03-02T12:40:00Z").is_empty());
    assert_eq!(fired("2026-03-02T13:00:00Z"), ["2026-03-02T13:00:00+00:00"]);
}

#[test]
fn a_deleted_entry_is_gone_and_its_jobs_stay() {
    let (clock, kiln, hand) = at("2026-03-02T08:30:00Z");
    kiln.cron(NewCron::new("@hourly", job()).name("e")).unwrap();
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:00:00Z").len(), 1);
    assert!(kiln.delete_cron("e").unwrap());
    assert!(!kiln.delete_cron("e").unwrap());
    assert!(kiln.crons().unwrap().is_empty());
    assert!(fired_at(&clock, &hand, "2026-03-02T10:00:00Z").is_empty());
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 1);
}

/// The table in the documentation of `CronEntry`.
#[test]
fn missed_slots_are_skipped_run_once_or_run_as_far_as_the_policy_goes() {
    let run_all = |max, within| Missed::RunAll { max, within };
    let cases: [(Missed, &[&str]); 6] = [
        (Missed::Skip, &[]),
        (Missed::RunOnce, &["12"]),
        (run_all(5, HOUR), &["12"]),
        (run_all(2, DAY), &["11", "12"]),
        (run_all(5, DAY), &["10", "11", "12"]),
        (run_all(5, 10 * MINUTE), &[]),
    ];
    for (missed, expected) in cases {
        let (clock, kiln, hand) = at("2026-03-02T09:30:00Z");
        kiln.cron(NewCron::new("@hourly", job()).name("e").missed(missed)).unwrap();
        let expected: Vec<String> = expected.iter().map(|hour| format!("2026-03-02T{hour}:00:00+00:00")).collect();
        assert_eq!(fired_at(&clock, &hand, "2026-03-02T12:30:00Z"), expected, "{missed:?}");
        assert_eq!(entry(&kiln, "e").last_slot, Some("2026-03-02T12:00:00Z".parse().unwrap()), "{missed:?}");
        assert!(hand.fire().unwrap().is_empty(), "{missed:?}");
        assert_eq!(fired_at(&clock, &hand, "2026-03-02T13:00:00Z"), ["2026-03-02T13:00:00+00:00"], "{missed:?}");
    }
}

#[test]
fn a_slot_is_missed_when_a_minute_has_passed() {
    for (time, count) in [("2026-03-02T09:00:59.999Z", 1), ("2026-03-02T09:01:00Z", 0)] {
        for missed in [Missed::Skip, Missed::RunAll { max: 1, within: Duration::ZERO }] {
            let (clock, kiln, hand) = at("2026-03-02T08:30:00Z");
            kiln.cron(NewCron::new("@hourly", job()).missed(missed)).unwrap();
            assert_eq!(fired_at(&clock, &hand, time).len(), count, "{time} {missed:?}");
        }
    }
}

#[test]
fn years_of_missed_seconds_are_looked_through_at_once() {
    let (clock, kiln, hand) = at("2026-01-01T00:00:00Z");
    kiln.cron(NewCron::every(Duration::from_millis(1), job()).name("once")).unwrap();
    let all = Missed::RunAll { max: 20, within: 1000 * DAY };
    kiln.cron(NewCron::every(Duration::from_secs(1), job()).name("all").missed(all)).unwrap();
    clock.set("2056-01-01T00:00:00.0125Z".parse().unwrap());
    let jobs = hand.fire().unwrap();
    let fired = |name: &str| jobs.iter().filter(|job| note(job, "cron_name") == name).map(cron_at).collect::<Vec<_>>();
    assert_eq!(fired("once"), ["2056-01-01T00:00:00.012000+00:00"]);
    assert_eq!(fired("all").len(), 20);
    assert_eq!(fired("all")[19], "2056-01-01T00:00:00+00:00");
    assert_eq!(fired("all")[0], "2055-12-31T23:59:41+00:00");
}

#[test]
fn a_clock_set_back_fires_nothing_twice() {
    let (clock, kiln, hand) = at("2026-03-02T08:59:00Z");
    kiln.cron(NewCron::new("*/10 * * * *", job()).name("e")).unwrap();
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:00:00Z").len(), 1);
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:10:00Z").len(), 1);
    for time in ["2026-03-02T08:55:00Z", "2026-03-02T09:00:00Z", "2026-03-02T09:10:30Z"] {
        assert!(fired_at(&clock, &hand, time).is_empty(), "{time}");
    }
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:20:00Z"), ["2026-03-02T09:20:00+00:00"]);
    // Neither does a pause or a new definition meanwhile.
    clock.set("2026-03-02T08:00:00Z".parse().unwrap());
    kiln.pause_cron("e").unwrap();
    kiln.resume_cron("e").unwrap();
    kiln.cron(NewCron::new("*/5 * * * *", job()).name("e")).unwrap();
    assert!(fired_at(&clock, &hand, "2026-03-02T09:20:00Z").is_empty());
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:25:00Z"), ["2026-03-02T09:25:00+00:00"]);
}

#[test]
fn an_entry_that_fired_by_a_clock_years_ahead_begins_anew_when_it_is_deleted_and_added() {
    let (clock, kiln, hand) = at("2026-03-02T08:59:00Z");
    let new = || NewCron::new("@hourly", job()).name("e");
    kiln.cron(new()).unwrap();
    assert_eq!(fired_at(&clock, &hand, "2036-03-02T09:00:00Z").len(), 1);
    assert!(fired_at(&clock, &hand, "2026-03-02T09:00:00Z").is_empty());
    kiln.delete_cron("e").unwrap();
    kiln.cron(new()).unwrap();
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T10:00:00Z").len(), 1);
}

#[test]
fn a_restart_neither_forgets_nor_doubles_a_slot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let clock = ManualClock::at("2026-03-02T08:30:00Z".parse().unwrap());
    let start = || {
        let kiln = on_file(&path, &clock);
        kiln.cron(NewCron::new("@hourly", job()).name("e")).unwrap();
        Hand::new(&kiln, ["app.Worker"])
    };
    assert_eq!(fired_at(&clock, &start(), "2026-03-02T09:00:00Z").len(), 1);
    assert!(fired_at(&clock, &start(), "2026-03-02T09:00:00Z").is_empty());
    assert_eq!(fired_at(&clock, &start(), "2026-03-03T07:15:00Z"), ["2026-03-03T07:00:00+00:00"]);
    assert!(fired_at(&clock, &start(), "2026-03-03T07:59:00Z").is_empty());
    assert_eq!(fired_at(&clock, &start(), "2026-03-03T08:00:00Z").len(), 1);
}

/// Every slot of a day in Berlin, fired minute by minute.
fn day_in_berlin(expression: &str, from: &str, minutes: u32) -> Vec<String> {
    let (clock, kiln, hand) = at(from);
    kiln.cron(NewCron::new(expression, job()).zone("Europe/Berlin")).unwrap();
    let mut slots = Vec::new();
    for _ in 0..minutes {
        clock.advance(MINUTE);
        slots.extend(hand.fire().unwrap().iter().map(|job| cron_at(job)[11..16].to_owned()));
    }
    slots
}

#[test]
fn summer_time_comes_and_goes_by_the_written_rule() {
    // At 01:00 UTC, the clock goes from 02:00 to 03:00.
    let spring = |expression| day_in_berlin(expression, "2026-03-28T23:30:00Z", 300);
    assert_eq!(spring("30 2 * * *"), ["01:00"]);
    assert_eq!(spring("30 */1 * * *"), ["00:30", "01:30", "02:30", "03:30", "04:30"]);
    // At 01:00 UTC, the clock goes from 03:00 to 02:00.
    let autumn = |expression| day_in_berlin(expression, "2026-10-24T23:10:00Z", 200);
    assert_eq!(autumn("30 2 * * *"), ["00:30"]);
    assert_eq!(autumn("30 */1 * * *"), ["23:30", "00:30", "01:30", "02:30"]);
}

#[test]
fn many_threads_and_two_handles_fire_each_slot_once() {
    const ROUNDS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let clock = ManualClock::at("2026-03-02T08:59:30Z".parse().unwrap());
    let kilns = [on_file(&path, &clock), on_file(&path, &clock)];
    for expression in ["* * * * *", "*/2 * * * *"] {
        kilns[0].cron(NewCron::new(expression, job()).name(expression)).unwrap();
    }
    let gate = Arc::new(Barrier::new(4));
    let fired = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let (gate, fired, clock) = (Arc::clone(&gate), Arc::clone(&fired), clock.clone());
            let hand = Hand::new(&kilns[n % 2], ["app.Worker"]);
            thread::spawn(move || {
                for round in 1..=ROUNDS {
                    if gate.wait().is_leader() {
                        clock.advance(MINUTE);
                    }
                    gate.wait();
                    fired.fetch_add(hand.fire().unwrap().len(), Ordering::SeqCst);
                    gate.wait();
                    let expected = round + round.div_ceil(2);
                    assert_eq!(fired.load(Ordering::SeqCst), expected, "after round {round}");
                    gate.wait();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    each_slot_once(&kilns[1], "* * * * *", ROUNDS);
    each_slot_once(&kilns[0], "*/2 * * * *", ROUNDS / 2);
}

/// The entry's jobs are `count`, their slots follow each other, and none is there twice.
fn each_slot_once(kiln: &Kiln, name: &str, count: usize) {
    let jobs = kiln.list(Filter::new().limit(10_000)).unwrap();
    let slots: Vec<Timestamp> = jobs.iter().filter(|job| note(job, "cron_name") == name).map(slot).collect();
    assert_eq!(slots.len(), count);
    let entry = entry(kiln, name);
    let schedule = entry.schedule().unwrap();
    let expected: Vec<Timestamp> = schedule.upcoming(entry.inserted_at).take(count).collect();
    assert_eq!(slots, expected);
}

#[test]
fn a_clock_that_runs_while_others_fire_loses_no_slot_and_doubles_none() {
    const SLOTS: usize = 400;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let clock = ManualClock::at("2026-03-02T08:59:30Z".parse().unwrap());
    let kilns = [on_file(&path, &clock), on_file(&path, &clock)];
    let all = Missed::RunAll { max: 1000, within: DAY };
    kilns[0].cron(NewCron::new("* * * * *", job()).name("e").missed(all)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let (over, hand) = (Arc::clone(&over), Hand::new(&kilns[n % 2], ["app.Worker"]));
            thread::spawn(move || {
                loop {
                    let last = over.load(Ordering::SeqCst);
                    hand.fire().unwrap();
                    if last {
                        break;
                    }
                }
            })
        })
        .collect();
    for n in 0..SLOTS {
        clock.advance(MINUTE);
        if n % 7 == 0 {
            // Now and then, somebody has to have noticed.
            until("the slot is settled", || {
                entry(&kilns[n % 2], "e").last_slot.is_some_and(|last| clock.now().duration_since(last) < ON_TIME)
            });
        }
    }
    over.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    each_slot_once(&kilns[0], "e", SLOTS);
}

const ON_TIME: SignedDuration = SignedDuration::from_mins(1);

#[test]
fn one_entry_that_cannot_be_written_or_read_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let clock = ManualClock::at("2026-03-02T08:30:00Z".parse().unwrap());
    let kiln = on_file(&path, &clock);
    for name in ["a", "b refused", "c", "d zone", "e priority", "f expression", "g missed", "h"] {
        kiln.cron(NewCron::new("@hourly", job().queue(name)).name(name)).unwrap();
    }
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON kiln_jobs WHEN NEW.queue = 'b refused'
             BEGIN SELECT RAISE(ABORT, 'refused'); END;
             UPDATE kiln_crons SET zone = 'Europe/Atlantis' WHERE name = 'd zone';
             UPDATE kiln_crons SET priority = 77 WHERE name = 'e priority';
             UPDATE kiln_crons SET expression = 'at noon' WHERE name = 'f expression';
             UPDATE kiln_crons SET missed = 'whatever' WHERE name = 'g missed';",
        )
        .unwrap();
    clock.set("2026-03-02T09:00:00Z".parse().unwrap());
    let hand = Hand::new(&kiln, ["app.Worker"]);
    assert!(hand.fire().is_err());
    assert!(hand.fire().is_err());
    let counts = kiln.count(Filter::new()).unwrap();
    assert_eq!(counts.total(), 4);
    assert!(["a", "c", "g missed", "h"].iter().all(|queue| counts.queue(queue) == 1));
    assert_eq!(entry(&kiln, "b refused").last_slot, None);
    assert_eq!(entry(&kiln, "d zone").schedule().unwrap_err().field(), Some("zone"));
    other.execute_batch("DROP TRIGGER refuse; UPDATE kiln_crons SET zone = 'UTC' WHERE name = 'd zone'").unwrap();
    assert_eq!(hand.fire().unwrap().len(), 2);
}

#[test]
fn an_entry_that_another_language_wrote_is_an_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let clock = ManualClock::at("2026-03-02T08:30:00Z".parse().unwrap());
    let kiln = on_file(&path, &clock);
    let since = clock.now().as_microsecond();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute(
            "INSERT INTO kiln_crons (name, expression, worker, since) VALUES ('e', '@hourly', 'app.Worker', ?1)",
            [since],
        )
        .unwrap();
    assert_eq!(entry(&kiln, "e").missed, Missed::RunOnce);
    let hand = Hand::new(&kiln, ["app.Worker"]);
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:00:00Z"), ["2026-03-02T09:00:00+00:00"]);
}

#[test]
fn hooks_see_every_job_of_a_slot_and_one_that_panics_holds_up_its_entry_only() {
    let clock = ManualClock::at("2026-03-02T08:30:00Z".parse().unwrap());
    let hook = |job: &mut Job| {
        assert_ne!(job.queue, "cursed", "the hook gives up");
        job.priority = 5;
    };
    let kiln = Kiln::memory_builder().clock(&clock).after_new(hook).open().unwrap();
    kiln.cron(NewCron::new("@hourly", job().queue("cursed")).name("a")).unwrap();
    kiln.cron(NewCron::new("@hourly", job()).name("b")).unwrap();
    clock.set("2026-03-02T09:00:00Z".parse().unwrap());
    let jobs = Hand::new(&kiln, ["app.Worker"]).fire().unwrap();
    assert_eq!(jobs.iter().map(|job| (job.queue.as_str(), job.priority)).collect::<Vec<_>>(), [("default", 5)]);
    assert_eq!(entry(&kiln, "a").last_slot, None);
}

#[test]
fn a_slot_whose_job_has_a_double_is_settled_and_makes_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let clock = ManualClock::at("2026-03-02T08:59:59Z".parse().unwrap());
    // Said by one process, held to by another.
    let unique = Unique::new().by([kiln::Field::Worker, kiln::Field::Args]).states(State::INCOMPLETE);
    let added = on_file(&path, &clock).cron(NewCron::new("* * * * *", job().unique(unique.clone())).name("u")).unwrap();
    assert_eq!(added.unique().unwrap(), Some(unique.clone()));
    let (told, events) = mpsc::channel();
    let builder = Kiln::builder(&path).durability(Durability::Normal).clock(&clock);
    let kiln = builder.observe(move |event| told.send(event.to_string()).unwrap()).open().unwrap();
    assert_eq!(entry(&kiln, "u").unique().unwrap(), Some(unique));
    let hand = Hand::new(&kiln, ["app.Worker"]);

    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:00:00Z"), ["2026-03-02T09:00:00+00:00"]);
    for time in ["2026-03-02T09:01:00Z", "2026-03-02T09:02:00Z"] {
        assert!(fired_at(&clock, &hand, time).is_empty());
        assert_eq!(entry(&kiln, "u").last_slot, Some(time.parse().unwrap()), "settled");
    }
    let running = hand.claim("default", 1).unwrap().remove(0);
    assert!(fired_at(&clock, &hand, "2026-03-02T09:03:00Z").is_empty(), "it runs");
    hand.ack(&running, kiln::Outcome::Complete).unwrap();
    assert!(hand.fire().unwrap().is_empty(), "a slot passed over does not come back");
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:04:00Z"), ["2026-03-02T09:04:00+00:00"]);
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 2);
    let told: Vec<String> = events.try_iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(told, ["enqueued", "conflicted", "conflicted", "claimed", "conflicted", "acked", "enqueued"]);
}

#[test]
fn of_many_missed_slots_a_unique_job_is_made_once() {
    let (clock, kiln, hand) = at("2026-03-02T09:30:00Z");
    let all = Missed::RunAll { max: 10, within: DAY };
    let by_slot = Unique::new().by([kiln::Field::Worker, kiln::Field::Meta]);
    kiln.cron(NewCron::new("@hourly", job().unique(Unique::new())).name("once").missed(all)).unwrap();
    kiln.cron(NewCron::new("@hourly", job().unique(by_slot)).name("each").missed(all)).unwrap();
    clock.advance(4 * HOUR);
    let fired = hand.fire().unwrap();
    let of = |name: &str| fired.iter().filter(|job| note(job, "cron_name") == name).map(cron_at).collect::<Vec<_>>();
    assert_eq!(of("once"), ["2026-03-02T10:00:00+00:00"]);
    assert_eq!(of("each").len(), 4, "all of the meta has the slot");
}

#[test]
fn a_unique_job_of_an_entry_is_the_double_of_one_enqueued_by_hand() {
    let (clock, kiln, hand) = at("2026-03-02T09:59:00Z");
    let unique = || job().args(json!({ "n": 1 })).unique(Unique::new().within(HOUR));
    kiln.cron(NewCron::new("@hourly", unique()).name("u")).unwrap();
    let by_hand = kiln.enqueue(unique()).unwrap();
    assert!(fired_at(&clock, &hand, "2026-03-02T10:00:00Z").is_empty());
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T11:00:00Z").len(), 1, "its period is over");
    assert!(kiln.enqueue(unique()).unwrap().conflict);
    assert_ne!(kiln.enqueue(unique()).unwrap().id, by_hand.id);
}

#[test]
fn an_entry_debounces_and_replaces() {
    let (clock, kiln, hand) = at("2026-03-02T09:59:00Z");
    let job = |n: i64| job().args(json!({ "n": n })).unique(Unique::new().keys(["none"]).debounce(90 * MINUTE));
    kiln.cron(NewCron::new("@hourly", job(1)).name("u")).unwrap();
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T10:00:00Z").len(), 1);
    kiln.cron(NewCron::new("@hourly", job(2)).name("u")).unwrap();
    assert!(fired_at(&clock, &hand, "2026-03-02T11:00:00Z").is_empty());
    let waits = kiln.get(1).unwrap().unwrap();
    assert_eq!((waits.state, waits.scheduled_at), (State::Scheduled, "2026-03-02T12:30:00Z".parse().unwrap()));
    assert_eq!((waits.args.value(), cron_at(&waits).as_str()), (json!({ "n": 2 }), "2026-03-02T11:00:00+00:00"));
}

#[test]
fn a_job_of_an_entry_expires_so_long_after_it_was_fired() {
    let (clock, kiln, hand) = at("2026-03-02T09:59:00Z");
    let added = kiln.cron(NewCron::new("@hourly", job().expires_in(10 * MINUTE)).name("e")).unwrap();
    assert_eq!(added.expires_in, Some(10 * MINUTE));
    // Missed by half an hour, and not by the slot but from now on it has its ten minutes.
    clock.set("2026-03-02T10:30:00Z".parse().unwrap());
    let job = hand.fire().unwrap().remove(0);
    assert_eq!(job.expires_at, Some("2026-03-02T10:40:00Z".parse().unwrap()));
    clock.advance(10 * MINUTE);
    assert!(hand.claim("default", 1).unwrap().is_empty());
    assert_eq!(kiln.get(job.id).unwrap().unwrap().state, State::Cancelled);
    kiln.cron(NewCron::new("@hourly", self::job()).name("e")).unwrap();
    assert_eq!(entry(&kiln, "e").expires_in, None, "a new definition");
}

#[test]
fn an_entry_whose_uniqueness_cannot_be_read_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let clock = ManualClock::at("2026-03-02T08:59:59Z".parse().unwrap());
    let kiln = on_file(&path, &clock);
    for name in ["plain", "broken", "boot"] {
        kiln.cron(NewCron::new(if name == "boot" { "@reboot" } else { "@hourly" }, job()).name(name)).unwrap();
    }
    let stranger = rusqlite::Connection::open(&path).unwrap();
    let set = |unique: &str, name: &str| {
        let sql = "UPDATE kiln_crons SET uniqueness = ?1, expires_in = 'soon' WHERE name = ?2";
        stranger.execute(sql, [unique, name]).unwrap();
    };
    set(r#"{"states":["done"]}"#, "broken");
    set("{}", "plain");
    let error = entry(&kiln, "broken").unique().unwrap_err();
    assert!(error.to_string().contains("unknown variant `done`, expected one of `available`"), "{error}");
    let hand = Hand::new(&kiln, ["app.Worker"]);
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T09:00:00Z").len(), 1, "the other is fired");
    assert!(fired_at(&clock, &hand, "2026-03-02T10:00:00Z").is_empty(), "and is unique by every default");
    assert_eq!((entry(&kiln, "broken").last_slot, entry(&kiln, "broken").next_slot().is_some()), (None, true));
    set(r#"{"fields":["worker"],"period":60000000}"#, "broken");
    assert_eq!(fired_at(&clock, &hand, "2026-03-02T11:00:00Z").len(), 1);
}

#[test]
fn what_is_done_to_entries_is_told() {
    let (told, events) = mpsc::channel();
    let kiln = Kiln::memory_builder().observe(move |event| told.send(event.to_string()).unwrap()).open().unwrap();
    let daily = || NewCron::new("@daily", job()).name("my digest");
    kiln.cron(daily()).unwrap();
    assert!(kiln.pause_cron("my digest").unwrap() && !kiln.pause_cron("my digest").unwrap());
    assert!(kiln.resume_cron("my digest").unwrap() && !kiln.resume_cron("my digest").unwrap());
    assert!(kiln.delete_cron("my digest").unwrap() && !kiln.delete_cron("my digest").unwrap());
    kiln.runtime().cron(daily()).start().unwrap().stop();
    let told: Vec<String> = events.try_iter().collect();
    let names = ["cron_added", "cron_paused", "cron_resumed", "cron_deleted", "cron_added"];
    assert_eq!(told, names.map(|name| format!("{name} name=\"my digest\"")));
}

#[test]
fn every_enqueue_of_a_slot_is_told() {
    let (told, events) = mpsc::channel();
    let clock = ManualClock::at("2026-03-02T08:30:00Z".parse().unwrap());
    let observer = move |event: &Event| told.send(event.to_string()).unwrap();
    let kiln = Kiln::memory_builder().clock(&clock).observe(observer).open().unwrap();
    kiln.cron(NewCron::new("@hourly", job())).unwrap();
    fired_at(&clock, &Hand::new(&kiln, ["app.Worker"]), "2026-03-02T09:00:00Z");
    let told = events.try_iter().filter(|line| !line.starts_with("cron_added"));
    assert_eq!(told.collect::<Vec<_>>(), ["enqueued job=1 queue=default worker=app.Worker"]);
}

#[test]
fn reboot_is_once_for_each_start_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let clock = ManualClock::at("2026-03-02T08:30:00Z".parse().unwrap());
    let reboot = |queue: &str| NewCron::new("@reboot", job().queue(queue)).name(queue);
    let count = |kiln: &Kiln, queue: &str| kiln.count(Filter::new()).unwrap().queue(queue);
    for starts in 1..=3 {
        let kiln = on_file(&path, &clock);
        // Not owned by a runtime: it never comes.
        kiln.cron(reboot("at run time")).unwrap();
        let build = || {
            let new = kiln.runtime().cron(reboot("own")).cron(reboot("also own"));
            // A slot that comes after them in the same tick shows that they had their turn.
            new.build().unwrap()
        };
        let runtimes = [build(), build()];
        for _ in 0..2 {
            runtimes.iter().for_each(|runtime| runtime.start().unwrap());
            until("fired", || count(&kiln, "own") >= starts && count(&kiln, "also own") >= starts);
            runtimes.iter().for_each(|runtime| {
                runtime.stop();
            });
        }
        assert_eq!((count(&kiln, "own"), count(&kiln, "also own"), count(&kiln, "at run time")), (starts, starts, 0));
        // A clock that was set back does not keep a program from starting.
        clock.set(clock.now() - SignedDuration::from_hours(1));
    }
    let kiln = on_file(&path, &clock);
    let slots: HashSet<String> = kiln.list(Filter::new()).unwrap().iter().map(cron_at).collect();
    assert_eq!(slots.len(), 3);
}

#[test]
fn a_running_runtime_fires_what_another_handle_adds_pauses_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let (here, elsewhere) = (Kiln::open(&path).unwrap(), Kiln::open(&path).unwrap());
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let count = move |_: &Running<Value>| {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    let runtime = here.runtime().worker_fn("count", count).start().unwrap();
    let every = || NewCron::every(Duration::from_millis(20), NewJob::new("count")).name("e");
    elsewhere.cron(every()).unwrap();
    until("it runs", || runs.load(Ordering::SeqCst) > 2);
    assert!(elsewhere.pause_cron("e").unwrap());
    let slot = entry(&elsewhere, "e").last_slot;
    elsewhere.cron(every().name("f")).unwrap();
    until("the other runs", || entry(&elsewhere, "f").last_slot.is_some());
    assert_eq!(entry(&here, "e").last_slot, slot);
    assert!(elsewhere.resume_cron("e").unwrap());
    until("it runs again", || entry(&elsewhere, "e").last_slot > slot);
    runtime.stop();
}

#[test]
fn a_running_runtime_hears_of_what_is_added_beside_it() {
    let kiln = Kiln::in_memory().unwrap();
    let (told, runs) = mpsc::channel();
    let note = move |job: &Running<Value>| told.send(slot(job)).unwrap();
    let runtime = kiln.runtime().worker_fn("note", note).start().unwrap();
    // Long idle by now, and nobody else writes to this database: only the bell can tell.
    kiln.enqueue(NewJob::new("note").meta(json!({ "cron_at": "2026-03-02T09:00:00+00:00" }))).unwrap();
    runs.recv_timeout(PATIENCE).unwrap();
    kiln.cron(NewCron::every(Duration::from_millis(20), NewJob::new("note"))).unwrap();
    runs.recv_timeout(PATIENCE).unwrap();
    runtime.stop();
}

#[test]
fn two_runtimes_run_every_tenth_of_a_second_once() {
    const SLOTS: usize = 15;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let kilns = [Kiln::open(&path).unwrap(), Kiln::open(&path).unwrap()];
    let (told, runs) = mpsc::channel();
    let runtimes = kilns.each_ref().map(|kiln| {
        let told = told.clone();
        let all = Missed::RunAll { max: 1000, within: HOUR };
        kiln.runtime()
            .queue("default", 1)
            .worker_fn("note", move |job: &Running<Value>| told.send(slot(job)).unwrap())
            .cron(NewCron::every(Duration::from_millis(100), NewJob::new("note")).name("tick").missed(all))
            .start()
            .unwrap()
    });
    let mut slots: Vec<Timestamp> = (0..SLOTS).map(|_| runs.recv_timeout(PATIENCE).unwrap()).collect();
    kilns[0].pause_cron("tick").unwrap();
    let stored = || kilns[0].count(Filter::new()).unwrap();
    until("all have run", || stored().state(State::Completed) == stored().total());
    runtimes.iter().for_each(|runtime| {
        runtime.stop();
    });
    slots.extend(runs.try_iter());
    slots.sort_unstable();
    let step = SignedDuration::from_millis(100);
    assert!(slots.windows(2).all(|pair| pair[1].duration_since(pair[0]) == step), "{slots:?}");
    assert_eq!(slots.len() as u64, stored().total());
}

// The model: every slot by itself, one after the other.

struct Modelled {
    schedule: kiln::Schedule,
    missed: Missed,
    since: Timestamp,
    last: Option<Timestamp>,
    paused: bool,
}

impl Modelled {
    fn fire(&mut self, now: Timestamp) -> Vec<Timestamp> {
        let settled = self.last.map_or(self.since, |last| last.max(self.since));
        let due: Vec<Timestamp> = self.schedule.upcoming(settled).take_while(|slot| *slot <= now).collect();
        let Some(last) = due.last().copied().filter(|_| !self.paused) else { return Vec::new() };
        self.last = Some(last);
        let age = |slot: Timestamp| Duration::try_from(now.duration_since(slot)).unwrap();
        match self.missed {
            Missed::Skip => due.into_iter().filter(|slot| *slot == last && age(*slot) < MINUTE).collect(),
            Missed::RunAll { max, within } => {
                let young: Vec<Timestamp> =
                    due.into_iter().filter(|slot| age(*slot) <= within || age(*slot) < MINUTE).collect();
                young[young.len().saturating_sub(max as usize)..].to_vec()
            }
            _ => vec![last],
        }
    }
}

fn draw_entry(rng: &mut Rng, name: &str) -> NewCron {
    const EXPRESSIONS: [&str; 12] = [
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "15,45 1-3 * * *",
        "0 */3 * * *",
        "@hourly",
        "@daily",
        "0 0 1 * *",
        "0 9 * * MON-FRI",
        "0 0 30 2 *",
        "5/20 1/2 * * SUN",
        "59 23 31 * *",
    ];
    const ZONES: [&str; 6] =
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo"];
    let new = if rng.u8(..4) == 0 {
        NewCron::every(Duration::from_millis(rng.u64(20_000..10_000_000)), job())
    } else {
        NewCron::new(rng.choice(EXPRESSIONS).unwrap(), job())
    };
    let missed = match rng.u8(..3) {
        0 => Missed::Skip,
        1 => Missed::RunOnce,
        _ => Missed::RunAll { max: rng.u32(1..30), within: Duration::from_secs(rng.u64(..4 * 86_400)) },
    };
    new.name(name).zone(rng.choice(ZONES).unwrap()).missed(missed)
}

fn draw_step(rng: &mut Rng) -> SignedDuration {
    let longest = [90, 3600, 5 * 3600, 3 * 86_400, 20 * 86_400][rng.usize(..5)];
    let step = SignedDuration::from_millis(rng.i64(0..longest * 1000));
    if rng.u8(..4) == 0 { -step } else { step }
}

fn story(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let clock = ManualClock::at(start + SignedDuration::from_mins(rng.i64(0..525_600)));
    let mut kiln = on_file(&path, &clock);
    let mut model: BTreeMap<String, Modelled> = BTreeMap::new();
    let mut last: BTreeMap<String, Timestamp> = BTreeMap::new();
    for _ in 0..60 {
        clock.set(clock.now() + draw_step(&mut rng));
        let now = clock.now();
        let name = format!("entry {}", rng.u8(..4));
        match rng.u8(..12) {
            0..3 => {
                let added = kiln.cron(draw_entry(&mut rng, &name)).unwrap();
                let schedule = added.schedule().unwrap();
                let there = model.remove(&name);
                let same = there.as_ref().filter(|there| there.schedule == schedule);
                let since = same.map_or(now, |there| there.since);
                let last = there.as_ref().and_then(|there| there.last);
                let paused = there.is_some_and(|there| there.paused);
                assert_eq!((added.last_slot, added.paused), (last, paused));
                model.insert(name, Modelled { schedule, missed: added.missed, since, last, paused });
            }
            3 => {
                let paused = kiln.pause_cron(&name).unwrap();
                let there = model.get_mut(&name).filter(|entry| !entry.paused);
                assert_eq!(paused, there.is_some());
                there.into_iter().for_each(|entry| entry.paused = true);
            }
            4 => {
                let resumed = kiln.resume_cron(&name).unwrap();
                let there = model.get_mut(&name).filter(|entry| entry.paused);
                assert_eq!(resumed, there.is_some());
                if let Some(entry) = there {
                    (entry.since, entry.paused) = (now, false);
                }
            }
            5 => kiln = on_file(&path, &clock),
            _ => {
                let mut fired: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
                for job in Hand::new(&kiln, ["app.Worker"]).fire().unwrap() {
                    let name = note(&job, "cron_name").as_str().unwrap().to_owned();
                    fired.entry(name).or_default().push(slot(&job));
                }
                for (name, entry) in &mut model {
                    let slots = fired.remove(name).unwrap_or_default();
                    assert_eq!(slots, entry.fire(now), "{name} at {now}");
                    for slot in slots {
                        let before = last.insert(name.clone(), slot);
                        assert!(before < Some(slot), "{name}: {slot} after {before:?}");
                    }
                }
                assert!(fired.is_empty(), "{fired:?}");
            }
        }
    }
}

#[test]
fn whatever_the_clock_does_slots_are_fired_once_in_order_and_as_the_policy_says() {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, draws) = (number("KILN_CRONS_SEED", 1), number("KILN_CRONS_DRAWS", 25));
    for seed in first..first + draws {
        println!("KILN_CRONS_SEED={seed}");
        story(seed);
    }
}

/// A revision that is no number, and a name that is no text, can be read, but a slot cannot be settled by them.
#[test]
fn an_entry_that_no_slot_can_be_settled_of_is_left_alone_and_others_are_fired() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let clock = ManualClock::at("2026-03-02T08:59:30Z".parse().unwrap());
    let kiln = on_file(&path, &clock);
    for name in ["blob", "last", "name", "plain", "text"] {
        kiln.cron(NewCron::new("0 * * * *", job()).name(name)).unwrap();
    }
    let other = rusqlite::Connection::open(&path).unwrap();
    for (name, what) in [("blob", "revision = x'00ff'"), ("text", "revision = 'x'"), ("name", "name = x'6e616d65'")] {
        assert_eq!(other.execute(&format!("UPDATE kiln_crons SET {what} WHERE name = ?1"), [name]).unwrap(), 1);
    }
    let last = "UPDATE kiln_crons SET revision = 9223372036854775807 WHERE name = 'last'";
    assert_eq!(other.execute(last, []).unwrap(), 1);
    clock.advance(Duration::from_secs(60));
    let hand = Hand::new(&kiln, ["app.Worker"]);
    let (tell, fired) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..2 {
            let jobs = hand.fire().unwrap();
            tell.send(jobs.iter().map(|job| note(job, "cron_name")).collect::<Vec<_>>()).unwrap();
            clock.advance(Duration::from_secs(3600));
        }
    });
    let next = || fired.recv_timeout(Duration::from_secs(30)).expect("it comes to an end");
    assert_eq!(next(), ["last", "plain"]);
    assert_eq!(next(), ["plain"], "after the last revision there is none");
}
