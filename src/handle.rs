//! The handle: everything that can be done with a file of jobs but running them.

mod builder;
mod care;
mod cron;
mod export;
mod keep;
mod operate;
mod queues;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::dice::Dice;
use crate::engine::Engine;
use crate::event::Observers;
use crate::job::{Counts, Filter, Job, NewJob, Ready, Redaction};
use crate::{Progress, Result};
use builder::{AfterNew, Place};

pub use builder::KilnBuilder;

/// A handle on a file of jobs: cheap to clone, to be shared by all threads.
///
/// It can enqueue, inspect and operate; [`runtime`](Self::runtime) adds the workers. Open a file once in a process and
/// clone the handle: two handles on one file work, but each waits for the other's commits.
#[derive(Clone)]
pub struct Kiln(Arc<Inner>);

struct Inner {
    engine: Arc<dyn Engine>,
    clock: Clock,
    dice: Dice,
    observers: Observers,
    hooks: Vec<Arc<AfterNew>>,
    redaction: Redaction,
    max_payload: usize,
    node: String,
    place: String,
    booted: cron::Booted,
}

impl Kiln {
    /// Opens a file of jobs, creating it (for its owner's eyes only, where the system knows such a thing) when it is
    /// not there. The folder has to exist. An application's own database will do: kiln's tables stand beside its own,
    /// their names begin with `kiln_`, and nothing else changes but the journal mode, which becomes WAL, see
    /// [`KilnBuilder::keep_journal_mode`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let kiln = kiln::Kiln::open(&path)?;
    /// assert_eq!(kiln.count(kiln::Filter::new())?.total(), 0);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_unusable`](crate::Error::is_unusable) for a path that is a directory, not a database, read-only (but see
    /// [`KilnBuilder::read_only`]), on a network or FUSE file system (but see
    /// [`KilnBuilder::allow_network_file_system`]), or in a folder that does not exist;
    /// [`is_incompatible`](crate::Error::is_incompatible) for a file of a newer kiln. Such a file is not touched. Nor is one
    /// of an older kiln that cannot be [copied](KilnBuilder::migrate_without_backup) before it is migrated.
    pub fn open(path: impl AsRef<Path>) -> Result<Kiln> {
        Self::builder(path).open()
    }

    /// Opens a file with other settings than the usual ones.
    pub fn builder(path: impl AsRef<Path>) -> KilnBuilder {
        KilnBuilder::new(Place::File(path.as_ref().to_owned()))
    }

    /// Jobs in memory, gone with the last clone of the handle: for tests.
    ///
    /// # Errors
    ///
    /// When there is no memory left for it.
    pub fn in_memory() -> Result<Kiln> {
        Self::memory_builder().open()
    }

    /// Jobs in memory, with other settings than the usual ones.
    pub fn memory_builder() -> KilnBuilder {
        KilnBuilder::new(Place::Memory)
    }

    /// Stores a job. When it returns, the job survives whatever [`Durability`](crate::Durability) promises.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob, State};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let job = kiln.enqueue(NewJob::new("app.Mailer"))?;
    /// assert_eq!((job.id, job.state), (1, State::Available));
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](crate::Error::is_invalid) for a job that may not be stored, see [`NewJob`];
    /// [`is_busy`](crate::Error::is_busy), [`is_full`](crate::Error::is_full) when the database could not take it. Nothing was
    /// written then. After any other error, that of a disk, the job is not there either, and nobody sees it; only where the
    /// process is killed before anything else is committed may it be found after all, once and as a whole.
    pub fn enqueue(&self, job: NewJob) -> Result<Job> {
        let job = self.admit(job)?;
        let mut jobs = self.store(vec![job])?;
        Ok(jobs.pop().expect("BUG: an engine gives back what it was given"))
    }

    /// Stores many jobs in one transaction, all or none.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let jobs = kiln.enqueue_many((0..3).map(|n| NewJob::new("app.Mailer").priority(n)))?;
    /// assert_eq!(jobs.iter().map(|job| job.priority).collect::<Vec<_>>(), [0, 1, 2]);
    ///
    /// // One that may not be, and none is stored.
    /// assert!(kiln.enqueue_many([NewJob::new("app.Mailer"), NewJob::new(" ")]).unwrap_err().is_invalid());
    /// assert_eq!(kiln.count(kiln::Filter::new())?.total(), 3);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue), for the first job that cannot be stored.
    pub fn enqueue_many(&self, jobs: impl IntoIterator<Item = NewJob>) -> Result<Vec<Job>> {
        let now = self.0.clock.now();
        let given = jobs.into_iter();
        let mut jobs = Vec::with_capacity(given.size_hint().0);
        for job in given {
            jobs.push(self.admit_at(job, now)?);
        }
        if jobs.is_empty() { Ok(Vec::new()) } else { self.store(jobs) }
    }

    /// The job as it is to be stored, after the hooks.
    pub(crate) fn build(&self, job: NewJob) -> Result<Ready> {
        self.build_at(job, self.0.clock.now())
    }

    fn build_at(&self, job: NewJob, now: Timestamp) -> Result<Ready> {
        job.build(now, |job| self.0.hooks.iter().for_each(|hook| hook(job)))
    }

    /// The job as it is to be stored for somebody who stands at the door.
    pub(crate) fn admit(&self, job: NewJob) -> Result<Ready> {
        self.admit_at(job, self.0.clock.now())
    }

    fn admit_at(&self, job: NewJob, now: Timestamp) -> Result<Ready> {
        let ready = self.build_at(job, now)?;
        ready.job.fits(self.0.max_payload)?;
        Ok(ready)
    }

    /// The job as it is handed out: where it is shown, it hides what this handle was told to hide.
    pub(crate) fn own(&self, mut job: Job) -> Job {
        if !self.0.redaction.is_usual() {
            job.redact(&self.0.redaction);
        }
        job
    }

    /// The same for one that is shared; nothing is copied where there is nothing to change.
    pub(crate) fn own_shared(&self, job: &Arc<Job>) -> Arc<Job> {
        if self.0.redaction.is_usual() { Arc::clone(job) } else { Arc::new(self.own(Job::clone(job))) }
    }

    fn store(&self, jobs: Vec<Ready>) -> Result<Vec<Job>> {
        let mut jobs = self.0.engine.enqueue(jobs)?;
        if !self.0.redaction.is_usual() {
            jobs.iter_mut().for_each(|job| job.redact(&self.0.redaction));
        }
        self.0.observers.enqueued(&jobs);
        Ok(jobs)
    }

    /// The job with this id, as it is now.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let id = kiln.enqueue(NewJob::new("app.Mailer"))?.id;
    /// assert_eq!(kiln.get(id)?.unwrap().worker, "app.Mailer");
    /// assert!(kiln.get(id + 1)?.is_none());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn get(&self, id: i64) -> Result<Option<Job>> {
        Ok(self.0.engine.get(id)?.map(|job| self.own(job)))
    }

    /// Waits until a job has finished, wherever it runs, and gives it back; `None` when it has not within `timeout`, or
    /// does not exist.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::{Kiln, NewJob, Running, State};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let job = kiln.enqueue(NewJob::new("greet"))?;
    /// assert!(kiln.wait(job.id, Duration::from_millis(1))?.is_none());
    ///
    /// let runtime = kiln.runtime().worker_fn("greet", |_: &Running<()>| ()).start()?;
    /// let job = kiln.wait(job.id, Duration::MAX)?.unwrap();
    /// assert_eq!(job.state, State::Completed);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn wait(&self, id: i64, timeout: Duration) -> Result<Option<Job>> {
        // What other processes commit is not told here: look now and then.
        const LOOK: Duration = Duration::from_millis(50);
        let until = Instant::now().checked_add(timeout);
        let mut seen = 0;
        loop {
            let looked = Instant::now();
            match self.get(id)? {
                Some(job) if !job.state.is_finished() => {}
                found => return Ok(found),
            }
            if until.is_some_and(|until| looked >= until) {
                return Ok(None);
            }
            let next = looked + LOOK;
            seen = self.0.engine.wait(seen, until.map_or(next, |until| until.min(next)));
        }
    }

    /// Waits as [`wait`](Self::wait) does, for the value that the job [recorded](crate::Outcome::record); `None` also when
    /// it finished without one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::{Kiln, NewJob, Outcome, Running};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().worker_fn("answer", |_: &Running<()>| Outcome::record(&42)).start()?;
    /// let job = kiln.enqueue(NewJob::new("answer"))?;
    /// assert_eq!(kiln.wait_result::<u32>(job.id, Duration::MAX)?, Some(42));
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_malformed`](crate::Error::is_malformed) when the value is no `T`, and when the database cannot be read.
    pub fn wait_result<T: DeserializeOwned>(&self, id: i64, timeout: Duration) -> Result<Option<T>> {
        self.wait(id, timeout)?.map_or(Ok(None), |job| job.recorded())
    }

    /// How far a job is, as its worker [last said](crate::Running::progress), in whatever process; `None` when it said
    /// nothing, or the job does not exist.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::{Kiln, NewJob, Running};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().worker_fn("copy", |job: &Running<()>| job.progress(7, 9, "a.png")).start()?;
    /// let job = kiln.enqueue(NewJob::new("copy"))?;
    /// kiln.wait(job.id, Duration::MAX)?;
    /// assert_eq!(kiln.progress(job.id)?.unwrap().to_string(), "7/9 a.png");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn progress(&self, id: i64) -> Result<Option<Progress>> {
        let text = self.0.engine.notes(id)?.progress;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// A page of the jobs that match, in the order of their ids.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn list(&self, filter: Filter) -> Result<Vec<Job>> {
        Ok(self.0.engine.list(&filter)?.into_iter().map(|job| self.own(job)).collect())
    }

    /// How many jobs match, by queue and state.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn count(&self, filter: Filter) -> Result<Counts> {
        self.0.engine.count(&filter)
    }

    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.0.engine
    }

    pub(crate) fn dice(&self) -> &Dice {
        &self.0.dice
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.0.observers
    }

    pub(crate) fn node(&self) -> &str {
        &self.0.node
    }
}

impl fmt::Debug for Kiln {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kiln").field("place", &self.0.place).field("node", &self.0.node).finish_non_exhaustive()
    }
}
