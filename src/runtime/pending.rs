//! Acks until they are written, and what a runtime does while something cannot be written.
//!
//! Where nothing can be, for want of space or of the lock, nothing is claimed. Where some one thing cannot, it is found
//! by trying each by itself, and put aside, so that the others go on. Both are tried again, more and more rarely; that
//! it began and that it ended is told once.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Demand;
use crate::event::Event;
use crate::job::Ack;
use crate::{Error, Job};

/// How soon something that failed is tried again, at first and in the end.
const SOON: Duration = Duration::from_millis(700);
const LATE: Duration = Duration::from_secs(30);

/// Who fails again within this time has not recovered: it is not tried more often than before.
const WELL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Pending {
    waiting: Vec<(Ack, Arc<Job>)>,
    /// Whose acks are in the transaction that is being run.
    in_turn: Vec<Arc<Job>>,
    /// Parts of a transaction that failed: one of them is to blame.
    suspects: VecDeque<Part>,
    /// The transaction that is being run tries one of them by itself.
    testing: bool,
    /// Those that failed by themselves.
    aside: Vec<Part>,
    /// Nothing at all can be written.
    halted: bool,
    trouble: Option<(String, Instant)>,
    pace: Duration,
    next: Option<Instant>,
    recovered: Option<Instant>,
    /// What became of it, to be told when no lock is held.
    pub untold: Vec<Event>,
}

/// A part of a turn that can be tried by itself.
enum Part {
    Ack(Ack, Arc<Job>),
    Claim(Arc<str>),
}

/// What is to be handed out for a transaction.
pub(super) struct Share {
    pub acks: Vec<Ack>,
    pub claims: Claims,
}

pub(super) enum Claims {
    All,
    /// Of this queue alone.
    One(Arc<str>),
    None,
}

impl Pending {
    pub fn add(&mut self, ack: Ack, job: Arc<Job>) {
        self.waiting.push((ack, job));
    }

    pub fn unwritten(&self) -> usize {
        let is_ack = |part: &&Part| matches!(part, Part::Ack(..));
        let suspects = self.suspects.iter().filter(is_ack).count();
        self.waiting.len() + self.in_turn.len() + suspects + self.aside.iter().filter(is_ack).count()
    }

    /// Whether nothing can be written.
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Why something cannot be written.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|(reason, _)| reason.as_str())
    }

    /// Takes what the next transaction is to write.
    pub fn share(&mut self) -> Share {
        self.testing = self.has_suspects();
        let (taken, claims) = match self.suspects.pop_front() {
            Some(Part::Ack(ack, job)) => (vec![(ack, job)], Claims::None),
            Some(Part::Claim(queue)) => (Vec::new(), Claims::One(queue)),
            None if self.halted => (mem::take(&mut self.waiting), Claims::None),
            None => (mem::take(&mut self.waiting), Claims::All),
        };
        let (acks, jobs) = taken.into_iter().unzip();
        self.in_turn = jobs;
        Share { acks, claims }
    }

    /// Whether claims of this queue are put aside.
    pub fn is_aside(&self, queue: &Arc<str>) -> bool {
        self.aside.iter().any(|part| matches!(part, Part::Claim(other) if Arc::ptr_eq(other, queue)))
    }

    /// A transaction was written; whose acks were in it, and whether there is more to do now that this is possible.
    pub fn written(&mut self, now: Instant) -> (Vec<Arc<Job>>, bool) {
        let was_halted = mem::take(&mut self.halted);
        self.look(now);
        (mem::take(&mut self.in_turn), was_halted || self.has_suspects())
    }

    /// The turn was not written.
    pub fn unwritable(&mut self, acks: Vec<Ack>, demands: &[Demand], error: &Error, now: Instant) {
        let acks = acks.into_iter().zip(mem::take(&mut self.in_turn));
        if error.is_full() || error.is_busy() {
            self.waiting.splice(0..0, acks);
            self.halt(error, now);
            return;
        }
        let acks = acks.map(|(ack, job)| Part::Ack(ack, job));
        let parts = acks.chain(demands.iter().map(|demand| Part::Claim(Arc::clone(&demand.queue))));
        let mut parts: Vec<Part> = parts.collect();
        if self.testing && parts.len() == 1 {
            self.aside.append(&mut parts);
            self.meet(error, now);
        }
        self.suspects.extend(parts);
    }

    /// Nothing can be written: for want of space, or of the lock.
    pub fn halt(&mut self, error: &Error, now: Instant) {
        self.halted = true;
        self.meet(error, now);
    }

    fn meet(&mut self, error: &Error, now: Instant) {
        if self.trouble.is_none() {
            self.trouble = Some((error.to_string(), now));
            self.untold.push(Event::Degraded { reason: error.to_string() });
            if self.recovered.is_none_or(|at| now.duration_since(at) > WELL) {
                self.pace = Duration::ZERO;
            }
        } else if self.next.is_some_and(|next| next > now) {
            return;
        }
        // A lock is given back any time, and a try waits for it by itself.
        self.pace = if error.is_busy() { SOON } else { (self.pace * 2).clamp(SOON, LATE) };
        self.next = now.checked_add(self.pace);
    }

    /// Whether it is time to try again what failed; then that is tried by itself.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.trouble.is_some() && self.next.is_none_or(|next| next <= now);
        if due {
            self.hurry();
        }
        due
    }

    pub fn hurry(&mut self) {
        self.suspects.extend(self.aside.drain(..));
    }

    /// Something could be written again.
    pub fn resume(&mut self) {
        self.halted = false;
    }

    /// Whether there is more to try.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Sees whether the trouble is over.
    pub fn look(&mut self, now: Instant) {
        if !self.halted
            && self.suspects.is_empty()
            && self.aside.is_empty()
            && let Some((_, since)) = self.trouble.take()
        {
            self.next = None;
            self.recovered = Some(now);
            self.untold.push(Event::Recovered { after: now.duration_since(since) });
        }
    }
}
