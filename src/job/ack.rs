use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::crash::{Crash, noted};
use super::new::later;
use super::{JobError, Json, Outcome, State};

/// What identifies one attempt of one job: every write on its behalf carries it, and changes nothing once the job
/// has moved on.
///
/// Hand it to whatever the job writes to elsewhere, to tell a late write of a lost attempt from one that counts.
///
/// ```
/// use kiln::{Kiln, NewJob, Running};
///
/// let kiln = Kiln::in_memory()?;
/// let (told, fences) = std::sync::mpsc::channel();
/// let runtime = kiln
///     .runtime()
///     .worker_fn("write", move |job: &Running<()>| told.send(job.fence())) // along with what it writes elsewhere
///     .start()?;
/// let job = kiln.enqueue(NewJob::new("write"))?;
/// let fence = fences.recv().unwrap();
/// assert_eq!((fence.id, fence.attempt), (job.id, 1));
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Fence {
    /// The job.
    pub id: i64,
    /// The attempt's number.
    pub attempt: i64,
    /// When it was claimed, in microseconds since 1970. No two claims of a job have the same.
    pub attempted_at: i64,
}

/// What a running job writes about itself, as JSON.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    Progress(String),
    Checkpoint(String),
}

/// What a job wrote about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub progress: Option<String>,
    pub checkpoint: Option<String>,
}

/// A claimed job's attempt: the only thing an [`Ack`] can be made from, and used up by it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub fence: Fence,
    pub max_attempts: i64,
}

/// How the execution of an attempt ended.
#[derive(Debug)]
pub(crate) enum End {
    Outcome(Outcome),
    /// The error, and the delay before the next attempt.
    Failed(String, Duration),
    /// Told to leave by a shutdown, and gone without a result.
    Interrupted,
}

/// What to write for an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ack {
    pub fence: Fence,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Complete,
    /// Completed already, by its own fenced write.
    Committed,
    Record {
        encoded: String,
    },
    Snooze {
        at: Timestamp,
        meta: serde_json::Map<String, Value>,
    },
    Cancel {
        error: String,
    },
    Retry {
        at: Timestamp,
        error: String,
    },
    Discard {
        error: String,
    },
    Release,
    /// Somebody else found it, and its owner gone.
    Abandon {
        error: String,
    },
    /// Its process died while it was executing.
    Crash {
        error: String,
        crash: Crash,
    },
}

impl Attempt {
    /// The rule: what an attempt's end means for its job.
    pub fn ack(self, end: End, now: Timestamp) -> Ack {
        let due = |delay| later(now, delay).unwrap_or(Timestamp::MAX);
        let verdict = match end {
            End::Outcome(Outcome::Complete) => Verdict::Complete,
            End::Outcome(Outcome::Committed) => Verdict::Committed,
            End::Outcome(Outcome::Record { encoded }) => Verdict::Record { encoded },
            End::Outcome(Outcome::Snooze { delay, meta }) => Verdict::Snooze { at: due(delay), meta },
            End::Outcome(Outcome::Cancel { reason }) => Verdict::Cancel { error: reason },
            End::Failed(error, _) if self.fence.attempt >= self.max_attempts => Verdict::Discard { error },
            End::Failed(error, delay) => Verdict::Retry { at: due(delay), error },
            End::Interrupted => Verdict::Release,
        };
        Ack { fence: self.fence, verdict }
    }
}

/// The part of a row that an ack changes, as it stands before.
pub(crate) struct Standing {
    pub attempt: i64,
    pub max_attempts: i64,
    pub meta: Json,
    pub errors: String,
    pub cancel_requested: bool,
    pub crashes: i64,
}

/// The same part, as it stands after; `None` leaves a column as it is.
#[derive(Debug, PartialEq)]
pub(crate) struct Settled {
    pub state: State,
    pub attempt: i64,
    pub scheduled_at: Option<Timestamp>,
    pub meta: Option<Json>,
    pub errors: Option<String>,
    pub crashes: Option<i64>,
}

impl Ack {
    /// Whether the two complete neighbours of one claim in the same way, as one statement can do.
    pub fn is_followed_by(&self, next: &Ack) -> bool {
        let (fence, other) = (self.fence, next.fence);
        let verdicts = (&self.verdict, &next.verdict);
        matches!(verdicts, (Verdict::Complete, Verdict::Complete) | (Verdict::Record { .. }, Verdict::Record { .. }))
            && (fence.id.checked_add(1), fence.attempt, fence.attempted_at)
                == (Some(other.id), other.attempt, other.attempted_at)
    }

    /// The meta of a job that had none, with what it recorded, which has nothing in it that JSON would escape.
    pub fn records_alone(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Record { encoded } => Some(["{\"recorded\":true,\"return\":\"", encoded, "\"}"].concat()),
            _ => None,
        }
    }

    /// Applies the verdict. A job that somebody asked to cancel never runs again, however its attempt ended.
    pub fn settle(&self, row: &Standing, now: Timestamp) -> Settled {
        let living = |state| if row.cancel_requested { State::Cancelled } else { state };
        let mut settled = Settled {
            state: State::Completed,
            attempt: row.attempt,
            scheduled_at: None,
            meta: None,
            errors: self.error().map(|error| {
                noted(JobError::add_to(&row.errors, now, self.fence.attempt, error.to_owned()), &self.verdict)
            }),
            crashes: self.crashes(row),
        };
        match &self.verdict {
            Verdict::Complete => {}
            // It was not, or the row would not be executing.
            Verdict::Committed if row.attempt >= row.max_attempts => settled.state = living(State::Discarded),
            Verdict::Committed => {
                settled.state = living(State::Retryable);
                settled.scheduled_at = (settled.state == State::Retryable).then_some(now);
            }
            Verdict::Record { encoded } => {
                settled.meta = Some(with_record(&row.meta, encoded));
            }
            Verdict::Snooze { at, meta: set } => {
                let mut meta = count(&row.meta, "snoozed");
                meta.extend(set.clone());
                settled.state = living(State::Scheduled);
                settled.attempt = (row.attempt - 1).max(0);
                settled.scheduled_at = (settled.state == State::Scheduled).then_some(*at);
                settled.meta = Some(meta.into());
            }
            Verdict::Cancel { .. } => settled.state = State::Cancelled,
            Verdict::Retry { at, .. } => {
                settled.state = living(State::Retryable);
                settled.scheduled_at = (settled.state == State::Retryable).then_some(*at);
            }
            Verdict::Discard { .. } => settled.state = living(State::Discarded),
            Verdict::Release => {
                settled.state = living(State::Available);
                settled.attempt = (row.attempt - 1).max(0);
            }
            Verdict::Crash { crash: Crash::Last, .. } => settled.state = living(State::Discarded),
            Verdict::Crash { crash: Crash::Together, .. } => {
                settled.state = living(State::Available);
                settled.attempt = (row.attempt - 1).max(0);
                settled.meta = Some(count(&row.meta, "rescued").into());
            }
            Verdict::Abandon { .. } | Verdict::Crash { .. } if row.attempt >= row.max_attempts => {
                settled.state = living(State::Discarded);
            }
            Verdict::Abandon { .. } | Verdict::Crash { .. } => {
                settled.state = living(State::Available);
                settled.meta = Some(count(&row.meta, "rescued").into());
            }
        }
        settled
    }

    /// A job that ended by itself has shown that it can.
    fn crashes(&self, row: &Standing) -> Option<i64> {
        match &self.verdict {
            Verdict::Crash { .. } => Some(row.crashes.saturating_add(1)),
            Verdict::Release | Verdict::Abandon { .. } => None,
            _ => (row.crashes != 0).then_some(0),
        }
    }

    /// What it added to the errors of a job that became this, if anything.
    pub fn error_in(&self, state: Option<State>) -> Option<&str> {
        // Nothing by one that came too late, nor by one that had completed its job already.
        state.filter(|state| *state != State::Completed).and_then(|_| self.error())
    }

    /// What it adds to the job's errors.
    pub fn error(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Cancel { error }
            | Verdict::Retry { error, .. }
            | Verdict::Discard { error }
            | Verdict::Abandon { error }
            | Verdict::Crash { error, .. } => Some(error),
            Verdict::Committed => Some("complete_in was not followed by a commit"),
            Verdict::Complete | Verdict::Record { .. } | Verdict::Snooze { .. } | Verdict::Release => None,
        }
    }
}

/// The meta with a recorded value in it.
fn with_record(meta: &Json, encoded: &str) -> Json {
    let mut meta = meta.map();
    meta.insert("recorded".into(), Value::Bool(true));
    meta.insert("return".into(), Value::String(encoded.to_owned()));
    meta.into()
}

/// The meta with its counter `key` raised by one.
fn count(meta: &Json, key: &str) -> serde_json::Map<String, Value> {
    let mut meta = meta.map();
    let counted = meta.get(key).and_then(Value::as_i64).unwrap_or(0);
    meta.insert(key.into(), json!(counted.saturating_add(1)));
    meta
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            attempt: 2,
            max_attempts: 5,
            meta: Json::EMPTY,
            errors: "[]".into(),
            cancel_requested: false,
            crashes: 2,
        }
    }

    fn ack(verdict: Verdict) -> Ack {
        Ack { fence: Fence { id: 7, attempt: 2, attempted_at: 11 }, verdict }
    }

    #[test]
    fn a_job_asked_to_cancel_never_runs_again() {
        let at = Timestamp::UNIX_EPOCH;
        let error = || String::from("e");
        for verdict in [
            Verdict::Retry { at, error: error() },
            Verdict::Snooze { at, meta: Default::default() },
            Verdict::Release,
            Verdict::Abandon { error: error() },
            Verdict::Crash { error: error(), crash: Crash::Alone },
            Verdict::Crash { error: error(), crash: Crash::Together },
            Verdict::Crash { error: error(), crash: Crash::Last },
        ] {
            let row = Standing { cancel_requested: true, ..standing() };
            assert_eq!(ack(verdict).settle(&row, at).state, State::Cancelled);
        }
    }

    #[test]
    fn a_job_that_ends_by_itself_has_no_crashes_any_more() {
        let at = Timestamp::UNIX_EPOCH;
        let error = || String::from("e");
        let crashes = |verdict, crashes| ack(verdict).settle(&Standing { crashes, ..standing() }, at).crashes;
        for verdict in [
            Verdict::Record { encoded: String::new() },
            Verdict::Snooze { at, meta: Default::default() },
            Verdict::Cancel { error: error() },
            Verdict::Retry { at, error: error() },
            Verdict::Discard { error: error() },
        ] {
            assert_eq!((crashes(verdict.clone(), 2), crashes(verdict, 0)), (Some(0), None));
        }
        for verdict in [Verdict::Release, Verdict::Abandon { error: error() }] {
            assert_eq!(crashes(verdict, 2), None, "nothing is known of it");
        }
    }

    #[test]
    fn a_crash_counts_and_its_attempt_where_that_is_known_to_be_its_own() {
        let at = Timestamp::UNIX_EPOCH;
        let settled = |crash, attempt| {
            let crashed = ack(Verdict::Crash { error: "e".into(), crash });
            let settled = crashed.settle(&Standing { attempt, ..standing() }, at);
            assert_eq!(settled.crashes, Some(3));
            let errors = settled.errors.unwrap();
            assert_eq!(crate::job::alone_at(&errors, 1), i64::from(crash != Crash::Together), "{errors}");
            let rescued = settled.meta.map(|meta| meta.get("rescued").and_then(|count| count.as_i64()));
            (settled.state, settled.attempt, rescued.flatten())
        };
        assert_eq!(settled(Crash::Alone, 2), (State::Available, 2, Some(1)));
        assert_eq!(settled(Crash::Alone, 5), (State::Discarded, 5, None), "it was the last");
        assert_eq!(settled(Crash::Together, 2), (State::Available, 1, Some(1)));
        assert_eq!(settled(Crash::Together, 5), (State::Available, 4, Some(1)));
        assert_eq!(settled(Crash::Last, 2), (State::Discarded, 2, None));
    }
}
