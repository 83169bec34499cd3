//! The house at work: start, stop, and what runs in between.

mod alarm;
mod builder;
mod control;
mod crew;
mod cron;
mod execute;
mod house;
mod keepers;
mod lane;
mod listing;
mod pace;
mod panics;
mod pending;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::engine::Member;
use crate::error::Kind;
use crate::queues::Plan;
use crate::worker::Registry;
use crate::{CronEntry, Error, Kiln, Result};
pub use builder::RuntimeBuilder;
use builder::{Around, Settings};
#[cfg(feature = "testing")]
pub(crate) use cron::Crons;
use house::House;
use keepers::Keepers;
#[cfg(feature = "testing")]
pub(crate) use panics::catch;

/// How long a job that was asked to leave by a stop has for it, once the grace is over.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a stop tries to write the last acks.
const FLUSH: Duration = Duration::from_secs(30);

/// A wait past the end of the clock.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Workers at work on a file's jobs: one scheduler thread, and for each queue as many threads as its limit.
///
/// Several runtimes, in one or in several processes, may share a file. Dropping a runtime stops it without grace;
/// [`stop`](Self::stop) does it well.
///
/// ```
/// use kiln::{Kiln, NewJob, Running};
///
/// let kiln = Kiln::in_memory()?;
/// let runtime = kiln.runtime().worker_fn("greet", |_: &Running<()>| println!("Hello!")).start()?;
/// kiln.enqueue(NewJob::new("greet"))?;
/// let report = runtime.stop();
/// assert_eq!((report.cut, report.unwritten), (0, 0));
/// # Ok::<(), kiln::Error>(())
/// ```
pub struct Runtime {
    kiln: Kiln,
    plans: Arc<Mutex<Vec<Plan>>>,
    house: Mutex<Weak<House>>,
    workers: Registry,
    hooks: Vec<Around>,
    settings: Settings,
    crons: Vec<CronEntry>,
    phase: Mutex<Phase>,
    /// Rung when it was started or stopped.
    changed: Condvar,
}

enum Phase {
    Stopped(Report),
    Started(Started),
    /// It is being started or stopped, without a lock: observers are told things meanwhile, and may want the same.
    Changing(Change),
}

struct Change {
    /// Whoever does it, and whom it may wait for: these are not to wait for the end of it.
    by: ThreadId,
    scheduler: Option<ThreadId>,
    /// Whether it is stopped already, or the grace it is to be stopped with as soon as it has started.
    stop: Option<Duration>,
}

struct Started {
    house: Arc<House>,
    scheduler: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
}

/// What a [stop](Runtime::stop) came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Jobs that were running, and ended by themselves.
    pub finished: usize,
    /// Jobs that were claimed but had not begun, and were given back.
    pub returned: usize,
    /// Jobs that still ran after the grace and the flag, and were given back. Their threads are on their own; whatever
    /// they still do to the job is void.
    pub cut: usize,
    /// Acks that could not be written: these jobs will be rescued and run again.
    pub unwritten: usize,
}

impl Runtime {
    /// Starts the runtime; nothing happens when it runs already. It may be started again after a stop.
    ///
    /// # Errors
    ///
    /// When the runtime cannot make itself known on the file, or no thread can be made; and for an observer of a stop, told
    /// on the thread that stops it.
    pub fn start(&self) -> Result<()> {
        let mut phase = self.phase();
        match &*phase {
            Phase::Started(_) | Phase::Changing(Change { stop: None, .. }) => return Ok(()),
            Phase::Changing(_) => {
                let message = "the runtime is being stopped: start it when that has returned";
                return Err(Error::new(Kind::Runtime, message));
            }
            Phase::Stopped(_) => {}
        }
        let here = thread::current().id();
        let before = std::mem::replace(&mut *phase, Phase::Changing(Change { by: here, scheduler: None, stop: None }));
        drop(phase);
        let (after, result) = match self.begin() {
            Ok(started) => (Phase::Started(started), Ok(())),
            Err(error) => (before, Err(error)),
        };
        let mut phase = self.phase.lock();
        let changing = std::mem::replace(&mut *phase, after);
        drop(phase);
        self.changed.notify_all();
        if let Phase::Changing(Change { stop: Some(grace), .. }) = changing {
            self.stop_within(grace);
        }
        result
    }

    /// The phase, once nobody is about to change it but the calling thread, or one that may wait for it.
    fn phase(&self) -> MutexGuard<'_, Phase> {
        let here = thread::current().id();
        let mut phase = self.phase.lock();
        while let Phase::Changing(Change { by, scheduler, .. }) = &*phase
            && *by != here
            && *scheduler != Some(here)
        {
            self.changed.wait(&mut phase);
        }
        phase
    }

    fn begin(&self) -> Result<Started> {
        let member = Member {
            id: self.kiln.dice().name(),
            node: self.kiln.node().to_owned(),
            workers: self.workers.names(),
            started_at: self.kiln.clock().now(),
            max_crashes: self.settings.max_crashes,
            solitude: !self.settings.solitude.is_zero(),
            damaged: Arc::default(),
        };
        let id = member.id.clone();
        let engine = self.kiln.engine();
        let house = House::new(
            self.kiln.clone(),
            member,
            self.settings,
            self.workers.clone(),
            self.hooks.clone(),
            Arc::clone(&self.plans),
        );
        self.add_crons()?;
        *self.house.lock() = Arc::downgrade(&house);
        engine.join(&house.member, house.clone())?;
        house.list_in(engine.ledger(&id));
        house.first_look();
        let stopping = Arc::new(AtomicBool::new(false));
        let scheduler = thread::Builder::new().name("kiln-scheduler".into()).spawn({
            let keepers = Keepers::new(Arc::clone(&house), self.cron_keeper());
            let stopping = Arc::clone(&stopping);
            move || keepers.run(&stopping)
        });
        match scheduler {
            Ok(scheduler) => {
                engine.turn();
                Ok(Started { house, scheduler, stopping })
            }
            Err(error) => {
                let _ = engine.retire(&id);
                engine.leave(&id);
                Err(Error::new(Kind::Runtime, "cannot start the scheduler thread").because(error))
            }
        }
    }

    /// The id of the runtime that runs now, as in a job's [`attempted_by`](crate::Job::attempted_by).
    pub fn id(&self) -> Option<String> {
        self.house.lock().upgrade().map(|house| house.member.id.clone())
    }

    /// Stops: claims nothing more, lets running jobs go on for the [grace](RuntimeBuilder::grace), then asks them to
    /// leave, and a second later gives back what still runs. Every ack of a finished job is written before it returns.
    ///
    /// A runtime that does not run is stopped already: the report is the last one. An observer may stop the runtime that it
    /// is told of; told by a stop, on the thread that stops it, it gets an empty report.
    pub fn stop(&self) -> Report {
        self.stop_within(self.settings.grace)
    }

    /// [`stop`](Self::stop) with another grace.
    pub fn stop_within(&self, grace: Duration) -> Report {
        let mut phase = self.phase();
        let scheduler = match &mut *phase {
            Phase::Stopped(report) => return *report,
            Phase::Changing(change) => {
                change.stop.get_or_insert(grace);
                return Report::default();
            }
            Phase::Started(started) => started.scheduler.thread().id(),
        };
        let change = Change { by: thread::current().id(), scheduler: Some(scheduler), stop: Some(grace) };
        let started = std::mem::replace(&mut *phase, Phase::Changing(change));
        drop(phase);
        *self.house.lock() = Weak::new();
        let report = match started {
            Phase::Started(started) => started.stop(grace),
            Phase::Stopped(_) | Phase::Changing(_) => Report::default(),
        };
        *self.phase.lock() = Phase::Stopped(report);
        self.changed.notify_all();
        report
    }
}

impl Started {
    fn stop(self, grace: Duration) -> Report {
        let house = &self.house;
        let id = &house.member.id;
        let soon = |wait: Duration| Instant::now().checked_add(wait).unwrap_or_else(|| Instant::now() + FOR_EVER);
        house.stop_claiming();
        let running = house.wait_for_runs(Instant::now());
        // Where even this cannot be written, the runtime's row is left for those who will rescue its jobs.
        let _ = house.engine().retire(id);
        let returned = house.give_back_ready();
        // A claim that was under way may have come in meanwhile.
        let running = running.max(returned + house.wait_for_runs(Instant::now()));
        house.engine().turn();
        if house.wait_for_runs(soon(grace)) > 0 {
            house.ask_to_leave();
            house.wait_for_runs(soon(LAST_CALL));
        }
        let cut = house.give_back_running();
        house.lanes.read().iter().for_each(|lane| drop(lane.close()));
        let until = soon(FLUSH);
        loop {
            house.hurry();
            house.engine().turn();
            if house.unwritten() == 0 || Instant::now() >= until {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.stopping.store(true, Ordering::Release);
        house.alarm.ring();
        if self.scheduler.thread().id() != thread::current().id() {
            let _ = self.scheduler.join();
        }
        let until = soon(LAST_CALL);
        let lanes = house.lanes.read().clone();
        lanes.iter().for_each(|lane| lane.wait_for_threads(0, until));
        house.engine().leave(id);
        // What could not be written is left with a runtime that is gone: others will rescue it.
        let unwritten = house.unwritten();
        Report { finished: running.saturating_sub(returned + cut), returned, cut, unwritten }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop_within(Duration::ZERO);
    }
}
