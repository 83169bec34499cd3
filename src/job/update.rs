use std::mem;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::json::Json;
use super::row::{Job, normalize_tags};
use crate::error::{Error, Result};
use crate::setters::setters;

/// What to change about an existing job. The rest stays as it is. The result is validated like a new job.
///
/// A change of the due time may move the job: an `available` job due later becomes `scheduled`, a `scheduled`
/// job due by now becomes `available`. Jobs in other states only get the new time.
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
    pub(super) args: Option<Result<Json>>,
    pub(super) meta: Option<Result<Json>>,
    pub(super) max_attempts: Option<i64>,
    pub(super) priority: Option<i64>,
    pub(super) queue: Option<String>,
    pub(super) worker: Option<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) due: Option<Due>,
    /// `Some(None)` removes the expiry.
    pub(super) expires: Option<Option<Due>>,
    pub(super) max_payload: Option<usize>,
}

/// A time, or a delay from now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    In(Duration),
    At(Timestamp),
}

impl Due {
    /// The time in whole microseconds, as the file stores it.
    pub fn at(self, now: Timestamp, field: &'static str) -> Result<Timestamp> {
        let at = match self {
            Due::At(at) => at,
            Due::In(delay) => {
                now.checked_add(delay).map_err(|_| Error::must(field, "end before the year 9999", delay))?
            }
        };
        Ok(Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at))
    }
}

impl Changes {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    setters! { changes =>
        /// Replaces the arguments.
        fn args(args: impl Serialize) { changes.args = Some(Json::object("args", &args)) }

        /// Replaces the meta as a whole.
        fn meta(meta: impl Serialize) { changes.meta = Some(Json::object("meta", &meta)) }

        /// How often the job is attempted at most; at least 1.
        fn max_attempts(max_attempts: i64) { changes.max_attempts = Some(max_attempts) }

        /// 0 to 9. Jobs with priority 0 go first.
        fn priority(priority: i64) { changes.priority = Some(priority) }

        /// Moves the job to another queue.
        fn queue(queue: impl Into<String>) { changes.queue = Some(queue.into()) }

        /// When the job is due.
        fn scheduled_at(at: Timestamp) {
            changes.due = changes.due.filter(|due| matches!(due, Due::In(_))).or(Some(Due::At(at)))
        }

        /// How long from now the job is due. It goes before `scheduled_at`.
        fn schedule_in(delay: Duration) { changes.due = Some(Due::In(delay)) }

        /// When it is too late to begin the job; `None` removes the expiry. If the time has passed, a waiting job is
        /// cancelled at its next claim, and an executing job is left to end.
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
        fn expires_at(at: impl Into<Option<Timestamp>>) { changes.expires = Some(at.into().map(Due::At)) }

        /// How long from now it is too late to begin the job.
        fn expires_in(delay: Duration) { changes.expires = Some(Some(Due::In(delay))) }

        /// Replaces the tags.
        fn tags(tags: impl IntoIterator<Item = impl Into<String>>) {
            changes.tags = Some(tags.into_iter().map(Into::into).collect())
        }

        /// Gives the job to another worker.
        fn worker(worker: impl Into<String>) { changes.worker = Some(worker.into()) }
    }

    /// Sets how large the job may be if its arguments or meta change.
    pub(crate) fn within(mut self, max_payload: usize) -> Self {
        self.max_payload = Some(max_payload);
        self
    }

    /// Applies the changes to a row as it was read. After an error `job` is changed in part.
    pub(crate) fn apply(&self, job: &mut Job, now: Timestamp) -> Result<()> {
        self.clone().set(job, now)?;
        job.tags = normalize_tags(mem::take(&mut job.tags));
        job.move_by_schedule(now);
        if let (Some(limit), true) = (self.max_payload, self.args.is_some() || self.meta.is_some()) {
            job.fits(limit)?;
        }
        job.validate()
    }

    /// Sets the fields of a job.
    pub(super) fn set(&mut self, job: &mut Job, now: Timestamp) -> Result<()> {
        fn put<T>(field: &mut T, new: Option<T>) {
            new.into_iter().for_each(|new| *field = new);
        }
        put(&mut job.args, self.args.take().transpose()?);
        put(&mut job.meta, self.meta.take().transpose()?);
        put(&mut job.max_attempts, self.max_attempts.take());
        put(&mut job.priority, self.priority.take());
        put(&mut job.queue, self.queue.take());
        put(&mut job.worker, self.worker.take());
        put(&mut job.tags, self.tags.take());
        put(&mut job.scheduled_at, self.due.take().map(|due| due.at(now, "schedule_in")).transpose()?);
        if let Some(expires) = self.expires.take() {
            job.expires_at = expires.map(|due| due.at(now, "expires_in")).transpose()?;
        }
        Ok(())
    }
}

/// What [`Kiln::update`](crate::Kiln::update) takes: [`Changes`] by value, or a closure from the row as it is now.
pub trait IntoChanges {
    /// The changes for this job.
    fn changes(&mut self, job: &Job) -> Changes;

    /// The changes, if they do not depend on the job.
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
