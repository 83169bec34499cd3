use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Check, Job, Json, Redaction, State, Unique, normalize_tags};
use crate::{Error, Result};

/// A job to be enqueued: built with overrides, validated once when it is enqueued.
///
/// | field | default | may be |
/// | --- | --- | --- |
/// | `worker` | - | not blank |
/// | `args`, `meta` | `{}` | anything serde writes as a JSON object; `()` is `{}`; [1 MiB](crate::KilnBuilder::max_payload) together |
/// | `queue` | `default` | not blank |
/// | `max_attempts` | 20 | at least 1 |
/// | `priority` | 0 | 0 to 9, 0 first |
/// | `tags` | none | trimmed, lower-cased, sorted, doubles and blanks dropped |
/// | `scheduled_at` | now | any time; a job given one starts as `scheduled`, also when it lies in the past |
/// | `expires_at` | never | any time |
/// | `unique` | no | see [`Unique`] |
/// | `state` | `available` | `suspended`, to hold it back; a finished state, to bring history along (which is never pruned) |
///
/// Most jobs are made from a worker, with its defaults: [`Worker::job`](crate::Worker::job).
///
/// ```
/// use std::time::Duration;
/// use kiln::{Kiln, NewJob, State};
/// use serde_json::json;
///
/// let kiln = Kiln::in_memory()?;
/// let job = kiln.enqueue(
///     NewJob::new("app.Mailer")
///         .args(json!({ "to": "a@b.c" }))
///         .queue("mailers")
///         .tags(["Welcome", " new "])
///         .schedule_in(Duration::from_secs(60)),
/// )?;
///
/// assert_eq!(job.state, State::Scheduled);
/// assert_eq!(job.tags, ["new", "welcome"]);
/// # Ok::<(), kiln::Error>(())
/// ```
#[must_use = "a new job does nothing until it is enqueued"]
pub struct NewJob {
    worker: String,
    queue: String,
    args: Result<Json>,
    meta: Result<Json>,
    tags: Vec<String>,
    max_attempts: i64,
    priority: i64,
    due: Due,
    state: Option<State>,
    expires: Option<Due>,
    unique: Option<Unique>,
    extra: Map<String, Value>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// At no time that was said.
    Unsaid,
    In(Duration),
    At(Timestamp),
}

impl NewJob {
    /// A job for the worker of this name, with every default.
    pub fn new(worker: impl Into<String>) -> Self {
        Self {
            worker: worker.into(),
            queue: "default".into(),
            args: Ok(Json::EMPTY),
            meta: Ok(Json::EMPTY),
            tags: Vec::new(),
            max_attempts: 20,
            priority: 0,
            due: Due::Unsaid,
            state: None,
            expires: None,
            unique: None,
            extra: Map::new(),
        }
    }

    /// What the worker is given.
    pub fn args(mut self, args: impl Serialize) -> Self {
        self.args = Json::object("args", &args);
        self
    }

    /// What is noted about the job, for others to read.
    pub fn meta(mut self, meta: impl Serialize) -> Self {
        self.meta = Json::object("meta", &meta);
        self
    }

    /// The queue it waits in.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = queue.into();
        self
    }

    /// How often it is attempted at the most.
    pub fn max_attempts(mut self, max_attempts: i64) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// 0 to 9; 0 goes first.
    pub fn priority(mut self, priority: i64) -> Self {
        self.priority = priority;
        self
    }

    /// Words to find it by; they replace a worker's default tags.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// When it is due.
    pub fn scheduled_at(mut self, at: Timestamp) -> Self {
        self.due = Due::At(at);
        self
    }

    /// How long after the enqueue it is due.
    pub fn schedule_in(mut self, delay: Duration) -> Self {
        self.due = Due::In(delay);
        self
    }

    /// The state it starts in, see the table above.
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// When it is too late to begin: a job not claimed by then is cancelled, with "expired" in its errors.
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.expires = Some(Due::At(at));
        self
    }

    /// How long after the enqueue it is too late to begin.
    pub fn expires_in(mut self, delay: Duration) -> Self {
        self.expires = Some(Due::In(delay));
        self
    }

    /// Stores it only when there is no double of it.
    pub fn unique(mut self, unique: Unique) -> Self {
        self.unique = Some(unique);
        self
    }

    /// Attaches a value for hooks to see. It is never stored.
    pub fn extra(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    /// What the jobs of a cron entry are made from: it says nothing about when one is due.
    pub(super) fn template(self) -> Result<Template> {
        let said = [
            ("scheduled_at", !matches!(self.due, Due::Unsaid)),
            ("expires_at", matches!(self.expires, Some(Due::At(_)))),
            ("state", self.state.is_some()),
            ("extra", !self.extra.is_empty()),
        ];
        if let Some((field, _)) = said.into_iter().find(|(_, said)| *said) {
            return Err(Error::invalid(field, format!("the job of a cron entry must leave {field} unsaid")));
        }
        let unique = self.unique.clone();
        let expires_in = match self.expires {
            Some(Due::In(delay)) => Some(delay),
            _ => None,
        };
        let job = self.build(Timestamp::UNIX_EPOCH, |_| {})?.job;
        Ok(Template { job, unique, expires_in })
    }

    /// When a debounced job is due: nothing else may say so.
    fn debounced(&self, now: Timestamp, delay: Duration) -> Result<Timestamp> {
        let refuse = |message| Err(Error::invalid("unique", message));
        if !matches!(self.due, Due::Unsaid) {
            return refuse("unique with debounce says when the job is due, leave scheduled_at unsaid".to_owned());
        }
        if let Some(state) = self.state.filter(|state| !matches!(state, State::Available | State::Scheduled)) {
            return refuse(format!("unique with debounce is for jobs that are scheduled, got state {state}"));
        }
        match later(now, delay) {
            Some(at) => Ok(whole_micros(at)),
            None => refuse(format!("unique debounce must end before the year 9999, got {delay:?}")),
        }
    }

    /// The row to store, after the hooks and validated, and what to look for before. Its id is 0 until the database gives
    /// one.
    pub(crate) fn build(self, now: Timestamp, hooks: impl FnOnce(&mut Job)) -> Result<Ready> {
        let scheduled_at = match self.unique.as_ref().and_then(Unique::delay) {
            Some(delay) => Some(self.debounced(now, delay)?),
            None => self.due.at(now, "schedule_in")?,
        };
        let expires_at = self.expires.map_or(Ok(None), |expires| expires.at(now, "expires_in"))?;
        let state = match (self.state, scheduled_at) {
            (None | Some(State::Available), None) => State::Available,
            (None | Some(State::Available), Some(_)) => State::Scheduled,
            (Some(state @ (State::Executing | State::Unknown)), _) => {
                return Err(Error::invalid("state", format!("state of a new job must not be {state}")));
            }
            (Some(state), _) => state,
        };
        let mut job = Job {
            id: 0,
            state,
            queue: self.queue,
            worker: self.worker,
            args: self.args?,
            meta: self.meta?,
            tags: self.tags,
            errors: Vec::new(),
            attempt: 0,
            max_attempts: self.max_attempts,
            crashes: 0,
            priority: self.priority,
            attempted_by: Vec::new(),
            inserted_at: now,
            scheduled_at: scheduled_at.unwrap_or(now),
            attempted_at: None,
            completed_at: None,
            cancelled_at: None,
            discarded_at: None,
            cancel_requested_at: None,
            expires_at,
            conflict: false,
            extra: self.extra,
        };
        hooks(&mut job);
        job.tags = normalize_tags(job.tags);
        job.validate()?;
        let check = self.unique.map(|unique| unique.check(&job, now).map(Box::new)).transpose()?;
        Ok(Ready { job, check })
    }
}

/// For logs: it leaves out what sounds like a secret.
impl fmt::Debug for NewJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob")
            .field("worker", &self.worker)
            .field("queue", &self.queue)
            .field("args", &self.args)
            .field("meta", &self.meta)
            .field("tags", &self.tags)
            .field("max_attempts", &self.max_attempts)
            .field("priority", &self.priority)
            .field("due", &self.due)
            .field("state", &self.state)
            .field("expires", &self.expires)
            .field("unique", &self.unique)
            .field("extra", &Redaction::USUAL.map(&self.extra))
            .finish()
    }
}

/// What the jobs of a cron entry have in common.
pub(super) struct Template {
    pub job: Job,
    pub unique: Option<Unique>,
    pub expires_in: Option<Duration>,
}

/// A job that may be stored.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub job: Job,
    pub check: Option<Box<Check>>,
}

impl Ready {
    /// Whether the two differ in nothing that is stored but their arguments.
    pub fn is_like(&self, other: &Ready) -> bool {
        let (a, b) = (&self.job, &other.job);
        (self.check.is_none() && other.check.is_none())
            && (a.state, a.max_attempts, a.priority) == (b.state, b.max_attempts, b.priority)
            && (a.inserted_at, a.scheduled_at, a.expires_at) == (b.inserted_at, b.scheduled_at, b.expires_at)
            && (&a.queue, &a.worker, &a.meta, &a.tags) == (&b.queue, &b.worker, &b.meta, &b.tags)
    }
}

impl Due {
    pub(super) fn at(self, now: Timestamp, field: &'static str) -> Result<Option<Timestamp>> {
        match self {
            Due::Unsaid => Ok(None),
            Due::At(at) => Ok(Some(whole_micros(at))),
            Due::In(delay) => match later(now, delay) {
                Some(at) => Ok(Some(whole_micros(at))),
                None => Err(Error::invalid(field, format!("{field} must end before the year 9999, got {delay:?}"))),
            },
        }
    }
}

/// The file keeps microseconds: what is handed back is what was stored.
pub(super) fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// `now + delay`, where that is a time at all.
pub(super) fn later(now: Timestamp, delay: Duration) -> Option<Timestamp> {
    now.checked_add(delay).ok()
}
