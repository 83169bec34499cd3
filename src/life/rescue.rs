//! Rescue: attempts whose runtime is dead are ended, and their jobs run again or are discarded.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::Connection;

use super::ack::abandon;
use super::tx::{Batch, Tx};
use crate::error::Result;
use crate::job::{Ack, Begun, Lost, SUSPECT, State, Verdict};
use crate::presence::Remains;
use crate::store;
use crate::store::rescue::Executing;
use crate::store::sweep::{Changed, ChangedJobs};

/// The dead runtimes, each with its sidecar if that can be read. Runtimes of one process are all in it, or none is.
pub(crate) type Dead = HashMap<String, Option<Remains>>;

/// The attempts of dead runtimes, with what is known of each.
pub(super) fn lost(conn: &Connection, dead: &Dead) -> Result<Vec<Lost>> {
    let runtimes = store::runtimes::list(conn)?.into_iter();
    let listing: HashSet<String> = runtimes.filter(|runtime| runtime.lists).map(|runtime| runtime.id).collect();
    let executing = store::rescue::executing(conn)?.into_iter();
    let lost = executing.filter_map(|attempt| {
        let remains = dead.get(&attempt.runtime)?.as_ref();
        let without = if listing.contains(&attempt.runtime) { Begun::Unknown } else { Begun::Unlisted };
        Some((describe(attempt, remains, without), remains))
    });
    let lost: Vec<(Lost, Option<&Remains>)> = lost.collect();
    // How many attempts of each process were in their window. Attempts that are listed still but executing no more
    // were acknowledged, and do not count.
    let mut in_window: HashMap<&str, usize> = HashMap::new();
    for remains in lost.iter().filter(|(lost, _)| lost.begun == Begun::InWindow).filter_map(|(_, remains)| *remains) {
        *in_window.entry(&remains.process).or_default() += 1;
    }
    let with_company = |(lost, remains): (Lost, Option<&Remains>)| {
        let itself = usize::from(lost.begun == Begun::InWindow);
        let company = remains.is_some_and(|remains| {
            remains.shared || in_window.get(&*remains.process).is_some_and(|count| *count > itself)
        });
        Lost { company, ..lost }
    };
    Ok(lost.into_iter().map(with_company).collect())
}

/// What is known of an attempt by itself; how far it had come if there are no remains.
fn describe(attempt: Executing, remains: Option<&Remains>, without: Begun) -> Lost {
    let Executing { fence, node, runtime, max_attempts, crashes, resumes, checkpointed, .. } = attempt;
    Lost {
        fence,
        begun: remains.map_or(without, |remains| remains.trace(fence)),
        crashes,
        resumes,
        max_attempts,
        has_checkpoint: checkpointed,
        max_crashes: remains.map_or(0, |remains| remains.rules.max_crashes),
        company: false,
        owner: format!("{runtime:?} on {node:?}"),
    }
}

/// Ends the attempts of dead runtimes, forgets these runtimes once nothing of them is left, and discards available jobs
/// without an attempt left. Returns whether there is more to rescue than fits into one transaction.
///
/// The batch limits the attempts that had not begun. Those that had begun are at most as many as there are threads.
pub(crate) fn rescue(tx: &mut Tx<'_>, dead: &Dead, batch: Batch) -> Result<(ChangedJobs, bool)> {
    let (mut rescued, mut left, mut more) = (ChangedJobs::new(batch.wanted), batch.size, false);
    for lost in lost(tx.conn, dead)? {
        // All that had begun in a process are ended in one transaction: the next could not count them any more.
        if matches!(lost.begun, Begun::No | Begun::Unknown | Begun::Unlisted) {
            if left == 0 {
                more = true;
                continue;
            }
            left -= 1;
        }
        end(tx, &Ack { fence: lost.fence, verdict: lost.verdict() }, batch.now, &mut rescued)?;
    }
    if !more {
        dead.keys().try_for_each(|id| store::runtimes::forget(tx.conn, id))?;
    }
    store::sweep::discard_exhausted(tx.conn, batch.now.as_microsecond(), batch.size, &mut rescued)?;
    Ok((rescued, more))
}

/// Ends the attempts claimed before a time, for a file on which nobody can tell which runtimes live. Attempts of the
/// runtimes that live `here` go on.
pub(crate) fn rescue_older(
    tx: &mut Tx<'_>,
    before: Timestamp,
    here: &HashSet<String>,
    batch: Batch,
) -> Result<ChangedJobs> {
    let (mut rescued, before) = (ChangedJobs::new(batch.wanted), before.as_microsecond());
    let is_old = |attempt: &Executing| attempt.fence.attempted_at < before && !here.contains(&attempt.runtime);
    let old = store::rescue::executing(tx.conn)?.into_iter().filter(is_old);
    for Executing { fence, node, runtime, .. } in old.take(batch.size as usize) {
        let error = format!("abandoned: runtime {runtime:?} on {node:?} executed it for too long");
        end(tx, &Ack { fence, verdict: Verdict::Abandon { error } }, batch.now, &mut rescued)?;
    }
    store::sweep::discard_exhausted(tx.conn, batch.now.as_microsecond(), batch.size, &mut rescued)?;
    Ok(rescued)
}

fn end(tx: &mut Tx<'_>, ack: &Ack, now: Timestamp, rescued: &mut ChangedJobs) -> Result<()> {
    // The job is told as it was before: some attempts are given back.
    let before = store::operate::brief(tx.conn, ack.fence.id)?;
    let (state, crashes) = abandon(tx, ack, now)?;
    if let Some(job) = before {
        let error = ack.error().map(str::to_owned);
        // An attempt that had not begun says nothing new of its job.
        let is_suspect = error.is_some() && state == State::Available && crashes >= SUSPECT;
        rescued.add(Changed { state, error, is_suspect, ..job });
    }
    Ok(())
}
