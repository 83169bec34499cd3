//! The outbox of a runtime: acks until they are written, and what the runtime does while something cannot be written.
//!
//! If nothing can be written (no space, no lock, a newer kiln took the file over), the outbox is halted: nothing is claimed
//! until a write succeeds. If a single ack or the claim of a single queue fails, it is put aside and tried again, more and
//! more rarely, so that the others go on. An event says when trouble begins, and another when it is over: nothing failed
//! for as long as the last wait.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::Event;
use crate::job::{Ack, Job};
use crate::presence::Listed;

/// How soon something that failed is tried again, at first and in the end.
const SOON: Duration = Duration::from_millis(700);
const LATE: Duration = Duration::from_secs(30);

/// How long an ack may wait for others to share its transaction.
const COMPANY: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Vec<Finished>,
    /// When the first of them came.
    since: Option<Instant>,
    /// How many acks are in the turn that is being run.
    in_turn: usize,
    /// Acks that failed by themselves.
    aside: Vec<Finished>,
    /// Queues whose claim failed by itself.
    queues_aside: Vec<Arc<str>>,
    /// Nothing at all can be written.
    halted: bool,
    /// Only the lock was missing: whoever gets it once can go on.
    busy: bool,
    trouble: Option<Trouble>,
    pace: Duration,
    /// When to try again; if all is well, when to believe it.
    next: Option<Instant>,
}

struct Trouble {
    reason: String,
    since: Instant,
    /// Everything that failed was written meanwhile.
    over: bool,
}

type Finished = (Ack, Ended);

/// An attempt that has ended, whose ack is on its way.
#[derive(Debug)]
pub(crate) struct Ended {
    pub job: Arc<Job>,
    /// How long `process` took, if it ended.
    pub run_time: Option<Duration>,
    /// Keeps the attempt's entry in the sidecar until the ack is committed.
    _listed: Option<Listed>,
}

impl Ended {
    pub fn new(job: Arc<Job>, run_time: Option<Duration>, listed: Option<Listed>) -> Self {
        Self { job, run_time, _listed: listed }
    }
}

/// What an outbox gives to a turn.
pub(crate) struct Mail {
    pub acks: Vec<Ack>,
    /// The attempts that the acks end, in the same order.
    pub ended: Vec<Ended>,
    /// Whether the runtime may claim jobs in this turn.
    pub may_claim: bool,
    /// Queues of which nothing is to be claimed, since their last claim failed.
    pub queues_aside: Vec<Arc<str>>,
}

impl Outbox {
    /// Takes an ack; says whether it should be written now, since the first has waited long enough for company.
    pub fn add(&mut self, ack: Ack, ended: Ended, now: Instant) -> bool {
        self.waiting.push((ack, ended));
        now.saturating_duration_since(*self.since.get_or_insert(now)) >= COMPANY
    }

    pub fn unwritten(&self) -> usize {
        self.waiting.len() + self.in_turn + self.aside.len()
    }

    /// Whether a turn would have acks to write.
    pub fn has_mail(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Why something cannot be written.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| trouble.reason.as_str())
    }

    /// Takes out what the next turn is to write.
    pub fn collect(&mut self) -> Mail {
        self.since = None;
        let (acks, ended): (Vec<Ack>, Vec<Ended>) = mem::take(&mut self.waiting).into_iter().unzip();
        self.in_turn = acks.len();
        Mail { acks, ended, may_claim: !self.halted, queues_aside: self.queues_aside.clone() }
    }

    /// So many acks of the turn were committed. Says whether claims are possible again, and what to tell.
    pub fn written(&mut self, acks: usize, now: Instant) -> (bool, Option<Event>) {
        self.in_turn -= acks;
        let freed = self.halted && self.busy;
        self.halted &= !freed;
        (freed, self.look(now))
    }

    /// These acks of the turn could not be written, nor anything else: they wait again, before those that came meanwhile.
    pub fn return_all(&mut self, acks: Vec<Ack>, ended: Vec<Ended>, error: &Error, now: Instant) -> Option<Event> {
        self.in_turn -= acks.len();
        self.waiting.splice(0..0, acks.into_iter().zip(ended));
        self.halt(error, now)
    }

    /// This ack could not be written, though others could.
    pub fn put_aside(&mut self, ack: Ack, ended: Ended, error: &Error, now: Instant) -> Option<Event> {
        self.in_turn -= 1;
        self.aside.push((ack, ended));
        self.meet(error, now)
    }

    /// The claim of this queue failed, though others did not.
    pub fn put_queue_aside(&mut self, queue: &Arc<str>, error: &Error, now: Instant) -> Option<Event> {
        self.queues_aside.push(Arc::clone(queue));
        self.meet(error, now)
    }

    /// Nothing can be written. Returns what to tell.
    pub fn halt(&mut self, error: &Error, now: Instant) -> Option<Event> {
        self.halted = true;
        self.meet(error, now)
    }

    fn meet(&mut self, error: &Error, now: Instant) -> Option<Event> {
        let mut event = None;
        match &mut self.trouble {
            None => {
                let reason = error.to_string();
                event = Some(Event::Degraded { reason: reason.clone() });
                self.trouble = Some(Trouble { reason, since: now, over: false });
                self.pace = Duration::ZERO;
            }
            Some(trouble) if !trouble.over && self.next.is_some_and(|next| next > now) => return None,
            Some(trouble) => trouble.over = false,
        }
        self.busy = error.is_busy();
        // A lock is given back any time, and a try waits for it by itself.
        self.pace = if self.busy { SOON } else { (self.pace * 2).clamp(SOON, LATE) };
        self.next = now.checked_add(self.pace);
        event
    }

    /// Whether it is time to try again what failed; if so, it waits for the next turn like everything else.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.trouble.is_some() && self.next.is_none_or(|next| next <= now);
        if due {
            self.hurry();
        }
        due
    }

    /// Everything that was put aside is tried with the next turn.
    pub fn hurry(&mut self) {
        self.queues_aside.clear();
        self.waiting.append(&mut self.aside);
    }

    /// Something could be written again.
    pub fn resume(&mut self) {
        self.halted = false;
    }

    /// Sees whether the trouble is over, and has been for long enough. Returns what to tell.
    pub fn look(&mut self, now: Instant) -> Option<Event> {
        let healthy = !self.halted && self.in_turn == 0 && self.aside.is_empty() && self.queues_aside.is_empty();
        let trouble = self.trouble.as_mut().filter(|_| healthy)?;
        if !trouble.over {
            trouble.over = true;
            self.next = now.checked_add(self.pace);
            return None;
        }
        if self.next.is_some_and(|next| next > now) {
            return None;
        }
        let after = now.saturating_duration_since(trouble.since);
        self.trouble = None;
        Some(Event::Recovered { after })
    }
}

#[cfg(test)]
mod tests;
