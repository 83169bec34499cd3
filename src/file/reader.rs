//! Reading a file beside the connection that writes it, and reading a file that this process never writes.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;

use super::connection::{self, WRITING, set_up_to_read};
use super::filesystem::beside;
use super::open::prepare;
use super::options::Options;
use super::schema::{Permission, SCHEMA, Use};
use crate::error::{Error, Kind, Result};

/// How a database is read.
pub(crate) struct Reader {
    permission: Permission,
    from: From,
}

enum From {
    /// A database in memory has one connection only.
    WriteConnection,
    Pool(Pool),
    ReadOnly(ReadOnly),
}

impl Reader {
    /// For a database in memory.
    pub fn in_memory() -> Self {
        Self::new(From::WriteConnection)
    }

    /// For a file that this process writes. Connections are opened when they are needed first.
    pub fn pooled(file: PathBuf, patience: Duration) -> Self {
        Self::new(From::Pool(Pool { file, patience, pool: OnceLock::new() }))
    }

    /// For a file that this process never writes. Nothing is left beside the file. Returns the real path, too.
    pub fn read_only(path: &Path, options: &Options) -> Result<(Self, PathBuf)> {
        let file = prepare(path, options)?;
        let from = ReadOnly { file: file.clone(), patience: options.patience };
        from.read(|conn| SCHEMA.check(conn, path, Use::Read))?;
        Ok((Self::new(From::ReadOnly(from)), file))
    }

    fn new(from: From) -> Self {
        Self { permission: Permission::to_read(), from }
    }

    /// Calls `query`, which may run more than once, with a connection to read with.
    ///
    /// `None` if there is no such connection. Then the caller reads [on the connection that writes](Self::read_on). This is
    /// so for a database in memory, and if the system does not give the thread that opens the others.
    pub fn read<T>(&self, query: impl Fn(&Connection) -> Result<T>) -> Option<Result<T>> {
        match &self.from {
            From::WriteConnection => None,
            From::Pool(pool) => {
                let conn = pool.get()?;
                Some(conn.and_then(|conn| self.read_on(&conn, query)))
            }
            // The permission is asked of each state of the file that is read: there may be no lock.
            From::ReadOnly(file) => {
                Some(file.read(|conn| Permission::to_read().check(conn).and_then(|()| query(conn))))
            }
        }
    }

    /// Calls `query` with this connection, if the file may be read still.
    pub fn read_on<T>(&self, conn: &Connection, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.permission.check(conn)?;
        query(conn)
    }
}

/// The connections that read a file which this process writes. Each is opened when it is needed first.
struct Pool {
    file: PathBuf,
    patience: Duration,
    pool: OnceLock<r2d2::Pool<SqliteConnectionManager>>,
}

impl Pool {
    fn get(&self) -> Option<Result<r2d2::PooledConnection<SqliteConnectionManager>>> {
        let pool = match self.pool.get() {
            Some(pool) => pool,
            None => {
                let thread = opener()?;
                self.pool.get_or_init(|| self.build(thread))
            }
        };
        let lost = |error| Error::new(Kind::Storage, "no connection to read with").because(error);
        Some(pool.get().map_err(lost))
    }

    fn build(&self, thread: Arc<ScheduledThreadPool>) -> r2d2::Pool<SqliteConnectionManager> {
        let patience = self.patience;
        let manager = SqliteConnectionManager::file(&self.file)
            .with_flags(WRITING)
            .with_init(move |conn| set_up_to_read(conn, patience));
        r2d2::Pool::builder()
            .max_size(4)
            .min_idle(Some(0))
            .thread_pool(thread)
            .test_on_check_out(false)
            // Without these two, the thread would wake up twice a minute for nothing.
            .idle_timeout(None)
            .max_lifetime(None)
            // To open a connection may take longer than a caller wants to wait for a lock.
            .connection_timeout(patience.max(Duration::from_secs(5)))
            .build_unchecked(manager)
    }
}

/// The thread that opens connections for all pools of the process. `None` if the system does not give it now; the next call
/// tries again.
fn opener() -> Option<Arc<ScheduledThreadPool>> {
    static OPENER: Mutex<Option<Arc<ScheduledThreadPool>>> = Mutex::new(None);
    let mut opener = OPENER.lock();
    if opener.is_none() {
        // The pool panics if it cannot have its thread. So this asks for another thread first, and the panic is left to the
        // case that the system gave one, and then no more.
        thread::Builder::new().spawn(|| {}).ok()?.join().ok()?;
        let build = || ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("kiln-reads").build();
        *opener = catch_unwind(build).ok().map(Arc::new);
    }
    opener.clone()
}

/// A file that this process never writes.
struct ReadOnly {
    file: PathBuf,
    patience: Duration,
}

/// File systems tell the time of a change in steps. A file that changed within the last step may change again without
/// showing it.
const STEP: Duration = Duration::from_millis(100);

/// How often a file is read without a trace, before it is read with locks.
const TRIES: u32 = 5;

impl ReadOnly {
    /// Reads with locks if another process has the file open. Otherwise SQLite would make side files for the locks, and
    /// leave them there. So then the file is read without locks, and once more if it was written meanwhile.
    fn read<T>(&self, query: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        for _ in 0..TRIES {
            let before = Stamp::of(&self.file)?;
            if before.in_use {
                break;
            }
            if before.is_fresh() {
                thread::sleep(STEP);
                continue;
            }
            let result = connection::immutable(&self.file).and_then(|conn| query(&conn));
            if Stamp::of(&self.file)? == before {
                return result;
            }
        }
        query(&connection::read_only(&self.file, self.patience)?)
    }
}

/// What shows that a file was written.
#[derive(PartialEq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Another process has the file open, or left something to recover.
    in_use: bool,
}

impl Stamp {
    fn of(file: &Path) -> Result<Self> {
        let beside = |end: &str| fs::metadata(beside(file, end)).ok();
        let found = fs::metadata(file)
            .map_err(|error| Error::new(Kind::Unusable, format!("{} is gone", file.display())).because(error))?;
        let log = beside("-wal").is_some_and(|log| log.len() > 0 || beside("-shm").is_some());
        let in_use = log || beside("-journal").is_some();
        Ok(Self { bytes: found.len(), modified: found.modified().ok(), in_use })
    }

    fn is_fresh(&self) -> bool {
        self.modified.is_none_or(|modified| modified.elapsed().is_ok_and(|age| age < STEP))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::file::{failed, open};

    fn file(folder: &tempfile::TempDir, name: &str) -> (PathBuf, Connection) {
        let file = prepare(&folder.path().join(name), &Options::default()).unwrap();
        let (conn, _) = open::writer(&file, &Options::default()).unwrap();
        conn.execute_batch("INSERT INTO kiln_jobs (worker) VALUES ('w')").unwrap();
        (file, conn)
    }

    fn stored(conn: &Connection) -> Result<i64> {
        conn.query_row("SELECT count(*) FROM kiln_jobs", [], |row| row.get(0)).map_err(failed)
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let names = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_database_in_memory_is_read_on_the_connection_that_writes() {
        let reader = Reader::in_memory();
        assert!(reader.read(stored).is_none());
        let conn = open::in_memory(&Options::default()).unwrap();
        assert_eq!(reader.read_on(&conn, stored).unwrap(), 0);
    }

    #[test]
    fn a_pool_opens_connections_at_the_first_read_and_they_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let (file, writer) = file(&folder, "jobs.db");
        let reader = Reader::pooled(file, Duration::from_secs(1));
        let From::Pool(pool) = &reader.from else { unreachable!() };
        assert!(pool.pool.get().is_none());
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(reader.read(stored).unwrap().unwrap(), 1, "a writer keeps no reader waiting");
        writer.execute_batch("COMMIT").unwrap();
        let delete = |conn: &Connection| conn.execute_batch("DELETE FROM kiln_jobs").map_err(failed);
        assert!(reader.read(delete).unwrap().is_err());
        let at_once = |_: &Connection| Ok(reader.read(stored).unwrap()? + reader.read(stored).unwrap()?);
        assert_eq!(reader.read(at_once).unwrap().unwrap(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn all_pools_of_the_process_share_one_thread() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.db", "b.db", "c.db"] {
            let (file, _conn) = file(&folder, name);
            let reader = Reader::pooled(file, Duration::from_secs(1));
            assert_eq!(reader.read(stored).unwrap().unwrap(), 1);
        }
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let names = threads.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        assert_eq!(names.filter(|name| name.trim_end() == "kiln-reads").count(), 1);
    }

    #[test]
    fn a_file_that_is_only_read_is_read_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (file, conn) = file(&folder, "jobs.db");
        conn.close().unwrap();
        let options = Options { read_only: true, ..Options::default() };
        let (reader, real) = Reader::read_only(&file, &options).unwrap();
        assert_eq!((reader.read(stored).unwrap().unwrap(), real), (1, file.clone()));
        assert_eq!(names(&folder), ["jobs.db"]);
        // Another process opens it, and writes.
        let (conn, _) = open::writer(&file, &Options::default()).unwrap();
        conn.execute_batch("INSERT INTO kiln_jobs (worker) VALUES ('w')").unwrap();
        assert_eq!(reader.read(stored).unwrap().unwrap(), 2);
        conn.execute_batch("UPDATE kiln_schema SET min_reader = 100").unwrap();
        assert!(reader.read(stored).unwrap().unwrap_err().is_incompatible());
    }

    #[test]
    fn a_file_without_jobs_is_not_opened_to_be_read_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.db");
        Connection::open(&file).unwrap().execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY)").unwrap();
        let options = Options { read_only: true, ..Options::default() };
        let error = Reader::read_only(&file, &options).map(drop).unwrap_err();
        assert!(error.is_unusable() && error.to_string().contains("it has no jobs"), "{error}");
    }
}
