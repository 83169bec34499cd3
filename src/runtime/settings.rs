//! What a runtime is set to.

use std::sync::Arc;
use std::time::Duration;

use crate::job::{Failure, Job, Outcome};

/// A hook around the execution of a job.
pub(super) type Around =
    Arc<dyn Fn(&Job, &dyn Fn() -> Result<Outcome, Failure>) -> Result<Outcome, Failure> + Send + Sync>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub grace: Duration,
    pub timeout_grace: Duration,
    pub max_stuck: usize,
    pub claim_ahead: Duration,
    pub rescue_after: Option<Duration>,
    pub max_crashes: u32,
    /// A crash later than this after the start of an attempt, or after its last checkpoint, is not counted.
    pub crash_window: Duration,
    pub retention: Retention,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub completed: Duration,
    pub cancelled: Duration,
    pub discarded: Duration,
}
