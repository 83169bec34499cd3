//! Firing cron entries: their slots become jobs when they are due.

use std::collections::HashSet;

use jiff::Timestamp;

use super::due::Due;
use crate::error::{Error, Result};
use crate::guard::catch;
use crate::job::{CronEntry, DueSlots, Firing, Job, NewCron};
use crate::kiln::Kiln;

/// So many jobs, and those of one entry more, are stored in one transaction at the most.
const BATCH: usize = 500;

/// The entries that a runtime is built with, validated.
pub(super) fn build(kiln: &Kiln, entries: Vec<NewCron>) -> Result<Vec<CronEntry>> {
    let mut built: Vec<CronEntry> = Vec::new();
    for entry in entries {
        let entry = kiln.admit_cron(entry)?;
        if built.iter().any(|other| other.name == entry.name) {
            let message = format!("cron entry {:?} was given twice; names must differ", entry.name);
            return Err(Error::invalid("cron", message));
        }
        built.push(entry);
    }
    Ok(built)
}

pub(crate) struct Crons {
    kiln: Kiln,
    /// When the first slot of any entry is due, as far as is known. It is reckoned from slots that are settled, not
    /// from the time: a clock that jumps changes only whether it has come.
    due: Due,
    /// Entries that are due because the program has started.
    reboots: HashSet<String>,
}

/// What came of the firings of a tick.
#[derive(Default)]
struct Fired {
    jobs: Vec<Job>,
    /// Entries that were not what they were read as: another runtime was faster, or somebody changed them.
    missed: Vec<(String, i64)>,
    failure: Option<Error>,
}

impl Crons {
    pub fn new(kiln: &Kiln, reboots: HashSet<String>) -> Self {
        Self { kiln: kiln.clone(), due: Due::Unknown, reboots }
    }

    /// Somebody may have changed entries, or settled slots.
    pub fn look(&mut self) {
        self.due = Due::Unknown;
    }

    /// When there will be something to do.
    pub(super) fn due(&self) -> Due {
        self.due
    }

    /// Fires what is due `now`; gives back the jobs it stored.
    pub fn tick(&mut self, now: Timestamp) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        let mut missed = HashSet::new();
        while self.due.is_now(now) {
            jobs.append(&mut self.pass(now, &mut missed)?);
        }
        Ok(jobs)
    }

    /// `missed` has the entries that firings did not hit, as they were read. One that is read so once more was not changed
    /// by anybody, but cannot be hit: something else wrote it. It is left alone, or there would be no end.
    fn pass(&mut self, now: Timestamp, missed: &mut HashSet<(String, i64)>) -> Result<Vec<Job>> {
        // Until it is all done, it is all to be looked at again.
        self.due = Due::Unknown;
        let mut entries = self.kiln.life().crons()?;
        entries.retain(|entry| !missed.contains(&(entry.name.clone(), entry.revision)));
        let mut fired = Fired::default();
        for entry in entries.iter().filter(|entry| entry.is_reboot()) {
            if self.reboots.contains(&entry.name) {
                let mut boot = Fired::default();
                let due = if entry.paused { None } else { Some(entry.reboot(now)) };
                self.fire(due.and_then(|due| self.aim(entry, &due)).into_iter().collect(), &mut boot);
                if boot.is_done() {
                    self.reboots.remove(&entry.name);
                }
                fired.add(boot);
            }
        }
        let mut next = None;
        let mut batch = Vec::new();
        for entry in &entries {
            let (due, following) = entry.due(now);
            next = next.into_iter().chain(following).min();
            batch.extend(due.and_then(|due| self.aim(entry, &due)));
            if batch.iter().map(|firing| firing.jobs.len()).sum::<usize>() >= BATCH {
                self.fire(std::mem::take(&mut batch), &mut fired);
            }
        }
        self.fire(batch, &mut fired);
        if fired.is_done() {
            self.due = next.map_or(Due::Never, Due::At);
        }
        missed.extend(fired.missed);
        fired.failure.map_or(Ok(fired.jobs), Err)
    }

    /// The jobs of what is due. `None` where they may not be stored, or a hook panics: that entry waits for its next
    /// slot.
    fn aim(&self, entry: &CronEntry, due: &DueSlots) -> Option<Firing> {
        let now = self.kiln.clock().now();
        let build = || due.fired.iter().map(|slot| self.kiln.build(entry.job(*slot)?, now)).collect::<Result<_>>();
        let jobs = catch(build).ok()?.ok()?;
        Some(Firing { name: entry.name.clone(), revision: entry.revision, slot: due.last, jobs })
    }

    /// Fires these together; where that fails, each alone, so that one that cannot be written does not take the others
    /// with it.
    fn fire(&self, firings: Vec<Firing>, fired: &mut Fired) {
        if firings.is_empty() {
            return;
        }
        match self.kiln.fire(firings.clone()) {
            Ok(made) => {
                let missed = firings.iter().zip(&made).filter(|(_, made)| made.is_none());
                fired.missed.extend(missed.map(|(firing, _)| (firing.name.clone(), firing.revision)));
                fired.jobs.extend(made.into_iter().flatten().flatten());
            }
            Err(error) if firings.len() == 1 || error.is_of_the_file() => fired.failure = Some(error),
            Err(_) => firings.into_iter().for_each(|firing| self.fire(vec![firing], fired)),
        }
    }
}

impl Fired {
    fn add(&mut self, other: Fired) {
        self.jobs.extend(other.jobs);
        self.missed.extend(other.missed);
        self.failure = self.failure.take().or(other.failure);
    }

    fn is_done(&self) -> bool {
        self.missed.is_empty() && self.failure.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::{NewCron, NewJob};
    use crate::testing::ManualClock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn keeper(expression: &str) -> (ManualClock, Kiln, Crons) {
        let clock = ManualClock::at("2026-03-02T08:59:30Z".parse().unwrap());
        let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
        kiln.cron(NewCron::new(expression, NewJob::new("app.Worker")).name("entry")).unwrap();
        let crons = Crons::new(&kiln, HashSet::new());
        (clock, kiln, crons)
    }

    fn due(text: &str) -> Due {
        Due::At(text.parse().unwrap())
    }

    #[test]
    fn it_rests_until_the_next_slot() {
        let (clock, _, mut crons) = keeper("0 * * * *");
        assert_eq!(crons.due(), Due::Unknown);
        assert!(crons.tick(clock.now()).unwrap().is_empty());
        assert_eq!(crons.due(), due("2026-03-02T09:00:00Z"));
        clock.advance(MINUTE);
        assert_eq!(crons.tick(clock.now()).unwrap().len(), 1);
        assert_eq!(crons.due(), due("2026-03-02T10:00:00Z"));
    }

    #[test]
    fn it_rests_for_ever_where_nothing_is_due_by_the_clock() {
        for expression in ["@reboot", "0 0 30 2 *"] {
            let (clock, _, mut crons) = keeper(expression);
            assert!(crons.tick(clock.now()).unwrap().is_empty());
            assert_eq!(crons.due(), Due::Never);
        }
    }

    #[test]
    fn between_slots_it_looks_at_nothing_until_it_is_told_to() {
        let (clock, kiln, mut crons) = keeper("0 * * * *");
        crons.tick(clock.now()).unwrap();
        // Nobody told: there is no runtime that hears of this.
        kiln.cron(NewCron::new("* * * * *", NewJob::new("app.Worker")).name("entry")).unwrap();
        clock.set("2026-03-02T08:59:59Z".parse().unwrap());
        crons.tick(clock.now()).unwrap();
        assert_eq!(crons.due(), due("2026-03-02T09:00:00Z"));
        clock.advance(MINUTE);
        crons.look();
        assert_eq!(crons.tick(clock.now()).unwrap().len(), 1);
        assert_eq!(crons.due(), due("2026-03-02T09:01:00Z"));
    }

    #[test]
    fn a_clock_that_jumps_changes_when_it_wakes_but_not_the_slots() {
        let (clock, _, mut crons) = keeper("0 * * * *");
        crons.tick(clock.now()).unwrap();
        clock.set("2026-03-02T05:00:00Z".parse().unwrap());
        assert!(crons.tick(clock.now()).unwrap().is_empty());
        assert_eq!(crons.due(), due("2026-03-02T09:00:00Z"));
        clock.set("2026-03-02T14:20:00Z".parse().unwrap());
        assert_eq!(crons.tick(clock.now()).unwrap().len(), 1);
        assert_eq!(crons.due(), due("2026-03-02T15:00:00Z"));
    }

    #[test]
    fn a_firing_is_void_once_another_has_hit() {
        let (clock, kiln, mut crons) = keeper("0 * * * *");
        clock.advance(MINUTE);
        let entry = kiln.crons().unwrap().remove(0);
        let stale = crons.aim(&entry, &entry.due(clock.now()).0.unwrap()).unwrap();
        assert_eq!(crons.tick(clock.now()).unwrap().len(), 1);
        assert_eq!(kiln.fire(vec![stale]).unwrap(), [None]);
        assert_eq!(kiln.count(crate::Filter::new()).unwrap().total(), 1);
    }

    #[test]
    fn an_entry_that_starts_with_the_program_is_fired_once() {
        let (clock, kiln, _) = keeper("@reboot");
        let mut crons = Crons::new(&kiln, HashSet::from(["entry".to_owned()]));
        assert_eq!(crons.tick(clock.now()).unwrap().len(), 1);
        crons.look();
        assert!(crons.tick(clock.now()).unwrap().is_empty());
    }
}
