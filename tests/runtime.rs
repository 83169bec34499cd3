//! The house at work: stories with threads. They wait for events, and only an event that never comes is given a time.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as StdError;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::{DEADLINE, Ends, Folder, Gate, Meter, count, eventually, everywhere, get, ms, pulse, reaches, until};
use crossbeam_channel::{Receiver, Sender, unbounded};
use kiln::testing::{Hand, ManualClock};
use kiln::{
    Cancelled, Changes, Failure, Filter, Job, JobError, Kiln, NewJob, Outcome, Running, Runtime, RuntimeBuilder, State,
    Worker,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

type Seen = (Sender<i64>, Receiver<i64>);

fn next<T>(channel: &Receiver<T>) -> T {
    channel.recv_timeout(DEADLINE).expect("a job that should run does not")
}

fn total(kiln: &Kiln) -> u64 {
    kiln.count(Filter::new()).unwrap().total()
}

/// A runtime with one thread for the queue `default`.
fn single(kiln: &Kiln) -> RuntimeBuilder {
    kiln.runtime().queue("default", 1)
}

/// A job that says that it began and waits at the gate, whatever its flag says.
fn stubborn(gate: &Gate, begun: &Sender<i64>) -> impl Fn(&Running<Value>) + Send + Sync + 'static {
    let (gate, begun) = (gate.clone(), begun.clone());
    move |job| {
        begun.send(job.id).unwrap();
        gate.pass();
    }
}

fn error_of(errors: &[JobError]) -> &str {
    match errors {
        [only] => &only.error,
        other => panic!("one error was expected: {other:?}"),
    }
}

// Claiming.

#[test]
fn a_queue_that_is_stuck_delays_no_other() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let runtime = kiln
            .runtime()
            .queue("stuck", 1)
            .queue("swift", 1)
            .queue("broad", 3)
            .worker_fn("stuck", stubborn(&gate, &begun))
            .worker_fn("swift", |_: &Running<Value>| ())
            .start()
            .unwrap();
        kiln.enqueue_many((0..500).map(|_| NewJob::new("stuck").queue("stuck"))).unwrap();
        next(&beginnings);
        let swift = |n: usize| NewJob::new("swift").queue(["swift", "broad"][n % 2]);
        for job in kiln.enqueue_many((0..100).map(swift)).unwrap() {
            reaches(&kiln, job.id, State::Completed);
        }
        let counts = kiln.count(Filter::new()).unwrap();
        assert_eq!((counts.get("stuck", State::Executing), counts.get("stuck", State::Available)), (1, 499));
        gate.open();
        runtime.stop();
    });
}

#[test]
fn a_queue_runs_as_many_jobs_at_once_as_its_limit_and_never_more() {
    const LIMIT: usize = 3;
    everywhere(|kiln| {
        let (gate, meter) = (Gate::default(), Meter::default());
        let runtime = {
            let (gate, meter) = (gate.clone(), meter.clone());
            let work = move |_: &Running<Value>| {
                let _inside = meter.enter();
                gate.pass();
                thread::yield_now();
            };
            kiln.runtime().queue("default", LIMIT).worker_fn("w", work).start().unwrap()
        };
        for _ in 0..20 {
            kiln.enqueue(NewJob::new("w")).unwrap();
        }
        until("the limit is reached", || meter.inside() == LIMIT);
        assert_eq!((count(&kiln, State::Executing), count(&kiln, State::Available)), (LIMIT as u64, 17));
        assert_eq!(pulse(&kiln, &runtime).executing, LIMIT);
        gate.open();
        kiln.enqueue_many((0..300).map(|_| NewJob::new("w"))).unwrap();
        until("all is done", || count(&kiln, State::Completed) == 320);
        assert_eq!(meter.most(), LIMIT);
        runtime.stop();
    });
}

#[test]
fn jobs_run_in_the_order_priority_due_time_id() {
    everywhere(|kiln| {
        let clock = ManualClock::default();
        let now = clock.now();
        let new = |priority: i64, due: i64| {
            let due = now - jiff::SignedDuration::from_secs(due);
            NewJob::new("w").priority(priority).scheduled_at(due)
        };
        let jobs = [(3, 0), (0, 5), (9, 99), (0, 5), (3, 7), (0, 50), (3, 0), (1, 0)].map(|(p, d)| new(p, d));
        let mut jobs = kiln.enqueue_many(jobs).unwrap();
        // Staged by hand, or the first ones would be claimed while the others still wait to be staged.
        Hand::new(&kiln, ["w"]).stage(&["default"]).unwrap();
        let (begun, beginnings) = unbounded();
        let runtime =
            single(&kiln).worker_fn("w", move |job: &Running<Value>| begun.send(job.id).unwrap()).start().unwrap();
        let order: Vec<i64> = (0..jobs.len()).map(|_| next(&beginnings)).collect();
        jobs.sort_by_key(|job| (job.priority, job.scheduled_at, job.id));
        assert_eq!(order, jobs.iter().map(|job| job.id).collect::<Vec<_>>());
        runtime.stop();
    });
}

#[test]
fn a_worker_sees_the_row_as_it_was_claimed() {
    everywhere(|kiln| {
        let (tell, told) = unbounded();
        let runtime = single(&kiln)
            .worker_fn("w", move |job: &Running<Value>| {
                let row: &Job = job;
                tell.send((job.args.clone(), row.clone(), job.fence())).unwrap();
            })
            .start()
            .unwrap();
        let job = NewJob::new("w").args(json!({ "n": 1 })).meta(json!({ "m": 2 })).tags(["t"]).max_attempts(4);
        let enqueued = kiln.enqueue(job).unwrap();
        let (args, row, fence) = next(&told);
        assert_eq!(args, json!({ "n": 1 }));
        assert_eq!((row.state, row.attempt, row.max_attempts), (State::Executing, 1, 4));
        assert_eq!((&row.meta, &row.tags, row.inserted_at), (&enqueued.meta, &enqueued.tags, enqueued.inserted_at));
        assert_eq!(row.attempted_by.len(), 2);
        assert_eq!(row.attempted_by[1], runtime.id().unwrap());
        assert_eq!(kiln::testing::fence(&row), fence);
        let done = reaches(&kiln, row.id, State::Completed);
        assert_eq!((done.attempted_at, &done.attempted_by), (row.attempted_at, &row.attempted_by));
        assert!(done.completed_at.unwrap() >= done.attempted_at.unwrap());
        runtime.stop();
    });
}

#[test]
fn quick_and_slow_jobs_of_one_queue_run_once_each_and_never_more_at_once_than_the_limit() {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    everywhere(|kiln| {
        const JOBS: usize = 4_000;
        const LIMIT: usize = 3;
        let mut dice = fastrand::Rng::with_seed(seed);
        let ran: Arc<Vec<AtomicUsize>> = Arc::new((0..JOBS).map(|_| AtomicUsize::new(0)).collect());
        let at_once = Arc::new(AtomicUsize::new(0));
        let runtime = {
            let (ran, at_once) = (Arc::clone(&ran), Arc::clone(&at_once));
            let work = move |job: &Running<Value>| {
                assert!(at_once.fetch_add(1, Ordering::SeqCst) < LIMIT, "more than {LIMIT} at once");
                ran[job.args["n"].as_u64().unwrap() as usize].fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(job.args["takes"].as_u64().unwrap()));
                at_once.fetch_sub(1, Ordering::SeqCst);
            };
            kiln.runtime().queue("default", LIMIT).worker_fn("w", work).start().unwrap()
        };
        let mut n = 0;
        while n < JOBS {
            // Long runs of quick jobs, so that claims run ahead, and then slow ones that keep them waiting.
            let some = dice.usize(1..300).min(JOBS - n);
            let takes = [0, 0, 0, 50, 30_000][dice.usize(..5)];
            let jobs = (n..n + some).map(|n| {
                let takes = if takes < 1000 || n % 50 == 0 { takes } else { 0 };
                NewJob::new("w").args(json!({ "n": n, "takes": takes })).max_attempts(1)
            });
            kiln.enqueue_many(jobs).unwrap();
            n += some;
        }
        until("all have run", || count(&kiln, State::Completed) == JOBS as u64);
        assert!(ran.iter().all(|ran| ran.load(Ordering::SeqCst) == 1));
        let attempts = kiln.list(Filter::new().limit(JOBS as u32)).unwrap().into_iter().map(|job| job.attempt);
        assert!(attempts.into_iter().all(|attempt| attempt == 1), "those given back have their attempt again");
        runtime.stop();
    });
}

#[test]
fn jobs_claimed_ahead_are_given_back_untouched_on_a_pause_a_cancel_and_a_stop() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)) = (Gate::default(), unbounded());
        let runtime = single(&kiln)
            .worker_fn("gate", stubborn(&gate, &begun))
            .worker_fn("quick", |_: &Running<Value>| ())
            // So far that no claim stays behind, and that nothing is given back because it waits.
            .claim_ahead(Duration::from_secs(3600))
            .grace(Duration::ZERO)
            .start()
            .unwrap();
        kiln.enqueue_many((0..50).map(|_| NewJob::new("quick"))).unwrap();
        until("it is known that they are quick", || count(&kiln, State::Completed) == 50);

        let slow = kiln.enqueue(NewJob::new("gate").priority(0)).unwrap().id;
        assert_eq!(next(&beginnings), slow);
        let ahead = kiln.enqueue_many((0..60).map(|_| NewJob::new("quick").priority(1))).unwrap();
        let ids: Vec<i64> = ahead.iter().map(|job| job.id).collect();
        let executing = |jobs| move |kiln: &Kiln| count(kiln, State::Executing) == jobs;
        until("they are claimed ahead", || executing(61)(&kiln));
        assert_eq!(pulse(&kiln, &runtime).executing, 1, "none has begun");

        assert_eq!(kiln.cancel(ids[7]).unwrap(), 1);
        runtime.pause("default").unwrap();
        until("they are given back", || executing(1)(&kiln));
        for (n, &id) in ids.iter().enumerate() {
            let job = get(&kiln, id);
            let state = if n == 7 { State::Cancelled } else { State::Available };
            assert_eq!((job.state, job.attempt, job.errors.len()), (state, 0, 0), "{job}");
        }

        runtime.resume("default").unwrap();
        until("they are claimed ahead again", || executing(60)(&kiln));
        let report = runtime.stop();
        assert_eq!((report.returned, report.cut), (59, 1));
        let untouched = |id: &&i64| get(&kiln, **id).state == State::Available && get(&kiln, **id).attempt == 0;
        assert_eq!(ids.iter().filter(untouched).count(), 59);
        gate.open();
    });
}

#[test]
fn a_slow_job_does_not_keep_what_was_claimed_ahead_from_others() {
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, (begun, beginnings)) = (Gate::default(), unbounded());
    let runtime = single(&kiln)
        .worker_fn("gate", stubborn(&gate, &begun))
        .worker_fn("quick", |_: &Running<Value>| ())
        .start()
        .unwrap();
    kiln.enqueue_many((0..50).map(|_| NewJob::new("quick"))).unwrap();
    until("it is known that they are quick", || count(&kiln, State::Completed) == 50);
    let jobs = iter::once(NewJob::new("gate")).chain((0..60).map(|_| NewJob::new("quick").priority(1)));
    kiln.enqueue_many(jobs).unwrap();
    next(&beginnings);

    // Another runtime on the file has nothing to do with the gate, and all the others to itself.
    let other = folder.open();
    let helper = single(&other).worker_fn("quick", |_: &Running<Value>| ()).start().unwrap();
    until("the other did them", || count(&kiln, State::Completed) == 110);
    assert_eq!(count(&kiln, State::Executing), 1);
    helper.stop();
    gate.open();
    runtime.stop();
}

#[test]
fn an_enqueue_returns_while_a_backlog_is_worked_off() {
    const BACKLOG: u64 = 24_000;
    everywhere(|kiln| {
        let ran = Arc::new(AtomicU64::new(0));
        let runtime = {
            let ran = Arc::clone(&ran);
            let work = move |_: &Running<Value>| {
                ran.fetch_add(1, Ordering::SeqCst);
            };
            kiln.runtime().queue("default", 4).worker_fn("w", work).start().unwrap()
        };
        for round in 1..=4 {
            kiln.enqueue_many((0..BACKLOG).map(|_| NewJob::new("w"))).unwrap();
            let mut calls = 0;
            while ran.load(Ordering::SeqCst) < BACKLOG * round {
                kiln.enqueue(NewJob::new("w").queue("elsewhere")).unwrap();
                calls += 1;
            }
            // It takes sixty transactions and more; a call is served by one of the next few, mostly the next but one.
            assert!(calls >= 10, "only {calls} calls came back while {BACKLOG} jobs were executed");
        }
        runtime.stop();
    });
}

#[test]
fn a_runtime_started_later_picks_up_what_waits() {
    everywhere(|kiln| {
        let waiting = kiln.enqueue_many((0..50).map(|_| NewJob::new("w"))).unwrap();
        let due = kiln.enqueue(NewJob::new("w").schedule_in(ms(1))).unwrap();
        let runtime = kiln.runtime().queue("default", 2).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
        for job in waiting.iter().chain([&due]) {
            reaches(&kiln, job.id, State::Completed);
        }
        runtime.stop();
    });
}

#[test]
fn two_runtimes_share_the_work_and_run_no_job_twice() {
    const JOBS: u64 = 600;
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    // With a handle each, and both with the same.
    for kilns in [[&one, &other], [&one, &one]] {
        let runs: Arc<Mutex<BTreeMap<i64, Vec<usize>>>> = Arc::default();
        let both = [Gate::default(), Gate::default()];
        let runtimes = [0, 1].map(|n| {
            let (runs, both) = (Arc::clone(&runs), both.clone());
            let work = move |job: &Running<Value>| {
                runs.lock().entry(job.id).or_default().push(n);
                // Nobody does it all alone: each waits for the other's first job.
                both[n].open();
                both[1 - n].pass();
            };
            kilns[n].runtime().queue("default", 2).worker_fn("w", work).start().unwrap()
        });
        let before = count(&one, State::Completed);
        thread::scope(|scope| {
            for kiln in kilns {
                scope.spawn(move || (0..JOBS / 2).for_each(|_| drop(kiln.enqueue(NewJob::new("w")).unwrap())));
            }
        });
        until("all is done", || count(&one, State::Completed) == before + JOBS);
        runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
        let runs = runs.lock();
        assert_eq!(runs.len() as u64, JOBS);
        assert!(runs.values().all(|runs| runs.len() == 1), "some ran twice");
        let by: BTreeSet<usize> = runs.values().flatten().copied().collect();
        assert_eq!(by.len(), 2, "both had a part in it");
    }
}

#[test]
fn an_enqueue_by_another_handle_starts_the_job_at_once() {
    let folder = Folder::new();
    let (here, elsewhere) = (folder.open(), folder.open());
    let (begun, beginnings) = unbounded();
    // Two threads for one job at a time: a claim that fills all slots makes the next ack look for more.
    let runtime = here
        .runtime()
        .queue("default", 2)
        .worker_fn("w", move |_: &Running<Value>| begun.send(Instant::now()).unwrap())
        .start()
        .unwrap();
    let mut took: Vec<Duration> = (0..8)
        .map(|_| {
            let enqueued = Instant::now();
            let id = elsewhere.enqueue(NewJob::new("w")).unwrap().id;
            let took = next(&beginnings).duration_since(enqueued);
            reaches(&elsewhere, id, State::Completed);
            took
        })
        .collect();
    println!("begun after {took:?}");
    // Without a bell, each would wait for the next look at the file, which comes every 600 ms.
    took.remove(0);
    let quickest = took.into_iter().min().unwrap();
    assert!(quickest < ms(350), "the quickest took {quickest:?}");
    runtime.stop();
}

#[test]
fn a_job_enqueues_changes_and_cancels_others_from_within() {
    everywhere(|kiln| {
        let inner = kiln.clone();
        let runtime = single(&kiln)
            .worker_fn("parent", move |job: &Running<Value>| -> kiln::Result<Outcome> {
                let children = inner.enqueue_many((0..3).map(|n| NewJob::new("child").priority(n)))?;
                inner.cancel(children[0].id)?;
                inner.update(children[1].id, |child: &Job| Changes::new().priority(child.priority + 5))?;
                inner.update(job.id, Changes::new().tags(["seen"]))?;
                assert_eq!(inner.get(job.id)?.unwrap().state, State::Executing);
                Outcome::record(&children.iter().map(|child| child.id).collect::<Vec<_>>())
            })
            .worker_fn("child", |_: &Running<Value>| ())
            .start()
            .unwrap();
        let parent = kiln.enqueue(NewJob::new("parent")).unwrap().id;
        let parent = reaches(&kiln, parent, State::Completed);
        assert_eq!(parent.tags, ["seen"]);
        let children: Vec<i64> = parent.recorded().unwrap().unwrap();
        assert_eq!(get(&kiln, children[0]).state, State::Cancelled);
        assert_eq!(reaches(&kiln, children[1], State::Completed).priority, 6);
        reaches(&kiln, children[2], State::Completed);
        runtime.stop();
    });
}

// Outcomes.

#[test]
fn a_closure_may_return_nothing_an_outcome_or_a_result_of_either() {
    everywhere(|kiln| {
        let runtime = single(&kiln)
            .worker_fn("nothing", |_: &Running<Value>| ())
            .worker_fn("outcome", |_: &Running<Value>| Outcome::cancel("enough"))
            .worker_fn("ok", |_: &Running<Value>| -> std::io::Result<()> { Ok(()) })
            .worker_fn("ok outcome", |_: &Running<Value>| -> kiln::Result<Outcome> { Outcome::record(&7) })
            .worker_fn("text", |_: &Running<Value>| -> Result<(), &str> { Err("out of paper") })
            .worker_fn("io", |_: &Running<Value>| -> std::io::Result<Outcome> {
                std::fs::read("/no/such/file").map(|_| Outcome::Complete)
            })
            .worker_fn("failure", |_: &Running<Value>| -> Result<Outcome, Failure> { Err("as it is".into()) })
            .worker_fn("boxed", |_: &Running<Value>| -> Result<(), Box<dyn StdError + Send + Sync>> { Err("box")? })
            .start()
            .unwrap();
        let ends = |worker: &str, state| {
            let id = kiln.enqueue(NewJob::new(worker)).unwrap().id;
            reaches(&kiln, id, state)
        };
        assert_eq!(ends("nothing", State::Completed).errors, []);
        assert_eq!(error_of(&ends("outcome", State::Cancelled).errors), "enough");
        assert_eq!(ends("ok", State::Completed).errors, []);
        assert_eq!(ends("ok outcome", State::Completed).recorded::<i32>().unwrap(), Some(7));
        assert_eq!(error_of(&ends("text", State::Retryable).errors), "out of paper");
        assert!(!error_of(&ends("io", State::Retryable).errors).is_empty());
        assert_eq!(error_of(&ends("failure", State::Retryable).errors), "as it is");
        assert_eq!(error_of(&ends("boxed", State::Retryable).errors), "box");
        runtime.stop();
    });
}

#[test]
fn an_error_is_kept_with_its_causes() {
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("no number")
        }
    }
    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }
    everywhere(|kiln| {
        let work = |_: &Running<Value>| "x".parse::<i32>().map(|_| ()).map_err(Outer);
        let runtime = single(&kiln).worker_fn("w", work).start().unwrap();
        let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
        let errors = reaches(&kiln, id, State::Retryable).errors;
        assert_eq!(error_of(&errors), "no number: invalid digit found in string");
        runtime.stop();
    });
}

/// What a job does at each attempt, told by its args; with a backoff short enough to see the end.
struct Actor;

#[derive(Serialize, Deserialize)]
struct Script {
    backoff_ms: u64,
    acts: Vec<String>,
}

impl Worker for Actor {
    const NAME: &'static str = "actor";
    type Args = Script;

    fn process(&self, job: &Running<Script>) -> Result<Outcome, Failure> {
        let snoozed = job.meta.get("snoozed").and_then(|n| n.as_u64()).unwrap_or(0);
        let act = job.args.acts[(job.attempt as u64 - 1 + snoozed) as usize].as_str();
        match act {
            "complete" => Ok(Outcome::Complete),
            "record" => Ok(Outcome::record(&json!({ "attempt": job.attempt }))?),
            "too much" => Ok(Outcome::record_within(&"x".repeat(1000), 100)?),
            "snooze" => Ok(Outcome::snooze(ms(5)).with_meta(json!({ "why": "rate limited", "seen": snoozed }))),
            "long snooze" => Ok(Outcome::snooze(Duration::from_secs(3600))),
            "cancel" => Ok(Outcome::cancel("the account is gone")),
            "panic" => panic!("act {act}"),
            other => Err(format!("{other} at attempt {}", job.attempt).into()),
        }
    }

    fn backoff(&self, job: &Job) -> Option<Duration> {
        Some(ms(job.args.get("backoff_ms").unwrap().as_u64().unwrap()))
    }
}

fn script<const N: usize>(acts: [&str; N]) -> NewJob {
    Actor::job(Script { backoff_ms: 10, acts: acts.map(String::from).to_vec() })
}

#[test]
fn a_job_is_tried_again_until_it_succeeds_or_has_no_attempt_left() {
    everywhere(|kiln| {
        let runtime = single(&kiln).worker(Actor).start().unwrap();
        let id = kiln.enqueue(script(["oops", "panic", "oh no", "record"])).unwrap().id;
        let job = reaches(&kiln, id, State::Completed);
        assert_eq!(job.recorded::<Value>().unwrap(), Some(json!({ "attempt": 4 })));
        let attempts: Vec<i64> = job.errors.iter().map(|error| error.attempt).collect();
        assert_eq!((job.attempt, attempts), (4, vec![1, 2, 3]));
        assert_eq!(
            (job.errors[0].error.as_str(), job.errors[2].error.as_str()),
            ("oops at attempt 1", "oh no at attempt 3")
        );
        assert!(job.errors.is_sorted_by_key(|error| error.at) && job.errors[0].at >= job.inserted_at);

        let id = kiln.enqueue(script(["a", "b", "c"]).max_attempts(3)).unwrap().id;
        let job = reaches(&kiln, id, State::Discarded);
        assert_eq!((job.attempt, job.errors.len()), (3, 3));
        assert!(job.discarded_at.unwrap() >= job.attempted_at.unwrap());
        runtime.stop();
    });
}

#[test]
fn a_snooze_gives_the_attempt_back_and_sets_meta() {
    everywhere(|kiln| {
        let runtime = single(&kiln).worker(Actor).start().unwrap();
        let new = script(["snooze", "snooze", "snooze", "oops", "complete"]).max_attempts(2).meta(json!({ "own": 1 }));
        let id = kiln.enqueue(new).unwrap().id;
        let job = reaches(&kiln, id, State::Completed);
        assert_eq!((job.attempt, job.errors.len()), (2, 1));
        assert_eq!(job.meta, json!({ "own": 1, "snoozed": 3, "why": "rate limited", "seen": 2 }));

        let id = kiln.enqueue(script(["long snooze"])).unwrap().id;
        let job = reaches(&kiln, id, State::Scheduled);
        assert_eq!((job.attempt, job.meta.get("snoozed")), (0, Some(json!(1))));
        let delay = job.scheduled_at.duration_since(job.attempted_at.unwrap()).as_secs();
        assert!((3600..3700).contains(&delay), "{delay}");
        runtime.stop();
    });
}

#[test]
fn a_job_that_cancels_itself_never_runs_again_and_says_why() {
    everywhere(|kiln| {
        let runtime = single(&kiln).worker(Actor).start().unwrap();
        let id = kiln.enqueue(script(["cancel"])).unwrap().id;
        let job = reaches(&kiln, id, State::Cancelled);
        assert_eq!((error_of(&job.errors), job.attempt), ("the account is gone", 1));
        assert!(job.cancelled_at.is_some());
        runtime.stop();
    });
}

#[test]
fn a_recorded_value_over_its_limit_fails_the_attempt_and_names_both_sizes() {
    everywhere(|kiln| {
        let runtime = single(&kiln).worker(Actor).start().unwrap();
        let id = kiln.enqueue(script(["too much"]).max_attempts(1)).unwrap().id;
        let job = reaches(&kiln, id, State::Discarded);
        let error = error_of(&job.errors);
        assert!(error.contains("1342 bytes") && error.contains("100 bytes"), "{error}");
        assert_eq!(job.meta.get("return"), None);
        runtime.stop();
    });
}

#[test]
fn a_failed_job_waits_for_its_worker_s_backoff_or_for_the_reference_s() {
    everywhere(|kiln| {
        let runtime = single(&kiln)
            .worker(Actor)
            .worker_fn("plain", |_: &Running<Value>| -> Result<(), &str> { Err("oops") })
            .start()
            .unwrap();
        let delay = |job: NewJob| {
            let id = kiln.enqueue(job).unwrap().id;
            let job = reaches(&kiln, id, State::Retryable);
            job.scheduled_at.duration_since(job.errors[0].at).as_secs_f64()
        };
        let own = delay(Actor::job(Script { backoff_ms: 123_000, acts: vec!["oops".into()] }));
        assert!((122.9..=123.1).contains(&own), "{own}");
        // 15 s and 2 to the power of the attempt, and up to a tenth more.
        let default = delay(NewJob::new("plain"));
        assert!((16.9..=18.8).contains(&default), "{default}");
        runtime.stop();
    });
}

// Staging.

#[test]
fn a_scheduled_job_runs_when_it_is_due_and_not_before() {
    everywhere(|kiln| {
        let runtime = single(&kiln).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
        // Together, so that the first to be due is no reason to begin with the others.
        let jobs = [250, 0, 120, 1, 30, 400].map(|delay| NewJob::new("w").schedule_in(ms(delay)));
        for job in kiln.enqueue_many(jobs).unwrap() {
            let job = reaches(&kiln, job.id, State::Completed);
            assert!(job.attempted_at.unwrap() >= job.scheduled_at, "{job:?}");
        }
        runtime.stop();
    });
}

#[test]
fn a_job_due_sooner_is_not_kept_waiting_by_one_due_later() {
    everywhere(|kiln| {
        let runtime = single(&kiln).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
        let later = kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_secs(3600))).unwrap();
        let sooner = kiln.enqueue(NewJob::new("w").schedule_in(ms(30))).unwrap();
        reaches(&kiln, sooner.id, State::Completed);
        assert_eq!(get(&kiln, later.id), later);

        // Nor by its own old due time, when that is changed.
        kiln.update(later.id, Changes::new().schedule_in(ms(30))).unwrap();
        reaches(&kiln, later.id, State::Completed);
        let held = kiln.enqueue(NewJob::new("w").state(State::Suspended)).unwrap();
        let retried = kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_secs(3600))).unwrap();
        assert_eq!(kiln.retry(&retried).unwrap(), 1);
        reaches(&kiln, retried.id, State::Completed);
        assert_eq!(get(&kiln, held.id), held, "what is suspended waits for a hand");
        kiln.retry(&held).unwrap();
        reaches(&kiln, held.id, State::Completed);
        runtime.stop();
    });
}

#[test]
fn many_jobs_due_at_once_are_all_staged() {
    everywhere(|kiln| {
        kiln.enqueue_many((0..2_500).map(|_| NewJob::new("w").schedule_in(ms(1)))).unwrap();
        let runtime = kiln.runtime().queue("default", 4).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
        until("all is done", || count(&kiln, State::Completed) == 2_500);
        runtime.stop();
    });
}

#[test]
fn a_clock_set_forwards_makes_due_what_was_not() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let runtime = single(&kiln).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
    let job = kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_secs(3600))).unwrap();
    clock.advance(Duration::from_secs(7200));
    assert!(reaches(&kiln, job.id, State::Completed).attempted_at.unwrap() >= job.scheduled_at);
    // And one set back far does not stop what is available.
    clock.set("1999-01-01T00:00:00Z".parse().unwrap());
    let job = kiln.enqueue(NewJob::new("w")).unwrap();
    reaches(&kiln, job.id, State::Completed);
    runtime.stop();
}

// What cannot be executed as it should.

#[test]
fn jobs_for_unknown_workers_stay_available_are_counted_and_block_nobody() {
    const GHOSTS: u64 = 3_000;
    everywhere(|kiln| {
        kiln.enqueue_many((0..GHOSTS).map(|_| NewJob::new("ghost").priority(0))).unwrap();
        let runtime = single(&kiln).worker_fn("known", |_: &Running<Value>| ()).start().unwrap();
        for _ in 0..3 {
            let behind = kiln.enqueue(NewJob::new("known").priority(9)).unwrap();
            reaches(&kiln, behind.id, State::Completed);
        }
        assert_eq!(kiln.health().unwrap().unknown_workers, BTreeMap::from([("ghost".to_owned(), GHOSTS)]));
        let counts = kiln.count(Filter::new().worker("ghost")).unwrap();
        assert_eq!((counts.state(State::Available), counts.total()), (GHOSTS, GHOSTS));
        assert_eq!(kiln.list(Filter::new().limit(1)).unwrap()[0].attempt, 0);
        runtime.stop();

        // Until somebody comes who knows them.
        let runtime = kiln.runtime().queue("default", 4).worker_fn("ghost", |_: &Running<Value>| ()).start().unwrap();
        assert_eq!(kiln.health().unwrap().unknown_workers, BTreeMap::new());
        until("all is done", || count(&kiln, State::Completed) == GHOSTS + 3);
        runtime.stop();
    });
}

#[test]
fn args_that_cannot_be_decoded_are_an_ordinary_error_of_that_job() {
    #[derive(Deserialize)]
    struct Mail {
        to: String,
    }
    let folder = Folder::new();
    let kiln = folder.open();
    let conn = common::stranger(&folder.db());
    conn.execute_batch("INSERT INTO kiln_jobs (worker, args) VALUES ('mail', 'no json'), ('mail', '{\"to\": 5}')")
        .unwrap();
    let runtime =
        single(&kiln).worker_fn("mail", |job: &Running<Mail>| assert!(!job.args.to.is_empty())).start().unwrap();
    let missing = kiln.enqueue(NewJob::new("mail").max_attempts(1)).unwrap();
    let good = kiln.enqueue(NewJob::new("mail").args(json!({ "to": "a@b.c", "more": 1 }))).unwrap();
    reaches(&kiln, good.id, State::Completed);
    for (id, state, said) in [
        (1, State::Retryable, "line 1"),
        (2, State::Retryable, "expected a string"),
        (missing.id, State::Discarded, "missing field `to`"),
    ] {
        let job = reaches(&kiln, id, state);
        let error = error_of(&job.errors);
        assert!(error.contains("mail") && error.contains("args") && error.contains(said), "{error}");
        assert_eq!(job.attempt, 1);
    }
    runtime.stop();
}

#[test]
fn a_job_that_panics_is_retried_with_message_place_and_backtrace_and_its_thread_lives_on() {
    everywhere(|kiln| {
        let threads: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
        let runtime = {
            let threads = Arc::clone(&threads);
            let work = move |job: &Running<Value>| {
                threads.lock().push(thread::current().id());
                match job.args.get("how").and_then(Value::as_str) {
                    Some("text") => panic!("out of {}", "paper"),
                    Some("index") => drop(Vec::<u8>::new()[job.id as usize]),
                    Some("value") => std::panic::panic_any(7),
                    _ => {}
                }
            };
            single(&kiln).worker_fn("w", work).start().unwrap()
        };
        let run = |how: &str, state| {
            let id = kiln.enqueue(NewJob::new("w").args(json!({ "how": how }))).unwrap().id;
            reaches(&kiln, id, state).errors
        };
        let errors = run("text", State::Retryable);
        let error = error_of(&errors);
        assert!(error.contains("panicked") && error.contains("out of paper"), "{error}");
        assert!(error.contains("runtime.rs:"), "no place: {error}");
        assert!(error.contains("0: ") && error.contains("1: "), "no backtrace: {error}");
        let errors = run("index", State::Retryable);
        assert!(error_of(&errors).contains("index out of bounds"), "{errors:?}");
        let errors = run("value", State::Retryable);
        assert!(error_of(&errors).contains("panicked"), "{errors:?}");
        assert_eq!(run("", State::Completed), []);
        let threads = threads.lock();
        assert_eq!(threads.len(), 4);
        assert!(threads.iter().all(|thread| *thread == threads[0]), "one thread did it all: {threads:?}");
        runtime.stop();
    });
}

#[test]
fn panics_in_timeout_and_in_backoff_concern_their_job_only() {
    struct Touchy;
    impl Worker for Touchy {
        const NAME: &'static str = "touchy";
        type Args = HashMap<String, bool>;

        fn process(&self, job: &Running<Self::Args>) -> Result<Outcome, Failure> {
            if job.args.contains_key("fail") { Err("failed".into()) } else { Ok(Outcome::Complete) }
        }
        fn backoff(&self, _: &Job) -> Option<Duration> {
            panic!("no backoff today")
        }
        fn timeout(&self, job: &Job) -> Option<Duration> {
            assert!(job.args.get("timeless").is_none(), "no timeout today");
            None
        }
    }
    everywhere(|kiln| {
        let runtime = single(&kiln).worker(Touchy).start().unwrap();
        let enqueue = |key: &str| kiln.enqueue(Touchy::job(HashMap::from([(key.to_owned(), true)]))).unwrap().id;
        let job = reaches(&kiln, enqueue("timeless"), State::Retryable);
        let error = error_of(&job.errors);
        assert!(error.contains("timeout") && error.contains("no timeout today"), "{error}");
        let job = reaches(&kiln, enqueue("fail"), State::Retryable);
        assert_eq!(error_of(&job.errors), "failed");
        let delay = job.scheduled_at.duration_since(job.errors[0].at).as_secs();
        assert!((16..=18).contains(&delay), "the default, where there is none: {delay}");
        reaches(&kiln, enqueue("fine"), State::Completed);
        runtime.stop();
    });
}

// Cancelling.

#[test]
fn a_cancel_raises_the_flag_and_what_the_job_then_does_decides() {
    let outcomes: [(&str, State); 7] = [
        ("cancelled", State::Cancelled),
        ("fail", State::Cancelled),
        ("panic", State::Cancelled),
        ("cancel", State::Cancelled),
        ("snooze", State::Cancelled),
        ("complete", State::Completed),
        ("record", State::Completed),
    ];
    everywhere(|kiln| {
        let (begun, beginnings) = unbounded();
        let runtime = single(&kiln)
            .worker_fn("w", move |job: &Running<Value>| -> Result<Outcome, Failure> {
                begun.send(job.id).unwrap();
                job.sleep(DEADLINE).unwrap_err();
                match job.args["then"].as_str().unwrap() {
                    "cancelled" => Err(Cancelled.into()),
                    "fail" => Err("failed".into()),
                    "panic" => panic!("panicked"),
                    "cancel" => Ok(Outcome::cancel("so be it")),
                    "snooze" => Ok(Outcome::snooze(ms(1))),
                    "record" => Ok(Outcome::record("done")?),
                    _ => Ok(Outcome::Complete),
                }
            })
            .start()
            .unwrap();
        for (then, state) in outcomes {
            let id = kiln.enqueue(NewJob::new("w").args(json!({ "then": then }))).unwrap().id;
            assert_eq!(next(&beginnings), id);
            assert_eq!(kiln.cancel(id).unwrap(), 1);
            let job = reaches(&kiln, id, state);
            assert!(job.cancel_requested_at.is_some());
            assert_eq!(job.cancelled_at.is_some(), state == State::Cancelled, "{then}");
            assert_eq!(job.completed_at.is_some(), state == State::Completed, "{then}");
        }
        runtime.stop();
    });
}

#[test]
fn a_cancel_is_seen_at_once_in_the_same_process() {
    everywhere(|kiln| {
        let (tell, told) = unbounded();
        let runtime = single(&kiln)
            .worker_fn("w", move |job: &Running<Value>| {
                tell.send(None).unwrap();
                let left = job.sleep(DEADLINE);
                tell.send(Some((Instant::now(), left.is_err() && job.cancelled() && job.check().is_err()))).unwrap();
                left
            })
            .start()
            .unwrap();
        let quickest = (0..3).map(|_| {
            let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
            assert_eq!(next(&told), None);
            let asked = Instant::now();
            kiln.cancel(id).unwrap();
            let (left, early) = next(&told).unwrap();
            assert!(early);
            reaches(&kiln, id, State::Cancelled);
            left.saturating_duration_since(asked)
        });
        let quickest = quickest.min().unwrap();
        assert!(quickest < ms(300), "the quickest took {quickest:?}");
        runtime.stop();
    });
}

#[test]
fn a_cancel_by_another_handle_arrives_as_well() {
    let folder = Folder::new();
    let (here, elsewhere) = (folder.open(), folder.open());
    let (begun, beginnings) = unbounded();
    let runtime = single(&here)
        .worker_fn("w", move |job: &Running<Value>| {
            begun.send(job.id).unwrap();
            job.sleep(DEADLINE)
        })
        .start()
        .unwrap();
    // By the handle, which rings; and by a plain UPDATE, which does not.
    for round in 0..2 {
        let id = elsewhere.enqueue(NewJob::new("w")).unwrap().id;
        next(&beginnings);
        let asked = Instant::now();
        if round == 0 {
            assert_eq!(elsewhere.cancel(id).unwrap(), 1);
        } else {
            let update = "UPDATE kiln_jobs SET cancel_requested_at = 1 WHERE id = ?1";
            common::stranger(&folder.db()).execute(update, [id]).unwrap();
        }
        reaches(&elsewhere, id, State::Cancelled);
        println!("cancelled {:?} after it was asked for", asked.elapsed());
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
    runtime.stop();
}

#[test]
fn a_job_cancelled_at_its_last_attempt_does_not_run_again_either() {
    everywhere(|kiln| {
        let (begun, beginnings) = unbounded();
        let runtime = single(&kiln)
            .worker_fn("w", move |job: &Running<Value>| {
                begun.send(job.id).unwrap();
                job.sleep(DEADLINE)
            })
            .start()
            .unwrap();
        let id = kiln.enqueue(NewJob::new("w").max_attempts(1)).unwrap().id;
        next(&beginnings);
        kiln.cancel(id).unwrap();
        let job = reaches(&kiln, id, State::Cancelled);
        assert_eq!((job.errors.len(), job.discarded_at), (1, None));
        runtime.stop();
    });
}

#[test]
fn waiting_for_something_ends_early_when_the_job_is_asked_to_leave() {
    everywhere(|kiln| {
        let (begun, beginnings) = unbounded();
        let ready: Arc<OnceLock<u8>> = Arc::default();
        let runtime = {
            let ready = Arc::clone(&ready);
            let work = move |job: &Running<Value>| -> Result<Outcome, Failure> {
                begun.send(job.id).unwrap();
                let value = job.poll(ms(1), || ready.get().copied())?;
                // One that is there already needs no wait.
                assert_eq!(job.poll(DEADLINE, || Some(1)), Ok(1));
                job.sleep(Duration::ZERO)?;
                job.check()?;
                Ok(Outcome::record(&value)?)
            };
            single(&kiln).worker_fn("w", work).start().unwrap()
        };
        let asked = kiln.enqueue(NewJob::new("w")).unwrap().id;
        next(&beginnings);
        kiln.cancel(asked).unwrap();
        assert_eq!(error_of(&reaches(&kiln, asked, State::Cancelled).errors), Cancelled.to_string());

        let served = kiln.enqueue(NewJob::new("w")).unwrap().id;
        next(&beginnings);
        ready.set(17).unwrap();
        assert_eq!(reaches(&kiln, served, State::Completed).recorded::<u8>().unwrap(), Some(17));
        runtime.stop();
    });
}

#[cfg(unix)]
#[test]
fn a_child_process_is_waited_for_and_killed_when_the_job_is_asked_to_leave() {
    use std::process::Command;
    let kiln = Kiln::in_memory().unwrap();
    let (begun, beginnings) = unbounded();
    let runtime = single(&kiln)
        .worker_fn("sh", move |job: &Running<Value>| -> Result<Outcome, Failure> {
            let mut child = Command::new("sh").args(["-c", job.args["do"].as_str().unwrap()]).spawn()?;
            begun.send(child.id()).unwrap();
            let status = job.wait_child(&mut child);
            assert!(child.try_wait()?.is_some(), "it is gone, whatever came of it");
            Ok(Outcome::record(&status?.code())?)
        })
        .start()
        .unwrap();
    let enqueue = |what: &str| kiln.enqueue(NewJob::new("sh").args(json!({ "do": what }))).unwrap().id;
    let id = enqueue("exit 3");
    assert_eq!(reaches(&kiln, id, State::Completed).recorded::<i32>().unwrap(), Some(3));
    next(&beginnings);
    let id = enqueue("exec sleep 600");
    next(&beginnings);
    kiln.cancel(id).unwrap();
    let errors = reaches(&kiln, id, State::Cancelled).errors;
    assert_eq!(error_of(&errors), Cancelled.to_string());
    runtime.stop();
}

// Timeouts.

/// Takes its time.
struct Slow {
    timeout: Duration,
    gate: Gate,
    begun: Sender<i64>,
}

impl Worker for Slow {
    const NAME: &'static str = "slow";
    type Args = HashMap<String, String>;

    fn process(&self, job: &Running<Self::Args>) -> Result<Outcome, Failure> {
        self.begun.send(job.id).unwrap();
        match job.args.get("how").map(String::as_str) {
            Some("polite") => job.sleep(DEADLINE)?,
            Some("cancels") => {
                job.sleep(DEADLINE).unwrap_err();
                return Ok(Outcome::cancel("too slow"));
            }
            Some("completes") => assert_eq!(job.sleep(DEADLINE), Err(Cancelled)),
            Some("stubborn") => self.gate.pass(),
            _ => {}
        }
        Ok(Outcome::record("done")?)
    }

    /// For the first attempt alone: a later one is to end by itself, on a machine that is busy as well.
    fn timeout(&self, job: &Job) -> Option<Duration> {
        (job.attempt == 1).then_some(self.timeout)
    }
}

fn slow(how: &str) -> NewJob {
    Slow::job(HashMap::from([("how".to_owned(), how.to_owned())]))
}

#[test]
fn a_job_whose_time_is_up_is_asked_to_leave_and_retried() {
    everywhere(|kiln| {
        let (begun, _beginnings) = unbounded();
        let worker = Slow { timeout: ms(40), gate: Gate::default(), begun };
        let runtime = single(&kiln).worker(worker).start().unwrap();
        let run = |how: &str, state| {
            let id = kiln.enqueue(slow(how).max_attempts(2)).unwrap().id;
            reaches(&kiln, id, state)
        };
        let job = run("polite", State::Retryable);
        assert!(error_of(&job.errors).contains("timed out after 40ms"), "{:?}", job.errors);
        assert!(!error_of(&job.errors).contains("stuck"));
        let job = run("cancels", State::Retryable);
        assert!(error_of(&job.errors).contains("timed out after 40ms: too slow"), "{:?}", job.errors);
        assert_eq!(run("completes", State::Completed).errors, []);
        assert_eq!(run("quick", State::Completed).errors, []);
        assert_eq!(pulse(&kiln, &runtime).stuck, 0);
        runtime.stop();
    });
}

#[test]
fn a_job_that_does_not_leave_is_written_off_and_what_its_thread_still_says_is_void() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let worker = Slow { timeout: ms(30), gate: gate.clone(), begun };
        let runtime = single(&kiln)
            .timeout_grace(ms(30))
            .worker(worker)
            .worker_fn("other", |_: &Running<Value>| ())
            .start()
            .unwrap();
        let stuck = kiln.enqueue(slow("stubborn")).unwrap().id;
        next(&beginnings);
        let job = reaches(&kiln, stuck, State::Retryable);
        let error = error_of(&job.errors);
        assert!(error.contains("timed out") && error.contains("stuck"), "{error}");
        assert_eq!(job.attempt, 1);
        until("health says so", || pulse(&kiln, &runtime).stuck == 1);
        assert!(pulse(&kiln, &runtime).claiming);

        // The only slot is another thread's now.
        let other = kiln.enqueue(NewJob::new("other")).unwrap().id;
        reaches(&kiln, other, State::Completed);
        assert_eq!(get(&kiln, stuck), job);

        gate.open();
        until("the thread is back", || pulse(&kiln, &runtime).stuck == 0);
        assert_eq!(get(&kiln, stuck), job, "its late result changes nothing");

        // And nothing is confused: the next attempt counts.
        kiln.retry(stuck).unwrap();
        let job = reaches(&kiln, stuck, State::Completed);
        assert_eq!((job.attempt, job.recorded::<String>().unwrap().as_deref()), (2, Some("done")));
        runtime.stop();
    });
}

#[test]
fn a_job_written_off_at_its_last_attempt_is_discarded() {
    everywhere(|kiln| {
        let (gate, (begun, _beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let worker = Slow { timeout: ms(10), gate: gate.clone(), begun };
        let runtime = single(&kiln).timeout_grace(ms(10)).worker(worker).start().unwrap();
        let id = kiln.enqueue(slow("stubborn").max_attempts(1)).unwrap().id;
        assert!(error_of(&reaches(&kiln, id, State::Discarded).errors).contains("stuck"));
        gate.open();
        until("the thread is back", || pulse(&kiln, &runtime).stuck == 0);
        assert_eq!(get(&kiln, id).state, State::Discarded);
        runtime.stop();
    });
}

#[test]
fn with_too_many_stuck_threads_nothing_is_claimed_until_one_comes_back() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let worker = Slow { timeout: ms(20), gate: gate.clone(), begun };
        let runtime = kiln
            .runtime()
            .queue("default", 1)
            .queue("other", 1)
            .timeout_grace(ms(20))
            .max_stuck(2)
            .worker(worker)
            .worker_fn("w", |_: &Running<Value>| ())
            .start()
            .unwrap();
        for n in 1..=2 {
            kiln.enqueue(slow("stubborn")).unwrap();
            next(&beginnings);
            until("it is written off", || pulse(&kiln, &runtime).stuck == n);
        }
        let now = pulse(&kiln, &runtime);
        assert!(!now.claiming && now.stuck == 2, "{now:?}");
        let waiting = kiln.enqueue_many([NewJob::new("w"), NewJob::new("w").queue("other")]).unwrap();
        // What is claimed is claimed in the transaction of an enqueue, so that one more would have shown it.
        kiln.enqueue(NewJob::new("nobody")).unwrap();
        assert_eq!(kiln.list(Filter::new().worker("w")).unwrap(), waiting);

        gate.open();
        for job in waiting {
            reaches(&kiln, job.id, State::Completed);
        }
        until("all are back", || pulse(&kiln, &runtime).stuck == 0);
        assert!(pulse(&kiln, &runtime).claiming);
        runtime.stop();
    });
}

#[test]
fn a_job_knows_how_much_time_is_left() {
    struct Timed;
    impl Worker for Timed {
        const NAME: &'static str = "timed";
        type Args = HashMap<String, u64>;

        fn process(&self, job: &Running<Self::Args>) -> Result<Outcome, Failure> {
            let first = job.remaining();
            let later = job.poll(ms(1), || Some(job.remaining()).filter(|left| left.is_none() || *left < first));
            Ok(Outcome::record(&json!({ "first": first, "later": later.ok().flatten(), "last": job.remaining() }))?)
        }
        fn timeout(&self, job: &Job) -> Option<Duration> {
            job.args.get("timeout").map(|timeout| ms(timeout.as_u64().unwrap()))
        }
    }
    #[derive(Deserialize)]
    struct Told {
        first: Option<Duration>,
        later: Option<Duration>,
        last: Option<Duration>,
    }
    everywhere(|kiln| {
        let runtime = single(&kiln).worker(Timed).start().unwrap();
        let run = |args: HashMap<String, u64>| -> Told {
            let id = kiln.enqueue(Timed::job(args)).unwrap().id;
            reaches(&kiln, id, State::Completed).recorded().unwrap().unwrap()
        };
        let endless = run(HashMap::new());
        assert_eq!((endless.first, endless.last), (None, None));
        let minute = run(HashMap::from([("timeout".into(), 60_000)]));
        assert!(minute.first.unwrap() <= ms(60_000));
        assert!(minute.later.unwrap() < minute.first.unwrap() && minute.last.unwrap() <= minute.later.unwrap());
        assert_eq!(run(HashMap::from([("timeout".into(), 0)])).last, Some(Duration::ZERO));
        runtime.stop();
    });
}

#[test]
fn a_fence_tells_every_attempt_from_every_other() {
    everywhere(|kiln| {
        let (tell, told) = unbounded();
        let runtime = single(&kiln)
            .worker_fn("w", move |job: &Running<Value>| {
                tell.send(job.fence()).unwrap();
                Outcome::snooze(Duration::ZERO)
            })
            .start()
            .unwrap();
        let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
        // Each snooze gives the attempt back, so that its number alone would not do.
        let fences: Vec<_> = (0..20).map(|_| next(&told)).collect();
        assert!(fences.iter().all(|fence| (fence.id, fence.attempt) == (id, 1)));
        assert!(fences.is_sorted_by(|one, next| one.attempted_at < next.attempted_at), "{fences:?}");
        runtime.stop();
    });
}

// Stopping.

#[test]
fn stop_twice_stop_before_start_start_twice_and_drop_are_all_fine() {
    everywhere(|kiln| {
        let build = || kiln.runtime().queue("default", 2).worker_fn("w", |_: &Running<Value>| ()).build().unwrap();
        let runtime = build();
        assert_eq!(runtime.stop(), kiln::Report::default());
        assert_eq!(runtime.id(), None);
        runtime.start().unwrap();
        let id = runtime.id();
        runtime.start().unwrap();
        assert!(id.is_some() && runtime.id() == id, "the second start does nothing");
        let job = kiln.enqueue(NewJob::new("w")).unwrap();
        reaches(&kiln, job.id, State::Completed);
        let report = runtime.stop();
        assert_eq!((runtime.stop(), runtime.id()), (report, None));
        assert_eq!(kiln.health().unwrap().runtimes, []);

        runtime.start().unwrap();
        assert!(runtime.id().is_some() && runtime.id() != id, "every start is another life");
        let job = kiln.enqueue(NewJob::new("w")).unwrap();
        reaches(&kiln, job.id, State::Completed);
        drop(runtime);
        drop(build());
        assert_eq!(kiln.health().unwrap().runtimes, []);
    });
}

#[test]
fn several_threads_may_start_and_stop_one_runtime() {
    everywhere(|kiln| {
        let runtime = single(&kiln).worker_fn("w", |_: &Running<Value>| ()).build().unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        runtime.start().unwrap();
                        kiln.enqueue(NewJob::new("w")).unwrap();
                        runtime.stop();
                    }
                });
            }
        });
        assert_eq!((runtime.id(), count(&kiln, State::Executing)), (None, 0));
        runtime.start().unwrap();
        until("all is done", || count(&kiln, State::Completed) == 30);
        runtime.stop();
    });
}

#[test]
fn a_stop_lets_running_jobs_end_within_the_grace() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let runtime =
            kiln.runtime().queue("default", 2).worker_fn("w", stubborn(&gate, &begun)).grace(DEADLINE).start().unwrap();
        kiln.enqueue_many((0..5).map(|_| NewJob::new("w"))).unwrap();
        let running = [next(&beginnings), next(&beginnings)];
        thread::scope(|scope| {
            let stopping = scope.spawn(|| runtime.stop());
            until("it does not claim any more", || {
                kiln.health().unwrap().runtimes.iter().all(|one| one.pulse.as_ref().is_none_or(|pulse| !pulse.claiming))
            });
            kiln.enqueue(NewJob::new("w")).unwrap();
            assert!(!stopping.is_finished());
            gate.open();
            let report = stopping.join().unwrap();
            assert_eq!((report.finished, report.returned, report.cut, report.unwritten), (2, 0, 0, 0));
        });
        for id in running {
            assert_eq!(get(&kiln, id).state, State::Completed);
        }
        let rest = kiln.list(Filter::new().state(State::Available)).unwrap();
        assert_eq!(rest.iter().map(|job| job.attempt).collect::<Vec<_>>(), [0; 4]);
        assert_eq!(total(&kiln), 6);
    });
}

#[test]
fn after_the_grace_jobs_are_asked_to_leave_and_what_they_leave_behind_is_given_back() {
    everywhere(|kiln| {
        let (begun, beginnings) = unbounded();
        let again = Arc::new(AtomicBool::new(false));
        let runtime = {
            let again = Arc::clone(&again);
            kiln.runtime()
                .queue("default", 5)
                .worker_fn("w", move |job: &Running<Value>| -> Result<Outcome, Failure> {
                    begun.send(job.id).unwrap();
                    if again.load(Ordering::SeqCst) {
                        return Ok(Outcome::Complete);
                    }
                    let left = job.sleep(DEADLINE);
                    match job.args["then"].as_str().unwrap() {
                        "leave" => left.map(Outcome::from).map_err(Failure::from),
                        "fail" => Err("interrupted".into()),
                        "cancel" => Ok(Outcome::cancel("interrupted")),
                        "snooze" => Ok(Outcome::snooze(Duration::from_secs(3600))),
                        _ => Ok(Outcome::Complete),
                    }
                })
                .grace(ms(50))
                .start()
                .unwrap()
        };
        let thens = ["leave", "fail", "cancel", "snooze", "complete"];
        let new = |then| NewJob::new("w").max_attempts(1).args(json!({ "then": then }));
        let jobs = kiln.enqueue_many(thens.map(new)).unwrap();
        for _ in thens {
            next(&beginnings);
        }
        let report = runtime.stop();
        assert_eq!((report.finished, report.returned, report.cut, report.unwritten), (5, 0, 0, 0));
        for (then, job) in thens.into_iter().zip(&jobs) {
            let job = get(&kiln, job.id);
            let expected = match then {
                "snooze" => (State::Scheduled, 0),
                "complete" => (State::Completed, 1),
                _ => (State::Available, 0),
            };
            assert_eq!((job.state, job.attempt), expected, "{then}");
            assert_eq!(job.errors, [], "{then}");
        }
        // At once, with the attempt that was given back.
        again.store(true, Ordering::SeqCst);
        runtime.start().unwrap();
        for job in &jobs[..3] {
            assert_eq!(reaches(&kiln, job.id, State::Completed).attempt, 1);
        }
        runtime.stop();
    });
}

#[test]
fn a_job_that_does_not_leave_is_given_back_and_its_thread_is_on_its_own() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let ended = Arc::new(AtomicUsize::new(0));
        let build = || {
            let (work, ended) = (stubborn(&gate, &begun), Arc::clone(&ended));
            let work = move |job: &Running<Value>| {
                work(job);
                ended.fetch_add(1, Ordering::SeqCst);
            };
            single(&kiln).worker_fn("w", work).start().unwrap()
        };
        let runtime = build();
        let id = kiln.enqueue(NewJob::new("w").max_attempts(1)).unwrap().id;
        next(&beginnings);
        let report = runtime.stop_within(ms(10));
        assert_eq!((report.finished, report.returned, report.cut, report.unwritten), (0, 0, 1, 0));
        let given_back = get(&kiln, id);
        assert_eq!((given_back.state, given_back.attempt), (State::Available, 0));
        assert_eq!(given_back.errors, []);

        // Another runtime takes it up while the old thread still hangs; the old one's end is not its end.
        let other = build();
        next(&beginnings);
        assert_eq!(get(&kiln, id).state, State::Executing);
        gate.open();
        let done = reaches(&kiln, id, State::Completed);
        assert_eq!(done.attempt, 1);
        assert_eq!(done.attempted_by[1], other.id().unwrap());
        until("both threads are through", || ended.load(Ordering::SeqCst) == 2);
        other.stop();
        assert_eq!(get(&kiln, id), done);
    });
}

#[test]
fn a_runtime_may_be_stopped_from_inside_a_job() {
    everywhere(|kiln| {
        let itself: Arc<OnceLock<Runtime>> = Arc::default();
        let (tell, told) = unbounded();
        let runtime = {
            let itself = Arc::clone(&itself);
            let work = move |_: &Running<Value>| {
                let runtime = eventually("the runtime is known", || itself.get());
                tell.send(runtime.stop_within(ms(50))).unwrap();
            };
            single(&kiln).worker_fn("w", work).start().unwrap()
        };
        let runtime = itself.get_or_init(|| runtime);
        let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
        let report = next(&told);
        assert_eq!(report.unwritten, 0);
        assert_eq!(runtime.stop(), report, "it is stopped");
        let job =
            eventually("the job is not lost", || Some(get(&kiln, id)).filter(|job| job.state != State::Executing));
        assert!(matches!(job.state, State::Available | State::Completed), "{job}");
    });
}

#[test]
fn a_runtime_may_be_dropped_from_inside_a_job() {
    everywhere(|kiln| {
        let slot: Arc<Mutex<Option<Runtime>>> = Arc::default();
        let (tell, told) = unbounded();
        let runtime = {
            let slot = Arc::clone(&slot);
            let work = move |_: &Running<Value>| {
                let runtime = eventually("the runtime is there", || slot.lock().take());
                drop(runtime);
                tell.send(()).unwrap();
            };
            single(&kiln).worker_fn("w", work).start().unwrap()
        };
        *slot.lock() = Some(runtime);
        let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
        next(&told);
        assert_eq!(kiln.health().unwrap().runtimes, []);
        assert_ne!(get(&kiln, id).state, State::Executing);
    });
}

#[test]
fn a_dropped_runtime_gives_back_what_it_runs_and_hangs_on_nothing() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let runtime = kiln.runtime().queue("default", 2).worker_fn("w", stubborn(&gate, &begun)).start().unwrap();
        kiln.enqueue_many((0..4).map(|_| NewJob::new("w"))).unwrap();
        next(&beginnings);
        next(&beginnings);
        drop(runtime);
        assert!(kiln.list(Filter::new()).unwrap().iter().all(|job| (job.state, job.attempt) == (State::Available, 0)));
        gate.open();
    });
}

#[test]
fn a_stop_under_heavy_load_loses_no_ack_and_no_job() {
    const JOBS: u64 = 3_000;
    everywhere(|kiln| {
        let effects = Arc::new(AtomicU64::new(0));
        let runtime = {
            let effects = Arc::clone(&effects);
            let work = move |_: &Running<Value>| {
                effects.fetch_add(1, Ordering::SeqCst);
            };
            kiln.runtime().queue("a", 4).queue("b", 2).worker_fn("w", work).build().unwrap()
        };
        kiln.enqueue_many((0..JOBS).map(|n| NewJob::new("w").queue(["a", "b"][n as usize % 2]))).unwrap();
        for stop_after in [1, 200, 700, 1_500] {
            runtime.start().unwrap();
            until("enough is done", || effects.load(Ordering::SeqCst) >= stop_after);
            let report = runtime.stop();
            assert_eq!((report.cut, report.unwritten), (0, 0));
            let counts = kiln.count(Filter::new()).unwrap();
            let done = effects.load(Ordering::SeqCst);
            assert_eq!(counts.state(State::Completed), done, "as many acks as effects");
            assert_eq!(counts.state(State::Available), JOBS - done);
            assert_eq!(counts.total(), JOBS);
        }
        let attempts = kiln.list(Filter::new().state(State::Available).limit(10_000)).unwrap();
        assert!(attempts.iter().all(|job| job.attempt == 0), "every attempt was given back");
        runtime.start().unwrap();
        until("all is done", || count(&kiln, State::Completed) == JOBS);
        runtime.stop();
        assert_eq!(effects.load(Ordering::SeqCst), JOBS, "and none was done twice");
    });
}

#[test]
fn a_stop_amid_enqueues_leaves_nothing_executing() {
    everywhere(|kiln| {
        let (inside, effects) = (Meter::default(), Arc::new(AtomicU64::new(0)));
        let runtime = {
            let (inside, effects) = (inside.clone(), Arc::clone(&effects));
            let work = move |_: &Running<Value>| {
                let _inside = inside.enter();
                effects.fetch_add(1, Ordering::SeqCst);
            };
            kiln.runtime().queue("default", 3).worker_fn("w", work).build().unwrap()
        };
        let done = AtomicBool::new(false);
        let enqueued: u64 = thread::scope(|scope| {
            let ends = Ends(&done);
            let enqueuers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut enqueued = 0;
                        while !done.load(Ordering::Relaxed) {
                            kiln.enqueue(NewJob::new("w")).unwrap();
                            enqueued += 1;
                            thread::yield_now();
                        }
                        enqueued
                    })
                })
                .collect();
            for round in 0..40 {
                let before = effects.load(Ordering::SeqCst);
                runtime.start().unwrap();
                until("it works", || effects.load(Ordering::SeqCst) > before + round);
                assert_eq!(runtime.stop_within(Duration::ZERO).unwritten, 0);
                assert_eq!((count(&kiln, State::Executing), inside.inside()), (0, 0), "round {round}");
                assert_eq!(count(&kiln, State::Completed), effects.load(Ordering::SeqCst), "round {round}");
            }
            drop(ends);
            enqueuers.into_iter().map(|enqueuer| enqueuer.join().unwrap()).sum()
        });
        runtime.start().unwrap();
        until("all is done", || count(&kiln, State::Completed) == enqueued);
        runtime.stop();
        assert_eq!(effects.load(Ordering::SeqCst), enqueued);
    });
}

#[test]
fn a_stop_does_not_return_before_the_last_ack_is_written() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(DEADLINE).open().unwrap();
    let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
    let runtime = single(&kiln).worker_fn("w", stubborn(&gate, &begun)).grace(DEADLINE).start().unwrap();
    let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
    next(&beginnings);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| (runtime.stop(), get(&kiln, id).state));
        until("it waits for its job", || kiln.health().unwrap().runtimes.is_empty());
        let hog = common::stranger(&folder.db());
        hog.execute_batch("BEGIN IMMEDIATE").unwrap();
        gate.open();
        // Nothing can be written now. A stop that returns nevertheless has all the time for it.
        let patience = Instant::now() + ms(1_700);
        while !stopping.is_finished() && Instant::now() < patience {
            thread::sleep(ms(5));
        }
        hog.execute_batch("COMMIT").unwrap();
        let (report, state) = stopping.join().unwrap();
        assert_eq!((state, report.finished, report.unwritten), (State::Completed, 1, 0));
    });
}

#[test]
fn a_stop_does_not_wait_for_threads_written_off_before() {
    everywhere(|kiln| {
        let (gate, (begun, beginnings)): (Gate, Seen) = (Gate::default(), unbounded());
        let worker = Slow { timeout: ms(10), gate: gate.clone(), begun };
        let runtime = single(&kiln).timeout_grace(ms(10)).worker(worker).start().unwrap();
        let id = kiln.enqueue(slow("stubborn")).unwrap().id;
        next(&beginnings);
        let written_off = reaches(&kiln, id, State::Retryable);
        let report = runtime.stop_within(DEADLINE);
        assert_eq!((report.finished, report.cut), (0, 0));
        assert_eq!(get(&kiln, id), written_off);
        gate.open();
    });
}

// Pruning.

#[test]
fn old_jobs_are_pruned_and_young_ones_kept() {
    let clock = ManualClock::default();
    let folder = Folder::new();
    for kiln in
        [Kiln::builder(folder.db()).clock(&clock).open().unwrap(), Kiln::memory_builder().clock(&clock).open().unwrap()]
    {
        let hand = Hand::new(&kiln, ["w"]);
        let end = |how: &dyn Fn(&Job) -> bool| {
            let id = kiln.enqueue(NewJob::new("w").max_attempts(1)).unwrap().id;
            let job = hand.claim("default", 1).unwrap().remove(0);
            assert!(job.id == id && how(&job));
            id
        };
        let complete = |job: &Job| hand.ack(job, Outcome::Complete).unwrap();
        let cancel = |job: &Job| hand.ack(job, Outcome::cancel("no")).unwrap();
        let discard = |job: &Job| hand.fail(job, "no", ms(0)).unwrap();
        let generation = || [end(&complete), end(&cancel), end(&discard)];
        let (old, hour) = (generation(), Duration::from_secs(3600));
        clock.advance(hour);
        let young = generation();
        let living = kiln.enqueue_many([
            NewJob::new("x"),
            NewJob::new("x").state(State::Suspended),
            NewJob::new("x").schedule_in(hour * 1000),
        ]);
        clock.advance(hour / 2);

        assert_eq!(hand.prune(hour * 2).unwrap(), 0);
        assert_eq!(hand.prune(hour).unwrap(), 3);
        assert!(old.iter().all(|id| kiln.get(*id).unwrap().is_none()));
        assert!(young.iter().all(|id| kiln.get(*id).unwrap().is_some()));
        assert_eq!(hand.prune(Duration::ZERO).unwrap(), 3);
        assert_eq!(kiln.list(Filter::new()).unwrap(), living.unwrap(), "what has not ended is never pruned");
    }
}

#[test]
fn a_runtime_prunes_by_itself_each_state_by_its_own_age() {
    everywhere(|kiln| {
        let hand = Hand::new(&kiln, ["w"]);
        // More than a batch.
        const MANY: u64 = 1_200;
        kiln.enqueue_many((0..MANY).map(|_| NewJob::new("w"))).unwrap();
        for job in hand.claim("default", MANY as usize).unwrap() {
            hand.ack(&job, Outcome::Complete).unwrap();
        }
        let cancelled = kiln.enqueue_many((0..3).map(|_| NewJob::new("w"))).unwrap();
        kiln.cancel(&cancelled).unwrap();
        let runtime = single(&kiln)
            .worker_fn("other", |_: &Running<Value>| ())
            .retention(State::Completed, Duration::ZERO)
            .retention(State::Cancelled, Duration::from_secs(3600))
            .start()
            .unwrap();
        until("it is pruned", || count(&kiln, State::Completed) == 0);
        assert_eq!(count(&kiln, State::Cancelled), 3);
        runtime.stop();
    });
}

#[test]
fn what_has_ended_a_day_ago_goes_unless_it_is_kept_for_ever() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    kiln.enqueue(NewJob::new("w")).unwrap();
    kiln.cancel(1).unwrap();
    let work = |builder: RuntimeBuilder| {
        let runtime = builder.queue("default", 1).worker_fn("x", |_: &Running<Value>| ()).start().unwrap();
        // A runtime prunes before its first rest; that it rests shows when it stages what is due.
        let due = kiln.enqueue(NewJob::new("x").schedule_in(Duration::ZERO)).unwrap();
        reaches(&kiln, due.id, State::Completed);
        runtime.stop();
    };
    clock.advance(Duration::from_secs(24 * 60 * 60 - 1));
    work(kiln.runtime());
    assert!(kiln.get(1).unwrap().is_some(), "a second less than a day");
    clock.advance(Duration::from_secs(10_000_000));
    work(kiln.runtime().retention(State::Cancelled, Duration::MAX));
    assert!(kiln.get(1).unwrap().is_some(), "kept for ever");
    let runtime = single(&kiln).start().unwrap();
    until("a day is enough", || kiln.get(1).unwrap().is_none());
    runtime.stop();
}

// Building.

#[test]
fn a_setting_that_cannot_be_is_refused_by_name() {
    let kiln = Kiln::in_memory().unwrap();
    let nothing = |_: &Running<Value>| ();
    let builders = [
        ("queue", "\" \"", kiln.runtime().queue(" ", 1)),
        ("limit", "\"q\"", kiln.runtime().queue("q", 0)),
        ("queue", "\"q\"", kiln.runtime().queue("q", 1).queue("q", 2)),
        ("worker", "\"\"", kiln.runtime().worker_fn("", nothing)),
        ("worker", "\"w\"", kiln.runtime().worker_fn("w", nothing).worker_fn("w", nothing)),
        ("retention", "available", kiln.runtime().retention(State::Available, ms(1))),
    ];
    for (field, value, builder) in builders {
        let Err(error) = builder.start() else { panic!("{field} {value} was taken") };
        assert!(error.is_invalid(), "{error}");
        assert_eq!(error.field(), Some(field));
        assert!(error.to_string().contains(value), "{error}");
    }
    assert_eq!(kiln.health().unwrap().runtimes, []);
}

#[test]
fn health_tells_of_every_runtime_on_the_file() {
    let folder = Folder::new();
    let one = Kiln::builder(folder.db()).node("north").open().unwrap();
    let other = Kiln::builder(folder.db()).node("south").open().unwrap();
    let nothing = |_: &Running<Value>| ();
    let runtimes = [
        one.runtime().queue("a", 1).queue("b", 2).worker_fn("w", nothing).worker_fn("v", nothing).start().unwrap(),
        other.runtime().queue("c", 1).start().unwrap(),
    ];
    for (kiln, own) in [(&one, 0), (&other, 1)] {
        let health = kiln.health().unwrap();
        assert_eq!(health.runtimes.len(), 2);
        for (n, runtime) in runtimes.iter().enumerate() {
            let told = health.runtimes.iter().find(|told| Some(&told.id) == runtime.id().as_ref()).unwrap();
            assert_eq!(told.node, ["north", "south"][n]);
            assert_eq!(told.queues, [vec!["a", "b"], vec!["c"]][n]);
            assert_eq!(told.workers, [vec!["v", "w"], vec![]][n]);
            assert_eq!(told.pid, std::process::id());
            assert_eq!(told.pulse.is_some(), n == own, "only its own handle feels its pulse");
        }
    }
    runtimes[0].stop();
    let left = other.health().unwrap().runtimes;
    assert_eq!((left.len(), left[0].node.as_str()), (1, "south"));
}

#[test]
fn a_job_can_be_waited_for_from_outside() {
    everywhere(|kiln| {
        assert_eq!(kiln.wait(17, DEADLINE).unwrap(), None, "one that is not there");
        let id = kiln.enqueue(NewJob::new("w").schedule_in(ms(100))).unwrap().id;
        assert_eq!(kiln.wait(id, ms(1)).unwrap(), None);
        let runtime = single(&kiln).worker_fn("w", |_: &Running<Value>| Outcome::record("done")).start().unwrap();
        let job = kiln.wait(id, Duration::MAX).unwrap().unwrap();
        assert_eq!(job.recorded::<String>().unwrap().as_deref(), Some("done"));
        runtime.stop();
    });
}
