use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::errors::JobError;
use super::json::Json;
use super::recorded;
use super::redact::Redaction;
use super::state::State;
use crate::error::{Error, Result};

/// A job: one row, and with it the whole history of a piece of work.
///
/// A `Job` is a copy of the row as it was read. A row is not validated when it is read, so that a row that something
/// else wrote or damaged can still be shown. [`NewJob`](crate::NewJob) describes what is stored, and the
/// [guide](crate::guide::life) what happens to a job.
///
/// ```
/// use kiln::{Kiln, NewJob, State};
/// use serde_json::json;
///
/// let kiln = Kiln::in_memory()?;
/// let job = kiln.enqueue(NewJob::new("app.Mailer").args(json!({ "to": "a@b.c" })).queue("mailers"))?;
///
/// assert_eq!(job.state, State::Available);
/// assert_eq!(job.to_string(), r#"Job(id=1, worker=Mailer, args={"to":"a@b.c"}, queue=mailers, state=available)"#);
/// # Ok::<(), kiln::Error>(())
/// ```
///
/// `Display` and `Debug` are for logs: they leave out what sounds like a secret, see
/// [`KilnBuilder::redact`](crate::KilnBuilder::redact). The fields themselves hold everything.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Job {
    /// The id that the database gave. No id is given twice. (A plain `INSERT` of another program may get the id of a
    /// deleted job that was the newest.)
    pub id: i64,
    /// The state of the job.
    pub state: State,
    /// The queue that the job waits in.
    pub queue: String,
    /// The [`NAME`](crate::Worker::NAME) of the worker that executes it.
    pub worker: String,
    /// The arguments for the worker: a JSON object.
    pub args: Json,
    /// Notes about the job, for others to read: a JSON object.
    pub meta: Json,
    /// The tags: trimmed, lower-cased, without duplicates, sorted.
    pub tags: Vec<String>,
    /// The errors of the attempts, oldest first. The first 3 and the last 17 are kept.
    pub errors: Vec<JobError>,
    /// How often the job was claimed, not counting attempts that were given back. 0 for a job that was never claimed.
    pub attempt: i64,
    /// If the attempt with this number fails, the job is discarded.
    pub max_attempts: i64,
    /// How often its process died soon after the job had begun, since an attempt last ended in an ordinary way or stored a
    /// checkpoint. From 2 on, a process executes the job only while it executes no other such job, see
    /// [`RuntimeBuilder::max_crashes`](crate::RuntimeBuilder::max_crashes).
    pub crashes: i64,
    /// 0 to 9. Jobs with priority 0 go first.
    pub priority: i64,
    /// The runtime that claimed the job last: the node's name, then the runtime's id. Empty for a job that was never
    /// claimed.
    pub attempted_by: Vec<String>,
    /// When the job was enqueued.
    pub inserted_at: Timestamp,
    /// When the job is due, or was due.
    pub scheduled_at: Timestamp,
    /// When the job was claimed last.
    pub attempted_at: Option<Timestamp>,
    /// When the job completed.
    pub completed_at: Option<Timestamp>,
    /// When the job was cancelled.
    pub cancelled_at: Option<Timestamp>,
    /// When the job was discarded.
    pub discarded_at: Option<Timestamp>,
    /// When somebody asked to cancel the job while it was executing. The job never runs again after that.
    pub cancel_requested_at: Option<Timestamp>,
    /// When it is too late to begin the job: from then on, a claim cancels it instead.
    pub expires_at: Option<Timestamp>,
    /// Whether an enqueue found this job instead of storing its own, see [`Unique`](crate::Unique). Only set on a job
    /// that an enqueue returns.
    pub conflict: bool,
    /// Values that the enqueuer attached for hooks. Only set on a job that was just enqueued, and never stored.
    pub extra: Map<String, Value>,
}

impl Job {
    /// A job of which nothing is known: what a new job and a row that is read begin with.
    pub(crate) fn blank() -> Job {
        Job {
            id: 0,
            state: State::Unknown,
            queue: String::new(),
            worker: String::new(),
            args: Json::EMPTY,
            meta: Json::EMPTY,
            tags: Vec::new(),
            errors: Vec::new(),
            attempt: 0,
            max_attempts: 0,
            crashes: 0,
            priority: 0,
            attempted_by: Vec::new(),
            inserted_at: Timestamp::UNIX_EPOCH,
            scheduled_at: Timestamp::UNIX_EPOCH,
            attempted_at: None,
            completed_at: None,
            cancelled_at: None,
            discarded_at: None,
            cancel_requested_at: None,
            expires_at: None,
            conflict: false,
            extra: Map::new(),
        }
    }

    /// The value that the job recorded when it completed, see [`Outcome::record`](crate::Outcome::record). `None` if it
    /// recorded none.
    ///
    /// # Errors
    ///
    /// [`is_malformed`](Error::is_malformed) if the stored value is damaged or is not a `T`.
    pub fn recorded<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        match self.meta.get("return") {
            Some(Value::String(encoded)) if self.meta.get("recorded") == Some(Value::Bool(true)) => {
                recorded::decode(&encoded).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Sets which values are left out when the job is shown.
    pub(crate) fn redact(&mut self, redaction: &Redaction) {
        self.args.redact(redaction);
        self.meta.redact(redaction);
    }

    /// A text about the job, without the values that are left out. An error may quote the arguments of its job.
    pub(crate) fn shown<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.args.redaction().text(text, &[self.args.as_str(), self.meta.as_str()])
    }

    /// How long a claimed job had been due.
    pub(crate) fn queue_time(&self) -> Duration {
        let claimed_at = self.attempted_at.unwrap_or(self.scheduled_at);
        Duration::try_from(claimed_at.duration_since(self.scheduled_at)).unwrap_or_default()
    }

    /// About how many bytes of memory the job takes.
    pub(crate) fn bytes(&self) -> usize {
        let errors: usize = self.errors.iter().map(|error| error.error.len()).sum();
        let tags: usize = self.tags.iter().map(String::len).sum();
        let entries = size_of_val(&*self.errors) + size_of_val(&*self.tags);
        self.args.as_str().len() + self.meta.as_str().len() + errors + tags + entries
    }

    /// Checks that `args` and `meta` together have at most `limit` bytes.
    pub(crate) fn fits(&self, limit: usize) -> Result<()> {
        fits(&self.worker, &self.args, &self.meta, limit)
    }

    /// Moves a waiting job to the state that its due time asks for.
    pub(super) fn move_by_schedule(&mut self, now: Timestamp) {
        self.state = match self.state {
            State::Available if self.scheduled_at > now => State::Scheduled,
            State::Scheduled if self.scheduled_at <= now => State::Available,
            state => state,
        };
    }

    /// Checks that the job may be stored. A new job and a changed job follow the same rules.
    pub(crate) fn validate(&self) -> Result<()> {
        Error::if_blank("queue", &self.queue)?;
        Error::if_blank("worker", &self.worker)?;
        Error::unless(self.max_attempts >= 1, "max_attempts", "be at least 1", self.max_attempts)?;
        Error::unless((0..=9).contains(&self.priority), "priority", "be between 0 and 9", self.priority)
    }
}

pub(crate) fn fits(worker: &str, args: &Json, meta: &Json, limit: usize) -> Result<()> {
    let (of_args, of_meta) = (args.as_str().len(), meta.as_str().len());
    if of_args.saturating_add(of_meta) <= limit {
        return Ok(());
    }
    let field = if of_args >= of_meta { "args" } else { "meta" };
    let message = format!(
        "args and meta of a job may have {limit} bytes together, got {} bytes for worker {worker:?} ({of_args} and \
         {of_meta}); keep the data in a file or a table and hand over where it is, or raise the limit with \
         KilnBuilder::max_payload",
        of_args + of_meta
    );
    Err(Error::invalid(field, message))
}

/// Tags as they are stored: trimmed, lower-cased, without duplicates and blanks, sorted.
pub(crate) fn normalize_tags(tags: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut tags: Vec<String> =
        tags.into_iter().map(|tag| tag.trim().to_lowercase()).filter(|t| !t.is_empty()).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worker = self.worker.rsplit(['.', ':', '/']).next().unwrap_or(&self.worker);
        write!(
            f,
            "Job(id={}, worker={worker}, args={}, queue={}, state={})",
            self.id,
            self.args.shown(),
            self.queue,
            self.state
        )
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |error: &JobError| JobError { error: self.shown(&error.error).into_owned(), ..error.clone() };
        let errors = self.errors.iter().map(shown).collect();
        let job = Job { errors, extra: self.args.redaction().map(&self.extra), ..self.clone() };
        macro_rules! show {
            ($($field:ident)*) => { f.debug_struct("Job")$(.field(stringify!($field), &job.$field))*.finish() };
        }
        show! {
            id state queue worker args meta tags errors attempt max_attempts crashes priority attempted_by inserted_at
            scheduled_at attempted_at completed_at cancelled_at discarded_at cancel_requested_at expires_at conflict
            extra
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_trimmed_lowered_sorted_and_unique() {
        let tags = ["B", " a ", "b", "", "  ", "a b"].map(String::from);
        assert_eq!(normalize_tags(tags), ["a", "a b", "b"]);
    }
}
