//! For tests: a clock to turn by hand, and a runtime without threads. Needs the feature `testing`.

use std::collections::{BTreeSet, HashSet};
mod assertions;
mod drain;
mod scratch;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

pub use assertions::{Wanted, assert_enqueued, refute_enqueued};
pub use drain::{Drain, Drained};
pub use scratch::Scratch;

pub use crate::clock::ManualClock;
use crate::error::Result;
use crate::event::Event;
use crate::job::{Ack, Attempt, End, Fence, Job, Json, Outcome, Verdict};
use crate::kiln::Kiln;
use crate::life::claim::{ClaimState, by_hand};
use crate::life::sweep::Cutoffs;
use crate::life::{Claimed, Demand, Done, Member, Need, Part};
use crate::runtime::Crons;

/// A runtime without threads: the verbs a runtime does by itself, called by hand, at the time of the handle's clock.
///
/// Nothing here is rescued or pruned unless it is told to. It is no runtime for others on the file: what it claims
/// belongs to a runtime that is dead. Each verb tells the handle's observers what a runtime tells them.
///
/// ```
/// use kiln::testing::Hand;
/// use kiln::{Kiln, NewJob, Outcome, State};
///
/// let kiln = Kiln::in_memory()?;
/// let id = kiln.enqueue(NewJob::new("app.Mailer"))?.id;
///
/// let hand = Hand::new(&kiln, ["app.Mailer"]);
/// let job = hand.claim("default", 1)?.remove(0);
/// assert_eq!((job.id, job.state), (id, State::Executing));
///
/// assert!(hand.ack(&job, Outcome::Complete)?);
/// assert_eq!(kiln.get(id)?.unwrap().state, State::Completed);
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone)]
pub struct Hand {
    kiln: Kiln,
    member: Arc<Member>,
}

impl Hand {
    /// A runtime that knows these workers.
    pub fn new(kiln: &Kiln, workers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        // A name said twice must not claim twice.
        let workers: BTreeSet<String> = workers.into_iter().map(Into::into).collect();
        let member = Member {
            id: kiln.dice().name(),
            node: kiln.node().to_owned(),
            workers: workers.into_iter().collect(),
            started_at: kiln.clock().now(),
            damaged: Arc::default(),
        };
        Self { kiln: kiln.clone(), member: Arc::new(member) }
    }

    /// Claims up to `limit` jobs of a queue, in claim order, and cancels those before them that have expired.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; so with every verb here.
    pub fn claim(&self, queue: &str, limit: usize) -> Result<Vec<Job>> {
        loop {
            let demands = vec![Demand { queue: queue.into(), limit, slots: limit }];
            let done = self.turn(Vec::new(), demands)?;
            let observers = self.kiln.observers();
            done.expired.iter().for_each(|job| observers.tell(|| Event::Expired { job: job.into() }));
            for Claimed { job, .. } in &done.claimed {
                observers.tell(|| Event::Claimed { job: job.into(), queue_time: job.queue_time() });
            }
            // A turn gets past so many expired jobs and no more.
            if !done.more || !done.claimed.is_empty() {
                return Ok(done.claimed.into_iter().map(|Claimed { job, .. }| job).collect());
            }
        }
    }

    /// Acknowledges a claimed job with an outcome; says whether the attempt still was the job's.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn ack(&self, job: &Job, outcome: Outcome) -> Result<bool> {
        self.settle(job, End::Outcome(outcome), None)
    }

    /// Acknowledges a claimed job with an error, to be retried after `delay` where an attempt is left.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn fail(&self, job: &Job, error: &str, delay: Duration) -> Result<bool> {
        self.settle(job, End::Failed(error.to_owned(), delay), None)
    }

    /// Acknowledges a claimed job with an error that discards it, whatever attempts are left.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn discard(&self, job: &Job, error: &str) -> Result<bool> {
        self.write(job, Verdict::Discard { error: error.to_owned() }, None)
    }

    /// Gives a claimed job back, as a stop does.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn release(&self, job: &Job) -> Result<bool> {
        self.settle(job, End::Interrupted, None)
    }

    /// Abandons a claimed job, as the rescue of a dead runtime's jobs does.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn abandon(&self, job: &Job) -> Result<bool> {
        self.write(job, Verdict::Abandon { error: "abandoned by hand".to_owned() }, None)
    }

    /// Makes due jobs of these queues available; says how many.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn stage(&self, queues: &[&str]) -> Result<u64> {
        let queues: Vec<String> = queues.iter().map(|&queue| queue.to_owned()).collect();
        all(|| Ok(self.kiln.stage(&queues, BATCH)?.0))
    }

    /// Fires the cron entries that are due; gives back the jobs it made. No entry is due for `@reboot` here.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::testing::{Hand, ManualClock};
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let clock = ManualClock::at("2026-03-02T08:30:00Z".parse()?);
    /// let kiln = Kiln::memory_builder().clock(&clock).open()?;
    /// kiln.cron(NewCron::new("@hourly", NewJob::new("app.Digest")))?;
    ///
    /// let hand = Hand::new(&kiln, ["app.Digest"]);
    /// assert_eq!(hand.fire()?.len(), 0);
    /// clock.advance(Duration::from_secs(30 * 60));
    /// assert_eq!(hand.fire()?.len(), 1);
    /// assert_eq!(hand.fire()?.len(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn fire(&self) -> Result<Vec<Job>> {
        Crons::new(&self.kiln, HashSet::new()).tick(self.now())
    }

    /// Rescues the jobs of runtimes that are dead; says how many.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn rescue(&self) -> Result<u64> {
        all(|| self.kiln.rescue(BATCH))
    }

    /// Rescues the jobs claimed longer ago than `age`; says how many.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn rescue_older(&self, age: Duration) -> Result<u64> {
        let before = self.now().checked_sub(age).unwrap_or(Timestamp::MIN);
        all(|| self.kiln.rescue_older(before, BATCH))
    }

    /// Deletes the jobs that ended longer ago than `age`; says how many.
    #[expect(clippy::missing_errors_doc, reason = "see claim")]
    pub fn prune(&self, age: Duration) -> Result<u64> {
        let before = self.now().checked_sub(age).ok();
        let cutoffs = Cutoffs { completed: before, cancelled: before, discarded: before };
        all(|| Ok(self.kiln.prune(&cutoffs, BATCH)?.0))
    }

    fn settle(&self, job: &Job, end: End, run_time: Option<Duration>) -> Result<bool> {
        let attempt = Attempt { fence: fence(job), max_attempts: job.max_attempts };
        self.write(job, attempt.ack(end, self.now()).verdict, run_time)
    }

    fn write(&self, job: &Job, verdict: Verdict, run_time: Option<Duration>) -> Result<bool> {
        let ack = Ack { fence: fence(job), verdict };
        let done = self.turn(vec![ack.clone()], Vec::new())?;
        let state = done.acked.into_iter().next().flatten();
        let error = ack.error_in(state).map(str::to_owned);
        self.kiln.observers().tell(|| {
            let error = error.map(|error| self.kiln.own(job.clone()).shown(&error).into_owned());
            Event::Acked { job: job.into(), state, queue_time: job.queue_time(), run_time, error }
        });
        Ok(state.is_some())
    }

    fn turn(&self, acks: Vec<Ack>, demands: Vec<Demand>) -> Result<Done> {
        let runtime = Arc::clone(&self.member);
        let part = Part { runtime, now: self.now(), acks, demands, held: HashSet::new() };
        self.kiln.life().call(Need::Ride, move |tx| by_hand(tx, &part, &mut ClaimState::default()))
    }

    fn now(&self) -> Timestamp {
        self.kiln.clock().now()
    }
}

/// How many jobs a transaction of a [`Hand`] changes at the most.
const BATCH: u32 = 1000;

/// Batch after batch until one is not full; says to how many jobs anything was done. What fits in a batch is all done or not
/// at all.
fn all(batch: impl Fn() -> Result<u64>) -> Result<u64> {
    let mut all = 0;
    loop {
        let count = batch()?;
        all += count;
        if count < BATCH.into() {
            return Ok(all);
        }
    }
}

/// The fence of the attempt that a job, as it was read, is in.
pub fn fence(job: &Job) -> Fence {
    let attempted_at = job.attempted_at.map_or(0, Timestamp::as_microsecond);
    Fence { id: job.id, attempt: job.attempt, attempted_at }
}

/// Encodes a value as a job records it.
///
/// # Errors
///
/// As [`Outcome::record`].
pub fn encode_recorded(value: &Value) -> Result<String> {
    match Outcome::record(value)? {
        Outcome::Record { encoded } => Ok(encoded),
        other => unreachable!("BUG: recording came to {other:?}"),
    }
}

/// Decodes a value that a job recorded.
///
/// # Errors
///
/// [`is_malformed`](crate::Error::is_malformed) when it is damaged.
pub fn decode_recorded(encoded: &str) -> Result<Value> {
    crate::job::decode_recorded(encoded)
}

/// What a row becomes when an attempt at it ends: the pure rule, without a database.
pub fn settle(attempt: i64, max_attempts: i64, meta: &Value, end: Result<Outcome, (&str, Duration)>) -> Rule {
    let now = ManualClock::default().now();
    let fence = Fence { id: 1, attempt, attempted_at: 0 };
    let end = match end {
        Ok(outcome) => End::Outcome(outcome),
        Err((error, delay)) => End::Failed(error.to_owned(), delay),
    };
    let row = crate::job::Standing {
        attempt,
        max_attempts,
        meta: Json::from(meta.clone()),
        errors: "[]".to_owned(),
        cancel_requested: false,
        crashes: 0,
        resumes: 0,
    };
    let settled = Attempt { fence, max_attempts }.ack(end, now).settle(&row, now);
    Rule {
        state: settled.state,
        attempt: settled.attempt,
        delay: settled.scheduled_at.map(|at| at.duration_since(now).as_secs()),
        meta: settled.meta.map(|meta| meta.value()),
        errors: settled.errors.map(|errors| serde_json::from_str(&errors).unwrap_or_default()),
    }
}

/// What [`settle`] says; `None` where a column stays as it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// The state.
    pub state: crate::job::State,
    /// The attempt's number.
    pub attempt: i64,
    /// In how many seconds the job is due.
    pub delay: Option<i64>,
    /// The meta as a whole.
    pub meta: Option<Value>,
    /// The errors as a whole, as they are stored.
    pub errors: Option<Value>,
}
