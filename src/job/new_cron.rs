use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cron::Cron;
use super::entry::{CronEntry, Missed, find, in_whole_micros};
use super::new::NewJob;
use super::unique::Unique;
use crate::error::{Error, Result};
use crate::setters::setters;

/// What stands for the zone of the system in a default name.
const SYSTEM: &str = "system";

/// A cron entry to be added: when, and what job.
///
/// | setting | default |
/// | --- | --- |
/// | [`name`](Self::name) | made from the expression, the worker and the time zone, see [`Cron::name`] |
/// | [`zone`](Self::zone) | `UTC` |
/// | [`missed`](Self::missed) | [`Missed::RunOnce`] |
/// | [`paused`](Self::paused) | no |
///
/// An entry is validated once, when it is added: by [`RuntimeBuilder::cron`](crate::RuntimeBuilder::cron) or
/// [`Kiln::cron`](crate::Kiln::cron). What an entry does is told in
/// [the guide](crate::guide::scheduling#cron).
///
/// ```
/// use kiln::{Kiln, Missed, NewCron, NewJob};
///
/// let kiln = Kiln::in_memory()?;
/// let entry = kiln.cron(
///     NewCron::new("30 2 * * *", NewJob::new("app.Backup").queue("disk"))
///         .name("nightly backup")
///         .zone("Europe/Berlin")
///         .missed(Missed::Skip),
/// )?;
/// assert_eq!((entry.name.as_str(), entry.queue.as_str()), ("nightly backup", "disk"));
///
/// let error = kiln.cron(NewCron::new("30 24 * * *", NewJob::new("app.Backup"))).unwrap_err();
/// assert_eq!(error.to_string(), "cron: hour must be 0-23, got 24\n  30 24 * * *\n     ^^");
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a new cron entry does nothing until it is added"]
pub struct NewCron {
    cron: Result<Cron>,
    job: NewJob,
    name: Option<String>,
    zone: Zone,
    missed: Missed,
    paused: bool,
}

#[derive(Debug)]
enum Zone {
    Unsaid,
    Named(String),
    System,
}

impl NewCron {
    /// This job, whenever the [expression](Cron) is due.
    ///
    /// The job says worker, queue, args, meta, tags, priority and max_attempts, how it is
    /// [unique](NewJob::unique), and how long after its slot was fired it [expires](NewJob::expires_in). What it says
    /// about when it is due, a time at which it expires, and its state are refused.
    ///
    /// If the job of a slot has a duplicate, the slot is settled and makes no job. The meta of each job holds its slot,
    /// so that no two jobs are duplicates by all of their meta.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::testing::{Hand, ManualClock};
    /// use kiln::{Kiln, NewCron, NewJob, State, Unique};
    ///
    /// const MINUTE: Duration = Duration::from_secs(60);
    /// let clock = ManualClock::default();
    /// let kiln = Kiln::memory_builder().clock(&clock).open()?;
    /// let sync = NewJob::new("app.Sync").unique(Unique::new().states(State::INCOMPLETE)).expires_in(5 * MINUTE);
    /// kiln.cron(NewCron::new("* * * * *", sync).name("sync"))?;
    ///
    /// let hand = Hand::new(&kiln, ["app.Sync"]);
    /// clock.advance(MINUTE);
    /// assert_eq!(hand.fire()?.len(), 1);
    /// clock.advance(MINUTE);
    /// assert_eq!(hand.fire()?.len(), 0, "the one before still waits");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn new(expression: &str, job: NewJob) -> Self {
        Self::from(expression.parse(), job)
    }

    /// This job, every `distance`: at whole multiples of it since 1970, see [`Cron::every`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let entry = kiln.cron(NewCron::every(Duration::from_secs(90), NewJob::new("app.Poll")))?;
    /// assert_eq!(entry.expression, "@every 90s");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn every(distance: Duration, job: NewJob) -> Self {
        Self::from(Cron::every(distance), job)
    }

    fn from(cron: Result<Cron>, job: NewJob) -> Self {
        Self { cron, job, name: None, zone: Zone::Unsaid, missed: Missed::default(), paused: false }
    }

    setters! { entry =>
        /// The name of the entry, unique on the file. While the name stays, everything else may change.
        fn name(name: impl Into<String>) { entry.name = Some(name.into()) }

        /// The IANA name of the time zone.
        fn zone(zone: impl Into<String>) { entry.zone = Zone::Named(zone.into()) }

        /// Uses the system's time zone, as it is when the entry is added. The default name does not depend on that zone.
        ///
        /// ```
        /// use kiln::{Kiln, NewCron, NewJob};
        ///
        /// let kiln = Kiln::in_memory()?;
        /// match kiln.cron(NewCron::new("@daily", NewJob::new("app.Greeter")).system_zone()) {
        ///     Ok(entry) => println!("at midnight in {}", entry.zone),
        ///     Err(error) => assert_eq!(error.field(), Some("zone")),
        /// }
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn system_zone() { entry.zone = Zone::System }

        /// What happens to slots that were not fired in time.
        fn missed(missed: Missed) { entry.missed = missed }

        /// Adds the entry paused. An entry of that name that is there already stays paused or running.
        fn paused() { entry.paused = true }
    }

    /// The row to store, validated.
    pub(crate) fn build(self, now: Timestamp) -> Result<CronEntry> {
        let cron = self.cron?;
        let (job, unique, expires_in) = self.job.template()?;
        let (zone, known_as) = self.zone.resolve()?;
        let name = self.name.unwrap_or_else(|| cron.name(&job.worker, known_as.as_deref()));
        if name.trim().is_empty() {
            return Err(Error::invalid("name", format!("name of a cron entry must not be blank, got {name:?}")));
        }
        if let Missed::RunAll { max, .. } = self.missed
            && !(1..=1000).contains(&max)
        {
            return Err(Error::invalid("missed", format!("max of missed slots must be between 1 and 1000, got {max}")));
        }
        Ok(CronEntry {
            name,
            expression: cron.to_string(),
            zone,
            worker: job.worker,
            queue: job.queue,
            args: job.args,
            meta: job.meta,
            tags: job.tags,
            max_attempts: job.max_attempts,
            priority: job.priority,
            uniqueness: unique.as_ref().map(Unique::write),
            expires_in: expires_in.map(in_whole_micros),
            missed: self.missed.in_whole_micros(),
            paused: self.paused,
            last_slot: None,
            inserted_at: now,
            revision: 0,
            since: now,
        })
    }
}

impl Zone {
    /// The zone's name, and its name within a default name.
    fn resolve(self) -> Result<(String, Option<String>)> {
        match self {
            Zone::Unsaid => Ok(("UTC".to_owned(), None)),
            Zone::Named(zone) => find(&zone).map(|_| (zone.clone(), Some(zone))),
            Zone::System => {
                let system = TimeZone::system();
                let name = system.iana_name().filter(|name| find(name).is_ok());
                let none = || Error::invalid("zone", "zone: the system's time zone has no name; give one");
                name.map(|name| (name.to_owned(), Some(SYSTEM.to_owned()))).ok_or_else(none)
            }
        }
    }
}
