//! Jobs that may be claimed, and their claims.

use std::sync::OnceLock;

use rusqlite::{Connection, Rows, ToSql};

use super::columns::{self, NAMES};
use super::value::{all, one, run, text};
use crate::error::Result;
use crate::file::failed;
use crate::job::{Fence, Job};

/// What an ordinary claim asks for. An attempt beyond the last is never claimed, and a suspect is claimed by itself.
macro_rules! available {
    () => {
        "FROM kiln_jobs INDEXED BY kiln_jobs_available
WHERE state = 'available' AND attempt < max_attempts AND crashes < 2 AND queue = ?1"
    };
}

/// How many sorted lists SQLite merges in one statement: 500, and some to spare.
pub(crate) const MOST_WORKERS: usize = 400;

/// One sorted list for each worker, merged in claim order: ?1 is the queue, ?2 the limit, then one worker each.
fn text_for(workers: usize) -> &'static str {
    static TEXTS: [OnceLock<String>; MOST_WORKERS + 1] = [const { OnceLock::new() }; MOST_WORKERS + 1];
    TEXTS[workers].get_or_init(|| {
        let list = |n| format!(concat!("SELECT {} ", available!(), " AND worker = ?{}"), &*NAMES, n + 3);
        let lists: Vec<String> = (0..workers).map(list).collect();
        format!("{} ORDER BY priority, scheduled_at, id LIMIT ?2", lists.join(" UNION ALL "))
    })
}

/// Hands the jobs of the queue to `take`, in claim order, until it returns `false`; at most `limit`. The error is
/// SQLite's own, so that the caller can tell a damaged row.
pub(crate) fn available(
    conn: &Connection,
    queue: &str,
    workers: &[String],
    limit: usize,
    mut take: impl FnMut(Job) -> bool,
) -> rusqlite::Result<()> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(text_for(workers.len()))?;
    let mut parameters: Vec<&dyn ToSql> = Vec::with_capacity(2 + workers.len());
    parameters.extend([&queue as &dyn ToSql, &limit]);
    parameters.extend(workers.iter().map(|worker| worker as &dyn ToSql));
    let mut rows: Rows<'_> = select.query(parameters.as_slice())?;
    while let Some(row) = rows.next()? {
        if !take(columns::read(row)?) {
            break;
        }
    }
    Ok(())
}

/// The ids of one worker's jobs in claim order. The index alone has all that this asks for, so a damaged row is passed.
const IDS: &str = concat!("SELECT id ", available!(), " AND worker = ?2 ORDER BY priority, scheduled_at, id");

/// Hands the ids to `take` until it returns `false`.
pub(crate) fn available_ids(
    conn: &Connection,
    queue: &str,
    worker: &str,
    mut take: impl FnMut(i64) -> Result<bool>,
) -> Result<()> {
    let mut select = conn.prepare_cached(IDS).map_err(failed)?;
    let mut rows = select.query((queue, worker)).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if !take(row.get(0).map_err(failed)?)? {
            break;
        }
    }
    Ok(())
}

/// The ids of the suspects that wait in a queue, in claim order. There are few at any time.
const SUSPECTS: &str = "
SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_suspects
WHERE crashes >= 2 AND state = 'available' AND queue = ?1 ORDER BY priority, scheduled_at, id";

pub(crate) fn suspects(conn: &Connection, queue: &str) -> Result<Vec<i64>> {
    all(conn, SUSPECTS, [queue], |row| row.get(0))
}

const CLAIM: &str = "
UPDATE kiln_jobs SET state = 'executing', attempt = ?2, attempted_at = ?3, attempted_by = ?4 WHERE id = ?1";

/// Stores that the attempt was claimed, and by whom.
pub(crate) fn claim(conn: &Connection, fence: Fence, owner: &str) -> Result<()> {
    run(conn, CLAIM, (fence.id, fence.attempt, fence.attempted_at, owner)).map(|_| ())
}

const CLAIM_FRESH: &str = "
UPDATE kiln_jobs SET state = 'executing', attempt = 1, attempted_at = ?3, attempted_by = ?4 WHERE id BETWEEN ?1 AND ?2";

/// The same for all jobs from one id to another, none of which was claimed before.
pub(crate) fn claim_fresh(conn: &Connection, first: i64, last: i64, attempted_at: i64, owner: &str) -> Result<()> {
    run(conn, CLAIM_FRESH, (first, last, attempted_at, owner)).map(|_| ())
}

const ERRORS: &str = "SELECT errors FROM kiln_jobs WHERE id = ?1";

/// The errors of a job as they are stored.
pub(crate) fn errors(conn: &Connection, id: i64) -> Result<String> {
    Ok(one(conn, ERRORS, [id], |row| Ok(text(row.get_ref(0)?)))?.unwrap_or_default())
}

const EXPIRE: &str = "UPDATE kiln_jobs SET state = 'cancelled', cancelled_at = ?2, errors = ?3 WHERE id = ?1";

/// Cancels a job that was found too late to begin.
pub(crate) fn expire(conn: &Connection, id: i64, now: i64, errors: &str) -> Result<()> {
    run(conn, EXPIRE, (id, now, errors)).map(|_| ())
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    let fixed = [IDS, SUSPECTS, CLAIM, CLAIM_FRESH, ERRORS, EXPIRE].map(str::to_owned);
    fixed.into_iter().chain([1, 2, 7].map(|workers| text_for(workers).to_owned())).collect()
}
