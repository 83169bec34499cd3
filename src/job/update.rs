use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::new::{Due, later, whole_micros};
use super::{Job, Json, normalize_tags};
use crate::{Error, Result};

/// What to change about a job that exists; the rest stays. Validated as a new job is.
///
/// A change moves the job where its due time says so: an `available` job due later becomes `scheduled`, a `scheduled`
/// one due by now becomes `available`. Jobs in other states only get the new time.
///
/// ```
/// use kiln::{Changes, Kiln, NewJob};
///
/// let kiln = Kiln::in_memory()?;
/// let job = kiln.enqueue(NewJob::new("app.Mailer").priority(5))?;
///
/// kiln.update(job.id, Changes::new().queue("urgent").tags(["vip"]))?;
/// kiln.update(job.id, |job: &kiln::Job| Changes::new().priority(job.priority - 1))?;
///
/// let job = kiln.get(job.id)?.unwrap();
/// assert_eq!((job.queue.as_str(), job.priority), ("urgent", 4));
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "changes do nothing until they are handed to `update`"]
pub struct Changes {
    args: Option<Result<Json, Refused>>,
    max_attempts: Option<i64>,
    meta: Option<Result<Json, Refused>>,
    priority: Option<i64>,
    queue: Option<String>,
    scheduled_at: Option<Timestamp>,
    schedule_in: Option<Duration>,
    expires: Option<Due>,
    tags: Option<Vec<String>>,
    worker: Option<String>,
    max_payload: Option<usize>,
}

/// What was wrong with a value, kept until the changes are made.
#[derive(Clone, Debug)]
struct Refused(&'static str, String);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused(error.field().unwrap_or_default(), error.to_string())
    }
}

impl Changes {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the arguments.
    pub fn args(mut self, args: impl Serialize) -> Self {
        self.args = Some(Json::object("args", &args).map_err(Refused::from));
        self
    }

    /// Replaces the meta as a whole.
    pub fn meta(mut self, meta: impl Serialize) -> Self {
        self.meta = Some(Json::object("meta", &meta).map_err(Refused::from));
        self
    }

    /// How often it is attempted at the most; at least 1.
    pub fn max_attempts(mut self, max_attempts: i64) -> Self {
        self.max_attempts = Some(max_attempts);
        self
    }

    /// 0 to 9; 0 goes first.
    pub fn priority(mut self, priority: i64) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Moves the job to another queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// When it is due.
    pub fn scheduled_at(mut self, at: Timestamp) -> Self {
        self.scheduled_at = Some(at);
        self
    }

    /// How long from now it is due; goes before `scheduled_at`.
    pub fn schedule_in(mut self, delay: Duration) -> Self {
        self.schedule_in = Some(delay);
        self
    }

    /// When it is too late to begin; `None` takes an expiry away. With one that has passed, a job that waits is
    /// cancelled at its next claim; one that executes is left to end.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::{Changes, Kiln, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let job = kiln.enqueue(NewJob::new("app.Ring").expires_in(Duration::from_secs(60)))?;
    /// kiln.update(job.id, Changes::new().expires_at(None))?;
    /// assert_eq!(kiln.get(job.id)?.unwrap().expires_at, None);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn expires_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.expires = Some(at.into().map_or(Due::Unsaid, Due::At));
        self
    }

    /// How long from now it is too late to begin.
    pub fn expires_in(mut self, delay: Duration) -> Self {
        self.expires = Some(Due::In(delay));
        self
    }

    /// Replaces the tags.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags = Some(tags.into_iter().map(Into::into).collect());
        self
    }

    /// Gives the job to another worker.
    pub fn worker(mut self, worker: impl Into<String>) -> Self {
        self.worker = Some(worker.into());
        self
    }

    /// Sets how large a job may be that is given other arguments or meta.
    pub(crate) fn within(mut self, max_payload: usize) -> Self {
        self.max_payload = Some(max_payload);
        self
    }

    /// Applies the changes to a row as it was read; `job` is spoilt where this fails.
    pub(crate) fn apply(&self, job: &mut Job, now: Timestamp) -> Result<()> {
        let json = |json: &Option<Result<Json, Refused>>, old: &mut Json| match json {
            Some(Ok(json)) => {
                *old = json.clone();
                Ok(())
            }
            Some(Err(Refused(field, message))) => Err(Error::invalid(field, message.clone())),
            None => Ok(()),
        };
        json(&self.args, &mut job.args)?;
        json(&self.meta, &mut job.meta)?;
        if let (Some(limit), true) = (self.max_payload, self.args.is_some() || self.meta.is_some()) {
            job.fits(limit)?;
        }
        let due = match (self.schedule_in, self.scheduled_at) {
            (Some(delay), _) => Some(later(now, delay).ok_or_else(|| {
                Error::invalid("schedule_in", format!("schedule_in must end before the year 9999, got {delay:?}"))
            })?),
            (None, at) => at,
        };
        job.scheduled_at = due.map_or(job.scheduled_at, whole_micros);
        job.move_by_schedule(now);
        if let Some(expires) = self.expires {
            job.expires_at = expires.at(now, "expires_in")?;
        }
        job.max_attempts = self.max_attempts.unwrap_or(job.max_attempts);
        job.priority = self.priority.unwrap_or(job.priority);
        if let Some(queue) = &self.queue {
            job.queue.clone_from(queue);
        }
        if let Some(worker) = &self.worker {
            job.worker.clone_from(worker);
        }
        if let Some(tags) = &self.tags {
            job.tags = normalize_tags(tags.iter().cloned());
        }
        job.validate()
    }
}

/// What [`Kiln::update`](crate::Kiln::update) takes: [`Changes`] by value, or a closure from the row as it is now.
pub trait IntoChanges {
    /// The changes for this job.
    fn changes(&mut self, job: &Job) -> Changes;

    /// The changes, where they do not depend on the job.
    fn by_value(&self) -> Option<&Changes> {
        None
    }
}

impl IntoChanges for Changes {
    fn changes(&mut self, _: &Job) -> Changes {
        std::mem::take(self)
    }

    fn by_value(&self) -> Option<&Changes> {
        Some(self)
    }
}

impl<F: FnMut(&Job) -> Changes> IntoChanges for F {
    fn changes(&mut self, job: &Job) -> Changes {
        self(job)
    }
}
