//! What may be said of queues: by a runtime for itself, and by anybody for all runtimes on the file.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The queues a verb is meant for: one by its name, or all.
///
/// ```
/// use kiln::{Kiln, Queues};
///
/// let kiln = Kiln::in_memory()?;
/// kiln.pause("media")?;
/// kiln.pause(Queues::All)?;
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    /// All queues there are. Said for all runtimes, it is meant for queues to come as well.
    All,
    /// The queue of this name.
    One(String),
}

impl From<&str> for Queues {
    fn from(name: &str) -> Self {
        Queues::One(name.to_owned())
    }
}

impl From<String> for Queues {
    fn from(name: String) -> Self {
        Queues::One(name)
    }
}

impl From<&String> for Queues {
    fn from(name: &String) -> Self {
        Queues::One(name.clone())
    }
}

/// The queue's name; `*` for all.
impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Queues::All => "*",
            Queues::One(name) => name,
        })
    }
}

impl Queues {
    pub(crate) fn include(&self, queue: &str) -> bool {
        match self {
            Queues::All => true,
            Queues::One(name) => name == queue,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Queues::One(name) => valid_name(name),
            Queues::All => Ok(()),
        }
    }
}

pub(crate) fn valid_name(queue: &str) -> Result<()> {
    if queue.trim().is_empty() {
        return Err(Error::invalid("queue", format!("queue must not be blank, got {queue:?}")));
    }
    Ok(())
}

pub(crate) fn valid_limit(queue: &impl fmt::Display, limit: usize) -> Result<()> {
    if limit == 0 {
        let message =
            format!("limit of queue \"{queue}\" must be at least 1, got 0; to run none of its jobs, pause it");
        return Err(Error::invalid("limit", message));
    }
    Ok(())
}

pub(crate) fn valid_start(queues: &Queues, limit: usize) -> Result<()> {
    match queues {
        Queues::One(_) => valid_limit(queues, limit),
        Queues::All => {
            let message = format!("all queues cannot be started with a limit, got {limit}; name one, or give no limit");
            Err(Error::invalid("queue", message))
        }
    }
}

/// A queue as one live runtime runs it: [`Kiln::check`](crate::Kiln::check).
///
/// ```
/// use kiln::{Kiln, Running};
///
/// let kiln = Kiln::in_memory()?;
/// let runtime = kiln.runtime().queue("media", 4).worker_fn("shrink", |_: &Running<()>| ()).start()?;
/// kiln.pause("media")?;
///
/// let check = kiln.check("media")?.remove(0);
/// assert_eq!(Some(check.runtime.clone()), runtime.id());
/// assert_eq!((check.queue.as_str(), check.limit), ("media", 4));
/// assert!(check.paused() && check.paused_for_all && !check.paused_here);
/// assert!(check.running.is_empty());
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCheck {
    /// The queue's name.
    pub queue: String,
    /// The id of the runtime, as in a job's [`attempted_by`](crate::Job::attempted_by).
    pub runtime: String,
    /// The name of its machine, or what the program called it.
    pub node: String,
    /// How many of the queue's jobs it runs at once, at the most.
    pub limit: usize,
    /// Whether the runtime paused it for itself: [`Runtime::pause`](crate::Runtime::pause).
    pub paused_here: bool,
    /// Whether it is paused for all runtimes on the file: [`Kiln::pause`](crate::Kiln::pause).
    pub paused_for_all: bool,
    /// The ids of the queue's jobs that the runtime executes, in rising order; those it claimed
    /// [ahead](crate::RuntimeBuilder::claim_ahead) as well.
    pub running: Vec<i64>,
    /// Since when the runtime runs the queue.
    pub started_at: Timestamp,
}

impl QueueCheck {
    /// Whether it claims nothing, by whomever it was paused.
    pub fn paused(&self) -> bool {
        self.paused_here || self.paused_for_all
    }
}

/// What is said of queues to all runtimes on the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Pause,
    Resume,
    /// `None` gives each runtime its own limit back.
    Scale(Option<usize>),
    /// With this limit, by every runtime; `None` leaves it to each whether it runs the queue.
    Start(Option<usize>),
    Stop,
}

/// What was said of queues to all runtimes on the file; the later word holds, be it for one queue or for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rulings {
    pub all: Row,
    pub queues: BTreeMap<String, Row>,
}

/// What was said, as far as anything was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
    pub paused: Option<bool>,
    pub limit: Option<usize>,
    /// Grows with every limit that is set on the file.
    pub scaled_at: i64,
    pub run: Option<Run>,
}

/// Who runs a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Run {
    /// Those that mean to.
    #[default]
    Own,
    /// Every runtime; one that has no limit of its own for it, with this.
    Every(usize),
    Nobody,
}

/// What holds for a queue, for all runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub paused: bool,
    pub limit: Option<usize>,
    pub scaled_at: i64,
    pub run: Run,
}

impl Rulings {
    pub fn of(&self, queue: &str) -> Ruling {
        let own = self.queues.get(queue).copied().unwrap_or_default();
        Ruling {
            paused: own.paused.or(self.all.paused).unwrap_or(false),
            limit: own.limit.or(self.all.limit),
            scaled_at: own.scaled_at.max(self.all.scaled_at),
            run: own.run.or(self.all.run).unwrap_or_default(),
        }
    }

    /// Adds to a runtime's plans what every runtime runs, and takes away what it runs for that reason no more.
    pub fn lend(&self, plans: &mut Vec<Plan>) {
        for (queue, row) in &self.queues {
            let Some(Run::Every(limit)) = row.run else { continue };
            match plans.iter_mut().find(|plan| plan.queue == *queue) {
                Some(plan) if plan.lent => plan.limit = limit,
                Some(_) => {}
                None => plans.push(Plan { lent: true, ..Plan::new(queue.clone(), limit) }),
            }
        }
        // What the runtime was told about one stays, should it be started for all again.
        plans.retain(|plan| !plan.is_only_lent() || plan.is_run(&self.of(&plan.queue)));
    }
}

/// A queue as a runtime means to run it, before what was said for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub queue: String,
    /// The limit it was given when it was built or started.
    pub limit: usize,
    pub scaled: Option<Scaled>,
    pub paused: bool,
    /// In microseconds since 1970.
    pub started_at: i64,
    /// It runs the queue only because every runtime does.
    #[serde(default)]
    pub lent: bool,
    /// The runtime was told not to run it.
    #[serde(default)]
    pub stopped: bool,
}

/// A limit that the runtime was given later, and the one for all that it went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scaled {
    pub limit: usize,
    pub over: i64,
}

impl Plan {
    pub fn new(queue: String, limit: usize) -> Self {
        Self { queue, limit, scaled: None, paused: false, started_at: 0, lent: false, stopped: false }
    }

    /// Whether the queue is run at all, paused or not.
    pub fn is_run(&self, ruling: &Ruling) -> bool {
        !self.stopped
            && match ruling.run {
                Run::Own => !self.lent,
                Run::Every(_) => true,
                Run::Nobody => false,
            }
    }

    /// Whether the runtime was told nothing about the queue.
    fn is_only_lent(&self) -> bool {
        self.lent && !self.paused && !self.stopped && self.scaled.is_none()
    }

    /// The limit that holds: the one that was set last.
    pub fn limit(&self, ruling: &Ruling) -> usize {
        match self.scaled {
            Some(scaled) if scaled.over >= ruling.scaled_at => scaled.limit,
            _ => ruling.limit.unwrap_or(self.limit),
        }
    }

    pub fn paused(&self, ruling: &Ruling) -> bool {
        self.paused || ruling.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rulings(all: Row, one: Row) -> Rulings {
        Rulings { all, queues: BTreeMap::from([("q".to_owned(), one)]) }
    }

    #[test]
    fn what_is_said_of_one_queue_goes_before_what_is_said_of_all() {
        let paused = |paused| Row { paused, ..Row::default() };
        for (all, one, expected) in [
            (None, None, false),
            (None, Some(true), true),
            (None, Some(false), false),
            (Some(true), None, true),
            (Some(true), Some(false), false),
            (Some(false), Some(true), true),
        ] {
            let found = rulings(paused(all), paused(one)).of("q").paused;
            assert_eq!(found, expected, "all {all:?}, one {one:?}");
        }
        assert!(rulings(paused(Some(true)), paused(Some(false))).of("other").paused);
    }

    #[test]
    fn the_limit_that_was_set_last_holds() {
        let row = |limit, scaled_at| Row { limit, scaled_at, ..Row::default() };
        let mut plan = Plan::new("q".into(), 4);
        let limit = |plan: &Plan, all, one| plan.limit(&rulings(all, one).of("q"));
        assert_eq!(limit(&plan, row(None, 0), row(None, 0)), 4, "what it was built with");
        assert_eq!(limit(&plan, row(Some(2), 1), row(None, 0)), 2, "for all queues");
        assert_eq!(limit(&plan, row(Some(2), 1), row(Some(3), 2)), 3, "for this one");
        plan.scaled = Some(Scaled { limit: 7, over: 2 });
        assert_eq!(limit(&plan, row(Some(2), 1), row(Some(3), 2)), 7, "for this runtime, later");
        assert_eq!(limit(&plan, row(Some(2), 1), row(Some(3), 3)), 3, "for all runtimes, later still");
        assert_eq!(limit(&plan, row(None, 4), row(None, 0)), 4, "no limit for all any more");
    }

    #[test]
    fn a_queue_is_run_by_those_that_mean_to_unless_it_was_started_or_stopped_for_all() {
        let run = |run| Row { run, ..Row::default() };
        let stopped = Plan { stopped: true, ..Plan::new("q".into(), 4) };
        for (all, one, by_own, by_others) in [
            (None, None, true, false),
            (None, Some(Run::Nobody), false, false),
            (None, Some(Run::Every(3)), true, true),
            (Some(Run::Nobody), None, false, false),
            (Some(Run::Nobody), Some(Run::Own), true, false),
            (Some(Run::Nobody), Some(Run::Every(3)), true, true),
        ] {
            let rulings = rulings(run(all), run(one));
            for (plans, expected) in [(vec![Plan::new("q".into(), 4)], by_own), (vec![], by_others)] {
                let mut lent = plans;
                rulings.lend(&mut lent);
                let is_run = lent.iter().any(|plan| plan.is_run(&rulings.of("q")));
                assert_eq!(is_run, expected, "all {all:?}, one {one:?}");
            }
            assert!(!stopped.is_run(&rulings.of("q")), "all {all:?}, one {one:?}");
        }
    }

    #[test]
    fn what_is_lent_is_given_back_but_for_what_the_runtime_was_told_about_it() {
        let started = |limit| rulings(Row::default(), Row { run: Some(Run::Every(limit)), ..Row::default() });
        let nothing = Rulings::default();
        let mut plans = Vec::new();
        started(3).lend(&mut plans);
        started(5).lend(&mut plans);
        assert_eq!((plans.len(), plans[0].limit), (1, 5));
        nothing.lend(&mut plans);
        assert!(plans.is_empty());

        started(3).lend(&mut plans);
        plans[0].paused = true;
        nothing.lend(&mut plans);
        assert!(!plans[0].is_run(&nothing.of("q")));
        started(2).lend(&mut plans);
        assert!(plans[0].paused && plans[0].is_run(&started(2).of("q")));
    }
}
