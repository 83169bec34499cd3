use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::json::Json;
use super::redact::Redaction;
use super::row::{Job, normalize_tags};
use super::state::State;
use super::unique::{Check, Unique};
use super::update::{Changes, Due};
use crate::error::{Error, Result};
use crate::setters::setters;

/// A job to be enqueued: built with overrides, validated once when it is enqueued.
///
/// | field | default | may be |
/// | --- | --- | --- |
/// | `worker` | - | not blank |
/// | `args`, `meta` | `{}` | anything serde writes as a JSON object; `()` is `{}`; [1 MiB](crate::KilnBuilder::max_payload) together |
/// | `queue` | `default` | not blank |
/// | `max_attempts` | 20 | at least 1 |
/// | `priority` | 0 | 0 to 9, 0 first |
/// | `tags` | none | trimmed, lower-cased, sorted, duplicates and blanks dropped |
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
    /// What the job has instead of the defaults.
    said: Changes,
    state: Option<State>,
    unique: Option<Unique>,
    extra: Map<String, Value>,
}

impl NewJob {
    /// A job for the worker of this name, with every default.
    pub fn new(worker: impl Into<String>) -> Self {
        let said = Changes { worker: Some(worker.into()), ..Changes::default() };
        Self { said, state: None, unique: None, extra: Map::new() }
    }

    setters! { job =>
        /// The arguments for the worker.
        fn args(args: impl Serialize) { job.said.args = Some(Json::object("args", &args)) }

        /// Notes about the job, for others to read.
        fn meta(meta: impl Serialize) { job.said.meta = Some(Json::object("meta", &meta)) }

        /// The queue that the job waits in.
        fn queue(queue: impl Into<String>) { job.said.queue = Some(queue.into()) }

        /// How often the job is attempted at most.
        fn max_attempts(max_attempts: i64) { job.said.max_attempts = Some(max_attempts) }

        /// 0 to 9. Jobs with priority 0 go first.
        fn priority(priority: i64) { job.said.priority = Some(priority) }

        /// Words to find the job by. They replace the worker's default tags.
        fn tags(tags: impl IntoIterator<Item = impl Into<String>>) {
            job.said.tags = Some(tags.into_iter().map(Into::into).collect())
        }

        /// When the job is due.
        fn scheduled_at(at: Timestamp) { job.said.due = Some(Due::At(at)) }

        /// How long after the enqueue the job is due.
        fn schedule_in(delay: Duration) { job.said.due = Some(Due::In(delay)) }

        /// The state that the job starts in, see the table above.
        fn state(state: State) { job.state = Some(state) }

        /// When it is too late to begin the job. A job that is not claimed by then is cancelled, with "expired" in its
        /// errors.
        fn expires_at(at: Timestamp) { job.said.expires = Some(Some(Due::At(at))) }

        /// How long after the enqueue it is too late to begin the job.
        fn expires_in(delay: Duration) { job.said.expires = Some(Some(Due::In(delay))) }

        /// Stores the job only if it has no duplicate.
        fn unique(unique: Unique) { job.unique = Some(unique) }

        /// Attaches a value for hooks. The value is never stored.
        fn extra(key: impl Into<String>, value: impl Into<Value>) { job.extra.insert(key.into(), value.into()) }
    }

    /// The template for the jobs of a cron entry: the job, its uniqueness, and when it expires. A template must not say
    /// when a job is due.
    pub(super) fn template(self) -> Result<(Job, Option<Unique>, Option<Duration>)> {
        let expires_in = match self.said.expires {
            Some(Some(Due::In(delay))) => Some(delay),
            _ => None,
        };
        let said = [
            ("scheduled_at", self.said.due.is_some()),
            ("expires_at", self.said.expires.is_some() && expires_in.is_none()),
            ("state", self.state.is_some()),
            ("extra", !self.extra.is_empty()),
        ];
        if let Some((field, _)) = said.into_iter().find(|(_, said)| *said) {
            return Err(Error::invalid(field, format!("the job of a cron entry must leave {field} unsaid")));
        }
        let unique = self.unique.clone();
        Ok((self.build(Timestamp::UNIX_EPOCH, |_| {})?.job, unique, expires_in))
    }

    /// When a debounced job is due. The job must not say so itself.
    fn debounced(&self, now: Timestamp, delay: Duration) -> Result<Due> {
        let refuse = |message| Err(Error::invalid("unique", message));
        if self.said.due.is_some() {
            return refuse("unique with debounce says when the job is due, leave scheduled_at unsaid".to_owned());
        }
        if let Some(state) = self.state.filter(|state| !matches!(state, State::Available | State::Scheduled)) {
            return refuse(format!("unique with debounce is for jobs that are scheduled, got state {state}"));
        }
        match now.checked_add(delay) {
            Ok(at) => Ok(Due::At(at)),
            Err(_) => refuse(format!("unique debounce must end before the year 9999, got {delay:?}")),
        }
    }

    /// The row to store, after the hooks and validated, and the check for duplicates. The id is 0 until the database
    /// gives an id.
    pub(crate) fn build(mut self, now: Timestamp, hooks: impl FnOnce(&mut Job)) -> Result<Ready> {
        if let Some(delay) = self.unique.as_ref().and_then(Unique::delay) {
            self.said.due = Some(self.debounced(now, delay)?);
        }
        let state = match self.state.unwrap_or(State::Available) {
            State::Available if self.said.due.is_some() => State::Scheduled,
            state @ (State::Executing | State::Unknown) => {
                return Err(Error::invalid("state", format!("state of a new job must not be {state}")));
            }
            state => state,
        };
        let mut job = Job {
            state,
            queue: "default".into(),
            max_attempts: 20,
            inserted_at: now,
            scheduled_at: now,
            extra: self.extra,
            ..Job::blank()
        };
        self.said.set(&mut job, now)?;
        hooks(&mut job);
        job.tags = normalize_tags(job.tags);
        job.validate()?;
        let check = self.unique.map(|unique| unique.check(&job, now).map(Box::new)).transpose()?;
        Ok(Ready { job, check })
    }
}

/// For logs. Values that sound like secrets are left out.
impl fmt::Debug for NewJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = Redaction::USUAL.map(&self.extra);
        let mut shown = f.debug_struct("NewJob");
        shown.field("said", &self.said).field("state", &self.state);
        shown.field("unique", &self.unique).field("extra", &extra).finish()
    }
}

/// A job that may be stored.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub job: Job,
    pub check: Option<Box<Check>>,
}

impl Ready {
    /// Whether the arguments are all that differs between the two stored jobs.
    pub fn is_like(&self, other: &Ready) -> bool {
        let (a, b) = (&self.job, &other.job);
        (self.check.is_none() && other.check.is_none())
            && (a.state, a.max_attempts, a.priority) == (b.state, b.max_attempts, b.priority)
            && (a.inserted_at, a.scheduled_at, a.expires_at) == (b.inserted_at, b.scheduled_at, b.expires_at)
            && (&a.queue, &a.worker, &a.meta, &a.tags) == (&b.queue, &b.worker, &b.meta, &b.tags)
    }
}
