use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a job is, as its worker last said: [`Running::progress`](crate::Running::progress).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// Of how much.
    pub total: u64,
    /// What the worker said.
    pub note: String,
}

impl Progress {
    pub(crate) fn new(done: u64, total: u64, note: impl Into<String>) -> Self {
        Self { done, total, note: note.into() }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.done, self.total)?;
        if self.note.is_empty() { Ok(()) } else { write!(f, " {}", self.note) }
    }
}
