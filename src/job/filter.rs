use std::collections::BTreeMap;

use super::row::{Job, normalize_tags};
use super::state::State;
use crate::setters::setters;

/// Which jobs: every condition given must hold. An empty filter means all jobs.
///
/// ```
/// use kiln::{Filter, Kiln, NewJob, State};
///
/// let kiln = Kiln::in_memory()?;
/// for n in 0..25 {
///     kiln.enqueue(NewJob::new("app.Mailer").queue("mailers").tags([if n % 2 == 0 { "even" } else { "odd" }]))?;
/// }
///
/// let page = kiln.list(Filter::new().queue("mailers").tag("odd").limit(10))?;
/// let next = kiln.list(Filter::new().queue("mailers").tag("odd").limit(10).after(page[9].id))?;
///
/// assert_eq!((page.len(), next.len()), (10, 2));
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    pub(crate) states: Vec<State>,
    pub(crate) queue: Option<String>,
    pub(crate) worker: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) order: Order,
    pub(crate) from: Option<i64>,
    pub(crate) limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            queue: None,
            worker: None,
            tags: Vec::new(),
            order: Order::OldestFirst,
            from: None,
            limit: 100,
        }
    }
}

impl Filter {
    /// All jobs.
    pub fn new() -> Self {
        Self::default()
    }

    setters! { filter =>
        /// Jobs in this state; given several times, in any of them.
        fn state(state: State) { filter.states.push(state) }

        /// Jobs in any of these states.
        fn states(states: impl IntoIterator<Item = State>) { filter.states.extend(states) }

        /// Jobs of this queue.
        fn queue(queue: impl Into<String>) { filter.queue = Some(queue.into()) }

        /// Jobs for the worker of this name.
        fn worker(worker: impl Into<String>) { filter.worker = Some(worker.into()) }

        /// Jobs with this tag; given several times, with all of them.
        fn tag(tag: impl Into<String>) { filter.tags.extend(normalize_tags([tag.into()])) }

        /// The next page: jobs that come after the one with this id. Only [`list`](crate::Kiln::list) looks at it.
        fn after(id: i64) { filter.from = Some(id) }

        /// How many jobs a page holds; 100 unless said otherwise. Only [`list`](crate::Kiln::list) looks at it.
        fn limit(limit: u32) { filter.limit = limit }

        /// Jobs in falling order of their ids instead of rising order.
        fn newest_first() { filter.order = Order::NewestFirst }
    }
}

/// The jobs that an operation is meant for: an id, a job, several ids or jobs, or a [`Filter`].
///
/// ```
/// use kiln::{Filter, Kiln, NewJob, State};
///
/// let kiln = Kiln::in_memory()?;
/// let jobs = kiln.enqueue_many((0..5).map(|_| NewJob::new("app.Mailer")))?;
///
/// assert_eq!(kiln.cancel(jobs[0].id)?, 1);
/// assert_eq!(kiln.cancel(&jobs[1..3])?, 2);
/// assert_eq!(kiln.cancel(Filter::new().state(State::Available))?, 2);
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Jobs(pub(crate) Which);

#[derive(Clone, Debug)]
pub(crate) enum Which {
    Ids(Vec<i64>),
    Matching(Filter),
}

impl From<i64> for Jobs {
    fn from(id: i64) -> Self {
        Jobs(Which::Ids(vec![id]))
    }
}

impl From<&Job> for Jobs {
    fn from(job: &Job) -> Self {
        job.id.into()
    }
}

impl From<Vec<i64>> for Jobs {
    fn from(ids: Vec<i64>) -> Self {
        Jobs(Which::Ids(ids))
    }
}

impl From<&[i64]> for Jobs {
    fn from(ids: &[i64]) -> Self {
        ids.to_vec().into()
    }
}

impl<const N: usize> From<[i64; N]> for Jobs {
    fn from(ids: [i64; N]) -> Self {
        ids.to_vec().into()
    }
}

impl From<&[Job]> for Jobs {
    fn from(jobs: &[Job]) -> Self {
        jobs.iter().map(|job| job.id).collect::<Vec<_>>().into()
    }
}

impl From<&Vec<Job>> for Jobs {
    fn from(jobs: &Vec<Job>) -> Self {
        jobs.as_slice().into()
    }
}

impl From<Filter> for Jobs {
    fn from(filter: Filter) -> Self {
        Jobs(Which::Matching(filter))
    }
}

/// How many jobs there are, by queue and state.
///
/// ```
/// use kiln::{Filter, Kiln, NewJob, State};
///
/// let kiln = Kiln::in_memory()?;
/// kiln.enqueue(NewJob::new("app.Mailer").queue("mailers"))?;
/// kiln.enqueue(NewJob::new("app.Resize"))?;
///
/// let counts = kiln.count(Filter::new())?;
/// assert_eq!(counts.total(), 2);
/// assert_eq!(counts.state(State::Available), 2);
/// assert_eq!(counts.queue("mailers"), 1);
/// assert_eq!(counts.get("mailers", State::Available), 1);
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub(crate) BTreeMap<(String, State), u64>);

impl Counts {
    /// Jobs of this queue in this state.
    pub fn get(&self, queue: &str, state: State) -> u64 {
        self.iter().filter(|&(q, s, _)| q == queue && s == state).map(|(_, _, count)| count).sum()
    }

    /// Jobs in this state, in all queues.
    pub fn state(&self, state: State) -> u64 {
        self.iter().filter(|&(_, s, _)| s == state).map(|(_, _, count)| count).sum()
    }

    /// Jobs of this queue, in all states.
    pub fn queue(&self, queue: &str) -> u64 {
        self.iter().filter(|&(q, _, _)| q == queue).map(|(_, _, count)| count).sum()
    }

    /// All jobs.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Queue, state and count, for every count that is not 0.
    pub fn iter(&self) -> impl Iterator<Item = (&str, State, u64)> {
        self.0.iter().map(|((queue, state), count)| (queue.as_str(), *state, *count))
    }
}
