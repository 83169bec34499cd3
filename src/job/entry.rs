use std::iter;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Cron, Json, NewJob, Ready, Schedule, Unique};
use crate::{Error, Result};

/// A slot that nobody fired for so long was missed: the next minute has begun.
const ON_TIME: SignedDuration = SignedDuration::from_mins(1);

const NANOSECOND: SignedDuration = SignedDuration::from_nanos(1);

/// What becomes of slots that nobody fired in time: the program did not run, the computer slept, the clock was set
/// forward.
///
/// A slot counts as missed when a minute has passed since; up to then it is fired as any other, only later. Where
/// several are due at once, only [`RunAll`](Self::RunAll) runs more than the last:
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
    /// They are passed over.
    Skip,
    /// One job runs for all that are due, in the name of the last.
    #[default]
    RunOnce,
    /// Each has its job, oldest first: the last `max` (1 to 1000) of those not older than `within`.
    RunAll {
        /// How many at the most.
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
/// An entry is its name: adding one of the same name again gives it a new definition. Each slot is fired at most once,
/// whatever the clock does and however many processes run. [The guide](crate::guide::scheduling#cron) tells the rules.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CronEntry {
    /// What tells it from others on the file.
    pub name: String,
    /// When, as it was written; `@every 90s` for [`NewCron::every`](crate::NewCron::every).
    pub expression: String,
    /// By whose clock: the IANA name of a time zone.
    pub zone: String,
    /// The worker of its jobs.
    pub worker: String,
    /// The queue of its jobs.
    pub queue: String,
    /// The arguments of its jobs.
    pub args: Json,
    /// The meta of its jobs, to which each adds its slot.
    pub meta: Json,
    /// The tags of its jobs.
    pub tags: Vec<String>,
    /// The attempts its jobs have at the most.
    pub max_attempts: i64,
    /// The priority of its jobs.
    pub priority: i64,
    /// How long after its slot was fired a job of it expires, if it does.
    pub expires_in: Option<Duration>,
    /// What becomes of missed slots.
    pub missed: Missed,
    /// Whether its slots pass without a job.
    pub paused: bool,
    /// The last slot that is settled: its job was made, or it was missed and passed over.
    pub last_slot: Option<Timestamp>,
    /// When the entry was first added.
    pub inserted_at: Timestamp,
    /// Counts up with each change: what a slot is fired against.
    pub(crate) revision: i64,
    /// Slots up to here are of the past.
    pub(crate) since: Timestamp,
    /// How its jobs are unique, as it is stored.
    pub(crate) uniqueness: Option<String>,
}

/// The file keeps microseconds.
pub(super) fn in_whole_micros(duration: Duration) -> Duration {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Duration::from_micros(micros.unsigned_abs())
}

pub(super) fn find(zone: &str) -> Result<TimeZone> {
    TimeZone::get(zone).map_err(|error| {
        let message = format!("zone must be the IANA name of a time zone known here, got {zone:?}");
        Error::invalid("zone", message).because(error)
    })
}

impl Missed {
    pub(super) fn in_whole_micros(self) -> Self {
        match self {
            Missed::RunAll { max, within } => Missed::RunAll { max, within: in_whole_micros(within) },
            other => other,
        }
    }

    /// Those of the slots after `after` to run at `now`, oldest first, when `last` is the last that is due.
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

/// What is due of an entry.
#[derive(Debug)]
pub(crate) struct DueSlots {
    /// Those to have a job, oldest first: none where all were missed and are passed over.
    pub fired: Vec<Timestamp>,
    /// The last that is settled thereby.
    pub last: Timestamp,
}

/// A slot to be settled, and the jobs to be stored with it.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    /// The entry as it was read: the shot is void when it is not that any more.
    pub name: String,
    pub revision: i64,
    pub slot: Timestamp,
    pub jobs: Vec<Ready>,
}

impl CronEntry {
    /// Its schedule, to ask for the slots to come.
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
    /// [`is_invalid`](Error::is_invalid) when this machine does not know the zone, or when something else wrote an
    /// expression that is none.
    pub fn schedule(&self) -> Result<Schedule> {
        Ok(Schedule::new(Cron::read(&self.expression)?, find(&self.zone)?))
    }

    /// How its jobs are unique, if they are.
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
    /// [`is_invalid`](Error::is_invalid) when something else wrote what cannot be: such an entry is left alone.
    pub fn unique(&self) -> Result<Option<Unique>> {
        self.uniqueness.as_deref().map(Unique::read).transpose()
    }

    /// The first slot that is not settled; it may have been missed. `None` while it is paused, when there is none to
    /// come, and for `@reboot`.
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

    /// Whether it is due when a runtime starts.
    pub(crate) fn is_reboot(&self) -> bool {
        Cron::read(&self.expression).is_ok_and(|cron| cron.is_reboot())
    }

    /// Slots up to this are never looked at again.
    fn settled(&self) -> Timestamp {
        self.last_slot.map_or(self.since, |last| last.max(self.since))
    }

    /// What is due at `now`, if anything, and the first slot after it.
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

    /// What is due as a program starts: a slot of its own, also where the clock was set back.
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

/// A slot as the reference writes it: Python's `isoformat`.
fn iso(slot: Timestamp) -> String {
    let form = if slot.subsec_nanosecond() == 0 { "%Y-%m-%dT%H:%M:%S+00:00" } else { "%Y-%m-%dT%H:%M:%S.%6f+00:00" };
    slot.strftime(form).to_string()
}
