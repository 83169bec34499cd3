//! The ops that share a transaction.

use std::sync::Arc;

use super::line::Waiting;
use super::write::{Need, Op, Tx};
use crate::Result;
use crate::job::Job;

/// The leader's own op, on its stack.
pub(super) struct Own<'a> {
    pub need: Need,
    pub op: &'a mut dyn Op,
    pub answer: Option<Result<()>>,
}

/// What one transaction is run for.
pub(super) struct Group<'g, 'o> {
    pub own: Option<&'g mut Own<'o>>,
    pub waiting: &'g [Arc<dyn Waiting>],
}

impl Group<'_, '_> {
    pub fn len(&self) -> usize {
        usize::from(self.own.is_some()) + self.waiting.len()
    }

    pub fn needs_sync(&self) -> bool {
        let own = self.own.as_ref().is_some_and(|own| own.need == Need::Durable);
        own || self.waiting.iter().any(|waiting| waiting.need() == Need::Durable)
    }

    pub fn may_be_one_statement(&self) -> bool {
        self.waiting.is_empty() && self.own.as_ref().is_some_and(|own| own.op.may_be_one_statement())
    }

    pub fn run_as_one_statement(&mut self, tx: &mut Tx<'_>) -> Result<bool> {
        self.own.as_mut().map_or(Ok(false), |own| own.op.run_as_one_statement(tx))
    }

    /// A job that comes by itself and has nothing but its arguments.
    pub fn plain(&mut self) -> Option<&mut Job> {
        let own = self.own.as_mut().filter(|_| self.waiting.is_empty())?;
        own.op.plain()
    }

    pub fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        if let Some(own) = &mut self.own {
            own.op.run(tx)?;
        }
        self.waiting.iter().try_for_each(|waiting| waiting.run(tx))
    }

    pub fn answer(&mut self, answer: impl Fn() -> Result<()>) {
        if let Some(own) = &mut self.own {
            own.answer = Some(answer());
        }
        for waiting in self.waiting {
            waiting.answer(answer());
        }
    }
}
