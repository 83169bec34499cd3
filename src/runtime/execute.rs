//! One attempt: decode, run, and turn what came of it into an ack.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Around;
use super::house::{House, Settled};
use super::lane::{Lane, Task};
use super::panics::catch;
use crate::Job;
use crate::event::Event;
use crate::job::{End, backoff};
use crate::worker::{Control, Entry, Reason, Reporter};
use crate::{Failure, Outcome, observing};

/// The life of a worker thread.
pub(super) fn live(house: Arc<House>, lane: &Lane) {
    let sent_away = work(&house, lane);
    // Whoever waits for the threads wants the database closed when they are gone.
    drop(house);
    if sent_away {
        lane.left();
    }
}

/// Says whether the lane has sent the thread away; otherwise another has its place.
fn work(house: &Arc<House>, lane: &Lane) -> bool {
    let mut next = lane.next();
    while let Some(task) = next {
        let began = Instant::now();
        let (end, run_time) = execute(house, &task);
        let ended = Instant::now();
        let Some(Settled { hurry, .. }) = house.settle(task.fence, end, run_time, ended) else {
            house.unstuck();
            return false;
        };
        drop(task);
        next = lane.done(ended - began, ended, hurry);
        if next.is_some() {
            house.waits();
        } else {
            house.engine().turn();
            next = lane.next();
        }
    }
    true
}

/// How it ended, and how long `process` took where that was begun.
fn execute(house: &Arc<House>, task: &Task) -> (End, Option<Duration>) {
    match house.workers.get(&task.job.worker) {
        // Cancelled or stopped before it began: it is as if it had never been claimed.
        _ if task.flag.is_raised() => (End::Interrupted, None),
        Some(worker) => run(house, task, &**worker),
        None => (End::Interrupted, None),
    }
}

fn run(house: &Arc<House>, task: &Task, worker: &dyn Entry) -> (End, Option<Duration>) {
    let job = house.kiln.own_shared(&task.job);
    let timeout = match catch(|| worker.timeout(&job)) {
        Ok(timeout) => timeout,
        Err(panic) => return (End::Failed(format!("timeout {panic}"), delay(house, worker, &job)), None),
    };
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let reporter = Arc::new(Reporter::new(house.kiln.clone(), Arc::clone(&job), task.fence));
    let control = Control {
        fence: task.fence,
        flag: Arc::clone(&task.flag),
        deadline,
        kiln: house.kiln.clone(),
        reporter: Arc::clone(&reporter),
        desk: house.clone(),
        rowless: false,
    };
    house.begin(task.fence, deadline);
    let queue_time = job.queue_time();
    house.observers().tell(|| Event::Claimed { job: (&*job).into(), queue_time });
    let began = Instant::now();
    let result = catch(|| {
        let process = || worker.process(&job, &control);
        observing::in_span(&job, || around(&house.hooks, &job, &process)).map_err(|failure| failure.to_string())
    });
    reporter.write();
    let run_time = began.elapsed();
    house.observers().tell(|| Event::Executed {
        job: (&*job).into(),
        queue_time,
        run_time,
        error: match &result {
            Ok(Ok(_)) => None,
            Ok(Err(error)) | Err(error) => Some(job.shown(error).into_owned()),
        },
    });
    let failed = |error| End::Failed(error, delay(house, worker, &job));
    let end = match (result, task.flag.reason()) {
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

/// How long to wait after this failure. A backoff that panics is none.
pub(super) fn delay(house: &House, worker: &dyn Entry, job: &Job) -> Duration {
    let own = catch(|| worker.backoff(job)).ok().flatten();
    own.unwrap_or_else(|| backoff::default_delay(job.attempt, job.max_attempts, house.kiln.dice().draw()))
}
