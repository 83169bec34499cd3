//! A job whose process died while it was executing is a suspect, and is to run alone: its process begins nothing else
//! meanwhile.
//!
//! A claim that meets a suspect stops there, and so do all others of the process, until nothing runs in it; then a
//! suspect is claimed by itself: of those that could be, the one that began last before, since that is who it was, most
//! likely. How long others wait for this has a bound, at both ends. Where those that run do not end in time it runs beside
//! them, but nothing is begun together with it. Those that were there at one crash only are let go at once when they
//! cannot be alone: a process that is killed leaves many, and they are to run again at once.
//!
//! A process dies once, with all that runs in it, whichever file that is from: so this is the one thing that all handles
//! of a process share. None waits for another's transaction; each says under a lock what it is about to begin.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::ledger::Ledger;
use crate::engine::{Company, Turn};
use crate::job::{self, Fence, Job};

/// A handle's place in the process.
pub(super) struct Solitude {
    seat: u64,
    here: Arc<Mutex<Here>>,
}

/// What runs in this process, and who is to be alone in it.
#[derive(Default)]
struct Here {
    /// The handles that have runtimes.
    seats: BTreeMap<u64, Seat>,
    /// A suspect that was met waits for the jobs that run to end.
    waits: Option<Waits>,
    /// One that has waited for long enough, and its seat.
    impatient: Option<(u64, i64)>,
    /// One was claimed by itself.
    alone: Option<Alone>,
    /// Where it is written that it is the only one.
    marked: Option<Arc<Ledger>>,
    /// Until nothing runs, those of one crash are like any other.
    given_up: bool,
    /// Attempts that go on without their runtime.
    strays: usize,
    /// No rescue can know from a file's rows alone what runs here.
    crowded: bool,
}

struct Seat {
    file: Option<PathBuf>,
    runtimes: HashMap<String, Option<Arc<Ledger>>>,
    /// Who runs there, those that are just being claimed with them.
    company: Company,
    /// The same as the crews said it last.
    told: Company,
    /// It could not claim, and wants to know when it may be able to.
    refused: bool,
    wake: Wake,
}

type Wake = Arc<dyn Fn() + Send + Sync>;

struct Waits {
    seat: u64,
    id: i64,
    queue: String,
    until: Instant,
}

struct Alone {
    seat: u64,
    until: Instant,
}

impl Here {
    fn is_empty(&self) -> bool {
        self.seats.values().all(|seat| seat.company == Company::Nobody)
    }

    /// Whether a suspect has the process for itself.
    fn is_taken(&self, now: Instant) -> bool {
        let runs = |seat| self.seats.get(&seat).is_some_and(|seat| seat.company == Company::Suspect);
        self.alone.as_ref().is_some_and(|alone| now < alone.until && runs(alone.seat))
    }

    /// Whether nothing may be begun in this seat.
    fn bars(&self, seat: u64, now: Instant) -> bool {
        self.is_taken(now) || self.waits.as_ref().is_some_and(|waits| waits.seat != seat)
    }

    /// Something else begins: nobody is the only one any more.
    fn unmark(&mut self) {
        if let Some(ledger) = self.marked.take() {
            ledger.mark(None);
        }
    }

    fn crowd(&mut self) {
        self.crowded = true;
        let ledgers = self.seats.values().flat_map(|seat| seat.runtimes.values()).flatten();
        ledgers.for_each(|ledger| ledger.crowd());
    }

    /// Those who could not claim, which now may be able to.
    fn refused(&mut self, but: u64) -> Vec<Wake> {
        let refused = |(seat, it): (&u64, &mut Seat)| {
            (*seat != but && std::mem::take(&mut it.refused)).then(|| Arc::clone(&it.wake))
        };
        self.seats.iter_mut().filter_map(refused).collect()
    }
}

/// The same within a transaction.
pub(super) struct Room<'a> {
    solitude: &'a Solitude,
    now: Instant,
    nobody: bool,
    given_up: bool,
    /// Something is claimed here that others may be claimed with.
    begun: bool,
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
    /// A seat in this process.
    pub fn new() -> Self {
        static PROCESS: LazyLock<Arc<Mutex<Here>>> = LazyLock::new(Arc::default);
        Self::among(Arc::clone(&PROCESS))
    }

    /// Apart from all that runs here.
    #[cfg(any(test, feature = "testing"))]
    pub fn apart() -> Self {
        Self::among(Arc::default())
    }

    fn among(here: Arc<Mutex<Here>>) -> Self {
        static SEATS: AtomicU64 = AtomicU64::new(0);
        Self { seat: SEATS.fetch_add(1, Ordering::Relaxed), here }
    }

    /// A runtime is about to live here, and has claimed nothing yet.
    pub fn enter(&self, runtime: &str, file: Option<&Path>, ledger: Option<Arc<Ledger>>, wake: Wake) {
        let mut here = self.here.lock();
        let strangers = here.seats.iter().any(|(seat, other)| {
            // Two handles on one file have their jobs in the same rows.
            *seat != self.seat && (other.file.as_deref() != file || file.is_none())
        });
        let seat = here.seats.entry(self.seat).or_insert_with(|| Seat {
            file: file.map(Path::to_owned),
            runtimes: HashMap::new(),
            company: Company::Nobody,
            told: Company::Nobody,
            refused: false,
            wake,
        });
        seat.runtimes.insert(runtime.to_owned(), ledger);
        if strangers || here.crowded || here.strays > 0 {
            here.crowd();
        }
    }

    /// It lives here no more.
    pub fn leave(&self, runtime: &str) {
        let mut here = self.here.lock();
        let Some(seat) = here.seats.get_mut(&self.seat) else { return };
        seat.runtimes.remove(runtime);
        if seat.runtimes.is_empty() {
            here.seats.remove(&self.seat);
            here.waits.take_if(|waits| waits.seat == self.seat);
        }
        self.wake(here);
    }

    /// An attempt goes on without its runtime, or has come to its end.
    pub fn stray(&self, begins: bool) {
        let mut here = self.here.lock();
        if begins {
            here.strays += 1;
            here.crowd();
        } else {
            here.strays = here.strays.saturating_sub(1);
        }
    }

    /// Lets the others try again.
    fn wake(&self, mut here: MutexGuard<'_, Here>) {
        let refused = here.refused(self.seat);
        drop(here);
        refused.iter().for_each(|wake| wake());
    }

    /// Takes note of who runs in these runtimes, which are all of this handle.
    pub fn see(&self, turns: &[Turn], now: Instant) {
        let mut here = self.here.lock();
        let Some(seat) = here.seats.get_mut(&self.seat).filter(|_| !turns.is_empty()) else { return };
        let any = |company| turns.iter().any(|turn| turn.company == company);
        let company = match () {
            () if any(Company::Suspect) => Company::Suspect,
            () if any(Company::Somebody) => Company::Somebody,
            () => Company::Nobody,
        };
        let mut changed = seat.company != company;
        (seat.company, seat.told) = (company, company);
        let nobody = here.is_empty();
        if here.alone.is_some() && !here.is_taken(now) {
            // It has ended, or takes long.
            here.alone = None;
            here.given_up = true;
            changed = true;
        }
        if nobody {
            (here.given_up, here.impatient) = (false, None);
        }
        let is_asked_for = |queue: &str| turns.iter().flat_map(|turn| &turn.demands).any(|it| *it.queue == *queue);
        let gone = here.waits.take_if(|waits| nobody && waits.seat == self.seat && !is_asked_for(&waits.queue));
        if changed || gone.is_some() {
            self.wake(here);
        }
    }

    /// What was claimed since then was not committed.
    pub fn undo(&self) {
        let mut here = self.here.lock();
        let Some(seat) = here.seats.get_mut(&self.seat) else { return };
        if seat.company != seat.told {
            seat.company = seat.told;
            self.wake(here);
        }
    }

    /// What there is room for.
    pub fn room(&self, turns: &[Turn], now: Instant) -> Room<'_> {
        let mut here = self.here.lock();
        let (nobody, taken) = (here.is_empty(), here.is_taken(now));
        let is_over = |waits: &mut Waits| !taken && waits.until <= now && (!nobody || waits.seat != self.seat);
        if let Some(waits) = here.waits.take_if(is_over)
            && !nobody
        {
            here.given_up = true;
            here.impatient = Some((waits.seat, waits.id));
        }
        let others_turn = here.waits.as_ref().map(|waits| waits.seat).filter(|seat| *seat != self.seat);
        let closed = taken || others_turn.is_some() || (!nobody && here.waits.is_some());
        let given_up = here.given_up;
        if closed && turns.iter().any(|turn| !turn.demands.is_empty()) {
            here.refuse(self.seat);
        }
        // Nothing runs, and who is waited for may not know it.
        let next = others_turn.filter(|_| nobody).and_then(|seat| here.seats.get(&seat));
        let next = next.map(|seat| Arc::clone(&seat.wake));
        drop(here);
        if let Some(wake) = next {
            wake();
        }
        Room { solitude: self, now, nobody, given_up, begun: false, closed }
    }
}

impl Here {
    fn refuse(&mut self, seat: u64) {
        if let Some(seat) = self.seats.get_mut(&seat) {
            seat.refused = true;
        }
    }
}

impl Room<'_> {
    /// The queue in which a suspect of this handle waits.
    pub fn waits(&self) -> Option<String> {
        let here = self.solitude.here.lock();
        let own = here.waits.as_ref().filter(|waits| waits.seat == self.solitude.seat && !here.is_taken(self.now));
        own.map(|waits| waits.queue.clone())
    }

    /// Nobody waits there any more.
    pub fn nobody_waits(&mut self) {
        let mut here = self.solitude.here.lock();
        here.waits = None;
        self.closed = here.is_taken(self.now);
        self.solitude.wake(here);
    }

    /// Whether nothing runs in the process, nor is about to.
    pub fn is_empty(&self) -> bool {
        self.nobody
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// When to come back, whatever happens until then.
    pub fn until(&self) -> Option<Instant> {
        if !self.closed {
            return None;
        }
        let here = self.solitude.here.lock();
        let taken = here.alone.as_ref().filter(|_| here.is_taken(self.now)).map(|alone| alone.until);
        taken.into_iter().chain(here.waits.as_ref().map(|waits| waits.until)).min()
    }

    pub fn is_suspect(&self, turn: &Turn, job: &Job) -> bool {
        !turn.solitude.is_zero() && job.crashes > i64::from(self.given_up)
    }

    /// The place of a job that is about to be claimed.
    pub fn place(&mut self, turn: &Turn, job: &Job) -> Place {
        let suspect = self.is_suspect(turn, job);
        if self.begun && !suspect {
            return Place::Free;
        }
        let own = self.solitude.seat;
        let mut here = self.solitude.here.lock();
        let empty = self.nobody && here.is_empty();
        let impatient = here.impatient == Some((own, job.id)) && !here.is_taken(self.now);
        self.closed |= suspect || here.bars(own, self.now);
        if self.closed && !(suspect && (impatient || (empty && !here.bars(own, self.now)))) {
            let until = self.until_alone(turn, job);
            if suspect && !here.is_taken(self.now) {
                let waits = || Waits { seat: own, id: job.id, queue: job.queue.clone(), until };
                here.waits.get_or_insert_with(waits);
            }
            here.refuse(own);
            return Place::None;
        }
        here.unmark();
        self.nobody = false;
        self.begun = !suspect;
        let company = if suspect { Company::Suspect } else { Company::Somebody };
        if let Some(seat) = here.seats.get_mut(&own) {
            seat.company = company;
        }
        if !suspect {
            return Place::Free;
        }
        (here.waits, here.impatient) = (None, None);
        here.alone = Some(Alone { seat: own, until: self.until_alone(turn, job) });
        if empty && here.strays == 0 {
            let seat = here.seats.get(&own);
            here.marked = seat.and_then(|seat| seat.runtimes.get(&turn.runtime.id)).cloned().flatten();
        }
        Place::Alone
    }

    /// The attempt of the one that was given a place alone.
    pub fn mark(&self, fence: Fence) {
        if let Some(ledger) = &self.solitude.here.lock().marked {
            ledger.mark(Some(fence));
        }
    }

    fn until_alone(&self, turn: &Turn, job: &Job) -> Instant {
        let until = self.now.checked_add(job::solitude(turn.solitude, job.crashes));
        until.unwrap_or_else(|| self.now + job::LONGEST)
    }
}

#[cfg(test)]
mod tests;
