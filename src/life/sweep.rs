//! Stage and prune: due jobs become available, and jobs that ended long ago are deleted.

use jiff::Timestamp;
use rusqlite::Connection;

use super::tx::{Batch, Tx};
use crate::error::Result;
use crate::job::State;
use crate::store::sweep::{self, ChangedJobs};

/// Makes due jobs of these queues available; of each queue a batch.
pub(crate) fn stage(tx: &mut Tx<'_>, queues: &[String], batch: Batch) -> Result<ChangedJobs> {
    let mut staged = ChangedJobs::new(batch.wanted);
    for queue in queues {
        if sweep::stage(tx.conn, queue, batch.now.as_microsecond(), batch.size, &mut staged)? > 0 {
            tx.notice.add_queue(queue);
        }
    }
    Ok(staged)
}

/// When the first waiting job of these queues is due.
pub(crate) fn next_due(conn: &Connection, queues: &[String]) -> Result<Option<Timestamp>> {
    let mut next: Option<Timestamp> = None;
    for queue in queues {
        next = next.into_iter().chain(sweep::next_due(conn, queue)?).min();
    }
    Ok(next)
}

/// A job may be pruned that ended in a state by the time that is given for it; `None` keeps the jobs for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cutoffs {
    pub completed: Option<Timestamp>,
    pub cancelled: Option<Timestamp>,
    pub discarded: Option<Timestamp>,
}

/// Deletes jobs that ended before the cutoff of their state; at most `batch` of each state.
pub(crate) fn prune(tx: &mut Tx<'_>, cutoffs: &Cutoffs, batch: Batch) -> Result<ChangedJobs> {
    let mut pruned = ChangedJobs::new(batch.wanted);
    for (state, cutoff) in [
        (State::Completed, cutoffs.completed),
        (State::Cancelled, cutoffs.cancelled),
        (State::Discarded, cutoffs.discarded),
    ] {
        if let Some(cutoff) = cutoff {
            tx.newest = None;
            sweep::prune(tx.conn, state, cutoff.as_microsecond(), batch.size, &mut pruned)?;
        }
    }
    Ok(pruned)
}
