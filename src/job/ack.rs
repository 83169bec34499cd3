use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::errors::JobError;
use super::json::Json;
use super::outcome::Outcome;
use super::state::State;

/// Identifies one attempt of one job. Every write for the attempt carries its fence, and changes nothing once the job
/// has moved on.
///
/// Pass the fence on to other systems that the job writes to: they can then refuse the late write of a lost attempt.
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
    /// The number of the attempt.
    pub attempt: i64,
    /// When the job was claimed, in microseconds since 1970. No two claims of a job have the same.
    pub attempted_at: i64,
}

/// The attempt of a claimed job. An [`Ack`] can only be made from an attempt, and consumes it.
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
    /// The runtime is shutting down, and the job returned without a result.
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
    /// The job completed itself, in a transaction of its own.
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
    /// A runtime found the attempt abandoned.
    Abandon {
        error: String,
    },
    /// The process of the attempt died.
    Crash {
        error: String,
        crash: Crash,
    },
}

/// What the end of its process means for an attempt that had begun, or may have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The job made progress that is stored: the attempt is given back, and no crash counts any more.
    Resume,
    /// Nobody knows whether the last attempt had begun: it is given back.
    GiveBack,
    /// The attempt counts, but no crash.
    Uncounted,
    /// The attempt counts, and a crash.
    Counted,
    /// The attempt counts, and a crash, and the job had too many crashes: it is discarded.
    Condemned,
}

impl Attempt {
    /// The rule: what the end of an attempt means for its job.
    pub fn ack(self, end: End, now: Timestamp) -> Ack {
        let due = |delay: Duration| now.checked_add(delay).unwrap_or(Timestamp::MAX);
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

/// The columns that an ack changes, before the ack.
pub(crate) struct Standing {
    pub attempt: i64,
    pub max_attempts: i64,
    pub meta: Json,
    pub errors: String,
    pub cancel_requested: bool,
    pub crashes: i64,
    pub resumes: i64,
}

/// The same columns after the ack. `None` leaves a column as it is.
#[derive(Debug, PartialEq)]
pub(crate) struct Settled {
    pub state: State,
    pub attempt: i64,
    pub scheduled_at: Option<Timestamp>,
    pub meta: Option<Json>,
    pub errors: Option<String>,
    pub crashes: Option<i64>,
    pub resumes: Option<i64>,
}

impl Settled {
    fn discard(&mut self) {
        self.state = State::Discarded;
    }

    /// The job waits until then.
    fn wait(&mut self, state: State, until: Timestamp) {
        (self.state, self.scheduled_at) = (state, Some(until));
    }

    /// The job is available again after its process died.
    fn rescue(&mut self, meta: &Json) {
        self.state = State::Available;
        self.meta = Some(count(meta, "rescued").into());
    }

    fn give_back(&mut self) {
        self.attempt = (self.attempt - 1).max(0);
    }
}

impl Ack {
    /// Whether one statement can write both acks: both jobs complete, and were claimed together with consecutive ids.
    pub fn is_followed_by(&self, next: &Ack) -> bool {
        let (fence, other) = (self.fence, next.fence);
        let verdicts = (&self.verdict, &next.verdict);
        matches!(verdicts, (Verdict::Complete, Verdict::Complete) | (Verdict::Record { .. }, Verdict::Record { .. }))
            && (fence.id.checked_add(1), fence.attempt, fence.attempted_at)
                == (Some(other.id), other.attempt, other.attempted_at)
    }

    /// The meta of a job that had none, with the recorded value. Base64 has nothing that JSON would escape.
    pub fn records_alone(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Record { encoded } => Some(["{\"recorded\":true,\"return\":\"", encoded, "\"}"].concat()),
            _ => None,
        }
    }

    /// Applies the verdict. A job that somebody asked to cancel never runs again, however its attempt ended.
    pub fn settle(&self, row: &Standing, now: Timestamp) -> Settled {
        let (crashes, resumes) = self.counts(row);
        let mut settled = Settled {
            state: State::Completed,
            attempt: row.attempt,
            scheduled_at: None,
            meta: None,
            errors: self.error().map(|error| JobError::add_to(&row.errors, now, self.fence.attempt, error.to_owned())),
            crashes: (crashes != row.crashes).then_some(crashes),
            resumes: (resumes != row.resumes).then_some(resumes),
        };
        match &self.verdict {
            Verdict::Complete => {}
            // The transaction was not committed: the row would not be executing.
            Verdict::Committed if row.attempt >= row.max_attempts => settled.discard(),
            Verdict::Committed => settled.wait(State::Retryable, now),
            Verdict::Record { encoded } => settled.meta = Some(with_record(&row.meta, encoded)),
            Verdict::Snooze { at, meta: set } => {
                let mut meta = count(&row.meta, "snoozed");
                meta.extend(set.clone());
                settled.meta = Some(meta.into());
                settled.give_back();
                settled.wait(State::Scheduled, *at);
            }
            Verdict::Cancel { .. } => settled.state = State::Cancelled,
            Verdict::Retry { at, .. } => settled.wait(State::Retryable, *at),
            Verdict::Discard { .. } | Verdict::Crash { crash: Crash::Condemned, .. } => settled.discard(),
            Verdict::Release => {
                settled.state = State::Available;
                settled.give_back();
            }
            Verdict::Crash { crash: Crash::Resume | Crash::GiveBack, .. } => {
                settled.rescue(&row.meta);
                settled.give_back();
            }
            Verdict::Abandon { .. } | Verdict::Crash { .. } if row.attempt >= row.max_attempts => settled.discard(),
            Verdict::Abandon { .. } | Verdict::Crash { .. } => settled.rescue(&row.meta),
        }
        if row.cancel_requested && settled.state != State::Completed {
            (settled.state, settled.scheduled_at) = (State::Cancelled, None);
        }
        settled
    }

    /// The job's `crashes` and `resumes` afterwards. Any ordinary end of an attempt, success or error, resets both to
    /// 0.
    fn counts(&self, row: &Standing) -> (i64, i64) {
        match &self.verdict {
            Verdict::Crash { crash, .. } => match crash {
                Crash::Resume => (0, row.resumes.saturating_add(1)),
                Crash::GiveBack => (row.crashes, row.resumes.saturating_add(1)),
                Crash::Uncounted => (row.crashes, row.resumes),
                Crash::Counted | Crash::Condemned => (row.crashes.saturating_add(1), row.resumes),
            },
            Verdict::Release | Verdict::Abandon { .. } => (row.crashes, row.resumes),
            _ => (0, 0),
        }
    }

    /// What the ack added to the job's errors, if the job is in this state now.
    pub fn error_in(&self, state: Option<State>) -> Option<&str> {
        // An ack that came too late adds nothing, and neither does the ack of a completed job.
        state.filter(|state| *state != State::Completed).and_then(|_| self.error())
    }

    /// What the ack adds to the job's errors.
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
            resumes: 4,
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
            Verdict::Crash { error: error(), crash: Crash::Resume },
            Verdict::Crash { error: error(), crash: Crash::GiveBack },
            Verdict::Crash { error: error(), crash: Crash::Uncounted },
            Verdict::Crash { error: error(), crash: Crash::Counted },
            Verdict::Crash { error: error(), crash: Crash::Condemned },
        ] {
            let row = Standing { cancel_requested: true, ..standing() };
            assert_eq!(ack(verdict).settle(&row, at).state, State::Cancelled);
        }
    }

    #[test]
    fn an_ordinary_end_resets_crashes_and_resumes() {
        let at = Timestamp::UNIX_EPOCH;
        let error = || String::from("e");
        let counts = |verdict: Verdict, crashes, resumes| {
            let settled = ack(verdict).settle(&Standing { crashes, resumes, ..standing() }, at);
            (settled.crashes, settled.resumes)
        };
        for verdict in [
            Verdict::Complete,
            Verdict::Committed,
            Verdict::Record { encoded: String::new() },
            Verdict::Snooze { at, meta: Default::default() },
            Verdict::Cancel { error: error() },
            Verdict::Retry { at, error: error() },
            Verdict::Discard { error: error() },
        ] {
            assert_eq!(counts(verdict.clone(), 2, 4), (Some(0), Some(0)), "{verdict:?}");
            assert_eq!(counts(verdict, 0, 0), (None, None), "the columns stay as they are");
        }
        for verdict in [Verdict::Release, Verdict::Abandon { error: error() }] {
            assert_eq!(counts(verdict, 2, 4), (None, None), "nothing is known about the job");
        }
    }

    #[test]
    fn a_crash_changes_the_counts_and_the_attempt_as_it_says() {
        let settled = |crash, attempt| {
            let crashed = ack(Verdict::Crash { error: "e".into(), crash });
            let settled = crashed.settle(&Standing { attempt, ..standing() }, Timestamp::UNIX_EPOCH);
            assert_eq!(settled.meta.is_some(), settled.state == State::Available, "a rescue is counted in the meta");
            (settled.state, settled.attempt, settled.crashes, settled.resumes)
        };
        use State::{Available, Discarded};
        assert_eq!(settled(Crash::Resume, 2), (Available, 1, Some(0), Some(5)));
        assert_eq!(settled(Crash::Resume, 5), (Available, 4, Some(0), Some(5)));
        assert_eq!(settled(Crash::GiveBack, 5), (Available, 4, None, Some(5)));
        assert_eq!(settled(Crash::Uncounted, 2), (Available, 2, None, None));
        assert_eq!(settled(Crash::Uncounted, 5), (Discarded, 5, None, None));
        assert_eq!(settled(Crash::Counted, 2), (Available, 2, Some(3), None));
        assert_eq!(settled(Crash::Counted, 5), (Discarded, 5, Some(3), None));
        assert_eq!(settled(Crash::Condemned, 2), (Discarded, 2, Some(3), None));
    }
}
