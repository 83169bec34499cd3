//! What several test files need: a folder of one's own, and waiting for events with a deadline.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln::{Failure, Job, Kiln, Outcome, Pulse, Running, Runtime, State, Worker};
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

/// What has not happened by now does not happen. Far longer than anything takes, so that a slow machine fails nothing.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A folder that goes with the test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("jobs.db")
    }

    pub fn open(&self) -> Kiln {
        Kiln::open(self.db()).unwrap()
    }

    /// Waits until nobody has the file open any more: a pool may close its last connection on a thread of its own, a
    /// moment after it was dropped.
    pub fn closed(&self) {
        until("the file is closed", || {
            self.names().iter().all(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        });
    }

    /// The names of the files in it.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

/// Another program's connection to the file.
pub fn stranger(db: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(db).unwrap();
    conn.busy_timeout(DEADLINE).unwrap();
    conn
}

const ROLE: &str = "KILN_TEST_ANOTHER_PROCESS";

/// Another process that runs this one test of the same program.
pub struct Other {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Other {
    pub fn start(test: &str, folder: &Folder) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, folder.0.path())
            .current_dir(folder.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with no chance to do anything about it.
    pub fn kill(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it lives until it is killed");
        self.child.kill().unwrap();
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// What it said next, with [`say`].
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the other process is gone");
            // The test harness says things as well, and does not always end its line.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It leaves when it hears nothing more.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

const MARK: &str = "\u{1}";

/// The folder this process was started for, where it is the other one.
pub fn other_process_for() -> Option<PathBuf> {
    std::env::var_os(ROLE).map(PathBuf::from)
}

pub fn say(line: &str) {
    println!("{MARK}{line}");
}

/// Runs a story on a file and once more in memory.
pub fn everywhere(story: impl Fn(Kiln)) {
    let folder = Folder::new();
    story(folder.open());
    story(Kiln::in_memory().unwrap());
}

/// Looks until there is something to see.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "it never came that {what}");
        std::thread::sleep(ms(2));
    }
}

/// Waits until it is so.
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    eventually(what, || look().then_some(()));
}

pub fn get(kiln: &Kiln, id: i64) -> Job {
    kiln.get(id).unwrap().unwrap_or_else(|| panic!("job {id} is gone"))
}

/// Waits until the job is in this state.
pub fn reaches(kiln: &Kiln, id: i64, state: State) -> Job {
    let until = Instant::now() + DEADLINE;
    loop {
        let job = get(kiln, id);
        if job.state == state {
            return job;
        }
        assert!(Instant::now() < until, "the job never became {state}: {job} {:?}", job.errors);
        std::thread::sleep(ms(2));
    }
}

/// How many jobs are in this state.
pub fn count(kiln: &Kiln, state: State) -> u64 {
    kiln.count(kiln::Filter::new()).unwrap().state(state)
}

/// What this runtime tells of itself.
pub fn pulse(kiln: &Kiln, runtime: &Runtime) -> Pulse {
    let id = runtime.id().expect("the runtime runs");
    let health = kiln.health().unwrap();
    let own = health.runtimes.iter().find(|other| other.id == id).expect("a runtime that runs is in health");
    own.pulse.clone().expect("a runtime of this process has a pulse")
}

/// A door that jobs wait at until the test opens it; for jobs that do not look at their flag.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; not for ever, or a failed test would leave its threads behind.
    pub fn pass(&self) {
        let until = Instant::now() + DEADLINE;
        let mut open = self.0.0.lock();
        while !*open && !self.0.1.wait_until(&mut open, until).timed_out() {}
    }
}

/// A worker whose time is up at once, and who does not look: it leaves when the gate is open.
pub struct Stubborn(pub Gate);

impl Worker for Stubborn {
    const NAME: &'static str = "stubborn";
    type Args = ();

    fn process(&self, _: &Running<()>) -> Result<Outcome, Failure> {
        self.0.pass();
        Ok(Outcome::Complete)
    }

    fn timeout(&self, _: &Job) -> Option<Duration> {
        Some(ms(1))
    }
}

/// Counts how many are inside at once.
#[derive(Clone, Default)]
pub struct Meter(Arc<(AtomicUsize, AtomicUsize)>);

impl Meter {
    pub fn enter(&self) -> Inside {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Inside(self.clone())
    }

    pub fn inside(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

pub struct Inside(Meter);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sets the flag that ends other threads' loops, also when the test fails before its end.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
