//! What an event says.

use std::path::PathBuf;
use std::time::Duration;

use crate::job::{Job, Progress, Queues, State};

/// Something that happened on a handle, or in a runtime started from it. Each name is a verb in the past tense.
///
/// Observers are given to [`KilnBuilder::observe`](crate::KilnBuilder::observe). An observer is called on the thread
/// that made the change, after the commit and without a lock. If an observer panics, the panic is ignored; a slow
/// observer slows down its own thread only. An operation on many jobs makes an event for each job that it changed.
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
    /// An enqueue found a [duplicate](crate::Unique) and stored nothing. Fields named by
    /// [`replace`](crate::Unique::replace) were updated on the existing job.
    #[non_exhaustive]
    Conflicted {
        /// The existing job.
        job: Subject,
    },
    /// A runtime claimed a job to execute it.
    #[non_exhaustive]
    Claimed {
        /// The job, and which attempt at it.
        job: Subject,
        /// How long the job waited since it was due.
        queue_time: Duration,
    },
    /// A worker's `process` ended.
    #[non_exhaustive]
    Executed {
        /// The job, and which attempt at it.
        job: Subject,
        /// How long the job waited since it was due.
        queue_time: Duration,
        /// How long `process` took.
        run_time: Duration,
        /// The error, if the attempt failed. Values that are [hidden](crate::KilnBuilder::redact) are left out.
        error: Option<String>,
    },
    /// The result of an attempt was stored, or came too late to be stored. This event has all there is to say about an
    /// attempt, for an observer that writes one line for each attempt.
    #[non_exhaustive]
    Acked {
        /// The job, and which attempt at it.
        job: Subject,
        /// The state of the job after the attempt. `None` if the job had moved on to another attempt.
        state: Option<State>,
        /// How long the job waited since it was due.
        queue_time: Duration,
        /// How long `process` took. `None` if it did not end: the job was given back, or its thread was given up.
        run_time: Option<Duration>,
        /// What was added to the job's [`errors`](crate::Job::errors). Values that are
        /// [hidden](crate::KilnBuilder::redact) are left out.
        error: Option<String>,
    },
    /// A job was not claimed before it [expired](crate::NewJob::expires_at), and was cancelled.
    #[non_exhaustive]
    Expired {
        /// The job.
        job: Subject,
    },
    /// An attempt did not end in time, and its thread was given up.
    #[non_exhaustive]
    Stuck {
        /// The job, and which attempt at it.
        job: Subject,
    },
    /// A runtime cannot write: the disk is full or fails, another process keeps the write lock, or a newer kiln has
    /// taken the file over. The runtime keeps the acks of finished jobs, claims nothing new, and tries again by itself:
    /// after 0.7 seconds, then more and more rarely, up to every 30 seconds. The event is made once, until the runtime
    /// has [recovered](Self::Recovered).
    #[non_exhaustive]
    Degraded {
        /// What went wrong.
        reason: String,
    },
    /// A runtime can write again, and has written the acks that it kept.
    #[non_exhaustive]
    Recovered {
        /// How long the runtime could not write.
        after: Duration,
    },
    /// A job reported its progress.
    #[non_exhaustive]
    Progressed {
        /// The job, and which attempt at it.
        job: Subject,
        /// How far the job is.
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
        /// The state of the job now: available, discarded if no attempt is left or the job crashed its process too
        /// often, cancelled if somebody had asked for that.
        state: State,
        /// What was added to the job's [`errors`](crate::Job::errors). Values that are
        /// [hidden](crate::KilnBuilder::redact) are left out. `None` if the attempt had not begun.
        error: Option<String>,
    },
    /// A job whose runtime died waits as a suspect: its process has died twice in a row soon after the job had begun. A
    /// process executes one suspect at a time, see [`RuntimeBuilder::max_crashes`](crate::RuntimeBuilder::max_crashes).
    /// The event follows [`Rescued`](Self::Rescued).
    #[non_exhaustive]
    Suspected {
        /// The job, and which attempt at it was abandoned.
        job: Subject,
    },
    /// An old job was deleted.
    #[non_exhaustive]
    Pruned {
        /// The job.
        job: Subject,
        /// The state in which the job ended: completed, cancelled or discarded.
        state: State,
    },
    /// A job was cancelled, or asked to cancel while it executes.
    #[non_exhaustive]
    Cancelled {
        /// The job.
        job: Subject,
        /// The state of the job now: cancelled, or still executing if it was asked to cancel.
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
        /// The job, as it was before.
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
        /// The queue, or all queues.
        queues: Queues,
        /// Whether this is for all runtimes on the file, or for one runtime.
        for_all: bool,
    },
    /// A pause was ended.
    #[non_exhaustive]
    Resumed {
        /// The queue, or all queues.
        queues: Queues,
        /// Whether this is for all runtimes on the file, or for one runtime.
        for_all: bool,
    },
    /// A queue was given another limit.
    #[non_exhaustive]
    Scaled {
        /// The queue, or all queues.
        queues: Queues,
        /// How many of its jobs a runtime may run at once. `None` if each runtime has its own limit again.
        limit: Option<usize>,
        /// Whether this is for all runtimes on the file, or for one runtime.
        for_all: bool,
    },
    /// A queue was started.
    #[non_exhaustive]
    QueueStarted {
        /// The queue, or all queues.
        queues: Queues,
        /// How many of its jobs a runtime runs at once, at most. `None` if the runtimes decide for themselves again.
        limit: Option<usize>,
        /// Whether this is for all runtimes on the file, or for one runtime.
        for_all: bool,
    },
    /// A queue was stopped.
    #[non_exhaustive]
    QueueStopped {
        /// The queue, or all queues.
        queues: Queues,
        /// Whether this is for all runtimes on the file, or for one runtime.
        for_all: bool,
    },
    /// A cron entry was added, or its definition was replaced.
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
    /// A file of an older kiln was brought to the schema version of this kiln when it was opened.
    #[non_exhaustive]
    Migrated {
        /// The version that the file had.
        from: i64,
        /// The version that the file has now.
        to: i64,
        /// Where the backup of the file as it was before is.
        backup: Option<PathBuf>,
    },
    /// Something is not as it should be, although everything works. The event is made once, when the file is opened.
    #[non_exhaustive]
    Warned {
        /// What is wrong, and what to do about it.
        warning: String,
    },
}

/// Which job an event is about. The arguments of the job are left out, since they do not belong into logs.
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
    /// The name of the event: a verb in the past tense.
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
            Event::Suspected { .. } => "suspected",
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

    /// The job that the event is about. `None` for events of a runtime, a queue, a cron entry or the file as a whole.
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
            | Event::Suspected { job }
            | Event::Retried { job }
            | Event::Deleted { job }
            | Event::Updated { job }
            | Event::Stuck { job } => Some(job),
            _ => None,
        }
    }
}

/// The first line of an error, for a log.
pub(crate) fn first_line(error: &str) -> &str {
    error.lines().next().unwrap_or_default()
}
