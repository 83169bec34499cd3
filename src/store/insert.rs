//! New jobs.

use std::rc::Rc;
use std::sync::LazyLock;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::columns::{self, INSERT, INSERT_ALIKE, NAMES};
use super::value::{exists, one};
use crate::error::Result;
use crate::job::{Job, State};

/// The id that the next job must have, if SQLite would give it another.
///
/// SQLite gives a new row the id after the newest row. That is wrong only if a newer job was deleted, whose id
/// `kiln_schema` remembers. `known` is an id that was given before: if it is above the remembered id, the newest row is
/// above it as well. After the last possible id SQLite itself draws a free one.
const NEXT_ID: &str = "
SELECT last_id + 1 FROM kiln_schema
WHERE last_id >= ?1 AND last_id < 9223372036854775807 AND last_id > ifnull((SELECT max(id) FROM kiln_jobs), 0)";

/// Asked before the first job of a transaction, and again after a delete; the ids of the jobs after it follow.
pub(crate) fn next_id(conn: &Connection, known: i64) -> Result<Option<i64>> {
    one(conn, NEXT_ID, [known], |row| row.get(0))
}

/// Stores a job and returns its id. `None` for `id` lets SQLite give one.
pub(crate) fn insert(conn: &Connection, job: &Job, id: Option<i64>, key: Option<&str>) -> Result<i64> {
    columns::write(conn, &INSERT, id, key, job)?;
    Ok(conn.last_insert_rowid())
}

/// Stores jobs that are like this one but for their arguments, and returns the id of the last.
pub(crate) fn insert_alike(conn: &Connection, job: &Job, args: &Rc<Vec<Value>>) -> Result<i64> {
    columns::write(conn, &INSERT_ALIKE, args, None, job)?;
    Ok(conn.last_insert_rowid())
}

const HAS_KEY: &str = "SELECT 1 FROM kiln_jobs INDEXED BY kiln_jobs_unique WHERE unique_key = ?1 LIMIT 1";

/// Whether any job has this unique key, in whatever state.
pub(crate) fn has_key(conn: &Connection, key: &str) -> Result<bool> {
    exists(conn, HAS_KEY, [key])
}

/// The time that counts for a duplicate, as the index has it.
const STAMP: &str = "CASE WHEN unique_key GLOB 's*' THEN scheduled_at ELSE inserted_at END";

/// A waiting job that has expired counts as cancelled.
static DUPLICATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM kiln_jobs INDEXED BY kiln_jobs_unique
WHERE unique_key = ?1 AND state = ?2 AND {STAMP} >= ?3
  AND (state NOT IN ('available', 'scheduled', 'retryable', 'suspended') OR ifnull(expires_at, ?4 + 1) > ?4)
ORDER BY {STAMP} DESC LIMIT 1",
        &*NAMES
    )
});

/// The newest job in this state that has the key, was stamped at `since` or later and had not expired by `expired`.
pub(crate) fn duplicate(conn: &Connection, key: &str, state: State, since: i64, expired: i64) -> Result<Option<Job>> {
    one(conn, &DUPLICATE, (key, state.as_str(), since, expired), columns::read)
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    let texts = [INSERT.as_str(), INSERT_ALIKE.as_str(), DUPLICATE.as_str(), NEXT_ID, HAS_KEY];
    texts.map(str::to_owned).into()
}
