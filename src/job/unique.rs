mod canon;
mod key;
mod written;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Job, State};
use crate::{Error, Result};
use key::Basis;
pub(crate) use key::shown as shown_key;

/// When a job counts as a double of one that is there already: [`NewJob::unique`](super::NewJob::unique).
///
/// An enqueue looks for a job with the same values in some [fields](Self::by), in certain [states](Self::states), since
/// a certain [time](Self::within). When there is one, nothing is stored: the job that is there is given back, with
/// [`Job::conflict`] set, changed where [`replace`](Self::replace) says so. Two enqueues at the same time, in whatever
/// threads and processes, never both store theirs.
///
/// | setting | default |
/// | --- | --- |
/// | fields | worker, queue and args |
/// | keys | all of args (and of meta) |
/// | within | as long as the row exists |
/// | states | [`State::SUCCESSFUL`]: all but cancelled and discarded |
/// | timestamp | `inserted_at` |
///
/// The words are Oban's. A job is only compared with jobs that were enqueued to be unique themselves, by the same fields,
/// keys and timestamp: a key made of these is stored with each. So it is in Oban Pro; the open engine of Oban compares a
/// unique job with all rows, and oban-py leaves uniqueness to Pro. The period has no default of a minute: it is as long as
/// the row exists.
///
/// What is compared is what a job was enqueued with, or given by an [update](crate::Kiln::update) since; not what a snooze
/// or a rescue adds to its meta. A job that waits though it has [expired](super::NewJob::expires_at) counts as cancelled.
///
/// Jobs are compared when they are enqueued, and never again: one that somebody retries, or that is rescued, runs beside
/// a double that was stored meanwhile.
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Unique {
    fields: Vec<Field>,
    keys: Vec<String>,
    period: Option<Duration>,
    states: Vec<State>,
    by_schedule: bool,
    replace: Vec<(State, Vec<Field>)>,
    delay: Option<Duration>,
}

/// A part of a job that [`Unique`] compares or replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Field {
    /// `args`
    Args,
    /// `max_attempts`; cannot be compared.
    MaxAttempts,
    /// `meta`
    Meta,
    /// `priority`; cannot be compared.
    Priority,
    /// `queue`
    Queue,
    /// `scheduled_at`; cannot be compared.
    ScheduledAt,
    /// `tags`; cannot be compared.
    Tags,
    /// `worker`
    Worker,
}

/// What an enqueue looks for before it stores a unique job.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub key: String,
    pub states: Vec<State>,
    /// Jobs with an earlier stamp do not count.
    pub since: Option<Timestamp>,
    replace: Vec<(State, Vec<Field>)>,
}

impl Default for Unique {
    fn default() -> Self {
        Self {
            fields: vec![Field::Worker, Field::Queue, Field::Args],
            keys: Vec::new(),
            period: None,
            states: State::SUCCESSFUL.to_vec(),
            by_schedule: false,
            replace: Vec::new(),
            delay: None,
        }
    }
}

impl Unique {
    /// Unique by worker, queue and args, as long as the row exists and was not cancelled or discarded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which fields make a double: worker, queue, args, meta or some of them.
    pub fn by(mut self, fields: impl IntoIterator<Item = Field>) -> Self {
        self.fields = fields.into_iter().collect();
        self
    }

    /// Compares only these keys of args (and of meta, where that is compared).
    pub fn keys(mut self, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.keys = keys.into_iter().map(Into::into).collect();
        self
    }

    /// Looks back for so long; `Duration::MAX` is as long as the row exists, which is the default.
    pub fn within(mut self, period: Duration) -> Self {
        self.period = Some(period).filter(|period| *period != Duration::MAX);
        self
    }

    /// In which states a job makes others doubles: [`State::ALL`], [`State::INCOMPLETE`], [`State::SUCCESSFUL`],
    /// `[State::Scheduled]`, or a list of one's own. A list with gaps, through which doubles would slip, is refused when
    /// the job is enqueued.
    pub fn states(mut self, states: impl IntoIterator<Item = State>) -> Self {
        self.states = states.into_iter().collect();
        self
    }

    /// Measures the period by `scheduled_at`, so that one due later than so long ago is a double; otherwise it is
    /// `inserted_at`.
    pub fn by_schedule(mut self) -> Self {
        self.by_schedule = true;
        self
    }

    /// When the double of this job is in this state, gives it these fields of the new one.
    ///
    /// A new `scheduled_at` moves the job as [`update`](crate::Kiln::update) does: an available one that is due later is
    /// scheduled, a scheduled one that is due by now is available. An attempt that runs already goes on with what it was
    /// given, and ends as always; the next one has the new values.
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
    pub fn replace(mut self, state: State, fields: impl IntoIterator<Item = Field>) -> Self {
        self.replace.push((state, fields.into_iter().collect()));
        self
    }

    /// Runs once things have been quiet for `delay`: the job is scheduled that far ahead, and each further enqueue
    /// before then moves it on and gives it its arguments. When it is due is not to be said otherwise.
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

    /// Runs at most once in each `period`, the first time at once: further enqueues within it are doubles, whatever
    /// became of the first.
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

    pub(super) fn delay(&self) -> Option<Duration> {
        self.delay
    }

    /// What to look for on behalf of `job`.
    pub(super) fn check(&self, job: &Job, now: Timestamp) -> Result<Check> {
        self.validate()?;
        let since = self.period.map(|period| now.checked_sub(period).unwrap_or(Timestamp::MIN));
        Ok(Check { key: self.basis().key(job), states: self.states.clone(), since, replace: self.replace.clone() })
    }

    fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::invalid("unique", message));
        let comparable = [Field::Worker, Field::Queue, Field::Args, Field::Meta];
        if self.fields.is_empty() {
            return refuse("unique needs a field to be unique by".to_owned());
        }
        if let Some(field) = self.fields.iter().find(|field| !comparable.contains(field)) {
            return refuse(format!("unique cannot compare {field:?}, only Worker, Queue, Args and Meta"));
        }
        if !self.keys.is_empty() && !self.fields.iter().any(|field| matches!(field, Field::Args | Field::Meta)) {
            return refuse(format!("unique has keys {:?}, but is neither by Args nor by Meta", self.keys));
        }
        let given = |state: &State| self.states.contains(state);
        let names: Vec<&str> = self.states.iter().map(|state| state.as_str()).collect();
        if ![State::Available, State::Scheduled, State::Suspended].iter().any(given) {
            let message = "has none that a new job starts in, so that no double would ever be found";
            return refuse(format!("unique states [{}] {message}", names.join(", ")));
        }
        let begun =
            self.states.iter().any(|state| !matches!(state, State::Available | State::Scheduled | State::Suspended));
        let way = [State::Available, State::Scheduled, State::Executing, State::Retryable];
        match way.iter().find(|state| begun && !given(state)) {
            Some(missing) => refuse(format!(
                "unique states [{}] leave out {missing}, so that a double could be stored while the job is {missing}",
                names.join(", ")
            )),
            None => Ok(()),
        }
    }

    /// What makes two jobs comparable: the fields, and the keys.
    fn basis(&self) -> Basis {
        let (mut fields, mut keys) = (self.fields.clone(), self.keys.clone());
        fields.sort_unstable();
        fields.dedup();
        keys.sort_unstable();
        keys.dedup();
        Basis { fields, keys, by_schedule: self.by_schedule }
    }
}

impl Check {
    /// Jobs that wait and expired by then are as good as cancelled; `None` where that makes no difference.
    pub fn expired_by(&self, new: &Job) -> Option<Timestamp> {
        (!self.states.contains(&State::Cancelled)).then_some(new.inserted_at)
    }

    /// The job that is there, with what it is to be given of the new one; `None` where that is nothing.
    pub fn replaced(&self, there: &Job, new: &Job) -> Option<Job> {
        let fields = self.replace.iter().filter(|(state, _)| *state == there.state).flat_map(|(_, fields)| fields);
        let mut job = there.clone();
        fields.for_each(|field| match field {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewJob;

    fn refusal(unique: Unique) -> String {
        let job = NewJob::new("w").build(Timestamp::UNIX_EPOCH, |_| {}).unwrap().job;
        let error = unique.check(&job, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.field(), Some("unique"));
        error.to_string()
    }

    #[test]
    fn states_that_cannot_work_are_refused_with_the_reason() {
        assert!(refusal(Unique::new().states([])).contains("no double would ever be found"));
        assert!(refusal(Unique::new().states([State::Executing])).contains("no double would ever be found"));
        let gap = Unique::new().states([State::Available, State::Scheduled, State::Executing]);
        assert!(refusal(gap).contains("leave out retryable"));
    }

    #[test]
    fn fields_that_cannot_work_are_refused_with_the_reason() {
        assert!(refusal(Unique::new().by([])).contains("needs a field"));
        assert!(refusal(Unique::new().by([Field::Priority])).contains("cannot compare Priority"));
        assert!(refusal(Unique::new().by([Field::Worker]).keys(["id"])).contains("neither by Args nor by Meta"));
    }

    #[test]
    fn the_groups_and_the_waiting_states_work() {
        let job = NewJob::new("w").build(Timestamp::UNIX_EPOCH, |_| {}).unwrap().job;
        let waiting = vec![State::Available, State::Scheduled];
        let groups = [State::ALL.to_vec(), State::INCOMPLETE.to_vec(), State::SUCCESSFUL.to_vec()];
        for states in groups.into_iter().chain([vec![State::Scheduled], waiting]) {
            Unique::new().states(states).check(&job, Timestamp::UNIX_EPOCH).unwrap();
        }
    }
}
