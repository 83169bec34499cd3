//! Other processes on the same file, not all of them considerate.

use std::path::Path;
use std::time::{Duration, Instant};

use kiln::{Kiln, NewJob, Running, State};
use rusqlite::backup::Backup;

use crate::common::{
    DEADLINE, Folder, Gate, Meter, Other, count, ms, other_process_for, pulse, reaches, say, stranger, until,
};
use crate::space::{Executions, Told, gated};
use crate::story::whole;
use crate::{long, report};

/// Longer than anybody waits for a lock here, and how long in words.
fn a_long_time() -> Duration {
    Duration::from_secs(if long() { 30 } else { 2 })
}

/// The next line it is told; `None` when nobody tells it anything any more.
fn told() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).unwrap();
    (read > 0).then(|| line.trim_end().to_owned())
}

/// The life of the other process: it does what it is told.
#[test]
fn another_process() {
    let Some(folder) = other_process_for() else { return };
    let db = folder.join("jobs.db");
    while let Some(order) = told() {
        match order.as_str() {
            "hold the lock" => {
                let conn = stranger(&db);
                conn.execute_batch("BEGIN IMMEDIATE").unwrap();
                say("it holds it");
                assert_eq!(told().as_deref(), Some("let go"));
                conn.execute_batch("COMMIT").unwrap();
            }
            "hold the lock as one of ours" => {
                let kiln = Kiln::builder(&db).node("the other").open().unwrap();
                let runtime = kiln.runtime().queue("elsewhere", 1).start().unwrap();
                let conn = stranger(&db);
                conn.execute_batch("BEGIN IMMEDIATE").unwrap();
                say("it holds it");
                assert_eq!(told().as_deref(), Some("let go"));
                conn.execute_batch("COMMIT").unwrap();
                runtime.stop();
            }
            "vacuum" => stranger(&db).execute_batch("VACUUM").unwrap(),
            "back up" => back_up(&db, &folder.join("copy.db")),
            "read long" => {
                let conn = stranger(&db);
                conn.execute_batch("BEGIN").unwrap();
                let _: i64 = conn.query_row("SELECT count(*) FROM kiln_jobs", [], |row| row.get(0)).unwrap();
                say("it reads");
                assert_eq!(told().as_deref(), Some("let go"));
            }
            other => panic!("no such order: {other}"),
        }
        say("done");
    }
}

fn back_up(db: &Path, copy: &Path) {
    let from = stranger(db);
    let mut to = rusqlite::Connection::open(copy).unwrap();
    Backup::new(&from, &mut to).unwrap().run_to_completion(5, ms(1), None).unwrap();
}

fn other(folder: &Folder) -> Other {
    Other::start("neighbours::another_process", folder)
}

#[test]
fn while_another_process_holds_the_write_lock_calls_give_up_in_time_and_acks_land_afterwards() {
    let folder = Folder::new();
    let (told, gate, meter, executions) = (Told::default(), Gate::default(), Meter::default(), Executions::default());
    let kiln = told.open(&folder);
    let runtime = gated(&kiln, &gate, &meter, &executions);
    let ids: Vec<i64> = (0..6).map(|_| kiln.enqueue(NewJob::new("w")).unwrap().id).collect();
    until("two jobs run", || meter.inside() == 2);
    let mut other = other(&folder);
    other.tell("hold the lock");
    assert_eq!(other.hear(), "it holds it");
    gate.open();

    let began = Instant::now();
    let (mut refused, mut slowest, mut named) = (0_u64, Duration::ZERO, false);
    while began.elapsed() < a_long_time() {
        let asked = Instant::now();
        let error = kiln.enqueue(NewJob::new("w")).unwrap_err();
        assert!(error.is_busy(), "{error}");
        named |= error.to_string().contains(&format!("process {}", other.id()));
        refused += 1;
        slowest = slowest.max(asked.elapsed());
    }
    assert!(named || !cfg!(target_os = "linux"), "the error names the holder");
    until("their ends are held", || pulse(&kiln, &runtime).unwritten == 2);
    until("it is told", || told.names() == ["degraded"]);
    // Patience is a tenth of a second here; another's turn and another's wait may come first.
    assert!(slowest < DEADLINE, "{slowest:?}");
    assert_eq!(count(&kiln, State::Executing), 2);

    other.tell("let go");
    assert_eq!(other.hear(), "done");
    for id in &ids {
        assert_eq!(reaches(&kiln, *id, State::Completed).attempt, 1);
    }
    until("it is told", || told.names() == ["degraded", "recovered"]);
    assert!(executions.lock().values().all(|times| *times == 1));
    runtime.stop();
    whole(&folder.db());
    report(
        format!("another process holds the write lock for {} s", a_long_time().as_secs()),
        format!("{refused} enqueues meanwhile"),
        format!(
            "each returned is_busy, the slowest after {} ms where 100 ms of patience were asked for, and named the \
             process; 2 acks held and written afterwards, each of 6 jobs executed once",
            slowest.as_millis()
        ),
    );
}

#[test]
fn a_holder_that_is_one_of_ours_is_named_with_its_runtime() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(ms(50)).open().unwrap();
    let mut other = other(&folder);
    other.tell("hold the lock as one of ours");
    assert_eq!(other.hear(), "it holds it");
    let health = kiln.health().unwrap();
    let error = kiln.enqueue(NewJob::new("w")).unwrap_err();
    assert!(error.is_busy(), "{error}");
    for word in [other.id().to_string(), "\"the other\"".to_owned(), health.runtimes[0].id.clone()] {
        assert!(error.to_string().contains(&word), "{word}: {error}");
    }
    other.tell("let go");
    assert_eq!(other.hear(), "done");
    kiln.enqueue(NewJob::new("w")).unwrap();
}

#[test]
fn an_enqueue_waits_for_a_lock_that_is_given_back_within_its_patience() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(DEADLINE).open().unwrap();
    let mut other = other(&folder);
    other.tell("hold the lock");
    assert_eq!(other.hear(), "it holds it");
    let waiting = std::thread::spawn({
        let kiln = kiln.clone();
        move || kiln.enqueue(NewJob::new("w"))
    });
    assert_eq!(kiln.count(kiln::Filter::new()).unwrap().total(), 0, "reading waits for nobody");
    other.tell("let go");
    assert_eq!(other.hear(), "done");
    waiting.join().unwrap().unwrap();
}

#[test]
fn vacuum_backup_and_a_long_read_by_another_process_lose_nothing() {
    let folder = Folder::new();
    let kiln = folder.open();
    let executions = Executions::default();
    let worker = {
        let executions = executions.clone();
        move |job: &Running<()>| {
            *executions.lock().entry(job.id).or_default() += 1;
        }
    };
    let runtime = kiln.runtime().queue("default", 2).worker_fn("w", worker).start().unwrap();
    let mut other = other(&folder);
    let mut ids = Vec::new();
    let rounds = if long() { 30 } else { 3 };
    for _ in 0..rounds {
        for order in ["vacuum", "back up", "read long"] {
            other.tell(order);
            let reads = order == "read long";
            if reads {
                assert_eq!(other.hear(), "it reads");
            }
            let new: Vec<i64> = (0..20).map(|_| kiln.enqueue(NewJob::new("w")).unwrap().id).collect();
            if reads {
                // A read that does not end keeps nobody from anything.
                new.iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
                other.tell("let go");
            }
            assert_eq!(other.hear(), "done");
            ids.extend(new);
        }
        whole(&folder.path("copy.db"));
    }
    ids.iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
    assert!(executions.lock().values().all(|times| *times == 1));
    runtime.stop();
    whole(&folder.db());
    report(
        "another process runs VACUUM, a backup and a long read, one after the other",
        format!("{rounds} rounds, {} enqueues", ids.len()),
        "every enqueue returned, each job was executed once, file and copies pass integrity_check",
    );
}
