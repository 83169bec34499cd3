//! Limits that others set: on the pages of a database, the size of a file, the length of the log.

use std::process::Command;

use kiln::{Filter, Kiln, NewJob, Outcome, Problem, Running, State};
use rusqlite::Connection;
use serde_json::json;

use crate::common::{Folder, Gate, Meter, count, pulse, reaches, stranger, until};
use crate::disk::Disk;
use crate::space::{Executions, Told, gated};
use crate::story::whole;
use crate::{repeat_report, report};

fn pages(conn: &Connection) -> i64 {
    conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
}

fn large(bytes: usize) -> NewJob {
    NewJob::new("w").meta(json!({ "ballast": "b".repeat(bytes) }))
}

/// The application's own connection may have a limit that kiln's has not.
#[test]
fn a_page_limit_of_the_application_s_connection_leaves_no_half_of_its_transaction() {
    let folder = Folder::new();
    let kiln = folder.open();
    let mut app = stranger(&folder.db());
    app.execute_batch("CREATE TABLE effects (id INTEGER PRIMARY KEY, text TEXT)").unwrap();
    let limit = |pages: i64| {
        let app = stranger(&folder.db());
        let set: i64 = app.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0)).unwrap();
        assert_eq!(set, pages);
        app
    };
    let few = pages(&app) + 3;
    app = limit(few);
    let effects =
        || -> i64 { stranger(&folder.db()).query_row("SELECT count(*) FROM effects", [], |row| row.get(0)).unwrap() };

    // SQLite rolls back by itself, and nothing can be committed without the job by mistake.
    let tx = app.transaction().unwrap();
    tx.execute("INSERT INTO effects (text) VALUES ('done')", []).unwrap();
    let error = kiln.enqueue_in(&tx, large(100_000)).unwrap_err();
    assert!(error.is_full() && error.to_string().contains("no space left"), "{error}");
    assert!(tx.is_autocommit() && tx.commit().is_err());
    assert_eq!((effects(), kiln.count(Filter::new()).unwrap().total()), (0, 0));
    let tx = app.transaction().unwrap();
    let small = kiln.enqueue_in(&tx, NewJob::new("effect")).unwrap();
    tx.commit().unwrap();
    // Kiln's own connection has no such limit.
    let more = kiln.enqueue(large(100_000)).unwrap();

    // A worker whose own transaction is full: nothing of the attempt is left but its error, and the next has room.
    let db = folder.db();
    let worker = move |job: &Running<serde_json::Value>| {
        let mut own = stranger(&db);
        if job.attempt == 1 {
            let full = pages(&own);
            own.query_row(&format!("PRAGMA max_page_count = {full}"), [], |_| Ok(())).unwrap();
        }
        let tx = own.transaction()?;
        let done = job.complete_in(&tx)?;
        tx.execute("INSERT INTO effects (text) VALUES (hex(zeroblob(100000)))", [])?;
        tx.commit()?;
        Ok::<Outcome, kiln::Failure>(done)
    };
    let builder = kiln.runtime().queue("default", 1).worker_fn("effect", worker).worker_fn("w", |_: &Running<()>| ());
    let runtime = builder.start().unwrap();
    until("the first attempt fails", || kiln.get(small.id).unwrap().unwrap().errors.len() == 1);
    assert_eq!(effects(), 0);
    kiln.retry(small.id).unwrap();
    let done = reaches(&kiln, small.id, State::Completed);
    assert!(done.errors[0].error.contains("full"), "{:?}", done.errors);
    assert_eq!((effects(), done.attempt), (1, 2));
    reaches(&kiln, more.id, State::Completed);
    runtime.stop();
    whole(&folder.db());
    report(
        "a page limit of the application's connection is met by enqueue_in and by a worker's own transaction",
        2,
        "is_full; the transaction was rolled back as a whole; with room the job was done once",
    );
}

#[test]
fn a_compaction_that_runs_out_of_room_anywhere_changes_nothing_and_says_what_it_needs() {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let kiln = folder.open();
    for _ in 0..20 {
        kiln.enqueue_many((0..20).map(|_| large(10_000).state(State::Suspended))).unwrap();
    }
    kiln.delete((1..=300).collect::<Vec<i64>>()).unwrap();
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    // The rest is given back by pruning.
    let free = || -> i64 { stranger(&folder.db()).query_row("PRAGMA freelist_count", [], |row| row.get(0)).unwrap() };
    until("so much is left that only a compaction gives it back", || free() <= 256);
    let before = kiln.diagnose().unwrap();
    let used = before.file_bytes - before.free_bytes;
    let mut refused = 0;
    let mut needed = 0;
    let compacted = loop {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        until("the log is empty", || stranger(&folder.db()).query_row(sql, [], |row| row.get(0)) == Ok(0));
        // Some hundredths of what is in use, and more and more.
        let room = usize::try_from(used).unwrap() * needed / 100;
        disk.room(Some(room));
        match kiln.compact() {
            Ok(compacted) => break compacted,
            Err(error) => {
                let text = error.to_string();
                assert!(error.is_full() && text.contains("nothing was changed"), "{error}");
                let said = text.split("about ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
                // Half of it where temporary files go, the other half in the log.
                assert!(said.is_some_and(|said| said.abs_diff(2 * used) < used / 10), "{used}: {error}");
                refused += 1;
            }
        }
        disk.room(None);
        whole(&folder.db());
        assert_eq!(count(&kiln, State::Suspended), 100);
        let job = kiln.enqueue(NewJob::new("w")).unwrap();
        reaches(&kiln, job.id, State::Completed);
        needed += 7;
        assert!(needed < 120, "it needs no more than it says");
    };
    assert!(refused > 3 && compacted.after < compacted.before * 2 / 3, "{refused} {compacted:?}");
    disk.room(None);
    let job = kiln.enqueue(NewJob::new("w")).unwrap();
    reaches(&kiln, job.id, State::Completed);
    runtime.stop();
    whole(&folder.db());
    report(
        "a compaction runs out of room, at its beginning, its end, and in between",
        refused,
        "is_full, with what it needs; nothing was changed, jobs ran on; with room the file became small",
    );
}

/// What the log is cut back to once it is begun anew.
const BOUND: u64 = 64 * 1024 * 1024;

#[test]
fn a_log_that_outgrew_its_bound_under_a_reader_is_named_and_cut_back() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).max_payload(20_000_000).open().unwrap();
    let fill = || drop(kiln.enqueue(large(9_000_000).state(State::Suspended)).unwrap());
    let reader = stranger(&folder.db());
    fill();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM kiln_jobs", [], |row| row.get(0)).unwrap();
    while kiln.health().unwrap().wal_bytes <= BOUND {
        assert_eq!(kiln.diagnose().unwrap().of(Problem::LongLog).count(), 0);
        fill();
    }
    let grown = kiln.health().unwrap().wal_bytes;
    let diagnosis = kiln.diagnose().unwrap();
    let finding = diagnosis.of(Problem::LongLog).next().expect("it is found");
    assert!(finding.text.contains(&grown.to_string()) && finding.advice.contains("holds a transaction open"));
    assert!(diagnosis.wal_bytes == grown && grown > BOUND, "{diagnosis}");
    reader.execute_batch("COMMIT").unwrap();

    until("the log is begun anew", || {
        kiln.enqueue(NewJob::new("w")).unwrap();
        kiln.health().unwrap().wal_bytes <= BOUND
    });
    assert_eq!(kiln.diagnose().unwrap().of(Problem::LongLog).count(), 0);
    whole(&folder.db());
    report(
        "a reader keeps its transaction open until the log has outgrown 64 MiB, and ends it",
        "once",
        format!("health and a diagnosis named the log's {grown} bytes; with the next writes it was 64 MiB or less"),
    );
}

const LIMITED: &str = "KILN_TEST_LIMITED_FILES";

/// The system refuses to make any file larger: told by an error, since the signal is ignored, and not as a full disk.
#[test]
#[cfg(target_os = "linux")]
fn a_limit_on_the_size_of_files_is_told_and_survived() {
    if let Some(folder) = std::env::var_os(LIMITED) {
        return under_a_limit(folder.as_ref());
    }
    const FAULT: &str = "the system lets no file grow beyond 800 kB";
    let folder = Folder::new();
    let test = "limits::a_limit_on_the_size_of_files_is_told_and_survived";
    // Only the soft limit, which the process itself may raise again.
    let script = "trap '' XFSZ; ulimit -S -f 1600 && prlimit --version > /dev/null || exit 77; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(LIMITED, folder.path(""))
        .output()
        .unwrap();
    if output.status.code() == Some(77) {
        return report(FAULT, 0, "not run: this machine lets nobody set one");
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    repeat_report(&said);
}

#[cfg(target_os = "linux")]
fn under_a_limit(folder: &std::path::Path) {
    let db = folder.join("jobs.db");
    let told = Told::default();
    let kiln = told.observe(Kiln::builder(&db)).open().unwrap();
    let (gate, meter, executions) = (Gate::default(), Meter::default(), Executions::default());
    let runtime = gated(&kiln, &gate, &meter, &executions);
    let mut stored: Vec<i64> = (0..2).map(|_| kiln.enqueue(NewJob::new("w")).unwrap().id).collect();
    until("two jobs run", || meter.inside() == 2);
    let error = loop {
        match kiln.enqueue(large(20_000)) {
            Ok(job) => stored.push(job.id),
            Err(error) => break error,
        }
    };
    let refused = stored.len();
    assert!(error.to_string().contains("disk I/O error"), "{error:?}");
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), refused as u64, "no half of an enqueue");
    gate.open();
    until("nothing can be written", || pulse(&kiln, &runtime).trouble.is_some() || executions.lock().len() == refused);

    let pid = std::process::id().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap();
    assert!(lifted.success());
    stored.iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
    assert!(executions.lock().values().all(|times| *times == 1));
    until("it is well", || pulse(&kiln, &runtime).trouble.is_none());
    assert!(told.names().len() <= 2, "{:?}", told.names());
    assert_eq!(runtime.stop().unwritten, 0);
    whole(&db);
    report(
        "the system lets no file grow beyond 800 kB",
        format!("{refused} enqueues until one is too large"),
        "the next returned an error, no half row; with the limit lifted each was executed once",
    );
}
