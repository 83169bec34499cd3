//! Acks and notes of an attempt: each changes the row only if it still has the attempt of the fence.

use std::rc::Rc;

use jiff::Timestamp;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params};

use super::value::{exists, integer, json, one, run, text};
use crate::error::Result;
use crate::job::{Fence, Note, Settled, Standing};

/// What an ack changes of a job that completed, beside its time and its meta.
macro_rules! completed {
    () => {
        "UPDATE kiln_jobs SET state = 'completed', checkpoint = NULL, crashes = 0, resumes = 0"
    };
}

macro_rules! fenced {
    ($state:literal) => {
        concat!(" WHERE id = ?1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = '", $state, "'")
    };
}

const COMPLETE: &str = concat!(completed!(), ", completed_at = ?4", fenced!("executing"));

/// The ack that nearly every ack is. Returns whether the attempt still was the job's.
pub(crate) fn complete(conn: &Connection, fence: Fence, now: i64) -> Result<bool> {
    Ok(run(conn, COMPLETE, (fence.id, fence.attempt, fence.attempted_at, now))? == 1)
}

const COMPLETE_MANY: &str = concat!(
    completed!(),
    ", completed_at = ?5
WHERE id BETWEEN ?1 AND ?2 AND attempt = ?3 AND ifnull(attempted_at, 0) = ?4 AND state = 'executing'"
);

/// The same for all jobs from that of `first` to the id `last`, claimed at once. Returns how many were completed.
pub(crate) fn complete_many(conn: &Connection, first: Fence, last: i64, now: i64) -> Result<usize> {
    run(conn, COMPLETE_MANY, (first.id, last, first.attempt, first.attempted_at, now))
}

const RECORD: &str = concat!(completed!(), ", completed_at = ?4, meta = ?5", fenced!("executing"), " AND meta = '{}'");

/// Completes a job that recorded a value and has nothing else in its meta, as most have not.
pub(crate) fn record(conn: &Connection, fence: Fence, now: i64, meta: &str) -> Result<bool> {
    Ok(run(conn, RECORD, (fence.id, fence.attempt, fence.attempted_at, now, meta))? == 1)
}

const RECORD_MANY: &str = concat!(
    completed!(),
    ", completed_at = ?4, meta = value FROM rarray(?5)
WHERE id = ?1 + rarray.rowid - 1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = 'executing' AND meta = '{}'"
);

/// The same for the jobs from that of `first` on, whose ids follow each other; `metas` has one for each of them.
pub(crate) fn record_many(conn: &Connection, first: Fence, now: i64, metas: Vec<String>) -> Result<usize> {
    let metas: Rc<Vec<Value>> = Rc::new(metas.into_iter().map(Value::Text).collect());
    run(conn, RECORD_MANY, (first.id, first.attempt, first.attempted_at, now, metas))
}

const IS_COMPLETED: &str = concat!("SELECT 1 FROM kiln_jobs", fenced!("completed"));

/// Whether this attempt is the one that completed its job.
pub(crate) fn is_completed_by(conn: &Connection, fence: Fence) -> Result<bool> {
    exists(conn, IS_COMPLETED, (fence.id, fence.attempt, fence.attempted_at))
}

macro_rules! standing {
    () => {
        "SELECT attempt, max_attempts, meta, errors, cancel_requested_at, crashes, resumes FROM kiln_jobs"
    };
}

const STANDING: &str = concat!(standing!(), fenced!("executing"));

/// What an ack may change of the job; `None` if the attempt is no longer the job's.
pub(crate) fn standing(conn: &Connection, fence: Fence) -> Result<Option<Standing>> {
    one(conn, STANDING, (fence.id, fence.attempt, fence.attempted_at), read_standing)
}

const UNFENCED: &str = concat!(standing!(), " WHERE id = ?1");

/// The same of a job that was just read in this transaction, which needs no fence.
pub(crate) fn standing_of(conn: &Connection, id: i64) -> Result<Option<Standing>> {
    one(conn, UNFENCED, [id], read_standing)
}

fn read_standing(row: &Row<'_>) -> rusqlite::Result<Standing> {
    Ok(Standing {
        attempt: integer(row.get_ref(0)?),
        max_attempts: integer(row.get_ref(1)?),
        meta: json(row.get_ref(2)?),
        errors: text(row.get_ref(3)?),
        cancel_requested: row.get_ref(4)? != ValueRef::Null,
        crashes: integer(row.get_ref(5)?),
        resumes: integer(row.get_ref(6)?),
    })
}

const SETTLE: &str = "
UPDATE kiln_jobs SET state = ?2, attempt = ?3, scheduled_at = coalesce(?4, scheduled_at), meta = coalesce(?5, meta),
  errors = coalesce(?6, errors),
  completed_at = CASE ?2 WHEN 'completed' THEN ?7 ELSE completed_at END,
  cancelled_at = CASE ?2 WHEN 'cancelled' THEN ?7 ELSE cancelled_at END,
  discarded_at = CASE ?2 WHEN 'discarded' THEN ?7 ELSE discarded_at END,
  checkpoint = CASE ?2 WHEN 'completed' THEN NULL ELSE checkpoint END,
  crashes = coalesce(?8, crashes), resumes = coalesce(?9, resumes)
WHERE id = ?1";

/// Writes what an ack made of the job.
pub(crate) fn settle(conn: &Connection, id: i64, settled: &Settled, now: i64) -> Result<()> {
    let row = params![
        id,
        settled.state.as_str(),
        settled.attempt,
        settled.scheduled_at.map(Timestamp::as_microsecond),
        settled.meta.as_ref().map(|meta| meta.as_str()),
        settled.errors,
        now,
        settled.crashes,
        settled.resumes,
    ];
    run(conn, SETTLE, row).map(|_| ())
}

const PROGRESS: &str = concat!("UPDATE kiln_jobs SET progress = ?4", fenced!("executing"));

/// A checkpoint also notes which attempt has stored it: a crash of that attempt costs nothing.
const CHECKPOINT: &str =
    concat!("UPDATE kiln_jobs SET checkpoint = ?4, checkpoint_of = attempted_at", fenced!("executing"));

/// Writes what a running job says about itself, and returns whether the attempt still is the job's.
pub(crate) fn note(conn: &Connection, fence: Fence, note: &Note) -> Result<bool> {
    let (sql, text) = match note {
        Note::Progress(text) => (PROGRESS, text),
        Note::Checkpoint(text) => (CHECKPOINT, text),
    };
    Ok(run(conn, sql, (fence.id, fence.attempt, fence.attempted_at, text))? == 1)
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    let acks = [COMPLETE, COMPLETE_MANY, RECORD, RECORD_MANY, IS_COMPLETED, STANDING, UNFENCED, SETTLE];
    acks.into_iter().chain([PROGRESS, CHECKPOINT]).map(str::to_owned).collect()
}
