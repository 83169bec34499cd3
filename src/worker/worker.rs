//! The user's code.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::running::Running;
use crate::error::Result;
use crate::job::{Failure, Job, NewJob, Outcome};

/// Code that executes jobs of one kind. One value of it serves all threads; it owns what it needs.
///
/// ```
/// use kiln::{Failure, Kiln, Outcome, Running, Worker};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Greeting { name: String }
///
/// struct Greeter { greeting: &'static str }
///
/// impl Worker for Greeter {
///     const NAME: &'static str = "greeter";
///     const MAX_ATTEMPTS: i64 = 3;
///     type Args = Greeting;
///
///     fn process(&self, job: &Running<Greeting>) -> Result<Outcome, Failure> {
///         Ok(Outcome::record(&format!("{}, {}!", self.greeting, job.args.name))?)
///     }
/// }
///
/// let kiln = Kiln::in_memory()?;
/// let job = kiln.enqueue(Greeter::job(Greeting { name: "Ada".into() }).priority(2))?;
/// assert_eq!((job.worker.as_str(), job.max_attempts, job.priority), ("greeter", 3, 2));
/// # Ok::<(), kiln::Error>(())
/// ```
pub trait Worker: Send + Sync + 'static {
    /// The name stored in every job. Keep it when the type is renamed, or the jobs on file wait for ever.
    const NAME: &'static str;

    /// The queue its jobs wait in, unless said otherwise.
    const QUEUE: &'static str = "default";

    /// The priority of its jobs, unless said otherwise: 0 to 9, 0 first.
    const PRIORITY: i64 = 0;

    /// How often its jobs are attempted at the most, unless said otherwise.
    const MAX_ATTEMPTS: i64 = 20;

    /// The tags of its jobs, unless said otherwise.
    const TAGS: &'static [&'static str] = &[];

    /// What a job is given: any type that serde writes as a JSON object, or `()`.
    type Args: Serialize + DeserializeOwned;

    /// Does the work. It may run more than once for the same job: after an error, and after a crash.
    ///
    /// # Errors
    ///
    /// Any error makes the job retryable, or discards it when no attempt is left. A panic counts as an error.
    fn process(&self, job: &Running<Self::Args>) -> Result<Outcome, Failure>;

    /// How long to wait after a failed attempt (`job.attempt` is its number). `None`, the default, is
    /// [`backoff::jittery_clamped`](crate::backoff::jittery_clamped).
    fn backoff(&self, job: &Job) -> Option<Duration> {
        let _ = job;
        None
    }

    /// How long an attempt may take before it is asked to leave; `None`, the default, is for ever.
    ///
    /// Not leaving in time has consequences, see [the guide](crate::guide::running#timeouts).
    fn timeout(&self, job: &Job) -> Option<Duration> {
        let _ = job;
        None
    }

    /// A new job for this worker, with its defaults.
    fn job(args: Self::Args) -> NewJob
    where
        Self: Sized,
    {
        NewJob::new(Self::NAME)
            .args(args)
            .queue(Self::QUEUE)
            .priority(Self::PRIORITY)
            .max_attempts(Self::MAX_ATTEMPTS)
            .tags(Self::TAGS.iter().copied())
    }
}

/// What a closure used as a worker may return: `()`, an [`Outcome`], or a `Result` of either with any error.
///
/// ```
/// use kiln::{Failure, IntoOutcome, Outcome};
///
/// assert_eq!(().into_outcome().unwrap(), Outcome::Complete);
/// assert_eq!(Outcome::cancel("no").into_outcome().unwrap(), Outcome::cancel("no"));
/// assert_eq!(Ok::<_, Failure>(()).into_outcome().unwrap(), Outcome::Complete);
/// assert!(Err::<(), _>("out of paper").into_outcome().is_err());
/// ```
pub trait IntoOutcome {
    /// The outcome, or why there is none.
    ///
    /// # Errors
    ///
    /// The closure's error.
    fn into_outcome(self) -> Result<Outcome, Failure>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        Ok(Outcome::Complete)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        Ok(self)
    }
}

impl<T: Into<Outcome>, E: Into<Failure>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        self.map(Into::into).map_err(Into::into)
    }
}
