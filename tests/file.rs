//! The file: how it comes to be, what is refused, who else may use it.

mod common;

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::{Ends, Folder, Other, count, get, ms, other_process_for, pulse, reaches, say, stranger, until};
use kiln::testing::ManualClock;
use kiln::{Changes, Durability, Error, Filter, Job, Kiln, NewJob, Outcome, Running, State};
use serde_json::{Value, json};

/// A file as it lies on the disk. Only for files that nobody has open.
fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn touched(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn pragma<T: rusqlite::types::FromSql>(conn: &rusqlite::Connection, name: &str) -> T {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
}

fn is_whole(db: &Path) {
    assert_eq!(pragma::<String>(&stranger(db), "integrity_check"), "ok");
}

// How it comes to be.

#[cfg(unix)]
#[test]
fn all_files_are_for_their_owner_s_eyes_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let kiln = folder.open();
    let runtime = kiln.runtime().queue("q", 1).worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    let id = kiln.enqueue(NewJob::new("w").queue("q")).unwrap().id;
    reaches(&kiln, id, State::Completed);

    let names = folder.names();
    let sidecar = format!("jobs.db-kiln-{}", runtime.id().unwrap());
    for name in ["jobs.db", "jobs.db-wal", "jobs.db-shm", &sidecar] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    for name in names {
        let mode = fs::metadata(folder.path(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name} has the mode {mode:o}");
    }
}

#[test]
fn nothing_is_left_beside_the_file_when_all_is_closed() {
    let folder = Folder::new();
    let kiln = folder.open();
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    reaches(&kiln, kiln.enqueue(NewJob::new("w")).unwrap().id, State::Completed);
    runtime.stop();
    assert!(!folder.names().iter().any(|name| name.contains("-kiln-")), "a stop removes the sidecar");
    drop((runtime, kiln));
    folder.closed();
    assert_eq!(folder.names(), ["jobs.db"]);
    is_whole(&folder.db());
}

#[test]
fn a_new_file_is_in_wal_mode_and_gives_space_back_in_small_bites() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w")).unwrap();
    let conn = stranger(&folder.db());
    assert_eq!(pragma::<String>(&conn, "journal_mode"), "wal");
    assert_eq!(pragma::<i64>(&conn, "auto_vacuum"), 2);
    assert_eq!((pragma::<i64>(&conn, "user_version"), pragma::<i64>(&conn, "application_id")), (0, 0));
}

#[test]
fn what_was_enqueued_is_there_when_the_file_is_opened_again() {
    for durability in [Durability::Full, Durability::Normal, Durability::Strict] {
        let folder = Folder::new();
        let open = || Kiln::builder(folder.db()).durability(durability).open().unwrap();
        let job = open().enqueue(NewJob::new("w").args(json!({ "n": 1 }))).unwrap();
        assert_eq!(open().get(job.id).unwrap(), Some(job));
        let kiln = open();
        let runtime = kiln.runtime().worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
        reaches(&kiln, 1, State::Completed);
        runtime.stop();
        drop((runtime, kiln));
        assert_eq!(count(&open(), State::Completed), 1);
    }
}

#[test]
fn times_are_whole_microseconds_in_the_file() {
    let folder = Folder::new();
    let clock = ManualClock::at("2026-02-03T04:05:06.123456789Z".parse().unwrap());
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    let job = kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_nanos(1_999))).unwrap();
    let (inserted_at, scheduled_at): (i64, i64) = stranger(&folder.db())
        .query_row("SELECT inserted_at, scheduled_at FROM kiln_jobs", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(inserted_at, 1_770_091_506_123_456);
    assert_eq!((inserted_at, scheduled_at), (job.inserted_at.as_microsecond(), job.scheduled_at.as_microsecond()));
    assert_eq!(scheduled_at, inserted_at + 1);
}

#[cfg(unix)]
#[test]
fn a_strange_name_is_a_name() {
    let folder = Folder::new();
    for name in ["ü b.db", "a?mode=memory", "per%20cent#.db", "file:x", ":memory:", "no-end", "it's.db"] {
        let kiln = Kiln::open(folder.path(name)).unwrap();
        kiln.enqueue(NewJob::new("w")).unwrap();
        drop(kiln);
        assert!(folder.path(name).is_file(), "{name}");
        assert_eq!(Kiln::open(folder.path(name)).unwrap().count(Filter::new()).unwrap().total(), 1, "{name}");
    }
    folder.closed();
    assert_eq!(folder.names().len(), 7);
}

#[cfg(unix)]
#[test]
fn a_file_opened_by_another_name_is_the_same_file() {
    let folder = Folder::new();
    let kiln = folder.open();
    std::os::unix::fs::symlink(folder.db(), folder.path("link.db")).unwrap();
    let linked = Kiln::open(folder.path("link.db")).unwrap();
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    assert_eq!(linked.health().unwrap().runtimes[0].id, runtime.id().unwrap(), "the other name finds it alive");
    let id = linked.enqueue(NewJob::new("w")).unwrap().id;
    reaches(&linked, id, State::Completed);
    assert!(!folder.names().iter().any(|name| name.starts_with("link.db-")), "{:?}", folder.names());
}

#[test]
fn an_empty_file_becomes_a_database() {
    let folder = Folder::new();
    fs::write(folder.db(), b"").unwrap();
    let id = folder.open().enqueue(NewJob::new("w")).unwrap().id;
    assert_eq!(get(&folder.open(), id).worker, "w");
}

// What is refused.

/// Opening fails, says why, and names the path.
fn refused(path: &Path, why: &str) -> Error {
    let length = fs::metadata(path).map_or(0, |found| found.len());
    let Err(error) = Kiln::open(path) else { panic!("{} of {length} bytes was opened", path.display()) };
    let text = error.to_string();
    assert!(text.contains(why), "{text:?} does not say {why:?}");
    assert!(text.contains(&path.display().to_string()), "{text:?} does not name the path");
    error
}

#[test]
fn a_missing_folder_is_not_made() {
    let folder = Folder::new();
    let path = folder.path("missing").join("deeper").join("jobs.db");
    assert!(refused(&path, "does not exist").is_unusable());
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_directory_is_no_file() {
    let folder = Folder::new();
    fs::create_dir(folder.db()).unwrap();
    assert!(refused(&folder.db(), "directory").is_unusable());
    assert_eq!(folder.names(), ["jobs.db"]);
    assert_eq!(fs::read_dir(folder.db()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn neither_a_device_nor_a_link_to_nowhere_is_a_file() {
    assert!(refused(Path::new("/dev/null"), "no regular file").is_unusable());
    let folder = Folder::new();
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.db()).unwrap();
    assert!(refused(&folder.db(), "").is_unusable());
    assert_eq!(folder.names(), ["jobs.db"]);
}

#[test]
fn no_path_at_all_is_refused() {
    assert!(Kiln::open("").unwrap_err().is_unusable());
    // SQLite would take these for something else; as paths they are nobody's wish.
    assert!(refused(Path::new(":memory:"), "use Kiln::in_memory").is_unusable());
    assert!(refused(Path::new("file:jobs.db?mode=memory"), "give a path").is_unusable());
}

#[test]
fn what_is_no_database_is_not_touched() {
    let folder = Folder::new();
    let text = "Dear diary, this is no database. ".repeat(1000);
    // SQLite itself leaves a file of one byte where it worked around a bug of a file system, and takes it for empty.
    let contents = [1, 2, 15, 99, 100, 511, 512, 513, 4096, 30_000].map(|length| text.as_bytes()[..length].to_vec());
    let zeros = [vec![0; 100], vec![0; 4096]];
    let almost = [b"SQLite format 3\0".to_vec(), [b"SQLite format 3\0".as_slice(), &[7; 5000]].concat()];
    for content in contents.into_iter().chain(zeros).chain(almost) {
        fs::write(folder.db(), &content).unwrap();
        let before = touched(&folder.db());
        let error = refused(&folder.db(), "not a database");
        assert!(error.is_unusable(), "{error}");
        assert_eq!(bytes(&folder.db()), content);
        assert_eq!(touched(&folder.db()), before);
        assert_eq!(folder.names(), ["jobs.db"]);
    }
}

#[test]
fn a_damaged_database_is_an_error_and_not_touched() {
    let folder = Folder::new();
    drop(folder.open());
    folder.closed();
    let mut content = bytes(&folder.db());
    // The header stays, the schema after it does not.
    content[100..4096].fill(0xa5);
    fs::write(folder.db(), &content).unwrap();
    refused(&folder.db(), "malformed");
    assert_eq!(bytes(&folder.db()), content);
    assert_eq!(folder.names(), ["jobs.db"]);
}

#[test]
fn a_read_only_file_is_not_touched() {
    let folder = Folder::new();
    drop(folder.open());
    folder.closed();
    let content = bytes(&folder.db());
    let mut permissions = fs::metadata(folder.db()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(folder.db(), permissions.clone()).unwrap();
    assert!(refused(&folder.db(), "read-only").is_unusable());
    assert_eq!(bytes(&folder.db()), content);
    assert_eq!(folder.names(), ["jobs.db"]);
    #[expect(clippy::permissions_set_readonly_false, reason = "elsewhere it could not be deleted")]
    permissions.set_readonly(false);
    fs::set_permissions(folder.db(), permissions).unwrap();
}

#[test]
fn a_file_of_a_newer_kiln_that_is_not_understood_is_not_touched() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w")).unwrap();
    drop(kiln);
    stranger(&folder.db())
        .execute_batch(
            "UPDATE kiln_schema SET version = 100, min_reader = 98, min_writer = 99, written_by = 'kiln 9.9.9'",
        )
        .unwrap();
    folder.closed();
    let (content, before) = (bytes(&folder.db()), touched(&folder.db()));
    for _ in 0..2 {
        let error = refused(&folder.db(), "kiln 9.9.9");
        assert!(error.is_incompatible() && !error.is_unusable(), "{error}");
        assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")), "{error}");
    }
    assert_eq!(bytes(&folder.db()), content);
    assert_eq!(touched(&folder.db()), before);
    assert_eq!(folder.names(), ["jobs.db"]);
}

#[test]
fn a_file_of_a_newer_kiln_that_only_adds_is_used_and_not_set_back() {
    let folder = Folder::new();
    drop(folder.open());
    let newer = "UPDATE kiln_schema SET version = 3, min_writer = 1, written_by = 'kiln 1.1.0';
                 ALTER TABLE kiln_jobs ADD COLUMN novelty TEXT NOT NULL DEFAULT 'new'";
    stranger(&folder.db()).execute_batch(newer).unwrap();
    let kiln = folder.open();
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    reaches(&kiln, kiln.enqueue(NewJob::new("w")).unwrap().id, State::Completed);
    runtime.stop();
    let found: (i64, String) = stranger(&folder.db())
        .query_row("SELECT version, novelty FROM kiln_schema, kiln_jobs", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(found, (3, "new".into()));
}

// An application's own database.

/// What the application had before kiln came, and has to have after.
#[derive(Debug, PartialEq)]
struct Own {
    pragmas: Vec<(&'static str, String)>,
    schema: Vec<(String, String, Option<String>)>,
    rows: Vec<(i64, String)>,
    logged: i64,
    sequence: i64,
}

impl Own {
    fn set_up(conn: &rusqlite::Connection, first: &str) {
        conn.execute_batch(first).unwrap();
        conn.execute_batch(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL);
             CREATE TABLE log (note INTEGER REFERENCES notes (id));
             CREATE INDEX notes_text ON notes (text);
             CREATE VIEW short_notes AS SELECT * FROM notes WHERE length(text) < 10;
             CREATE TRIGGER note_added AFTER INSERT ON notes BEGIN INSERT INTO log VALUES (new.id); END;
             INSERT INTO notes (text) VALUES ('milk'), ('bread');
             PRAGMA user_version = 42;
             PRAGMA application_id = 77;",
        )
        .unwrap();
    }

    fn look(conn: &rusqlite::Connection) -> Self {
        let number = |name| (name, pragma::<i64>(conn, name).to_string());
        let mut pragmas = ["user_version", "application_id", "auto_vacuum", "page_size"].map(number).to_vec();
        pragmas.push(("encoding", pragma(conn, "encoding")));
        let mut select = conn.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY rowid").unwrap();
        let schema = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))).unwrap();
        let schema = schema.map(Result::unwrap).filter(|(_, name, _)| !is_kilns(name)).collect();
        let mut select = conn.prepare("SELECT id, text FROM notes ORDER BY id").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let one = |sql| conn.query_row(sql, [], |row| row.get(0)).unwrap();
        Self {
            pragmas,
            schema,
            rows: rows.map(Result::unwrap).collect(),
            logged: one("SELECT count(*) FROM log"),
            sequence: one("SELECT seq FROM sqlite_sequence WHERE name = 'notes'"),
        }
    }
}

fn is_kilns(name: &str) -> bool {
    name.starts_with("kiln_") || name.starts_with("sqlite_autoindex_kiln_")
}

fn runs_a_job(kiln: &Kiln) {
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<Value>| Outcome::record("done")).start().unwrap();
    let jobs = kiln.enqueue_many((0..20).map(|n| NewJob::new("w").args(json!({ "n": n })))).unwrap();
    for job in jobs {
        reaches(kiln, job.id, State::Completed);
    }
    runtime.stop();
}

#[test]
fn an_application_s_own_database_gets_kiln_s_tables_and_nothing_else_changes() {
    let firsts = [
        "",
        "PRAGMA page_size = 8192; PRAGMA auto_vacuum = FULL",
        "PRAGMA page_size = 1024; PRAGMA auto_vacuum = NONE; PRAGMA encoding = 'UTF-16le'",
    ];
    for first in firsts {
        let folder = Folder::new();
        Own::set_up(&stranger(&folder.db()), first);
        let before = Own::look(&stranger(&folder.db()));
        let kiln = folder.open();
        runs_a_job(&kiln);

        let conn = stranger(&folder.db());
        assert_eq!(Own::look(&conn), before);
        assert_eq!(pragma::<String>(&conn, "journal_mode"), "wal");
        let mut select = conn.prepare("SELECT type, name FROM sqlite_schema").unwrap();
        let found = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
        let kinds: Vec<(String, String)> = found.map(Result::unwrap).filter(|(_, name)| is_kilns(name)).collect();
        assert!(kinds.len() > 5, "{kinds:?}");
        assert!(kinds.iter().all(|(kind, _)| ["table", "index", "view"].contains(&kind.as_str())), "{kinds:?}");

        // The application goes on beside it, with its triggers.
        conn.execute_batch("INSERT INTO notes (text) VALUES ('eggs')").unwrap();
        let after = Own::look(&conn);
        assert_eq!((after.rows.len(), after.logged, after.sequence), (3, 3, 3));
        drop((kiln, select));
        drop(conn);
        is_whole(&folder.db());
    }
}

#[test]
fn an_application_s_journal_mode_is_kept_when_it_asks_for_that() {
    for mode in ["delete", "truncate", "wal"] {
        let folder = Folder::new();
        let conn = stranger(&folder.db());
        Own::set_up(&conn, &format!("PRAGMA journal_mode = {mode}"));
        let before = Own::look(&conn);
        let kiln = Kiln::builder(folder.db()).keep_journal_mode().open().unwrap();
        runs_a_job(&kiln);
        assert_eq!(Own::look(&conn), before);
        // Only WAL is a property of the file; a connection that never heard of it uses DELETE.
        let kept = if mode == "wal" { "wal" } else { "delete" };
        assert_eq!(pragma::<String>(&stranger(&folder.db()), "journal_mode"), kept);
        assert_eq!(folder.names().iter().any(|name| name.ends_with("-wal")), mode == "wal", "{:?}", folder.names());
        drop((kiln, conn));
        is_whole(&folder.db());
    }
}

#[test]
fn without_wal_readers_a_writer_and_two_runtimes_get_along() {
    let folder = Folder::new();
    let open = || Kiln::builder(folder.db()).keep_journal_mode().open().unwrap();
    let kilns = [open(), open()];
    assert_eq!(pragma::<String>(&stranger(&folder.db()), "journal_mode"), "delete");
    let runtimes = kilns
        .each_ref()
        .map(|kiln| kiln.runtime().queue("default", 2).worker_fn("w", |_: &Running<Value>| ()).start().unwrap());
    thread::scope(|scope| {
        for kiln in &kilns {
            scope.spawn(move || (0..60).for_each(|_| drop(kiln.enqueue(NewJob::new("w")).unwrap())));
            scope.spawn(move || (0..60).for_each(|_| drop(kiln.list(Filter::new()).unwrap())));
        }
    });
    until("all is done", || count(&kilns[0], State::Completed) == 120);
    for runtime in &runtimes {
        assert_eq!(runtime.stop().unwritten, 0);
    }
    is_whole(&folder.db());
}

// Others on the file.

#[test]
fn threads_that_open_a_new_file_at_once_all_get_it() {
    const THREADS: usize = 4;
    for _ in 0..10 {
        let folder = Folder::new();
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    folder.open().enqueue(NewJob::new("w")).unwrap();
                });
            }
        });
        assert_eq!(folder.open().count(Filter::new()).unwrap().total(), THREADS as u64);
    }
}

/// The other process of some tests here: opens and enqueues whenever it is told a file's name.
#[test]
fn another_process_that_enqueues() {
    let Some(folder) = other_process_for() else { return };
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let name = line.unwrap();
        let result = Kiln::open(&name).and_then(|kiln| kiln.enqueue(NewJob::new("w")));
        assert!(folder.join(&name).exists() || result.is_err());
        say(&result.map_or_else(|error| format!("failed: {error}"), |job| format!("enqueued {}", job.id)));
    }
}

#[test]
fn processes_that_open_a_new_file_at_once_all_get_it() {
    let folder = Folder::new();
    let mut others = [0; 2].map(|_| Other::start("another_process_that_enqueues", &folder));
    for other in &mut others {
        assert_eq!(other.hear(), "ready");
    }
    for round in 0..10 {
        // A name without a folder is a file where the process stands.
        let name = format!("round-{round}.db");
        others.iter_mut().for_each(|other| other.tell(&name));
        let said = others.each_mut().map(Other::hear);
        assert!(said.contains(&"enqueued 1".into()) && said.contains(&"enqueued 2".into()), "{said:?}");
        assert_eq!(Kiln::open(folder.path(&name)).unwrap().count(Filter::new()).unwrap().total(), 2);
    }
}

/// Runs SQL in another process, by whatever this machine has for it; says by what.
fn run_elsewhere(db: &Path, sql: &str) -> &'static str {
    let python = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], 30); c.executescript(sys.argv[2]); c.close()";
    let shell = Command::new("sqlite3").args(["-cmd", ".timeout 30000"]).arg(db).arg(sql).status();
    if shell.is_ok_and(|status| status.success()) {
        return "sqlite3";
    }
    let script = Command::new("python3").arg("-c").arg(python).arg(db).arg(sql).status();
    if script.is_ok_and(|status| status.success()) {
        return "python3";
    }
    stranger(db).execute_batch(sql).unwrap();
    "this process, by another connection"
}

#[test]
fn a_plain_insert_of_any_program_is_executed_while_the_runtime_idles() {
    let folder = Folder::new();
    let kiln = folder.open();
    let (tell, told) = crossbeam_channel::unbounded();
    let runtime = kiln
        .runtime()
        .queue("default", 1)
        .worker_fn("shout", move |job: &Running<Value>| tell.send((job.args.clone(), Instant::now())).unwrap())
        .start()
        .unwrap();
    for round in 1..=3 {
        let by = run_elsewhere(
            &folder.db(),
            &format!("INSERT INTO kiln_jobs (worker, args) VALUES ('shout', '{{\"word\": \"fire\", \"n\": {round}}}')"),
        );
        let inserted = Instant::now();
        let (args, heard) = told.recv_timeout(common::DEADLINE).unwrap();
        assert_eq!(args, json!({ "word": "fire", "n": round }));
        let took = heard.saturating_duration_since(inserted);
        println!("executed {took:?} after an INSERT by {by}");
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        let job = reaches(&kiln, round, State::Completed);
        assert_eq!((job.queue.as_str(), job.max_attempts, job.priority), ("default", 20, 0));
        assert_eq!((job.meta.as_str(), job.attempt), ("{}", 1));
        let age = job.attempted_at.unwrap().duration_since(job.inserted_at).as_secs_f64();
        assert!((-0.1..30.0).contains(&age), "inserted {age} s before it was claimed");
    }
    runtime.stop();

    // One that comes while nothing runs is found at the start.
    run_elsewhere(&folder.db(), "INSERT INTO kiln_jobs (worker, args) VALUES ('shout', '{}')");
    runtime.start().unwrap();
    reaches(&kiln, 4, State::Completed);
}

#[test]
fn a_plain_insert_of_a_worker_s_name_and_a_plain_update_are_noticed_while_the_runtime_idles() {
    let folder = Folder::new();
    let kiln = folder.open();
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    let hour = Duration::from_secs(3600);
    let new = [
        NewJob::new("w").state(State::Suspended),
        NewJob::new("w").schedule_in(hour),
        NewJob::new("w").queue("nobody's"),
        NewJob::new("someone else"),
    ];
    let waiting = kiln.enqueue_many(new).unwrap();
    let foreign = stranger(&folder.db());
    let changes = ["state = 'available'", "scheduled_at = 0", "queue = 'default'", "worker = 'w'"];
    for (job, change) in waiting.iter().zip(changes) {
        assert_eq!(foreign.execute(&format!("UPDATE kiln_jobs SET {change} WHERE id = ?1"), [job.id]).unwrap(), 1);
        reaches(&kiln, job.id, State::Completed);
        foreign.execute("INSERT INTO kiln_jobs (worker) VALUES ('w')", []).unwrap();
        reaches(&kiln, foreign.last_insert_rowid(), State::Completed);
    }
    runtime.stop();
}

#[test]
fn a_plain_insert_of_a_scheduled_job_is_staged_when_it_is_due() {
    let folder = Folder::new();
    let kiln = folder.open();
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
    let sql = "INSERT INTO kiln_jobs (worker, args, state, scheduled_at) VALUES ('w', '{}', 'scheduled',
               CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) + 300000)";
    stranger(&folder.db()).execute_batch(sql).unwrap();
    let job = reaches(&kiln, 1, State::Completed);
    assert!(job.attempted_at.unwrap() >= job.scheduled_at);
    runtime.stop();
}

#[test]
fn two_handles_and_another_process_write_side_by_side() {
    let folder = Folder::new();
    let mut other = Other::start("another_process_that_enqueues", &folder);
    assert_eq!(other.hear(), "ready");
    let kilns = [folder.open(), folder.open()];
    thread::scope(|scope| {
        for kiln in &kilns {
            scope.spawn(move || (0..100).for_each(|_| drop(kiln.enqueue(NewJob::new("w")).unwrap())));
        }
        for _ in 0..50 {
            other.tell("jobs.db");
            let said = other.hear();
            assert!(said.starts_with("enqueued"), "{said}");
        }
    });
    assert_eq!(kilns[0].count(Filter::new()).unwrap().total(), 250);
    drop((kilns, other));
    is_whole(&folder.db());
}

#[test]
fn a_call_gives_up_when_another_holds_the_lock_for_too_long_and_has_written_nothing() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(ms(100)).open().unwrap();
    let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
    let hog = stranger(&folder.db());
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    let errors = [
        kiln.enqueue(NewJob::new("w")).unwrap_err(),
        kiln.enqueue_many([NewJob::new("w"), NewJob::new("w")]).unwrap_err(),
        kiln.cancel(id).unwrap_err(),
        kiln.update(id, Changes::new().priority(3)).unwrap_err(),
        kiln.delete(id).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_busy(), "{error}");
    }
    // Who only looks is not kept waiting.
    let job = get(&kiln, id);
    assert_eq!((job.state, job.priority), (State::Available, 0));
    assert_eq!(kiln.list(Filter::new()).unwrap().len(), 1);
    hog.execute_batch("COMMIT").unwrap();
    assert_eq!(kiln.cancel(id).unwrap(), 1);
    assert_eq!(kiln.enqueue(NewJob::new("w")).unwrap().id, 2);
}

#[test]
fn a_patient_call_waits_for_the_lock() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(common::DEADLINE).open().unwrap();
    let hog = stranger(&folder.db());
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| kiln.enqueue(NewJob::new("w")));
        thread::sleep(ms(300));
        assert!(!waiting.is_finished());
        hog.execute_batch("COMMIT").unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_file_is_opened_while_another_holds_the_lock_for_a_moment() {
    let folder = Folder::new();
    let hog = stranger(&folder.db());
    hog.execute_batch("CREATE TABLE own (a); BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let opening = scope.spawn(|| Kiln::open(folder.db()).map(drop));
        thread::sleep(ms(300));
        hog.execute_batch("COMMIT").unwrap();
        opening.join().unwrap().unwrap();
    });
}

#[test]
fn an_ack_that_cannot_be_written_is_kept_and_written_later() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(ms(50)).open().unwrap();
    let (gate, runs) = (common::Gate::default(), common::Meter::default());
    let runtime = {
        let (gate, runs) = (gate.clone(), runs.clone());
        let work = move |_: &Running<()>| {
            let _inside = runs.enter();
            gate.pass();
        };
        kiln.runtime().queue("default", 1).worker_fn("w", work).start().unwrap()
    };
    let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
    until("it runs", || runs.inside() == 1);
    let hog = stranger(&folder.db());
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    gate.open();
    until("its end is known but not written", || pulse(&kiln, &runtime).unwritten == 1);
    assert_eq!(get(&kiln, id).state, State::Executing);
    hog.execute_batch("COMMIT").unwrap();
    let job = reaches(&kiln, id, State::Completed);
    assert_eq!((job.attempt, job.errors.len()), (1, 0));
    assert_eq!(runtime.stop().unwritten, 0);
}

// What people and tools see.

#[test]
fn the_readable_view_shows_the_same_jobs_with_times_one_can_read() {
    let folder = Folder::new();
    let clock = ManualClock::at("2026-02-03T04:05:06.250Z".parse().unwrap());
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    kiln.enqueue(NewJob::new("w").queue("q").schedule_in(Duration::from_secs(90)).tags(["t"])).unwrap();
    clock.advance(ms(500));
    kiln.cancel(1).unwrap();

    let conn = stranger(&folder.db());
    let columns = |table: &str| -> Vec<String> {
        let select = conn.prepare(&format!("SELECT * FROM {table}")).unwrap();
        select.column_names().into_iter().map(String::from).collect()
    };
    let (readable, all) = (columns("kiln_jobs_readable"), columns("kiln_jobs"));
    assert!(readable.len() >= 19 && all.starts_with(&readable), "{readable:?}");
    let times: [Option<String>; 4] = conn
        .query_row(
            "SELECT inserted_at, scheduled_at, attempted_at, cancelled_at FROM kiln_jobs_readable
             WHERE state = 'cancelled' AND queue = 'q' AND tags = '[\"t\"]'",
            [],
            |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]),
        )
        .unwrap();
    let expected =
        [Some("2026-02-03T04:05:06.250Z"), Some("2026-02-03T04:06:36.250Z"), None, Some("2026-02-03T04:05:06.750Z")];
    assert_eq!(times.each_ref().map(Option::as_deref), expected);
}

fn enqueue_and_operate(kiln: &Kiln) {
    for n in 0..150 {
        let args = json!({ "text": "y".repeat(n * 10) });
        let new = || NewJob::new("w").queue(["a", "b"][n % 2]).max_attempts(1).args(&args);
        let jobs = kiln.enqueue_many([new(), new().schedule_in(ms(10)), new()]).unwrap();
        match n % 4 {
            0 => drop(kiln.cancel(&jobs).unwrap()),
            1 => drop(kiln.delete(jobs[2].id).unwrap()),
            2 => drop(kiln.update(&jobs, |job: &Job| Changes::new().priority(job.id % 10)).unwrap()),
            _ => drop(kiln.retry(Filter::new().state(State::Discarded)).unwrap()),
        }
    }
}

#[test]
fn the_file_is_whole_during_and_after_a_busy_story() {
    let folder = Folder::new();
    let kilns = [folder.open(), folder.open()];
    let runtimes: Vec<_> = kilns
        .iter()
        .map(|kiln| {
            kiln.runtime()
                .queue("a", 2)
                .queue("b", 1)
                .worker_fn("w", |job: &Running<Value>| match job.id % 5 {
                    0 => Err("broken"),
                    1 => Ok(Outcome::record(&"x".repeat(3000)).unwrap()),
                    2 => Ok(Outcome::cancel("no")),
                    3 if job.meta.get("snoozed").is_none() => Ok(Outcome::snooze(ms(5))),
                    _ => Ok(Outcome::Complete),
                })
                .start()
                .unwrap()
        })
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let ends = Ends(&done);
        let checks = scope.spawn(|| {
            let mut checks = 0;
            while !done.load(Ordering::Relaxed) {
                is_whole(&folder.db());
                checks += 1;
            }
            checks
        });
        let writers: Vec<_> = kilns.iter().map(|kiln| scope.spawn(move || enqueue_and_operate(kiln))).collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let open = [State::Available, State::Scheduled, State::Executing, State::Retryable];
        until("all is done", || kilns[0].count(Filter::new().states(open)).unwrap().total() == 0);
        drop(ends);
        assert!(checks.join().unwrap() > 0);
    });
    for runtime in &runtimes {
        assert_eq!(runtime.stop().unwritten, 0);
    }
    drop((runtimes, kilns));
    is_whole(&folder.db());
    folder.closed();
    assert_eq!(folder.names(), ["jobs.db"]);
}

#[test]
fn a_handle_shows_where_it_looks() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).node("edge-7").open().unwrap();
    let shown = format!("{kiln:?}");
    let path: PathBuf = folder.db();
    assert!(shown.contains(&format!("{:?}", path.display().to_string())) && shown.contains("edge-7"), "{shown}");
}
