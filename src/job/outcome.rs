use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::json::Json;
use super::recorded;
use crate::error::Result;

/// The result of a worker's `process`. An error is not an outcome: the job is retried, see [`Failure`].
///
/// ```
/// use std::time::Duration;
/// use kiln::Outcome;
/// use serde_json::json;
///
/// let done: Outcome = ().into();
/// let recorded = Outcome::record(&vec![1, 2, 3])?;
/// let later = Outcome::snooze(Duration::from_secs(60)).with_meta(json!({ "why": "rate limited" }));
/// let never = Outcome::cancel("the account is gone");
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done. Returning `()` says the same.
    Complete,
    /// Done, and this value is kept with the job. Made by [`Outcome::record`].
    #[non_exhaustive]
    Record {
        /// The value as it is stored: unpadded base64 of an Erlang external term.
        encoded: String,
    },
    /// Done already, in a transaction of the worker: returned by [`complete_in`](crate::Running::complete_in).
    Committed,
    /// Not now: the job is scheduled again and the attempt is given back. Made by [`Outcome::snooze`].
    #[non_exhaustive]
    Snooze {
        /// How long to wait.
        delay: Duration,
        /// Entries to set in the job's meta.
        meta: Map<String, Value>,
    },
    /// Never: the job is cancelled, with this reason in its errors. Made by [`Outcome::cancel`].
    #[non_exhaustive]
    Cancel {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Done, keeping `value` with the job, to be read back by [`Job::recorded`](crate::Job::recorded).
    ///
    /// It is stored as Oban stores it: `meta.recorded` is `true`, `meta.return` the encoded value. It may have at most
    /// a million elements, and nest at most 128 levels deep.
    ///
    /// # Errors
    ///
    /// If the value cannot be written as JSON, or its encoding is longer than 64 MB. With `?` in `process`, that is the
    /// error of this attempt.
    pub fn record<T: Serialize + ?Sized>(value: &T) -> Result<Outcome> {
        Self::record_within(value, recorded::DEFAULT_LIMIT)
    }

    /// As [`record`](Self::record), with a limit in bytes of the encoded value.
    ///
    /// ```
    /// let error = kiln::Outcome::record_within("a long story", 8).unwrap_err();
    /// assert!(error.to_string().contains("24 bytes") && error.to_string().contains("8 bytes"));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record); the message names both sizes.
    pub fn record_within<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<Outcome> {
        Ok(Outcome::Record { encoded: recorded::encode(value, limit)? })
    }

    /// Not now, but after `delay`. The attempt is given back, so a job may snooze for ever.
    pub fn snooze(delay: Duration) -> Outcome {
        Outcome::Snooze { delay, meta: Map::new() }
    }

    /// Sets entries in the job's meta along with a snooze. Other outcomes ignore it, and so does a `meta` that is not
    /// an object.
    pub fn with_meta(mut self, meta: impl Serialize) -> Outcome {
        if let (Outcome::Snooze { meta: kept, .. }, Ok(meta)) = (&mut self, Json::object("meta", &meta)) {
            kept.extend(meta.map());
        }
        self
    }

    /// Never: the job is cancelled with this reason.
    pub fn cancel(reason: impl Into<String>) -> Outcome {
        Outcome::Cancel { reason: reason.into() }
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Outcome::Complete
    }
}

/// Why an attempt failed: any error. It becomes an entry of the job's errors, with its causes.
///
/// Everything that `?` can turn into a `Box<dyn Error + Send + Sync>` turns into a `Failure`: errors of the standard
/// library and of other crates, strings, `anyhow`'s error.
///
/// ```
/// use kiln::Failure;
///
/// fn read() -> Result<String, Failure> {
///     Ok(std::fs::read_to_string("/no/such/file")?)
/// }
///
/// assert!(read().unwrap_err().to_string().contains("No such file") || cfg!(windows));
/// assert_eq!(Failure::from("out of paper").to_string(), "out of paper");
/// ```
pub struct Failure(Box<dyn StdError + Send + Sync>);

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors already show their cause.
            if !shown.contains(&text) {
                shown.push_str(": ");
                shown.push_str(&text);
            }
            cause = error.source();
        }
        f.write_str(&shown)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
