//! Attempts that are executing, and available jobs without an attempt left.

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::value::{all, exists, integer, text, time, words};
use crate::error::Result;
use crate::job::Fence;

/// There are as many executing jobs as there are slots, on all runtimes together.
const EXECUTING: &str = "
SELECT id, attempt, attempted_at, attempted_by, queue, max_attempts, crashes, resumes, checkpoint_of,
  cancel_requested_at
FROM kiln_jobs INDEXED BY kiln_jobs_executing WHERE state = 'executing'";

/// An attempt that is executing on some runtime.
#[derive(Clone, Debug)]
pub(crate) struct Executing {
    pub fence: Fence,
    pub queue: String,
    /// The name of the runtime's node.
    pub node: String,
    /// The id of the runtime.
    pub runtime: String,
    pub max_attempts: i64,
    pub crashes: i64,
    pub resumes: i64,
    /// Whether this attempt has stored a checkpoint.
    pub checkpointed: bool,
    /// When it was claimed, if the row tells a time.
    pub since: Option<Timestamp>,
    pub cancel_requested_at: Option<Timestamp>,
}

pub(crate) fn executing(conn: &Connection) -> Result<Vec<Executing>> {
    all(conn, EXECUTING, [], |row: &Row<'_>| {
        let mut owner = words(row.get_ref(3)?).into_iter();
        let attempted_at = integer(row.get_ref(2)?);
        Ok(Executing {
            fence: Fence { id: row.get(0)?, attempt: integer(row.get_ref(1)?), attempted_at },
            queue: text(row.get_ref(4)?),
            node: owner.next().unwrap_or_default(),
            runtime: owner.next().unwrap_or_default(),
            max_attempts: integer(row.get_ref(5)?),
            crashes: integer(row.get_ref(6)?),
            resumes: integer(row.get_ref(7)?),
            checkpointed: row.get_ref(8)? == ValueRef::Integer(attempted_at),
            since: time(row.get_ref(2)?),
            cancel_requested_at: time(row.get_ref(9)?),
        })
    })
}

const EXHAUSTED: &str = "
SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_exhausted WHERE state = 'available' AND attempt >= max_attempts LIMIT 1";

/// Whether there is an available job without an attempt left.
pub(crate) fn any_exhausted(conn: &Connection) -> Result<bool> {
    exists(conn, EXHAUSTED, [])
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    [EXECUTING, EXHAUSTED].map(str::to_owned).into()
}
