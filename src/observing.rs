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

/// A failed job is a matter of its worker, not of kiln: it is a warning, and an error only when it is discarded. What an
/// operator or a program does to a job is for who looks closely, and what happens to many by itself for who looks very
/// closely.
#[cfg(feature = "tracing")]
fn trace(event: &Event) {
    use crate::State;
    use crate::event::first_line;
    use tracing::{debug, error, info, trace, warn};

    /// The fields that each event of a job has, and its own.
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
