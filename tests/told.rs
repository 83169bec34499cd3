//! What each verb tells: an event for each job it changed, once, after it was committed, and none for those it left alone.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use common::{Folder, Gate, Other, Stubborn, eventually, get, ms, other_process_for, reaches, say, stranger};
use kiln::testing::{Drain, Hand, ManualClock};
use kiln::{Changes, Event, Failure, Filter, Job, Kiln, KilnBuilder, NewJob, Outcome, Running, State, Subject};
use parking_lot::Mutex;
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);

/// In no event, in no form.
const SECRET: &str = "hunter2-in-args";

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    fn open(&self, builder: KilnBuilder) -> Kiln {
        let told = Arc::clone(&self.0);
        builder.observe(move |event| told.lock().push(event.clone())).open().unwrap()
    }

    /// What was told since it was asked last.
    fn take(&self) -> Vec<Event> {
        let events = std::mem::take(&mut *self.0.lock());
        for event in &events {
            assert!(!format!("{event}{event:?}").contains(SECRET), "{event:?}");
        }
        events
    }

    fn lines(&self) -> Vec<String> {
        self.take().iter().map(ToString::to_string).collect()
    }

    fn hear(&self, name: &str) -> Event {
        eventually(&format!("{name} is told"), || {
            let mut events = self.0.lock();
            let at = events.iter().position(|event| event.name() == name)?;
            Some(events.remove(at))
        })
    }
}

fn job(queue: &str) -> NewJob {
    NewJob::new("w").queue(queue).args(json!({ "password": SECRET, "note": SECRET }))
}

fn fill(kiln: &Kiln, count: usize, job: impl Fn() -> NewJob) {
    kiln.enqueue_many((0..count).map(|_| job())).unwrap();
}

/// The runtime that claimed these is dead: its sidecar is there, and nobody holds its lock.
fn dies(folder: &Folder, claimed: &[Job]) {
    std::fs::write(folder.path(&format!("jobs.db-kiln-{}", claimed[0].attempted_by[1])), "").unwrap();
}

/// Each of so many jobs, from this id on, was told of once and of nothing else, with its queue and worker.
#[track_caller]
fn each_once(events: &[Event], name: &str, first: i64, count: usize) {
    let mut ids = Vec::new();
    for event in events {
        let Subject { id, queue, worker, .. } = event.job().unwrap();
        assert_eq!((event.name(), queue.as_str(), worker.as_str()), (name, "q", "w"), "{event}");
        ids.push(*id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (first..first + count as i64).collect::<Vec<_>>());
}

#[test]
fn an_operator_s_verb_tells_of_each_job_it_changed_and_of_none_that_it_left_alone() {
    let told = Told::default();
    let kiln = told.open(Kiln::memory_builder());
    fill(&kiln, 3, || job("q"));
    let running = kiln.enqueue(job("busy")).unwrap().id;
    Hand::new(&kiln, ["w"]).claim("busy", 1).unwrap();
    told.take();

    kiln.update([1, 2, 9], Changes::new().queue("p")).unwrap();
    assert_eq!(told.lines(), ["updated job=1 queue=p worker=w", "updated job=2 queue=p worker=w"], "as it is now");
    kiln.update([1, 9], |_: &Job| Changes::new().worker("v")).unwrap();
    kiln.update(Filter::new().queue("p"), |_: &Job| Changes::new().worker("u")).unwrap();
    let lines = ["updated job=1 queue=p worker=v", "updated job=1 queue=p worker=u", "updated job=2 queue=p worker=u"];
    assert_eq!(told.lines(), lines, "by a closure as well");

    assert_eq!(kiln.cancel([1, running, 9]).unwrap(), 2);
    let [Event::Cancelled { job: first, state: State::Cancelled, .. }, Event::Cancelled { job: second, state, .. }] =
        &told.take()[..]
    else {
        panic!("each is told of")
    };
    assert_eq!((first.id, first.queue.as_str(), first.worker.as_str(), first.attempt), (1, "p", "u", 0));
    assert_eq!((second.id, second.queue.as_str(), second.attempt, *state), (running, "busy", 1, State::Executing));

    kiln.retry([1, 2, running]).unwrap();
    assert_eq!(told.lines(), ["retried job=1 queue=p worker=u"], "the others wait or run");
    kiln.cancel(Filter::new().queue("q")).unwrap();
    assert_eq!(told.lines(), ["cancelled job=3 queue=q worker=w state=cancelled"]);
    kiln.cancel(Filter::new().queue("q")).unwrap();
    kiln.delete([running, 3, 9]).unwrap();
    assert_eq!(told.lines(), ["deleted job=3 queue=q worker=w"]);

    kiln.update(9, Changes::new().priority(3)).unwrap();
    kiln.update(9, |_: &Job| Changes::new().priority(3)).unwrap();
    kiln.cancel(9).unwrap();
    kiln.retry(9).unwrap();
    kiln.delete(9).unwrap();
    assert!(kiln.update(1, Changes::new().priority(10)).is_err());
    assert!(kiln.update(1, |_: &Job| Changes::new().priority(10)).is_err());
    assert!(kiln.enqueue(NewJob::new(" ")).is_err());
    assert_eq!(told.take(), [], "nothing happened");
}

#[test]
fn a_verb_on_many_jobs_tells_of_each_once_after_its_batch_was_committed_on_the_thread_that_did_it() {
    const JOBS: usize = 2500;
    let handle: Arc<OnceLock<Kiln>> = Arc::default();
    /// How many were in this state when the first of a batch was told of, and on which thread.
    type Seen = Arc<Mutex<Vec<(u64, thread::ThreadId)>>>;
    let (seen, told) = (Seen::default(), Told::default());
    let (theirs, sees) = (Arc::clone(&handle), Arc::clone(&seen));
    let count = move |event: &Event| {
        if let (Some(kiln), Event::Cancelled { job, .. }) = (theirs.get(), event)
            && job.id % 1000 == 1
        {
            let cancelled = kiln.count(Filter::new().state(State::Cancelled)).unwrap().total();
            sees.lock().push((cancelled, thread::current().id()));
        }
    };
    let kiln = handle.get_or_init(|| told.open(Kiln::memory_builder().observe(count)));
    fill(kiln, JOBS, || job("q"));
    told.take();

    assert_eq!(kiln.cancel(Filter::new()).unwrap(), JOBS as u64);
    each_once(&told.take(), "cancelled", 1, JOBS);
    let here = thread::current().id();
    assert_eq!(*seen.lock(), [(1000, here), (2000, here), (2500, here)], "batch by batch");
    assert_eq!(kiln.retry((1..=JOBS as i64 + 7).collect::<Vec<_>>()).unwrap(), JOBS as u64);
    each_once(&told.take(), "retried", 1, JOBS);
    kiln.update(Filter::new(), Changes::new().priority(3)).unwrap();
    each_once(&told.take(), "updated", 1, JOBS);
    kiln.update(Filter::new(), |_: &Job| Changes::new().priority(4)).unwrap();
    each_once(&told.take(), "updated", 1, JOBS);
    kiln.delete(Filter::new()).unwrap();
    each_once(&told.take(), "deleted", 1, JOBS);
}

#[test]
fn of_two_who_cancel_the_same_jobs_each_job_is_told_of_once() {
    const JOBS: usize = 300;
    let folder = Folder::new();
    let told = Told::default();
    let kiln = told.open(Kiln::builder(folder.db()));
    fill(&kiln, JOBS, || job("q"));
    told.take();
    let cancel = |id: i64| {
        kiln.cancel(id).unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| (1..=JOBS as i64).for_each(cancel));
        scope.spawn(|| (1..=JOBS as i64).for_each(cancel));
    });
    each_once(&told.take(), "cancelled", 1, JOBS);
}

#[test]
fn what_a_failed_transaction_did_is_not_told() {
    let folder = Folder::new();
    let clock = ManualClock::default();
    let told = Told::default();
    let kiln = told.open(Kiln::builder(folder.db()).clock(&clock).patience(ms(1)));
    let hand = Hand::new(&kiln, ["w"]);
    fill(&kiln, 1500, || job("q").schedule_in(MINUTE));
    clock.advance(2 * MINUTE);
    let other = stranger(&folder.db());
    let refuse = |verb: &str, id: i64| {
        let row = if verb == "DELETE" { "OLD" } else { "NEW" };
        let trigger = format!(
            "DROP TRIGGER IF EXISTS refuse; CREATE TRIGGER refuse BEFORE {verb} ON kiln_jobs WHEN {row}.id = {id}
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        );
        other.execute_batch(&trigger).unwrap();
    };
    told.take();

    refuse("UPDATE", 1200);
    assert!(hand.stage(&["q"]).is_err());
    let staged = told.take();
    assert_eq!(kiln.count(Filter::new().state(State::Available)).unwrap().total(), staged.len() as u64);
    assert!(staged.iter().all(|event| event.name() == "staged") && staged.len() < 1200, "{}", staged.len());
    for verb in ["cancel", "update", "update by closure", "retry"] {
        let result = match verb {
            "cancel" => kiln.cancel(Filter::new()),
            "update" => kiln.update(Filter::new(), Changes::new().priority(1)),
            "update by closure" => kiln.update(1200, |_: &Job| Changes::new().priority(2)),
            _ => kiln.retry(Filter::new()),
        };
        assert!(result.is_err(), "{verb}");
        // Those of the first thousand it did anything to.
        let events = told.take();
        assert!(events.iter().all(|event| event.job().unwrap().id <= 1000), "{verb}: {events:?}");
        assert_eq!(events.is_empty(), verb == "update by closure", "{verb}");
    }
    refuse("UPDATE", -1);
    kiln.cancel(Filter::new()).unwrap();
    clock.advance(2 * MINUTE);
    told.take();
    refuse("DELETE", 1200);
    assert!(kiln.delete(Filter::new()).is_err());
    each_once(&told.take(), "deleted", 1, 1000);
    assert!(hand.prune(MINUTE).is_err());
    assert_eq!(told.take(), []);

    refuse("DELETE", -1);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(kiln.delete(Filter::new()).unwrap_err().is_busy());
    assert!(hand.prune(MINUTE).unwrap_err().is_busy());
    assert_eq!(told.take(), []);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(hand.prune(MINUTE).unwrap(), 500);
    each_once(&told.take(), "pruned", 1001, 500);
}

#[test]
fn staging_tells_of_each_job_that_was_due_and_of_no_other() {
    const JOBS: usize = 1100;
    let clock = ManualClock::default();
    let told = Told::default();
    let kiln = told.open(Kiln::memory_builder().clock(&clock));
    let hand = Hand::new(&kiln, ["w"]);
    fill(&kiln, JOBS, || job("q").schedule_in(MINUTE));
    kiln.enqueue(job("q").schedule_in(3 * MINUTE)).unwrap();
    kiln.enqueue(job("other").schedule_in(MINUTE)).unwrap();
    let failed = kiln.enqueue(job("r").max_attempts(2)).unwrap().id;
    let attempt = hand.claim("r", 1).unwrap().remove(0);
    hand.fail(&attempt, "out of paper", MINUTE).unwrap();
    told.take();
    hand.stage(&["q", "r"]).unwrap();
    assert_eq!(told.take(), [], "nothing is due");
    clock.advance(2 * MINUTE);
    hand.stage(&["q", "r"]).unwrap();
    let (retried, events): (Vec<_>, Vec<_>) =
        told.take().into_iter().partition(|event| event.job().unwrap().queue == "r");
    let retried: Vec<String> = retried.iter().map(ToString::to_string).collect();
    assert_eq!(retried, [format!("staged job={failed} queue=r worker=w attempt=1")]);
    each_once(&events, "staged", 1, JOBS);
}

#[test]
fn pruning_tells_of_each_job_and_how_it_had_ended() {
    let clock = ManualClock::default();
    let told = Told::default();
    let kiln = told.open(Kiln::memory_builder().clock(&clock));
    let hand = Hand::new(&kiln, ["w"]);
    fill(&kiln, 1203, || job("q"));
    for (n, job) in hand.claim("q", 2).unwrap().iter().enumerate() {
        match n {
            0 => hand.ack(job, Outcome::Complete).unwrap(),
            _ => hand.discard(job, "no hope").unwrap(),
        };
    }
    kiln.cancel(Filter::new().state(State::Available)).unwrap();
    kiln.retry(1203).unwrap();
    clock.advance(2 * MINUTE);
    told.take();
    assert_eq!(hand.prune(3 * MINUTE).unwrap(), 0);
    assert_eq!(told.take(), [], "none is that old");
    assert_eq!(hand.prune(MINUTE).unwrap(), 1202);
    let events = told.take();
    each_once(&events, "pruned", 1, 1202);
    for event in events {
        let Event::Pruned { job, state, .. } = &event else { unreachable!() };
        let (was, attempt) = match job.id {
            1 => (State::Completed, 1),
            2 => (State::Discarded, 1),
            _ => (State::Cancelled, 0),
        };
        assert_eq!((*state, job.attempt), (was, attempt), "{event}");
    }
}

#[test]
fn a_rescue_tells_what_became_of_each_attempt_and_why() {
    let folder = Folder::new();
    let clock = ManualClock::default();
    let told = Told::default();
    let kiln = told.open(Kiln::builder(folder.db()).clock(&clock));
    let again = kiln.enqueue(job("q").max_attempts(5)).unwrap().id;
    let last = kiln.enqueue(job("q").max_attempts(1)).unwrap().id;
    let unwanted = kiln.enqueue(job("q")).unwrap().id;
    let exhausted = kiln.enqueue(job("q").schedule_in(MINUTE)).unwrap().id;
    kiln.enqueue(job("q")).unwrap();
    let claimed = Hand::new(&kiln, ["w"]).claim("q", 3).unwrap();
    assert_eq!(claimed.len(), 3);
    dies(&folder, &claimed);
    kiln.cancel(unwanted).unwrap();
    stranger(&folder.db())
        .execute("UPDATE kiln_jobs SET state = 'available', attempt = max_attempts WHERE id = ?1", [exhausted])
        .unwrap();
    told.take();

    assert_eq!(Hand::new(&kiln, ["w"]).rescue().unwrap(), 4);
    let mut rescued = BTreeMap::new();
    for event in told.take() {
        let Event::Rescued { job, state, error, .. } = event else { panic!("{event:?}") };
        assert_eq!((job.queue.as_str(), job.worker.as_str()), ("q", "w"));
        rescued.insert(job.id, (job.attempt, state, error));
    }
    let row = |id: i64| get(&kiln, id);
    let reason = |id: i64| Some(row(id).errors.last().unwrap().error.clone());
    assert!(reason(again).unwrap().starts_with("abandoned: the process of runtime "));
    assert_eq!(rescued.len(), 4);
    assert_eq!(rescued[&again], (1, State::Available, reason(again)));
    assert_eq!(rescued[&last], (1, State::Discarded, reason(last)));
    assert_eq!(rescued[&unwanted], (1, State::Cancelled, reason(unwanted)));
    assert_eq!(rescued[&exhausted], (20, State::Discarded, None));
    for (id, (_, state, _)) in rescued {
        assert_eq!(row(id).state, state);
    }
    Hand::new(&kiln, ["w"]).rescue().unwrap();
    assert_eq!(told.take(), [], "once");

    // By age, whoever has it.
    Hand::new(&kiln, ["w"]).claim("q", 1).unwrap();
    clock.advance(2 * MINUTE);
    told.take();
    assert_eq!(Hand::new(&kiln, ["w"]).rescue_older(MINUTE).unwrap(), 1);
    let [Event::Rescued { job, state: State::Available, error: Some(error), .. }] = &told.take()[..] else {
        panic!("it is told")
    };
    assert_eq!((job.id, job.attempt), (again, 2));
    assert!(error.contains("executed it for too long"), "{error}");
}

#[test]
fn an_error_of_a_rescue_does_not_show_what_is_hidden_of_its_job() {
    let folder = Folder::new();
    let told = Told::default();
    let open = || told.open(Kiln::builder(folder.db()).node(SECRET));
    let kiln = open();
    // The error names the node, and a value of this job is called the same.
    let id = kiln.enqueue(job("q")).unwrap().id;
    dies(&folder, &Hand::new(&kiln, ["w"]).claim("q", 1).unwrap());
    drop(kiln);
    told.0.lock().clear();
    let kiln = open();
    assert!(get(&kiln, id).errors[0].error.contains(SECRET));
    let Event::Rescued { error: Some(error), .. } = told.hear("rescued") else { unreachable!() };
    assert!(error.contains("[redacted]") && !error.contains(SECRET), "{error}");
}

#[test]
fn who_opens_the_file_of_a_killed_process_is_told_of_the_job_it_was_executing() {
    if let Some(folder) = other_process_for() {
        let kiln = Kiln::open(folder.join("jobs.db")).unwrap();
        let gate = Gate::default();
        let shut = gate.clone();
        let runtime = kiln.runtime().queue("q", 1).worker_fn("w", move |_: &Running<Value>| {
            say("executing");
            shut.pass();
        });
        let _runtime = runtime.start().unwrap();
        kiln.enqueue(job("q")).unwrap();
        // Until it is killed, or nobody is there any more to do so.
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        gate.open();
        return;
    }
    let folder = Folder::new();
    let name = "who_opens_the_file_of_a_killed_process_is_told_of_the_job_it_was_executing";
    let mut other = Other::start(name, &folder);
    assert_eq!(other.hear(), "executing");
    other.kill();
    let told = Told::default();
    // Its lock goes with it, a moment after it was killed.
    let (_kiln, event) = eventually("it is rescued", || {
        let kiln = told.open(Kiln::builder(folder.db()));
        told.take().into_iter().find(|event| event.name() == "rescued").map(|event| (kiln, event))
    });
    let Event::Rescued { job, state: State::Available, error: Some(error), .. } = event else { panic!("{event:?}") };
    assert_eq!((job.id, job.queue.as_str(), job.worker.as_str(), job.attempt), (1, "q", "w", 1));
    assert!(error.contains("ended during the attempt"), "{error}");
}

#[test]
fn a_drain_tells_what_a_runtime_tells() {
    let told = Told::default();
    let kiln = told.open(Kiln::memory_builder());
    kiln.enqueue(job("q")).unwrap();
    kiln.enqueue(job("q").max_attempts(1).meta(json!({ "fail": true }))).unwrap();
    kiln.enqueue(job("q").expires_in(Duration::ZERO)).unwrap();
    let drain = Drain::new(&kiln).worker_fn("w", |job: &Running<Value>| match job.meta.get("fail") {
        Some(_) => Err(Failure::from(format!("no {}", job.args["note"].as_str().unwrap()))),
        None => Ok(()),
    });
    told.take();
    drain.unwrap().drain().unwrap();
    let events = told.take();
    let names: Vec<String> =
        events.iter().map(|event| format!("{} {}", event.name(), event.job().unwrap().id)).collect();
    let expected = ["claimed 1", "executed 1", "acked 1", "claimed 2", "executed 2", "acked 2", "expired 3"];
    assert_eq!(names, expected);
    for pair in events.chunks(3).take(2) {
        let [
            Event::Claimed { queue_time: claimed, .. },
            Event::Executed { queue_time, run_time, error, .. },
            Event::Acked { state, queue_time: waited, run_time: ran, error: told, .. },
        ] = pair
        else {
            panic!("{pair:?}")
        };
        assert_eq!((claimed, queue_time, Some(*run_time), error), (queue_time, waited, *ran, told));
        assert_eq!(*state, Some(if error.is_some() { State::Discarded } else { State::Completed }));
        assert!(error.as_deref().is_none_or(|error| error == "no [redacted]"), "{error:?}");
    }
}

#[test]
fn a_job_that_is_given_back_tells_no_run_time() {
    let told = Told::default();
    let kiln = told.open(Kiln::memory_builder());
    let gate = Gate::default();
    let shut = gate.clone();
    let runtime = kiln.runtime().queue("q", 1).worker_fn("w", move |_: &Running<Value>| shut.pass()).start().unwrap();
    let id = kiln.enqueue(job("q")).unwrap().id;
    told.hear("claimed");
    assert_eq!(runtime.stop_within(Duration::ZERO).cut, 1, "it does not look at its flag");
    let Event::Acked { job, state, run_time: None, error: None, .. } = told.hear("acked") else {
        panic!("it has not ended")
    };
    assert_eq!((job.id, job.attempt, state), (id, 1, Some(State::Available)));
    gate.open();
    let Event::Executed { job, error: None, .. } = told.hear("executed") else { panic!("it ended well") };
    assert_eq!((job.id, get(&kiln, id).state), (id, State::Available), "too late");
}

#[test]
fn a_thread_that_is_written_off_tells_the_error_it_was_written_off_with() {
    let told = Told::default();
    let kiln = told.open(Kiln::memory_builder());
    let gate = Gate::default();
    let runtime = kiln.runtime().queue("q", 1).worker(Stubborn(gate.clone())).timeout_grace(ms(1)).start().unwrap();
    let id = kiln.enqueue(NewJob::new("stubborn").queue("q").max_attempts(1)).unwrap().id;
    let row = reaches(&kiln, id, State::Discarded);
    let Event::Acked { state, run_time: None, error: Some(error), .. } = told.hear("acked") else {
        panic!("it has not ended")
    };
    assert_eq!((state, error.as_str()), (Some(State::Discarded), row.errors[0].error.as_str()));
    assert!(error.contains("timed out and stuck"), "{error}");
    let Event::Stuck { job, .. } = told.hear("stuck") else { unreachable!() };
    assert_eq!(job.id, id);
    gate.open();
    runtime.stop();
}

#[test]
fn a_runtime_s_keepers_tell_of_each_job() {
    let told = Told::default();
    let clock = ManualClock::default();
    let kiln = told.open(Kiln::memory_builder().clock(&clock));
    let done = kiln.enqueue(job("q").schedule_in(MINUTE)).unwrap().id;
    let orphan = kiln.enqueue(job("dead")).unwrap().id;
    Hand::new(&kiln, ["w"]).claim("dead", 1).unwrap();
    clock.advance(2 * MINUTE);
    let runtime = kiln
        .runtime()
        .queue("q", 1)
        .worker_fn("w", |_: &Running<Value>| ())
        .retention(State::Completed, MINUTE)
        .start()
        .unwrap();
    let of = |name: &str| told.hear(name).to_string();
    assert!(of("rescued").starts_with(&format!("rescued job={orphan} queue=dead worker=w attempt=1 state=available")));
    assert_eq!(of("staged"), format!("staged job={done} queue=q worker=w"));
    let Event::Acked { state: Some(State::Completed), queue_time, run_time: Some(_), error: None, .. } =
        told.hear("acked")
    else {
        panic!("it is done")
    };
    assert_eq!(queue_time, MINUTE, "since it was due");
    runtime.stop();
    clock.advance(2 * MINUTE);
    runtime.start().unwrap();
    assert_eq!(of("pruned"), format!("pruned job={done} queue=q worker=w attempt=1 state=completed"));
    runtime.stop();
}

#[test]
fn an_observer_that_panics_harms_none_of_these_verbs() {
    let clock = ManualClock::default();
    let told = Told::default();
    let builder = Kiln::memory_builder().clock(&clock).observe(|_| panic!("this observer always panics"));
    let kiln = told.open(builder);
    let hand = Hand::new(&kiln, ["w"]);
    fill(&kiln, 5, || job("q").schedule_in(MINUTE));
    clock.advance(2 * MINUTE);
    assert_eq!(hand.stage(&["q"]).unwrap(), 5);
    assert_eq!(kiln.update([1, 2], Changes::new().priority(1)).unwrap(), 2);
    assert_eq!(kiln.update([1, 2], |_: &Job| Changes::new().priority(0)).unwrap(), 2);
    let claimed = hand.claim("q", 2).unwrap();
    assert!(hand.ack(&claimed[0], Outcome::Complete).unwrap());
    assert_eq!(Hand::new(&kiln, ["w"]).rescue().unwrap(), 1);
    assert_eq!(kiln.cancel(Filter::new()).unwrap(), 4);
    assert_eq!(kiln.retry(2).unwrap(), 1);
    assert_eq!(kiln.delete(2).unwrap(), 1);
    clock.advance(2 * MINUTE);
    assert_eq!(hand.prune(MINUTE).unwrap(), 4);
    let mut counts = BTreeMap::new();
    told.take().iter().for_each(|event| *counts.entry(event.name()).or_insert(0) += 1);
    let expected = [
        ("acked", 1),
        ("cancelled", 4),
        ("claimed", 2),
        ("deleted", 1),
        ("enqueued", 5),
        ("pruned", 4),
        ("rescued", 1),
        ("retried", 1),
        ("staged", 5),
        ("updated", 4),
    ];
    assert_eq!(counts, BTreeMap::from(expected), "and the next observer is told all the same");
}
