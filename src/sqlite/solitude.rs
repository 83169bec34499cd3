//! A job whose process died while it was executing is a suspect, and is to run alone: its process claims nothing else
//! meanwhile.
//!
//! A claim that meets a suspect stops there, and so do all others of the process, until nothing runs in it; then the
//! suspect is claimed by itself. How long others wait for this has a bound, at both ends. Where those that run do not end
//! in time it runs beside them, but nothing is begun together with it: who begins last before a crash is who it was, most
//! likely. Those that were there at one crash only are let go at once when they cannot be alone: a process that is killed
//! leaves many, and they are to run again at once.

use std::time::Instant;

use crate::engine::{Company, Turn};
use crate::job::{self, Job};

/// What of it outlasts a transaction.
#[derive(Debug, Default)]
pub(super) struct Solitude {
    /// A suspect that was met waits for the jobs that run to end.
    waits: Option<Waits>,
    /// One that has waited for long enough.
    impatient: Option<i64>,
    /// One was claimed by itself.
    alone: bool,
    /// Until nothing runs, those of one crash are like any other.
    given_up: bool,
}

#[derive(Debug)]
struct Waits {
    id: i64,
    queue: String,
    until: Instant,
}

/// The same within a transaction.
pub(super) struct Room<'a> {
    solitude: &'a mut Solitude,
    now: Instant,
    nobody: bool,
    /// A suspect runs by itself.
    taken: bool,
    /// Nothing more is claimed.
    closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Like any other.
    Free,
    /// Nothing is begun together with it.
    Alone,
    /// Not now, and nothing that comes after it.
    None,
}

impl Solitude {
    /// What there is room for, with these runtimes in the process.
    pub fn room(&mut self, turns: &[Turn], now: Instant) -> Room<'_> {
        let nobody = turns.iter().all(|turn| turn.company == Company::Nobody);
        let taken = turns.iter().any(|turn| turn.company == Company::Suspect);
        if nobody {
            (self.given_up, self.impatient) = (false, None);
        } else if self.alone && !taken {
            // It takes long.
            self.given_up = true;
        }
        self.alone &= taken;
        if let Some(waits) = self.waits.take_if(|waits| !nobody && !taken && waits.until <= now) {
            self.given_up = true;
            self.impatient = Some(waits.id);
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

    /// When to come back, whatever happens until then.
    pub fn until(&self) -> Option<Instant> {
        self.solitude.waits.as_ref().map(|waits| waits.until)
    }

    pub fn is_suspect(&self, turn: &Turn, job: &Job) -> bool {
        !turn.solitude.is_zero() && job.crashes > i64::from(self.solitude.given_up)
    }

    /// The place of the next job in claim order.
    pub fn place(&mut self, turn: &Turn, job: &Job) -> Place {
        if !self.is_suspect(turn, job) {
            self.nobody = false;
            return Place::Free;
        }
        self.closed = true;
        if self.nobody || self.solitude.impatient == Some(job.id) {
            self.nobody = false;
            (self.solitude.waits, self.solitude.impatient, self.solitude.alone) = (None, None, true);
            return Place::Alone;
        }
        let until = self.now.checked_add(job::solitude(turn.solitude, job.crashes));
        let until = until.unwrap_or_else(|| self.now + job::LONGEST);
        self.solitude.waits.get_or_insert_with(|| Waits { id: job.id, queue: job.queue.clone(), until });
        Place::None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::NewJob;
    use crate::engine::Member;

    const BASE: Duration = Duration::from_secs(1);

    fn turn(company: Company) -> Turn {
        let member = Member {
            id: "r".into(),
            node: "n".into(),
            workers: Vec::new(),
            started_at: Timestamp::UNIX_EPOCH,
            max_crashes: 3,
            damaged: Arc::default(),
        };
        let turn = Turn::by_hand(Arc::new(member), Timestamp::UNIX_EPOCH, Vec::new(), Vec::new());
        Turn { company, solitude: BASE, ..turn }
    }

    fn job(id: i64, crashes: i64) -> Job {
        Job { id, crashes, ..NewJob::new("w").build(Timestamp::UNIX_EPOCH, |_| ()).unwrap().job }
    }

    /// The places of these jobs, which a claim meets in this order.
    fn places(solitude: &mut Solitude, company: Company, now: Instant, jobs: &[Job]) -> Vec<Place> {
        let turns = [turn(company), turn(Company::Nobody)];
        let mut room = solitude.room(&turns, now);
        if room.is_closed() {
            return vec![];
        }
        let mut places = Vec::new();
        for job in jobs {
            places.push(room.place(&turns[0], job));
            if room.is_closed() {
                break;
            }
        }
        places
    }

    #[test]
    fn a_suspect_is_claimed_where_nothing_runs_and_nothing_with_it() {
        let mut solitude = Solitude::default();
        let now = Instant::now();
        let jobs = [job(1, 1), job(2, 0), job(3, 1)];
        assert_eq!(places(&mut solitude, Company::Nobody, now, &jobs), [Place::Alone]);
        assert_eq!(places(&mut solitude, Company::Suspect, now, &jobs[1..]), []);
        assert_eq!(places(&mut solitude, Company::Nobody, now, &jobs[1..]), [Place::Free, Place::None]);
        assert_eq!(places(&mut solitude, Company::Somebody, now, &jobs[2..]), [], "what runs is to end first");
        assert_eq!(places(&mut solitude, Company::Nobody, now, &jobs[2..]), [Place::Alone]);
    }

    #[test]
    fn those_of_one_crash_are_let_go_where_they_cannot_be_alone_for_long() {
        let mut solitude = Solitude::default();
        let now = Instant::now();
        let jobs = [job(1, 1), job(2, 1), job(3, 2), job(4, 0)];
        assert_eq!(places(&mut solitude, Company::Nobody, now, &jobs), [Place::Alone]);
        let rest = &jobs[1..];
        // The first takes long.
        assert_eq!(places(&mut solitude, Company::Somebody, now, rest), [Place::Free, Place::None]);
        assert_eq!(places(&mut solitude, Company::Somebody, now + 9 * BASE, &rest[1..]), []);
        assert_eq!(places(&mut solitude, Company::Somebody, now + 10 * BASE, &rest[1..]), [Place::Alone]);
        assert_eq!(places(&mut solitude, Company::Suspect, now + 11 * BASE, &rest[2..]), []);
        assert_eq!(places(&mut solitude, Company::Somebody, now + 20 * BASE, &rest[2..]), [Place::Free]);
        assert_eq!(places(&mut solitude, Company::Nobody, now + 20 * BASE, &jobs), [Place::Alone], "all is as before");
    }

    #[test]
    fn jobs_that_do_not_end_hold_up_a_suspect_and_the_others_for_so_long_and_no_longer() {
        let mut solitude = Solitude::default();
        let now = Instant::now();
        let jobs = [job(1, 1), job(2, 0)];
        assert_eq!(places(&mut solitude, Company::Somebody, now, &jobs), [Place::None]);
        assert_eq!(places(&mut solitude, Company::Somebody, now + BASE / 2, &jobs), []);
        assert_eq!(places(&mut solitude, Company::Somebody, now + BASE, &jobs), [Place::Free, Place::Free]);
    }

    #[test]
    fn where_nobody_is_to_be_alone_nobody_waits() {
        let mut solitude = Solitude::default();
        let turns = [Turn { solitude: Duration::ZERO, ..turn(Company::Somebody) }];
        let mut room = solitude.room(&turns, Instant::now());
        assert_eq!(room.place(&turns[0], &job(1, 9)), Place::Free);
    }
}
