//! One attempt: decode, run, and turn what came of it into an ack.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::attempts::Begun;
use super::settings::Around;
use super::shared::Shared;
use crate::event::{Event, in_span};
use crate::guard::catch;
use crate::job::{End, Failure, Job, Outcome};
use crate::life::{Inbox, Task};
use crate::presence::Window;
use crate::worker::{Control, Entry, Flag, Reason, Reporter};

/// The life of a worker thread.
pub(super) fn live(shared: Arc<Shared>, inbox: Arc<Inbox>) {
    let leaves = work(&shared, &inbox);
    // A thread that waits for the others wants the database closed when they are gone.
    drop(shared);
    if leaves {
        inbox.left();
    }
}

/// Executes jobs until the thread is to leave; `false` if the thread was written off, so that another has its place.
fn work(shared: &Arc<Shared>, inbox: &Arc<Inbox>) -> bool {
    let mut next = inbox.next();
    while let Some(task) = next {
        let (fence, began) = (task.fence(), Instant::now());
        let (end, run_time) = execute(shared, inbox, task);
        let ended = Instant::now();
        let Some(hurry) = shared.end(fence, end, run_time, ended) else {
            shared.unstick();
            return false;
        };
        next = inbox.done(fence.id, ended - began, ended, hurry);
        if next.is_some() {
            shared.mailbox.waits();
        } else {
            shared.turn();
            next = inbox.next();
        }
    }
    true
}

/// Says how the attempt ended, and how long `process` took if it was called.
fn execute(shared: &Arc<Shared>, inbox: &Arc<Inbox>, task: Task) -> (End, Option<Duration>) {
    let job = shared.kiln.own_shared(&task.job);
    let flag = Arc::new(Flag::default());
    let worker = shared.workers.get(&job.worker).cloned();
    let timeout = match worker.as_deref().map(|worker| catch(|| worker.timeout(&job))) {
        Some(Ok(timeout)) => Ok(timeout),
        Some(Err(panic)) => Err(panic),
        None => Ok(None),
    };
    let deadline = timeout.as_ref().ok().copied().flatten().and_then(|timeout| Instant::now().checked_add(timeout));
    let fence = task.fence();
    let Task { attempt, job: claimed, listed, place } = task;
    let window = Window::new(listed, shared.settings.crash_window, place, Instant::now());
    let window = Arc::new(Mutex::new(window));
    let (window_of_job, flag_of_job) = (Arc::clone(&window), Arc::clone(&flag));
    let inbox = Arc::clone(inbox);
    shared.begin(Begun {
        attempt,
        job: claimed,
        inbox,
        flag: flag_of_job,
        window: window_of_job,
        deadline,
        timed_out: false,
    });
    let worker = match (worker, timeout) {
        // Cancelled or stopped before it began: it is as if it had never been claimed.
        _ if matches!(flag.reason(), Some(Reason::Cancel | Reason::Stop)) => return (End::Interrupted, None),
        (None, _) => return (End::Interrupted, None),
        (Some(worker), Err(panic)) => {
            return (End::Failed(format!("timeout {panic}"), shared.delay(&*worker, &job)), None);
        }
        (Some(worker), Ok(timeout)) => (worker, timeout),
    };
    let (worker, timeout) = worker;
    let reporter = Arc::new(Reporter::new(shared.kiln.clone(), Arc::clone(&job), fence));
    let control = Control {
        fence,
        flag,
        deadline,
        kiln: shared.kiln.clone(),
        reporter,
        reports: shared.clone(),
        window: Some(window),
        rowless: false,
    };
    run(shared, &job, &*worker, &control, timeout)
}

/// Calls the worker, within the hooks.
fn run(
    shared: &Shared,
    job: &Arc<Job>,
    worker: &dyn Entry,
    control: &Control,
    timeout: Option<Duration>,
) -> (End, Option<Duration>) {
    let queue_time = job.queue_time();
    shared.observers().tell(|| Event::Claimed { job: (&**job).into(), queue_time });
    let began = Instant::now();
    let result = catch(|| {
        let process = || worker.process(job, control);
        in_span(job, || around(&shared.hooks, job, &process)).map_err(|failure| failure.to_string())
    });
    control.reporter.write();
    let run_time = began.elapsed();
    shared.observers().tell(|| Event::Executed {
        job: (&**job).into(),
        queue_time,
        run_time,
        error: match &result {
            Ok(Ok(_)) => None,
            Ok(Err(error)) | Err(error) => Some(job.shown(error).into_owned()),
        },
    });
    let failed = |error| End::Failed(error, shared.delay(worker, job));
    let end = match (result, control.flag.reason()) {
        (Err(panic), _) => failed(panic),
        // Told to leave, it left: whatever it says of itself, it was not done.
        (Ok(Err(_) | Ok(Outcome::Cancel { .. })), Some(Reason::Stop)) => End::Interrupted,
        (Ok(Err(error)), Some(Reason::Timeout)) => failed(timed_out(timeout, &error)),
        (Ok(Ok(Outcome::Cancel { reason })), Some(Reason::Timeout)) => failed(timed_out(timeout, &reason)),
        (Ok(Err(error)), _) => failed(error),
        (Ok(Ok(outcome)), _) => End::Outcome(outcome),
    };
    (end, Some(run_time))
}

/// Runs a job within its hooks, the first outermost.
fn around(hooks: &[Around], job: &Job, process: &dyn Fn() -> Result<Outcome, Failure>) -> Result<Outcome, Failure> {
    match hooks.split_first() {
        Some((hook, inner)) => hook(job, &|| around(inner, job, process)),
        None => process(),
    }
}

fn timed_out(timeout: Option<Duration>, said: &str) -> String {
    format!("timed out after {:?}: {said}", timeout.unwrap_or_default())
}
