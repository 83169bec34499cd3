//! What a runtime is built from.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::cron;
use super::lifecycle::Runtime;
use super::settings::{Around, Retention, Settings};
use crate::error::{Error, Result};
use crate::job::{Failure, Job, NewCron, Outcome, QueuePlan, State, validate_queue_limit};
use crate::kiln::Kiln;
use crate::setters::setters;
use crate::worker::{IntoOutcome, Registry, Running, Worker};

/// Builds a [`Runtime`]: which queues it runs, with how many threads each, and which workers it knows.
///
/// | setting | default |
/// | --- | --- |
/// | [`queue`](Self::queue) | `default`, with as many threads as the machine runs at once |
/// | [`grace`](Self::grace) | 15 s |
/// | [`timeout_grace`](Self::timeout_grace) | 5 s |
/// | [`max_stuck`](Self::max_stuck) | 8 threads |
/// | [`claim_ahead`](Self::claim_ahead) | 10 ms |
/// | [`max_crashes`](Self::max_crashes) | 3 |
/// | [`crash_window`](Self::crash_window) | 60 s |
/// | [`retention`](Self::retention) | one day for completed, cancelled and discarded jobs |
///
/// ```
/// use std::time::Duration;
/// use kiln::{Kiln, Running, State};
///
/// let kiln = Kiln::in_memory()?;
/// let runtime = kiln
///     .runtime()
///     .queue("default", 4)
///     .queue("media", 1)
///     .worker_fn("shrink", |_: &Running<()>| ())
///     .grace(Duration::from_secs(2))
///     .retention(State::Completed, Duration::ZERO)
///     .retention(State::Discarded, Duration::MAX)
///     .start()?;
///
/// let error = kiln.runtime().queue("media", 0).start().err().unwrap();
/// assert_eq!(error.field(), Some("limit"));
/// # Ok::<(), kiln::Error>(())
/// ```
#[must_use = "a runtime does nothing until it is started"]
pub struct RuntimeBuilder {
    kiln: Kiln,
    queues: Vec<QueuePlan>,
    workers: Registry,
    hooks: Vec<Around>,
    settings: Settings,
    pub(super) crons: Vec<NewCron>,
    fault: Option<Error>,
}

impl Kiln {
    /// Adds workers: builds a runtime on this file.
    pub fn runtime(&self) -> RuntimeBuilder {
        RuntimeBuilder::new(self.clone())
    }
}

impl RuntimeBuilder {
    fn new(kiln: Kiln) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let settings = Settings {
            grace: Duration::from_secs(15),
            timeout_grace: Duration::from_secs(5),
            max_stuck: 8,
            claim_ahead: Duration::from_millis(10),
            rescue_after: None,
            max_crashes: 3,
            crash_window: Duration::from_secs(60),
            retention: Retention { completed: DAY, cancelled: DAY, discarded: DAY },
        };
        Self {
            kiln,
            queues: Vec::new(),
            workers: Registry::default(),
            hooks: Vec::new(),
            settings,
            crons: Vec::new(),
            fault: None,
        }
    }

    /// Runs a queue, with at most `limit` of its jobs at once in this runtime.
    pub fn queue(mut self, name: impl Into<String>, limit: usize) -> Self {
        let name = name.into();
        self.check(Error::if_blank("queue", &name).and_then(|()| validate_queue_limit(&name, limit)));
        if self.queues.iter().any(|plan| plan.queue == name) {
            self.refuse(Error::invalid("queue", format!("queue {name:?} was given twice; names must differ")));
        }
        self.queues.push(QueuePlan::new(name, limit));
        self
    }

    /// Adds a worker.
    pub fn worker<W: Worker>(mut self, worker: W) -> Self {
        let added = self.workers.add(worker);
        self.check(added);
        self
    }

    /// Adds a closure as the worker of this name. It may return `()`, an [`Outcome`](crate::Outcome), or a `Result`
    /// of either.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob, Running};
    /// use serde_json::{Value, json};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln
    ///     .runtime()
    ///     .worker_fn("shout", |job: &Running<Value>| println!("{}!", job.args["word"]))
    ///     .start()?;
    /// kiln.enqueue(NewJob::new("shout").args(json!({ "word": "fire" })))?;
    /// runtime.stop();
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn worker_fn<A, R, F>(mut self, name: &str, process: F) -> Self
    where
        A: DeserializeOwned + 'static,
        R: IntoOutcome + 'static,
        F: Fn(&Running<A>) -> R + Send + Sync + 'static,
    {
        let added = self.workers.add_fn(name, process);
        self.check(added);
        self
    }

    /// Runs every job within this closure: it is given the job and what to run, and gives back what came of it. Hooks
    /// run in the order they are given, the first outermost; a panic in one is the job's.
    ///
    /// ```
    /// use kiln::Kiln;
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().around(|job, run| {
    ///     println!("job {} begins", job.id);
    ///     let outcome = run();
    ///     println!("job {} ends", job.id);
    ///     outcome
    /// });
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn around<F>(mut self, hook: F) -> Self
    where
        F: Fn(&Job, &dyn Fn() -> Result<Outcome, Failure>) -> Result<Outcome, Failure> + Send + Sync + 'static,
    {
        self.hooks.push(Arc::new(hook));
        self
    }

    setters! { builder =>
        /// Adds a cron entry when the runtime starts, or gives the one of the same name a new definition; see
        /// [the guide](crate::guide::scheduling#cron).
        ///
        /// ```
        /// use kiln::{Kiln, NewCron, NewJob, Running};
        /// use serde_json::Value;
        ///
        /// let kiln = Kiln::in_memory()?;
        /// let runtime = kiln
        ///     .runtime()
        ///     .worker_fn("tidy", |_: &Running<Value>| println!("tidy"))
        ///     .cron(NewCron::new("0 4 * * SUN", NewJob::new("tidy")))
        ///     .cron(NewCron::new("@reboot", NewJob::new("tidy")))
        ///     .start()?;
        /// assert_eq!(kiln.crons()?.len(), 2);
        /// runtime.stop();
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn cron(entry: NewCron) { builder.crons.push(entry) }

        /// How long [`Runtime::stop`] lets running jobs go on before it asks them to leave.
        fn grace(grace: Duration) { builder.settings.grace = grace }

        /// How long a job whose [timeout](Worker::timeout) is over may take to leave before its thread is written off.
        fn timeout_grace(grace: Duration) { builder.settings.timeout_grace = grace }

        /// With so many threads written off and still running, the runtime claims nothing more until one comes back;
        /// [`Health`](crate::Health) says so.
        fn max_stuck(threads: usize) { builder.settings.max_stuck = threads.max(1) }

        /// How far a claim may run ahead of a queue's free slots: by as many jobs as the queue is expected to finish
        /// within this time, after what the last ones took, and by 400, or 8 MiB of them, at the most. So quick jobs
        /// share transactions, which is most of what they cost; of slow ones, and before anything is known of a queue's
        /// jobs, none is claimed ahead. A job claimed ahead is `executing` and has not begun: on a stop, a pause or a
        /// cancel it is given back untouched, and so it is when slow jobs keep it waiting for twice this time, and by
        /// whoever finds the process dead. `Duration::ZERO` turns it off: never more than the limit is claimed.
        ///
        /// ```
        /// use std::time::Duration;
        /// use kiln::{Kiln, Running};
        ///
        /// let kiln = Kiln::in_memory()?;
        /// let runtime = kiln
        ///     .runtime()
        ///     .queue("thumbnails", 4)
        ///     .worker_fn("shrink", |_: &Running<()>| ())
        ///     .claim_ahead(Duration::ZERO)
        ///     .start()?;
        /// runtime.stop();
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn claim_ahead(time: Duration) { builder.settings.claim_ahead = time }

        /// Rescues jobs of other runtimes by age as well, where the locks of a file system cannot be relied on: an
        /// attempt older than this is taken for abandoned. Unless this is said, age never counts.
        fn rescue_after(age: Duration) { builder.settings.rescue_after = Some(age) }

        /// How often a job's process may die soon after the job began, before the job is discarded: 3 unless said
        /// otherwise.
        ///
        /// A process can die of a job (an abort, an exhausted stack, too little memory), and it can be killed from
        /// outside; kiln cannot tell the two apart. The jobs of a dead process run again at once, and each crash costs
        /// the attempt. A crash within the [crash window](Self::crash_window) also counts towards this limit, in
        /// [`Job::crashes`]. Any ordinary end of an attempt, success or error, resets the count. A job that stored a
        /// checkpoint during the attempt gets the attempt back instead, and its count is reset: at most 20 times
        /// without an ordinary end.
        ///
        /// From the second such crash on, a process executes this job only while no other job like it is in its window,
        /// and after ordinary jobs. At the limit the job is discarded if no other job of the process was in its window,
        /// and otherwise at twice the limit. Its last [error](Job::errors) says so; [`Kiln::retry`] gives it another
        /// try.
        ///
        /// With 0, crashes are not counted: each costs an attempt, until [`max_attempts`](Job::max_attempts).
        ///
        /// ```
        /// use kiln::{Kiln, Running};
        ///
        /// let kiln = Kiln::in_memory()?;
        /// let runtime = kiln.runtime().worker_fn("decode", |_: &Running<()>| ()).max_crashes(2).start()?;
        /// runtime.stop();
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn max_crashes(crashes: u32) { builder.settings.max_crashes = crashes }

        /// How long after the start of an attempt, or after its last checkpoint, the end of the process counts as a
        /// [crash](Self::max_crashes) of the job: 60 seconds unless said otherwise. A later end only costs the attempt.
        ///
        /// Use a longer window for jobs that take their process down late, such as a job that fills the memory slowly.
        ///
        /// ```
        /// use std::time::Duration;
        /// use kiln::{Kiln, Running};
        ///
        /// let kiln = Kiln::in_memory()?;
        /// let runtime = kiln
        ///     .runtime()
        ///     .worker_fn("decode", |_: &Running<()>| ())
        ///     .crash_window(Duration::from_secs(300))
        ///     .start()?;
        /// runtime.stop();
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn crash_window(window: Duration) { builder.settings.crash_window = window }

        /// How long jobs that ended in this state are kept; `Duration::MAX` keeps them for ever.
        fn retention(state: State, age: Duration) {
            match state {
                State::Completed => builder.settings.retention.completed = age,
                State::Cancelled => builder.settings.retention.cancelled = age,
                State::Discarded => builder.settings.retention.discarded = age,
                state => builder.refuse(Error::invalid(
                    "retention",
                    format!("retention is for completed, cancelled and discarded jobs, got {state}"),
                )),
            }
        }
    }

    fn check(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.refuse(error);
        }
    }

    fn refuse(&mut self, error: Error) {
        self.fault.get_or_insert(error);
    }

    /// A runtime that does not run yet.
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) for a setting that cannot be: the message names it.
    pub fn build(mut self) -> Result<Runtime> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        // A claim merges one sorted list for each worker, and SQLite merges at most 500 of them.
        let workers = self.workers.names().len();
        if workers > 400 {
            return Err(Error::invalid("worker", format!("a runtime may have 400 workers at the most, got {workers}")));
        }
        if self.queues.is_empty() {
            let threads = thread::available_parallelism().map_or(4, usize::from);
            self.queues.push(QueuePlan::new("default".into(), threads));
        }
        let crons = cron::build(&self.kiln, self.crons)?;
        let plans = Arc::new(Mutex::new(self.queues));
        Ok(Runtime::new(self.kiln, plans, self.workers, self.hooks, self.settings, crons))
    }

    /// Builds the runtime and starts it.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build) and [`Runtime::start`].
    pub fn start(self) -> Result<Runtime> {
        let runtime = self.build()?;
        runtime.start()?;
        Ok(runtime)
    }
}
