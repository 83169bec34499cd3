//! The scheduler thread: a tick of every keeper, then a rest.
//!
//! A keeper is asked what there is to do `now` and says how long it may rest. Nothing here waits longer than a
//! minute, since clocks jump and laptops sleep; a wait that was too long or too short is planned anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::alarm::Wake;
use super::cron::Crons;
use super::house::House;
use crate::Error;
use crate::engine::{Crew, Cutoffs, News, Pruned};

/// How often another process's plain INSERT is looked for, a dead runtime's lock tried, and an ack that could not be
/// written tried again. A second is promised: this, and what is left of it for the look itself and its transaction. More
/// often would not be quiet, twice a second.
const LOOK: Duration = Duration::from_millis(600);

const SOON: Duration = Duration::from_millis(1);

const LONGEST: Duration = Duration::from_secs(60);
const PRUNE: Duration = Duration::from_secs(60);

const STAGE_BATCH: u32 = 1000;
const RESCUE_BATCH: u32 = 500;
const PRUNE_BATCH: u32 = 500;

pub(super) struct Keepers {
    house: Arc<House>,
    look: Instant,
    /// How soon to look again while somebody is about to commit something.
    soon: Option<Duration>,
    /// When the next job is due, as far as is known.
    due: Due,
    crons: Crons,
    prune: Instant,
    /// What the engine's version was at the last look.
    version: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Unknown,
    Never,
    At(Timestamp),
}

impl Due {
    /// Whether there is, or may be, something to do.
    pub fn is_now(self, now: Timestamp) -> bool {
        match self {
            Due::Unknown => true,
            Due::Never => false,
            Due::At(due) => due <= now,
        }
    }
}

impl Keepers {
    pub fn new(house: Arc<House>, crons: Crons) -> Self {
        let now = Instant::now();
        Self { house, look: now, soon: None, due: Due::Unknown, crons, prune: now, version: None }
    }

    /// The life of the scheduler thread.
    pub fn run(mut self, stopping: &AtomicBool) {
        let mut wake = Wake::default();
        while !stopping.load(Ordering::Acquire) {
            let rest = self.tick(wake);
            wake = self.house.alarm.wait(rest);
        }
    }

    /// Does what is due; says until when there is nothing to do.
    fn tick(&mut self, wake: Wake) -> Instant {
        let now = Instant::now();
        if wake.expected {
            self.soon = Some(SOON);
            self.look = self.look.min(now + SOON);
        }
        if now >= self.look {
            let found = self.look_around();
            // A transaction that takes long is looked for more and more rarely.
            self.soon = self.soon.map(|soon| soon * 2).filter(|soon| !found && *soon < LOOK);
            self.look = now + self.soon.unwrap_or(LOOK);
        }
        if wake.carry_on {
            self.house.engine().turn();
        }
        if wake.due {
            self.due = Due::Unknown;
        }
        if wake.crons {
            self.crons.look();
        }
        if wake.cancelling {
            self.cancel();
        }
        let fired = self.fire(now);
        let staged = self.stage(now);
        let tended = self.house.tend(now);
        let watched = self.house.watch(now);
        let held = self.house.let_go(now);
        let reported = self.house.write_reports(now);
        if now >= self.prune {
            self.prune = self.prune(now);
            // Rings are hints and the table is the truth: one that was lost costs a minute at the most.
            self.due = Due::Unknown;
            self.crons.look();
            self.house.lanes.read().iter().for_each(|lane| lane.ring());
            let _ = self.house.engine().tell_rulings();
        }
        let rests = [
            Some(self.look),
            Some(self.prune),
            fired,
            staged,
            tended,
            watched,
            held,
            reported,
            now.checked_add(LONGEST),
        ];
        rests.into_iter().flatten().min().unwrap_or(now)
    }

    /// What others may have done, and what went wrong before. Says whether others did something.
    fn look_around(&mut self) -> bool {
        // An error here is one of the database: the next look tries again.
        let changed = self.changed_elsewhere();
        if changed {
            if let Err(error) = self.house.engine().is_understood() {
                self.house.meet(&error);
            }
            self.due = Due::Unknown;
            self.crons.look();
            self.house.lanes.read().iter().for_each(|lane| lane.ring());
            self.cancel();
        }
        if changed || self.house.changed.load(Ordering::Acquire) {
            let _ = self.house.engine().tell_rulings();
        }
        self.house.rescue();
        if let Some(age) = self.house.settings.rescue_after {
            let before = self.house.now().checked_sub(age).unwrap_or(Timestamp::MIN);
            let _ = self.house.kiln.rescue_older(before, RESCUE_BATCH);
        }
        self.house.try_again(Instant::now());
        if self.house.has_business() {
            self.house.engine().turn();
        }
        changed
    }

    /// Whether another process wrote since the last look. Before the first, anything may have been written.
    fn changed_elsewhere(&mut self) -> bool {
        match self.house.engine().version() {
            Ok(version) => self.version.replace(version) != Some(version),
            Err(_) => true,
        }
    }

    fn cancel(&self) {
        if let Ok(ids) = self.house.engine().cancelling() {
            self.house.cancel(&ids);
        }
    }

    /// Fires cron entries; says when to go on.
    fn fire(&mut self, now: Instant) -> Option<Instant> {
        let time = self.house.now();
        match (self.crons.tick(time), self.crons.due()) {
            (Err(error), _) => {
                self.house.meet(&error);
                Some(now + LOOK)
            }
            (Ok(_), Due::At(due)) => now.checked_add(Duration::try_from(due.duration_since(time)).unwrap_or_default()),
            (Ok(_), Due::Unknown | Due::Never) => None,
        }
    }

    fn stage(&mut self, now: Instant) -> Option<Instant> {
        let time = self.house.now();
        if self.due.is_now(time) {
            // Until the new plan is made, every job that becomes due is news: one may be committed after the look below.
            self.house.alarm.plan(None);
            self.due = match self.house.kiln.stage(&self.house.queues(), STAGE_BATCH) {
                Ok(staged) => staged.next_due.map_or(Due::Never, Due::At),
                Err(error) => {
                    self.house.meet(&error);
                    return Some(now + LOOK);
                }
            };
        }
        match self.due {
            Due::Unknown => Some(now),
            Due::Never => {
                self.house.alarm.plan(None);
                None
            }
            Due::At(due) => {
                self.house.alarm.plan(Some(due.as_microsecond()));
                now.checked_add(Duration::try_from(due.duration_since(time)).unwrap_or_default())
            }
        }
    }

    /// Deletes a batch of old jobs; says when to go on.
    fn prune(&self, now: Instant) -> Instant {
        let time = self.house.now();
        let before = |age: Duration| time.checked_sub(age).ok();
        let retention = &self.house.settings.retention;
        let cutoffs = Cutoffs {
            completed: before(retention.completed),
            cancelled: before(retention.cancelled),
            discarded: before(retention.discarded),
        };
        match self.house.kiln.prune(&cutoffs, PRUNE_BATCH) {
            // The others on the file are let in between.
            Ok(Pruned { more: true, .. }) => now + Duration::from_millis(20),
            Ok(_) | Err(_) => now + PRUNE,
        }
    }
}

impl House {
    /// What a runtime that starts does at once: rescue, before it claims.
    pub fn first_look(&self) {
        self.rescue();
        self.ring_all();
    }

    fn rescue(&self) {
        let _ = self.kiln.rescue(RESCUE_BATCH);
    }

    /// A keeper could not write what it had to.
    pub fn meet(&self, error: &Error) {
        if error.is_of_the_file() {
            self.acks.lock().halt(error, Instant::now());
            self.tell();
        }
    }

    /// Whatever was put aside is tried with the next turns: there will be no later.
    pub fn hurry(&self) {
        self.acks.lock().hurry();
    }

    /// Tries again what could not be written, when it is time for it.
    pub fn try_again(&self, now: Instant) {
        let mut acks = self.acks.lock();
        if !acks.is_due(now) {
            return;
        }
        let halted = acks.is_halted();
        drop(acks);
        if halted {
            // A row of its own, which is written anew as it is: that shows it, whatever there is to do.
            let itself = self.itself.upgrade().expect("BUG: a house that is looked after is not gone");
            self.changed.store(true, Ordering::Release);
            if let Err(error) = self.engine().announce(&self.member.id, itself) {
                return self.meet(&error);
            }
            self.acks.lock().resume();
        }
        self.engine().turn();
        self.acks.lock().look(now);
        self.tell();
    }

    fn ring_all(&self) {
        self.hear(&News { all_queues: true, ..News::default() });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;
    use crate::engine::Member;
    use crate::{Filter, Kiln, Running, State};

    /// A runtime whose scheduler is this test.
    fn keepers(kiln: &Kiln) -> Keepers {
        let runtime = kiln.runtime().worker_fn("w", |_: &Running<()>| ()).build().unwrap();
        let member = Member {
            id: kiln.dice().name(),
            node: kiln.node().to_owned(),
            workers: runtime.workers.names(),
            started_at: kiln.clock().now(),
            max_crashes: 3,
            solitude: true,
            damaged: Arc::default(),
        };
        let (workers, plans) = (runtime.workers.clone(), Arc::clone(&runtime.plans));
        let house = House::new(kiln.clone(), member, runtime.settings, workers, Vec::new(), plans);
        kiln.engine().join(&house.member, house.clone()).unwrap();
        Keepers::new(house, runtime.cron_keeper())
    }

    fn leave(keepers: &Keepers) {
        let engine = keepers.house.engine();
        engine.retire(&keepers.house.member.id).unwrap();
        engine.leave(&keepers.house.member.id);
    }

    /// Jobs of a worker that nobody knows, executing in a runtime whose lock is free.
    fn die(file: &Path, jobs: usize) {
        let id = "0123456789abcdef0123456789abcdef";
        std::fs::write(format!("{}-kiln-{id}", file.display()), "").unwrap();
        let conn = Connection::open(file).unwrap();
        let sql = "INSERT INTO kiln_jobs (worker, state, attempt, attempted_at, attempted_by)
                   VALUES ('ghost', 'executing', 1, 1, json_array('there', ?1))";
        conn.execute_batch("BEGIN").unwrap();
        (0..jobs).for_each(|_| assert_eq!(conn.execute(sql, [id]).unwrap(), 1));
        conn.execute_batch("COMMIT").unwrap();
    }

    #[test]
    fn what_a_look_finds_dead_is_rescued_in_that_look_however_much_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jobs.db");
        let kiln = Kiln::open(&file).unwrap();
        let mut keepers = keepers(&kiln);
        keepers.tick(Wake::default());
        die(&file, 3 * RESCUE_BATCH as usize);
        keepers.look = Instant::now();
        keepers.tick(Wake::default());
        assert_eq!(kiln.count(Filter::new()).unwrap().state(State::Available), 3 * u64::from(RESCUE_BATCH));
        leave(&keepers);
    }

    #[test]
    fn looks_are_never_further_apart_than_what_leaves_a_part_of_the_second_that_is_promised() {
        assert!(LOOK <= Duration::from_millis(600));
        let kiln = Kiln::in_memory().unwrap();
        let mut keepers = keepers(&kiln);
        let all: [fn(&mut Wake); 4] = [
            |_| (),
            |wake| wake.expected = true,
            |wake| wake.carry_on = true,
            |wake| (wake.due, wake.crons) = (true, true),
        ];
        for set in all {
            let mut wake = Wake::default();
            set(&mut wake);
            // One that is expected is looked for soon, and then more and more rarely.
            for wake in std::iter::once(wake).chain([Wake::default(); 15]) {
                let now = Instant::now();
                let rest = keepers.tick(wake);
                assert!(rest <= keepers.look && keepers.look <= Instant::now() + LOOK);
                if !wake.expected {
                    keepers.look = now;
                    keepers.tick(Wake::default());
                    assert!(keepers.look > now, "it looks when it is time");
                }
            }
        }
        leave(&keepers);
    }
}
