//! Acks: fenced, one by one or those of neighbours at once.

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::claim::MANY;
use super::recorded::with_metas;
use super::verbs::{exists, run};
use super::write::Tx;
use super::{failed, rows, sql};
use crate::Result;
use crate::job::{Ack, Fence, Standing, State, Verdict};

/// Writes acks; says for each what its job became.
pub(super) fn acknowledge_all(tx: &mut Tx<'_>, acks: &[Ack], now: Timestamp) -> Result<Vec<Option<State>>> {
    if acks.len() < MANY {
        return acks.iter().map(|ack| acknowledge(tx, ack, now)).collect();
    }
    let mut order: Vec<usize> = (0..acks.len()).collect();
    order.sort_unstable_by_key(|&n| acks[n].fence.id);
    let mut acked = vec![None; acks.len()];
    for neighbours in order.chunk_by(|&n, &next| acks[n].is_followed_by(&acks[next])) {
        let at_once = neighbours.len() >= MANY;
        let all = at_once && complete_many(tx.conn, acks, neighbours, now)?;
        for &n in neighbours {
            acked[n] = match all {
                true => Some(State::Completed),
                // Alone; or with others, of which some came too late, and the rest is completed by now.
                false => match acknowledge(tx, &acks[n], now)? {
                    None if at_once && is_completed_by(tx.conn, acks[n].fence)? => Some(State::Completed),
                    state => state,
                },
            };
        }
    }
    Ok(acked)
}

/// Says whether all of these were in time.
fn complete_many(conn: &Connection, acks: &[Ack], neighbours: &[usize], now: Timestamp) -> Result<bool> {
    let (first, last) = (acks[neighbours[0]].fence, acks[neighbours[neighbours.len() - 1]].fence);
    let range = (first.id, last.id, first.attempt, first.attempted_at, now.as_microsecond());
    let metas: Vec<String> = neighbours.iter().filter_map(|&n| acks[n].records_alone()).collect();
    let changed = match metas.is_empty() {
        true => run(conn, sql::ACK_COMPLETE_MANY, range)?,
        false => with_metas(first.id, metas, || run(conn, sql::ACK_RECORD_MANY, range))?,
    };
    Ok(changed == neighbours.len())
}

/// Writes an ack; says what the job became. A late ack changes nothing.
pub(super) fn acknowledge(tx: &mut Tx<'_>, ack: &Ack, now: Timestamp) -> Result<Option<State>> {
    let Fence { id, attempt, attempted_at } = ack.fence;
    if ack.verdict == Verdict::Complete {
        let changed = run(tx.conn, sql::ACK_COMPLETE, (id, attempt, attempted_at, now.as_microsecond()))?;
        return Ok((changed == 1).then_some(State::Completed));
    }
    if let Some(meta) = ack.records_alone() {
        let completed = (id, attempt, attempted_at, now.as_microsecond(), meta);
        if run(tx.conn, sql::ACK_RECORD, completed)? == 1 {
            return Ok(Some(State::Completed));
        }
    }
    let standing = tx
        .conn
        .prepare_cached(sql::ACK_STANDING)
        .and_then(|mut select| select.query_one((id, attempt, attempted_at), standing).optional())
        .map_err(failed)?;
    let Some(standing) = standing else {
        let committed = ack.verdict == Verdict::Committed && is_completed_by(tx.conn, ack.fence)?;
        return Ok(committed.then_some(State::Completed));
    };
    settle(tx, ack, &standing, now).map(Some)
}

/// The same for an executing job that nobody else can write to within this transaction: no fence is needed, and none
/// would do for a row that something else wrote.
pub(super) fn abandon(tx: &mut Tx<'_>, ack: &Ack, now: Timestamp) -> Result<State> {
    let standing = tx
        .conn
        .prepare_cached(sql::STANDING)
        .and_then(|mut select| select.query_one([ack.fence.id], standing))
        .map_err(failed)?;
    settle(tx, ack, &standing, now)
}

fn settle(tx: &mut Tx<'_>, ack: &Ack, standing: &Standing, now: Timestamp) -> Result<State> {
    let settled = ack.settle(standing, now);
    tx.conn
        .prepare_cached(sql::ACK_SETTLE)
        .and_then(|mut update| {
            update.execute(params![
                ack.fence.id,
                settled.state.as_str(),
                settled.attempt,
                settled.scheduled_at.map(Timestamp::as_microsecond),
                settled.meta.as_ref().map(|meta| meta.as_str()),
                settled.errors,
                now.as_microsecond(),
                settled.crashes,
            ])
        })
        .map_err(failed)?;
    match (settled.state, settled.scheduled_at) {
        (State::Scheduled | State::Retryable, Some(at)) => tx.news.due_at(at),
        // The queue is not named here: who has it will look.
        (State::Available, _) => tx.news.all_queues = true,
        _ => {}
    }
    Ok(settled.state)
}

/// Whether the attempt is the one that completed its job.
fn is_completed_by(conn: &Connection, fence: Fence) -> Result<bool> {
    exists(conn, sql::COMPLETED, (fence.id, fence.attempt, fence.attempted_at))
}

fn standing(row: &rusqlite::Row<'_>) -> rusqlite::Result<Standing> {
    Ok(Standing {
        attempt: rows::integer(row.get_ref(0)?),
        max_attempts: rows::integer(row.get_ref(1)?),
        meta: rows::json(row.get_ref(2)?),
        errors: rows::text(row.get_ref(3)?),
        cancel_requested: row.get_ref(4)? != ValueRef::Null,
        crashes: rows::integer(row.get_ref(5)?),
    })
}
