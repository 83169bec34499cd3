//! The statements: functions on an open transaction or a reading connection, each with its SQL beside it.
//!
//! Every statement names its index, so that no statistics, and no lack of them, can make it scan.

pub(crate) mod value;

pub(crate) mod columns;

pub(crate) mod sweep;

pub(crate) mod ack;
pub(crate) mod claim;
pub(crate) mod crons;
pub(crate) mod examine;
pub(crate) mod insert;
pub(crate) mod operate;
pub(crate) mod query;
pub(crate) mod queues;
pub(crate) mod rescue;
pub(crate) mod runtimes;

#[cfg(test)]
pub(crate) mod scratch;
#[cfg(test)]
mod tests;
