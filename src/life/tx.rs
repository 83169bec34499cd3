//! An open transaction, what runs in it, and what a runtime's mailbox exchanges with it.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;

use crate::error::Result;
use crate::job::{Ack, Attempt, Job, Notice, State};
use crate::presence::Place;

/// A transaction that is open, and what it will have to tell.
pub(crate) struct Tx<'c> {
    pub conn: &'c Connection,
    pub notice: Notice,
    /// The job that was stored last in this transaction; `None` before the first, and after a delete.
    pub newest: Option<i64>,
    /// An id that is known to have been given before; 0 if none is.
    pub known: i64,
}

impl<'c> Tx<'c> {
    pub fn new(conn: &'c Connection, known: i64) -> Self {
        Self { conn, notice: Notice::default(), newest: None, known }
    }
}

/// Something to do in a transaction. It may run again after a rollback.
pub(crate) trait Operation: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()>;
}

/// A function as an operation, with its result.
pub(crate) struct Call<F, T> {
    function: F,
    result: Option<T>,
}

impl<T, F: FnMut(&mut Tx<'_>) -> Result<T>> Call<F, T> {
    pub fn new(function: F) -> Self {
        Self { function, result: None }
    }

    /// The result, once the transaction is committed.
    pub fn finish(self) -> T {
        self.result.expect("BUG: an operation that was committed has run")
    }
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Result<T> + Send> Operation for Call<F, T> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.result = Some((self.function)(tx)?);
        Ok(())
    }
}

/// What a step that changes many jobs is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub now: Timestamp,
    /// How many jobs at most.
    pub size: u32,
    /// Whether anybody wants to know which jobs were changed.
    pub wanted: bool,
}

/// A runtime, as other programs on the file see it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub id: String,
    pub node: String,
    pub workers: Vec<String>,
    pub started_at: Timestamp,
    /// Jobs whose rows the runtime found damaged. It leaves them alone.
    pub damaged: Arc<Mutex<HashSet<i64>>>,
}

/// What a runtime's mailbox gives to a transaction.
#[derive(Debug)]
pub(crate) struct Part {
    pub runtime: Arc<Member>,
    pub now: Timestamp,
    pub acks: Vec<Ack>,
    pub demands: Vec<Demand>,
    /// Jobs that still run here, though their rows may say otherwise. They are not claimed.
    pub held: HashSet<i64>,
}

/// So many jobs of this queue, at most.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    pub queue: Arc<str>,
    pub limit: usize,
    /// So many have a thread each. More are claimed ahead, as long as all together are not too large.
    pub slots: usize,
}

/// What a transaction gives back for a [`Part`].
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// For each ack, in their order, what the job became; `None` if the attempt was no longer the job's.
    pub acked: Vec<Option<State>>,
    pub claimed: Vec<Claimed>,
    /// Jobs that the claim found too late to begin, and cancelled.
    pub expired: Vec<Job>,
    /// There may be jobs that the claim did not get to.
    pub more: bool,
    /// The queues in which a suspect may wait until a thread is free.
    pub waiting: Vec<Arc<str>>,
    /// Available jobs that the claim passed over, since a thread of the runtime still has an earlier attempt.
    pub passed: Vec<i64>,
}

/// A job that was claimed, with the attempt at it.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub attempt: Attempt,
    pub job: Job,
    /// The place of a suspect, held until the suspect ends or outlives its window.
    pub suspect: Option<Place>,
}
