//! Within a transaction that somebody else began, and will end.

use jiff::Timestamp;
use rusqlite::Connection;

use super::ack::acknowledge;
use super::enqueue::Enqueue;
use super::schema::ask_to_write;
use super::sql;
use super::verbs::exists;
use super::write::{Op, Tx};
use crate::Result;
use crate::engine::News;
use crate::job::{Ack, Fence, Job, Ready, Verdict};

pub(crate) fn enqueue(conn: &Connection, ready: Ready) -> Result<(Job, News)> {
    ask_to_write(conn)?;
    let elder_keys = ready.check.is_some() && exists(conn, sql::ELDER_KEYS, [])?;
    let mut tx = Tx { elder_keys, ..Tx::new(conn) };
    let mut enqueue = Enqueue::new(vec![ready]);
    enqueue.run(&mut tx)?;
    let job = enqueue.finish().pop().expect("BUG: an enqueue gives back what it was given");
    Ok((job, tx.news))
}

/// Says whether the attempt still was the job's.
pub(crate) fn complete(conn: &Connection, fence: Fence, now: Timestamp) -> Result<bool> {
    ask_to_write(conn)?;
    let mut tx = Tx::new(conn);
    let ack = Ack { fence, verdict: Verdict::Complete };
    Ok(acknowledge(&mut tx, &ack, now)?.is_some())
}
