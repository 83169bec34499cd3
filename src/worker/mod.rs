//! The user's code, and what it is handed.

mod flag;
mod notes;
mod registry;
mod running;
#[allow(clippy::module_inception, reason = "the folder is named after its main type")]
mod worker;

pub(crate) use flag::{Flag, Reason};
pub(crate) use notes::{Reporter, Reports};
pub(crate) use registry::{Entry, Registry};
pub(crate) use running::Control;
pub use running::{Cancelled, Running};
pub use worker::{IntoOutcome, Worker};
