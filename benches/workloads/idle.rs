//! W8 and W10: what a runtime costs that has nothing to do, and what queues cost each other.

use std::thread;
use std::time::Duration;

use kiln::{Durability, Event, Failure, Kiln, NewJob, Outcome, Running, Worker};

use super::child::Other;
use crate::machine::Used;
use crate::measure::{Bench, Run, Target, Unit, Watch, rates, turns};
use crate::ours::{self, Mailer, Tally};

/// What ten seconds of nothing cost, at the same time. Found once, for two rows.
fn idle(bench: &mut Bench) -> Vec<[Used; 3]> {
    if bench.idle.is_empty() {
        let rounds = if bench.full { 5 } else { 1 };
        let once = |_| {
            let places = [bench.fresh(), bench.fresh(), bench.fresh()];
            let start = |what, at: usize, queues| Other::start(what, &places[at].file(), queues, false);
            let (mut four, mut hundred) = (start("kiln idles", 0, 4), start("kiln idles", 1, 100));
            let mut raw = start("raw idles", 2, 0);
            [four.used(), hundred.used(), raw.used()]
        };
        bench.idle = (0..rounds).map(once).collect();
    }
    bench.idle.clone()
}

pub fn nothing_to_do(bench: &mut Bench) {
    let found = idle(bench);
    let ours = |f: fn(&Used) -> f64| found.iter().map(|[four, ..]| f(four)).collect::<Vec<_>>();
    let raws = |f: fn(&Used) -> f64| found.iter().map(|[.., raw]| f(raw)).collect::<Vec<_>>();
    let mut row = |what, unit, figure: fn(&Used) -> f64, most| {
        bench.row("W8", what, unit, &ours(figure), &raws(figure), Target::Within(most));
    };
    row("idle, four queues: CPU in 10 s", Unit::CpuSeconds, |used| used.cpu_seconds, 0.005);
    row("idle, four queues: memory", Unit::Megabytes, |used| used.resident_mb, 8.0);
    row("idle, four queues: writes in 10 s", Unit::Calls, |used| used.writes as f64, 0.0);
}

/// A worker that takes its time.
struct Sleeper;

impl Worker for Sleeper {
    const NAME: &'static str = "Sleeper";
    const QUEUE: &'static str = "slow";
    type Args = ();

    fn process(&self, _: &Running<()>) -> Result<Outcome, Failure> {
        thread::sleep(Duration::from_millis(20));
        Ok(Outcome::Complete)
    }
}

pub fn queues_beside(bench: &mut Bench) {
    let jobs = bench.jobs(40_000);
    let (beside, alone) = turns(bench.turns(), || fast(bench, jobs, true), || fast(bench, jobs, false));
    let what = "fast queue beside a slow one, NORMAL";
    bench.row("W10", what, Unit::Rate, &rates(&beside), &rates(&alone), Target::AtLeast(0.9));

    let found = idle(bench);
    let figures = |f: fn(&Used) -> f64| -> (Vec<f64>, Vec<f64>) {
        found.iter().map(|[four, hundred, _]| (f(hundred), f(four))).unzip()
    };
    let (cpu, memory) = (figures(|used| used.cpu_seconds), figures(|used| used.resident_mb));
    bench.row("W10", "idle, 100 queues against 4: CPU in 10 s", Unit::CpuSeconds, &cpu.0, &cpu.1, Target::AtMost(2.0));
    bench.row("", "  memory", Unit::Megabytes, &memory.0, &memory.1, Target::None);
}

/// Drains the fast queue.
fn fast(bench: &Bench, jobs: u64, beside: bool) -> Run {
    let place = bench.fresh();
    ours::filled(&place.file(), jobs);
    let acked = Tally::new(jobs);
    let count = acked.clone();
    let observer = move |event: &Event| match event {
        Event::Acked { job, .. } if job.queue == "default" => count.add(),
        _ => {}
    };
    let kiln: Kiln = ours::builder(&place.file(), Durability::Normal).observe(observer).open().expect("a file");
    let mut builder = kiln.runtime().queue("default", 8).worker(Mailer(|_| {}));
    if beside {
        let slow = (0..1000).map(|_| Sleeper::job(()));
        kiln.enqueue_many(slow.collect::<Vec<NewJob>>()).expect("an enqueue of many");
        builder = builder.queue("slow", 4).worker(Sleeper);
    }
    let watch = Watch::start();
    let runtime = builder.start().expect("a runtime");
    acked.wait();
    let run = watch.stop(jobs, Vec::new());
    runtime.stop();
    run
}
