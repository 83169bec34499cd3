//! Events: every verb tells one, observers may do as they like, and nothing of a job's arguments is told.

mod common;

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use common::{DEADLINE, Folder, Gate, Stubborn, ms, reaches, stranger, until};
use kiln::testing::Hand;
use kiln::{
    Changes, Event, Failure, Filter, Kiln, KilnBuilder, NewCron, NewJob, Outcome, Running, Runtime, State, Unique,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn listening(builder: KilnBuilder) -> (Kiln, Receiver<Event>) {
    let (told, events) = mpsc::channel();
    let told = Mutex::new(told);
    // Who listens no more misses nothing.
    let kiln = builder.observe(move |event| drop(told.lock().send(event.clone()))).open().unwrap();
    (kiln, events)
}

fn lines(events: &Receiver<Event>) -> Vec<String> {
    events.try_iter().map(|event| event.to_string()).collect()
}

#[test]
fn an_attempt_tells_its_durations_and_its_error_and_its_ack_what_the_job_became() {
    let clock = kiln::testing::ManualClock::default();
    let (kiln, events) = listening(Kiln::memory_builder().clock(&clock));
    let runtime = kiln.runtime().queue("q", 1).worker_fn("w", |job: &Running<Value>| {
        std::thread::sleep(ms(20));
        match job.args["do"].as_str() {
            Some("fail") => Err(Failure::from("out of paper\nand of ink")),
            Some("panic") => panic!("dropped the tray"),
            Some("snooze") => Ok(Outcome::snooze(HOUR)),
            Some("cancel") => Ok(Outcome::cancel("nobody wants it")),
            _ => Ok(Outcome::Complete),
        }
    });
    let act = |act: &str, attempts: i64| NewJob::new("w").queue("q").args(json!({ "do": act })).max_attempts(attempts);
    let cases = [
        (act("complete", 1), State::Completed, None),
        (act("fail", 2), State::Retryable, Some("out of paper\nand of ink")),
        (act("fail", 1), State::Discarded, Some("out of paper\nand of ink")),
        (act("panic", 1), State::Discarded, Some("dropped the tray")),
        (act("snooze", 1), State::Scheduled, None),
        (act("cancel", 1), State::Cancelled, None),
    ];
    let mut expected = Vec::new();
    for (job, state, error) in cases {
        expected.push((kiln.enqueue(job).unwrap().id, state, error));
    }
    clock.advance(Duration::from_secs(90));
    let runtime = runtime.start().unwrap();
    for (id, state, error) in expected {
        reaches(&kiln, id, state);
        let of = |event: &Event, name| event.name() == name && event.job().unwrap().id == id;
        let next = |name| loop {
            let event = events.recv_timeout(DEADLINE).unwrap();
            if of(&event, name) {
                let job = event.job().unwrap().clone();
                assert_eq!((job.queue.as_str(), job.worker.as_str(), job.attempt), ("q", "w", 1), "{event}");
                return event;
            }
        };
        let Event::Claimed { queue_time, .. } = next("claimed") else { unreachable!() };
        assert_eq!(queue_time, Duration::from_secs(90));
        let Event::Executed { queue_time, run_time, error: told, .. } = next("executed") else { unreachable!() };
        assert_eq!(queue_time, Duration::from_secs(90));
        assert!(run_time >= ms(20), "{run_time:?}");
        assert_eq!(told.is_some(), error.is_some());
        assert!(told.clone().unwrap_or_default().contains(error.unwrap_or_default()));
        let Event::Acked { state: became, queue_time: waited, run_time: ran, error: why, .. } = next("acked") else {
            unreachable!()
        };
        assert_eq!((became, waited, ran), (Some(state), queue_time, Some(run_time)));
        let row = kiln.get(id).unwrap().unwrap();
        assert_eq!(why, row.errors.last().map(|entry| entry.error.clone()), "what was written of it");
        assert!(state == State::Cancelled || why == told);
    }
    runtime.stop();
}

/// What happens when everything is done that there is to do.
const ALL: [&str; 25] = [
    "acked",
    "cancelled",
    "claimed",
    "conflicted",
    "cron_added",
    "cron_deleted",
    "cron_paused",
    "cron_resumed",
    "deleted",
    "enqueued",
    "executed",
    "expired",
    "paused",
    "progressed",
    "pruned",
    "queue_started",
    "queue_stopped",
    "rescued",
    "resumed",
    "retried",
    "scaled",
    "staged",
    "stuck",
    "suspected",
    "updated",
];

/// Every verb that an operator has, on a job, an entry and the queues.
fn operate(kiln: &Kiln, orphan: i64) {
    kiln.cancel(orphan).unwrap();
    kiln.retry(orphan).unwrap();
    kiln.delete(orphan).unwrap();
    kiln.pause_cron("hourly").unwrap();
    kiln.resume_cron("hourly").unwrap();
    kiln.delete_cron("hourly").unwrap();
    kiln.pause("default").unwrap();
    kiln.scale("default", 2).unwrap();
    kiln.resume("default").unwrap();
    kiln.start_queue("more", 2).unwrap();
    kiln.stop_queue("more").unwrap();
}

/// Does everything there is to do, with an observer that has the run of the handle.
#[test]
fn every_verb_tells_an_event_outside_of_all_locks() {
    let folder = Folder::new();
    let names: Arc<Mutex<BTreeSet<&'static str>>> = Arc::default();
    let (handle, told): (Arc<OnceLock<Kiln>>, _) = (Arc::default(), Arc::clone(&names));
    let theirs = Arc::clone(&handle);
    let observer = move |event: &Event| {
        // The first is told while the file is opened.
        if let Some(kiln) = theirs.get() {
            kiln.count(Filter::new()).unwrap();
            kiln.check(kiln::Queues::All).unwrap();
            kiln.health().unwrap();
            kiln.crons().unwrap();
            if event.name() != "updated" {
                kiln.update(1, Changes::new().priority(1)).unwrap();
            }
        }
        told.lock().insert(event.name());
    };
    let told = |name: &'static str| names.lock().contains(name);
    let kiln = handle.get_or_init(|| Kiln::builder(folder.db()).observe(observer).open().unwrap());

    let job = |worker: &str| NewJob::new(worker);
    for _ in 0..2 {
        kiln.enqueue(job("w").unique(Unique::new())).unwrap();
    }
    kiln.enqueue_many([job("w").schedule_in(Duration::ZERO), job("w").expires_in(Duration::ZERO), job("stubborn")])
        .unwrap();
    let orphan = kiln.enqueue(job("w").queue("dead")).unwrap().id;
    Hand::new(kiln, ["w"]).claim("dead", 1).unwrap();
    stranger(&folder.db()).execute("UPDATE kiln_jobs SET crashes = 2 WHERE id = ?1", [orphan]).unwrap();

    let gate = Gate::default();
    let runtime = kiln
        .runtime()
        .queue("default", 4)
        .worker_fn("w", |job: &Running<Value>| job.progress(1, 2, "half"))
        .worker(Stubborn(gate.clone()))
        .timeout_grace(ms(1))
        .retention(State::Completed, Duration::ZERO)
        .cron(NewCron::every(HOUR, job("w")).name("hourly"))
        .start()
        .unwrap();
    for name in ["expired", "staged", "stuck", "rescued", "progressed"] {
        until(name, || told(name));
    }
    gate.open();
    operate(kiln, orphan);
    // What ended before it starts is pruned as it starts.
    runtime.stop();
    runtime.start().unwrap();
    until("pruned", || told("pruned"));
    drop(runtime);

    assert_eq!(*names.lock(), BTreeSet::from(ALL));
}

#[test]
fn an_observer_may_stop_and_start_the_runtime_that_it_is_told_of_while_that_is_stopped_or_started() {
    let story = || {
        let place: Arc<OnceLock<Runtime>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (theirs, asks) = (Arc::clone(&place), Arc::clone(&asked));
        let observer = move |event: &Event| {
            if let (Some(runtime), "acked" | "cron_added") = (theirs.get(), event.name()) {
                runtime.stop_within(Duration::ZERO);
                asks.lock().push(format!("{} {}", event.name(), runtime.start().is_ok()));
            }
        };
        let kiln = Kiln::memory_builder().observe(observer).open().unwrap();
        let gate = Gate::default();
        let shut = gate.clone();
        let (begins, begun) = mpsc::channel();
        let work = move |_: &Running<Value>| {
            // Who listens no more misses nothing.
            let _ = begins.send(());
            shut.pass();
        };
        let runtime = kiln
            .runtime()
            .worker_fn("w", work)
            .cron(NewCron::every(HOUR, NewJob::new("w")).name("hourly"))
            .start()
            .unwrap();
        let runtime = place.get_or_init(|| runtime);
        kiln.enqueue(NewJob::new("w")).unwrap();
        begun.recv_timeout(DEADLINE).unwrap();
        runtime.stop_within(Duration::ZERO);
        assert_eq!(*asked.lock(), ["acked false"], "given back, and told of by who stops it");
        asked.lock().clear();
        runtime.start().unwrap();
        assert_eq!(
            (runtime.id(), asked.lock()[0].as_str()),
            (None, "cron_added false"),
            "it stops once it has started"
        );
        gate.open();
    };
    // On a thread of its own: one that waits for itself fails the test, and does not hang it.
    let (ended, story_ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        story();
        ended.send(()).unwrap();
    });
    if story_ended.recv_timeout(DEADLINE) != Err(mpsc::RecvTimeoutError::Timeout) {
        thread.join().unwrap();
        return;
    }
    panic!("it waits for itself");
}

#[test]
fn arguments_that_do_not_fit_are_told_without_their_values() {
    let (kiln, events) = listening(Kiln::memory_builder());
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<Vec<u64>>| ()).start().unwrap();
    let id = kiln.enqueue(NewJob::new("w").args(json!({ "password": "hunter2" })).max_attempts(1)).unwrap().id;
    let row = reaches(&kiln, id, State::Discarded);
    assert!(row.errors[0].error.contains("invalid type: map"), "who looks at the job is told: {:?}", row.errors);
    #[derive(serde::Deserialize)]
    struct Number {
        #[expect(dead_code, reason = "it never comes that far")]
        password: u64,
    }
    let other = kiln.runtime().queue("q", 1).worker_fn("v", |_: &Running<Number>| ()).start().unwrap();
    let id =
        kiln.enqueue(NewJob::new("v").queue("q").args(json!({ "password": "hunter2" })).max_attempts(1)).unwrap().id;
    let row = reaches(&kiln, id, State::Discarded);
    assert!(row.errors[0].error.contains("hunter2"), "what does not fit is quoted to who looks at the job");
    runtime.stop();
    other.stop();
    let lines = lines(&events);
    assert!(
        lines.iter().any(|line| line.contains("error=\"args cannot be decoded for worker \\\"v\\\":\"")),
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:#?}");
}

#[test]
fn a_subscription_has_the_events_from_its_beginning_on_and_ends_with_the_last_handle() {
    let kiln = Kiln::in_memory().unwrap();
    let before = kiln.enqueue(NewJob::new("w")).unwrap();
    let (all, late) = (kiln.subscribe(100), kiln.subscribe(100));
    drop(late);
    kiln.cancel(before.id).unwrap();
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
    let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
    kiln.wait(id, DEADLINE).unwrap().unwrap();
    runtime.stop();
    drop((runtime, kiln));
    assert_eq!(all.missed(), 0);
    // It ends by itself.
    let mut names: Vec<String> = all.map(|event| event.to_string().split(' ').next().unwrap().to_owned()).collect();
    // A thread may be faster than the caller whose job it executes.
    names.sort();
    assert_eq!(names, ["acked", "cancelled", "claimed", "enqueued", "executed"]);
}

#[test]
fn a_subscriber_that_takes_nothing_keeps_nobody_waiting_and_is_told_how_much_it_missed() {
    let kiln = Kiln::in_memory().unwrap();
    let events = kiln.subscribe(3);
    assert!(events.next_within(Duration::ZERO).is_none());
    kiln.enqueue_many((0..10).map(|_| NewJob::new("w"))).unwrap();
    assert_eq!(events.missed(), 7);
    let taken = std::iter::from_fn(|| events.next_within(Duration::ZERO));
    assert_eq!(taken.filter(|event| matches!(event, Event::Enqueued { .. })).count(), 3);
    kiln.enqueue(NewJob::new("w")).unwrap();
    assert!(matches!(events.next_within(DEADLINE), Some(Event::Enqueued { .. })), "there is room again");
    assert_eq!(events.missed(), 7);
}
