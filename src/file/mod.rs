//! The SQLite file: how it is opened, read, written, copied and cared for. Nothing in this folder knows what a job is.
//!
//! The files in reading order: [`options`], [`open`] (from a path to a connection), [`schema`] (the tables and their
//! version), [`commit`] (a transaction), [`reader`], [`copy`], [`care`].

mod busy;
pub(crate) mod care;
mod commit;
pub(crate) mod connection;
pub(crate) mod copy;
mod error;
mod filesystem;
pub(crate) mod holder;
pub(crate) mod open;
mod options;
mod reader;
mod schema;
#[cfg(test)]
mod tests;

pub(crate) use commit::WriteConnection;
pub(crate) use error::failed;
pub(crate) use filesystem::{beside, exposures, filesystem_of, private};
pub use options::Durability;
pub(crate) use options::Options;
pub(crate) use reader::Reader;
pub(crate) use schema::{Migration, Permission, version};
