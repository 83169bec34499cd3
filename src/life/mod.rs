//! The steps of a job's life, and the turn that they share.
//!
//! A file a step: [`enqueue`], [`claim`], [`ack`], [`sweep`] (stage and prune), [`rescue`], and an operator's hand in [`operate`].
//! [`turn`] is the transaction in which all of them are written.

pub(crate) mod ack;
mod alarm;
pub(crate) mod claim;
pub(crate) mod crons;
pub(crate) mod enqueue;
mod examine;
mod group;
mod inbox;
#[allow(clippy::module_inception, reason = "the folder is named after its main type")]
mod life;
mod mailbox;
pub(crate) mod operate;
mod outbox;
mod pace;
pub(crate) mod rescue;
mod runtimes;
pub(crate) mod sweep;
mod turn;
pub(crate) mod tx;
mod waiter;

pub(crate) use alarm::Wake;
pub(crate) use inbox::{Inbox, Task};
pub(crate) use life::Life;
pub(crate) use mailbox::Mailbox;
pub(crate) use tx::Member;
#[cfg(feature = "testing")]
pub(crate) use tx::{Claimed, Demand, Done, Part};
pub(crate) use waiter::Need;

#[cfg(test)]
mod tests;
