//! What one process asks and another does: wait, results, progress, and a transaction of the application's own.

mod common;

use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{DEADLINE, Folder, Other, eventually, get, ms, other_process_for, reaches, say, stranger, until};
use kiln::{Failure, Filter, Kiln, NewJob, Outcome, Running, State};
use serde_json::{Value, json};

/// The other process: works until it hears nothing more, and lets jobs that are held go when it is told to.
fn be_the_other(folder: &Path) {
    let kiln = Kiln::open(folder.join("jobs.db")).unwrap();
    let (go, going) = crossbeam_channel::unbounded::<()>();
    let runtime = kiln
        .runtime()
        .queue("default", 4)
        .worker_fn("begin", |_: &Running<Value>| say(&micros().to_string()))
        .worker_fn("square", move |job: &Running<Value>| {
            job.progress(1, 2, "half way");
            going.recv_timeout(DEADLINE)?;
            let n = job.args["n"].as_i64().ok_or("no number")?;
            Ok::<_, Failure>(Outcome::record(&json!({ "square": n * n }))?)
        })
        .start()
        .unwrap();
    say("started");
    for line in std::io::stdin().lock().lines() {
        line.unwrap();
        go.send(()).unwrap();
    }
    runtime.stop();
}

fn other(test: &str, folder: &Folder) -> Other {
    let mut other = Other::start(test, folder);
    assert_eq!(other.hear(), "started");
    other
}

/// The wall clock, which is the same in all processes.
#[expect(clippy::disallowed_methods, reason = "two processes have no other clock in common")]
fn micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

#[test]
fn a_result_and_progress_come_from_another_process() {
    if let Some(folder) = other_process_for() {
        return be_the_other(&folder);
    }
    let folder = Folder::new();
    let kiln = folder.open();
    let mut other = other("a_result_and_progress_come_from_another_process", &folder);
    let job = kiln.enqueue(NewJob::new("square").args(json!({ "n": 12 }))).unwrap();
    let progress = eventually("the job tells how far it is", || kiln.progress(job.id).unwrap());
    assert_eq!((progress.done, progress.total, progress.note.as_str()), (1, 2, "half way"));
    assert!(kiln.wait(job.id, ms(20)).unwrap().is_none(), "it is not over");
    assert_eq!(kiln.wait_result::<Value>(job.id, ms(20)).unwrap(), None);

    other.tell("go on");
    let result: Value = kiln.wait_result(job.id, DEADLINE).unwrap().expect("it recorded something");
    assert_eq!(result, json!({ "square": 144 }));
    assert_eq!(get(&kiln, job.id).state, State::Completed);
    assert!(kiln.wait_result::<Vec<u8>>(job.id, DEADLINE).unwrap_err().is_malformed());

    let failing = kiln.enqueue(NewJob::new("square").max_attempts(1)).unwrap();
    other.tell("go on");
    let waited = kiln.wait(failing.id, DEADLINE).unwrap().expect("it ends");
    assert_eq!((waited.state, waited.errors[0].error.as_str()), (State::Discarded, "no number"));
    assert_eq!(kiln.wait_result::<Value>(failing.id, DEADLINE).unwrap(), None, "it ended without a result");
}

/// How long a job takes from the moment its commit has returned to its beginning in another process.
fn told(what: &str, mut waits: Vec<i64>, bound: Duration) {
    waits.sort_unstable();
    let [median, most] = [waits[waits.len() / 2], waits[waits.len() - 1]];
    println!("from {what} to the beginning elsewhere: median {median} µs, most {most} µs");
    assert!(Duration::from_micros(median as u64) < bound, "{waits:?}");
}

#[test]
fn an_enqueue_is_begun_elsewhere_at_once_also_as_the_first_for_a_while() {
    if let Some(folder) = other_process_for() {
        return be_the_other(&folder);
    }
    let folder = Folder::new();
    let kiln = folder.open();
    let mut other = other("an_enqueue_is_begun_elsewhere_at_once_also_as_the_first_for_a_while", &folder);
    let mut wait = |pause: Duration| {
        std::thread::sleep(pause);
        kiln.enqueue(NewJob::new("begin")).unwrap();
        let returned = micros();
        // Begun before the call has returned, it has not waited.
        (other.hear().parse::<i64>().unwrap() - returned).max(0)
    };
    let busy = (0..100).map(|_| wait(ms(2))).collect();
    let idle = (0..8).map(|_| wait(ms(800))).collect();
    // Without a bell, it would be the next look at the file: on the average a third of a second later.
    told("an enqueue's return, one after the other,", busy, Duration::from_millis(250));
    told("an enqueue's return, after a while,", idle, Duration::from_millis(250));
}

#[test]
fn a_job_of_another_connection_is_begun_elsewhere_within_a_second() {
    if let Some(folder) = other_process_for() {
        return be_the_other(&folder);
    }
    let folder = Folder::new();
    let kiln = folder.open();
    let mut other = other("a_job_of_another_connection_is_begun_elsewhere_within_a_second", &folder);
    let mut app = stranger(&folder.db());
    let (mut within, mut plain) = (Vec::new(), Vec::new());
    for round in 0..6 {
        std::thread::sleep(ms(150 * round % 700));
        let tx = app.transaction().unwrap();
        kiln.enqueue_in(&tx, NewJob::new("begin")).unwrap();
        tx.commit().unwrap();
        let committed = micros();
        within.push((other.hear().parse::<i64>().unwrap() - committed).max(0));
        app.execute("INSERT INTO kiln_jobs (worker, args) VALUES ('begin', '{}')", []).unwrap();
        let committed = micros();
        plain.push((other.hear().parse::<i64>().unwrap() - committed).max(0));
    }
    // They are rung for before the commit, and look for it; without, it would be the next look at the file.
    told("a commit of the application's own", within, Duration::from_millis(250));
    // Nobody rings for these: they are found with the next look, within a second where the machine has time.
    told("a plain INSERT", plain, DEADLINE / 3);
}

#[test]
fn a_wait_ends_when_another_process_cancels_or_deletes_the_job() {
    let folder = Folder::new();
    let (here, elsewhere) = (folder.open(), folder.open());
    let jobs = here.enqueue_many((0..2).map(|_| NewJob::new("nobody"))).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiting = |id| {
            scope.spawn({
                let here = &here;
                move || here.wait(id, DEADLINE).unwrap().map(|job| job.state)
            })
        };
        let (cancelled, deleted) = (waiting(jobs[0].id), waiting(jobs[1].id));
        elsewhere.cancel(jobs[0].id).unwrap();
        elsewhere.delete(jobs[1].id).unwrap();
        assert_eq!(cancelled.join().unwrap(), Some(State::Cancelled));
        assert_eq!(deleted.join().unwrap(), None, "it will never end");
    });
    assert!(begun.elapsed() < DEADLINE);
    reaches(&here, jobs[0].id, State::Cancelled);
    until("one is left", || here.count(Filter::new()).unwrap().total() == 1);
}
