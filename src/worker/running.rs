use std::fmt;
use std::ops::Deref;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flag::Flag;
use crate::Job;
use crate::job::Fence;

/// A job while it is executed, as its worker sees it: the decoded arguments, the row as it was claimed, and the
/// cancellation flag.
///
/// The row's fields are there through `Deref`: `job.id`, `job.attempt`, `job.meta`, `job.errors`.
///
/// Threads cannot be killed, so stopping a job is a matter between kiln and the worker: look at
/// [`cancelled`](Self::cancelled) at safe points, or wait with the helpers below, which return early with
/// [`Cancelled`] when the job is asked to leave.
#[derive(Debug)]
pub struct Running<A> {
    /// The arguments, decoded.
    pub args: A,
    job: Arc<Job>,
    control: Control,
}

/// What connects a running job with the runtime that runs it.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub fence: Fence,
    pub flag: Arc<Flag>,
    pub deadline: Option<Instant>,
}

impl<A> Running<A> {
    pub(crate) fn new(args: A, job: Arc<Job>, control: Control) -> Self {
        Self { args, job, control }
    }

    /// Whether the job is asked to leave: it was cancelled, its time is up, or the runtime stops.
    ///
    /// What it returns then still counts, see the table of [the guide](crate#cancelling).
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

    /// What tells this attempt from every other: give it to whatever the job writes to.
    pub fn fence(&self) -> Fence {
        self.control.fence
    }

    /// How long until the [timeout](crate::Worker::timeout); `None` where there is none, zero when it is over.
    pub fn remaining(&self) -> Option<Duration> {
        self.control.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl<A> Deref for Running<A> {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

/// The job is asked to leave. Passed on with `?`, it ends the attempt as the asking meant it: a cancelled job is
/// cancelled, a job whose time is up is retried, a job cut short by a stop is given back untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the job was asked to leave")
    }
}

impl std::error::Error for Cancelled {}
