//! Durable background jobs on one SQLite file.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bell;
mod clock;
mod engine;
mod error;
mod handle;
mod health;
mod job;
mod runtime;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod worker;

pub use error::{Error, Result};
pub use handle::{Durability, Kiln, KilnBuilder};
pub use health::{Health, Pulse, RuntimeHealth};
pub use job::{
    Changes, Counts, Cron, Failure, Fence, Filter, IntoChanges, Job, JobError, Jobs, Json, NewJob, Outcome, Schedule,
    State, backoff,
};
pub use runtime::{Report, Runtime, RuntimeBuilder};
pub use worker::{Cancelled, IntoOutcome, Running, Worker};
