//! What a running job can do: progress, checkpoints, steps, further jobs.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{Folder, Other, other_process_for, say};
use kiln::{Event, Failure, Kiln, NewJob, Outcome, Running, State};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(30);

type Nothing = Running<Value>;

#[test]
fn progress_is_readable_while_the_job_runs_and_written_at_a_bounded_pace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let (told, events) = mpsc::channel();
    let observer = move |event: &Event| {
        if let Event::Progressed { progress, .. } = event {
            told.send(progress.clone()).unwrap();
        }
    };
    let kiln = Kiln::builder(&path).observe(observer).open().unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let runtime = kiln
        .runtime()
        .worker_fn("count", move |job: &Nothing| {
            for n in 0..10_000 {
                job.progress(n, 10_000, format!("at {n}"));
            }
            wait.lock().recv_timeout(LONG)?;
            job.progress(10_000, 10_000, "done");
            Ok::<_, Failure>(())
        })
        .start()
        .unwrap();
    let began = Instant::now();
    let id = kiln.enqueue(NewJob::new("count")).unwrap().id;

    // The last report of the burst is written although the job says nothing more.
    let elsewhere = Kiln::open(&path).unwrap();
    let mut writes = 0;
    let last = loop {
        let told = events.recv_timeout(LONG).unwrap();
        writes += 1;
        if told.done == 9_999 {
            break told;
        }
    };
    assert_eq!((last.total, last.note.as_str()), (10_000, "at 9999"));
    assert_eq!(elsewhere.progress(id).unwrap(), Some(last));

    go_on.send(()).unwrap();
    kiln.wait(id, LONG).unwrap().unwrap();
    runtime.stop();
    drop(runtime);
    let quarters = began.elapsed().as_millis() / 250;
    assert_eq!(elsewhere.progress(id).unwrap().unwrap().to_string(), "10000/10000 done");
    drop(kiln);
    writes += events.iter().count() as u128;
    // The first is written at once, and the last as the job ends.
    assert!((3..=quarters + 2).contains(&writes), "10,001 reports, {writes} writes in {quarters} quarters of a second");
}

#[test]
fn steps_that_are_done_are_not_done_again_at_the_next_attempt() {
    let kiln = Kiln::in_memory().unwrap();
    let done: Arc<[AtomicUsize; 3]> = Arc::default();
    let counts = Arc::clone(&done);
    let runtime = kiln
        .runtime()
        .worker_fn("steps", move |job: &Nothing| {
            let step = |n: usize| {
                counts[n].fetch_add(1, Ordering::SeqCst);
                Ok::<_, Failure>(n * 10)
            };
            let first: usize = job.step("first", || step(0))?;
            let second: usize = job.step("second", || if job.attempt < 2 { Err("not yet".into()) } else { step(1) })?;
            let third: usize = job.step("third", || if job.attempt < 3 { Err("not yet".into()) } else { step(2) })?;
            Ok::<_, Failure>(Outcome::record(&[first, second, third])?)
        })
        .start()
        .unwrap();
    let id = kiln.enqueue(NewJob::new("steps")).unwrap().id;
    for attempt in 1..3 {
        while kiln.get(id).unwrap().unwrap().state != State::Retryable {
            std::thread::yield_now();
        }
        assert_eq!(kiln.get(id).unwrap().unwrap().attempt, attempt);
        kiln.retry(id).unwrap();
    }
    assert_eq!(kiln.wait_result::<Vec<usize>>(id, LONG).unwrap(), Some(vec![0, 10, 20]));
    assert_eq!(done.each_ref().map(|count| count.load(Ordering::SeqCst)), [1, 1, 1]);
    runtime.stop();
}

#[test]
fn a_checkpoint_is_where_the_next_attempt_goes_on_and_is_forgotten_at_the_end() {
    let kiln = Kiln::in_memory().unwrap();
    let runtime = kiln
        .runtime()
        .worker_fn("walk", |job: &Nothing| {
            let from: u64 = job.last_checkpoint()?.unwrap_or(0);
            job.checkpoint(&(from + 5))?;
            match job.attempt {
                1 => Err(Failure::from("tripped")),
                _ => Ok(Outcome::record(&from)?),
            }
        })
        .start()
        .unwrap();
    let id = kiln.enqueue(NewJob::new("walk")).unwrap().id;
    while kiln.get(id).unwrap().unwrap().state != State::Retryable {
        std::thread::yield_now();
    }
    kiln.retry(id).unwrap();
    assert_eq!(kiln.wait_result::<u64>(id, LONG).unwrap(), Some(5));
    kiln.retry(id).unwrap();
    kiln.wait(id, LONG).unwrap().unwrap();
    assert_eq!(kiln.wait_result::<u64>(id, LONG).unwrap(), Some(0), "a job that completed begins anew");
    runtime.stop();
}

/// Counts once, keeps where it is, and sends; what it does by itself it tells.
fn import(job: &Nothing, tell: impl Fn(&str)) -> Result<Outcome, Failure> {
    let lines: u64 = job.step("count", || {
        tell("counts");
        Ok::<_, Failure>(3)
    })?;
    let from: u64 = job.last_checkpoint()?.unwrap_or(0);
    job.progress(from, lines, "lines");
    tell(&format!("from {from}"));
    job.checkpoint(&2)?;
    let sent: String = job.step("send", || {
        tell("sends");
        // The first attempt does not come any further.
        if job.errors.is_empty() {
            std::thread::sleep(LONG);
        }
        Ok::<_, Failure>("a receipt".to_owned())
    })?;
    Ok(Outcome::record(&(lines, from, sent))?)
}

/// What a step came to is there after a kill, what was kept as well; a step that was cut short is done again.
#[test]
fn steps_that_are_done_and_the_last_checkpoint_outlast_a_killed_process() {
    const NAME: &str = "steps_that_are_done_and_the_last_checkpoint_outlast_a_killed_process";
    if let Some(folder) = other_process_for() {
        let kiln = Kiln::open(folder.join("jobs.db")).unwrap();
        let runtime = kiln.runtime().worker_fn("import", |job: &Nothing| import(job, say)).start().unwrap();
        let _ = std::io::stdin().read_line(&mut String::new());
        drop(runtime);
        return;
    }
    let folder = Folder::new();
    let kiln = folder.open();
    let id = kiln.enqueue(NewJob::new("import")).unwrap().id;
    let mut other = Other::start(NAME, &folder);
    for expected in ["counts", "from 0", "sends"] {
        assert_eq!(other.hear(), expected);
    }
    assert_eq!(kiln.progress(id).unwrap().unwrap().to_string(), "0/3 lines");
    other.kill();

    let (told, does) = mpsc::channel();
    let told = parking_lot::Mutex::new(told);
    let work = move |job: &Nothing| import(job, |what| told.lock().send(what.to_owned()).unwrap());
    let runtime = kiln.runtime().worker_fn("import", work).start().unwrap();
    let result: Option<(u64, u64, String)> = kiln.wait_result(id, LONG).unwrap();
    assert_eq!(result, Some((3, 2, "a receipt".to_owned())));
    assert_eq!(does.try_iter().collect::<Vec<_>>(), ["from 2", "sends"]);
    let job = kiln.get(id).unwrap().unwrap();
    assert_eq!((job.state, job.attempt, job.errors.len()), (State::Completed, 1, 1), "the attempt is given back");
    assert_eq!(kiln.progress(id).unwrap().unwrap().to_string(), "2/3 lines");
    runtime.stop();
}

#[test]
fn an_attempt_that_was_written_off_can_note_nothing_more() {
    let kiln = Kiln::in_memory().unwrap();
    let (told, results) = mpsc::channel();
    let (started, begun) = mpsc::channel();
    let runtime = kiln
        .runtime()
        .worker_fn("slow", move |job: &Nothing| {
            started.send(()).unwrap();
            // The stop gives the job back while it still runs.
            while !job.cancelled() {
                std::thread::yield_now();
            }
            while job.kiln().get(job.id).unwrap().unwrap().state == State::Executing {
                std::thread::yield_now();
            }
            told.send(job.checkpoint(&1).unwrap_err().is_lost()).unwrap();
        })
        .start()
        .unwrap();
    let id = kiln.enqueue(NewJob::new("slow")).unwrap().id;
    begun.recv_timeout(LONG).unwrap();
    assert_eq!(runtime.stop_within(Duration::ZERO).cut, 1);
    assert!(results.recv_timeout(LONG).unwrap());
    assert_eq!(kiln.get(id).unwrap().unwrap().attempt, 0);
}

#[test]
fn any_number_of_threads_and_handles_may_wait_for_one_job_and_nobody_waits_for_what_is_over_or_not_there() {
    let folder = Folder::new();
    let handles = [folder.open(), folder.open()];
    let kiln = &handles[0];
    let runtime = kiln.runtime().worker_fn("answer", |job: &Nothing| Outcome::record(&job.args["value"]));
    let runtime = runtime.start().unwrap();
    runtime.pause("default").unwrap();
    let value = serde_json::json!([1, null, { "half": 0.5 }]);
    let id = kiln.enqueue(NewJob::new("answer").args(serde_json::json!({ "value": value }))).unwrap().id;
    assert_eq!(kiln.wait_result::<Value>(id, Duration::ZERO).unwrap(), None);
    std::thread::scope(|scope| {
        let wait = |n: usize| {
            scope.spawn({
                let kiln = &handles[n % 2];
                move || kiln.wait_result::<Value>(id, LONG)
            })
        };
        let waiting: Vec<_> = (0..8).map(wait).collect();
        runtime.resume("default").unwrap();
        waiting.into_iter().for_each(|one| assert_eq!(one.join().unwrap().unwrap().as_ref(), Some(&value)));
    });
    runtime.stop();

    let cancelled = kiln.enqueue(NewJob::new("answer")).unwrap().id;
    kiln.cancel(cancelled).unwrap();
    let deleted = kiln.enqueue(NewJob::new("answer")).unwrap().id;
    kiln.delete(deleted).unwrap();
    for kiln in &handles {
        for timeout in [Duration::ZERO, Duration::MAX] {
            let state = |id| kiln.wait(id, timeout).unwrap().map(|job| job.state);
            assert_eq!((state(id), state(cancelled)), (Some(State::Completed), Some(State::Cancelled)));
            assert_eq!([deleted, 99, 0, -1].map(state), [None; 4]);
            assert_eq!(kiln.wait_result::<Value>(cancelled, timeout).unwrap(), None);
        }
        assert!(kiln.wait_result::<u32>(id, LONG).unwrap_err().is_malformed());
    }
}

#[test]
fn a_job_enqueues_further_jobs() {
    let kiln = Kiln::in_memory().unwrap();
    let (told, names) = mpsc::channel();
    let runtime = kiln
        .runtime()
        .worker_fn("parent", |job: &Nothing| job.kiln().enqueue(NewJob::new("child")).map(|_| ()))
        .worker_fn("child", move |job: &Nothing| told.send(job.worker.clone()).unwrap())
        .start()
        .unwrap();
    kiln.enqueue(NewJob::new("parent")).unwrap();
    assert_eq!(names.recv_timeout(LONG).unwrap(), "child");
    runtime.stop();
}

#[test]
fn a_job_left_without_an_attempt_by_an_update_is_discarded_by_a_runtime_that_is_alone() {
    let kiln = Kiln::in_memory().unwrap();
    let runtime = kiln.runtime().worker_fn("fails", |_: &Nothing| Err::<(), _>(Failure::from("no"))).start().unwrap();
    let id = kiln.enqueue(NewJob::new("fails")).unwrap().id;
    while kiln.get(id).unwrap().unwrap().state != State::Retryable {
        std::thread::yield_now();
    }
    let due = kiln.get(id).unwrap().unwrap().inserted_at;
    kiln.update(id, kiln::Changes::new().max_attempts(1).scheduled_at(due)).unwrap();
    let job = kiln.wait(id, LONG).unwrap().expect("it ends");
    assert_eq!((job.state, job.attempt), (State::Discarded, 1));
    runtime.stop();
}
