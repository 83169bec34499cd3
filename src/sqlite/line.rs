//! Callers that wait while another leads: each is told what came of its op, or to lead in turn.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use super::write::{Need, Op, Tx};
use crate::Result;

/// A caller whose op waits in line, without its type.
pub(super) trait Waiting: Send + Sync {
    fn need(&self) -> Need;
    fn run(&self, tx: &mut Tx<'_>) -> Result<()>;
    fn answer(&self, answer: Result<()>);
    /// Calls it to lead. It need not have its answer yet, but must not have had it.
    fn promote(&self);
}

pub(super) struct Waiter<O> {
    need: Need,
    op: Mutex<Option<O>>,
    answer: Mutex<Option<Result<()>>>,
    call: AtomicU8,
    thread: Thread,
}

/// What its thread is woken for: one of these, or both.
const LEAD: u8 = 1;
const DONE: u8 = 2;

/// How often a caller lets others have the processor before it sleeps, which costs about as much as they all.
const YIELDS: u32 = 100;

impl<O: Op> Waiter<O> {
    pub fn new(need: Need, op: O) -> Self {
        Self {
            need,
            op: Mutex::new(Some(op)),
            answer: Mutex::new(None),
            call: AtomicU8::new(0),
            thread: thread::current(),
        }
    }

    /// Waits for a call, which may be expected `soon`: within less than it takes to sleep and to be woken. Says whether
    /// it is to lead. If so, the answer may come later, but comes while it leads.
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
        Ok(self.op.lock().take().expect("BUG: an op that was taken twice"))
    }
}

impl<O: Op> Waiting for Waiter<O> {
    fn need(&self) -> Need {
        self.need
    }

    fn run(&self, tx: &mut Tx<'_>) -> Result<()> {
        self.op.lock().as_mut().expect("BUG: an op that was taken before its answer").run(tx)
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
