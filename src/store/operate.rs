//! What an operator changes: cancel, retry, delete, update.

use rusqlite::Connection;

use super::columns::{self, UPDATE};
use super::sweep::Changed;
use super::value::{one, run, text, with_text};
use crate::error::Result;
use crate::job::{Check, Job, State};

const BRIEF: &str = "SELECT id, queue, worker, attempt, state FROM kiln_jobs WHERE id = ?1";

/// What a verb needs to know of a row.
pub(crate) fn brief(conn: &Connection, id: i64) -> Result<Option<Changed>> {
    one(conn, BRIEF, [id], |row| Changed::read(row, with_text(row.get_ref(4)?, State::from_name)))
}

const CANCEL: &str = "UPDATE kiln_jobs SET state = 'cancelled', cancelled_at = ?2, meta = ?3 WHERE id = ?1";

pub(crate) fn cancel(conn: &Connection, id: i64, now: i64, meta: &str) -> Result<()> {
    run(conn, CANCEL, (id, now, meta)).map(|_| ())
}

const REQUEST_CANCEL: &str = "
UPDATE kiln_jobs SET cancel_requested_at = coalesce(cancel_requested_at, ?2) WHERE id = ?1";

/// Asks an executing job to end.
pub(crate) fn request_cancel(conn: &Connection, id: i64, now: i64) -> Result<()> {
    run(conn, REQUEST_CANCEL, (id, now)).map(|_| ())
}

const RETRY: &str = "
UPDATE kiln_jobs SET state = 'available', crashes = 0, resumes = 0, max_attempts = max(max_attempts, attempt + 1),
  scheduled_at = ?2, completed_at = NULL, cancelled_at = NULL, discarded_at = NULL, cancel_requested_at = NULL,
  expires_at = NULL
WHERE id = ?1";

/// Makes the job available with at least one attempt left, and forgets what it did to its processes.
pub(crate) fn retry(conn: &Connection, id: i64, now: i64) -> Result<()> {
    run(conn, RETRY, (id, now)).map(|_| ())
}

const DELETE: &str = "DELETE FROM kiln_jobs WHERE id = ?1";

/// Call it within [`keeping_ids`](super::sweep::keeping_ids).
pub(crate) fn delete(conn: &Connection, id: i64) -> Result<()> {
    run(conn, DELETE, [id]).map(|_| ())
}

/// Writes `job` over `old`, and gives it another unique key if a compared field changed.
pub(crate) fn update(conn: &Connection, old: &Job, job: &Job) -> Result<()> {
    let key = if Check::may_differ(old, job) { Check::rekey(&unique_key(conn, job.id)?, old, job) } else { None };
    columns::write(conn, &UPDATE, job.id, key.as_deref(), job)
}

const UNIQUE_KEY: &str = "SELECT unique_key FROM kiln_jobs WHERE id = ?1";

fn unique_key(conn: &Connection, id: i64) -> Result<String> {
    Ok(one(conn, UNIQUE_KEY, [id], |row| Ok(text(row.get_ref(0)?)))?.unwrap_or_default())
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    let fixed = [BRIEF, CANCEL, REQUEST_CANCEL, RETRY, DELETE, UNIQUE_KEY].map(str::to_owned);
    fixed.into_iter().chain([UPDATE.clone()]).collect()
}
