//! Queues: how a runtime means to run them, and what was set for them for all runtimes on the file.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The queues that an operation is meant for: one queue by its name, or all queues.
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
    /// All queues. An operation for all runtimes also covers queues that do not exist yet.
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

    /// Checks that a queue that is named has a name.
    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Queues::One(name) => Error::if_blank("queue", name),
            Queues::All => Ok(()),
        }
    }
}

pub(crate) fn validate_queue_limit(queue: &impl fmt::Display, limit: usize) -> Result<()> {
    if limit > 0 {
        return Ok(());
    }
    let message = format!("limit of queue \"{queue}\" must be at least 1, got 0; to run none of its jobs, pause it");
    Err(Error::invalid("limit", message))
}

pub(crate) fn validate_queue_start(queues: &Queues, limit: usize) -> Result<()> {
    match queues {
        Queues::One(_) => validate_queue_limit(queues, limit),
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
    /// How many of the queue's jobs the runtime runs at once, at most.
    pub limit: usize,
    /// Whether the runtime paused it for itself: [`Runtime::pause`](crate::Runtime::pause).
    pub paused_here: bool,
    /// Whether it is paused for all runtimes on the file: [`Kiln::pause`](crate::Kiln::pause).
    pub paused_for_all: bool,
    /// The ids of the queue's jobs that the runtime executes, in rising order. Jobs that it claimed
    /// [ahead](crate::RuntimeBuilder::claim_ahead) are included.
    pub running: Vec<i64>,
    /// The ids of the queue's available jobs that wait as suspects, in rising order: the process of each of them died twice
    /// in a row soon after the job had begun. A process executes one suspect at a time, see
    /// [`RuntimeBuilder::max_crashes`](crate::RuntimeBuilder::max_crashes). All runtimes of the queue have the same.
    pub suspects: Vec<i64>,
    /// Since when the runtime runs the queue.
    pub started_at: Timestamp,
}

impl QueueCheck {
    /// Whether the runtime claims no job of the queue, because of either pause.
    pub fn paused(&self) -> bool {
        self.paused_here || self.paused_for_all
    }
}

/// What an operator sets for queues, for all runtimes on the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Pause,
    Resume,
    /// `None` gives each runtime its own limit back.
    Scale(Option<usize>),
    /// Every runtime runs the queue, with this limit. With `None`, each runtime decides for itself again.
    Start(Option<usize>),
    Stop,
}

/// What is set for queues, for all runtimes on the file. A setting for one queue goes before the setting for all
/// queues: a later setting for all queues removes the earlier ones for single queues.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueSettings {
    pub all: SettingRow,
    pub queues: BTreeMap<String, SettingRow>,
}

/// What is set for one queue, or for all queues. `None` means that nothing is set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SettingRow {
    pub paused: Option<bool>,
    pub limit: Option<usize>,
    /// A number that grows with every limit that is set on the file.
    pub scaled_at: i64,
    pub run: Option<Run>,
}

/// Which runtimes run a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Run {
    /// The runtimes that were built or started with it.
    #[default]
    Own,
    /// Every runtime. A runtime that has no limit of its own for the queue uses this limit.
    Every(usize),
    Nobody,
}

/// What applies to one queue, for all runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueSetting {
    pub paused: bool,
    pub limit: Option<usize>,
    pub scaled_at: i64,
    pub run: Run,
}

impl QueueSettings {
    /// What applies to this queue.
    pub fn of(&self, queue: &str) -> QueueSetting {
        let own = self.queues.get(queue).copied().unwrap_or_default();
        QueueSetting {
            paused: own.paused.or(self.all.paused).unwrap_or(false),
            limit: own.limit.or(self.all.limit),
            scaled_at: own.scaled_at.max(self.all.scaled_at),
            run: own.run.or(self.all.run).unwrap_or_default(),
        }
    }

    /// Adds the queues that every runtime runs to a runtime's plans, and removes the queues that it ran only for that
    /// reason and that are not run by every runtime any more.
    pub fn apply_to(&self, plans: &mut Vec<QueuePlan>) {
        for (queue, row) in &self.queues {
            let Some(Run::Every(limit)) = row.run else { continue };
            match plans.iter_mut().find(|plan| plan.queue == *queue) {
                Some(plan) if plan.adopted => plan.limit = limit,
                Some(_) => {}
                None => plans.push(QueuePlan { adopted: true, ..QueuePlan::new(queue.clone(), limit) }),
            }
        }
        // A plan that the runtime itself paused, scaled or stopped is kept: the queue may be started for all again.
        plans.retain(|plan| !plan.is_only_adopted() || plan.is_run(&self.of(&plan.queue)));
    }
}

/// How a runtime means to run a queue, before the settings for all runtimes are applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueuePlan {
    pub queue: String,
    /// The limit that the runtime was built or started with.
    pub limit: usize,
    pub scaled: Option<Scaled>,
    pub paused: bool,
    /// In microseconds since 1970.
    pub started_at: i64,
    /// The runtime runs the queue only because every runtime does.
    #[serde(default)]
    pub adopted: bool,
    /// The runtime was told not to run the queue.
    #[serde(default)]
    pub stopped: bool,
}

/// A limit that the runtime was given later. It replaces limits for all runtimes with a `scaled_at` of up to `over`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scaled {
    pub limit: usize,
    pub over: i64,
}

impl QueuePlan {
    pub fn new(queue: String, limit: usize) -> Self {
        Self { queue, limit, scaled: None, paused: false, started_at: 0, adopted: false, stopped: false }
    }

    /// Whether the queue is run at all, paused or not.
    pub fn is_run(&self, setting: &QueueSetting) -> bool {
        !self.stopped
            && match setting.run {
                Run::Own => !self.adopted,
                Run::Every(_) => true,
                Run::Nobody => false,
            }
    }

    /// Whether the runtime itself was told nothing about the queue.
    fn is_only_adopted(&self) -> bool {
        self.adopted && !self.paused && !self.stopped && self.scaled.is_none()
    }

    /// The limit that applies: the one that was set last.
    pub fn limit(&self, setting: &QueueSetting) -> usize {
        match self.scaled {
            Some(scaled) if scaled.over >= setting.scaled_at => scaled.limit,
            _ => setting.limit.unwrap_or(self.limit),
        }
    }

    pub fn paused(&self, setting: &QueueSetting) -> bool {
        self.paused || setting.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(all: SettingRow, one: SettingRow) -> QueueSettings {
        QueueSettings { all, queues: BTreeMap::from([("q".to_owned(), one)]) }
    }

    #[test]
    fn a_setting_for_one_queue_goes_before_the_setting_for_all_queues() {
        let paused = |paused| SettingRow { paused, ..SettingRow::default() };
        for (all, one, expected) in [
            (None, None, false),
            (None, Some(true), true),
            (None, Some(false), false),
            (Some(true), None, true),
            (Some(true), Some(false), false),
            (Some(false), Some(true), true),
        ] {
            let found = settings(paused(all), paused(one)).of("q").paused;
            assert_eq!(found, expected, "all {all:?}, one {one:?}");
        }
        assert!(settings(paused(Some(true)), paused(Some(false))).of("other").paused);
    }

    #[test]
    fn the_limit_that_was_set_last_applies() {
        let row = |limit, scaled_at| SettingRow { limit, scaled_at, ..SettingRow::default() };
        let mut plan = QueuePlan::new("q".into(), 4);
        let limit = |plan: &QueuePlan, all, one| plan.limit(&settings(all, one).of("q"));
        assert_eq!(limit(&plan, row(None, 0), row(None, 0)), 4, "what it was built with");
        assert_eq!(limit(&plan, row(Some(2), 1), row(None, 0)), 2, "for all queues");
        assert_eq!(limit(&plan, row(Some(2), 1), row(Some(3), 2)), 3, "for this one");
        plan.scaled = Some(Scaled { limit: 7, over: 2 });
        assert_eq!(limit(&plan, row(Some(2), 1), row(Some(3), 2)), 7, "for this runtime, later");
        assert_eq!(limit(&plan, row(Some(2), 1), row(Some(3), 3)), 3, "for all runtimes, later still");
        assert_eq!(limit(&plan, row(None, 4), row(None, 0)), 4, "no limit for all any more");
    }

    #[test]
    fn a_queue_is_run_by_the_runtimes_built_with_it_unless_it_was_started_or_stopped_for_all() {
        let run = |run| SettingRow { run, ..SettingRow::default() };
        let stopped = QueuePlan { stopped: true, ..QueuePlan::new("q".into(), 4) };
        for (all, one, by_own, by_others) in [
            (None, None, true, false),
            (None, Some(Run::Nobody), false, false),
            (None, Some(Run::Every(3)), true, true),
            (Some(Run::Nobody), None, false, false),
            (Some(Run::Nobody), Some(Run::Own), true, false),
            (Some(Run::Nobody), Some(Run::Every(3)), true, true),
        ] {
            let settings = settings(run(all), run(one));
            for (plans, expected) in [(vec![QueuePlan::new("q".into(), 4)], by_own), (vec![], by_others)] {
                let mut adopted = plans;
                settings.apply_to(&mut adopted);
                let is_run = adopted.iter().any(|plan| plan.is_run(&settings.of("q")));
                assert_eq!(is_run, expected, "all {all:?}, one {one:?}");
            }
            assert!(!stopped.is_run(&settings.of("q")), "all {all:?}, one {one:?}");
        }
    }

    #[test]
    fn an_adopted_queue_is_given_up_unless_the_runtime_was_told_something_about_it() {
        let started = |limit| {
            settings(SettingRow::default(), SettingRow { run: Some(Run::Every(limit)), ..SettingRow::default() })
        };
        let nothing = QueueSettings::default();
        let mut plans = Vec::new();
        started(3).apply_to(&mut plans);
        started(5).apply_to(&mut plans);
        assert_eq!((plans.len(), plans[0].limit), (1, 5));
        nothing.apply_to(&mut plans);
        assert!(plans.is_empty());

        started(3).apply_to(&mut plans);
        plans[0].paused = true;
        nothing.apply_to(&mut plans);
        assert!(!plans[0].is_run(&nothing.of("q")));
        started(2).apply_to(&mut plans);
        assert!(plans[0].paused && plans[0].is_run(&started(2).of("q")));
    }
}
