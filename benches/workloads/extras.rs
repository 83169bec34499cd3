//! W11: what is paid for what not everybody uses.

use std::path::Path;

use kiln::{Durability, Failure, Kiln, Outcome, Running, Unique, Worker};

use crate::measure::{Bench, Run, Target, Unit, Watch, cpus, rates, turns};
use crate::ours::{self, Mail, Mailer, Tally};

/// A worker that records what it was given.
struct Recorder(Tally);

impl Worker for Recorder {
    const NAME: &'static str = "Recorder";
    type Args = Mail;

    fn process(&self, job: &Running<Mail>) -> Result<Outcome, Failure> {
        self.0.add();
        Ok(Outcome::record(&job.args)?)
    }
}

/// From the start of the runtime until it was stopped after the last job.
fn drain(kiln: &Kiln, jobs: u64) -> Run {
    let done = Tally::new(jobs);
    let count = done.clone();
    let builder =
        kiln.runtime().queue("default", 8).worker(Mailer(move |_| count.add())).worker(Recorder(done.clone()));
    let watch = Watch::start();
    let runtime = builder.start().expect("a runtime");
    done.wait();
    runtime.stop();
    watch.stop(jobs, Vec::new())
}

/// The same in a file of its own.
fn drained(bench: &Bench, open: fn(&Path) -> Kiln, jobs: u64) -> Run {
    let place = bench.fresh();
    ours::filled(&place.file(), jobs);
    drain(&open(&place.file()), jobs)
}

fn plain(path: &Path) -> Kiln {
    ours::builder(path, Durability::Normal).open().expect("a file")
}

fn watched(path: &Path) -> Kiln {
    ours::open(path, Durability::Normal, &Tally::new(0))
}

fn row(bench: &mut Bench, what: &str, with: &[Run], without: &[Run], least: f64) {
    bench.row("W11", what, Unit::Rate, &rates(with), &rates(without), Target::AtLeast(least));
    bench.row("", "  CPU a job", Unit::Micros, &cpus(with), &cpus(without), Target::None);
}

/// Drains jobs that record what they were given, or do not.
pub fn recorded(path: &Path, record: bool, jobs: u64) -> Run {
    let kiln = watched(path);
    let job = |n| if record { Recorder::job(Mail::new(n)) } else { ours::mail(n) };
    ours::fill(&kiln, jobs, job);
    drop(kiln);
    drain(&watched(path), jobs)
}

/// Single enqueues of jobs that are unique, or are not.
pub fn enqueued(path: &Path, durability: Durability, unique: bool, jobs: u64) -> Run {
    let kiln = ours::open(path, durability, &Tally::new(0));
    let job = |n| if unique { ours::mail(n).unique(Unique::new()) } else { ours::mail(n) };
    ours::enqueue_by(&kiln, 1, jobs, job)
}

pub fn all(bench: &mut Bench) {
    let jobs = bench.jobs(40_000);
    let rounds = bench.turns();
    let (with, without) = turns(rounds, || drained(bench, watched, jobs), || drained(bench, plain, jobs));
    row(bench, "drain with events observed, NORMAL", &with, &without, 0.8);

    let recorded = |record: bool| recorded(&bench.fresh().file(), record, jobs);
    let (with, without) = turns(rounds, || recorded(true), || recorded(false));
    row(bench, "drain with recorded results, NORMAL", &with, &without, 0.8);

    let calls = bench.jobs(10_000);
    let levels = [(Durability::Full, calls / 4, "FULL", 0.8), (Durability::Normal, calls, "NORMAL", 0.6)];
    for (durability, calls, level, least) in levels {
        let enqueued = |unique: bool| enqueued(&bench.fresh().file(), durability, unique, calls);
        let (with, without) = turns(rounds, || enqueued(true), || enqueued(false));
        let what = format!("single unique enqueue, {level}");
        row(bench, &what, &with, &without, least);
    }

    #[cfg(feature = "tracing")]
    {
        let traced = |on: bool| {
            let before = tracing_on::spans();
            tracing_on::switch(on);
            let run = drained(bench, watched, jobs);
            tracing_on::switch(false);
            assert_eq!(tracing_on::spans() - before, if on { jobs } else { 0 }, "a span for each job");
            run
        };
        let (with, without) = turns(rounds, || traced(true), || traced(false));
        row(bench, "drain with tracing, NORMAL", &with, &without, 0.8);
    }
    #[cfg(not(feature = "tracing"))]
    if !bench.plain {
        println!("W11       drain with tracing: not compiled in, see cargo bench --features tracing -- W11");
    }
}

/// A subscriber that looks at every field and keeps nothing, as long as it is switched on.
#[cfg(feature = "tracing")]
mod tracing_on {
    use std::fmt::Debug;
    use std::sync::Once;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::subscriber::Interest;
    use tracing::{Event, Metadata, Subscriber};

    static ON: AtomicBool = AtomicBool::new(false);
    static SEEN: AtomicU64 = AtomicU64::new(1);

    pub fn switch(on: bool) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Counts).expect("no other subscriber"));
        ON.store(on, Ordering::Release);
    }

    pub fn spans() -> u64 {
        SEEN.load(Ordering::Relaxed)
    }

    struct Counts;
    struct Fields;

    impl Visit for Fields {
        fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
            std::hint::black_box(value);
        }
    }

    impl Subscriber for Counts {
        fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
            Interest::sometimes()
        }

        fn enabled(&self, _: &Metadata<'_>) -> bool {
            ON.load(Ordering::Relaxed)
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut Fields);
            Id::from_u64(SEEN.fetch_add(1, Ordering::Relaxed))
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            event.record(&mut Fields);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }
}
