//! The handle: everything that can be done with a file of jobs but running them.

mod builder;
mod care;
mod cron;
mod export;
mod handle;
mod operate;
mod queues;
mod transaction;
mod upkeep;

pub use builder::KilnBuilder;
pub use handle::Kiln;
