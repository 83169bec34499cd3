//! Events for the ecosystem: `tracing`, and the `metrics` facade. Each is a feature, and with it on, always told.

use crate::event::Event;

/// What is told along with the observers that were passed in.
pub(crate) fn tell(event: &Event) {
    #[cfg(feature = "tracing")]
    trace(event);
    #[cfg(feature = "metrics")]
    measure(event);
    let _ = event;
}

/// Whether there is anybody to tell.
pub(crate) const ANY: bool = cfg!(any(feature = "tracing", feature = "metrics"));

/// Runs a job's execution within its span, the fields of which are stable: `id`, `queue`, `worker`, `attempt`.
pub(crate) fn in_span<T>(job: &crate::Job, run: impl FnOnce() -> T) -> T {
    #[cfg(feature = "tracing")]
    {
        let crate::Job { id, queue, worker, attempt, .. } = job;
        tracing::info_span!(target: "kiln", "job", id, queue, worker, attempt).in_scope(run)
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = job;
        run()
    }
}

/// A failed job is a matter of its worker, not of kiln: it is a warning, and an error only when it is discarded.
#[cfg(feature = "tracing")]
fn trace(event: &Event) {
    use crate::State;
    let name = event.name();
    match (event.job(), event) {
        (_, Event::Acked { state: Some(State::Discarded), job }) => {
            tracing::error!(target: "kiln", event = name, id = job.id, queue = job.queue, worker = job.worker,
                attempt = job.attempt, state = "discarded");
        }
        (_, Event::Acked { state, job }) => {
            let state = state.map_or("stale", State::as_str);
            tracing::info!(target: "kiln", event = name, id = job.id, queue = job.queue, worker = job.worker,
                attempt = job.attempt, state);
        }
        (_, Event::Executed { job, queue_time, run_time, error: Some(error) }) => {
            let error = error.lines().next().unwrap_or_default();
            tracing::warn!(target: "kiln", event = name, id = job.id, queue = job.queue, worker = job.worker,
                attempt = job.attempt, queue_time = queue_time.as_secs_f64(), run_time = run_time.as_secs_f64(), error);
        }
        (_, Event::Executed { job, queue_time, run_time, error: None }) => {
            tracing::info!(target: "kiln", event = name, id = job.id, queue = job.queue, worker = job.worker,
                attempt = job.attempt, queue_time = queue_time.as_secs_f64(), run_time = run_time.as_secs_f64());
        }
        (_, Event::Degraded { reason }) => tracing::error!(target: "kiln", event = name, reason),
        (_, Event::Recovered { after }) => {
            tracing::warn!(target: "kiln", event = name, after = after.as_secs_f64());
        }
        (_, Event::Stuck { job }) => {
            tracing::error!(target: "kiln", event = name, id = job.id, queue = job.queue, worker = job.worker,
                attempt = job.attempt);
        }
        (Some(job), _) => {
            tracing::debug!(target: "kiln", event = name, id = job.id, queue = job.queue, worker = job.worker,
                attempt = job.attempt);
        }
        (None, Event::Warned { warning }) => tracing::warn!(target: "kiln", event = name, "{warning}"),
        (None, event) => tracing::info!(target: "kiln", event = name, "{event}"),
    }
}

/// Counters `kiln_<event>_total` and histograms `kiln_queue_seconds` and `kiln_run_seconds`, by queue, worker and state.
#[cfg(feature = "metrics")]
fn measure(event: &Event) {
    use crate::State;
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
    if let Event::Acked { state, .. } = event {
        labels.push(Label::new("state", state.map_or("stale", State::as_str)));
    }
    counter!(format!("kiln_{}_total", event.name()), labels).increment(event.count());
}
