//! Queues under control: paused, scaled, started and stopped while jobs wait and run, here and in other processes.

use std::collections::HashSet;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use kiln::testing::ManualClock;
use kiln::{Error, Event, Failure, Filter, Job, Kiln, NewJob, Queues, Running, Runtime, RuntimeBuilder, State};
use parking_lot::Mutex;

/// What has not happened by now does not happen.
const DEADLINE: Duration = Duration::from_secs(30);

/// A worker whose jobs tell that they began, and end when they are let go.
struct Gate {
    began: Receiver<i64>,
    go: Sender<()>,
    told: Sender<i64>,
    going: Receiver<()>,
}

impl Gate {
    fn new() -> Self {
        let (told, began) = unbounded();
        let (go, going) = unbounded();
        Self { began, go, told, going }
    }

    /// A runtime with the workers `gate`, which is held up, and `pass`, which is not.
    fn runtime(&self, kiln: &Kiln) -> RuntimeBuilder {
        let (told, going) = (self.told.clone(), self.going.clone());
        kiln.runtime()
            .worker_fn("gate", move |job: &Running<()>| {
                told.send(job.id).unwrap();
                going.recv_timeout(DEADLINE).unwrap();
            })
            .worker_fn("pass", |_: &Running<()>| ())
    }

    fn next_to_begin(&self) -> i64 {
        self.began.recv_timeout(DEADLINE).unwrap()
    }

    fn let_go(&self, jobs: usize) {
        (0..jobs).for_each(|_| self.go.send(()).unwrap());
    }

    fn nobody_began(&self) -> bool {
        self.began.is_empty()
    }
}

fn enqueue(kiln: &Kiln, worker: &str, queue: &str) -> i64 {
    kiln.enqueue(NewJob::new(worker).args(()).queue(queue)).unwrap().id
}

fn completed(kiln: &Kiln, id: i64) -> Job {
    let job = kiln.wait(id, DEADLINE).unwrap().expect("the job finishes");
    assert_eq!(job.state, State::Completed);
    job
}

/// Jobs of another queue are enqueued, claimed and completed: a queue that is claimed from at all has had its turn.
fn let_turns_pass(kiln: &Kiln) {
    for _ in 0..3 {
        let id = enqueue(kiln, "pass", "other");
        completed(kiln, id);
    }
}

fn untouched(kiln: &Kiln, id: i64) -> bool {
    let job = kiln.get(id).unwrap().unwrap();
    job.state == State::Available && job.attempt == 0
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Runtime,
    All,
}

fn pause(by: By, kiln: &Kiln, runtime: &Runtime) {
    match by {
        By::Runtime => runtime.pause("q").unwrap(),
        By::All => kiln.pause("q").unwrap(),
    }
}

fn resume(by: By, kiln: &Kiln, runtime: &Runtime) {
    match by {
        By::Runtime => runtime.resume("q").unwrap(),
        By::All => kiln.resume("q").unwrap(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    BeforeStart,
    Idle,
    JobsWait,
    JobsRun,
}

#[test]
fn a_queue_paused_by_either_at_any_time_claims_nothing_until_the_same_resumes_it() {
    for when in [When::BeforeStart, When::Idle, When::JobsWait, When::JobsRun] {
        for (by, other) in [(By::Runtime, By::All), (By::All, By::Runtime)] {
            let folder = tempfile::tempdir().unwrap();
            let kiln = Kiln::open(folder.path().join("jobs.db")).unwrap();
            let gate = Gate::new();
            // With jobs that wait the lane is full; with jobs that run it has room for more.
            let limit = if when == When::JobsWait { 1 } else { 2 };
            let runtime = gate.runtime(&kiln).queue("q", limit).queue("other", 1).build().unwrap();
            if when != When::BeforeStart {
                runtime.start().unwrap();
            }
            let mut waiting = Vec::new();
            let running = matches!(when, When::JobsWait | When::JobsRun).then(|| enqueue(&kiln, "gate", "q"));
            if let Some(running) = running {
                assert_eq!(gate.next_to_begin(), running);
            }
            if when == When::JobsWait {
                waiting.push(enqueue(&kiln, "pass", "q"));
            }
            pause(by, &kiln, &runtime);
            runtime.start().unwrap();
            waiting.push(enqueue(&kiln, "pass", "q"));

            let_turns_pass(&kiln);
            if let Some(running) = running {
                assert_eq!(kiln.get(running).unwrap().unwrap().state, State::Executing);
                gate.let_go(1);
                completed(&kiln, running);
                let_turns_pass(&kiln);
            }
            assert!(waiting.iter().all(|id| untouched(&kiln, *id)), "{by:?} {when:?}");

            resume(other, &kiln, &runtime);
            let_turns_pass(&kiln);
            assert!(waiting.iter().all(|id| untouched(&kiln, *id)), "resumed by another: {by:?} {when:?}");

            let check = kiln.check("q").unwrap().remove(0);
            assert_eq!((check.paused_here, check.paused_for_all), (by == By::Runtime, by == By::All));
            resume(by, &kiln, &runtime);
            for id in waiting {
                assert_eq!(completed(&kiln, id).attempt, 1);
            }
            assert!(!kiln.check("q").unwrap()[0].paused());
        }
    }
}

#[test]
fn all_queues_of_a_runtime_are_paused_and_resumed_at_once() {
    let kiln = Kiln::in_memory().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("a", 1).queue("b", 1).start().unwrap();
    let bystander = gate.runtime(&kiln).queue("other", 1).start().unwrap();
    runtime.pause(Queues::All).unwrap();
    let jobs = [enqueue(&kiln, "pass", "a"), enqueue(&kiln, "pass", "b")];
    let_turns_pass(&kiln);
    assert!(jobs.iter().all(|id| untouched(&kiln, *id)));
    runtime.resume("b").unwrap();
    completed(&kiln, jobs[1]);
    assert!(untouched(&kiln, jobs[0]));
    runtime.resume(Queues::All).unwrap();
    completed(&kiln, jobs[0]);
    drop(bystander);
}

#[test]
fn a_pause_for_all_reaches_every_runtime_and_those_that_start_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let kiln = Kiln::open(&path).unwrap();
    let gate = Gate::new();
    let first = gate.runtime(&kiln).queue("q", 1).queue("other", 1).start().unwrap();
    let second = gate.runtime(&kiln).queue("q", 1).start().unwrap();
    kiln.pause(Queues::All).unwrap();
    kiln.resume("other").unwrap();
    let job = enqueue(&kiln, "pass", "q");
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, job));
    drop((first, second));
    drop(kiln);

    let kiln = Kiln::open(&path).unwrap();
    let later = gate.runtime(&kiln).queue("q", 1).queue("other", 1).queue("new", 1).start().unwrap();
    let new = enqueue(&kiln, "pass", "new");
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, job) && untouched(&kiln, new), "also a queue that nobody ran when it was said");
    kiln.resume(Queues::All).unwrap();
    completed(&kiln, job);
    completed(&kiln, new);
    assert!(kiln.check(Queues::All).unwrap().iter().all(|check| !check.paused()));
    drop(later);
}

#[test]
fn a_queue_scaled_up_runs_more_jobs_at_once() {
    for by in [By::Runtime, By::All] {
        let kiln = Kiln::in_memory().unwrap();
        let gate = Gate::new();
        let runtime = gate.runtime(&kiln).queue("q", 1).queue("other", 1).start().unwrap();
        let jobs: HashSet<i64> = (0..3).map(|_| enqueue(&kiln, "gate", "q")).collect();
        let first = gate.next_to_begin();
        let_turns_pass(&kiln);
        assert!(gate.nobody_began());
        match by {
            By::Runtime => runtime.scale("q", 3).unwrap(),
            By::All => kiln.scale("q", 3).unwrap(),
        }
        assert_eq!(HashSet::from([first, gate.next_to_begin(), gate.next_to_begin()]), jobs);
        gate.let_go(3);
        jobs.iter().for_each(|id| drop(completed(&kiln, *id)));
    }
}

#[test]
fn a_queue_scaled_down_lets_running_jobs_end_and_then_keeps_to_its_limit() {
    for by in [By::Runtime, By::All] {
        let kiln = Kiln::in_memory().unwrap();
        let gate = Gate::new();
        let runtime = gate.runtime(&kiln).queue("q", 3).queue("other", 1).start().unwrap();
        let jobs: Vec<i64> = (0..6).map(|_| enqueue(&kiln, "gate", "q")).collect();
        (0..3).for_each(|_| _ = gate.next_to_begin());
        match by {
            By::Runtime => runtime.scale("q", 1).unwrap(),
            By::All => kiln.scale(Queues::All, 1).unwrap(),
        }
        assert_eq!(kiln.check("q").unwrap()[0].running.len(), 3, "they go on");
        for ended in 1..=2 {
            gate.let_go(1);
            let done = || kiln.count(Filter::new().queue("q").state(State::Completed)).unwrap().total();
            eventually("a job ends", || done() == ended);
            let_turns_pass(&kiln);
            assert!(gate.nobody_began(), "{} still run", 3 - ended);
        }
        for _ in 0..3 {
            gate.let_go(1);
            gate.next_to_begin();
            let_turns_pass(&kiln);
            assert!(gate.nobody_began(), "one at a time");
        }
        gate.let_go(1);
        jobs.iter().for_each(|id| assert_eq!(completed(&kiln, *id).attempt, 1));
    }
}

#[test]
fn of_two_limits_the_one_that_was_set_last_holds() {
    let folder = tempfile::tempdir().unwrap();
    // On a clock that stands still, too.
    let clock = ManualClock::default();
    let kiln = Kiln::builder(folder.path().join("jobs.db")).clock(&clock).open().unwrap();
    let runtime = kiln.runtime().queue("q", 4).queue("r", 5).build().unwrap();
    let limits = || kiln.check(Queues::All).unwrap().iter().map(|check| check.limit).collect::<Vec<_>>();
    kiln.scale("q", 2).unwrap();
    runtime.scale("q", 6).unwrap();
    runtime.start().unwrap();
    assert_eq!(limits(), [6, 5]);
    kiln.scale("q", 2).unwrap();
    assert_eq!(limits(), [2, 5]);
    kiln.scale(Queues::All, 3).unwrap();
    assert_eq!(limits(), [3, 3]);
    runtime.scale(Queues::All, 7).unwrap();
    assert_eq!(limits(), [7, 7]);
    kiln.pause("q").unwrap();
    assert_eq!(limits(), [7, 7], "a pause is no limit");
    runtime.stop();
    runtime.start().unwrap();
    assert_eq!(limits(), [7, 7], "what a runtime was told holds when it is started again");
    kiln.scale("q", 1).unwrap();
    kiln.scale("r", None).unwrap();
    assert_eq!(limits(), [1, 3]);
    kiln.scale(Queues::All, None).unwrap();
    assert_eq!(limits(), [4, 5], "what they were built with");
    let later = kiln.runtime().queue("q", 9).start().unwrap();
    kiln.scale("q", 8).unwrap();
    assert_eq!(limits(), [8, 8, 5]);
    drop(later);
}

#[test]
fn a_queue_started_at_run_time_finds_what_waits_and_what_becomes_due() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("other", 1).start().unwrap();
    let waiting = enqueue(&kiln, "pass", "q");
    let due = kiln.enqueue(NewJob::new("pass").args(()).queue("q").schedule_in(Duration::from_secs(60))).unwrap().id;
    let_turns_pass(&kiln);
    clock.advance(Duration::from_secs(61));
    assert!(untouched(&kiln, waiting));
    runtime.start_queue("q", 1).unwrap();
    completed(&kiln, waiting);
    completed(&kiln, due);
    assert_eq!(kiln.health().unwrap().runtimes[0].queues, ["other", "q"]);
    assert_eq!(kiln.check("q").unwrap()[0].started_at, clock.now());
    assert_ne!(kiln.check("other").unwrap()[0].started_at, clock.now());
}

#[test]
fn a_queue_stopped_lets_its_jobs_end_and_claims_no_more_until_it_is_started_again() {
    let kiln = Kiln::in_memory().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("q", 1).queue("other", 1).start().unwrap();
    let running = enqueue(&kiln, "gate", "q");
    assert_eq!(gate.next_to_begin(), running);
    let waiting = enqueue(&kiln, "gate", "q");
    runtime.stop_queue("q").unwrap();
    assert!(kiln.check("q").unwrap().is_empty());
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, waiting));

    runtime.start_queue("q", 1).unwrap();
    assert_eq!(gate.next_to_begin(), waiting, "a lane of its own, though the old one still has a job");
    assert_eq!(kiln.check("q").unwrap()[0].running, [running, waiting]);
    gate.let_go(2);
    completed(&kiln, running);
    completed(&kiln, waiting);
}

#[test]
fn a_stop_waits_for_the_jobs_of_a_queue_that_was_stopped_before() {
    let kiln = Kiln::in_memory().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("q", 1).queue("other", 1).start().unwrap();
    let running = enqueue(&kiln, "gate", "q");
    gate.next_to_begin();
    runtime.stop_queue("q").unwrap();
    runtime.stop_queue("other").unwrap();
    let go = gate.go.clone();
    thread::scope(|scope| {
        scope.spawn(move || go.send(()));
        assert_eq!(runtime.stop_within(DEADLINE).cut, 0);
    });
    assert_eq!(kiln.get(running).unwrap().unwrap().state, State::Completed);
}

#[test]
fn what_cannot_be_is_refused_by_name_and_changes_nothing() {
    let kiln = Kiln::in_memory().unwrap();
    let runtime = kiln.runtime().queue("q", 1).start().unwrap();
    let cases: Vec<(&str, Result<(), Error>, &str)> = vec![
        ("queue", kiln.pause(" "), "queue must not be blank, got \" \""),
        ("queue", kiln.resume(""), "queue must not be blank, got \"\""),
        (
            "limit",
            kiln.scale("q", 0),
            "limit of queue \"q\" must be at least 1, got 0; to run none of its jobs, pause it",
        ),
        (
            "limit",
            runtime.scale("q", 0),
            "limit of queue \"q\" must be at least 1, got 0; to run none of its jobs, pause it",
        ),
        ("queue", runtime.pause("x"), "queue \"x\" is not run by this runtime; it runs [\"q\"]"),
        ("queue", runtime.resume("x"), "queue \"x\" is not run by this runtime; it runs [\"q\"]"),
        ("queue", runtime.scale("x", 1), "queue \"x\" is not run by this runtime; it runs [\"q\"]"),
        ("queue", runtime.stop_queue("x"), "queue \"x\" is not run by this runtime; it runs [\"q\"]"),
        (
            "queue",
            runtime.start_queue("q", 2),
            "queue \"q\" is run by this runtime already; scale it to change its limit",
        ),
        ("queue", runtime.start_queue(" ", 2), "queue must not be blank, got \" \""),
        (
            "limit",
            runtime.start_queue("x", 0),
            "limit of queue \"x\" must be at least 1, got 0; to run none of its jobs, pause it",
        ),
        ("queue", kiln.start_queue(" ", 1), "queue must not be blank, got \" \""),
        ("queue", kiln.stop_queue(""), "queue must not be blank, got \"\""),
        (
            "limit",
            kiln.start_queue("x", 0),
            "limit of queue \"x\" must be at least 1, got 0; to run none of its jobs, pause it",
        ),
        (
            "queue",
            kiln.start_queue(Queues::All, 3),
            "all queues cannot be started with a limit, got 3; name one, or give no limit",
        ),
    ];
    for (field, result, message) in cases {
        let error = result.unwrap_err();
        assert_eq!((error.field(), error.to_string().as_str()), (Some(field), message));
    }
    let checks = kiln.check(Queues::All).unwrap();
    assert_eq!(checks.len(), 1);
    assert_eq!((checks[0].queue.as_str(), checks[0].limit, checks[0].paused()), ("q", 1, false));
}

#[test]
fn each_verb_tells_one_event() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let kiln = Kiln::memory_builder().observe(move |event| log.lock().push(event.to_string())).open().unwrap();
    let runtime = kiln.runtime().queue("q", 1).start().unwrap();
    kiln.pause("q").unwrap();
    kiln.resume(Queues::All).unwrap();
    kiln.scale("q", 2).unwrap();
    kiln.scale(Queues::All, None).unwrap();
    runtime.pause("q").unwrap();
    runtime.resume(Queues::All).unwrap();
    runtime.scale("q", 3).unwrap();
    runtime.start_queue("r", 4).unwrap();
    runtime.stop_queue("r").unwrap();
    assert!(runtime.pause("r").is_err());
    kiln.start_queue("r", 4).unwrap();
    kiln.start_queue(Queues::All, None).unwrap();
    kiln.stop_queue("q").unwrap();
    kiln.stop_queue(Queues::All).unwrap();
    assert_eq!(
        *told.lock(),
        [
            "paused queue=q for_all=true",
            "resumed queue=* for_all=true",
            "scaled queue=q limit=2 for_all=true",
            "scaled queue=* limit=none for_all=true",
            "paused queue=q for_all=false",
            "resumed queue=* for_all=false",
            "scaled queue=q limit=3 for_all=false",
            "queue_started queue=r limit=4 for_all=false",
            "queue_stopped queue=r for_all=false",
            "queue_started queue=r limit=4 for_all=true",
            "queue_started queue=* limit=none for_all=true",
            "queue_stopped queue=q for_all=true",
            "queue_stopped queue=* for_all=true",
        ]
    );
}

#[test]
fn an_observer_may_pause_the_queue_of_a_job_that_failed() {
    let handle: Arc<OnceLock<Kiln>> = Arc::default();
    let observers = Arc::clone(&handle);
    let (told, paused) = unbounded();
    let breaker = move |event: &Event| {
        if let Event::Acked { job, state: Some(State::Discarded), .. } = event {
            observers.get().unwrap().pause(&job.queue).unwrap();
            told.send(()).unwrap();
        }
    };
    let kiln = handle.get_or_init(|| Kiln::memory_builder().observe(breaker).open().unwrap());
    let failing = |_: &Running<()>| Err::<(), _>(Failure::from("no power"));
    let runtime = kiln.runtime().queue("q", 1).worker_fn("fail", failing).start().unwrap();
    kiln.enqueue(NewJob::new("fail").args(()).queue("q").max_attempts(1)).unwrap();
    paused.recv_timeout(DEADLINE).unwrap();
    assert!(kiln.check("q").unwrap()[0].paused_for_all);
    drop(runtime);
}

#[test]
fn a_row_written_by_another_program_is_heeded_without_a_ring() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let kiln = Kiln::open(&path).unwrap();
    let runtime = Gate::new().runtime(&kiln).queue("q", 1).start().unwrap();
    kiln.pause("q").unwrap();
    let job = enqueue(&kiln, "pass", "q");
    let stranger = rusqlite::Connection::open(&path).unwrap();
    stranger.busy_timeout(DEADLINE).unwrap();
    stranger.execute("UPDATE kiln_queues SET paused = 0 WHERE queue = 'q'", []).unwrap();
    completed(&kiln, job);
    stranger
        .execute("INSERT OR REPLACE INTO kiln_queues (queue, \"limit\") VALUES ('q', -3), ('r', 'many')", [])
        .unwrap();
    assert_eq!(kiln.check("q").unwrap()[0].limit, 1, "what makes no sense says nothing");
    drop(runtime);
}

/// What `check` tells of the queues that are run: name and limit.
fn run(kiln: &Kiln) -> Vec<(String, usize)> {
    kiln.check(Queues::All).unwrap().into_iter().map(|check| (check.queue, check.limit)).collect()
}

fn named<const N: usize>(queues: [(&str, usize); N]) -> Vec<(String, usize)> {
    queues.into_iter().map(|(queue, limit)| (queue.to_owned(), limit)).collect()
}

#[test]
fn a_queue_started_for_all_is_run_by_every_runtime_and_by_those_to_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let kiln = Kiln::open(&path).unwrap();
    let gate = Gate::new();
    let first = gate.runtime(&kiln).queue("other", 1).start().unwrap();
    let second = gate.runtime(&kiln).queue("q", 5).start().unwrap();
    kiln.start_queue("q", 2).unwrap();
    assert_eq!(run(&kiln), named([("other", 1), ("q", 2), ("q", 2)]));
    let jobs: HashSet<i64> = (0..5).map(|_| enqueue(&kiln, "gate", "q")).collect();
    let begun: HashSet<i64> = (0..4).map(|_| gate.next_to_begin()).collect();
    assert!(begun.is_subset(&jobs));
    let_turns_pass(&kiln);
    assert!(gate.nobody_began(), "two in each");
    gate.let_go(5);
    jobs.iter().for_each(|id| drop(completed(&kiln, *id)));
    drop((first, second));
    drop(kiln);

    let kiln = Kiln::open(&path).unwrap();
    let later = gate.runtime(&kiln).queue("other", 1).start().unwrap();
    assert_eq!(kiln.health().unwrap().runtimes[0].queues, ["other", "q"], "said before the restart");
    let job = enqueue(&kiln, "pass", "q");
    completed(&kiln, job);
    kiln.scale("q", 7).unwrap();
    assert_eq!(run(&kiln), named([("other", 1), ("q", 7)]));
    kiln.scale("q", None).unwrap();
    assert_eq!(run(&kiln), named([("other", 1), ("q", 2)]), "what it was started with");
    kiln.start_queue("q", None).unwrap();
    assert_eq!(run(&kiln), named([("other", 1)]), "it was not built with it");
    assert_eq!(kiln.health().unwrap().runtimes[0].queues, ["other"]);
    let job = enqueue(&kiln, "pass", "q");
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, job));
    later.start_queue("q", 3).unwrap();
    completed(&kiln, job);
}

#[test]
fn a_queue_stopped_for_all_is_run_by_nobody_until_it_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let kiln = Kiln::open(&path).unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("q", 2).queue("other", 1).start().unwrap();
    let running = enqueue(&kiln, "gate", "q");
    assert_eq!(gate.next_to_begin(), running);
    kiln.stop_queue("q").unwrap();
    let waiting = enqueue(&kiln, "pass", "q");
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, waiting));
    assert_eq!(run(&kiln), named([("other", 1)]));
    assert_eq!(kiln.get(running).unwrap().unwrap().state, State::Executing, "what runs goes on");
    gate.let_go(1);
    completed(&kiln, running);
    drop((runtime, kiln));

    let kiln = Kiln::open(&path).unwrap();
    let later = gate.runtime(&kiln).queue("q", 3).queue("other", 1).start().unwrap();
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, waiting), "said before the restart");
    kiln.start_queue("q", None).unwrap();
    completed(&kiln, waiting);
    assert_eq!(run(&kiln), named([("other", 1), ("q", 3)]));
    drop(later);
}

#[test]
fn all_queues_stopped_are_started_one_by_one_or_all_at_once() {
    let kiln = Kiln::in_memory().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("a", 1).queue("b", 2).start().unwrap();
    kiln.start_queue("lent", 4).unwrap();
    assert_eq!(run(&kiln), named([("a", 1), ("b", 2), ("lent", 4)]));
    kiln.stop_queue(Queues::All).unwrap();
    assert!(run(&kiln).is_empty());
    let jobs = ["a", "b", "lent"].map(|queue| enqueue(&kiln, "pass", queue));
    kiln.start_queue("a", None).unwrap();
    completed(&kiln, jobs[0]);
    assert!(untouched(&kiln, jobs[1]) && untouched(&kiln, jobs[2]));
    kiln.start_queue("lent", 5).unwrap();
    completed(&kiln, jobs[2]);
    assert_eq!(run(&kiln), named([("a", 1), ("lent", 5)]));
    kiln.start_queue(Queues::All, None).unwrap();
    completed(&kiln, jobs[1]);
    assert_eq!(run(&kiln), named([("a", 1), ("b", 2)]), "each runs what it was built with");
    runtime.stop_queue(Queues::All).unwrap();
    assert!(run(&kiln).is_empty());
    runtime.start_queue("b", 3).unwrap();
    assert_eq!(run(&kiln), named([("b", 3)]));
}

#[test]
fn a_queue_stopped_by_either_is_run_when_the_same_starts_it() {
    let kiln = Kiln::in_memory().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("q", 1).queue("other", 1).start().unwrap();
    let bystander = gate.runtime(&kiln).queue("idle", 1).start().unwrap();
    kiln.start_queue("q", 2).unwrap();
    runtime.stop_queue("q").unwrap();
    bystander.stop_queue("q").unwrap();
    let job = enqueue(&kiln, "pass", "q");
    kiln.start_queue("q", 3).unwrap();
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, job), "stopped by each for itself");
    kiln.stop_queue("q").unwrap();
    runtime.start_queue("q", 4).unwrap();
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, job), "stopped for all");
    kiln.start_queue("q", None).unwrap();
    completed(&kiln, job);
    assert_eq!(kiln.check("q").unwrap().len(), 1, "the bystander was not built with it, and has not started it");
}

#[test]
fn a_pause_and_a_limit_outlast_a_stop_and_a_start() {
    let kiln = Kiln::in_memory().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("other", 1).build().unwrap();
    kiln.start_queue("q", 2).unwrap();
    // Not running yet, it knows what it will run all the same.
    runtime.pause("q").unwrap();
    runtime.scale("q", 9).unwrap();
    runtime.start().unwrap();
    let job = enqueue(&kiln, "pass", "q");
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, job));
    kiln.stop_queue("q").unwrap();
    assert!(kiln.check("q").unwrap().is_empty());
    kiln.start_queue("q", 3).unwrap();
    kiln.pause("q").unwrap();
    runtime.resume("q").unwrap();
    let check = kiln.check("q").unwrap().remove(0);
    assert_eq!((check.limit, check.paused_here, check.paused_for_all), (3, false, true), "the limit set last");
    let_turns_pass(&kiln);
    assert!(untouched(&kiln, job));
    kiln.resume("q").unwrap();
    completed(&kiln, job);
}

#[test]
fn a_queue_started_for_all_finds_what_becomes_due() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let gate = Gate::new();
    let runtime = gate.runtime(&kiln).queue("other", 1).start().unwrap();
    let due = kiln.enqueue(NewJob::new("pass").args(()).queue("q").schedule_in(Duration::from_secs(60))).unwrap().id;
    let_turns_pass(&kiln);
    clock.advance(Duration::from_secs(61));
    kiln.start_queue("q", 1).unwrap();
    completed(&kiln, due);
    drop(runtime);
}

/// Switches something, drawn at random.
fn switch(random: &mut fastrand::Rng, kiln: &Kiln, runtime: &Runtime) {
    let queue = Queues::from(*random.choice(["a", "b"].iter()).unwrap());
    let queue = if random.u8(..4) == 0 { Queues::All } else { queue };
    // That a queue was stopped by another hand is no fault of this one.
    let _ = match random.u8(..11) {
        0 => kiln.pause(queue),
        1 => kiln.resume(queue),
        2 => kiln.scale(queue, random.usize(1..5)),
        3 => runtime.pause(queue),
        4 => runtime.resume(queue),
        5 => runtime.scale(queue, random.usize(1..5)),
        6 => runtime.stop_queue("a"),
        7 => kiln.stop_queue(queue),
        8 => kiln.start_queue(queue, None),
        9 => kiln.start_queue("a", random.usize(1..5)),
        _ => runtime.start_queue("a", random.usize(1..5)),
    };
}

/// Whatever the hands on the queues do meanwhile, every job is executed once, and at its first attempt.
#[test]
fn no_job_is_lost_or_executed_twice_while_everything_is_switched_at_random() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let kiln = Kiln::open(folder.path().join("jobs.db")).unwrap();
    let (told, executed) = unbounded();
    let runtime = kiln
        .runtime()
        .queue("a", 2)
        .queue("b", 1)
        .worker_fn("count", move |job: &Running<()>| told.send(job.id).unwrap())
        .start()
        .unwrap();
    let over = AtomicBool::new(false);
    let jobs: Vec<i64> = thread::scope(|scope| {
        for hand in 0..3 {
            let (kiln, runtime, over) = (&kiln, &runtime, &over);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed + hand);
                while !over.load(Ordering::Acquire) {
                    switch(&mut random, kiln, runtime);
                }
            });
        }
        let jobs = (0..60).flat_map(|n| {
            let queue = if n % 3 == 0 { "b" } else { "a" };
            let some = (0..5).map(|_| NewJob::new("count").args(()).queue(queue));
            kiln.enqueue_many(some).unwrap().into_iter().map(|job| job.id)
        });
        let jobs = jobs.collect();
        over.store(true, Ordering::Release);
        jobs
    });
    let _ = runtime.start_queue("a", 1);
    runtime.resume(Queues::All).unwrap();
    kiln.resume(Queues::All).unwrap();
    kiln.start_queue(Queues::All, None).unwrap();
    for id in &jobs {
        let job = completed(&kiln, *id);
        assert_eq!((job.attempt, job.errors.len()), (1, 0), "seed {seed}");
    }
    let mut executed: Vec<i64> = executed.try_iter().collect();
    executed.sort_unstable();
    assert_eq!(executed, jobs, "seed {seed}");
    assert_eq!(runtime.stop().cut, 0);
}

const FILE: &str = "KILN_TEST_QUEUES_FILE";

/// Another process that runs a test of this program as its main function.
struct Other {
    child: Child,
    said: Receiver<String>,
}

impl Other {
    fn start(test: &str, file: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (say, said) = unbounded();
        thread::spawn(move || {
            for line in output.lines() {
                // The harness around it talks as well.
                if let Some((_, word)) = line.unwrap().split_once("other says ") {
                    let _ = say.send(word.trim().to_owned());
                }
            }
        });
        Self { child, said }
    }

    /// The next thing it says.
    fn says(&self) -> String {
        self.said.recv_timeout(DEADLINE).unwrap()
    }

    fn tell(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap(), "go on").unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process's part: runs the queue `q`, says what it begins, and ends with its input.
fn be_the_other(file: &Path) {
    let kiln = Kiln::builder(file).node("elsewhere").open().unwrap();
    let (go, going) = unbounded::<()>();
    let runtime = kiln
        .runtime()
        .queue("q", 3)
        .worker_fn("quick", |job: &Running<()>| println!("other says {}", job.id))
        .worker_fn("held", move |job: &Running<()>| {
            println!("other says {}", job.id);
            going.recv_timeout(DEADLINE).unwrap();
        })
        .start()
        .unwrap();
    println!("other says {}", runtime.id().unwrap());
    for line in std::io::stdin().lines() {
        line.unwrap();
        go.send(()).unwrap();
    }
}

#[test]
fn check_tells_how_another_process_runs_its_queues() {
    if let Some(file) = env::var_os(FILE) {
        return be_the_other(Path::new(&file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let kiln = Kiln::builder(&file).node("here").open().unwrap();
    let mut other = Other::start("check_tells_how_another_process_runs_its_queues", &file);
    let id = other.says();
    let jobs = [enqueue(&kiln, "held", "q"), enqueue(&kiln, "held", "q")];
    assert_eq!(HashSet::from([other.says(), other.says()]), HashSet::from(jobs.map(|id| id.to_string())));

    let here = kiln.runtime().queue("q", 1).queue("r", 2).start().unwrap();
    here.pause("r").unwrap();
    kiln.scale("q", 5).unwrap();
    here.scale("q", 4).unwrap();
    let found = kiln.check("q").unwrap();
    let told: Vec<_> = found.iter().map(|c| (c.node.as_str(), c.runtime.clone(), c.limit, c.running.clone())).collect();
    assert_eq!(told, [("elsewhere", id, 5, jobs.to_vec()), ("here", here.id().unwrap(), 4, vec![])]);
    assert!(found[0].started_at < found[1].started_at);
    let found = kiln.check(Queues::All).unwrap();
    let told: Vec<_> = found.iter().map(|c| (c.queue.as_str(), c.node.as_str(), c.paused_here)).collect();
    assert_eq!(told, [("q", "elsewhere", false), ("q", "here", false), ("r", "here", true)]);

    other.tell();
    other.tell();
    jobs.iter().for_each(|id| drop(completed(&kiln, *id)));
    drop(other);
    assert!(kiln.check("q").unwrap().iter().all(|check| check.node == "here"), "the dead run nothing");
}

#[test]
fn a_pause_and_its_end_reach_another_process_within_100_ms() {
    if let Some(file) = env::var_os(FILE) {
        return be_the_other(Path::new(&file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let kiln = Kiln::open(&file).unwrap();
    let other = Other::start("a_pause_and_its_end_reach_another_process_within_100_ms", &file);
    other.says();
    let (mut paused, mut resumed) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let began = Instant::now();
        kiln.pause("q").unwrap();
        // Until one is left alone: when did the last begin?
        let mut reached = began.elapsed();
        let waiting = loop {
            let job = enqueue(&kiln, "quick", "q").to_string();
            match other.said.recv_timeout(Duration::from_millis(20)) {
                Ok(said) => assert_eq!(said, job),
                Err(_) => break job,
            }
            reached = began.elapsed();
        };
        paused.push(reached);
        let began = Instant::now();
        kiln.resume("q").unwrap();
        assert_eq!(other.says(), waiting);
        resumed.push(began.elapsed());
    }
    for (what, took) in [("pause", &mut paused), ("resume", &mut resumed)] {
        took.sort_unstable();
        let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
        println!("from the call of {what} to what came of it elsewhere: median {median:?}, worst {worst:?}");
        // Without the bell it would be the next look at the file, 600 ms later at the most.
        assert!(median < Duration::from_millis(100), "{took:?}");
    }
}

#[test]
fn a_limit_reaches_another_process() {
    if let Some(file) = env::var_os(FILE) {
        return be_the_other(Path::new(&file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let kiln = Kiln::open(&file).unwrap();
    kiln.scale("q", 1).unwrap();
    let other = Other::start("a_limit_reaches_another_process", &file);
    other.says();
    let jobs: Vec<String> = (0..4).map(|_| enqueue(&kiln, "held", "q").to_string()).collect();
    assert_eq!(other.says(), jobs[0]);
    assert_eq!(kiln.check("q").unwrap()[0].running.len(), 1, "said before it started");
    kiln.scale("q", 4).unwrap();
    let rest: HashSet<String> = (0..3).map(|_| other.says()).collect();
    assert_eq!(rest, jobs[1..].iter().cloned().collect());
}

#[test]
fn a_stop_and_a_start_for_all_reach_another_process_within_100_ms() {
    if let Some(file) = env::var_os(FILE) {
        return be_the_other(Path::new(&file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let kiln = Kiln::open(&file).unwrap();
    let other = Other::start("a_stop_and_a_start_for_all_reach_another_process_within_100_ms", &file);
    other.says();
    let (mut stopped, mut started) = (Vec::new(), Vec::new());
    for round in 0..30 {
        // One that it was built with, and one that it never heard of.
        let queue = if round % 2 == 0 { "q".to_owned() } else { format!("new {round}") };
        if round % 2 == 1 {
            kiln.start_queue(&queue, 2).unwrap();
            let job = enqueue(&kiln, "quick", &queue).to_string();
            assert_eq!(other.says(), job);
        }
        let began = Instant::now();
        kiln.stop_queue(&queue).unwrap();
        // Until one is left alone: when did the last begin?
        let mut reached = began.elapsed();
        let waiting = loop {
            let job = enqueue(&kiln, "quick", &queue).to_string();
            match other.said.recv_timeout(Duration::from_millis(20)) {
                Ok(said) => assert_eq!(said, job),
                Err(_) => break job,
            }
            reached = began.elapsed();
        };
        stopped.push(reached);
        let began = Instant::now();
        kiln.start_queue(&queue, 3).unwrap();
        assert_eq!(other.says(), waiting);
        started.push(began.elapsed());
        eventually("it makes known what it runs", || kiln.check(&queue).unwrap().len() == 1);
    }
    for (what, took) in [("stop", &mut stopped), ("start", &mut started)] {
        took.sort_unstable();
        let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
        println!("from the call of {what} to what came of it elsewhere: median {median:?}, worst {worst:?}");
        // Without the bell it would be the next look at the file, 600 ms later at the most.
        assert!(median < Duration::from_millis(100), "{took:?}");
    }
}

#[test]
fn a_row_that_starts_a_queue_is_heeded_without_a_ring() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let kiln = Kiln::open(&path).unwrap();
    let runtime = Gate::new().runtime(&kiln).queue("other", 1).start().unwrap();
    let job = enqueue(&kiln, "pass", "q");
    let stranger = rusqlite::Connection::open(&path).unwrap();
    stranger.busy_timeout(DEADLINE).unwrap();
    stranger.execute("INSERT INTO kiln_queues (queue, run) VALUES ('q', 2), ('', 7), ('r', 'x')", []).unwrap();
    completed(&kiln, job);
    // It begins jobs a moment before it makes known that it does.
    let both = named([("other", 1), ("q", 2)]);
    eventually("it makes known what it runs", || run(&kiln) == both);
    stranger.execute("UPDATE kiln_queues SET run = 0 WHERE queue = ''", []).unwrap();
    eventually("all but the one are stopped", || run(&kiln) == named([("q", 2)]));
    drop(runtime);
}
