//! Words and rules: no SQL, no thread, no clock, no dice.

mod ack;
pub mod backoff;
mod crash;
#[cfg(test)]
mod crash_model;
mod cron;
mod entry;
mod errors;
mod filter;
mod json;
mod new;
mod new_cron;
mod notice;
mod outcome;
mod progress;
mod queue;
mod recorded;
mod redact;
mod row;
mod state;
mod unique;
mod update;

pub use ack::Fence;
pub(crate) use ack::{Ack, Attempt, End, Settled, Standing, Verdict};
pub(crate) use crash::{Begun, Lost, SUSPECT};
pub use cron::{Cron, Schedule};
pub use entry::{CronEntry, Missed};
pub(crate) use entry::{DueSlots, Firing};
pub use errors::JobError;
pub use filter::Jobs;
pub use filter::{Counts, Filter};
pub(crate) use filter::{Order, Which};
pub use json::Json;
pub use new::NewJob;
pub(crate) use new::Ready;
pub use new_cron::NewCron;
pub(crate) use notice::Notice;
pub use outcome::{Failure, Outcome};
pub use progress::Progress;
pub(crate) use progress::{Note, Notes};
pub(crate) use queue::{
    Control, QueuePlan, QueueSettings, Run, Scaled, SettingRow, validate_queue_limit, validate_queue_start,
};
pub use queue::{QueueCheck, Queues};
#[cfg(feature = "testing")]
pub(crate) use recorded::decode as decode_recorded;
pub(crate) use redact::Redaction;
pub use row::Job;
pub(crate) use row::fits;
pub use state::State;
pub(crate) use state::Verb;
pub(crate) use unique::{Check, shown_key};
pub use unique::{Field, Unique};
pub use update::{Changes, IntoChanges};
