//! What happened: one event for each change, passed to the observers, to `tracing` and to `metrics`.

#[allow(clippy::module_inception, reason = "the folder is named after its main type")]
mod event;
mod line;
mod observers;
mod subscription;
mod telemetry;

pub use event::{Event, Subject};
pub(crate) use observers::Observers;
pub use subscription::Events;
pub(crate) use telemetry::in_span;
