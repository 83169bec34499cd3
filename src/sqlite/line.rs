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
    fn promote(&self);
}

pub(super) struct Waiter<O> {
    need: Need,
    op: Mutex<Option<O>>,
    answer: Mutex<Option<Result<()>>>,
    turn: AtomicU8,
    thread: Thread,
}

const WAIT: u8 = 0;
pub(super) const LEAD: u8 = 1;
const DONE: u8 = 2;

impl<O: Op> Waiter<O> {
    pub fn new(need: Need, op: O) -> Self {
        Self {
            need,
            op: Mutex::new(Some(op)),
            answer: Mutex::new(None),
            turn: AtomicU8::new(WAIT),
            thread: thread::current(),
        }
    }

    pub fn wait(&self) -> u8 {
        loop {
            match self.turn.load(Ordering::Acquire) {
                WAIT => thread::park(),
                turn => return turn,
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
        self.turn.store(DONE, Ordering::Release);
        self.thread.unpark();
    }

    fn promote(&self) {
        self.turn.store(LEAD, Ordering::Release);
        self.thread.unpark();
    }
}
