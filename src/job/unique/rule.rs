//! When a job is a duplicate of another, as its enqueuer says it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::key::{Basis, COMPARABLE, Field, Stamp};
use crate::error::{Error, Result};
use crate::job::row::Job;
use crate::job::state::State;
use crate::setters::setters;

/// When a new job counts as a duplicate of a stored job: [`NewJob::unique`](crate::NewJob::unique).
///
/// An enqueue looks for a job with the same values in some [fields](Self::by), in certain [states](Self::states), since
/// a certain [time](Self::within). If there is such a job, nothing is stored: the enqueue returns the existing job,
/// with [`Job::conflict`] set, and updates the fields named by [`replace`](Self::replace). Two enqueues at the same
/// time, in any threads and processes, never both store their job.
///
/// | setting | default |
/// | --- | --- |
/// | fields | worker, queue and args |
/// | keys | all of args (and of meta) |
/// | within | as long as the row exists |
/// | states | [`State::SUCCESSFUL`]: all but cancelled and discarded |
/// | timestamp | `inserted_at` |
///
/// The words are Oban's. A job is only compared with jobs that are unique themselves, by the same fields, keys and
/// timestamp: a key made of these is stored with each unique job. Oban Pro does the same; the open engine of Oban
/// compares a unique job with all rows, and oban-py leaves uniqueness to Pro. In contrast to Oban, the period is not a
/// minute by default: it is as long as the row exists.
///
/// The compared values are those that the job was enqueued with or was given by an [update](crate::Kiln::update). What
/// a snooze or a rescue adds to the meta is not compared. A job that waits although it has
/// [expired](crate::NewJob::expires_at) counts as cancelled.
///
/// Jobs are compared only when they are enqueued. A job that somebody retries, or that is rescued, runs beside a
/// duplicate that was stored meanwhile.
///
/// ```
/// use kiln::{Kiln, NewJob, Unique};
/// use serde_json::json;
///
/// let kiln = Kiln::in_memory()?;
/// let sync = |user: i64, n: i64| {
///     NewJob::new("app.Sync").args(json!({ "user": user, "n": n })).unique(Unique::new().keys(["user"]))
/// };
///
/// let first = kiln.enqueue(sync(7, 1))?;
/// let second = kiln.enqueue(sync(7, 2))?;
/// let other = kiln.enqueue(sync(8, 3))?;
///
/// assert!(!first.conflict && second.conflict && !other.conflict);
/// assert_eq!(second.id, first.id);
/// # Ok::<(), kiln::Error>(())
/// ```
///
/// As JSON, a `Unique` is what a cron entry stores. Entries that are left out have their default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct Unique {
    fields: Vec<Field>,
    keys: Vec<String>,
    #[serde(with = "micros")]
    period: Option<Duration>,
    states: Vec<State>,
    timestamp: Stamp,
    replace: BTreeMap<State, Vec<Field>>,
    #[serde(with = "micros")]
    delay: Option<Duration>,
}

/// A duration as a whole number of microseconds.
mod micros {
    use super::*;

    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        duration.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(Duration::from_micros))
    }
}

impl Default for Unique {
    fn default() -> Self {
        Self {
            fields: vec![Field::Worker, Field::Queue, Field::Args],
            keys: Vec::new(),
            period: None,
            states: State::SUCCESSFUL.to_vec(),
            timestamp: Stamp::default(),
            replace: BTreeMap::new(),
            delay: None,
        }
    }
}

impl Unique {
    /// Unique by worker, queue and args, as long as the row exists and was not cancelled or discarded.
    pub fn new() -> Self {
        Self::default()
    }

    setters! { unique =>
        /// Which fields are compared: worker, queue, args, meta or some of them.
        fn by(fields: impl IntoIterator<Item = Field>) { unique.fields = fields.into_iter().collect() }

        /// Compares only these keys of args (and of meta, if meta is compared).
        fn keys(keys: impl IntoIterator<Item = impl Into<String>>) {
            unique.keys = keys.into_iter().map(Into::into).collect()
        }

        /// Looks back for this long. `Duration::MAX` is as long as the row exists, which is the default.
        fn within(period: Duration) { unique.period = Some(period).filter(|period| *period != Duration::MAX) }

        /// In which states a job has duplicates: [`State::ALL`], [`State::INCOMPLETE`], [`State::SUCCESSFUL`],
        /// `[State::Scheduled]`, or another list. A list with gaps, through which duplicates would slip, is refused when
        /// the job is enqueued.
        fn states(states: impl IntoIterator<Item = State>) { unique.states = states.into_iter().collect() }

        /// Measures the period by `scheduled_at` instead of `inserted_at`: a job that is due later than that long ago is a
        /// duplicate.
        fn by_schedule() { unique.timestamp = Stamp::ScheduledAt }

        /// If the duplicate is in this state, gives it these fields of the new job.
        ///
        /// A new `scheduled_at` moves the job as [`update`](crate::Kiln::update) does: an available one that is due later
        /// is scheduled, a scheduled one that is due by now is available. A running attempt goes on with the old values and
        /// ends as always; the next attempt has the new values.
        ///
        /// ```
        /// # use kiln::{Field, Kiln, NewJob, State, Unique};
        /// # let kiln = Kiln::in_memory()?;
        /// let unique = Unique::new().by([Field::Worker]).replace(State::Available, [Field::Priority]);
        /// kiln.enqueue(NewJob::new("app.Report").priority(5).unique(unique.clone()))?;
        /// let report = kiln.enqueue(NewJob::new("app.Report").priority(1).unique(unique))?;
        /// assert_eq!((report.conflict, report.priority), (true, 1));
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn replace(state: State, fields: impl IntoIterator<Item = Field>) {
            unique.replace.entry(state).or_default().extend(fields)
        }
    }

    /// Runs once nothing was enqueued for `delay`: the job is scheduled that far ahead, and each further enqueue before
    /// then postpones it and gives it the new arguments. The job must not say when it is due.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use kiln::{Kiln, NewJob, Unique};
    /// # let kiln = Kiln::in_memory()?;
    /// let save = || NewJob::new("app.Save").unique(Unique::new().debounce(Duration::from_secs(2)));
    /// let first = kiln.enqueue(save())?;
    /// let again = kiln.enqueue(save())?;
    /// assert!(again.conflict && again.scheduled_at > first.scheduled_at);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn debounce(mut self, delay: Duration) -> Self {
        self.states = vec![State::Scheduled];
        self.delay = Some(delay);
        self.replace(State::Scheduled, [Field::ScheduledAt, Field::Args, Field::Meta])
    }

    /// Runs at most once in each `period`, the first time at once: further enqueues within the period are duplicates,
    /// whatever became of the first job.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use kiln::{Kiln, NewJob, Unique};
    /// # let kiln = Kiln::in_memory()?;
    /// let ping = || NewJob::new("app.Ping").unique(Unique::new().throttle(Duration::from_secs(60)));
    /// let first = kiln.enqueue(ping())?;
    /// kiln.cancel(first.id)?;
    /// assert!(kiln.enqueue(ping())?.conflict);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn throttle(mut self, period: Duration) -> Self {
        self.states = State::ALL.to_vec();
        self.within(period)
    }

    pub(in crate::job) fn delay(&self) -> Option<Duration> {
        self.delay
    }

    /// What to look for before `job` is stored.
    pub(in crate::job) fn check(&self, job: &Job, now: Timestamp) -> Result<Check> {
        self.validate()?;
        let since = self.period.map(|period| now.checked_sub(period).unwrap_or(Timestamp::MIN));
        Ok(Check { key: self.basis().key(job), states: self.states.clone(), since, replace: self.replace.clone() })
    }

    pub(super) fn validate(&self) -> Result<()> {
        let Self { fields, keys, states, .. } = self;
        let is_comparable = |field: &Field| COMPARABLE.iter().any(|(comparable, ..)| comparable == field);
        let is_first = |state: &State| matches!(state, State::Available | State::Scheduled | State::Suspended);
        let names = || states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ");
        let way = [State::Available, State::Scheduled, State::Executing, State::Retryable];
        let refused = if fields.is_empty() {
            "unique needs a field to be unique by".to_owned()
        } else if let Some(field) = fields.iter().find(|field| !is_comparable(field)) {
            format!("unique cannot compare {field:?}, only Worker, Queue, Args and Meta")
        } else if !keys.is_empty() && !fields.iter().any(|field| matches!(field, Field::Args | Field::Meta)) {
            format!("unique has keys {keys:?}, but is neither by Args nor by Meta")
        } else if !states.iter().any(is_first) {
            let message = "has none that a new job starts in, so that no duplicate would ever be found";
            format!("unique states [{}] {message}", names())
        } else if states.iter().all(is_first) {
            return Ok(());
        } else if let Some(missing) = way.iter().find(|state| !states.contains(state)) {
            let message = format!("so that a duplicate could be stored while the job is {missing}");
            format!("unique states [{}] leave out {missing}, {message}", names())
        } else {
            return Ok(());
        };
        Err(Error::invalid("unique", refused))
    }

    /// The fields and keys by which jobs are compared.
    pub(super) fn basis(&self) -> Basis {
        let (mut fields, mut keys) = (self.fields.clone(), self.keys.clone());
        fields.sort_unstable();
        fields.dedup();
        keys.sort_unstable();
        keys.dedup();
        Basis { fields, keys, timestamp: self.timestamp }
    }

    /// As a cron entry stores it.
    pub(in crate::job) fn write(&self) -> String {
        serde_json::to_string(self).expect("BUG: lists and names are JSON")
    }

    /// Reads what [`write`](Self::write) or another program wrote.
    pub(in crate::job) fn read(text: &str) -> Result<Unique> {
        let unique: Unique = serde_json::from_str(text).map_err(|error| {
            Error::invalid("unique", "unique of a cron entry is not the JSON that was expected").because(error)
        })?;
        unique.validate().map(|()| unique)
    }
}

/// What an enqueue looks for before it stores a unique job.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub key: String,
    pub states: Vec<State>,
    /// Jobs with an earlier time do not count.
    pub since: Option<Timestamp>,
    replace: BTreeMap<State, Vec<Field>>,
}

impl Check {
    /// A waiting job that expired by then counts as cancelled. `None` if cancelled jobs count anyway.
    pub fn expired_by(&self, new: &Job) -> Option<Timestamp> {
        (!self.states.contains(&State::Cancelled)).then_some(new.inserted_at)
    }

    /// The existing job with the fields that it gets from the new job; `None` if nothing changes.
    pub fn replaced(&self, there: &Job, new: &Job) -> Option<Job> {
        let mut job = there.clone();
        self.replace.get(&there.state).into_iter().flatten().for_each(|field| match field {
            Field::Args => job.args = new.args.clone(),
            Field::MaxAttempts => job.max_attempts = new.max_attempts,
            Field::Meta => job.meta = new.meta.clone(),
            Field::Priority => job.priority = new.priority,
            Field::Queue => job.queue.clone_from(&new.queue),
            Field::ScheduledAt => {
                job.scheduled_at = new.scheduled_at;
                job.move_by_schedule(new.inserted_at);
            }
            Field::Tags => job.tags.clone_from(&new.tags),
            Field::Worker => job.worker.clone_from(&new.worker),
        });
        (job != *there).then_some(job)
    }

    /// Whether two versions of a job may differ in a field that can be compared.
    pub fn may_differ(old: &Job, new: &Job) -> bool {
        (&old.args, &old.meta, &old.queue, &old.worker) != (&new.args, &new.meta, &new.queue, &new.worker)
    }

    /// The new key of a job that was changed; `None` if the key stays.
    pub fn rekey(key: &str, old: &Job, new: &Job) -> Option<String> {
        let (basis, _) = Basis::of(key)?;
        let new = basis.key(new);
        (basis.key(old) != new).then_some(new)
    }
}
