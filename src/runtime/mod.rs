//! The house at work: start, stop, and what runs in between.

mod alarm;
mod control;
mod cron;
mod execute;
mod house;
mod keepers;
mod lane;
mod panics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::engine::Member;
use crate::error::Kind;
use crate::queues::{self, Plan};
use crate::worker::Registry;
use crate::{CronEntry, Error, Failure, IntoOutcome, Job, Kiln, NewCron, Outcome, Result, Running, State, Worker};
#[cfg(feature = "testing")]
pub(crate) use cron::Crons;
use house::House;
use keepers::Keepers;

/// How long a job that was asked to leave by a stop has for it, once the grace is over.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a stop tries to write the last acks.
const FLUSH: Duration = Duration::from_secs(30);

/// A wait past the end of the clock.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A hook around the execution of a job.
type Around = Arc<dyn Fn(&Job, &dyn Fn() -> Result<Outcome, Failure>) -> Result<Outcome, Failure> + Send + Sync>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    grace: Duration,
    timeout_grace: Duration,
    max_stuck: usize,
    rescue_after: Option<Duration>,
    retention: Retention,
}

#[derive(Clone, Copy, Debug)]
struct Retention {
    completed: Duration,
    cancelled: Duration,
    discarded: Duration,
}

/// Builds a [`Runtime`]: which queues it runs, with how many threads each, and which workers it knows.
///
/// | setting | default |
/// | --- | --- |
/// | [`queue`](Self::queue) | `default`, with as many threads as the machine runs at once |
/// | [`grace`](Self::grace) | 15 s |
/// | [`timeout_grace`](Self::timeout_grace) | 5 s |
/// | [`max_stuck`](Self::max_stuck) | 8 threads |
/// | [`retention`](Self::retention) | one day for completed, cancelled and discarded jobs |
#[must_use = "a runtime does nothing until it is started"]
pub struct RuntimeBuilder {
    kiln: Kiln,
    queues: Vec<Plan>,
    workers: Registry,
    hooks: Vec<Around>,
    settings: Settings,
    crons: Vec<NewCron>,
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
            rescue_after: None,
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

    /// Rescues jobs of other runtimes by age as well, where the locks of a file system cannot be relied on: an attempt
    /// older than this is taken for abandoned. Unless this is said, age never counts.
    pub fn rescue_after(mut self, age: Duration) -> Self {
        self.settings.rescue_after = Some(age);
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
        // SQLite merges at most 500 sorted lists in one statement, and a claim merges one for each worker.
        let workers = self.workers.names().len();
        if workers > 400 {
            return Err(Error::invalid("worker", format!("a runtime may have 400 workers at the most, got {workers}")));
        }
        if self.queues.is_empty() {
            let threads = thread::available_parallelism().map_or(4, usize::from);
            self.queues.push(Plan::new("default".into(), threads));
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

/// Workers at work on a file's jobs: one scheduler thread, and for each queue as many threads as its limit.
///
/// Several runtimes, in one or in several processes, may share a file. Dropping a runtime stops it without grace;
/// [`stop`](Self::stop) does it well.
pub struct Runtime {
    kiln: Kiln,
    plans: Arc<Mutex<Vec<Plan>>>,
    house: Mutex<Weak<House>>,
    workers: Registry,
    hooks: Vec<Around>,
    settings: Settings,
    crons: Vec<CronEntry>,
    phase: Mutex<Phase>,
}

enum Phase {
    Stopped(Report),
    Started(Started),
}

struct Started {
    house: Arc<House>,
    scheduler: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
}

/// What a [stop](Runtime::stop) came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Jobs that were running, and ended by themselves.
    pub finished: usize,
    /// Jobs that were claimed but had not begun, and were given back.
    pub returned: usize,
    /// Jobs that still ran after the grace and the flag, and were given back. Their threads are on their own; whatever
    /// they still do to the job is void.
    pub cut: usize,
    /// Acks that could not be written: these jobs will be rescued and run again.
    pub unwritten: usize,
}

impl Runtime {
    /// Starts the runtime; nothing happens when it runs already. It may be started again after a stop.
    ///
    /// # Errors
    ///
    /// When the runtime cannot make itself known on the file, or no thread can be made.
    pub fn start(&self) -> Result<()> {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Started(_)) {
            return Ok(());
        }
        let member = Member {
            id: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            node: self.kiln.node().to_owned(),
            workers: self.workers.names(),
            started_at: self.kiln.clock().now(),
        };
        let id = member.id.clone();
        let engine = self.kiln.engine();
        let house = House::new(
            self.kiln.clone(),
            member,
            self.settings,
            self.workers.clone(),
            self.hooks.clone(),
            Arc::clone(&self.plans),
        );
        self.add_crons()?;
        *self.house.lock() = Arc::downgrade(&house);
        engine.join(&house.member, house.clone())?;
        house.first_look();
        let stopping = Arc::new(AtomicBool::new(false));
        let scheduler = thread::Builder::new().name("kiln-scheduler".into()).spawn({
            let keepers = Keepers::new(Arc::clone(&house), self.cron_keeper());
            let stopping = Arc::clone(&stopping);
            move || keepers.run(&stopping)
        });
        match scheduler {
            Ok(scheduler) => {
                engine.turn();
                *phase = Phase::Started(Started { house, scheduler, stopping });
                Ok(())
            }
            Err(error) => {
                let _ = engine.retire(&id);
                engine.leave(&id);
                Err(Error::new(Kind::Runtime, "cannot start the scheduler thread").because(error))
            }
        }
    }

    /// The id of the runtime that runs now, as in a job's [`attempted_by`](crate::Job::attempted_by).
    pub fn id(&self) -> Option<String> {
        self.house.lock().upgrade().map(|house| house.member.id.clone())
    }

    /// Stops: claims nothing more, lets running jobs go on for the [grace](RuntimeBuilder::grace), then asks them to
    /// leave, and a second later gives back what still runs. Every ack of a finished job is written before it returns.
    ///
    /// A runtime that does not run is stopped already: the report is the last one.
    pub fn stop(&self) -> Report {
        self.stop_within(self.settings.grace)
    }

    /// [`stop`](Self::stop) with another grace.
    pub fn stop_within(&self, grace: Duration) -> Report {
        let mut phase = self.phase.lock();
        if let Phase::Started(_) = &*phase
            && let Phase::Started(started) = std::mem::replace(&mut *phase, Phase::Stopped(Report::default()))
        {
            *self.house.lock() = Weak::new();
            *phase = Phase::Stopped(started.stop(grace));
        }
        match &*phase {
            Phase::Stopped(report) => *report,
            Phase::Started(_) => Report::default(),
        }
    }
}

impl Started {
    fn stop(self, grace: Duration) -> Report {
        let house = &self.house;
        let id = &house.member.id;
        let soon = |wait: Duration| Instant::now().checked_add(wait).unwrap_or_else(|| Instant::now() + FOR_EVER);
        house.stop_claiming();
        let running = house.wait_for_runs(Instant::now());
        // Where even this cannot be written, the runtime's row is left for those who will rescue its jobs.
        let _ = house.engine().retire(id);
        let returned = house.give_back_ready();
        // A claim that was under way may have come in meanwhile.
        let running = running.max(returned + house.wait_for_runs(Instant::now()));
        house.engine().turn();
        if house.wait_for_runs(soon(grace)) > 0 {
            house.ask_to_leave();
            house.wait_for_runs(soon(LAST_CALL));
        }
        let cut = house.give_back_running();
        house.lanes.read().iter().for_each(|lane| drop(lane.close()));
        let until = soon(FLUSH);
        loop {
            house.engine().turn();
            if house.unwritten() == 0 || Instant::now() >= until {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.stopping.store(true, Ordering::Release);
        house.alarm.ring();
        if self.scheduler.thread().id() != thread::current().id() {
            let _ = self.scheduler.join();
        }
        let until = soon(LAST_CALL);
        house.lanes.read().iter().for_each(|lane| lane.wait_for_threads(0, until));
        house.engine().leave(id);
        // What could not be written is left with a runtime that is gone: others will rescue it.
        let unwritten = house.unwritten();
        Report { finished: running.saturating_sub(returned + cut), returned, cut, unwritten }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop_within(Duration::ZERO);
    }
}
