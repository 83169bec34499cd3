//! What happened: one event for each verb, told to whoever observes.

mod line;
mod observers;

use std::path::PathBuf;
use std::time::Duration;

use crate::{Job, Progress, Queues, State};
pub(crate) use observers::Observers;

/// Something that happened on a handle, or in a runtime started from it. The names are the verbs', in the past tense.
///
/// Observers are given to [`KilnBuilder::observe`](crate::KilnBuilder::observe). They are called on the thread that did
/// it, after it was committed and outside of all locks; one that panics is ignored, one that is slow slows down its
/// thread and nobody else. A verb that concerns many jobs tells an event for each of them, and none of those it left alone.
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
/// assert_eq!(events.recv().unwrap(), "cancelled job=1 queue=default worker=app.Mailer state=cancelled");
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
    /// What came of an attempt was written, or was too late to be. It has all there is to say of it, for an observer that
    /// wants to write one line for each.
    #[non_exhaustive]
    Acked {
        /// The job, and which attempt at it.
        job: Subject,
        /// What the job became; `None` when the attempt was no longer the job's.
        state: Option<State>,
        /// How long it waited since it was due.
        queue_time: Duration,
        /// How long `process` took; `None` where it did not end: the job was given back, or its thread written off.
        run_time: Option<Duration>,
        /// What was added to the job's [`errors`](crate::Job::errors); without what is [hidden](crate::KilnBuilder::redact)
        /// of the job.
        error: Option<String>,
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
    /// A due job became available.
    #[non_exhaustive]
    Staged {
        /// The job.
        job: Subject,
    },
    /// A job whose runtime died became available, or was discarded.
    #[non_exhaustive]
    Rescued {
        /// The job, and which attempt at it was abandoned.
        job: Subject,
        /// What the job became: available, discarded where no attempt is left, cancelled where somebody had asked for that.
        state: State,
        /// What was added to the job's [`errors`](crate::Job::errors), without what is
        /// [hidden](crate::KilnBuilder::redact) of the job; `None` where the attempt had not begun.
        error: Option<String>,
    },
    /// An old job was deleted.
    #[non_exhaustive]
    Pruned {
        /// The job.
        job: Subject,
        /// What it had become: completed, cancelled or discarded.
        state: State,
    },
    /// A job was cancelled, or asked to leave.
    #[non_exhaustive]
    Cancelled {
        /// The job.
        job: Subject,
        /// What it is now: cancelled, or executing still where it was asked to leave.
        state: State,
    },
    /// A job was made available again.
    #[non_exhaustive]
    Retried {
        /// The job.
        job: Subject,
    },
    /// A job was deleted.
    #[non_exhaustive]
    Deleted {
        /// The job, as it was.
        job: Subject,
    },
    /// A job was changed.
    #[non_exhaustive]
    Updated {
        /// The job, as it is now.
        job: Subject,
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

    /// The job it is about. Those of a runtime, a queue, a cron entry or the file as a whole have none.
    pub fn job(&self) -> Option<&Subject> {
        match self {
            Event::Enqueued { job }
            | Event::Conflicted { job }
            | Event::Expired { job }
            | Event::Claimed { job, .. }
            | Event::Executed { job, .. }
            | Event::Acked { job, .. }
            | Event::Progressed { job, .. }
            | Event::Rescued { job, .. }
            | Event::Pruned { job, .. }
            | Event::Cancelled { job, .. }
            | Event::Staged { job }
            | Event::Retried { job }
            | Event::Deleted { job }
            | Event::Updated { job }
            | Event::Stuck { job } => Some(job),
            _ => None,
        }
    }
}

/// The first line of an error, as a log has room for it.
pub(crate) fn first_line(error: &str) -> &str {
    error.lines().next().unwrap_or_default()
}
