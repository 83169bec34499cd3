//! The threads that run jobs.

mod attempts;
mod builder;
mod control;
mod cron;
mod due;
mod execute;
mod lifecycle;
mod scheduler;
mod settings;
mod shared;

pub use builder::RuntimeBuilder;
#[cfg(feature = "testing")]
pub(crate) use cron::Crons;
pub use lifecycle::{Report, Runtime};
