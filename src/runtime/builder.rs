//! What a runtime is built from.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::de::DeserializeOwned;

use super::{Phase, Report, Runtime, cron};
use crate::queues::{self, Plan};
use crate::worker::Registry;
use crate::{Error, Failure, IntoOutcome, Job, Kiln, NewCron, Outcome, Result, Running, State, Worker};

/// A hook around the execution of a job.
pub(super) type Around =
    Arc<dyn Fn(&Job, &dyn Fn() -> Result<Outcome, Failure>) -> Result<Outcome, Failure> + Send + Sync>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub grace: Duration,
    pub timeout_grace: Duration,
    pub max_stuck: usize,
    pub claim_ahead: Duration,
    pub rescue_after: Option<Duration>,
    pub max_crashes: u32,
    /// How long a suspect may keep others waiting.
    pub solitude: Duration,
    pub retention: Retention,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub completed: Duration,
    pub cancelled: Duration,
    pub discarded: Duration,
}

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
/// | [`solitude`](Self::solitude) | 5 s |
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
    queues: Vec<Plan>,
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
            solitude: Duration::from_secs(5),
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
        self.check(queues::valid_name(&name).and_then(|()| queues::valid_limit(&name, limit)));
        if self.queues.iter().any(|plan| plan.queue == name) {
            self.refuse(Error::invalid("queue", format!("queue {name:?} was given twice; names must differ")));
        }
        self.queues.push(Plan::new(name, limit));
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

    /// How long [`Runtime::stop`] lets running jobs go on before it asks them to leave.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// How long a job whose [timeout](Worker::timeout) is over may take to leave before its thread is written off.
    pub fn timeout_grace(mut self, grace: Duration) -> Self {
        self.settings.timeout_grace = grace;
        self
    }

    /// With so many threads written off and still running, the runtime claims nothing more until one comes back;
    /// [`Health`](crate::Health) says so.
    pub fn max_stuck(mut self, threads: usize) -> Self {
        self.settings.max_stuck = threads.max(1);
        self
    }

    /// How far a claim may run ahead of a queue's free slots: by as many jobs as the queue is expected to finish within
    /// this time, after what the last ones took, and by 400, or 8 MiB of them, at the most. So quick jobs share
    /// transactions, which is most of what they cost; of slow ones, and before anything is known of a queue's jobs,
    /// none is claimed ahead. A job claimed ahead is `executing` and has not begun: on a stop, a pause or a cancel it
    /// is given back untouched, and so it is when slow jobs keep it waiting for twice this time, and by whoever finds
    /// the process dead. `Duration::ZERO` turns it off: never more than the limit is claimed.
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
    pub fn claim_ahead(mut self, time: Duration) -> Self {
        self.settings.claim_ahead = time;
        self
    }

    /// Rescues jobs of other runtimes by age as well, where the locks of a file system cannot be relied on: an attempt
    /// older than this is taken for abandoned. Unless this is said, age never counts.
    pub fn rescue_after(mut self, age: Duration) -> Self {
        self.settings.rescue_after = Some(age);
        self
    }

    /// How often a job's process may die while the job is executing, before it is discarded: by an abort, an exhausted
    /// stack, too little memory, a kill. What the runtime was told that executed the job counts, whoever rescues it.
    ///
    /// A job that was the only one in its process took it down, as far as anybody can tell: its attempt counts. Where others
    /// were executing as well nobody knows which it was, and none of their attempts counts. From then on each runs
    /// [alone](Self::solitude), so that it is known the next time; one that ends by itself, in whichever way, is like any
    /// other again. How often its process died is in [`Job::crashes`], and an entry in its [`errors`](Job::errors) says so.
    ///
    /// What counts towards the limit is every crash that a job was alone at, and of those among others the first. A crash
    /// among others discards nobody. So with 3 a job that takes its process down ends after one crash among others and two
    /// alone, or after three alone; and one that was only ever there when others did it is not discarded, however often.
    ///
    /// All of the process counts as company: jobs of other runtimes in it, of other files and of a database in memory,
    /// and threads of jobs that were written off or cut.
    ///
    /// A cut of the machine's power is no crash of a job, as far as the system tells one start of the machine from another
    /// (Linux does), nor is a [stop](Runtime::stop). A process that is killed is, whoever did it and why, a person, the
    /// system or a job of another process: that leaves no trace. A job that is alone at two such ends, or three, is discarded
    /// for nothing it did: a program that is often ended while long jobs run should stop its runtime, or allow for more.
    ///
    /// `u32::MAX` discards no job for it. With 0 crashes are not counted and no job runs alone: every attempt at which a
    /// process died counts, until [`max_attempts`](Job::max_attempts).
    ///
    /// ```
    /// use kiln::{Kiln, Running};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().worker_fn("decode", |_: &Running<()>| ()).max_crashes(2).start()?;
    /// runtime.stop();
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.settings.max_crashes = crashes;
        self
    }

    /// How long others wait for a job that is to run alone, since its process died while it was executing: so long after
    /// its first [crash](Self::max_crashes), and ten times as long with each one more. A claim that comes to such a job
    /// takes nothing more, of any queue, until the jobs that run have ended; then it takes such a job, and nothing else
    /// until that has ended: of several the one that began last before, which is the likeliest. All runtimes of the process
    /// do so together, those of other handles and other files with them, since a process dies as a whole; those of other
    /// processes go on.
    ///
    /// Where the others do not end within this time it begins beside them, and where it does not end itself within this
    /// time others begin beside it: no job that takes long keeps the others waiting for longer. A job that takes its process
    /// down within this time is found at once; one that does so later crashes among others first, once more for each
    /// factor of ten, until it is alone for long enough. Nobody is discarded on a guess meanwhile.
    ///
    /// After a kill the jobs of the process are available again within a second, and at first run one at a time. Those that
    /// end within this time follow each other; with the first that does not all begin at once. So it is the longest that
    /// they, and whatever is enqueued meanwhile, wait for one that takes long: 5 s is for jobs that first fill the memory, or
    /// get to the broken page of a document. `Duration::MAX` lets the others wait to the end; `Duration::ZERO` lets none
    /// wait, and no job runs alone: an attempt that was lost among others counts then, until
    /// [`max_attempts`](Job::max_attempts).
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::{Kiln, Running};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln
    ///     .runtime()
    ///     .worker_fn("decode", |_: &Running<()>| ())
    ///     .solitude(Duration::from_secs(60))
    ///     .start()?;
    /// runtime.stop();
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn solitude(mut self, time: Duration) -> Self {
        self.settings.solitude = time;
        self
    }

    /// How long jobs that ended in this state are kept; `Duration::MAX` keeps them for ever.
    pub fn retention(mut self, state: State, age: Duration) -> Self {
        match state {
            State::Completed => self.settings.retention.completed = age,
            State::Cancelled => self.settings.retention.cancelled = age,
            State::Discarded => self.settings.retention.discarded = age,
            state => self.refuse(Error::invalid(
                "retention",
                format!("retention is for completed, cancelled and discarded jobs, got {state}"),
            )),
        }
        self
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
        // A claim merges one sorted list for each worker, and the engine so many at the most.
        let workers = self.workers.names().len();
        if workers > 400 {
            return Err(Error::invalid("worker", format!("a runtime may have 400 workers at the most, got {workers}")));
        }
        if self.queues.is_empty() {
            let threads = thread::available_parallelism().map_or(4, usize::from);
            self.queues.push(Plan::new("default".into(), threads));
        }
        if self.settings.max_crashes == 0 {
            self.settings.solitude = Duration::ZERO;
        }
        Ok(Runtime {
            crons: cron::build(&self.kiln, self.crons)?,
            kiln: self.kiln,
            plans: Arc::new(Mutex::new(self.queues)),
            house: Mutex::default(),
            workers: self.workers,
            hooks: self.hooks,
            settings: self.settings,
            phase: Mutex::new(Phase::Stopped(Report::default())),
            changed: Condvar::new(),
        })
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
