//! The handle: everything that can be done with a file of jobs but running them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::dice::Dice;
use crate::error::Result;
use crate::event::{Events, Observers};
use crate::job::{Counts, Fence, Filter, Job, NewJob, Note, Notes, Progress, Ready, Redaction};
use crate::life::enqueue::Enqueue;
use crate::life::{Life, Need};
use crate::store::{self, query};

/// A handle on a file of jobs: cheap to clone, to be shared by all threads.
///
/// It can enqueue, inspect and operate; [`runtime`](Self::runtime) adds the workers. Open a file once in a process and
/// clone the handle: two handles on one file work, but each waits for the other's commits.
#[derive(Clone)]
pub struct Kiln(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub life: Life,
    pub clock: Clock,
    pub dice: Dice,
    pub observers: Observers,
    pub hooks: Vec<Arc<AfterNew>>,
    pub redaction: Redaction,
    pub max_payload: usize,
    pub node: String,
    /// The path as it was given, or `memory`.
    pub target: String,
    /// The cron entries that were fired because the program started.
    pub booted: Mutex<HashSet<String>>,
}

/// A hook that sees each new job before it is stored.
pub(super) type AfterNew = dyn Fn(&mut Job) + Send + Sync;

impl Kiln {
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
        let mut jobs = self.enqueue_many([job])?;
        Ok(jobs.pop().expect("BUG: an enqueue gives back what it was given"))
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
        let (now, jobs) = (self.0.clock.now(), jobs.into_iter());
        // To collect results makes no room ahead, and copies each job once more, a thirtieth of an enqueue of many.
        let mut ready = Vec::with_capacity(jobs.size_hint().0);
        for job in jobs {
            ready.push(self.admit(job, now)?);
        }
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        let mut jobs = self.0.life.write(Need::Durable, Enqueue::new(ready))?.finish();
        if !self.0.redaction.is_usual() {
            jobs.iter_mut().for_each(|job| job.redact(&self.0.redaction));
        }
        self.0.observers.enqueued(&jobs);
        Ok(jobs)
    }

    /// The job as it is to be stored, after the hooks.
    pub(crate) fn build(&self, job: NewJob, now: Timestamp) -> Result<Ready> {
        job.build(now, |job| self.0.hooks.iter().for_each(|hook| hook(job)))
    }

    /// The job as it is to be stored, if it is not too large.
    pub(crate) fn admit(&self, job: NewJob, now: Timestamp) -> Result<Ready> {
        let ready = self.build(job, now)?;
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
        Ok(self.0.life.read(|conn| query::get(conn, id))?.map(|job| self.own(job)))
    }

    /// Everything that happens from here on, as [events](crate::Event) to take when it suits.
    ///
    /// Room for `room` of them is kept, at least for one. An event that finds no room is [missed](Events::missed): nothing
    /// ever waits for the subscriber. To be called at once instead, and to miss nothing, see
    /// [`KilnBuilder::observe`](crate::KilnBuilder::observe).
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::{Kiln, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let events = kiln.subscribe(100);
    /// kiln.enqueue(NewJob::new("greet"))?;
    /// assert_eq!(events.next_within(Duration::ZERO).unwrap().name(), "enqueued");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    #[must_use]
    pub fn subscribe(&self, room: usize) -> Events {
        self.0.observers.subscribe(room)
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
            seen = self.0.life.wait(seen, until.map_or(next, |until| until.min(next)));
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
        let text = self.notes(id)?.progress;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// A page of the jobs that match, in the order of their ids.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn list(&self, filter: Filter) -> Result<Vec<Job>> {
        Ok(self.0.life.read(|conn| query::list(conn, &filter))?.into_iter().map(|job| self.own(job)).collect())
    }

    /// How many jobs match, by queue and state.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn count(&self, filter: Filter) -> Result<Counts> {
        self.0.life.read(|conn| query::count(conn, &filter))
    }

    /// Writes what an attempt notes about itself; says whether the attempt still is the job's.
    pub(crate) fn note(&self, fence: Fence, note: Note) -> Result<bool> {
        self.0.life.call(Need::Durable, move |tx| store::ack::note(tx.conn, fence, &note))
    }

    /// What a job has noted about itself.
    pub(crate) fn notes(&self, id: i64) -> Result<Notes> {
        self.0.life.read(|conn| query::notes(conn, id))
    }

    pub(crate) fn life(&self) -> &Life {
        &self.0.life
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
        f.debug_struct("Kiln").field("place", &self.0.target).field("node", &self.0.node).finish_non_exhaustive()
    }
}
