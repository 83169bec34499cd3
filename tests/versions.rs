//! Files of newer kilns: they are used, read, or refused, also if a file becomes one while it is open.
//!
//! Nothing was released yet, so there is no file of an older kiln. Migrations are tested inside of the crate, with versions
//! that are made up (`src/file/tests.rs`).

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Folder, Gate, Meter, Other, eventually, get, other_process_for, pulse, reaches, say, stranger, until};
use kiln::{Event, Filter, Kiln, NewJob, Running, State};
use parking_lot::Mutex;
use rusqlite::types::Value as Sql;
use serde_json::Value;

/// The version of this kiln.
const VERSION: i64 = 1;

/// All rows of a table in its first columns, as they are stored.
fn rows(db: &Path, table: &str, columns: &str) -> Vec<Vec<Sql>> {
    let conn = stranger(db);
    let mut select = conn.prepare(&format!("SELECT {columns} FROM {table} ORDER BY 1")).unwrap();
    let width = select.column_count();
    let rows = select.query_map([], |row| (0..width).map(|n| row.get(n)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_new_file_and_an_application_s_own_are_not_backed_up() {
    let folder = Folder::new();
    stranger(&folder.db()).execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)").unwrap();
    drop(folder.open());
    drop(Kiln::open(folder.path("new.db")).unwrap());
    folder.closed();
    assert_eq!(folder.names(), ["jobs.db", "new.db"]);
}

/// An older kiln asks for these as it opens a file.
#[test]
fn a_file_says_which_kilns_may_read_and_write_it() {
    let folder = Folder::new();
    drop(folder.open());
    let says = rows(&folder.db(), "kiln_schema", "version, min_reader, min_writer");
    assert_eq!(says, [[VERSION, 1, 1].map(Sql::Integer)]);
}

// A newer kiln's file.

fn newer(folder: &Folder, min_reader: i64, min_writer: i64) -> PathBuf {
    folder.open().enqueue(NewJob::new("w")).unwrap();
    let sql = "UPDATE kiln_schema SET version = 100, min_reader = ?1, min_writer = ?2, written_by = 'kiln 9.9.9'";
    stranger(&folder.db()).execute(sql, [min_reader, min_writer]).unwrap();
    stranger(&folder.db()).execute_batch("ALTER TABLE kiln_jobs ADD COLUMN novelty TEXT DEFAULT 'new'").unwrap();
    folder.closed();
    folder.db()
}

#[test]
fn a_newer_file_that_may_only_be_read_is_read() {
    let folder = Folder::new();
    let db = newer(&folder, VERSION, VERSION + 1);
    let error = Kiln::open(&db).unwrap_err();
    assert!(error.is_incompatible() && error.to_string().contains("KilnBuilder::read_only"), "{error}");
    let kiln = Kiln::builder(&db).read_only().open().unwrap();
    assert_eq!(get(&kiln, 1).worker, "w");
    assert!(kiln.cancel(1).is_err());
    let mut lines = Vec::new();
    kiln.export(&mut lines, Filter::new()).unwrap();
    assert!(String::from_utf8(lines).unwrap().contains("\"novelty\":\"new\""), "columns of a newer kiln are exported");
    assert_eq!(folder.names(), ["jobs.db"]);
}

#[test]
fn a_newer_file_that_may_not_be_read_is_refused_either_way() {
    let folder = Folder::new();
    let db = newer(&folder, VERSION + 1, VERSION + 1);
    for error in [Kiln::open(&db).unwrap_err(), Kiln::builder(&db).read_only().open().unwrap_err()] {
        assert!(error.is_incompatible(), "{error}");
        assert!(error.to_string().contains("kiln 9.9.9") && !error.to_string().contains("read_only"), "{error}");
    }
    // One that says so of readers alone is not understood either.
    let folder = Folder::new();
    let db = newer(&folder, VERSION + 1, 1);
    assert!(Kiln::open(&db).unwrap_err().is_incompatible());
}

// A file that becomes a newer kiln's while it is open.

/// What a newer kiln does to the file, in one transaction; taken back with the versions of this kiln.
fn take_over(db: &Path, version: i64, min_reader: i64, min_writer: i64) {
    let conn = stranger(db);
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    if conn.prepare("SELECT novelty FROM kiln_jobs").is_err() {
        conn.execute_batch("ALTER TABLE kiln_jobs ADD COLUMN novelty TEXT DEFAULT 'new'").unwrap();
    }
    let sql = "UPDATE kiln_schema SET version = ?1, min_reader = ?2, min_writer = ?3, written_by = 'kiln 9.9.9'";
    conn.execute(sql, [version, min_reader, min_writer]).unwrap();
    conn.execute_batch("COMMIT").unwrap();
}

const TABLES: [&str; 4] = ["kiln_jobs", "kiln_crons", "kiln_queues", "kiln_runtimes"];

/// The newer kiln in a process of its own: each line names the version, min_reader and min_writer that it stores.
fn takes_over_when_told(folder: &Path) {
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        take_over(&folder.join("jobs.db"), next(), next(), next());
        say("done");
        line.clear();
    }
}

/// A runtime with a job of two queues in its handlers, which wait at the gate; jobs of the queue "own" try to complete in a
/// transaction of their own.
fn two_jobs_that_run(kiln: &Kiln, folder: &Folder, gate: &Gate) -> (kiln::Runtime, [i64; 3]) {
    let meter = Meter::default();
    let worker = {
        let (gate, meter, db) = (gate.clone(), meter.clone(), folder.db());
        move |job: &Running<Value>| {
            let _inside = meter.enter();
            gate.pass();
            if job.queue == "own" {
                let mut own = stranger(&db);
                let refused = job.complete_in(&own.transaction().unwrap()).unwrap_err();
                assert!(refused.is_incompatible(), "{refused}");
            }
        }
    };
    let runtime = kiln.runtime().queue("default", 1).queue("own", 1).worker_fn("w", worker).start().unwrap();
    let ids = ["default", "own", "default"].map(|queue| kiln.enqueue(NewJob::new("w").queue(queue)).unwrap().id);
    until("two run", || meter.inside() == 2);
    (runtime, ids)
}

fn every_write_is_refused(kiln: &Kiln, folder: &Folder, id: i64) {
    let refused = |result: kiln::Result<()>| {
        let error = result.unwrap_err();
        assert!(error.is_incompatible() && error.to_string().contains("nothing was written"), "{error}");
    };
    let jobs = || (0..3).map(|_| NewJob::new("w"));
    refused(kiln.enqueue(NewJob::new("w")).map(drop));
    refused(kiln.enqueue_many(jobs()).map(drop));
    refused(kiln.cancel(id).map(drop));
    refused(kiln.delete(Filter::new().states(State::ALL)).map(drop));
    refused(kiln.update(id, kiln::Changes::new().priority(1)).map(drop));
    let mut own = stranger(&folder.db());
    refused(kiln.enqueue_in(&own.transaction().unwrap(), NewJob::new("w")).map(drop));
    refused(kiln.runtime().queue("late", 1).start().map(drop));
}

#[test]
fn a_kiln_that_runs_stops_writing_when_a_newer_one_takes_the_file_over() {
    const NAME: &str = "a_kiln_that_runs_stops_writing_when_a_newer_one_takes_the_file_over";
    if let Some(folder) = other_process_for() {
        return takes_over_when_told(&folder);
    }
    let folder = Folder::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let observe = move |event: &Event| {
        if matches!(event, Event::Degraded { .. } | Event::Recovered { .. }) {
            tell.lock().push(event.to_string());
        }
    };
    let kiln = Kiln::builder(folder.db()).observe(observe).open().unwrap();
    let only_reads = Kiln::builder(folder.db()).read_only().open().unwrap();
    let gate = Gate::default();
    let (runtime, ids) = two_jobs_that_run(&kiln, &folder, &gate);

    let mut other = Other::start(NAME, &folder);
    other.tell(&format!("100 1 {}", VERSION + 1));
    assert_eq!(other.hear(), "done");
    let stored = || TABLES.map(|table| rows(&folder.db(), table, "*"));
    let taken = stored();
    // Nobody has to write first.
    until("it is told", || told.lock().len() == 1);
    let reason = told.lock()[0].clone();
    let words = ["degraded", "took it over", "kiln 9.9.9", "end this program", &folder.db().display().to_string()];
    assert_eq!(words.into_iter().find(|word| !reason.contains(word)), None, "{reason}");
    every_write_is_refused(&kiln, &folder, ids[2]);
    gate.open();
    until("their ends are held", || pulse(&kiln, &runtime).unwritten == 2);
    assert!(!pulse(&kiln, &runtime).claiming);
    for reader in [&kiln, &only_reads] {
        assert_eq!(reader.count(Filter::new()).unwrap().total(), 3);
    }
    assert_eq!(stored(), taken, "nothing was written, and no half of anything");

    // One that is not to be read by this kiln is not.
    other.tell(&format!("101 {0} {0}", VERSION + 1));
    assert_eq!(other.hear(), "done");
    for reader in [&kiln, &only_reads] {
        let error = until_refused(|| reader.count(Filter::new()));
        assert!(error.contains("nothing was read") && error.contains("101"), "{error}");
    }

    // Whoever takes that back, from a backup or by hand, has all go on.
    other.tell(&format!("{VERSION} 1 1"));
    assert_eq!(other.hear(), "done");
    for id in ids {
        until("it is read again", || kiln.get(id).is_ok());
        assert_eq!(reaches(&kiln, id, State::Completed).attempt, 1);
    }
    until("it is told", || told.lock().len() == 2);
    assert!(told.lock()[1].starts_with("recovered"), "{:?}", told.lock());
    assert_eq!(runtime.stop().unwritten, 0);
    println!(
        "reliability | another process makes the file a newer kiln's while jobs run | 2 | told once, every call refused, 2 \
         acks held, nothing written; when that was taken back, all went on and each job was executed once"
    );
}

/// What was seen to be allowed is believed for a moment.
fn until_refused<T>(mut ask: impl FnMut() -> kiln::Result<T>) -> String {
    let refused = eventually("it is refused", || ask().err());
    assert!(refused.is_incompatible(), "{refused}");
    refused.to_string()
}

#[test]
fn a_handle_without_a_runtime_stops_writing_as_well() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w")).unwrap();
    take_over(&folder.db(), 100, 1, VERSION + 1);
    // Nobody looks for it: it is found when something is to be written.
    let error = until_refused(|| kiln.enqueue(NewJob::new("w")));
    assert!(error.contains("kiln 9.9.9"), "{error}");
    let left = kiln.count(Filter::new()).unwrap().total();
    assert!((0..100).all(|_| kiln.enqueue(NewJob::new("w")).is_err()), "once refused, it stays so");
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), left);
    // A newer file that older kilns may write is written.
    take_over(&folder.db(), 100, 1, VERSION);
    kiln.enqueue(NewJob::new("w")).unwrap();
}
