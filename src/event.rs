//! What happened: one event for each verb, told to whoever observes.

mod observers;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Job, Progress, Queues, State};
pub(crate) use observers::Observers;

/// Something that happened on a handle, or in a runtime started from it. The names are the verbs', in the past tense.
///
/// Observers are given to [`KilnBuilder::observe`](crate::KilnBuilder::observe). They are called on the thread that did
/// it, after it was committed and outside of all locks; one that panics is ignored, one that is slow slows down its
/// thread and nobody else.
///
/// ```
/// use std::sync::mpsc;
/// use kiln::{Event, Kiln, NewJob};
///
/// let (told, events) = mpsc::channel();
/// let kiln = Kiln::memory_builder().observe(move |event| told.send(event.to_string()).unwrap()).open()?;
/// kiln.enqueue(NewJob::new("app.Mailer"))?;
/// kiln.cancel(1)?;
///
/// assert_eq!(events.recv().unwrap(), "enqueued job=1 queue=default worker=app.Mailer");
/// assert_eq!(events.recv().unwrap(), "cancelled count=1");
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A job was stored.
    #[non_exhaustive]
    Enqueued {
        /// The job.
        job: Subject,
    },
    /// An enqueue found a [double](crate::Unique), and stored nothing; what of it was replaced, was.
    #[non_exhaustive]
    Conflicted {
        /// The job that was there.
        job: Subject,
    },
    /// A runtime took a job to execute it.
    #[non_exhaustive]
    Claimed {
        /// The job, and which attempt at it.
        job: Subject,
        /// How long it waited since it was due.
        queue_time: Duration,
    },
    /// A worker's `process` ended.
    #[non_exhaustive]
    Executed {
        /// The job, and which attempt at it.
        job: Subject,
        /// How long it waited since it was due.
        queue_time: Duration,
        /// How long `process` took.
        run_time: Duration,
        /// What went wrong, if anything did; without what is [hidden](crate::KilnBuilder::redact) of the job.
        error: Option<String>,
    },
    /// What came of an attempt was written, or was too late to be.
    #[non_exhaustive]
    Acked {
        /// The job, and which attempt at it.
        job: Subject,
        /// What the job became; `None` when the attempt was no longer the job's.
        state: Option<State>,
    },
    /// A job was not claimed before it [expired](crate::NewJob::expires_at), and is cancelled.
    #[non_exhaustive]
    Expired {
        /// The job.
        job: Subject,
    },
    /// An attempt did not end in time, and its thread was written off.
    #[non_exhaustive]
    Stuck {
        /// The job, and which attempt at it.
        job: Subject,
    },
    /// A runtime cannot write: the disk is full or fails, another process keeps the write lock, or a newer kiln has taken
    /// the file over. It holds the acks of finished jobs, claims nothing that it could not, and tries again by itself:
    /// after 0.7 seconds, then more and more rarely, up to 30 seconds. Told once, until it has
    /// [recovered](Self::Recovered).
    #[non_exhaustive]
    Degraded {
        /// What went wrong.
        reason: String,
    },
    /// A runtime can write again, and has written what it held.
    #[non_exhaustive]
    Recovered {
        /// How long it could not.
        after: Duration,
    },
    /// A job told how far it is.
    #[non_exhaustive]
    Progressed {
        /// The job, and which attempt at it.
        job: Subject,
        /// How far it is.
        progress: Progress,
    },
    /// Due jobs became available.
    #[non_exhaustive]
    Staged {
        /// How many.
        count: u64,
    },
    /// Jobs of runtimes that died became available, or were discarded: in those that had begun, an entry of
    /// [`errors`](crate::Job::errors) says why.
    #[non_exhaustive]
    Rescued {
        /// How many.
        count: u64,
    },
    /// Old jobs were deleted.
    #[non_exhaustive]
    Pruned {
        /// How many.
        count: u64,
    },
    /// Jobs were cancelled, or asked to.
    #[non_exhaustive]
    Cancelled {
        /// How many.
        count: u64,
    },
    /// Jobs were made available again.
    #[non_exhaustive]
    Retried {
        /// How many.
        count: u64,
    },
    /// Jobs were deleted.
    #[non_exhaustive]
    Deleted {
        /// How many.
        count: u64,
    },
    /// Jobs were changed.
    #[non_exhaustive]
    Updated {
        /// How many.
        count: u64,
    },
    /// A queue was paused.
    #[non_exhaustive]
    Paused {
        /// Which.
        queues: Queues,
        /// For all runtimes on the file, or for one alone.
        for_all: bool,
    },
    /// A pause was ended.
    #[non_exhaustive]
    Resumed {
        /// Of which queue.
        queues: Queues,
        /// For all runtimes on the file, or for one alone.
        for_all: bool,
    },
    /// A queue was given another limit.
    #[non_exhaustive]
    Scaled {
        /// Which.
        queues: Queues,
        /// How many of its jobs a runtime may run at once; `None` where each has its own limit again.
        limit: Option<usize>,
        /// For all runtimes on the file, or for one alone.
        for_all: bool,
    },
    /// One more queue is run.
    #[non_exhaustive]
    QueueStarted {
        /// Which.
        queues: Queues,
        /// How many of its jobs a runtime runs at once, at the most; `None` where those run it again that did before.
        limit: Option<usize>,
        /// By all runtimes on the file, or by one alone.
        for_all: bool,
    },
    /// A queue is run no more.
    #[non_exhaustive]
    QueueStopped {
        /// Which.
        queues: Queues,
        /// By no runtime on the file, or by one not.
        for_all: bool,
    },
    /// A cron entry was added, or given a definition anew.
    #[non_exhaustive]
    CronAdded {
        /// Its name.
        name: String,
    },
    /// A cron entry was paused.
    #[non_exhaustive]
    CronPaused {
        /// Its name.
        name: String,
    },
    /// A cron entry was resumed.
    #[non_exhaustive]
    CronResumed {
        /// Its name.
        name: String,
    },
    /// A cron entry was deleted.
    #[non_exhaustive]
    CronDeleted {
        /// Its name.
        name: String,
    },
    /// A file of an older kiln was brought to this one's schema version, as it was opened.
    #[non_exhaustive]
    Migrated {
        /// The version it had.
        from: i64,
        /// The version it has.
        to: i64,
        /// Where the file lies as it was before.
        backup: Option<PathBuf>,
    },
    /// Something is not as it should be, though all works: told once, as the file is opened.
    #[non_exhaustive]
    Warned {
        /// What, and what to do.
        warning: String,
    },
}

/// Which job an event is about. Its arguments are not there: they do not belong into logs.
///
/// ```
/// use std::sync::mpsc;
/// use kiln::{Kiln, NewJob};
///
/// let (told, subjects) = mpsc::channel();
/// let kiln = Kiln::memory_builder().observe(move |event| told.send(event.job().cloned()).unwrap()).open()?;
/// kiln.enqueue(NewJob::new("app.Mailer").queue("mail"))?;
/// let subject = subjects.recv().unwrap().unwrap();
/// assert_eq!((subject.id, subject.queue.as_str(), subject.attempt), (1, "mail", 0));
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subject {
    /// The job's id.
    pub id: i64,
    /// Its queue.
    pub queue: String,
    /// Its worker's name.
    pub worker: String,
    /// The number of the attempt; 0 for a job never claimed.
    pub attempt: i64,
}

impl From<&Job> for Subject {
    fn from(job: &Job) -> Self {
        Self { id: job.id, queue: job.queue.clone(), worker: job.worker.clone(), attempt: job.attempt }
    }
}

impl Event {
    /// The event's name: its verb in the past tense.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Enqueued { .. } => "enqueued",
            Event::Conflicted { .. } => "conflicted",
            Event::Claimed { .. } => "claimed",
            Event::Executed { .. } => "executed",
            Event::Acked { .. } => "acked",
            Event::Expired { .. } => "expired",
            Event::Stuck { .. } => "stuck",
            Event::Degraded { .. } => "degraded",
            Event::Recovered { .. } => "recovered",
            Event::Progressed { .. } => "progressed",
            Event::Staged { .. } => "staged",
            Event::Rescued { .. } => "rescued",
            Event::Pruned { .. } => "pruned",
            Event::Cancelled { .. } => "cancelled",
            Event::Retried { .. } => "retried",
            Event::Deleted { .. } => "deleted",
            Event::Updated { .. } => "updated",
            Event::Paused { .. } => "paused",
            Event::Resumed { .. } => "resumed",
            Event::Scaled { .. } => "scaled",
            Event::QueueStarted { .. } => "queue_started",
            Event::QueueStopped { .. } => "queue_stopped",
            Event::Migrated { .. } => "migrated",
            Event::Warned { .. } => "warned",
            Event::CronAdded { .. } => "cron_added",
            Event::CronPaused { .. } => "cron_paused",
            Event::CronResumed { .. } => "cron_resumed",
            Event::CronDeleted { .. } => "cron_deleted",
        }
    }

    /// How many jobs it is about.
    pub fn count(&self) -> u64 {
        match self {
            Event::Staged { count }
            | Event::Rescued { count }
            | Event::Pruned { count }
            | Event::Cancelled { count }
            | Event::Retried { count }
            | Event::Deleted { count }
            | Event::Updated { count } => *count,
            _ => 1,
        }
    }

    /// The job it is about, where it is about one.
    pub fn job(&self) -> Option<&Subject> {
        match self {
            Event::Enqueued { job }
            | Event::Conflicted { job }
            | Event::Expired { job }
            | Event::Claimed { job, .. }
            | Event::Executed { job, .. }
            | Event::Acked { job, .. }
            | Event::Progressed { job, .. }
            | Event::Stuck { job } => Some(job),
            _ => None,
        }
    }
}

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
                match error {
                    Some(error) => write!(f, " error={:?}", error.lines().next().unwrap_or_default()),
                    None => Ok(()),
                }
            }
            Event::Progressed { progress, .. } => write!(f, " progress={}/{}", progress.done, progress.total),
            Event::Acked { state: Some(state), .. } => write!(f, " state={state}"),
            Event::Acked { state: None, .. } => f.write_str(" stale"),
            Event::Staged { count }
            | Event::Rescued { count }
            | Event::Pruned { count }
            | Event::Cancelled { count }
            | Event::Retried { count }
            | Event::Deleted { count }
            | Event::Updated { count } => write!(f, " count={count}"),
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
            Event::Enqueued { .. } | Event::Conflicted { .. } | Event::Expired { .. } | Event::Stuck { .. } => Ok(()),
        }
    }
}
