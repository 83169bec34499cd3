use std::fmt;

use serde::{Deserialize, Serialize};

use self::State::*;

/// The state of a job. The names are Oban's, in the file, in the API and in events alike.
///
/// ```
/// use kiln::State;
///
/// assert_eq!(State::ALL.len(), 8);
/// assert_eq!(State::Retryable.to_string(), "retryable");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Ready to be claimed.
    Available,
    /// Due later.
    Scheduled,
    /// Claimed by a runtime.
    Executing,
    /// Failed, and due again later.
    Retryable,
    /// Done.
    Completed,
    /// Failed at its last attempt.
    Discarded,
    /// Cancelled, by an operator or by its worker.
    Cancelled,
    /// Held back until somebody retries it.
    Suspended,
    /// None of the eight states. It is only read, from a row that something else wrote. No operation but `delete`
    /// touches the job.
    #[serde(skip_deserializing)]
    Unknown,
}

impl State {
    /// The eight states a job can be in.
    pub const ALL: [State; 8] =
        [Available, Scheduled, Executing, Retryable, Completed, Discarded, Cancelled, Suspended];

    /// The states of a job that has not ended: [`Unique::states`](crate::Unique::states).
    pub const INCOMPLETE: [State; 5] = [Suspended, Available, Scheduled, Executing, Retryable];

    /// All states but cancelled and discarded: [`Unique::states`](crate::Unique::states).
    pub const SUCCESSFUL: [State; 6] = [Suspended, Available, Scheduled, Executing, Retryable, Completed];

    /// The name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Available => "available",
            Scheduled => "scheduled",
            Executing => "executing",
            Retryable => "retryable",
            Completed => "completed",
            Discarded => "discarded",
            Cancelled => "cancelled",
            Suspended => "suspended",
            Unknown => "unknown",
        }
    }

    pub(crate) fn from_name(name: &str) -> State {
        State::ALL.into_iter().find(|state| state.as_str() == name).unwrap_or(Unknown)
    }

    /// Whether the job has ended: completed, discarded or cancelled. Only [`retry`](crate::Kiln::retry) revives it.
    pub fn is_finished(self) -> bool {
        matches!(self, Completed | Discarded | Cancelled)
    }

    /// Whether `verb` does anything to a job in this state. Tests check that the SQL and the docs agree with this
    /// table.
    pub(crate) fn allows(self, verb: Verb) -> bool {
        match verb {
            Verb::Stage => matches!(self, Scheduled | Retryable),
            Verb::Claim => self == Available,
            Verb::Ack | Verb::Rescue => self == Executing,
            Verb::Cancel => matches!(self, Available | Scheduled | Retryable | Suspended | Executing),
            Verb::Retry => matches!(self, Scheduled | Retryable | Suspended | Completed | Discarded | Cancelled),
            Verb::Delete => self != Executing,
            Verb::Update => self != Unknown,
            Verb::Prune => self.is_finished(),
        }
    }
}

/// What can happen to a job that exists.
#[cfg_attr(not(test), expect(dead_code, reason = "what the SQL does by itself is held to the table by tests"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Stage,
    Claim,
    Ack,
    Rescue,
    Cancel,
    Retry,
    Delete,
    Update,
    Prune,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
