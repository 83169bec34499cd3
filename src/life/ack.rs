//! Ack: what the end of an attempt means is written, if the attempt still is the job's.

use jiff::Timestamp;
use rusqlite::Connection;

use super::tx::Tx;
use crate::error::{Error, Result};
use crate::file::Permission;
use crate::job::{Ack, Fence, Settled, Standing, State, Verdict};
use crate::store::ack::{complete, complete_many, is_completed_by, record, record_many, settle, standing, standing_of};

/// From how many rows on one statement for all of them costs less than one for each.
const MANY: usize = 4;

/// Writes acks, and returns for each what its job became; `None` for an ack that came too late.
pub(crate) fn acknowledge(tx: &mut Tx<'_>, acks: &[Ack], now: Timestamp) -> Result<Vec<Option<State>>> {
    if acks.len() < MANY {
        return acks.iter().map(|ack| acknowledge_one(tx, ack, now)).collect();
    }
    let mut order: Vec<usize> = (0..acks.len()).collect();
    order.sort_unstable_by_key(|&n| acks[n].fence.id);
    let mut acked = vec![None; acks.len()];
    for neighbours in order.chunk_by(|&n, &next| acks[n].is_followed_by(&acks[next])) {
        let at_once = neighbours.len() >= MANY;
        let all = at_once && complete_neighbours(tx.conn, acks, neighbours, now)?;
        for &n in neighbours {
            acked[n] = match all {
                true => Some(State::Completed),
                // The ack is alone; or others were completed with it at once, but not all of them.
                false => match acknowledge_one(tx, &acks[n], now)? {
                    None if at_once && is_completed_by(tx.conn, acks[n].fence)? => Some(State::Completed),
                    state => state,
                },
            };
        }
    }
    Ok(acked)
}

/// Completes jobs whose ids follow each other, and returns whether all of their acks were in time.
fn complete_neighbours(conn: &Connection, acks: &[Ack], neighbours: &[usize], now: Timestamp) -> Result<bool> {
    let (first, last) = (acks[neighbours[0]].fence, acks[neighbours[neighbours.len() - 1]].fence.id);
    let now = now.as_microsecond();
    let metas: Vec<String> = neighbours.iter().filter_map(|&n| acks[n].records_alone()).collect();
    let changed = match metas.is_empty() {
        true => complete_many(conn, first, last, now)?,
        false => record_many(conn, first, now, metas)?,
    };
    Ok(changed == neighbours.len())
}

fn acknowledge_one(tx: &mut Tx<'_>, ack: &Ack, now: Timestamp) -> Result<Option<State>> {
    let micros = now.as_microsecond();
    if ack.verdict == Verdict::Complete {
        return Ok(complete(tx.conn, ack.fence, micros)?.then_some(State::Completed));
    }
    if let Some(meta) = ack.records_alone()
        && record(tx.conn, ack.fence, micros, &meta)?
    {
        return Ok(Some(State::Completed));
    }
    if let Some(standing) = standing(tx.conn, ack.fence)? {
        return Ok(Some(apply(tx, ack, &standing, now)?.state));
    }
    let committed = ack.verdict == Verdict::Committed && is_completed_by(tx.conn, ack.fence)?;
    Ok(committed.then_some(State::Completed))
}

/// Ends the attempt of an executing job that was just read in this transaction. No fence is needed, and none would hold
/// for a row that another program wrote. Returns the job's state and its crashes.
pub(crate) fn abandon(tx: &mut Tx<'_>, ack: &Ack, now: Timestamp) -> Result<(State, i64)> {
    let id = ack.fence.id;
    let gone = || Error::malformed(format!("job {id} was there a moment ago, and is gone"));
    let standing = standing_of(tx.conn, id)?.ok_or_else(gone)?;
    let settled = apply(tx, ack, &standing, now)?;
    Ok((settled.state, settled.crashes.unwrap_or(standing.crashes)))
}

fn apply(tx: &mut Tx<'_>, ack: &Ack, standing: &Standing, now: Timestamp) -> Result<Settled> {
    let settled = ack.settle(standing, now);
    settle(tx.conn, ack.fence.id, &settled, now.as_microsecond())?;
    match (settled.state, settled.scheduled_at) {
        (State::Scheduled | State::Retryable, Some(at)) => tx.notice.add_due(at),
        // The row was not read for its queue, so every queue is named.
        (State::Available, _) => tx.notice.all_queues = true,
        _ => {}
    }
    Ok(settled)
}

/// Completes a job within a transaction that the application began and will end. The caller has asked for permission to
/// write. Returns whether the attempt still was the job's.
pub(crate) fn complete_within(conn: &Connection, fence: Fence, now: Timestamp) -> Result<bool> {
    Permission::check_within(conn)?;
    complete(conn, fence, now.as_microsecond())
}
