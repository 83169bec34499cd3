//! Callers that wait while another leads: each is told what came of its operation, or that it is to lead in turn.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use super::tx::{Operation, Tx};
use crate::error::Result;

/// What a caller needs of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// On the disk before the call returns.
    Durable,
    /// May be made durable by a later sync: losing it in a power cut only repeats work.
    Ride,
}

/// A caller whose operation waits for a turn, without its type.
pub(super) trait Waiting: Send + Sync {
    fn need(&self) -> Need;
    fn run(&self, tx: &mut Tx<'_>) -> Result<()>;
    fn answer(&self, answer: Result<()>);
    /// Calls the waiter to lead. Its operation must still wait: its answer comes from the first turn that it leads.
    fn promote(&self);
}

pub(super) struct Waiter<O> {
    need: Need,
    operation: Mutex<Option<O>>,
    answer: Mutex<Option<Result<()>>>,
    call: AtomicU8,
    thread: Thread,
}

/// What the thread of a waiter is woken for: one of these, or both.
const LEAD: u8 = 1;
const DONE: u8 = 2;

/// How often a waiter lets other threads run before it sleeps, if it expects its answer soon. Without a sync a commit
/// takes less than falling asleep and being woken: 8 threads at NORMAL make 1.32 of the baseline with this, 0.79 without.
const YIELDS: u32 = 100;

impl<O: Operation> Waiter<O> {
    pub fn new(need: Need, operation: O) -> Self {
        Self {
            need,
            operation: Mutex::new(Some(operation)),
            answer: Mutex::new(None),
            call: AtomicU8::new(0),
            thread: thread::current(),
        }
    }

    /// Waits for a call. Says whether the caller is to lead; if so, its answer comes while it leads at the latest.
    pub fn is_to_lead(&self, soon: bool) -> bool {
        let mut yields = if soon { YIELDS } else { 0 };
        loop {
            match self.call.load(Ordering::Acquire) {
                0 if yields > 0 => {
                    yields -= 1;
                    thread::yield_now();
                }
                0 => thread::park(),
                call => return call & LEAD != 0,
            }
        }
    }

    pub fn take(&self) -> Result<O> {
        self.answer.lock().take().expect("BUG: a waiter that was not answered")?;
        Ok(self.operation.lock().take().expect("BUG: an operation that was taken twice"))
    }
}

impl<O: Operation> Waiting for Waiter<O> {
    fn need(&self) -> Need {
        self.need
    }

    fn run(&self, tx: &mut Tx<'_>) -> Result<()> {
        self.operation.lock().as_mut().expect("BUG: an operation that was taken before its answer").run(tx)
    }

    fn answer(&self, answer: Result<()>) {
        *self.answer.lock() = Some(answer);
        self.call.fetch_or(DONE, Ordering::AcqRel);
        self.thread.unpark();
    }

    fn promote(&self) {
        self.call.fetch_or(LEAD, Ordering::AcqRel);
        self.thread.unpark();
    }
}
