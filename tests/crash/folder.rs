//! The folder of one test: the database, the log, and whatever else appears there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use kiln::{Counts, Filter, Job, Kiln, State};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::log::Log;

/// How a process of this test is told its folder.
pub const FOLDER: &str = "KILN_CRASH_FOLDER";

pub struct Folder {
    path: PathBuf,
    /// Held by the test alone, which outlives its children.
    _owned: Option<TempDir>,
}

impl Folder {
    pub fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        Self { path: owned.path().to_owned(), _owned: Some(owned) }
    }

    /// Another view of a folder that somebody else owns.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), _owned: None }
    }

    /// The folder that the parent of this process means.
    pub fn inherited() -> Self {
        Self { path: env::var_os(FOLDER).unwrap().into(), _owned: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn database(&self) -> PathBuf {
        self.path.join("jobs.db")
    }

    pub fn log(&self) -> Log {
        Log::open(&self.path.join("log"))
    }

    /// The database, opened by a node whose name tells the process.
    pub fn kiln(&self) -> Kiln {
        Kiln::builder(self.database()).node(node(process::id())).open().unwrap()
    }

    /// Another database in the same folder, opened by the same.
    pub fn other_kiln(&self) -> Kiln {
        Kiln::builder(self.path.join("other.db")).node(node(process::id())).open().unwrap()
    }

    /// Lets all jobs go that are held.
    pub fn release(&self) {
        fs::write(self.path.join("release"), "").unwrap();
    }

    /// Lets the jobs go that one process holds.
    pub fn release_those_of(&self, pid: u32) {
        fs::write(self.path.join(format!("release-{pid}")), "").unwrap();
    }

    /// Whether this process shall let its jobs go.
    pub fn is_released(&self) -> bool {
        self.path.join("release").exists() || self.path.join(format!("release-{}", process::id())).exists()
    }

    /// Lets this attempt of a held job fail.
    pub fn fail(&self, id: i64, attempt: i64) {
        fs::write(self.path.join(format!("fail-{id}-{attempt}")), "").unwrap();
    }

    /// Whether this attempt of a held job is to fail.
    pub fn is_to_fail(&self, id: i64, attempt: i64) -> bool {
        self.path.join(format!("fail-{id}-{attempt}")).exists()
    }

    /// The files beside the database that belong to a runtime.
    pub fn sidecars(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("jobs.db-kiln-")).collect()
    }

    /// The sidecar of the runtime of another process.
    pub fn sidecar_of(&self, pid: u32) -> PathBuf {
        let sql = "SELECT id FROM kiln_runtimes WHERE pid = ?1";
        let id: String = self.look().query_one(sql, [pid], |row| row.get(0)).unwrap();
        self.path.join(format!("jobs.db-kiln-{id}"))
    }

    /// How many runtimes the table knows, living or not.
    pub fn runtimes(&self) -> i64 {
        self.look().query_one("SELECT count(*) FROM kiln_runtimes", [], |row| row.get(0)).unwrap()
    }

    pub fn assert_whole(&self) {
        let found: String = self.look().query_one("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
    }

    /// Nothing is there of runtimes that are gone: to be asked once all are.
    pub fn assert_nothing_left_behind(&self) {
        assert!(self.sidecars().is_empty(), "sidecars: {:?}", self.sidecars());
        assert_eq!(self.runtimes(), 0, "rows of runtimes");
    }

    pub fn look(&self) -> Connection {
        let conn = Connection::open(self.database()).unwrap();
        conn.busy_timeout(DEADLINE).unwrap();
        conn
    }
}

/// The states of the entries in a sidecar: 1 for an attempt in its window, 2 for one that has outlived its window.
/// Entries of attempts that have ended stay until others take their place.
pub fn entries(sidecar: &Path) -> Vec<u64> {
    const HEAD: usize = 256;
    const ENTRY: usize = 32;
    let bytes = fs::read(sidecar).unwrap();
    let state = |entry: &[u8]| u64::from_le_bytes(entry[16..24].try_into().unwrap());
    bytes.get(HEAD..).unwrap_or_default().chunks_exact(ENTRY).map(state).filter(|state| *state != 0).collect()
}

/// How many attempts have outlived their windows, as a sidecar says.
pub fn outlived(sidecar: &Path) -> usize {
    entries(sidecar).iter().filter(|state| **state == 2).count()
}

/// What a process calls itself in `attempted_by`.
pub fn node(pid: u32) -> String {
    format!("process-{pid}")
}

pub fn job(kiln: &Kiln, id: i64) -> Job {
    kiln.get(id).unwrap().unwrap()
}

/// Waits until the job has ended.
pub fn finished(kiln: &Kiln, id: i64) -> Job {
    wait_for("the job's end", || Some(job(kiln, id)).filter(|job| job.state.is_finished()))
}

/// Jobs that have not ended.
pub fn unfinished(kiln: &Kiln) -> Counts {
    let states = [State::Available, State::Scheduled, State::Executing, State::Retryable];
    kiln.count(Filter::new().states(states)).unwrap()
}

/// Waits until no job is on its way any more.
pub fn drained(kiln: &Kiln) {
    let until = Instant::now() + DEADLINE;
    loop {
        let left = unfinished(kiln);
        if left.total() == 0 {
            return;
        }
        assert!(Instant::now() < until, "some jobs do not end: {left:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

const DEADLINE: Duration = Duration::from_secs(30);

pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
