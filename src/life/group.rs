//! The operations of callers that share a turn.

use std::sync::Arc;

use super::tx::{Operation, Tx};
use super::waiter::{Need, Waiting};
use crate::error::Result;

/// The leader's own operation, on its stack.
pub(super) struct Own<'a> {
    pub need: Need,
    pub operation: &'a mut dyn Operation,
    pub answer: Option<Result<()>>,
}

/// What one turn is run for, beside the mailboxes.
#[derive(Default)]
pub(super) struct Group<'g, 'o> {
    pub own: Option<&'g mut Own<'o>>,
    pub waiting: &'g [Arc<dyn Waiting>],
}

impl<'o> Group<'_, 'o> {
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.waiting.is_empty()
    }

    pub fn needs_sync(&self) -> bool {
        let own = self.own.as_ref().is_some_and(|own| own.need == Need::Durable);
        own || self.waiting.iter().any(|waiting| waiting.need() == Need::Durable)
    }

    pub fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        if let Some(own) = &mut self.own {
            own.operation.run(tx)?;
        }
        self.waiting.iter().try_for_each(|waiting| waiting.run(tx))
    }

    pub fn answer(&mut self, answer: impl Fn() -> Result<()>) {
        if let Some(own) = &mut self.own {
            own.answer = Some(answer());
        }
        self.waiting.iter().for_each(|waiting| waiting.answer(answer()));
    }

    /// Each operation as a group of its own.
    pub fn each(&mut self, mut run: impl FnMut(&mut Group<'_, 'o>)) {
        if let Some(own) = self.own.as_deref_mut() {
            run(&mut Group { own: Some(own), waiting: &[] });
        }
        for one in self.waiting.chunks(1) {
            run(&mut Group { own: None, waiting: one });
        }
    }
}
