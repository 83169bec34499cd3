//! What a diagnosis looks for in the rows. Three of these statements read all jobs: a person waits for the answer.

use rusqlite::Connection;

use super::value::{all, text};
use crate::error::Result;

/// Available jobs without an attempt left.
pub(crate) const EXHAUSTED: &str = "
SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_exhausted
WHERE state = 'available' AND attempt >= max_attempts ORDER BY id";

/// Jobs whose process died soon after they had begun, without an ordinary end since; but for those that wait as suspects.
pub(crate) const CRASHED: &str = "
SELECT id FROM kiln_jobs
WHERE crashes > 0 AND state IN ('available', 'scheduled', 'executing', 'retryable', 'discarded')
  AND NOT (crashes >= 2 AND state = 'available')
ORDER BY id";

/// The available jobs that are claimed one at a time in a process.
pub(crate) const SUSPECTS: &str = "
SELECT id, queue FROM kiln_jobs INDEXED BY kiln_jobs_suspects WHERE crashes >= 2 AND state = 'available' ORDER BY id";

/// The ids and queues of these jobs, in the order of their ids.
pub(crate) fn suspects(conn: &Connection) -> Result<Vec<(i64, String)>> {
    all(conn, SUSPECTS, [], |row| Ok((row.get(0)?, text(row.get_ref(1)?))))
}

/// Rows that are not as kiln writes them.
pub(crate) const MALFORMED: &str = "
SELECT id FROM kiln_jobs
WHERE state NOT IN ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled', 'suspended')
  OR typeof(args) <> 'text' OR typeof(meta) <> 'text' OR NOT json_valid(args) OR NOT json_valid(meta)
  OR NOT json_valid(tags) OR NOT json_valid(errors) OR typeof(attempt) <> 'integer' OR attempt < 0
  OR typeof(max_attempts) <> 'integer' OR typeof(scheduled_at) <> 'integer'
ORDER BY id";

/// Jobs with more than 64 KiB of args and meta.
pub(crate) const LARGE: &str = "
SELECT id FROM kiln_jobs WHERE octet_length(args) + octet_length(meta) > 65536 ORDER BY id";

/// The ids that one of these statements finds.
pub(crate) fn ids(conn: &Connection, sql: &str) -> Result<Vec<i64>> {
    all(conn, sql, [], |row| row.get(0))
}
