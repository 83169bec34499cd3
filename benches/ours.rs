//! The work of the rows, done by kiln as a program would: typed arguments, an observer, everything as it is by default
//! but the durability.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use kiln::{Durability, Event, Failure, Kiln, KilnBuilder, NewJob, Outcome, Running, Worker};
use serde::{Deserialize, Serialize};

use crate::measure::{Run, Stamps, Watch, micros, pace};

/// What each job is given.
#[derive(Serialize, Deserialize)]
pub struct Mail {
    pub to: String,
    pub n: u64,
}

impl Mail {
    pub fn new(n: u64) -> Mail {
        Mail { to: "user@example.com".into(), n }
    }
}

/// The worker: what it does with a job's number is up to the row.
pub struct Mailer<F>(pub F);

impl<F: Fn(u64) + Send + Sync + 'static> Worker for Mailer<F> {
    const NAME: &'static str = "Mailer";
    type Args = Mail;

    fn process(&self, job: &Running<Mail>) -> Result<Outcome, Failure> {
        (self.0)(job.args.n);
        Ok(Outcome::Complete)
    }
}

pub fn mail(n: u64) -> NewJob {
    Mailer::<fn(u64)>::job(Mail::new(n))
}

/// Counts what it is told of, and wakes who waits for it.
#[derive(Clone)]
pub struct Tally(Arc<Counted>);

struct Counted {
    count: AtomicU64,
    wanted: u64,
    waiter: Thread,
}

impl Tally {
    pub fn new(wanted: u64) -> Tally {
        Tally(Arc::new(Counted { count: AtomicU64::new(0), wanted, waiter: thread::current() }))
    }

    pub fn add(&self) {
        if self.0.count.fetch_add(1, Ordering::Release) + 1 == self.0.wanted {
            self.0.waiter.unpark();
        }
    }

    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until all that is wanted is there.
    pub fn wait(&self) {
        const TOO_LONG: Duration = Duration::from_secs(120);
        let begun = Instant::now();
        while self.count() < self.0.wanted {
            thread::park_timeout(Duration::from_secs(1));
            assert!(begun.elapsed() < TOO_LONG, "{} of {} jobs within {TOO_LONG:?}", self.count(), self.0.wanted);
        }
    }
}

pub fn builder(path: &Path, durability: Durability) -> KilnBuilder {
    Kiln::builder(path).durability(durability)
}

/// A handle with one cheap observer, which counts the acks.
pub fn open(path: &Path, durability: Durability, acked: &Tally) -> Kiln {
    let acked = acked.clone();
    let observer = move |event: &Event| {
        if let Event::Acked { .. } = event {
            acked.add();
        }
    };
    builder(path, durability).observe(observer).open().expect("a new file")
}

/// Single enqueues by so many threads.
pub fn enqueue(path: &Path, durability: Durability, threads: u64, jobs: u64) -> Run {
    let kiln = open(path, durability, &Tally::new(0));
    let job = |n| mail(n);
    enqueue_by(&kiln, threads, jobs, job)
}

pub fn enqueue_by(kiln: &Kiln, threads: u64, jobs: u64, job: impl Fn(u64) -> NewJob + Sync) -> Run {
    let each = jobs / threads;
    let watch = Watch::start();
    let work = |thread: u64| {
        let numbers = thread * each..(thread + 1) * each;
        let call = |n| {
            let begun = Instant::now();
            kiln.enqueue(job(n)).expect("an enqueue");
            micros(begun.elapsed())
        };
        numbers.map(call).collect::<Vec<f64>>()
    };
    let micros = match threads {
        1 => work(0),
        _ => thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a producer")).collect()
        }),
    };
    watch.stop(each * threads, micros)
}

/// Enqueues of a thousand.
pub fn enqueue_many(path: &Path, durability: Durability, jobs: u64) -> Run {
    let kiln = open(path, durability, &Tally::new(0));
    let watch = Watch::start();
    fill(&kiln, jobs, mail);
    watch.stop(jobs, Vec::new())
}

pub fn fill(kiln: &Kiln, jobs: u64, job: impl Fn(u64) -> NewJob) {
    for from in (0..jobs).step_by(1000) {
        kiln.enqueue_many((from..jobs.min(from + 1000)).map(&job)).expect("an enqueue of many");
    }
}

/// How a drain is run.
#[derive(Clone, Copy)]
pub struct Drain {
    pub durability: Durability,
    pub limit: usize,
    /// `None` leaves it at its default.
    pub ahead: Option<Duration>,
}

impl Drain {
    pub fn new(durability: Durability, limit: usize) -> Drain {
        Drain { durability, limit, ahead: None }
    }

    pub fn not_ahead(self) -> Drain {
        Drain { ahead: Some(Duration::ZERO), ..self }
    }
}

/// From the start of the runtime until so many acks were written, of jobs that are there.
pub fn drain(path: &Path, how: Drain, jobs: u64) -> Run {
    let acked = Tally::new(jobs);
    let kiln = open(path, how.durability, &acked);
    let mut builder = kiln.runtime().queue("default", how.limit).worker(Mailer(|_| {}));
    if let Some(ahead) = how.ahead {
        builder = builder.claim_ahead(ahead);
    }
    let watch = Watch::start();
    let runtime = builder.start().expect("a runtime");
    acked.wait();
    let run = watch.stop(jobs, Vec::new());
    runtime.stop();
    run
}

/// Fills a file and closes it, so that what follows begins with no log to check in.
pub fn filled(path: &Path, jobs: u64) {
    let kiln = builder(path, Durability::Normal).open().expect("a new file");
    fill(&kiln, jobs, mail);
}

/// From the call of each enqueue to the start of its handler, in one process.
pub fn steady(path: &Path, durability: Durability, rate: u64, jobs: u64) -> Run {
    let kiln = open(path, durability, &Tally::new(0));
    let stamps = Stamps::new(jobs);
    let begins = Arc::clone(&stamps);
    let worker = Mailer(move |n| begins.begin(n));
    let runtime = kiln.runtime().queue("default", 8).worker(worker).start().expect("a runtime");
    thread::sleep(Duration::from_millis(100));
    pace(rate, jobs, |n| {
        stamps.call(n);
        kiln.enqueue(mail(n)).expect("an enqueue");
    });
    let run = stamps.run();
    runtime.stop();
    run
}
