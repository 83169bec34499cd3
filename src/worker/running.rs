use std::fmt;
use std::ops::Deref;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Transaction;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::flag::Flag;
use super::notes::{Memory, Reporter, Reports};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::{Failure, Fence, Job, Outcome, Progress};
use crate::kiln::Kiln;
use crate::life::ack;
use crate::presence::Window;

/// A job while it is executed, as its worker sees it: the decoded arguments, the row as it was claimed, and the
/// cancellation flag.
///
/// The row's fields are there through `Deref`: `job.id`, `job.attempt`, `job.meta`, `job.errors`.
///
/// Threads cannot be killed, so stopping a job is a matter between kiln and the worker: look at
/// [`cancelled`](Self::cancelled) at safe points, or wait with the helpers below, which return early with
/// [`Cancelled`] when the job is asked to leave.
///
/// ```
/// use std::time::Duration;
/// use kiln::{Cancelled, Kiln, NewJob, Running, State};
///
/// let kiln = Kiln::in_memory()?;
/// let runtime = kiln
///     .runtime()
///     .worker_fn("watch", |job: &Running<()>| -> Result<(), Cancelled> {
///         loop {
///             job.sleep(Duration::from_secs(1))?; // returns early when the job is asked to leave
///         }
///     })
///     .start()?;
/// let job = kiln.enqueue(NewJob::new("watch"))?;
/// kiln.cancel(job.id)?;
/// assert_eq!(kiln.wait(job.id, Duration::MAX)?.unwrap().state, State::Cancelled);
/// # Ok::<(), kiln::Error>(())
/// ```
pub struct Running<A> {
    /// The arguments, decoded.
    pub args: A,
    job: Arc<Job>,
    control: Control,
    memory: Memory,
}

/// What connects a running job with the runtime that runs it.
#[derive(Clone)]
pub(crate) struct Control {
    pub fence: Fence,
    pub flag: Arc<Flag>,
    pub deadline: Option<Instant>,
    pub kiln: Kiln,
    pub reporter: Arc<Reporter>,
    pub reports: Arc<dyn Reports>,
    /// Until when a crash counts against the job; `None` if the job is not executed by a runtime.
    pub window: Option<Arc<Mutex<Window>>>,
    /// It was never stored: what it notes is kept for this attempt alone.
    pub rowless: bool,
}

impl<A> Running<A> {
    pub(crate) fn new(args: A, job: Arc<Job>, control: Control) -> Self {
        let memory = Memory::new(control.kiln.clone(), control.fence, control.rowless, control.window.clone());
        Self { args, job, control, memory }
    }

    /// Whether the job is asked to leave: it was cancelled, its time is up, or the runtime stops.
    ///
    /// What it returns then still counts, see the table of [the guide](crate::guide::running#cancelling).
    pub fn cancelled(&self) -> bool {
        self.control.flag.is_raised()
    }

    /// [`cancelled`](Self::cancelled) for use with `?`.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], when the job is asked to leave.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Sleeps, unless the job is asked to leave.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], as soon as the job is asked to leave.
    pub fn sleep(&self, duration: Duration) -> Result<(), Cancelled> {
        if self.control.flag.wait(duration) { Err(Cancelled) } else { Ok(()) }
    }

    /// Asks `ready` again and again, with `pause` in between, until it has something, unless the job is asked to
    /// leave: for a channel, a lock, a file that shall appear.
    ///
    /// ```
    /// use std::path::Path;
    /// use std::time::Duration;
    /// use kiln::{Cancelled, Running};
    ///
    /// fn arrived(job: &Running<()>, file: &Path) -> Result<u64, Cancelled> {
    ///     job.poll(Duration::from_millis(200), || file.metadata().ok().map(|found| found.len()))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Cancelled`], as soon as the job is asked to leave.
    pub fn poll<T>(&self, pause: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T, Cancelled> {
        loop {
            self.check()?;
            if let Some(value) = ready() {
                return Ok(value);
            }
            self.sleep(pause)?;
        }
    }

    /// Waits for a child process; when the job is asked to leave, the child is killed.
    ///
    /// ```
    /// use std::process::Command;
    /// use kiln::{Failure, Outcome, Running};
    ///
    /// fn convert(job: &Running<()>) -> Result<Outcome, Failure> {
    ///     let mut child = Command::new("ffmpeg").args(["-i", "in.wav", "out.flac"]).spawn()?;
    ///     match job.wait_child(&mut child)?.success() {
    ///         true => Ok(Outcome::Complete),
    ///         false => Err("it cannot be converted".into()),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Cancelled`] (within the error) when the child was killed for it; else what the system says of the child.
    pub fn wait_child(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        let waited = self.poll(Duration::from_millis(20), || child.try_wait().transpose());
        match waited {
            Ok(exit) => exit,
            Err(cancelled) => {
                child.kill()?;
                child.wait()?;
                Err(std::io::Error::new(std::io::ErrorKind::Interrupted, cancelled))
            }
        }
    }

    /// Tells how far the job is, for [`Kiln::progress`] in any process and for observers in this one. It is written four
    /// times a second at the most, so call it as often as you like; but not while a transaction of your own on the same
    /// file is open, for which it would wait.
    ///
    /// ```
    /// use kiln::Running;
    ///
    /// fn copy(job: &Running<Vec<String>>) {
    ///     let total = job.args.len() as u64;
    ///     for (done, file) in (0..).zip(&job.args) {
    ///         job.progress(done, total, file);
    ///     }
    /// }
    /// ```
    pub fn progress(&self, done: u64, total: u64, note: impl Into<String>) {
        let reporter = &self.control.reporter;
        if reporter.report(Progress::new(done, total, note)) {
            self.control.reports.remind(reporter);
        }
    }

    /// Keeps a value for the next attempt, should there be one: where to go on. Any JSON value; the last one counts. A
    /// job that completes forgets it.
    ///
    /// ```
    /// use kiln::{Failure, Running};
    ///
    /// fn import(job: &Running<Vec<String>>) -> Result<(), Failure> {
    ///     let done: usize = job.last_checkpoint()?.unwrap_or(0);
    ///     for (line, text) in job.args.iter().enumerate().skip(done) {
    ///         println!("{text}");
    ///         job.checkpoint(&(line + 1))?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_lost`](crate::Error::is_lost) when the attempt is no longer the job's, and what the database may report.
    pub fn checkpoint<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.memory.keep(value)
    }

    /// What the last [`checkpoint`](Self::checkpoint) kept, of this attempt or of one before it.
    ///
    /// # Errors
    ///
    /// [`is_malformed`](crate::Error::is_malformed) when it is no `T`, and what the database may report.
    pub fn last_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.memory.value()
    }

    /// Does a step of the work once: its result is kept under its name, and the next attempt gets it without doing the
    /// step again. A step that was cut short by a crash is done again.
    ///
    /// ```
    /// use kiln::{Failure, Running};
    ///
    /// fn publish(job: &Running<()>) -> Result<(), Failure> {
    ///     let archive = job.step("pack", || std::fs::read_to_string("a.txt"))?; // not read again
    ///     let url = job.step("upload", || Ok::<_, Failure>(format!("https://example.org/{}", archive.len())))?;
    ///     println!("{url}");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The step's own, after which nothing is kept; and those of [`checkpoint`](Self::checkpoint).
    pub fn step<T, E>(&self, name: &str, step: impl FnOnce() -> Result<T, E>) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned,
        E: Into<Failure>,
    {
        if let Some(done) = self.memory.step(name)? {
            return Ok(done);
        }
        let result = step().map_err(Into::into)?;
        self.memory.keep_step(name, &result)?;
        Ok(result)
    }

    /// The handle the job runs on, to enqueue further jobs with.
    ///
    /// ```
    /// use kiln::{NewJob, Running};
    ///
    /// fn split(job: &Running<Vec<String>>) -> kiln::Result<()> {
    ///     job.kiln().enqueue_many(job.args.iter().map(|page| NewJob::new("page").args(serde_json::json!({ "of": page }))))?;
    ///     Ok(())
    /// }
    /// ```
    pub fn kiln(&self) -> &Kiln {
        &self.control.kiln
    }

    pub(crate) fn is_rowless(&self) -> bool {
        self.control.rowless
    }

    /// What tells this attempt from every other: give it to whatever the job writes to.
    pub fn fence(&self) -> Fence {
        self.control.fence
    }

    /// How long until the [timeout](crate::Worker::timeout); `None` where there is none, zero when it is over.
    pub fn remaining(&self) -> Option<Duration> {
        self.control.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl<A> Running<A> {
    /// Completes the job within a transaction of the worker, on a connection of its own to the same file: what the job
    /// did there and that it is done are committed together, so that the effects happen once, whatever crashes. Return
    /// what it gives after the commit.
    ///
    /// ```
    /// # use kiln::rusqlite::Connection;
    /// use kiln::{Failure, Outcome, Running};
    ///
    /// fn book(job: &Running<serde_json::Value>, app: &mut Connection) -> Result<Outcome, Failure> {
    ///     let tx = app.transaction()?;
    ///     tx.execute("UPDATE accounts SET balance = balance - 10", [])?;
    ///     let done = job.complete_in(&tx)?;
    ///     tx.commit()?;
    ///     Ok(done)
    /// }
    /// ```
    ///
    /// A job that returns it without a commit has failed, and is retried.
    ///
    /// # Errors
    ///
    /// [`is_lost`](Error::is_lost) when the attempt is no longer the job's: roll back. Else as [`Kiln::enqueue_in`].
    pub fn complete_in(&self, tx: &Transaction<'_>) -> Result<Outcome> {
        let kiln = self.kiln();
        kiln.check_transaction(tx)?;
        // Performed by a test: there is no row to complete.
        if self.is_rowless() || ack::complete_within(tx, self.fence(), kiln.clock().now())? {
            return Ok(Outcome::Committed);
        }
        Err(Error::lost(self.fence()))
    }
}

impl<A> Deref for Running<A> {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl<A: fmt::Debug> fmt::Debug for Running<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("job", &self.job).finish_non_exhaustive()
    }
}

/// The job is asked to leave. Passed on with `?`, it ends the attempt as the asking meant it: a cancelled job is
/// cancelled, a job whose time is up is retried, a job cut short by a stop is given back untouched.
///
/// ```
/// use kiln::{Cancelled, Running};
///
/// fn count(job: &Running<()>) -> Result<u64, Cancelled> {
///     let mut sum = 0;
///     for n in 0..1_000_000 {
///         job.check()?;
///         sum += n;
///     }
///     Ok(sum)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the job was asked to leave")
    }
}

impl std::error::Error for Cancelled {}
