//! The machinery for later versions of the schema, tested with versions that are made up here.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::open::{prepare, writer, writer_of};
use super::schema::{Migration, Permission, SCHEMA, Schema, Use};
use super::{Options, version};
use crate::error::{Kind, Result};

const NOVELTY: &str = "
CREATE TABLE kiln_novelties (id INTEGER PRIMARY KEY);
ALTER TABLE kiln_jobs ADD COLUMN novelty TEXT NOT NULL DEFAULT 'new';";

/// The next version: older kilns may read its files, and not write them.
static NEXT: Schema = Schema { migrations: &[SCHEMA.migrations[0], NOVELTY], min_reader: 1, min_writer: 2 };

/// A version whose files no older kiln may read.
static STRANGE: Schema = Schema { migrations: &[SCHEMA.migrations[0], NOVELTY], min_reader: 2, min_writer: 2 };

/// A version whose files any kiln may write.
static GENTLE: Schema = Schema { migrations: &[SCHEMA.migrations[0], NOVELTY], min_reader: 1, min_writer: 1 };

/// A migration that fails after its first statements.
static BROKEN: Schema = Schema {
    migrations: &[
        SCHEMA.migrations[0],
        "CREATE TABLE kiln_novelties (id INTEGER PRIMARY KEY);
         UPDATE kiln_jobs SET args = 'lost'; DROP TABLE kiln_crons;
         ALTER TABLE kiln_queues ADD COLUMN paused INTEGER;",
    ],
    min_reader: 1,
    min_writer: 2,
};

/// A migration that is in its midst for minutes.
static ENDLESS: Schema = Schema {
    migrations: &[
        SCHEMA.migrations[0],
        "UPDATE kiln_jobs SET args = 'lost'; DROP TABLE kiln_crons;
         CREATE TABLE kiln_novelties AS
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000000) SELECT max(i) FROM n;",
    ],
    min_reader: 1,
    min_writer: 2,
};

fn open(db: &Path, schema: &'static Schema) -> Result<(Connection, Option<Migration>)> {
    writer_of(db, &Options::default(), schema)
}

/// A file of version 1 with something in every table, and a table of an application's.
fn older(folder: &tempfile::TempDir) -> PathBuf {
    let db = prepare(&folder.path().join("jobs.db"), &Options::default()).unwrap();
    let (conn, migration) = writer(&db, &Options::default()).unwrap();
    assert_eq!(migration, None, "a new file is none of an older kiln's");
    conn.execute_batch(
        r#"INSERT INTO kiln_jobs (worker, state) VALUES
           ('w', 'available'), ('w', 'scheduled'), ('w', 'executing'), ('w', 'retryable'), ('w', 'completed'),
           ('w', 'cancelled'), ('w', 'discarded'), ('w', 'suspended'), ('w', 'of another program');
           UPDATE kiln_jobs SET args = '{"text":"Grüße, 世界"}', progress = '{}', checkpoint = '{}' WHERE id % 2 = 0;
           DELETE FROM kiln_jobs WHERE id = 9;
           UPDATE kiln_schema SET last_id = 9;
           INSERT INTO kiln_crons (name, expression, worker) VALUES ('digest', '@daily', 'w');
           INSERT INTO kiln_queues (queue, paused) VALUES ('q', 1);
           INSERT INTO kiln_runtimes (id, node, pid, queues, workers, started_at) VALUES ('r', 'n', 1, '[]', '[]', 1);
           CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);
           INSERT INTO notes (text) VALUES ('mine');"#,
    )
    .unwrap();
    conn.close().unwrap();
    db
}

fn stranger(db: &Path) -> Connection {
    let conn = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    conn
}

fn version_of(db: &Path) -> i64 {
    version(&stranger(db)).unwrap().unwrap().0
}

/// All rows of all tables in the columns of version 1.
fn content(db: &Path) -> Vec<(String, Vec<Vec<Value>>)> {
    let conn = stranger(db);
    let mut tables = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let ours = tables.into_iter().filter(|name| !["kiln_novelties", "kiln_schema"].contains(&name.as_str()));
    let rows = |table: &str| {
        let mut select = conn.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
        let novel = select.column_names().iter().filter(|name| **name == "novelty").count();
        let width = select.column_count() - novel;
        let rows = select.query_map([], |row| (0..width).map(|n| row.get(n)).collect()).unwrap();
        rows.map(Result::unwrap).collect()
    };
    ours.map(|table| (table.clone(), rows(&table))).collect()
}

fn last_id(db: &Path) -> i64 {
    stranger(db).query_row("SELECT last_id FROM kiln_schema", [], |row| row.get(0)).unwrap()
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_older_file_is_migrated_once_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let before = content(&db);
    assert_eq!(before.iter().map(|(_, rows)| rows.len()).collect::<Vec<_>>(), [1, 8, 1, 1, 1], "{before:?}");
    let backup = db.with_file_name("jobs.db.v1.bak");

    let (conn, migration) = open(&db, &NEXT).unwrap();
    assert_eq!(migration, Some(Migration { from: 1, to: 2, backup: Some(backup) }));
    let novelty: String = conn.query_row("SELECT DISTINCT novelty FROM kiln_jobs", [], |row| row.get(0)).unwrap();
    drop(conn);
    assert_eq!((novelty.as_str(), version_of(&db), last_id(&db)), ("new", 2, 9));
    assert_eq!(content(&db), before);
    let says = stranger(&db).query_row("SELECT min_reader, min_writer, written_by FROM kiln_schema", [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    assert_eq!(says.unwrap(), (1, 2, concat!("kiln ", env!("CARGO_PKG_VERSION")).to_owned()));

    assert_eq!(open(&db, &NEXT).unwrap().1, None);
    assert_eq!(names(&folder), ["jobs.db", "jobs.db.v1.bak"]);
}

#[test]
fn a_new_file_gets_the_newest_version_at_once_and_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let db = prepare(&folder.path().join("jobs.db"), &Options::default()).unwrap();
    assert_eq!(open(&db, &NEXT).unwrap().1, None);
    assert_eq!((version_of(&db), names(&folder)), (2, vec!["jobs.db".to_owned()]));
}

#[test]
fn the_backup_is_the_file_as_it_was_and_can_be_gone_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let before = content(&db);
    let (conn, migration) = open(&db, &NEXT).unwrap();
    conn.execute_batch("DELETE FROM kiln_jobs; DROP TABLE notes").unwrap();
    conn.close().unwrap();
    let backup = migration.unwrap().backup.unwrap();
    assert_eq!((version_of(&backup), content(&backup), last_id(&backup)), (1, before.clone(), 9));
    let checked: String = stranger(&backup).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::rename(&backup, &db).unwrap();
    assert_eq!(writer(&db, &Options::default()).unwrap().1, None);
    assert_eq!((version_of(&db), content(&db)), (1, before));
}

#[test]
fn a_backup_that_is_there_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let taken = folder.path().join("jobs.db.v1.bak");
    fs::write(&taken, "precious").unwrap();
    let backup = open(&db, &NEXT).unwrap().1.unwrap().backup.unwrap();
    assert_eq!(fs::read(&taken).unwrap(), b"precious");
    assert_eq!(backup, db.with_file_name("jobs.db.v1.2.bak"));
    assert_eq!(version_of(&backup), 1);
}

#[test]
fn if_no_backup_can_be_made_the_file_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let before = fs::read(&db).unwrap();
    for n in 1..100 {
        let name = if n == 1 { "jobs.db.v1.bak".to_owned() } else { format!("jobs.db.v1.{n}.bak") };
        fs::write(folder.path().join(name), "").unwrap();
    }
    let error = open(&db, &NEXT).unwrap_err().to_string();
    assert!(error.contains("jobs.db") && error.contains("migrate_without_backup"), "{error}");
    assert_eq!((version_of(&db), fs::read(&db).unwrap() == before), (1, true));
    assert_eq!(names(&folder).len(), 100, "{:?}", names(&folder));

    let unbacked = Options { unbacked_migration: true, ..Options::default() };
    let (conn, migration) = writer_of(&db, &unbacked, &NEXT).unwrap();
    conn.close().unwrap();
    assert_eq!(migration, Some(Migration { from: 1, to: 2, backup: None }));
    assert_eq!((version_of(&db), names(&folder).len()), (2, 100));
}

#[test]
fn a_migration_that_fails_half_way_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let tables = |db: &Path| {
        let conn = stranger(db);
        let mut select = conn.prepare("SELECT name, sql FROM sqlite_schema ORDER BY 1").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect::<Vec<(String, Option<String>)>>()
    };
    let before = (tables(&db), content(&db));
    for _ in 0..2 {
        let error = open(&db, &BROKEN).unwrap_err().to_string();
        assert!(error.contains("duplicate column name: paused"), "{error}");
        assert_eq!((version_of(&db), (tables(&db), content(&db))), (1, before.clone()));
    }
    // The older kiln goes on with it, and so does a newer one that is not broken.
    assert_eq!(writer(&db, &Options::default()).unwrap().1, None);
    assert!(open(&db, &NEXT).unwrap().1.is_some());
}

#[test]
fn an_older_file_that_another_connection_writes_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let conn = stranger(&db);
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let hasty = Options { patience: Duration::from_millis(50), ..Options::default() };
    let error = writer_of(&db, &hasty, &NEXT).unwrap_err();
    assert!(error.is_busy() && error.to_string().contains("jobs.db"), "{error}");
    drop(conn);
    assert!(writer_of(&db, &hasty, &NEXT).unwrap().1.is_some());
}

#[test]
fn of_many_threads_that_open_an_older_file_at_once_one_migrates_it() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let db = older(&folder);
        let before = content(&db);
        let barrier = Barrier::new(4);
        let migrated = thread::scope(|scope| {
            let open = || {
                barrier.wait();
                let (conn, migration) = open(&db, &NEXT).unwrap();
                assert_eq!(version(&conn).unwrap().unwrap().0, 2);
                usize::from(migration.is_some())
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!((migrated, version_of(&db), content(&db)), (1, 2, before));
        assert_eq!(names(&folder), ["jobs.db", "jobs.db.v1.bak"]);
    }
}

// Other processes: this test binary, started again to run one test with the folder in a variable.

const FOLDER: &str = "KILN_FILE_TEST_FOLDER";

/// Begins the lines that the other process says, among those of the test harness.
const MARK: &str = "\u{1}";

struct Other {
    process: Child,
    orders: ChildStdin,
    said: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    fn start(test: &str, folder: &tempfile::TempDir) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("file::tests::{test}"), "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut other = Self { process, orders, said };
        assert_eq!(other.hear(), "ready");
        other
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn hear(&mut self) -> String {
        let marked = |line: std::io::Result<String>| Some(line.unwrap().split_once(MARK)?.1.to_owned());
        self.said.by_ref().find_map(marked).unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The life of the other process: migrates the files that it is told, with this schema, and says whether it did.
fn migrate_what_is_told(folder: &Path, schema: &'static Schema) {
    println!("{MARK}ready");
    for name in std::io::stdin().lines() {
        let (_conn, migration) = open(&folder.join(name.unwrap()), schema).unwrap();
        println!("{MARK}{}", migration.is_some());
    }
}

#[test]
fn two_processes_migrate_a_file_once_between_them() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return migrate_what_is_told(Path::new(&folder), &NEXT);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut others = [(); 2].map(|()| Other::start("two_processes_migrate_a_file_once_between_them", &folder));
    for round in 0..20 {
        let name = format!("{round}.db");
        let db = folder.path().join(&name);
        fs::rename(older(&folder), &db).unwrap();
        let before = content(&db);
        others.iter_mut().for_each(|other| other.tell(&name));
        let mut migrated = others.each_mut().map(Other::hear);
        migrated.sort_unstable();
        assert_eq!(migrated, ["false", "true"]);
        assert_eq!((version_of(&db), content(&db)), (2, before));
        assert!(folder.path().join(format!("{name}.v1.bak")).exists());
        assert!(!folder.path().join(format!("{name}.v1.2.bak")).exists());
    }
}

#[test]
fn a_process_that_is_killed_while_it_migrates_leaves_an_older_file() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return migrate_what_is_told(Path::new(&folder), &ENDLESS);
    }
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let before = content(&db);
    let mut other = Other::start("a_process_that_is_killed_while_it_migrates_leaves_an_older_file", &folder);
    other.tell("jobs.db");
    let backup = db.with_file_name("jobs.db.v1.bak");
    let until = Instant::now() + Duration::from_secs(30);
    while !backup.exists() {
        assert!(Instant::now() < until, "the other process makes the backup");
        thread::sleep(Duration::from_millis(2));
    }
    // It has got its name, so the migration has begun, and is far from its end.
    thread::sleep(Duration::from_millis(20));
    drop(other);
    assert_eq!((version_of(&db), content(&db)), (1, before.clone()));
    assert_eq!((version_of(&backup), content(&backup)), (1, before.clone()));
    // The next process migrates it all the same.
    assert!(open(&db, &NEXT).unwrap().1.is_some());
    assert_eq!((version_of(&db), content(&db)), (2, before));
}

// An older kiln on a newer file.

#[test]
fn an_older_kiln_refuses_to_write_what_a_newer_one_wrote_and_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    open(&db, &NEXT).unwrap().0.close().unwrap();
    let before = fs::read(&db).unwrap();
    let error = writer(&db, &Options::default()).unwrap_err();
    for word in ["jobs.db", "schema version 2", "it was not touched", "KilnBuilder::read_only"] {
        assert!(error.is_incompatible() && error.to_string().contains(word), "{word}: {error}");
    }
    assert!(fs::read(&db).unwrap() == before);
    SCHEMA.check(&stranger(&db), &db, Use::Read).unwrap();
}

#[test]
fn an_older_kiln_may_neither_read_nor_write_a_file_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    open(&db, &STRANGE).unwrap();
    let conn = stranger(&db);
    let refused = [Use::Write, Use::Read].map(|to| SCHEMA.check(&conn, &db, to));
    for error in refused.map(Result::unwrap_err) {
        let advice = error.to_string();
        assert!(error.is_incompatible() && advice.ends_with("use the newer one"), "{advice}");
    }
}

#[test]
fn an_older_kiln_writes_a_newer_file_that_allows_it_and_does_not_migrate_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    open(&db, &GENTLE).unwrap();
    let (conn, migration) = writer(&db, &Options::default()).unwrap();
    assert_eq!((migration, version(&conn).unwrap().unwrap().0), (None, 2));
    Permission::to_write().check_now(&conn).unwrap();
}

#[test]
fn a_newer_kiln_does_not_migrate_an_older_file_to_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let error = NEXT.check(&stranger(&db), &db, Use::Read).unwrap_err();
    assert!(error.is_incompatible() && error.to_string().contains("open it once to write"), "{error}");
    assert_eq!((version_of(&db), names(&folder)), (1, vec!["jobs.db".to_owned()]));
}

#[test]
fn a_permission_ends_when_a_newer_kiln_migrates_the_open_file() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let (conn, _) = writer(&db, &Options::default()).unwrap();
    let (to_read, to_write) = (Permission::to_read(), Permission::to_write());
    let of_next = Permission::of(&NEXT, Use::Write);
    for permission in [&to_read, &to_write, &of_next] {
        permission.check(&conn).unwrap();
    }
    let others = open(&db, &NEXT).unwrap();
    // The application's transaction is asked on its own connection.
    let app = stranger(&db);
    let error = Permission::check_within(&app.unchecked_transaction().unwrap()).unwrap_err();
    assert!(error.is_incompatible(), "{error}");
    let error = to_write.check_now(&conn).unwrap_err();
    for word in ["nothing was written", "took it over", "schema version 2", "end this program"] {
        assert!(error.is_incompatible() && error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(to_write.check(&conn).unwrap_err().kind(), Kind::Incompatible, "once refused, it stays refused");
    for permission in [&to_read, &of_next] {
        permission.check_now(&conn).unwrap();
    }
    drop(others);
    // A backup is put back, or the versions are: the permission is there again.
    app.execute_batch("UPDATE kiln_schema SET version = 1, min_writer = 1").unwrap();
    to_write.check(&conn).unwrap();
    Permission::check_within(&app.unchecked_transaction().unwrap()).unwrap();
}

#[test]
fn a_permission_reads_whatever_another_program_has_made_of_the_versions() {
    let folder = tempfile::tempdir().unwrap();
    let db = older(&folder);
    let conn = stranger(&db);
    conn.execute_batch("UPDATE kiln_schema SET version = '1', min_reader = 1.0, min_writer = 'x', written_by = x'ff'")
        .unwrap();
    Permission::to_write().check_now(&conn).unwrap();
    assert_eq!(version(&conn).unwrap(), Some((1, "\u{fffd}".to_owned())));
    conn.execute_batch("DELETE FROM kiln_schema").unwrap();
    Permission::to_write().check_now(&conn).unwrap();
}
