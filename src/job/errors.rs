//! The errors of the attempts at a job.

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::{Value, json};

/// An entry of a job's errors: the error of one attempt.
///
/// ```
/// use std::time::Duration;
/// use kiln::{Failure, Kiln, NewJob, Running};
///
/// let kiln = Kiln::in_memory()?;
/// let runtime = kiln.runtime().worker_fn("print", |_: &Running<()>| Err::<(), Failure>("out of paper".into())).start()?;
/// let job = kiln.enqueue(NewJob::new("print").max_attempts(1))?;
/// let job = kiln.wait(job.id, Duration::MAX)?.unwrap();
/// assert_eq!((job.errors[0].attempt, job.errors[0].error.as_str()), (1, "out of paper"));
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobError {
    /// When the error was stored; the epoch if the entry does not say.
    pub at: Timestamp,
    /// The number of the attempt.
    pub attempt: i64,
    /// The error with its causes, or the panic with its place and backtrace.
    pub error: String,
}

/// A job with a thousand attempts must not carry a thousand backtraces: the first and the last errors tell most.
pub(super) const FIRST: usize = 3;
const LAST: usize = 17;
pub(super) const MOST: usize = FIRST + LAST;

/// kiln stores at most [`MOST`] errors. If another program stored more, this many are read.
const MOST_READ: usize = 1000;

impl JobError {
    /// Reads the stored array. An entry that does not have the usual form is shown as it is.
    pub(crate) fn read_all(errors: &str) -> Vec<JobError> {
        match serde_json::from_str(errors) {
            Ok(Kept::<MOST_READ>(entries)) => entries.iter().map(JobError::read).collect(),
            _ => vec![JobError { at: Timestamp::UNIX_EPOCH, attempt: 0, error: errors.to_owned() }],
        }
    }

    /// The stored array with one more entry. Entries that other programs wrote stay as they are.
    pub(crate) fn add_to(errors: &str, at: Timestamp, attempt: i64, error: String) -> String {
        let mut errors = match serde_json::from_str(errors) {
            Ok(Kept::<MOST>(errors)) => errors.into(),
            _ => vec![Value::String(errors.to_owned())],
        };
        errors.push(JobError { at, attempt, error }.write());
        if errors.len() > MOST {
            errors.remove(FIRST);
        }
        Value::Array(errors).to_string()
    }

    fn write(&self) -> Value {
        json!({ "at": self.at.to_string(), "attempt": self.attempt, "error": self.error })
    }

    fn read(entry: &Value) -> JobError {
        JobError {
            at: entry["at"].as_str().and_then(|at| at.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH),
            attempt: entry["attempt"].as_i64().unwrap_or(0),
            error: entry["error"].as_str().map_or_else(|| entry.to_string(), String::from),
        }
    }
}

/// The first and the last entries of an array, `MOST` together. The entries between them are never kept in memory.
struct Kept<const MOST: usize>(VecDeque<Value>);

impl<'de, const MOST: usize> Deserialize<'de> for Kept<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Kept(VecDeque::new()))
    }
}

impl<'de, const MOST: usize> Visitor<'de> for Kept<MOST> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<Self, A::Error> {
        while let Some(entry) = entries.next_element()? {
            if self.0.len() == MOST {
                self.0.remove(FIRST);
            }
            self.0.push_back(entry);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_keeps_its_beginning_and_its_end() {
        let errors = (0..100).fold("[]".to_owned(), |errors, n| {
            JobError::add_to(&errors, Timestamp::UNIX_EPOCH, 1, format!("error {n}"))
        });
        let errors = JobError::read_all(&errors);
        assert_eq!(errors.len(), MOST);
        assert_eq!(errors[2].error, "error 2");
        assert_eq!(errors[3].error, "error 83");
        assert_eq!(errors[19].error, "error 99");
    }

    #[test]
    fn errors_that_are_no_json_are_kept_and_shown() {
        let errors = JobError::add_to("half a", Timestamp::UNIX_EPOCH, 1, "e".into());
        let read: Vec<String> = JobError::read_all(&errors).into_iter().map(|entry| entry.error).collect();
        assert_eq!(read, ["\"half a\"", "e"]);
    }

    #[test]
    fn of_an_array_of_any_length_the_first_and_the_last_are_kept() {
        for count in [0, 1, MOST, MOST + 1, 5000] {
            let text = Value::from((0..count).collect::<Vec<_>>()).to_string();
            let Kept::<MOST>(kept) = serde_json::from_str(&text).unwrap();
            let expected: Vec<usize> = (0..count).filter(|n| *n < FIRST || n + LAST >= count).collect();
            assert_eq!(Value::Array(kept.into()), Value::from(expected), "{count}");
        }
        for other in ["{}", "1", "[1", "[1] 2", ""] {
            assert!(serde_json::from_str::<Kept<MOST>>(other).is_err(), "{other}");
        }
    }
}
