//! A job and the application's own data, committed together or not at all.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kiln::rusqlite::{Connection, Transaction, TransactionBehavior};
use kiln::{Failure, Filter, Job, Kiln, NewJob, Outcome, Running, State, Unique, Worker};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(30);

struct App {
    folder: tempfile::TempDir,
    kiln: Kiln,
    conn: Connection,
}

fn connect(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(LONG).unwrap();
    conn
}

fn app() -> App {
    let folder = tempfile::tempdir().unwrap();
    let kiln = Kiln::open(folder.path().join("app.db")).unwrap();
    let conn = connect(&folder.path().join("app.db"));
    conn.execute_batch("CREATE TABLE effects (job INTEGER, attempt INTEGER)").unwrap();
    App { folder, kiln, conn }
}

fn begin(conn: &mut Connection) -> Transaction<'_> {
    conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap()
}

fn effects(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(*) FROM effects", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_commit_makes_the_job_and_a_runtime_of_the_handle_begins_it_soon() {
    let App { kiln, mut conn, folder: _folder } = app();
    let (told, ran) = mpsc::channel();
    let runtime =
        kiln.runtime().worker_fn("ship", move |job: &Running<Value>| told.send(job.id).unwrap()).start().unwrap();
    let tx = begin(&mut conn);
    let job = kiln.enqueue_in(&tx, NewJob::new("ship")).unwrap();
    assert!(kiln.get(job.id).unwrap().is_none());
    assert!(ran.try_recv().is_err());
    tx.commit().unwrap();
    let committed = Instant::now();
    assert_eq!(ran.recv_timeout(LONG).unwrap(), job.id);
    println!("began {:?} after the commit", committed.elapsed());
    runtime.stop();
}

#[test]
fn a_rollback_leaves_no_job() {
    let App { kiln, mut conn, folder: _folder } = app();
    let tx = begin(&mut conn);
    kiln.enqueue_in(&tx, NewJob::new("ship")).unwrap();
    kiln.enqueue_in(&tx, NewJob::new("bill").schedule_in(LONG)).unwrap();
    tx.rollback().unwrap();
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 0);
}

#[test]
fn a_job_in_a_transaction_is_validated_and_unique_like_any_other() {
    let App { kiln, mut conn, folder: _folder } = app();
    let there = kiln.enqueue(NewJob::new("ship").unique(Unique::new())).unwrap();
    let tx = begin(&mut conn);
    assert_eq!(kiln.enqueue_in(&tx, NewJob::new("ship").priority(11)).unwrap_err().field(), Some("priority"));
    let double = kiln.enqueue_in(&tx, NewJob::new("ship").unique(Unique::new())).unwrap();
    assert!(double.conflict);
    assert_eq!(double.id, there.id);
    tx.commit().unwrap();
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 1);
}

#[test]
fn a_transaction_on_another_file_is_refused_by_name() {
    let App { kiln, folder, .. } = app();
    let mut other = connect(&folder.path().join("other.db"));
    let tx = other.transaction().unwrap();
    let error = kiln.enqueue_in(&tx, NewJob::new("ship")).unwrap_err();
    assert_eq!(error.field(), Some("transaction"));
    assert!(error.to_string().contains("app.db") && error.to_string().contains("other.db"), "{error}");

    let mut memory = Connection::open_in_memory().unwrap();
    let tx = memory.transaction().unwrap();
    assert!(kiln.enqueue_in(&tx, NewJob::new("ship")).unwrap_err().to_string().contains("is on memory"));
}

#[test]
fn effects_and_completion_are_committed_together() {
    let App { kiln, conn, folder } = app();
    let path = folder.path().join("app.db");
    let runtime = kiln
        .runtime()
        .worker_fn("book", move |job: &Running<Value>| -> Result<Outcome, Failure> {
            let mut app = connect(&path);
            let tx = begin(&mut app);
            tx.execute("INSERT INTO effects VALUES (?1, ?2)", (job.id, job.attempt))?;
            let done = job.complete_in(&tx)?;
            tx.commit()?;
            // Committed is committed: whatever happens now, the job is done.
            if job.args["stumble"] == true { Err("after the commit".into()) } else { Ok(done) }
        })
        .start()
        .unwrap();
    for args in [serde_json::json!({}), serde_json::json!({ "stumble": true })] {
        let id = kiln.enqueue(NewJob::new("book").args(args)).unwrap().id;
        let job = kiln.wait(id, LONG).unwrap().unwrap();
        assert_eq!((job.state, job.attempt, job.errors.len()), (State::Completed, 1, 0));
    }
    runtime.stop();
    assert_eq!(effects(&conn), 2);
    assert_eq!(kiln.count(Filter::new()).unwrap().state(State::Completed), 2);
}

#[test]
fn a_job_that_says_so_without_a_commit_is_retried() {
    let App { kiln, conn, folder } = app();
    let path = folder.path().join("app.db");
    let runtime = kiln
        .runtime()
        .worker_fn("book", move |job: &Running<Value>| -> Result<Outcome, Failure> {
            let mut app = connect(&path);
            let tx = begin(&mut app);
            tx.execute("INSERT INTO effects VALUES (?1, ?2)", (job.id, job.attempt))?;
            let done = job.complete_in(&tx)?;
            if job.attempt == 1 {
                tx.rollback()?
            } else {
                tx.commit()?
            }
            Ok(done)
        })
        .start()
        .unwrap();
    let id = kiln.enqueue(NewJob::new("book")).unwrap().id;
    let job = kiln.wait(id, LONG).unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (State::Completed, 2));
    assert!(job.errors[0].error.contains("not followed by a commit"));
    assert_eq!(effects(&conn), 1);
    runtime.stop();
}

#[test]
fn a_lost_attempt_cannot_complete_its_job() {
    let App { kiln, conn, folder } = app();
    let path = folder.path().join("app.db");
    let (told, lost) = mpsc::channel();
    let (started, begun) = mpsc::channel();
    let runtime = kiln
        .runtime()
        .worker_fn("book", move |job: &Running<Value>| {
            started.send(()).unwrap();
            while job.kiln().get(job.id).unwrap().unwrap().state == State::Executing {
                std::thread::yield_now();
            }
            let mut app = connect(&path);
            let tx = begin(&mut app);
            tx.execute("INSERT INTO effects VALUES (?1, ?2)", (job.id, job.attempt)).unwrap();
            told.send(job.complete_in(&tx).unwrap_err().is_lost()).unwrap();
        })
        .start()
        .unwrap();
    let id = kiln.enqueue(NewJob::new("book")).unwrap().id;
    begun.recv_timeout(LONG).unwrap();
    assert_eq!(runtime.stop_within(Duration::ZERO).cut, 1);
    assert!(lost.recv_timeout(LONG).unwrap());
    assert_eq!(effects(&conn), 0, "the worker dropped its transaction");
    assert_eq!(kiln.get(id).unwrap().unwrap().state, State::Available);
}

static WAITED: AtomicBool = AtomicBool::new(false);

/// Its transaction has not read anything before, so that it can wait for a writer and write after it.
#[test]
fn an_enqueue_that_begins_a_transaction_waits_for_another_writer() {
    let App { kiln, mut conn, folder } = app();
    let waits = |_| {
        WAITED.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        true
    };
    conn.busy_handler(Some(waits)).unwrap();
    let writer = connect(&folder.path().join("app.db"));
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO kiln_jobs (worker) VALUES ('theirs')").unwrap();
    let enqueues = std::thread::spawn({
        let kiln = kiln.clone();
        move || {
            let tx = conn.transaction().unwrap();
            let job = kiln.enqueue_in(&tx, NewJob::new("ours"))?;
            tx.commit().unwrap();
            Ok::<_, kiln::Error>(job)
        }
    });
    while !WAITED.load(Ordering::SeqCst) && !enqueues.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    writer.execute_batch("COMMIT").unwrap();
    let job = enqueues.join().unwrap().unwrap();
    assert_eq!(kiln.get(job.id).unwrap().unwrap().worker, "ours");
}

/// Tries to complete its job once its attempt was written off.
struct Late {
    path: std::path::PathBuf,
    lost: mpsc::Sender<bool>,
}

impl Worker for Late {
    const NAME: &'static str = "late";
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        while job.kiln().get(job.id)?.is_some_and(|row| row.state == State::Executing) {
            std::thread::yield_now();
        }
        let mut app = connect(&self.path);
        let tx = begin(&mut app);
        tx.execute("INSERT INTO effects VALUES (?1, ?2)", (job.id, job.attempt))?;
        let completed = job.complete_in(&tx);
        self.lost.send(completed.as_ref().is_err_and(kiln::Error::is_lost))?;
        let done = completed?;
        tx.commit()?;
        Ok(done)
    }

    fn timeout(&self, _: &Job) -> Option<Duration> {
        Some(Duration::from_millis(5))
    }
}

#[test]
fn an_attempt_written_off_for_its_time_has_no_effect_and_completes_nothing() {
    let App { kiln, conn, folder } = app();
    let (lost, told) = mpsc::channel();
    let late = Late { path: folder.path().join("app.db"), lost };
    let runtime = kiln.runtime().timeout_grace(Duration::from_millis(5)).worker(late).start().unwrap();
    let id = kiln.enqueue(Late::job(()).max_attempts(1)).unwrap().id;
    assert!(told.recv_timeout(LONG).unwrap());
    runtime.stop();
    assert_eq!(kiln.get(id).unwrap().unwrap().state, State::Discarded);
    assert_eq!(effects(&conn), 0);
}

/// Trying again does not help such a transaction, and the error says what does.
#[test]
fn a_transaction_that_has_read_what_others_changed_since_is_told_to_begin_anew() {
    let App { kiln, mut conn, folder } = app();
    let tx = conn.transaction().unwrap();
    assert_eq!(tx.query_one("SELECT count(*) FROM effects", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    connect(&folder.path().join("app.db")).execute("INSERT INTO effects VALUES (1, 1)", []).unwrap();
    for _ in 0..2 {
        let error = kiln.enqueue_in(&tx, NewJob::new("ship")).unwrap_err();
        assert!(error.is_busy() && error.to_string().contains("begin it with IMMEDIATE"), "{error}");
    }
    tx.rollback().unwrap();
    let tx = begin(&mut conn);
    kiln.enqueue_in(&tx, NewJob::new("ship")).unwrap();
    tx.commit().unwrap();
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 1);
}

/// What is rolled back to a savepoint takes its job along, and that alone.
#[test]
fn a_rollback_to_a_savepoint_leaves_the_jobs_before_it_and_those_after() {
    let App { kiln, mut conn, folder: _folder } = app();
    let tx = begin(&mut conn);
    let new = |name: &str| NewJob::new("ship").args(serde_json::json!({ "order": name })).unique(Unique::new());
    kiln.enqueue_in(&tx, new("before")).unwrap();
    tx.execute_batch("SAVEPOINT inner").unwrap();
    kiln.enqueue_in(&tx, new("within")).unwrap();
    assert!(kiln.enqueue_in(&tx, new("within")).unwrap().conflict);
    tx.execute_batch("ROLLBACK TO inner; RELEASE inner").unwrap();
    assert!(!kiln.enqueue_in(&tx, new("after")).unwrap().conflict);
    assert!(kiln.enqueue_in(&tx, new("before")).unwrap().conflict);
    tx.commit().unwrap();
    let orders: Vec<Value> = kiln.list(Filter::new()).unwrap().iter().filter_map(|job| job.args.get("order")).collect();
    assert_eq!(orders, ["before", "after"]);
}
