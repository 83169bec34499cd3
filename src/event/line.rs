//! An event as one line of a log.

use std::fmt;

use super::event::{Event, Subject, first_line};

/// One line for a log: the name of the event, then its fields as `key=value`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(Subject { id, queue, worker, attempt }) = self.job() {
            write!(f, " job={id} queue={queue} worker={worker}")?;
            if *attempt > 0 {
                write!(f, " attempt={attempt}")?;
            }
        }
        let error = |error: &Option<String>| maybe("error", error.as_deref().map(first_line));
        match self {
            Event::Claimed { queue_time, .. } => write!(f, " queue_time={queue_time:?}"),
            Event::Executed { queue_time, run_time, error: cause, .. } => {
                write!(f, " queue_time={queue_time:?} run_time={run_time:?}{}", error(cause))
            }
            Event::Progressed { progress, .. } => write!(f, " progress={}/{}", progress.done, progress.total),
            Event::Acked { state, queue_time, run_time, error: cause, .. } => {
                let state = state.map_or(" stale".to_owned(), |state| format!(" state={state}"));
                let run_time = maybe("run_time", *run_time);
                write!(f, "{state} queue_time={queue_time:?}{run_time}{}", error(cause))
            }
            Event::Rescued { state, error: cause, .. } => write!(f, " state={state}{}", error(cause)),
            Event::Pruned { state, .. } | Event::Cancelled { state, .. } => write!(f, " state={state}"),
            Event::Paused { queues, for_all }
            | Event::Resumed { queues, for_all }
            | Event::QueueStopped { queues, for_all } => write!(f, " queue={queues} for_all={for_all}"),
            Event::Scaled { queues, limit, for_all } | Event::QueueStarted { queues, limit, for_all } => {
                let limit = limit.map_or("none".to_owned(), |limit| limit.to_string());
                write!(f, " queue={queues} limit={limit} for_all={for_all}")
            }
            Event::Migrated { from, to, backup } => {
                write!(f, " from={from} to={to}{}", maybe("backup", backup.as_ref()))
            }
            Event::Warned { warning } => write!(f, " warning={warning:?}"),
            Event::CronAdded { name }
            | Event::CronPaused { name }
            | Event::CronResumed { name }
            | Event::CronDeleted { name } => write!(f, " name={name:?}"),
            Event::Degraded { reason } => write!(f, " reason={reason:?}"),
            Event::Recovered { after } => write!(f, " after={after:?}"),
            Event::Enqueued { .. }
            | Event::Conflicted { .. }
            | Event::Expired { .. }
            | Event::Staged { .. }
            | Event::Suspected { .. }
            | Event::Retried { .. }
            | Event::Deleted { .. }
            | Event::Updated { .. }
            | Event::Stuck { .. } => Ok(()),
        }
    }
}

/// The name and the value, if there is one.
fn maybe(name: &str, value: Option<impl fmt::Debug>) -> String {
    value.map_or(String::new(), |value| format!(" {name}={value:?}"))
}
