//! Cron entries. The jobs of a slot and the slot are written together, and only if the entry still is what it was read
//! as: of several runtimes one fires.

use jiff::Timestamp;

use super::enqueue::Enqueue;
use super::tx::{Operation, Tx};
use crate::error::Result;
use crate::job::{CronEntry, Firing, Job};
use crate::store::crons::{get, settle_slot, store};

/// Adds entries, or gives those that are there a new definition. Returns for each the entry that is stored now.
pub(crate) fn add(tx: &mut Tx<'_>, entries: &[CronEntry], now: Timestamp) -> Result<Vec<CronEntry>> {
    let mut added = Vec::new();
    for new in entries {
        let there = get(tx.conn, &new.name)?;
        let new = CronEntry { since: now, inserted_at: now, revision: now.as_microsecond(), ..new.clone() };
        let wanted = there.as_ref().map_or_else(|| new.clone(), |there| there.redefined(&new, now));
        if there.as_ref() != Some(&wanted) {
            store(tx.conn, &wanted)?;
            tx.notice.crons = true;
        }
        added.extend(get(tx.conn, &new.name)?);
    }
    Ok(added)
}

/// Pauses or resumes an entry. Returns whether there was such an entry, and it was changed.
pub(crate) fn pause(tx: &mut Tx<'_>, name: &str, paused: bool, now: Timestamp) -> Result<bool> {
    let there = get(tx.conn, name)?.filter(|entry| entry.paused != paused);
    let Some(there) = there else { return Ok(false) };
    tx.notice.crons = true;
    store(tx.conn, &there.pausing(paused, now)).map(|()| true)
}

/// Settles slots and stores their jobs, each if nobody has changed its entry or settled a slot of it since it was read.
/// Returns the jobs of each slot that was settled, in the order of the firings.
pub(crate) fn fire(tx: &mut Tx<'_>, firings: &[Firing]) -> Result<Vec<Option<Vec<Job>>>> {
    let fire = |Firing { name, revision, slot, jobs }: &Firing| {
        if !settle_slot(tx.conn, name, *revision, *slot)? {
            return Ok(None);
        }
        let mut enqueue = Enqueue::new(jobs.clone());
        enqueue.run(tx).map(|()| Some(enqueue.finish()))
    };
    firings.iter().map(fire).collect()
}
