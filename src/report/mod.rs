//! What is reported about a file and its runtimes.

mod diagnosis;
mod health;

pub(crate) use diagnosis::age;
pub use diagnosis::{Compacted, Diagnosis, Finding, Holder, Problem};
pub use health::{Health, Pulse, RuntimeHealth};
