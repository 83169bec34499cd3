use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::crash::Crash;
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
    /// Whether the two complete neighbours of one claim, as one statement can do.
    pub fn is_followed_by(&self, next: &Ack) -> bool {
        let (fence, other) = (self.fence, next.fence);
        (&self.verdict, &next.verdict) == (&Verdict::Complete, &Verdict::Complete)
            && (fence.id.checked_add(1), fence.attempt, fence.attempted_at)
                == (Some(other.id), other.attempt, other.attempted_at)
    }

    /// Applies the verdict. A job that somebody asked to cancel never runs again, however its attempt ended.
    pub fn settle(&self, row: &Standing, now: Timestamp) -> Settled {
        let living = |state| if row.cancel_requested { State::Cancelled } else { state };
        let mut settled = Settled {
            state: State::Completed,
            attempt: row.attempt,
            scheduled_at: None,
            meta: None,
            errors: self.error().map(|error| JobError::add_to(&row.errors, now, self.fence.attempt, error.to_owned())),
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
            Verdict::Crash { crash: Crash::Together | Crash::Innocent, .. } => {
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
            Verdict::Crash { crash: Crash::Innocent, .. } => None,
            Verdict::Crash { .. } => Some(row.crashes.saturating_add(1)),
            Verdict::Release | Verdict::Abandon { .. } => None,
            _ => (row.crashes != 0).then_some(0),
        }
    }

    fn error(&self) -> Option<&str> {
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

/// The same of an empty meta. What is encoded has nothing in it that JSON would escape.
pub(crate) fn record_alone(encoded: &str) -> String {
    format!("{{\"recorded\":true,\"return\":\"{encoded}\"}}")
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
    fn a_long_history_keeps_its_beginning_and_its_end() {
        let mut row = standing();
        for n in 0..100 {
            let retry = ack(Verdict::Retry { at: Timestamp::UNIX_EPOCH, error: format!("error {n}") });
            row.errors = retry.settle(&row, Timestamp::UNIX_EPOCH).errors.unwrap();
        }
        let errors = JobError::read_all(&row.errors);
        assert_eq!(errors.len(), super::super::errors::MOST);
        assert_eq!(errors[2].error, "error 2");
        assert_eq!(errors[3].error, "error 83");
        assert_eq!(errors[19].error, "error 99");
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
            Verdict::Crash { error: error(), crash: Crash::Innocent },
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
            let ack = ack(Verdict::Crash { error: "e".into(), crash });
            let settled = ack.settle(&Standing { attempt, ..standing() }, at);
            assert_eq!(settled.crashes, (crash != Crash::Innocent).then_some(3));
            assert_eq!(JobError::read_all(&settled.errors.unwrap()).len(), 1);
            let rescued = settled.meta.map(|meta| meta.get("rescued").and_then(|count| count.as_i64()));
            (settled.state, settled.attempt, rescued.flatten())
        };
        assert_eq!(settled(Crash::Alone, 2), (State::Available, 2, Some(1)));
        assert_eq!(settled(Crash::Alone, 5), (State::Discarded, 5, None), "it was the last");
        assert_eq!(settled(Crash::Together, 2), (State::Available, 1, Some(1)));
        assert_eq!(settled(Crash::Innocent, 5), (State::Available, 4, Some(1)));
        assert_eq!(settled(Crash::Last, 2), (State::Discarded, 2, None));
    }

    #[test]
    fn a_record_alone_is_written_as_one_among_others() {
        let Outcome::Record { encoded } = Outcome::record(&json!({ "a": "\u{e9}\"\\", "b": [1, 2.5, null] })).unwrap()
        else {
            panic!("recording is recording")
        };
        assert_eq!(record_alone(&encoded), with_record(&Json::EMPTY, &encoded).as_str());
    }

    #[test]
    fn errors_that_are_no_json_are_kept_and_shown() {
        let row = Standing { errors: "half a".into(), ..standing() };
        let errors = ack(Verdict::Cancel { error: "e".into() }).settle(&row, Timestamp::UNIX_EPOCH).errors.unwrap();
        let read: Vec<String> = JobError::read_all(&errors).into_iter().map(|entry| entry.error).collect();
        assert_eq!(read, ["\"half a\"", "e"]);
    }
}
