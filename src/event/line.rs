//! An event as a line.

use std::fmt;

use super::{Event, Subject, first_line};

/// A line for a log: the name, then what there is to say, as `key=value`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(Subject { id, queue, worker, attempt }) = self.job() {
            write!(f, " job={id} queue={queue} worker={worker}")?;
            if *attempt > 0 {
                write!(f, " attempt={attempt}")?;
            }
        }
        match self {
            Event::Claimed { queue_time, .. } => write!(f, " queue_time={queue_time:?}"),
            Event::Executed { queue_time, run_time, error, .. } => {
                write!(f, " queue_time={queue_time:?} run_time={run_time:?}")?;
                write_error(f, error)
            }
            Event::Progressed { progress, .. } => write!(f, " progress={}/{}", progress.done, progress.total),
            Event::Acked { state, queue_time, run_time, error, .. } => {
                match state {
                    Some(state) => write!(f, " state={state}")?,
                    None => f.write_str(" stale")?,
                }
                write!(f, " queue_time={queue_time:?}")?;
                if let Some(run_time) = run_time {
                    write!(f, " run_time={run_time:?}")?;
                }
                write_error(f, error)
            }
            Event::Rescued { state, error, .. } => {
                write!(f, " state={state}")?;
                write_error(f, error)
            }
            Event::Pruned { state, .. } | Event::Cancelled { state, .. } => write!(f, " state={state}"),
            Event::Paused { queues, for_all }
            | Event::Resumed { queues, for_all }
            | Event::QueueStopped { queues, for_all } => {
                write!(f, " queue={queues} for_all={for_all}")
            }
            Event::Scaled { queues, limit, for_all } | Event::QueueStarted { queues, limit, for_all } => {
                let limit = limit.map_or("none".to_owned(), |limit| limit.to_string());
                write!(f, " queue={queues} limit={limit} for_all={for_all}")
            }
            Event::Migrated { from, to, backup } => {
                write!(f, " from={from} to={to}")?;
                backup.as_ref().map_or(Ok(()), |backup| write!(f, " backup={backup:?}"))
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
            | Event::Retried { .. }
            | Event::Deleted { .. }
            | Event::Updated { .. }
            | Event::Stuck { .. } => Ok(()),
        }
    }
}

fn write_error(f: &mut fmt::Formatter<'_>, error: &Option<String>) -> fmt::Result {
    match error {
        Some(error) => write!(f, " error={:?}", first_line(error)),
        None => Ok(()),
    }
}
