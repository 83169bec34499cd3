//! Events for the crates `tracing` and `metrics`. Each is a feature of kiln; if it is on, it gets every event.

use super::event::Event;
use crate::job::Job;

/// Passes an event to the features that are on.
pub(super) fn record(event: &Event) {
    #[cfg(feature = "tracing")]
    trace(event);
    #[cfg(feature = "metrics")]
    measure(event);
    let _ = event;
}

/// Whether any of these features is on.
pub(super) const ENABLED: bool = cfg!(any(feature = "tracing", feature = "metrics"));

/// Executes a job within its span. The fields of the span are stable: `id`, `queue`, `worker`, `attempt`.
pub(crate) fn in_span<T>(job: &Job, run: impl FnOnce() -> T) -> T {
    #[cfg(feature = "tracing")]
    {
        let Job { id, queue, worker, attempt, .. } = job;
        tracing::info_span!(target: "kiln", "job", id, queue, worker, attempt).in_scope(run)
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = job;
        run()
    }
}

/// Writes an event to `tracing`.
///
/// A failed attempt is a warning, and a discarded job an error. What an operator or a program does to a job is `debug`,
/// and what happens to many jobs without anybody's doing is `trace`.
#[cfg(feature = "tracing")]
fn trace(event: &Event) {
    use super::event::first_line;
    use crate::job::State;
    use tracing::{debug, error, info, trace, warn};

    /// An event of a job: the fields that all of them have, and the fields of this event.
    macro_rules! tell {
        ($level:ident, $event:expr, $job:expr $(, $($more:tt)*)?) => {
            $level!(target: "kiln", event = $event.name(), id = $job.id, queue = $job.queue, worker = $job.worker,
                attempt = $job.attempt $(, $($more)*)?)
        };
    }

    match event {
        Event::Acked { job, state, queue_time, run_time, error } => {
            let queue_time = queue_time.as_secs_f64();
            let run_time = run_time.map(|time| time.as_secs_f64());
            let error = error.as_deref().map(first_line);
            match state {
                Some(State::Discarded) => {
                    tell!(error, event, job, state = "discarded", queue_time, run_time, error);
                }
                _ => tell!(info, event, job, state = state.map_or("stale", State::as_str), queue_time, run_time, error),
            }
        }
        Event::Executed { job, queue_time, run_time, error } => {
            let (queue_time, run_time) = (queue_time.as_secs_f64(), run_time.as_secs_f64());
            match error.as_deref().map(first_line) {
                Some(error) => tell!(warn, event, job, queue_time, run_time, error),
                None => tell!(info, event, job, queue_time, run_time),
            }
        }
        Event::Rescued { job, state, error } => {
            let error = error.as_deref().map(first_line);
            match state {
                State::Discarded => tell!(error, event, job, state = "discarded", error),
                _ => tell!(warn, event, job, state = state.as_str(), error),
            }
        }
        Event::Stuck { job } => tell!(error, event, job),
        Event::Suspected { job } => tell!(warn, event, job),
        Event::Claimed { job, queue_time } => tell!(debug, event, job, queue_time = queue_time.as_secs_f64()),
        Event::Cancelled { job, state } => tell!(debug, event, job, state = state.as_str()),
        Event::Pruned { job, state } => tell!(trace, event, job, state = state.as_str()),
        Event::Staged { job } => tell!(trace, event, job),
        Event::Degraded { reason } => error!(target: "kiln", event = event.name(), reason),
        Event::Recovered { after } => warn!(target: "kiln", event = event.name(), after = after.as_secs_f64()),
        Event::Warned { warning } => warn!(target: "kiln", event = event.name(), "{warning}"),
        event => match event.job() {
            Some(job) => tell!(debug, event, job),
            None => info!(target: "kiln", event = event.name(), "{event}"),
        },
    }
}

/// Counters `kiln_<event>_total` and histograms `kiln_queue_seconds` and `kiln_run_seconds`, by queue, worker and
/// state.
#[cfg(feature = "metrics")]
fn measure(event: &Event) {
    use crate::job::State;
    use metrics::{Label, counter, histogram};
    let mut labels = Vec::new();
    if let Some(job) = event.job() {
        labels.push(Label::new("queue", job.queue.clone()));
        labels.push(Label::new("worker", job.worker.clone()));
    }
    if let Event::Executed { queue_time, run_time, .. } = event {
        histogram!("kiln_queue_seconds", labels.clone()).record(queue_time.as_secs_f64());
        histogram!("kiln_run_seconds", labels.clone()).record(run_time.as_secs_f64());
    }
    let state = match event {
        Event::Acked { state, .. } => Some(state.map_or("stale", State::as_str)),
        Event::Rescued { state, .. } | Event::Pruned { state, .. } | Event::Cancelled { state, .. } => {
            Some(state.as_str())
        }
        _ => None,
    };
    labels.extend(state.map(|state| Label::new("state", state)));
    counter!(format!("kiln_{}_total", event.name()), labels).increment(1);
}
