//! What the jobs of these tests do. All of them write down when an execution starts and when it ends.

use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kiln::{Failure, Job, Kiln, Outcome, Running, RuntimeBuilder, Worker};
use serde::{Deserialize, Serialize};

use crate::folder::{Folder, outlived, wait_for};
use crate::log::Log;

/// A runtime with all of these workers, and so many threads.
pub fn runtime(kiln: &Kiln, folder: &Folder, threads: usize) -> RuntimeBuilder {
    runtime_of(kiln, folder, "default", threads)
}

pub fn runtime_of(kiln: &Kiln, folder: &Folder, queue: &str, threads: usize) -> RuntimeBuilder {
    // Processes are killed here from outside, more often than any job could bear by default.
    suspicious(kiln, folder, queue, threads).max_crashes(u32::MAX)
}

/// The same, with the default settings for crashes.
pub fn suspicious(kiln: &Kiln, folder: &Folder, queue: &str, threads: usize) -> RuntimeBuilder {
    let folder = Folder::at(folder.path());
    let log = Arc::new(folder.log());
    kiln.runtime()
        .queue(queue, threads)
        .worker(Moody { log: Arc::clone(&log) })
        .worker(Held { log: Arc::clone(&log), folder: Folder::at(folder.path()) })
        .worker(Deaf { log: Arc::clone(&log) })
        .worker(Tick { log: Arc::clone(&log) })
        .worker(Poison { log: Arc::clone(&log), folder: Folder::at(folder.path()) })
        .worker(Saver { log: Arc::clone(&log), folder: Folder::at(folder.path()) })
        .worker(Bomb { log })
}

/// Snoozes and fails as often as it is told, then ends as it is told.
pub struct Moody {
    log: Arc<Log>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mood {
    pub key: String,
    pub millis: u64,
    pub snoozes: u64,
    pub failures: u64,
    pub ends: Ends,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ends {
    #[default]
    Complete,
    Record,
    Cancel,
}

impl Worker for Moody {
    const NAME: &'static str = "moody";
    const MAX_ATTEMPTS: i64 = 1000;
    type Args = Mood;

    fn process(&self, job: &Running<Mood>) -> Result<Outcome, Failure> {
        self.log.start(job.fence());
        if job.args.millis > 0 {
            thread::sleep(Duration::from_millis(job.args.millis));
        }
        let (snoozed, failed) = (snoozed(job), failures(job));
        let (how, outcome) = if snoozed < job.args.snoozes && snoozed <= failed {
            ("snooze", Ok(Outcome::snooze(Duration::from_millis(30))))
        } else if failed < job.args.failures {
            ("failure", Err("not in the mood".into()))
        } else if snoozed < job.args.snoozes {
            ("snooze", Ok(Outcome::snooze(Duration::ZERO)))
        } else {
            match job.args.ends {
                Ends::Complete => ("complete", Ok(Outcome::Complete)),
                Ends::Record => ("record", Ok(Outcome::record(&job.args.key)?)),
                Ends::Cancel => ("cancel", Ok(Outcome::cancel("enough"))),
            }
        };
        self.log.end(job.fence(), how);
        outcome
    }

    fn backoff(&self, job: &Job) -> Option<Duration> {
        Some(Duration::from_millis(10 * job.attempt.unsigned_abs().min(10)))
    }
}

pub fn snoozed(job: &Job) -> u64 {
    job.meta.get("snoozed").and_then(|count| count.as_u64()).unwrap_or(0)
}

pub fn rescued(job: &Job) -> u64 {
    job.meta.get("rescued").and_then(|count| count.as_u64()).unwrap_or(0)
}

/// The errors that say that the process of an attempt died.
pub fn abandonments(job: &Job) -> Vec<&str> {
    let errors = job.errors.iter().map(|error| error.error.as_str());
    errors.filter(|error| error.starts_with("abandoned: the process of runtime")).collect()
}

/// How many of these errors are the last of the job's errors.
pub fn abandoned_last(job: &Job) -> usize {
    job.errors.iter().rev().take_while(|error| error.error.starts_with("abandoned: the process of runtime")).count()
}

/// The errors that the worker itself returned.
pub fn failures(job: &Job) -> u64 {
    job.errors.iter().filter(|error| error.error == "not in the mood").count() as u64
}

/// What a cron entry fires.
pub struct Tick {
    log: Arc<Log>,
}

impl Worker for Tick {
    const NAME: &'static str = "tick";
    const MAX_ATTEMPTS: i64 = 1000;
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        self.log.start(job.fence());
        self.log.end(job.fence(), "tick");
        Ok(Outcome::Complete)
    }
}

/// Runs until the folder is released, the attempt is told to fail, or somebody asks it to leave.
pub struct Held {
    log: Arc<Log>,
    folder: Folder,
}

impl Worker for Held {
    const NAME: &'static str = "held";
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        self.log.start(job.fence());
        let ended = || {
            let fails = self.folder.is_to_fail(job.id, job.attempt);
            (fails || self.folder.is_released()).then_some(fails)
        };
        let waited = job.poll(Duration::from_millis(5), ended);
        let how = match &waited {
            Ok(true) => "failure",
            Ok(false) => "released",
            Err(_) => "asked-to-leave",
        };
        self.log.end(job.fence(), how);
        if waited? { Err("told to fail".into()) } else { Ok(Outcome::Complete) }
    }

    fn backoff(&self, _: &Job) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

/// Runs for ever, and hears nobody.
pub struct Deaf {
    log: Arc<Log>,
}

impl Worker for Deaf {
    const NAME: &'static str = "deaf";
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        self.log.start(job.fence());
        loop {
            thread::park();
        }
    }
}

/// Takes its process along.
pub struct Bomb {
    log: Arc<Log>,
}

impl Worker for Bomb {
    const NAME: &'static str = "bomb";
    const MAX_ATTEMPTS: i64 = 3;
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        self.log.start(job.fence());
        process::abort()
    }
}

/// Stores a checkpoint, and runs until the folder is released.
pub struct Saver {
    log: Arc<Log>,
    folder: Folder,
}

impl Worker for Saver {
    const NAME: &'static str = "saver";
    const MAX_ATTEMPTS: i64 = 3;
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        self.log.start(job.fence());
        let saved: u64 = job.last_checkpoint()?.unwrap_or(0);
        job.checkpoint(&(saved + 1))?;
        self.log.saved(job.fence());
        job.poll(Duration::from_millis(5), || self.folder.is_released().then_some(()))?;
        self.log.end(job.fence(), "released");
        Ok(Outcome::record(&(saved + 1))?)
    }
}

/// Waits for so many others to execute here, unless it is a suspect, and then does its worst.
pub struct Poison {
    log: Arc<Log>,
    folder: Folder,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dose {
    pub company: usize,
    /// How long it waits then.
    pub millis: u64,
    /// So many attempts of its process have outlived their windows before it goes on.
    pub outlived: usize,
    pub does: Harm,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Harm {
    Abort,
    ExhaustTheStack,
    Kill(u32),
}

/// From so many crashes on a job is a suspect.
pub const SUSPECT: i64 = 2;

impl Worker for Poison {
    const NAME: &'static str = "poison";
    type Args = Dose;

    fn process(&self, job: &Running<Dose>) -> Result<Outcome, Failure> {
        self.log.start(job.fence());
        if job.crashes < SUSPECT {
            wait_for("company", || {
                let story = self.folder.log().read();
                let here = story.executions.iter().filter(|execution| execution.pid == process::id());
                (here.count() > job.args.company).then_some(())
            });
        }
        if job.args.outlived > 0 {
            let sidecar = self.folder.sidecar_of(process::id());
            wait_for("the windows' end", || (outlived(&sidecar) == job.args.outlived).then_some(()));
        }
        thread::sleep(Duration::from_millis(job.args.millis));
        match job.args.does {
            Harm::Abort => process::abort(),
            Harm::ExhaustTheStack => return Err(format!("the bottom is at {}", dive(1)).into()),
            Harm::Kill(pid) => {
                let kill = process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
                assert!(kill.success());
            }
        }
        self.log.end(job.fence(), "complete");
        Ok(Outcome::Complete)
    }
}

/// Calls itself for ever.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn dive(depth: u64) -> u64 {
    let water = std::hint::black_box([depth; 128]);
    dive(depth + 1) + water[127]
}
