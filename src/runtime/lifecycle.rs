//! A runtime: start, stop, and what runs in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::cron::Crons;
use super::scheduler::Scheduler;
use super::settings::{Around, Settings};
use super::shared::Shared;
use crate::error::{Error, Kind, Result};
use crate::job::{CronEntry, QueuePlan};
use crate::kiln::Kiln;
use crate::life::{Mailbox, Member};
use crate::presence::Rules;
use crate::worker::Registry;

/// How long a job that was asked to leave by a stop has for it, once the grace is over.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a stop tries to write the last acks.
const FLUSH: Duration = Duration::from_secs(30);

/// How many jobs of dead runtimes a start rescues in one transaction.
const RESCUE_BATCH: u32 = 500;

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
    pub(super) kiln: Kiln,
    pub(super) plans: Arc<Mutex<Vec<QueuePlan>>>,
    /// What its threads share while it runs.
    pub(super) shared: Mutex<Weak<Shared>>,
    workers: Registry,
    hooks: Vec<Around>,
    settings: Settings,
    pub(super) crons: Vec<CronEntry>,
    phase: Mutex<Phase>,
    /// Notified when the runtime was started or stopped.
    changed: Condvar,
}

enum Phase {
    Stopped(Report),
    Started(Started),
    /// It is being started or stopped, without a lock: observers are told things meanwhile, and may want the same.
    Changing(Change),
}

struct Change {
    /// The thread that starts or stops the runtime. It must not wait for its own change.
    by: ThreadId,
    /// The scheduler's thread, for which the change may wait. So it must not wait for the change either.
    scheduler: Option<ThreadId>,
    /// Whether it is stopped already, or the grace it is to be stopped with as soon as it has started.
    stop: Option<Duration>,
}

struct Started {
    shared: Arc<Shared>,
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
    pub(super) fn new(
        kiln: Kiln,
        plans: Arc<Mutex<Vec<QueuePlan>>>,
        workers: Registry,
        hooks: Vec<Around>,
        settings: Settings,
        crons: Vec<CronEntry>,
    ) -> Self {
        Self {
            kiln,
            plans,
            shared: Mutex::default(),
            workers,
            hooks,
            settings,
            crons,
            phase: Mutex::new(Phase::Stopped(Report::default())),
            changed: Condvar::new(),
        }
    }

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
        self.add_crons()?;
        let shared = self.join()?;
        *self.shared.lock() = Arc::downgrade(&shared);
        // Rescue comes before the first claim.
        let _ = self.kiln.rescue(RESCUE_BATCH);
        let stopping = Arc::new(AtomicBool::new(false));
        let scheduler = thread::Builder::new().name("kiln-scheduler".into()).spawn({
            let scheduler = Scheduler::new(Arc::clone(&shared), self.crons_to_fire());
            let stopping = Arc::clone(&stopping);
            move || scheduler.run(&stopping)
        });
        match scheduler {
            Ok(scheduler) => {
                shared.turn();
                Ok(Started { shared, scheduler, stopping })
            }
            Err(error) => {
                // What was begun is undone as a stop does it.
                wind_down(&shared, Duration::ZERO);
                self.kiln.life().leave(&shared.mailbox.runtime.id);
                Err(Error::new(Kind::Runtime, "cannot start the scheduler thread").because(error))
            }
        }
    }

    fn add_crons(&self) -> Result<()> {
        if !self.crons.is_empty() {
            self.kiln.add_crons(self.crons.clone())?;
        }
        Ok(())
    }

    fn crons_to_fire(&self) -> Crons {
        let reboots = self.crons.iter().filter(|entry| entry.is_reboot() && self.kiln.boots(&entry.name));
        Crons::new(&self.kiln, reboots.map(|entry| entry.name.clone()).collect())
    }

    /// Makes the runtime known on the file: from now on turns claim jobs for it.
    fn join(&self) -> Result<Arc<Shared>> {
        let id = self.kiln.dice().name();
        let rules = Rules { max_crashes: self.settings.max_crashes, window: self.settings.crash_window };
        let sidecar = self.kiln.life().enter(&id, rules)?;
        let member = Member {
            id,
            node: self.kiln.node().to_owned(),
            workers: self.workers.names(),
            started_at: self.kiln.clock().now(),
            damaged: Arc::default(),
        };
        let Settings { max_stuck, claim_ahead, .. } = self.settings;
        let clock = self.kiln.clock().clone();
        let mailbox = Mailbox::new(member, clock, sidecar, Arc::clone(&self.plans), max_stuck, claim_ahead);
        mailbox.arrange();
        self.kiln.life().join(&mailbox)?;
        let (workers, hooks) = (self.workers.clone(), self.hooks.clone());
        Ok(Shared::new(self.kiln.clone(), mailbox, self.settings, workers, hooks))
    }

    /// The id of the runtime that runs now, as in a job's [`attempted_by`](crate::Job::attempted_by).
    pub fn id(&self) -> Option<String> {
        self.shared.lock().upgrade().map(|shared| shared.mailbox.runtime.id.clone())
    }

    /// Stops: claims nothing more, lets running jobs go on for the [grace](crate::RuntimeBuilder::grace), then asks them to
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
        *self.shared.lock() = Weak::new();
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
        let Self { shared, scheduler, stopping } = self;
        let report = wind_down(&shared, grace);
        stopping.store(true, Ordering::Release);
        shared.mailbox.alarm.ring(|_| ());
        if scheduler.thread().id() != thread::current().id() {
            let _ = scheduler.join();
        }
        let until = soon(LAST_CALL);
        shared.mailbox.inboxes().iter().for_each(|inbox| inbox.wait_for_threads(until));
        shared.kiln.life().leave(&shared.mailbox.runtime.id);
        // What could not be written is left with a runtime that is gone: others will rescue it.
        Report { unwritten: shared.mailbox.unwritten(), ..report }
    }
}

/// So long from now, or as good as for ever.
fn soon(wait: Duration) -> Instant {
    Instant::now().checked_add(wait).unwrap_or_else(|| Instant::now() + FOR_EVER)
}

/// Claims nothing more, lets running jobs end within `grace`, gives back the others, and writes all acks.
fn wind_down(shared: &Shared, grace: Duration) -> Report {
    let mailbox = &shared.mailbox;
    mailbox.stop_claiming();
    let running = mailbox.executing();
    // If even this cannot be written, the runtime's row is left for those who will rescue its jobs.
    let _ = shared.kiln.life().retire(&mailbox.runtime.id);
    let returned = mailbox.release_ready();
    // A claim that was under way may have come in meanwhile.
    let running = running.max(mailbox.executing());
    shared.turn();
    if mailbox.wait_for_jobs(soon(grace)) > 0 {
        shared.attempts.ask_to_leave();
        mailbox.wait_for_jobs(soon(LAST_CALL));
    }
    let cut = shared.give_back_running();
    for inbox in mailbox.inboxes() {
        mailbox.release(inbox.close());
    }
    let until = soon(FLUSH);
    loop {
        mailbox.outbox.lock().hurry();
        shared.turn();
        if mailbox.unwritten() == 0 || Instant::now() >= until {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Report { finished: running.saturating_sub(cut), returned, cut, unwritten: mailbox.unwritten() }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop_within(Duration::ZERO);
    }
}
