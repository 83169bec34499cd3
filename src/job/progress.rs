//! What a running job tells about itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a job is, as its worker reported last: [`Running::progress`](crate::Running::progress).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// How much there is to do.
    pub total: u64,
    /// A text from the worker.
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

/// A note that a running job writes about itself, as JSON.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    Progress(String),
    Checkpoint(String),
}

/// The last notes that a job wrote about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub progress: Option<String>,
    pub checkpoint: Option<String>,
}
