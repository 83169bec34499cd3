//! Durable background jobs on one SQLite file, for programs that have no server: desktop and edge apps, command-line
//! tools, small deployments.
//!
//! A job is a row. A scheduler thread makes due jobs available, OS threads execute them, each with its own
//! cancellation flag. There is no async runtime, no broker and no daemon. The model is Oban's, and so are the words.
//!
//! ```
//! # std::env::set_current_dir(tempfile::tempdir().unwrap().keep()).unwrap();
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! # A job's life
//!
//! 1. [`enqueue`](Kiln::enqueue): the job is validated and stored: `available`, `scheduled` when it is due later, or
//!    `suspended`. When the call returns, the job [survives](Durability).
//! 2. **claim**: a [runtime](Kiln::runtime) takes as many available jobs of a queue as it has free threads, in the order
//!    priority, due time, id. They are `executing`, and the attempt counts.
//! 3. **execute**: the arguments are decoded and the [worker](Worker) runs. A panic is caught.
//! 4. **ack**: what came of it is written, and only if the attempt is still the job's (its [`Fence`]):
//!
//!    | the worker returned | the job is | |
//!    | --- | --- | --- |
//!    | `()`, [`Outcome::Complete`] | `completed` | |
//!    | [`Outcome::record`] | `completed` | the value is kept, see [`Job::recorded`] |
//!    | [`Outcome::snooze`] | `scheduled` | the attempt is given back, `meta.snoozed` counts |
//!    | [`Outcome::cancel`] | `cancelled` | the reason is in [`Job::errors`] |
//!    | an error, or it panicked | `retryable`, after a [backoff](Worker::backoff) | the error is in `errors` |
//!    | the same, at the last attempt | `discarded` | the error is in `errors` |
//!
//! 5. **stage**: `scheduled` and `retryable` jobs become `available` when they are due.
//! 6. **rescue**: when a process dies, its executing jobs become `available` again: at once when another runtime lives
//!    on the file, else with the next start. The attempt counts, `meta.rescued` counts, and an entry in `errors` says so;
//!    a job that takes its process with it at every attempt ends `discarded`. Who is dead is told by the operating
//!    system, which drops a lock with the process; a job that takes long is never taken for a dead one.
//! 7. **prune**: finished jobs are deleted after a [retention](RuntimeBuilder::retention), a day unless said otherwise.
//!
//! Between these, an operator's hand: [`cancel`](Kiln::cancel), [`retry`](Kiln::retry), [`delete`](Kiln::delete),
//! [`update`](Kiln::update).
//!
//! # Cancelling
//!
//! A thread cannot be killed, so a running job is *asked* to leave: its flag is raised, and
//! [`cancelled`](Running::cancelled), [`check`](Running::check), [`sleep`](Running::sleep), [`poll`](Running::poll) and
//! [`wait_child`](Running::wait_child) tell it. What becomes of the job depends on why, and on what it then returns:
//!
//! | asked to leave because | it returns `Ok` | it returns an error or `cancel` |
//! | --- | --- | --- |
//! | somebody [cancelled](Kiln::cancel) it | as always, but a snooze is `cancelled` | `cancelled`, also at the last attempt |
//! | its [time is up](#timeouts) | as always | `retryable`, "timed out after ..." |
//! | the runtime [stops](Runtime::stop) | as always | `available`, the attempt is given back |
//!
//! A cancel request is a row: it reaches other processes, within a second, and it survives a crash.
//!
//! # Timeouts
//!
//! A worker may limit [how long](Worker::timeout) an attempt takes. When the time is up, the job is asked to leave. If
//! it has not left [5 seconds](RuntimeBuilder::timeout_grace) later, its attempt is written off: the job is retried or
//! discarded with an error that says so, a fresh thread takes the slot, and whatever the old one still returns is void.
//! With [8 such threads](RuntimeBuilder::max_stuck), the runtime claims no more until one comes back, and
//! [`health`](Kiln::health) says so.
//!
//! # Queues
//!
//! A queue is a lane of its own: its jobs take no thread from another's. A runtime [runs](RuntimeBuilder::queue) any
//! number of them, each with a limit; a name is all it takes to make one. While it runs, it can be told otherwise:
//!
//! | | for this runtime alone | for all on the file, and those to come |
//! | --- | --- | --- |
//! | claim nothing more, let running jobs end | [`Runtime::pause`] | [`Kiln::pause`] |
//! | end that | [`Runtime::resume`] | [`Kiln::resume`] |
//! | change the limit, let running jobs end | [`Runtime::scale`] | [`Kiln::scale`] |
//! | run one more queue, or one less | [`Runtime::start_queue`], [`Runtime::stop_queue`] | |
//!
//! Each takes the name of a queue or [`Queues::All`]. What is said for all is a row: it survives restarts, and it
//! reaches runtimes in other processes within milliseconds. What a runtime is told itself lasts as long as the
//! [`Runtime`]. A queue paused by either is paused, and has to be resumed by the same; of two limits, the one that was
//! set last holds; and what is said of one queue after something was said of all goes for that queue.
//! [`Kiln::check`] tells how each live runtime runs its queues.
//!
//! Other programs may write the rows as well, and are heeded within a second: `INSERT INTO kiln_queues (queue, paused)
//! VALUES ('media', 1) ON CONFLICT (queue) DO UPDATE SET paused = 1`.
//!
//! # Cron
//!
//! Jobs recur by an expression and the clock of a time zone, or at a fixed distance, each slot at most once:
//! [`CronEntry`] is the guide.
//!
//! # What happens when
//!
//! | | |
//! | --- | --- |
//! | the process is killed | its executing jobs are rescued, everything else is as it was |
//! | the power is cut | the file is whole; what is kept is in the table at [`Durability`] |
//! | [`Runtime::stop`] | nothing more is claimed, running jobs get a grace, then their flag, then are given back; no ack is lost |
//! | a [`Runtime`] is dropped | the same without grace |
//! | a worker is unknown | its jobs stay available, block nobody, and are counted in [`Health`] |
//! | arguments cannot be decoded | an ordinary error of that job |
//! | another process holds the write lock | acks wait until they can be written; calls give up [after 5 s](KilnBuilder::patience) |
//! | another program writes `INSERT INTO kiln_jobs (worker, args) VALUES (?, ?)` | the job runs within a second |
//! | the computer sleeps | due times are wall-clock times: what became due runs after waking |
//!
//! Not promised: side effects happen exactly once (a job may run again after a crash: make it repeatable, or hand its
//! [fence](Running::fence) along); a thread is killed; network file systems work.
//!
//! # Other languages
//!
//! The table `kiln_jobs` is the interface: names and defaults are Oban's, times are microseconds since 1970 in UTC, and
//! `kiln_jobs_readable` shows them for people. A job that is due later is given both `state = 'scheduled'` and
//! `scheduled_at`.
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

mod bell;
mod clock;
mod diagnosis;
mod dice;
mod durability;
mod engine;
mod error;
mod event;
mod handle;
mod health;
mod job;
mod observing;
mod queues;
mod runtime;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod worker;

pub use durability::Durability;
/// The version of rusqlite whose types [`Kiln::enqueue_in`] and [`Running::complete_in`] take: 0.40.
pub use rusqlite;

pub use diagnosis::{Compacted, Diagnosis, Finding, Holder, Problem};
pub use error::{Error, Result};
pub use event::{Event, Subject};
pub use handle::{Kiln, KilnBuilder};
pub use health::{Health, Pulse, RuntimeHealth};
pub use job::{
    Changes, Counts, Cron, CronEntry, Failure, Fence, Field, Filter, IntoChanges, Job, JobError, Jobs, Json, Missed,
    NewCron, NewJob, Outcome, Progress, Schedule, State, Unique, backoff,
};
pub use queues::{QueueCheck, Queues};
pub use runtime::{Report, Runtime, RuntimeBuilder};
pub use worker::{Cancelled, IntoOutcome, Running, Worker};
