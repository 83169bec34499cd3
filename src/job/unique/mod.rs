//! Unique jobs: an enqueue that has a duplicate stores nothing.

mod key;
mod rule;
#[cfg(test)]
mod tests;

pub use key::Field;
pub(crate) use key::shown as shown_key;
pub(crate) use rule::Check;
pub use rule::Unique;
