//! The runtimes on the file. Whether a runtime lives is told by the lock on its sidecar file, not by its row.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::value::{all, integer, optional_text, run, text, time, words, words_json};
use crate::error::Result;
use crate::job::QueuePlan;

/// A runtime as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeRow {
    pub id: String,
    pub node: String,
    pub pid: u32,
    /// Where it listens for datagrams, if it does.
    pub port: Option<u16>,
    /// What a datagram to it must carry.
    pub secret: Option<String>,
    pub queues: Vec<String>,
    pub workers: Vec<String>,
    pub started_at: Timestamp,
    pub plans: Vec<QueuePlan>,
    /// Whether it lists in a sidecar what it has begun.
    pub lists: bool,
}

const REGISTER: &str = "
INSERT INTO kiln_runtimes (id, node, pid, port, secret, queues, workers, started_at, plans, lists)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

pub(crate) fn register(conn: &Connection, runtime: &RuntimeRow) -> Result<()> {
    let (queues, plans) = plan_columns(&runtime.plans);
    let row = params![
        runtime.id,
        runtime.node,
        runtime.pid,
        runtime.port,
        runtime.secret,
        queues,
        words_json(&runtime.workers),
        runtime.started_at.as_microsecond(),
        plans,
        runtime.lists,
    ];
    run(conn, REGISTER, row).map(|_| ())
}

const ANNOUNCE: &str = "UPDATE kiln_runtimes SET queues = ?2, plans = ?3 WHERE id = ?1";

/// Stores how a runtime means to run its queues.
pub(crate) fn announce(conn: &Connection, id: &str, plans: &[QueuePlan]) -> Result<()> {
    let (queues, plans) = plan_columns(plans);
    run(conn, ANNOUNCE, (id, queues, plans)).map(|_| ())
}

/// The plans as a row has them: the names of the queues, for those who send datagrams, and the plans as JSON.
fn plan_columns(plans: &[QueuePlan]) -> (String, String) {
    let names: Vec<&str> = plans.iter().map(|plan| plan.queue.as_str()).collect();
    (words_json(&names).into_owned(), serde_json::to_string(plans).unwrap_or_default())
}

const FORGET: &str = "DELETE FROM kiln_runtimes WHERE id = ?1";

pub(crate) fn forget(conn: &Connection, id: &str) -> Result<()> {
    run(conn, FORGET, [id]).map(|_| ())
}

const LIST: &str = "
SELECT id, node, pid, port, secret, queues, workers, started_at, plans, lists FROM kiln_runtimes";

/// All runtimes, the dead ones as well.
pub(crate) fn list(conn: &Connection) -> Result<Vec<RuntimeRow>> {
    all(conn, LIST, [], |row: &Row<'_>| {
        Ok(RuntimeRow {
            id: text(row.get_ref(0)?),
            node: text(row.get_ref(1)?),
            pid: u32::try_from(integer(row.get_ref(2)?)).unwrap_or(0),
            port: u16::try_from(integer(row.get_ref(3)?)).ok().filter(|port| *port > 0),
            secret: optional_text(row.get_ref(4)?),
            queues: words(row.get_ref(5)?),
            workers: words(row.get_ref(6)?),
            started_at: time(row.get_ref(7)?).unwrap_or_default(),
            plans: serde_json::from_str(&text(row.get_ref(8)?)).unwrap_or_default(),
            lists: integer(row.get_ref(9)?) != 0,
        })
    })
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    [REGISTER, ANNOUNCE, FORGET, LIST].map(str::to_owned).into()
}
