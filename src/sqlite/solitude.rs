//! A job whose process died while it was executing is a suspect, and runs alone: its process runs no other job meanwhile.
//!
//! A claim that meets a suspect stops there, and so do all others of the process, until nothing runs in it; then the
//! suspect is claimed by itself. That others wait for this has a bound, at both ends: jobs that do not end in time have the
//! suspect among them after all, and a suspect that goes on for long gets company again.

use std::time::Instant;

use crate::engine::{Company, Turn};
use crate::job::Job;

/// What of it outlasts a transaction.
#[derive(Debug, Default)]
pub(super) struct Solitude {
    /// A suspect that was met waits for the jobs that run to end.
    waits: Option<Waits>,
    /// They did not in time. Until nothing runs, suspects run with others.
    given_up: bool,
}

#[derive(Debug)]
struct Waits {
    queue: String,
    until: Instant,
}

/// The same within a transaction.
pub(super) struct Room<'a> {
    solitude: &'a mut Solitude,
    now: Instant,
    nobody: bool,
    /// A suspect runs.
    taken: bool,
    /// Nothing more is claimed.
    closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Like any other.
    Free,
    /// It has the process for itself.
    Alone,
    /// Not now, and nothing that comes after it.
    None,
}

impl Solitude {
    /// What there is room for, with these runtimes in the process.
    pub fn room(&mut self, turns: &[Turn], now: Instant) -> Room<'_> {
        let nobody = turns.iter().all(|turn| turn.company == Company::Nobody);
        let taken = turns.iter().any(|turn| turn.company == Company::Suspect);
        self.given_up &= !nobody;
        if !nobody && !taken && self.waits.as_ref().is_some_and(|waits| waits.until <= now) {
            self.waits = None;
            self.given_up = true;
        }
        let closed = taken || (!nobody && self.waits.is_some());
        Room { solitude: self, now, nobody, taken, closed }
    }
}

impl Room<'_> {
    /// The queue in which a suspect waits, which is to be looked at first.
    pub fn waits(&self) -> Option<String> {
        self.solitude.waits.as_ref().filter(|_| !self.taken).map(|waits| waits.queue.clone())
    }

    /// Nobody waits there any more.
    pub fn nobody_waits(&mut self) {
        self.solitude.waits = None;
        self.closed = self.taken;
    }

    pub fn is_empty(&self) -> bool {
        self.nobody
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn is_suspect(&self, turn: &Turn, job: &Job) -> bool {
        job.crashes > 0 && !turn.solitude.is_zero() && !self.solitude.given_up
    }

    /// The place of the next job in claim order.
    pub fn place(&mut self, turn: &Turn, job: &Job) -> Place {
        if !self.is_suspect(turn, job) {
            self.nobody = false;
            return Place::Free;
        }
        self.closed = true;
        if self.nobody {
            self.nobody = false;
            self.solitude.waits = None;
            return Place::Alone;
        }
        let until = self.now.checked_add(turn.solitude).unwrap_or(self.now);
        self.solitude.waits.get_or_insert_with(|| Waits { queue: job.queue.clone(), until });
        Place::None
    }
}
