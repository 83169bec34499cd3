//! Files of other versions: an older one is migrated once, with a backup; a newer one is used, read, or refused, also where
//! it becomes one while it is open.
//!
//! `fixtures/v1/jobs.db` is a file that the first kiln with schema version 1 made, with a job in each state, cron entries,
//! what was said of queues, a dead runtime's row, rows that another program spoilt, and a table of an application;
//! `fixtures/v1/sql.rs` are its statements.

mod common;
#[path = "fixtures/v1/sql.rs"]
#[allow(dead_code, reason = "the old kiln's statements, all of them")]
mod v1;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::{
    Folder, Gate, Meter, Other, count, eventually, get, ms, other_process_for, pulse, reaches, say, stranger, until,
};
use kiln::{Event, Filter, Kiln, NewJob, Outcome, Running, State, Unique};
use parking_lot::Mutex;
use rusqlite::types::Value as Sql;
use serde_json::{Value, json};

/// The version of this kiln.
const VERSION: i64 = 2;

fn fixture(folder: &Folder) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/jobs.db");
    fs::copy(source, folder.db()).unwrap();
    folder.db()
}

/// All rows of a table in its first columns, as they are stored.
fn rows(db: &Path, table: &str, columns: &str) -> Vec<Vec<Sql>> {
    let conn = stranger(db);
    let mut select = conn.prepare(&format!("SELECT {columns} FROM {table} ORDER BY 1")).unwrap();
    let width = select.column_count();
    let rows = select.query_map([], |row| (0..width).map(|n| row.get(n)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

const JOBS: &str = "id, state, queue, worker, args, meta, tags, errors, attempt, max_attempts, priority, attempted_by, \
                    inserted_at, scheduled_at, attempted_at, completed_at, cancelled_at, discarded_at, \
                    cancel_requested_at, expires_at, unique_key, progress, checkpoint";
const CRONS: &str = "name, expression, zone, worker, queue, args, meta, tags, max_attempts, priority, missed, missed_max, \
                     missed_within, paused, since, last_slot, inserted_at, revision";
const QUEUES: &str = "queue, paused, \"limit\", scaled_at";

/// What the file held before, and has to hold after.
fn all(db: &Path) -> Vec<Vec<Vec<Sql>>> {
    let tables = [("kiln_jobs", JOBS), ("kiln_crons", CRONS), ("kiln_queues", QUEUES), ("notes", "id, text")];
    tables.into_iter().map(|(table, columns)| rows(db, table, columns)).collect()
}

fn version(db: &Path) -> i64 {
    let conn = stranger(db);
    conn.query_row("SELECT version FROM kiln_schema", [], |row| row.get(0)).unwrap()
}

fn backup(folder: &Folder) -> PathBuf {
    folder.path("jobs.db.v1.bak")
}

#[test]
fn the_fixture_is_what_it_is_said_to_be() {
    let folder = Folder::new();
    let db = fixture(&folder);
    assert_eq!(version(&db), 1);
    let states: BTreeSet<String> = rows(&db, "kiln_jobs", "state").iter().map(|row| format!("{:?}", row[0])).collect();
    let missing = State::ALL.into_iter().find(|state| !states.contains(&format!("Text({:?})", state.as_str())));
    assert_eq!(missing, None, "{states:?}");
    assert!(rusqlite::Connection::open(&db).unwrap().prepare("SELECT crashes FROM kiln_jobs").is_err());
}

#[test]
fn a_file_of_an_older_kiln_is_migrated_with_all_that_is_in_it() {
    let folder = Folder::new();
    let db = fixture(&folder);
    let before = all(&db);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let kiln = Kiln::builder(&db).observe(move |event: &Event| tell.lock().push(event.to_string())).open().unwrap();

    assert_eq!((version(&db), all(&db)), (VERSION, before), "the owner of the executing jobs may still live");
    let migrated = told.lock().iter().find(|line| line.starts_with("migrated")).cloned().unwrap();
    assert!(
        migrated.starts_with("migrated from=1 to=2 backup=\"") && migrated.contains("jobs.db.v1.bak"),
        "{migrated}"
    );

    let total = kiln.count(Filter::new()).unwrap();
    assert_eq!((total.total(), total.state(State::Unknown)), (16, 1));
    let recorded: Option<Value> = get(&kiln, 2).recorded().unwrap();
    assert_eq!(recorded, Some(json!({ "sum": 3 })));
    assert_eq!(get(&kiln, 9).args, json!({ "text": "Grüße, 世界", "deep": { "list": [1, 2.5, null, true] } }));
    assert_eq!(get(&kiln, 3).errors[0].error, "no answer");
    assert_eq!(kiln.progress(7).unwrap().unwrap().to_string(), "1/4 quarter");
    assert_eq!(kiln.crons().unwrap().len(), 2);
    assert!(kiln.diagnose_fully().unwrap().of(kiln::Problem::Damaged).next().is_none());
    // The newest job was deleted by the older kiln.
    assert_eq!(kiln.enqueue(NewJob::new("w")).unwrap().id, 18);
    drop(kiln);

    // Once: it is opened again, and nothing more is made.
    drop(folder.open());
    folder.closed();
    assert_eq!(folder.names(), ["jobs.db", "jobs.db.v1.bak"]);
}

#[test]
fn the_jobs_of_an_older_kiln_go_on() {
    let folder = Folder::new();
    let kiln = Kiln::open(fixture(&folder)).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let keep = Duration::MAX;
    let runtime = kiln
        .runtime()
        .retention(State::Cancelled, keep)
        .retention(State::Completed, keep)
        .retention(State::Discarded, keep)
        .queue("todo", 1)
        .worker_fn("app.Mailer", move |job: &Running<Value>| {
            saw.lock().push(job.id);
            match job.id {
                7 => Outcome::record(&job.last_checkpoint::<u32>()?),
                _ => Ok(Outcome::Complete),
            }
        })
        .start()
        .unwrap();
    // 7 and 8 were executing when their process died: 7 runs again, with its checkpoint; 8 was asked to leave.
    let again = reaches(&kiln, 7, State::Completed);
    assert_eq!((again.recorded::<Option<u32>>().unwrap(), again.attempt), (Some(Some(17)), 2));
    reaches(&kiln, 8, State::Cancelled);
    // 13 had expired by now.
    reaches(&kiln, 13, State::Cancelled);
    for id in [3, 6, 9, 10, 12] {
        reaches(&kiln, id, State::Completed);
    }
    kiln.retry(vec![4, 11, 14]).unwrap();
    for id in [4, 11, 14] {
        reaches(&kiln, id, State::Completed);
    }
    runtime.stop();
    for (id, state) in [(1, State::Completed), (5, State::Cancelled), (15, State::Unknown), (16, State::Available)] {
        assert_eq!(get(&kiln, id).state, state, "{id}");
    }
    let seen: BTreeSet<i64> = seen.lock().iter().copied().collect();
    assert_eq!(seen, BTreeSet::from([3, 4, 6, 7, 9, 10, 11, 12, 14]));
}

#[test]
fn the_backup_is_the_file_as_it_was_and_can_be_gone_back_to() {
    let folder = Folder::new();
    let db = fixture(&folder);
    let before = all(&db);
    let kiln = Kiln::open(&db).unwrap();
    kiln.delete(Filter::new().states(State::ALL)).unwrap();
    drop(kiln);
    folder.closed();
    assert_eq!((version(&backup(&folder)), all(&backup(&folder))), (1, before.clone()));
    let checked: String = stranger(&backup(&folder)).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
    until("the copy is closed", || !folder.path("jobs.db.v1.bak-wal").exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(backup(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    fs::rename(backup(&folder), &db).unwrap();
    let kiln = Kiln::open(&db).unwrap();
    assert_eq!((version(&db), all(&db)), (VERSION, before));
    assert_eq!(kiln.enqueue(NewJob::new("w")).unwrap().id, 18);
}

#[test]
fn a_backup_that_is_there_is_never_written_over() {
    let folder = Folder::new();
    let db = fixture(&folder);
    fs::write(backup(&folder), "precious").unwrap();
    drop(Kiln::open(&db).unwrap());
    folder.closed();
    assert_eq!(fs::read(backup(&folder)).unwrap(), b"precious");
    assert_eq!(folder.names(), ["jobs.db", "jobs.db.v1.2.bak", "jobs.db.v1.bak"]);
    assert_eq!(version(&folder.path("jobs.db.v1.2.bak")), 1);
}

#[test]
fn where_no_backup_can_be_made_the_file_stays_as_it_was() {
    let folder = Folder::new();
    let db = fixture(&folder);
    let before = fs::read(&db).unwrap();
    (1..100).for_each(|n| {
        let name = if n == 1 { "jobs.db.v1.bak".to_owned() } else { format!("jobs.db.v1.{n}.bak") };
        fs::write(folder.path(&name), "").unwrap();
    });
    let error = Kiln::open(&db).unwrap_err().to_string();
    assert!(error.contains("jobs.db") && error.contains("migrate_without_backup"), "{error}");
    folder.closed();
    assert_eq!((version(&db), fs::read(&db).unwrap() == before), (1, true));
    assert_eq!(folder.names().len(), 100, "{:?}", folder.names());

    drop(Kiln::builder(&db).migrate_without_backup().open().unwrap());
    folder.closed();
    assert_eq!((version(&db), folder.names().len()), (VERSION, 100));
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

#[test]
fn a_migration_that_fails_half_way_leaves_the_file_as_it_was() {
    let folder = Folder::new();
    let db = fixture(&folder);
    // The migration adds this column to the entries, after it has added others to the jobs and the queues.
    stranger(&db).execute_batch("ALTER TABLE kiln_crons ADD COLUMN expires_in INTEGER").unwrap();
    let schema = |db: &Path| rows(db, "sqlite_schema", "name, sql");
    let before = (schema(&db), all(&db));
    for _ in 0..2 {
        assert!(Kiln::open(&db).unwrap_err().to_string().contains("duplicate column name: expires_in"));
        assert_eq!((version(&db), (schema(&db), all(&db))), (1, before.clone()));
    }
}

// Several at once.

#[test]
fn of_many_that_open_an_older_file_at_once_one_migrates_it() {
    for _ in 0..10 {
        let folder = Folder::new();
        let db = fixture(&folder);
        let before = all(&db);
        let barrier = Barrier::new(4);
        let migrated = thread::scope(|scope| {
            let open = || {
                let migrated = Arc::new(Mutex::new(0));
                let count = Arc::clone(&migrated);
                let tell = move |event: &Event| *count.lock() += usize::from(matches!(event, Event::Migrated { .. }));
                barrier.wait();
                let kiln = Kiln::builder(&db).observe(tell).open().unwrap();
                assert_eq!(kiln.count(Filter::new()).unwrap().total(), 16);
                *migrated.lock()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!((migrated, version(&db), all(&db)), (1, VERSION, before));
        folder.closed();
        assert_eq!(folder.names(), ["jobs.db", "jobs.db.v1.bak"]);
    }
}

#[test]
fn two_processes_migrate_a_file_once_between_them() {
    const NAME: &str = "two_processes_migrate_a_file_once_between_them";
    if let Some(folder) = other_process_for() {
        say("ready");
        let mut line = String::new();
        while std::io::stdin().read_line(&mut line).unwrap() > 0 {
            let told = Arc::new(Mutex::new(false));
            let tell = Arc::clone(&told);
            let observe = move |event: &Event| *tell.lock() |= matches!(event, Event::Migrated { .. });
            let kiln = Kiln::builder(folder.join(line.trim())).observe(observe).open().unwrap();
            let total = kiln.count(Filter::new()).unwrap().total();
            let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
            say(&format!("{} {} {id}", *told.lock(), total >= 16));
            line.clear();
        }
        return;
    }
    let folder = Folder::new();
    let mut others = [Other::start(NAME, &folder), Other::start(NAME, &folder)];
    others.iter_mut().for_each(|other| assert_eq!(other.hear(), "ready"));
    for round in 0..20 {
        let db = folder.path(&format!("{round}.db"));
        fs::rename(fixture(&folder), &db).unwrap();
        others.iter_mut().for_each(|other| other.tell(&format!("{round}.db")));
        let mut said: Vec<String> = others.iter_mut().map(Other::hear).collect();
        said.sort_unstable();
        let ids: BTreeSet<&str> = said.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(ids, BTreeSet::from(["18", "19"]), "{said:?}");
        assert!(said[0].starts_with("false true") && said[1].starts_with("true true"), "{said:?}");
        assert_eq!(version(&db), VERSION);
        assert!(folder.path(&format!("{round}.db.v1.bak")).exists());
        assert!(!folder.path(&format!("{round}.db.v1.2.bak")).exists());
    }
}

#[test]
fn a_process_that_is_killed_while_it_migrates_leaves_an_older_file() {
    const NAME: &str = "a_process_that_is_killed_while_it_migrates_leaves_an_older_file";
    if let Some(folder) = other_process_for() {
        say("ready");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        let _kiln = Kiln::open(folder.join("jobs.db")).unwrap();
        let _ = std::io::stdin().read_line(&mut line);
        return;
    }
    let folder = Folder::new();
    // Large enough to be in the midst of it.
    let fill = "INSERT INTO kiln_jobs (worker, state, args)
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                SELECT 'w', 'suspended', json_object('n', i, 'x', hex(zeroblob(200))) FROM n";
    stranger(&fixture(&folder)).execute_batch(fill).unwrap();
    let before = all(&folder.db());
    let mut other = Other::start(NAME, &folder);
    assert_eq!(other.hear(), "ready");
    other.tell("go");
    let unfinished = || folder.names().into_iter().find(|name| name.ends_with(".unfinished"));
    until("the backup is being made", || unfinished().is_some() || folder.path("jobs.db.v1.bak").exists());
    other.kill();
    // Whether it was still at the backup, at the migration, or done: the jobs are there, and the file is one of the two.
    let found = (version(&folder.db()), all(&folder.db()));
    assert!([1, VERSION].contains(&found.0));
    assert_eq!(found.1, before);
    let kiln = folder.open();
    assert_eq!((version(&folder.db()), kiln.count(Filter::new()).unwrap().total()), (VERSION, 20_016));
    assert_eq!(version(&backup(&folder)), 1);
}

// An older kiln on a newer file.

/// It asks `min_writer` as it opens a file, and its error names the version and what to do.
#[test]
fn an_older_kiln_may_read_what_this_one_writes_and_not_write_it() {
    let folder = Folder::new();
    drop(Kiln::open(fixture(&folder)).unwrap());
    drop(Kiln::open(folder.path("new.db")).unwrap());
    for db in [folder.db(), folder.path("new.db")] {
        assert_eq!(rows(&db, "kiln_schema", "min_reader, min_writer"), [[Sql::Integer(1), Sql::Integer(2)]]);
    }
}

/// The older kiln's keys say less than this one's: its unique jobs are looked for by both.
#[test]
fn the_unique_jobs_of_an_older_kiln_are_doubles_of_this_one_s() {
    let folder = Folder::new();
    let kiln = Kiln::open(fixture(&folder)).unwrap();
    let unique = |n: i64| {
        NewJob::new("app.Mailer").queue("todo").args(json!({ "n": n })).unique(Unique::new().within(Duration::MAX))
    };
    let there = kiln.enqueue(unique(12)).unwrap();
    assert_eq!((there.id, there.conflict), (12, true));
    let mut app = rusqlite::Connection::open(folder.db()).unwrap();
    let tx = app.transaction().unwrap();
    assert_eq!(kiln.enqueue_in(&tx, unique(12)).unwrap().id, 12);
    tx.commit().unwrap();
    let many: Vec<(i64, bool)> = kiln
        .enqueue_many([unique(12), unique(13), unique(13)])
        .unwrap()
        .iter()
        .map(|job| (job.id, job.conflict))
        .collect();
    assert_eq!(many, [(12, true), (18, false), (18, true)]);

    // Once the last of them is gone, and the file opened anew, nothing looks for its like.
    kiln.delete(12).unwrap();
    drop(kiln);
    let kiln = folder.open();
    assert!(kiln.enqueue(unique(13)).unwrap().conflict);
    assert!(!kiln.enqueue(unique(12)).unwrap().conflict);
}

/// One that had the file open when it was migrated goes on: these are its statements in the order of a job's life, as it
/// ran them. Only its unique jobs, of which this kiln would see no doubles, are refused.
#[test]
fn an_older_kiln_that_has_the_file_open_goes_on_but_for_unique_jobs() {
    let folder = Folder::new();
    let kiln = Kiln::open(fixture(&folder)).unwrap();
    let conn = stranger(&folder.db());
    let run = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| conn.prepare(sql).unwrap().execute(parameters).unwrap();
    let many = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
        let mut select = conn.prepare(sql).unwrap();
        let rows = select.query_map(parameters, |row| row.get::<_, Sql>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    let enqueue = |sql: &str| {
        let none: Option<i64> = None;
        let key: Option<String> = None;
        run(sql, &[&"available", &"old", &"v1", &"{}", &"{}", &"[]", &3, &0, &5, &5, &none, &key]);
        conn.last_insert_rowid()
    };
    let (a, b, c) = (enqueue(v1::ENQUEUE_FIRST), enqueue(v1::ENQUEUE_NEXT), enqueue(v1::ENQUEUE_NEXT));
    assert_eq!((a, b, c), (18, 19, 20));
    assert_eq!(many(v1::NEWEST, &[]), [Sql::Integer(c)]);
    let claimed = many(&v1::claim(2), &[&"old", &2, &"v1", &"other"]);
    assert_eq!(claimed, [Sql::Integer(a), Sql::Integer(b)]);
    for id in [a, b] {
        assert_eq!(run(v1::CLAIM_ONE, &[&id, &1, &7, &r#"["here","me"]"#]), 1);
    }
    assert!(many(v1::EXECUTING, &[]).contains(&Sql::Integer(a)));
    assert_eq!(run(v1::NOTE_PROGRESS, &[&a, &1, &7, &r#"{"done":1,"total":2,"note":""}"#]), 1);
    assert_eq!(run(v1::NOTE_CHECKPOINT, &[&a, &1, &7, &r#"{"value":1}"#]), 1);
    assert_eq!(many(v1::NOTES, &[&a]).len(), 1);
    assert_eq!(run(v1::ACK_COMPLETE, &[&a, &1, &7, &9]), 1);
    assert_eq!(many(v1::ACK_STANDING, &[&b, &1, &7]).len(), 1);
    let (none, errors) = (Sql::Null, r#"[{"at":"2026-01-01T00:00:00Z","attempt":1,"error":"e"}]"#);
    assert_eq!(run(v1::ACK_SETTLE, &[&b, &"retryable", &1, &10, &none, &errors, &9]), 1);
    assert_eq!(many(v1::NEXT_DUE, &[&"old"]), [Sql::Integer(10)]);
    assert_eq!(run(v1::STAGE, &[&"old", &11, &5]), 1);
    assert_eq!(run(v1::CANCEL, &[&c, &12, &"{}"]), 1);
    assert_eq!(run(v1::RETRY, &[&c, &13]), 1);
    run(v1::UPDATE, &[&c, &r#"{"n":1}"#, &4, &"{}", &2, &"old", &13, &"available", &"[]", &"v1"]);
    assert_eq!((many(v1::GET, &[&c]).len(), many(v1::STATE, &[&c]).len(), many(v1::STANDING, &[&c]).len()), (1, 1, 1));
    let id = "0123456789abcdef0123456789abcdef";
    assert_eq!(run(v1::JOIN, &[&id, &"here", &1, &none, &r#"["old"]"#, &r#"["v1"]"#, &1, &"[]"]), 1);
    assert_eq!(run(v1::ANNOUNCE, &[&id, &r#"["old"]"#, &"[]"]), 1);
    assert_eq!(many(v1::MEMBERS, &[]).len(), 2);
    assert_eq!(run(v1::LEAVE, &[&id]), 1);
    run(v1::SAY_PAUSED, &[&"old", &true]);
    run(v1::SAY_LIMIT, &[&"old", &2, &1]);
    assert!(many(v1::RULINGS, &[]).len() >= 3);
    run(v1::UNSAY_PAUSES, &[]);
    run(v1::UNSAY_LIMITS, &[]);
    let entry: [&dyn rusqlite::ToSql; 17] =
        [&"mine", &"@daily", &"UTC", &"v1", &"old", &"{}", &"{}", &"[]", &3, &0, &"skip", &none, &none, &0, &1, &1, &1];
    assert_eq!(run(v1::STORE_CRON, &entry), 1);
    assert_eq!((many(v1::CRONS, &[]).len(), many(v1::CRON, &[&"mine"]).len()), (3, 1));
    assert_eq!(run(v1::SETTLE_SLOT, &[&"mine", &1, &99]), 1);
    assert_eq!(run(v1::DELETE_CRON, &[&"mine"]), 1);
    assert_eq!(run(v1::PRUNE_COMPLETED, &[&10, &5]), 1);
    run(v1::REMEMBER_NEWEST, &[&c]);
    assert_eq!(run(v1::DELETE, &[&c]), 1);
    // All that is left to be run is right for this file at least.
    for sql in [
        v1::ERRORS,
        v1::EXPIRE,
        v1::CANCELLING,
        v1::EXHAUSTED,
        v1::DISCARD_EXHAUSTED,
        v1::PRUNE_CANCELLED,
        v1::PRUNE_DISCARDED,
        v1::CANCEL_EXECUTING,
    ] {
        conn.prepare(sql).unwrap();
    }
    let refused = conn.prepare(v1::DOUBLE).unwrap_err().to_string();
    assert!(refused.contains("no such index: kiln_jobs_unique"), "{refused}");

    // And this kiln goes on with what that left.
    kiln.delete_cron("digest").unwrap();
    let runtime = kiln.runtime().queue("old", 1).worker_fn("v1", |_: &Running<Value>| ()).start().unwrap();
    let job = reaches(&kiln, b, State::Completed);
    assert_eq!((job.attempt, job.errors.len()), (2, 1));
    assert_eq!(kiln.enqueue(NewJob::new("w")).unwrap().id, c + 1);
    runtime.stop();
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

#[test]
fn an_older_file_is_not_migrated_to_be_read() {
    let folder = Folder::new();
    let db = fixture(&folder);
    let before = fs::read(&db).unwrap();
    let error = Kiln::builder(&db).read_only().open().unwrap_err();
    assert!(error.is_incompatible() && error.to_string().contains("open it once to write"), "{error}");
    assert!(fs::read(&db).unwrap() == before);
    assert_eq!(folder.names(), ["jobs.db"]);
}

#[test]
fn an_older_file_that_cannot_be_written_says_so() {
    let folder = Folder::new();
    let db = fixture(&folder);
    let conn = stranger(&db);
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = Kiln::builder(&db).patience(ms(50)).open().unwrap_err();
    assert!(error.is_busy(), "{error}");
    drop(conn);
    assert_eq!(count(&Kiln::open(&db).unwrap(), State::Suspended), 1);
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

#[test]
fn a_kiln_that_runs_stops_writing_when_a_newer_one_takes_the_file_over() {
    const NAME: &str = "a_kiln_that_runs_stops_writing_when_a_newer_one_takes_the_file_over";
    if let Some(folder) = other_process_for() {
        let mut line = String::new();
        while std::io::stdin().read_line(&mut line).unwrap() > 0 {
            let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
            let mut next = || numbers.next().unwrap();
            take_over(&folder.join("jobs.db"), next(), next(), next());
            say("done");
            line.clear();
        }
        return;
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
    let (gate, meter) = (Gate::default(), Meter::default());
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

    let mut other = Other::start(NAME, &folder);
    other.tell(&format!("100 1 {}", VERSION + 1));
    assert_eq!(other.hear(), "done");
    let stored =
        || (["kiln_jobs", "kiln_crons", "kiln_queues", "kiln_runtimes"]).map(|table| rows(&folder.db(), table, "*"));
    let taken = stored();
    // Idle as it is, it is told of it; nobody has to write first.
    until("it is told", || told.lock().len() == 1);
    let reason = told.lock()[0].clone();
    for word in ["degraded", "took it over", "kiln 9.9.9", "end this program", &folder.db().display().to_string()] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    let refused = |result: kiln::Result<()>| {
        let error = result.unwrap_err();
        assert!(error.is_incompatible() && error.to_string().contains("nothing was written"), "{error}");
    };
    let jobs = || (0..3).map(|_| NewJob::new("w"));
    refused(kiln.enqueue(NewJob::new("w")).map(drop));
    refused(kiln.enqueue_many(jobs()).map(drop));
    refused(kiln.cancel(ids[2]).map(drop));
    refused(kiln.delete(Filter::new().states(State::ALL)).map(drop));
    refused(kiln.update(ids[2], kiln::Changes::new().priority(1)).map(drop));
    let mut own = stranger(&folder.db());
    refused(kiln.enqueue_in(&own.transaction().unwrap(), NewJob::new("w")).map(drop));
    refused(kiln.runtime().queue("late", 1).start().map(drop));
    gate.open();
    until("their ends are held", || pulse(&kiln, &runtime).unwritten == 2);
    assert!(!pulse(&kiln, &runtime).claiming);
    // It may be read by this kiln, and is.
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
    for id in [ids[0], ids[1], ids[2]] {
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
