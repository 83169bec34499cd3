//! Acks until they are written, and what a runtime does while something cannot be written.
//!
//! Where nothing can be, for want of space or of the lock, or since a newer kiln took the file over, nothing is
//! claimed. Where some one thing cannot, it is found by trying each by itself, and put aside, so that the others go on.
//! Both are tried again, more and more rarely; that it began and that it ended is told once. It has ended when nothing
//! failed for as long as the last wait: a disk that is nearly full takes this and refuses that.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Demand;
use crate::event::Event;
use crate::job::Ack;
use crate::{Error, Job, State};

/// How soon something that failed is tried again, at first and in the end.
const SOON: Duration = Duration::from_millis(700);
const LATE: Duration = Duration::from_secs(30);

/// How long an ack may wait for others to share its transaction.
const COMPANY: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Pending {
    waiting: Vec<(Ack, Ended)>,
    /// Since when.
    since: Option<Instant>,
    /// Whose acks are in the transaction that is being run.
    in_turn: Vec<Ended>,
    /// Parts of a transaction that failed: one of them is to blame.
    suspects: VecDeque<Part>,
    /// The transaction that is being run tries one of them by itself.
    testing: bool,
    /// Those that failed by themselves.
    aside: Vec<Part>,
    /// Nothing at all can be written.
    halted: bool,
    /// It is the lock that is missing: who gets it once can go on.
    busy: bool,
    trouble: Option<(String, Instant)>,
    /// All that failed was written meanwhile.
    well: bool,
    pace: Duration,
    /// When to try again; where all is well, when to believe it.
    next: Option<Instant>,
    /// What became of it, to be told when no lock is held.
    pub untold: Vec<Event>,
}

/// An attempt that has ended, and how long its `process` took, where that has.
pub(super) struct Ended {
    pub job: Arc<Job>,
    pub run_time: Option<Duration>,
}

/// What came of it.
pub(super) struct Acked {
    pub ended: Ended,
    pub state: Option<State>,
    pub error: Option<String>,
}

/// What is to be told once the locks are given back.
#[derive(Default)]
pub(super) struct Outcomes {
    pub acked: Vec<Acked>,
    pub expired: Vec<Job>,
}

/// A part of a turn that can be tried by itself.
enum Part {
    Ack(Ack, Ended),
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
    /// Takes an ack; says whether it should be written now, since one before it has waited long enough for company.
    pub fn add(&mut self, ack: Ack, ended: Ended, now: Instant) -> bool {
        self.waiting.push((ack, ended));
        now.saturating_duration_since(*self.since.get_or_insert(now)) >= COMPANY
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
            Some(Part::Ack(ack, ended)) => (vec![(ack, ended)], Claims::None),
            Some(Part::Claim(queue)) => (Vec::new(), Claims::One(queue)),
            None if self.halted => (mem::take(&mut self.waiting), Claims::None),
            None => (mem::take(&mut self.waiting), Claims::All),
        };
        if self.waiting.is_empty() {
            self.since = None;
        }
        let (acks, ended) = taken.into_iter().unzip();
        self.in_turn = ended;
        Share { acks, claims }
    }

    /// Whether claims of this queue are put aside.
    pub fn is_aside(&self, queue: &Arc<str>) -> bool {
        self.aside.iter().any(|part| matches!(part, Part::Claim(other) if Arc::ptr_eq(other, queue)))
    }

    /// A transaction was written; whose acks were in it, and whether there is more to do now that this is possible.
    pub fn written(&mut self, now: Instant) -> (Vec<Ended>, bool) {
        let freed = self.halted && self.busy;
        self.halted &= !freed;
        self.look(now);
        (mem::take(&mut self.in_turn), freed || self.has_suspects())
    }

    /// The turn was not written.
    pub fn unwritable(&mut self, acks: Vec<Ack>, demands: &[Demand], error: &Error, now: Instant) {
        let acks = acks.into_iter().zip(mem::take(&mut self.in_turn));
        if error.is_of_the_file() {
            self.waiting.splice(0..0, acks);
            self.halt(error, now);
            return;
        }
        let acks = acks.map(|(ack, ended)| Part::Ack(ack, ended));
        let parts = acks.chain(demands.iter().map(|demand| Part::Claim(Arc::clone(&demand.queue))));
        let mut parts: Vec<Part> = parts.collect();
        if self.testing && parts.len() == 1 {
            self.aside.append(&mut parts);
            self.meet(error, now);
        }
        self.suspects.extend(parts);
    }

    /// Nothing can be written: for want of space, of the lock, or of the right to.
    pub fn halt(&mut self, error: &Error, now: Instant) {
        self.halted = true;
        self.meet(error, now);
    }

    fn meet(&mut self, error: &Error, now: Instant) {
        if self.trouble.is_none() {
            self.trouble = Some((error.to_string(), now));
            self.untold.push(Event::Degraded { reason: error.to_string() });
            self.pace = Duration::ZERO;
        } else if !self.well && self.next.is_some_and(|next| next > now) {
            return;
        }
        self.well = false;
        self.busy = error.is_busy();
        // A lock is given back any time, and a try waits for it by itself.
        self.pace = if self.busy { SOON } else { (self.pace * 2).clamp(SOON, LATE) };
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

    /// Sees whether all is well, and has been for long enough.
    pub fn look(&mut self, now: Instant) {
        let Some((_, since)) = &self.trouble else { return };
        if self.halted || !self.suspects.is_empty() || !self.aside.is_empty() {
            return;
        }
        if !self.well {
            self.well = true;
            self.next = now.checked_add(self.pace);
        } else if self.next.is_none_or(|next| next <= now) {
            self.untold.push(Event::Recovered { after: now.duration_since(*since) });
            self.trouble = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewJob;
    use crate::error::Kind;
    use crate::job::{Attempt, End, Fence};

    fn pending(acks: i64) -> Pending {
        let mut pending = Pending::default();
        let now = jiff::Timestamp::UNIX_EPOCH;
        for id in 1..=acks {
            let attempt = Attempt { fence: Fence { id, attempt: 1, attempted_at: 0 }, max_attempts: 1 };
            let job = Arc::new(NewJob::new("w").build(now, |_| ()).unwrap().job);
            let ended = Ended { job, run_time: None };
            pending.add(attempt.ack(End::Interrupted, now), ended, Instant::now());
        }
        pending
    }

    /// Runs the transactions there are to run; those with an ack of these fail.
    fn run(pending: &mut Pending, broken: &[i64], now: Instant) -> Vec<i64> {
        let mut written = Vec::new();
        loop {
            let Share { acks, .. } = pending.share();
            let ids: Vec<i64> = acks.iter().map(|ack| ack.fence.id).collect();
            if ids.iter().any(|id| broken.contains(id)) {
                pending.unwritable(acks, &[], &Error::new(Kind::Storage, "torn"), now);
            } else {
                written.extend(ids);
                pending.written(now);
            }
            if !pending.has_suspects() {
                return written;
            }
        }
    }

    #[test]
    fn one_ack_that_cannot_be_written_is_put_aside_and_tried_again() {
        let now = Instant::now();
        let mut pending = pending(5);
        assert_eq!(run(&mut pending, &[2, 4], now), [1, 3, 5]);
        assert_eq!((pending.unwritten(), pending.trouble()), (2, Some("torn")));
        assert!(!pending.is_halted() && !pending.is_due(now));
        let later = now + SOON;
        assert!(pending.is_due(later));
        assert_eq!(run(&mut pending, &[4], later), [2]);
        assert!(!pending.is_due(later + SOON), "it is tried more rarely now");
        assert!(pending.is_due(later + SOON * 2));
        assert_eq!(run(&mut pending, &[], later), [4]);
        assert_eq!((pending.unwritten(), pending.trouble()), (0, Some("torn")), "that has to last");
        pending.look(later + SOON * 2);
        assert_eq!(pending.trouble(), None);
        let names: Vec<&str> = pending.untold.iter().map(Event::name).collect();
        assert_eq!(names, ["degraded", "recovered"], "each is told once");
    }

    #[test]
    fn without_space_nothing_is_claimed_and_tries_become_rare() {
        let mut pending = pending(2);
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for n in 0..8 {
            let Share { acks, claims } = pending.share();
            assert_eq!(acks.len(), 2, "acks are held, not lost");
            assert_eq!(matches!(claims, Claims::None), n > 0);
            pending.unwritable(acks, &[], &Error::new(Kind::Full, "full"), now);
            waits.push(pending.next.unwrap().duration_since(now).as_millis());
            now = pending.next.unwrap();
            assert!(pending.is_due(now));
        }
        assert_eq!(waits, [700, 1400, 2800, 5600, 11_200, 22_400, 30_000, 30_000]);
        assert_eq!(pending.untold.len(), 1, "it is told once");
    }
}
