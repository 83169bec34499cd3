//! Words and rules: no SQL, no thread, no clock, no dice.

mod ack;
pub mod backoff;
mod crash;
mod cron;
mod entry;
mod errors;
mod filter;
mod json;
mod new;
mod new_cron;
mod outcome;
mod progress;
mod recorded;
mod redact;
mod state;
mod unique;
mod update;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use ack::Fence;
pub(crate) use ack::{Ack, Attempt, End, Note, Notes, Standing, Verdict};
pub(crate) use crash::{LONGEST, Lost, alone_at, solitude};
pub use cron::{Cron, Schedule};
pub use entry::{CronEntry, Missed};
pub(crate) use entry::{DueSlots, Shot};
pub use errors::JobError;
pub use filter::Jobs;
pub use filter::{Counts, Filter};
pub(crate) use filter::{Order, Which};
pub use json::Json;
pub use new::NewJob;
pub(crate) use new::Ready;
pub use new_cron::NewCron;
pub use outcome::{Failure, Outcome};
pub use progress::Progress;
#[cfg(feature = "testing")]
pub(crate) use recorded::decode as decode_recorded;
pub(crate) use redact::Redaction;
pub use state::State;
pub(crate) use state::Verb;
pub(crate) use unique::{Check, shown_key};
pub use unique::{Field, Unique};
pub use update::{Changes, IntoChanges};

use crate::{Error, Result};

/// A job: one row, and with it the whole history of a piece of work.
///
/// A `Job` is a copy of the row as it was read. It is never validated on the way in: a row that something else
/// wrote or damaged can still be shown. What is stored is described at [`NewJob`], what happens to it in the
/// [guide](crate::guide::life).
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
    /// Given by the database, never twice. (A plain `INSERT` of another program may get the id of a job that was the newest
    /// when it was deleted.)
    pub id: i64,
    /// Where in its life the job is.
    pub state: State,
    /// The lane it waits in.
    pub queue: String,
    /// The [`NAME`](crate::Worker::NAME) of the worker that executes it.
    pub worker: String,
    /// What the worker is given: a JSON object.
    pub args: Json,
    /// What others noted about it: a JSON object.
    pub meta: Json,
    /// Trimmed, lower-cased, without doubles, sorted.
    pub tags: Vec<String>,
    /// What went wrong, attempt by attempt, oldest first. The first 3 and the last 17 are kept.
    pub errors: Vec<JobError>,
    /// How often it was claimed, not counting attempts given back. 0 for a job never claimed.
    pub attempt: i64,
    /// When `attempt` reaches it and fails, the job is discarded.
    pub max_attempts: i64,
    /// How often its process died while it was executing, since it last ended by itself. Above 0 it runs alone, see
    /// [`RuntimeBuilder::max_crashes`](crate::RuntimeBuilder::max_crashes).
    pub crashes: i64,
    /// 0 to 9; 0 goes first.
    pub priority: i64,
    /// Who claimed it last: the node's name, then the runtime's id. Empty for a job never claimed.
    pub attempted_by: Vec<String>,
    /// When it was enqueued.
    pub inserted_at: Timestamp,
    /// When it is, or was, due.
    pub scheduled_at: Timestamp,
    /// When it was claimed last.
    pub attempted_at: Option<Timestamp>,
    /// When it completed.
    pub completed_at: Option<Timestamp>,
    /// When it was cancelled.
    pub cancelled_at: Option<Timestamp>,
    /// When it was discarded.
    pub discarded_at: Option<Timestamp>,
    /// When somebody asked for it to be cancelled while it was executing. Such a job never runs again.
    pub cancel_requested_at: Option<Timestamp>,
    /// When it is too late to begin: from then on a claim cancels it instead.
    pub expires_at: Option<Timestamp>,
    /// Whether an enqueue found this job instead of storing its own, see [`Unique`]. Only on what an enqueue gives back.
    pub conflict: bool,
    /// What the enqueuer attached for hooks. Only on a job just enqueued: it is never stored.
    pub extra: Map<String, Value>,
}

impl Job {
    /// The value the job recorded when it completed, see [`Outcome::record`]. `None` where it recorded none.
    ///
    /// # Errors
    ///
    /// [`is_malformed`](Error::is_malformed) when the stored value is damaged or is no `T`.
    pub fn recorded<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        match self.meta.get("return") {
            Some(Value::String(encoded)) if self.meta.get("recorded") == Some(Value::Bool(true)) => {
                recorded::decode(&encoded).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Sets what is left out where the job is shown.
    pub(crate) fn redact(&mut self, redaction: &Redaction) {
        self.args.redact(redaction);
        self.meta.redact(redaction);
    }

    /// A text about the job as it may be shown to anybody: an error, most of all, which may quote its arguments.
    pub(crate) fn shown<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.args.redaction().text(text, &[self.args.as_str(), self.meta.as_str()])
    }

    /// How long a claimed job had been due.
    pub(crate) fn queue_time(&self) -> Duration {
        let claimed_at = self.attempted_at.unwrap_or(self.scheduled_at);
        Duration::try_from(claimed_at.duration_since(self.scheduled_at)).unwrap_or_default()
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let errors: usize = self.errors.iter().map(|error| error.error.len()).sum();
        let tags: usize = self.tags.iter().map(String::len).sum();
        let entries = size_of_val(&*self.errors) + size_of_val(&*self.tags);
        self.args.as_str().len() + self.meta.as_str().len() + errors + tags + entries
    }

    /// Checks that `args` and `meta` are not too much together.
    pub(crate) fn fits(&self, limit: usize) -> Result<()> {
        fits(&self.worker, &self.args, &self.meta, limit)
    }

    /// Whether a new job has nothing but its arguments.
    pub(crate) fn is_plain(&self) -> bool {
        self.state == State::Available
            && self.scheduled_at == self.inserted_at
            && (self.meta.is_empty() && self.tags.is_empty() && self.expires_at.is_none())
    }

    /// A job that waits is where its due time says.
    fn move_by_schedule(&mut self, now: Timestamp) {
        self.state = match self.state {
            State::Available if self.scheduled_at > now => State::Scheduled,
            State::Scheduled if self.scheduled_at <= now => State::Available,
            state => state,
        };
    }

    /// Checks what may not be stored; the same for a new job and for a changed one.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.queue.trim().is_empty() {
            return Err(blank("queue", &self.queue));
        }
        if self.worker.trim().is_empty() {
            return Err(blank("worker", &self.worker));
        }
        if self.max_attempts < 1 {
            let message = format!("max_attempts must be at least 1, got {}", self.max_attempts);
            return Err(Error::invalid("max_attempts", message));
        }
        if !(0..=9).contains(&self.priority) {
            let message = format!("priority must be between 0 and 9, got {}", self.priority);
            return Err(Error::invalid("priority", message));
        }
        Ok(())
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

fn blank(field: &'static str, value: &str) -> Error {
    Error::invalid(field, format!("{field} must not be blank, got {value:?}"))
}

/// Tags as they are stored: trimmed, lower-cased, without doubles and blanks, sorted.
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
        let errors: Vec<JobError> = self.errors.iter().map(shown).collect();
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("queue", &self.queue)
            .field("worker", &self.worker)
            .field("args", &self.args)
            .field("meta", &self.meta)
            .field("tags", &self.tags)
            .field("errors", &errors)
            .field("attempt", &self.attempt)
            .field("max_attempts", &self.max_attempts)
            .field("crashes", &self.crashes)
            .field("priority", &self.priority)
            .field("attempted_by", &self.attempted_by)
            .field("inserted_at", &self.inserted_at)
            .field("scheduled_at", &self.scheduled_at)
            .field("attempted_at", &self.attempted_at)
            .field("completed_at", &self.completed_at)
            .field("cancelled_at", &self.cancelled_at)
            .field("discarded_at", &self.discarded_at)
            .field("cancel_requested_at", &self.cancel_requested_at)
            .field("expires_at", &self.expires_at)
            .field("conflict", &self.conflict)
            .field("extra", &self.args.redaction().map(&self.extra))
            .finish()
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
