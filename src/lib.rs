//! Durable background jobs on one SQLite file, for programs that have no server: desktop and edge apps, command-line
//! tools, small deployments.
//!
//! A job is a row. A scheduler thread makes due jobs available, OS threads execute them, each with its own
//! cancellation flag. There is no async runtime, no broker and no daemon. The model is Oban's, and so are the words.
//!
//! ```
//! # fn program() -> kiln::Result<()> {
#![doc = include_str!("../examples/hello.rs")]
//! # main() }
//! # fn main() -> kiln::Result<()> {
//! #     let folder = tempfile::tempdir().unwrap();
//! #     std::env::set_current_dir(&folder).unwrap();
//! #     program()
//! # }
//! ```
//!
//! # A job's life
//!
//! | step | | |
//! | --- | --- | --- |
//! | enqueue | [`Kiln::enqueue`] stores a [`NewJob`]; when it returns, the job [survives](Durability) | [enqueueing](guide::enqueueing), [scheduling](guide::scheduling), [unique jobs](guide::unique), [transactions](guide::transactions) |
//! | claim | a [`Runtime`] takes it for a free thread of its queue | [queues](guide::queues) |
//! | execute | its [`Worker`] runs, with a [`Running`] job in hand | [workers](guide::workers), [running jobs](guide::running) |
//! | ack | the [`Outcome`], or the error, is written: completed, scheduled, cancelled, retryable, discarded | [a job's life](guide::life) |
//! | stage | once it is due, or due again, it is available | [a job's life](guide::life) |
//! | rescue | when its process died, it runs again | [reliability](guide::reliability) |
//! | prune | a day after its end, it is deleted | [`RuntimeBuilder::retention`] |
//!
//! Between these, an operator's hand: [`cancel`](Kiln::cancel), [`retry`](Kiln::retry), [`delete`](Kiln::delete),
//! [`update`](Kiln::update), [`list`](Kiln::list), [`count`](Kiln::count).
//!
//! # Guides
//!
//! | to | read |
//! | --- | --- |
//! | know what happens when something goes wrong | [reliability](guide::reliability), [what was injected](guide::injected) |
//! | see what happens | [observing](guide::observing) |
//! | test your jobs | [testing](guide::testing) |
//! | ship it in an application | [desktop](guide::desktop) |
//! | come from elsewhere | [Oban](guide::from_oban), [Sidekiq](guide::from_sidekiq), [huey](guide::from_huey) |
//!
//! These, and those linked above, are pages of the module [`guide`].
//!
//! # Features
//!
//! All off by default.
//!
//! | feature | |
//! | --- | --- |
//! | `testing` | a clock to turn by hand, a runtime without threads, assertions: for tests |
//! | `tracing` | a span and events for each job, through the crate `tracing`, with target `kiln` |
//! | `metrics` | counters and histograms by queue, worker and state, through the crate `metrics` |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod clock;
mod dice;
mod error;
mod event;
mod file;
mod guard;
pub mod guide;
mod job;
mod kiln;
mod life;
mod presence;
mod report;
mod runtime;
mod setters;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod worker;

/// The version of rusqlite whose types [`Kiln::enqueue_in`] and [`Running::complete_in`] take: 0.40.
pub use rusqlite;

pub use error::{Error, Result};
pub use event::{Event, Events, Subject};
pub use file::Durability;
pub use job::{
    Changes, Counts, Cron, CronEntry, Failure, Fence, Field, Filter, IntoChanges, Job, JobError, Jobs, Json, Missed,
    NewCron, NewJob, Outcome, Progress, QueueCheck, Queues, Schedule, State, Unique, backoff,
};
pub use kiln::{Kiln, KilnBuilder};
pub use report::{Compacted, Diagnosis, Finding, Health, Holder, Problem, Pulse, RuntimeHealth};
pub use runtime::{Report, Runtime, RuntimeBuilder};
pub use worker::{Cancelled, IntoOutcome, Running, Worker};
