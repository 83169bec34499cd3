//! Processes that a row starts: this program again, told what to do by its environment.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use kiln::Durability;

use crate::figures::number;
use crate::machine::{self, Used};
use crate::measure::{Run, pace, wall};
use crate::ours::{self, Drain, Mailer, Tally};
use crate::raw::{self, Sync};

const WHAT: &str = "KILN_BENCH_CHILD";
const FILE: &str = "KILN_BENCH_CHILD_FILE";
const NUMBER: &str = "KILN_BENCH_CHILD_NUMBER";
const NORMAL: &str = "KILN_BENCH_CHILD_NORMAL";

/// A process that works on a file.
pub struct Other {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Other {
    pub fn start(what: &str, file: &Path, number: u64, normal: bool) -> Other {
        let mut command = Command::new(std::env::current_exe().expect("a path of its own"));
        command.env(WHAT, what).env(FILE, file).env(NUMBER, number.to_string());
        if normal {
            command.env(NORMAL, "1");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a process");
        let out = child.stdout.take().expect("its output");
        Other { child, lines: BufReader::new(out).lines() }
    }

    pub fn line(&mut self) -> String {
        self.lines.next().expect("a line of the other process").expect("text")
    }

    pub fn used(&mut self) -> Used {
        machine::told(&self.line())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the call of each enqueue here to the start of its handler in another process.
pub fn kiln_to_another(file: &Path, normal: bool, rate: u64, jobs: u64) -> Run {
    let durability = if normal { Durability::Normal } else { Durability::Full };
    let kiln = ours::open(file, durability, &Tally::new(0));
    let mut other = Other::start("kiln works", file, jobs, normal);
    other.line();
    let mut called = Vec::new();
    pace(rate, jobs, |n| {
        called.push(wall());
        kiln.enqueue(ours::mail(n)).expect("an enqueue");
    });
    waits(&mut other, &called)
}

pub fn raw_to_another(file: &Path, normal: bool, rate: u64, jobs: u64) -> Run {
    let sync = if normal { Sync::Normal } else { Sync::Full };
    let mut other = Other::start("raw works", file, jobs, normal);
    let port = other.line().parse().expect("a port");
    let mut called = Vec::new();
    raw::enqueue_for_another(file, sync, port, rate, jobs, |_| called.push(wall()));
    waits(&mut other, &called)
}

fn waits(other: &mut Other, called: &[u64]) -> Run {
    let begun = called.iter().map(|_| other.line().parse::<u64>().expect("a time")).collect::<Vec<_>>();
    let nanos = called.iter().zip(begun).map(|(called, begun)| begun.saturating_sub(*called));
    Run::of(nanos.map(|nanos| nanos as f64 / 1000.0).collect())
}

/// In a process that a row started: does what it is asked to, and says that it was.
pub fn child() -> bool {
    let Some(what) = std::env::var_os(WHAT) else { return false };
    let file = PathBuf::from(std::env::var_os(FILE).expect("a file"));
    let count = number(&std::env::var(NUMBER).expect("a number")) as u64;
    let normal = std::env::var_os(NORMAL).is_some();
    let durability = if normal { Durability::Normal } else { Durability::Full };
    let sync = if normal { Sync::Normal } else { Sync::Full };
    match what.to_str() {
        Some("kiln works") => {
            let (begun, all) = begins(count);
            let kiln = ours::open(&file, durability, &Tally::new(0));
            let worker = Mailer(begun);
            let runtime = kiln.runtime().queue("default", 8).worker(worker).start().expect("a runtime");
            println!("ready");
            all.tell();
            runtime.stop();
        }
        Some("raw works") => {
            let (begun, all) = begins(count);
            let engine = raw::work_for_another(&file, sync, begun, |port| println!("{port}"));
            all.tell();
            drop(engine);
        }
        Some("kiln idles") => {
            let kiln = ours::open(&file, durability, &Tally::new(0));
            let queues = (0..count).map(|n| format!("queue-{n}"));
            let builder = queues.fold(kiln.runtime(), |builder, queue| builder.queue(queue, 2));
            let runtime = builder.worker(Mailer(|_| {})).start().expect("a runtime");
            idle();
            runtime.stop();
        }
        Some("raw idles") => {
            let engine = raw::Engine::start(&file, sync, |_| {});
            idle();
            drop(engine);
        }
        Some("kiln drains") => {
            ours::drain(&file, Drain::new(durability, 8), count);
            machine::tell(&machine::used());
        }
        what => panic!("no child does {what:?}"),
    }
    true
}

/// When each job began, by the time of day.
struct Begins(Arc<Vec<AtomicU64>>, Tally);

fn begins(count: u64) -> (impl Fn(u64) + Send + std::marker::Sync + 'static, Begins) {
    let times: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
    let begun = Tally::new(count);
    let all = Begins(Arc::clone(&times), begun.clone());
    let begin = move |n: u64| {
        times[n as usize].store(wall(), Ordering::Release);
        begun.add();
    };
    (begin, all)
}

impl Begins {
    fn tell(self) {
        self.1.wait();
        self.0.iter().for_each(|time| println!("{}", time.load(Ordering::Acquire)));
    }
}

/// Tells what ten seconds of nothing cost.
fn idle() {
    thread::sleep(Duration::from_secs(2));
    let before = machine::used();
    thread::sleep(Duration::from_secs(10));
    let after = machine::used();
    machine::tell(&Used {
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        writes: after.writes - before.writes,
        ..after
    });
}
