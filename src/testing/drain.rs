//! Workers run by the test itself, one job after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use serde::de::DeserializeOwned;

use super::Hand;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::guard::catch;
use crate::job::{End, Failure, Fence, Filter, Job, NewJob, Outcome, State, backoff};
use crate::kiln::Kiln;
use crate::worker::{Control, Flag, IntoOutcome, Registry, Reporter, Reports, Running, Worker};

/// Workers without threads: [`drain`](Self::drain) executes what waits on the test's own thread, and tells the handle's
/// observers what a runtime tells them; [`perform`](Self::perform) a single job without storing it.
///
/// ```
/// use kiln::testing::Drain;
/// use kiln::{Kiln, NewJob, Running};
///
/// let kiln = Kiln::in_memory()?;
/// kiln.enqueue(NewJob::new("greet"))?;
/// let drain = Drain::new(&kiln).worker_fn("greet", |job: &Running<()>| {
///     job.kiln().enqueue(NewJob::new("wave")).map(|_| ())
/// })?;
/// let drained = drain.worker_fn("wave", |_: &Running<()>| ())?.drain()?;
/// assert_eq!(drained.completed, 2);
/// # Ok::<(), kiln::Error>(())
/// ```
pub struct Drain {
    kiln: Kiln,
    workers: Registry,
    scheduled: bool,
    reraise: bool,
}

/// What became of the jobs of a [drain](Drain::drain): how many attempts ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Completed.
    pub completed: usize,
    /// Failed, to be retried.
    pub retryable: usize,
    /// Failed for good.
    pub discarded: usize,
    /// Cancelled by their worker.
    pub cancelled: usize,
    /// Snoozed.
    pub scheduled: usize,
}

/// A drain writes progress at the end of each job only.
struct NoReminder;

impl Reports for NoReminder {
    fn remind(&self, _: &Arc<Reporter>) {}
}

impl Drain {
    /// Knows no worker yet.
    pub fn new(kiln: &Kiln) -> Self {
        Self { kiln: kiln.clone(), workers: Registry::default(), scheduled: false, reraise: false }
    }

    /// Adds a worker.
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) for a name that was given before.
    pub fn worker<W: Worker>(mut self, worker: W) -> Result<Self> {
        self.workers.add(worker)?;
        Ok(self)
    }

    /// Adds a closure as the worker of this name.
    ///
    /// # Errors
    ///
    /// As [`worker`](Self::worker).
    pub fn worker_fn<A, R, F>(mut self, name: &str, process: F) -> Result<Self>
    where
        A: DeserializeOwned + 'static,
        R: IntoOutcome + 'static,
        F: Fn(&Running<A>) -> R + Send + Sync + 'static,
    {
        self.workers.add_fn(name, process)?;
        Ok(self)
    }

    /// Executes scheduled and retryable jobs as well, as if they were due. A job that always fails is then executed
    /// until it is discarded; one that always snoozes, for ever.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::testing::Drain;
    /// use kiln::{Kiln, NewJob, Running};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.enqueue(NewJob::new("greet").schedule_in(Duration::from_secs(3600)))?;
    /// let drain = Drain::new(&kiln).worker_fn("greet", |_: &Running<()>| ())?;
    /// assert_eq!(drain.drain()?.completed, 0);
    /// assert_eq!(drain.with_scheduled().drain()?.completed, 1);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn with_scheduled(mut self) -> Self {
        self.scheduled = true;
        self
    }

    /// Ends the drain at the first error of a worker, with that error, and passes panics on. Otherwise they become
    /// what they become in a runtime.
    pub fn reraising(mut self) -> Self {
        self.reraise = true;
        self
    }

    /// Executes jobs of all queues, in claim order, until none is left that these workers know: those that are due by the
    /// handle's clock, whether they were scheduled or not. What was paused is executed as well.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::testing::{Drain, ManualClock};
    /// use kiln::{Kiln, NewJob, Running};
    ///
    /// let clock = ManualClock::default();
    /// let kiln = Kiln::memory_builder().clock(&clock).open()?;
    /// let drain = Drain::new(&kiln).worker_fn("remind", |_: &Running<()>| ())?;
    /// kiln.enqueue(NewJob::new("remind").schedule_in(Duration::from_secs(3600)))?;
    /// assert_eq!(drain.drain()?.completed, 0);
    /// clock.advance(Duration::from_secs(3600));
    /// assert_eq!(drain.drain()?.completed, 1);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What the database reports; with [`reraising`](Self::reraising), the first error of a worker.
    pub fn drain(&self) -> Result<Drained> {
        let hand = Hand::new(&self.kiln, self.workers.names());
        let mut drained = Drained::default();
        loop {
            if self.scheduled {
                self.kiln.retry(Filter::new().states([State::Scheduled, State::Retryable]))?;
            }
            let waiting = self.queues(&[State::Scheduled, State::Retryable])?;
            hand.stage(&waiting.iter().map(String::as_str).collect::<Vec<_>>())?;
            let mut idle = true;
            for queue in self.queues(&[State::Available])? {
                for job in hand.claim(&queue, 1)? {
                    idle = false;
                    self.execute(&hand, job, &mut drained)?;
                }
            }
            if idle {
                return Ok(drained);
            }
        }
    }

    /// The queues that have jobs in these states.
    fn queues(&self, states: &[State]) -> Result<BTreeSet<String>> {
        let counts = self.kiln.count(Filter::new().states(states.iter().copied()))?;
        Ok(counts.iter().map(|(queue, _, _)| queue.to_owned()).collect())
    }

    fn execute(&self, hand: &Hand, job: Job, drained: &mut Drained) -> Result<()> {
        let job = Arc::new(self.kiln.own(job));
        let began = Instant::now();
        let result = if self.reraise {
            Ok(self.process(&job, super::fence(&job), false))
        } else {
            catch(|| self.process(&job, super::fence(&job), false))
        };
        let run_time = began.elapsed();
        self.kiln.observers().tell(|| Event::Executed {
            job: (&*job).into(),
            queue_time: job.queue_time(),
            run_time,
            error: match &result {
                Ok(Ok(_)) => None,
                Ok(Err(failure)) => Some(job.shown(&failure.to_string()).into_owned()),
                Err(panic) => Some(job.shown(panic).into_owned()),
            },
        });
        let error = match result {
            Ok(Ok(outcome)) => {
                match &outcome {
                    Outcome::Snooze { .. } => drained.scheduled += 1,
                    Outcome::Cancel { .. } => drained.cancelled += 1,
                    _ => drained.completed += 1,
                }
                hand.settle(&job, End::Outcome(outcome), Some(run_time))?;
                return Ok(());
            }
            Ok(Err(failure)) => failure.to_string(),
            Err(panic) => panic,
        };
        match job.attempt >= job.max_attempts {
            true => drained.discarded += 1,
            false => drained.retryable += 1,
        }
        let own = self.workers.get(&job.worker).and_then(|worker| worker.backoff(&job));
        let draw = self.kiln.dice().draw();
        let delay = own.unwrap_or_else(|| backoff::default_delay(job.attempt, job.max_attempts, draw));
        hand.settle(&job, End::Failed(error.clone(), delay), Some(run_time))?;
        if self.reraise { Err(Error::malformed(format!("{job} failed: {}", job.shown(&error)))) } else { Ok(()) }
    }

    /// Runs one job through its worker, with its arguments written to JSON and read back, and nothing stored. Checkpoints
    /// and steps are kept for this call alone; what [`complete_in`](Running::complete_in) is given is committed without a
    /// job.
    ///
    /// ```
    /// use kiln::testing::Drain;
    /// use kiln::{Filter, Kiln, NewJob, Outcome, Running};
    /// use serde_json::{Value, json};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let drain = Drain::new(&kiln).worker_fn("len", |job: &Running<Value>| Outcome::record(&job.args["of"]))?;
    /// let outcome = drain.perform(NewJob::new("len").args(json!({ "of": "tea" }))).unwrap();
    /// assert_eq!(outcome, Outcome::record("tea")?);
    /// assert_eq!(kiln.count(Filter::new())?.total(), 0);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The worker's own, and that of a job that may not be enqueued.
    pub fn perform(&self, job: NewJob) -> Result<Outcome, Failure> {
        let mut job = self.kiln.build(job, self.kiln.clock().now())?.job;
        job.attempt = 1;
        job.state = State::Executing;
        job.attempted_at = Some(self.kiln.clock().now());
        let fence = super::fence(&job);
        self.process(&Arc::new(self.kiln.own(job)), fence, true)
    }

    fn process(&self, job: &Arc<Job>, fence: Fence, rowless: bool) -> Result<Outcome, Failure> {
        let Some(worker) = self.workers.get(&job.worker) else {
            return Err(format!("worker {:?} is not known to this drain", job.worker).into());
        };
        let reporter = Arc::new(Reporter::new(self.kiln.clone(), Arc::clone(job), fence));
        let control = Control {
            fence,
            flag: Arc::new(Flag::default()),
            deadline: None,
            kiln: self.kiln.clone(),
            reporter,
            reports: Arc::new(NoReminder),
            window: None,
            rowless,
        };
        let result = worker.process(job, &control);
        control.reporter.write();
        result
    }
}
