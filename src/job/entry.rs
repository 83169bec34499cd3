use std::iter;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::cron::{Cron, Schedule};
use super::json::Json;
use super::new::{NewJob, Ready};
use super::unique::Unique;
use crate::error::{Error, Result};

/// A slot that was not fired for so long is missed.
const ON_TIME: SignedDuration = SignedDuration::from_mins(1);

const NANOSECOND: SignedDuration = SignedDuration::from_nanos(1);

/// What happens to slots that were not fired in time: the program did not run, the computer slept, or the clock was set
/// forward.
///
/// A slot is missed when it was due more than a minute ago. Until then it is fired like any other slot, only later. If
/// several slots are due at once, only [`RunAll`](Self::RunAll) runs more than the last:
/// [the guide](crate::guide::scheduling#missed-slots) has an example.
///
/// ```
/// use std::time::Duration;
/// use kiln::Missed;
///
/// let day = Duration::from_secs(24 * 60 * 60);
/// assert_eq!(Missed::default(), Missed::RunOnce);
/// assert_ne!(Missed::default(), Missed::RunAll { max: 24, within: day });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// Missed slots make no job.
    Skip,
    /// One job runs for all slots that are due. It is the job of the last slot.
    #[default]
    RunOnce,
    /// Each slot has its job, oldest first: the last `max` (1 to 1000) slots that are not older than `within`.
    RunAll {
        /// How many slots at most.
        max: u32,
        /// How old a slot may be.
        within: Duration,
    },
}

/// A cron entry: one durable row, and with it jobs that recur.
///
/// ```
/// use kiln::{Kiln, NewCron, NewJob};
///
/// let kiln = Kiln::in_memory()?;
/// let entry = kiln.cron(NewCron::new("0 9 * * MON-FRI", NewJob::new("app.Digest")).name("digest"))?;
/// assert_eq!((entry.name.as_str(), entry.zone.as_str(), entry.last_slot), ("digest", "UTC", None));
/// # Ok::<(), kiln::Error>(())
/// ```
///
/// The name identifies an entry: adding an entry of the same name again replaces its definition. Each slot is fired at
/// most once, whatever the clock does and however many processes run. [The guide](crate::guide::scheduling#cron) has
/// the rules.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CronEntry {
    /// The name of the entry, unique on the file.
    pub name: String,
    /// The expression, as it was written; `@every 90s` for [`NewCron::every`](crate::NewCron::every).
    pub expression: String,
    /// The IANA name of the time zone.
    pub zone: String,
    /// The worker of its jobs.
    pub worker: String,
    /// The queue of its jobs.
    pub queue: String,
    /// The arguments of its jobs.
    pub args: Json,
    /// The meta of its jobs. Each job adds its slot.
    pub meta: Json,
    /// The tags of its jobs.
    pub tags: Vec<String>,
    /// How often each of its jobs is attempted at most.
    pub max_attempts: i64,
    /// The priority of its jobs.
    pub priority: i64,
    /// How long after its slot was fired a job expires; `None` if it does not.
    pub expires_in: Option<Duration>,
    /// What happens to missed slots.
    pub missed: Missed,
    /// Whether the entry is paused: its slots make no jobs.
    pub paused: bool,
    /// The last slot that is settled: its job was made, or the slot was missed and makes none.
    pub last_slot: Option<Timestamp>,
    /// When the entry was first added.
    pub inserted_at: Timestamp,
    /// A number that grows with each change. A slot is fired only if the entry still has the revision that was read.
    pub(crate) revision: i64,
    /// Slots up to this time are not fired any more.
    pub(crate) since: Timestamp,
    /// How its jobs are unique, in the stored form.
    pub(crate) uniqueness: Option<String>,
}

/// The duration as the file stores it.
pub(super) fn in_whole_micros(duration: Duration) -> Duration {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Duration::from_micros(micros.unsigned_abs())
}

pub(super) fn find(zone: &str) -> Result<TimeZone> {
    let must = "be the IANA name of a time zone known here";
    TimeZone::get(zone).map_err(|error| Error::must("zone", must, zone).because(error))
}

impl Missed {
    pub(super) fn in_whole_micros(self) -> Self {
        match self {
            Missed::RunAll { max, within } => Missed::RunAll { max, within: in_whole_micros(within) },
            other => other,
        }
    }

    /// The slots after `after` that have a job at `now`, oldest first; `last` is the last slot that is due.
    fn slots(self, schedule: &Schedule, after: Timestamp, last: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let age = |slot: Timestamp| now.duration_since(slot);
        match self {
            Missed::Skip if age(last) >= ON_TIME => Vec::new(),
            Missed::Skip | Missed::RunOnce => vec![last],
            Missed::RunAll { max, within } => {
                let within = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
                let before = |slot: &Timestamp| schedule.last_until(after, slot.checked_sub(NANOSECOND).ok()?);
                let slots = iter::successors(Some(last), before);
                let young = slots.take_while(|slot| age(*slot) <= within || age(*slot) < ON_TIME);
                let mut slots: Vec<Timestamp> = young.take(max as usize).collect();
                slots.reverse();
                slots
            }
        }
    }
}

/// The slots of an entry that are due.
#[derive(Debug)]
pub(crate) struct DueSlots {
    /// The slots that have a job, oldest first. None if all slots were missed and make no job.
    pub fired: Vec<Timestamp>,
    /// The last slot that is settled by this.
    pub last: Timestamp,
}

/// A slot that is to be settled, and the jobs to store with it.
#[derive(Clone, Debug)]
pub(crate) struct Firing {
    /// The entry as it was read. If it was changed since, nothing is fired.
    pub name: String,
    pub revision: i64,
    pub slot: Timestamp,
    pub jobs: Vec<Ready>,
}

impl CronEntry {
    /// The schedule of the entry, which gives the slots to come.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let entry = kiln.cron(NewCron::new("@daily", NewJob::new("app.Digest")))?;
    /// let next: Vec<_> = entry.schedule()?.upcoming("2026-05-01T08:00:00Z".parse()?).take(2).collect();
    /// assert_eq!(next[1].to_string(), "2026-05-03T00:00:00Z");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) if this machine does not know the zone, or if something else wrote a wrong
    /// expression.
    pub fn schedule(&self) -> Result<Schedule> {
        Ok(Schedule::new(Cron::read(&self.expression)?, find(&self.zone)?))
    }

    /// How the jobs of the entry are unique; `None` if they are not.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob, Unique};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let digest = NewJob::new("app.Digest").unique(Unique::new().keys(["user"]));
    /// let entry = kiln.cron(NewCron::new("@daily", digest))?;
    /// assert_eq!(entry.unique()?, Some(Unique::new().keys(["user"])));
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) if something else wrote a wrong value. No slot of that entry is fired.
    pub fn unique(&self) -> Result<Option<Unique>> {
        self.uniqueness.as_deref().map(Unique::read).transpose()
    }

    /// The first slot that is not settled. The slot may have been missed. `None` while the entry is paused, if no slot
    /// is to come, and for `@reboot`.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.cron(NewCron::new("@hourly", NewJob::new("app.Digest")).name("digest"))?;
    /// kiln.pause_cron("digest")?;
    /// assert_eq!(kiln.crons()?[0].next_slot(), None);
    /// kiln.resume_cron("digest")?;
    /// assert!(kiln.crons()?[0].next_slot().is_some());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn next_slot(&self) -> Option<Timestamp> {
        if self.paused { None } else { self.schedule().ok()?.next_after(self.settled()) }
    }

    /// Whether the entry is due when a runtime starts.
    pub(crate) fn is_reboot(&self) -> bool {
        Cron::read(&self.expression).is_ok_and(|cron| cron.is_reboot())
    }

    /// Slots up to this time are settled.
    fn settled(&self) -> Timestamp {
        self.last_slot.map_or(self.since, |last| last.max(self.since))
    }

    /// The slots that are due at `now`, if any, and the first slot after them.
    pub(crate) fn due(&self, now: Timestamp) -> (Option<DueSlots>, Option<Timestamp>) {
        let (Ok(schedule), Ok(_)) = (self.schedule(), self.unique()) else { return (None, None) };
        if self.paused {
            return (None, None);
        }
        let after = self.settled();
        let Some(last) = schedule.last_until(after, now) else { return (None, schedule.next_after(after)) };
        let fired = self.missed.slots(&schedule, after, last, now);
        (Some(DueSlots { fired, last }), schedule.next_after(last))
    }

    /// The slot that is due when a runtime starts. It is a new slot even if the clock was set back.
    pub(crate) fn reboot(&self, now: Timestamp) -> DueSlots {
        let after_the_last = self.last_slot.and_then(|last| last.checked_add(1000 * NANOSECOND).ok());
        let last = after_the_last.map_or(now, |slot| slot.max(now));
        DueSlots { fired: vec![last], last }
    }

    /// The job of a slot.
    pub(crate) fn job(&self, slot: Timestamp) -> Result<NewJob> {
        let mut meta = self.meta.map();
        let mut note = |key: &str, value: Value| meta.insert(key.to_owned(), value);
        note("cron", true.into());
        note("cron_at", iso(slot).into());
        note("cron_expr", self.expression.as_str().into());
        note("cron_name", self.name.as_str().into());
        note("cron_tz", self.zone.as_str().into());
        let mut job = NewJob::new(&self.worker)
            .queue(&self.queue)
            .args(&self.args)
            .meta(meta)
            .tags(&self.tags)
            .max_attempts(self.max_attempts)
            .priority(self.priority);
        if let Some(unique) = self.unique()? {
            job = job.unique(unique);
        }
        if let Some(delay) = self.expires_in {
            job = job.expires_in(delay);
        }
        Ok(job)
    }

    /// This entry after it was added once more, as `new`, at `now`.
    pub(crate) fn redefined(&self, new: &CronEntry, now: Timestamp) -> CronEntry {
        let same_slots = self.expression == new.expression && self.zone == new.zone;
        CronEntry {
            paused: self.paused,
            last_slot: self.last_slot,
            inserted_at: self.inserted_at,
            revision: self.revision,
            since: if same_slots { self.since } else { now },
            ..new.clone()
        }
    }

    /// This entry after it was paused or resumed at `now`.
    pub(crate) fn pausing(&self, paused: bool, now: Timestamp) -> CronEntry {
        let since = if self.paused && !paused { now } else { self.since };
        CronEntry { paused, since, ..self.clone() }
    }
}

/// A slot as oban-py writes it: Python's `isoformat`.
fn iso(slot: Timestamp) -> String {
    let form = if slot.subsec_nanosecond() == 0 { "%Y-%m-%dT%H:%M:%S+00:00" } else { "%Y-%m-%dT%H:%M:%S.%6f+00:00" };
    slot.strftime(form).to_string()
}
