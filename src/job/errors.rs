use jiff::Timestamp;
use serde_json::{Value, json};

/// An entry of a job's errors: what went wrong at one attempt.
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
    /// When; the epoch where the entry does not say.
    pub at: Timestamp,
    /// The attempt's number.
    pub attempt: i64,
    /// The error with its causes, or the panic with its place and backtrace.
    pub error: String,
}

impl JobError {
    /// Reads the stored array, keeping what can be read: an entry that is not of the usual form is shown as it is.
    pub(crate) fn read_all(errors: &str) -> Vec<JobError> {
        match serde_json::from_str(errors) {
            Ok(Value::Array(entries)) => entries.iter().map(JobError::read).collect(),
            _ => vec![JobError { at: Timestamp::UNIX_EPOCH, attempt: 0, error: errors.to_owned() }],
        }
    }

    /// The stored array with one more entry. What others wrote into it stays as it is.
    pub(crate) fn add_to(errors: &str, at: Timestamp, attempt: i64, error: String) -> String {
        let mut errors = match serde_json::from_str(errors) {
            Ok(Value::Array(errors)) => errors,
            _ => vec![Value::String(errors.to_owned())],
        };
        errors.push(JobError { at, attempt, error }.write());
        if errors.len() > FIRST_ERRORS + LAST_ERRORS {
            errors.drain(FIRST_ERRORS..errors.len() - LAST_ERRORS);
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

/// A job with a thousand attempts must not carry a thousand backtraces: how it began and how it goes now tell most.
const FIRST_ERRORS: usize = 3;
const LAST_ERRORS: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_keeps_its_beginning_and_its_end() {
        let errors = (0..100).fold("[]".to_owned(), |errors, n| {
            JobError::add_to(&errors, Timestamp::UNIX_EPOCH, 1, format!("error {n}"))
        });
        let errors = JobError::read_all(&errors);
        assert_eq!(errors.len(), FIRST_ERRORS + LAST_ERRORS);
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
}
