//! What must, or must not, have been enqueued.

use std::fmt;

use serde_json::Value;

use crate::job::{Filter, Job, State};
use crate::kiln::Kiln;

/// Which jobs [`assert_enqueued!`](crate::assert_enqueued) and [`refute_enqueued!`](crate::refute_enqueued) look for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The worker's name.
    pub worker: Option<String>,
    /// The queue.
    pub queue: Option<String>,
    /// Entries that the arguments have, among others.
    pub args: Option<Value>,
    /// Tags that the job has, among others.
    pub tags: Vec<String>,
    /// The priority.
    pub priority: Option<i64>,
    /// The state; otherwise any that waits: available, scheduled, retryable, suspended.
    pub state: Option<State>,
}

/// What was asked for, and nothing else.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = vec![match self.state {
            Some(state) => format!("state={state}"),
            None => "a state that waits".to_owned(),
        }];
        words.extend(self.worker.as_ref().map(|worker| format!("worker={worker}")));
        words.extend(self.queue.as_ref().map(|queue| format!("queue={queue}")));
        words.extend(self.priority.map(|priority| format!("priority={priority}")));
        if !self.tags.is_empty() {
            words.push(format!("tags={:?}", self.tags));
        }
        words.extend(self.args.as_ref().map(|args| format!("args={args}")));
        f.write_str(&words.join(", "))
    }
}

impl Wanted {
    fn fits(&self, job: &Job) -> bool {
        let waits = matches!(job.state, State::Available | State::Scheduled | State::Retryable | State::Suspended);
        self.worker.as_ref().is_none_or(|worker| *worker == job.worker)
            && self.queue.as_ref().is_none_or(|queue| *queue == job.queue)
            && self.args.as_ref().is_none_or(|args| contains(&job.args.value(), args))
            && self.tags.iter().all(|tag| job.tags.contains(&tag.trim().to_lowercase()))
            && self.priority.is_none_or(|priority| priority == job.priority)
            && self.state.map_or(waits, |state| state == job.state)
    }
}

/// Whether all that `part` says is in `whole`.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
        }
        (whole, part) => whole == part,
    }
}

/// The jobs that fit, and all there are, shown.
fn look(kiln: &Kiln, wanted: &Wanted) -> (Vec<Job>, String) {
    let jobs = kiln.list(Filter::new().limit(10_000)).expect("the jobs can be listed");
    // With the whole name, which a job shows shortened.
    let line = |job: &Job| format!("  {job} of {}, priority={}, tags={:?}", job.worker, job.priority, job.tags);
    let lines: Vec<String> = jobs.iter().map(line).collect();
    let shown = if lines.is_empty() { "  no jobs at all".to_owned() } else { lines.join("\n") };
    (jobs.into_iter().filter(|job| wanted.fits(job)).collect(), shown)
}

#[doc(hidden)]
#[track_caller]
pub fn assert_enqueued(kiln: &Kiln, wanted: &Wanted) -> Job {
    let (found, all) = look(kiln, wanted);
    match found.into_iter().next() {
        Some(job) => job,
        None => panic!("no job has {wanted}; there were:\n{all}"),
    }
}

#[doc(hidden)]
#[track_caller]
pub fn refute_enqueued(kiln: &Kiln, wanted: &Wanted) {
    let (found, all) = look(kiln, wanted);
    assert!(found.is_empty(), "{} has {wanted}; there were:\n{all}", found[0]);
}

/// Asserts that a job waits which fits, and gives it back. Panics with what was there instead.
///
/// ```
/// use kiln::{Kiln, NewJob, assert_enqueued};
/// use serde_json::json;
///
/// let kiln = Kiln::in_memory()?;
/// kiln.enqueue(NewJob::new("mailer").args(json!({ "to": "a@b.c", "n": 1 })).queue("mail"))?;
/// let job = assert_enqueued!(kiln, worker: "mailer", queue: "mail", args: json!({ "to": "a@b.c" }));
/// assert_eq!(job.priority, 0);
/// # Ok::<(), kiln::Error>(())
/// ```
#[macro_export]
macro_rules! assert_enqueued {
    ($kiln:expr $(, $field:ident: $value:expr)* $(,)?) => {{
        let mut wanted = $crate::testing::Wanted::default();
        $($crate::wanted!(wanted, $field, $value);)*
        $crate::testing::assert_enqueued(&$kiln, &wanted)
    }};
}

/// Asserts that no job waits which fits. Panics with the one that does.
///
/// ```
/// use kiln::{Kiln, NewJob, refute_enqueued};
///
/// let kiln = Kiln::in_memory()?;
/// kiln.enqueue(NewJob::new("mailer"))?;
/// refute_enqueued!(kiln, worker: "printer");
/// # Ok::<(), kiln::Error>(())
/// ```
#[macro_export]
macro_rules! refute_enqueued {
    ($kiln:expr $(, $field:ident: $value:expr)* $(,)?) => {{
        let mut wanted = $crate::testing::Wanted::default();
        $($crate::wanted!(wanted, $field, $value);)*
        $crate::testing::refute_enqueued(&$kiln, &wanted)
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! wanted {
    ($wanted:ident, worker, $value:expr) => {
        $wanted.worker = Some($value.into())
    };
    ($wanted:ident, queue, $value:expr) => {
        $wanted.queue = Some($value.into())
    };
    ($wanted:ident, args, $value:expr) => {
        $wanted.args = Some($value)
    };
    ($wanted:ident, tags, $value:expr) => {
        $wanted.tags = $value.into_iter().map(|tag| tag.to_string()).collect()
    };
    ($wanted:ident, priority, $value:expr) => {
        $wanted.priority = Some($value)
    };
    ($wanted:ident, state, $value:expr) => {
        $wanted.state = Some($value)
    };
}
