use std::fmt;

/// Where in its life a job is. The names are the reference's, in the file, in the API and in events alike.
///
/// ```
/// use kiln::State;
///
/// assert_eq!(State::ALL.len(), 8);
/// assert_eq!(State::Retryable.to_string(), "retryable");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// Cancelled, by a hand or by its worker.
    Cancelled,
    /// Held back until somebody retries it.
    Suspended,
    /// Only ever read, from a row that something else wrote: a state that is none of the eight. Such a job is
    /// left alone by every verb but `delete`.
    Unknown,
}

impl State {
    /// The eight states a job can be in.
    pub const ALL: [State; 8] = [
        State::Available,
        State::Scheduled,
        State::Executing,
        State::Retryable,
        State::Completed,
        State::Discarded,
        State::Cancelled,
        State::Suspended,
    ];

    /// The states of a job that still has something before it: [`Unique::states`](crate::Unique::states).
    pub const INCOMPLETE: [State; 5] =
        [State::Suspended, State::Available, State::Scheduled, State::Executing, State::Retryable];

    /// All states but cancelled and discarded: [`Unique::states`](crate::Unique::states).
    pub const SUCCESSFUL: [State; 6] =
        [State::Suspended, State::Available, State::Scheduled, State::Executing, State::Retryable, State::Completed];

    /// The name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Available => "available",
            State::Scheduled => "scheduled",
            State::Executing => "executing",
            State::Retryable => "retryable",
            State::Completed => "completed",
            State::Discarded => "discarded",
            State::Cancelled => "cancelled",
            State::Suspended => "suspended",
            State::Unknown => "unknown",
        }
    }

    pub(crate) fn from_name(name: &str) -> State {
        State::ALL.into_iter().find(|state| state.as_str() == name).unwrap_or(State::Unknown)
    }

    /// Whether the job has ended: completed, discarded or cancelled. Only [`retry`](crate::Kiln::retry) revives it.
    pub fn is_finished(self) -> bool {
        matches!(self, State::Completed | State::Discarded | State::Cancelled)
    }

    /// Whether `verb` does anything to a job in this state. The SQL and the docs are held to this by a test.
    pub(crate) fn allows(self, verb: Verb) -> bool {
        use State::*;
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
