//! Turns, medians, and the table.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::figures::median;
use crate::machine::{Used, cpu_seconds};

/// One run of one side.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Jobs a second.
    pub rate: f64,
    /// Of all threads, in microseconds a job.
    pub cpu: f64,
    /// Of each call or job, in microseconds, in order of size.
    pub micros: Vec<f64>,
}

/// Times a run.
pub struct Watch {
    begun: Instant,
    cpu_seconds: f64,
}

impl Watch {
    pub fn start() -> Watch {
        Watch { cpu_seconds: cpu_seconds(), begun: Instant::now() }
    }

    pub fn stop(self, jobs: u64, mut micros: Vec<f64>) -> Run {
        let took = self.begun.elapsed().as_secs_f64();
        let cpu = (cpu_seconds() - self.cpu_seconds) * 1e6 / jobs as f64;
        micros.sort_by(f64::total_cmp);
        Run { rate: jobs as f64 / took, cpu, micros }
    }
}

impl Run {
    /// For a run of which only the latencies count.
    pub fn of(mut micros: Vec<f64>) -> Run {
        micros.sort_by(f64::total_cmp);
        Run { micros, ..Run::default() }
    }

    /// The latency that this part of the calls stayed within.
    pub fn part(&self, part: f64) -> f64 {
        let at = (self.micros.len() as f64 * part) as usize;
        self.micros.get(at.min(self.micros.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }
}

/// When each job was enqueued and when its handler began, by its number, in nanoseconds since the first look.
pub struct Stamps {
    base: Instant,
    called: Vec<AtomicU64>,
    begun: Vec<AtomicU64>,
}

impl Stamps {
    pub fn new(jobs: u64) -> Arc<Stamps> {
        let zeros = || (0..jobs).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Stamps { base: Instant::now(), called: zeros(), begun: zeros() })
    }

    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    pub fn call(&self, n: u64) {
        self.called[n as usize].store(self.now(), Ordering::Relaxed);
    }

    pub fn begin(&self, n: u64) {
        self.begun[n as usize].store(self.now(), Ordering::Release);
    }

    /// The time between the two, once all have begun.
    pub fn run(&self) -> Run {
        let until = Instant::now() + Duration::from_secs(20);
        let missing = || self.begun.iter().any(|begun| begun.load(Ordering::Acquire) == 0);
        while missing() {
            assert!(Instant::now() < until, "jobs that never began");
            thread::sleep(Duration::from_millis(2));
        }
        let pairs = self.called.iter().zip(&self.begun);
        let nanos = |stamp: &AtomicU64| stamp.load(Ordering::Relaxed) as f64;
        Run::of(pairs.map(|(called, begun)| (nanos(begun) - nanos(called)) / 1000.0).collect())
    }
}

/// Calls so often a second, whether the last call was quick or slow.
pub fn pace(rate: u64, jobs: u64, mut call: impl FnMut(u64)) {
    let begun = Instant::now();
    for n in 0..jobs {
        let due = begun + Duration::from_nanos(1_000_000_000 / rate * n);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        call(n);
    }
}

/// The time of day in nanoseconds, to be compared between processes.
#[expect(clippy::disallowed_methods, reason = "there is no handle to ask here")]
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_nanos() as u64
}

pub fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// How many turns each side takes.
#[derive(Clone, Copy)]
pub struct Turns {
    most: usize,
    /// After three turns there is no other once this is over.
    slice: Duration,
    /// Only the first side takes any.
    first_alone: bool,
}

/// Runs both sides in turns, each first in every second round.
pub fn turns<A, B>(turns: Turns, mut a: impl FnMut() -> A, mut b: impl FnMut() -> B) -> (Vec<A>, Vec<B>) {
    const LEAST: usize = 3;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for round in 0..turns.most {
        if round >= LEAST && begun.elapsed() > turns.slice {
            break;
        }
        if turns.first_alone {
            first.push(a());
        } else if round % 2 == 0 {
            first.push(a());
            second.push(b());
        } else {
            second.push(b());
            first.push(a());
        }
    }
    (first, second)
}

pub fn rates(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| run.rate).collect()
}

pub fn cpus(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| run.cpu).collect()
}

pub fn parts(runs: &[Run], part: f64) -> Vec<f64> {
    runs.iter().map(|run| run.part(part)).collect()
}

/// What a row is judged by.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// The ratio is at least this.
    AtLeast(f64),
    /// The ratio is at most this.
    AtMost(f64),
    /// Kiln's own figure is at most this.
    Within(f64),
    /// For orientation.
    None,
}

#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Rate,
    Micros,
    Seconds,
    CpuSeconds,
    Megabytes,
    Calls,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Rate if value >= 1000.0 => {
                let thousands = value / 1000.0;
                if thousands >= 100.0 { format!("{thousands:.0}k/s") } else { format!("{thousands:.1}k/s") }
            }
            Unit::Rate => format!("{value:.0}/s"),
            Unit::Micros if value >= 1000.0 => format!("{:.2} ms", value / 1000.0),
            Unit::Micros if value < 20.0 => format!("{value:.1} µs"),
            Unit::Micros => format!("{value:.0} µs"),
            Unit::Seconds => format!("{value:.3} s"),
            Unit::CpuSeconds => format!("{value:.4} s"),
            Unit::Megabytes => format!("{value:.1} MB"),
            Unit::Calls => format!("{value:.0}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Rate => "jobs/s",
            Unit::Micros => "us",
            Unit::Seconds => "s",
            Unit::CpuSeconds => "CPU s",
            Unit::Megabytes => "MB",
            Unit::Calls => "calls",
        }
    }

    /// Without the unit, but for what it is scaled by.
    fn bare(self, value: f64) -> String {
        let shown = self.show(value);
        shown.trim_end_matches("/s").trim_end_matches(" s").trim_end_matches(" MB").replace(' ', "")
    }

    fn show_all(self, values: &[f64]) -> String {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match values.len() {
            0 => "-".into(),
            1 => self.show(values[0]),
            _ => format!("{} ({}–{})", self.show(median(values)), self.bare(least), self.bare(most)),
        }
    }
}

/// The harness: where the files go, how long runs are, and what came of the rows.
pub struct Bench {
    pub full: bool,
    /// Kiln alone, for another program to read.
    pub plain: bool,
    /// The last row that was not a part of the one before.
    row: String,
    rounds: Option<usize>,
    folder: PathBuf,
    begun: Instant,
    judged: usize,
    missed: Vec<String>,
    /// What idling cost a runtime of four queues, one of a hundred, and raw.
    pub idle: Vec<[Used; 3]>,
}

/// Where the files go: KILN_BENCH_DIR, or cargo's folder for such.
pub fn folder() -> PathBuf {
    let told = std::env::var_os("KILN_BENCH_DIR").map(PathBuf::from);
    told.or_else(|| option_env!("CARGO_TARGET_TMPDIR").map(PathBuf::from)).unwrap_or_else(|| "target/tmp".into())
}

impl Bench {
    pub fn new(full: bool, plain: bool, rounds: Option<usize>) -> Bench {
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot use {}: {error}", folder.display()));
        Bench {
            full,
            plain,
            row: String::new(),
            rounds,
            folder,
            begun: Instant::now(),
            judged: 0,
            missed: Vec::new(),
            idle: Vec::new(),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder of its own for one run, gone when it is dropped.
    pub fn fresh(&self) -> Place {
        place(&self.folder)
    }

    /// How many turns each side takes: quick is a few seconds for both.
    pub fn turns(&self) -> Turns {
        let (most, slice) = match self.rounds {
            Some(most) => (most, Duration::MAX),
            None if self.full => (15, Duration::MAX),
            None => (9, Duration::from_millis(3500)),
        };
        Turns { most, slice, first_alone: self.plain }
    }

    /// How many jobs a run has.
    pub fn jobs(&self, quick: u64) -> u64 {
        if self.full { quick * 4 } else { quick }
    }

    pub fn head(&self) {
        println!(
            "\n{:<9} {:<46} {:<30} {:<30} {:<18} {:<10} met",
            "row", "", "kiln: median (least–most)", "raw, or kiln without", "ratio", "target"
        );
    }

    /// One line: both sides' figures, turn by turn.
    pub fn row(&mut self, name: &str, what: &str, unit: Unit, ours: &[f64], theirs: &[f64], target: Target) {
        if self.plain {
            return self.plain_row(name, what, unit, ours, target);
        }
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let ratio = median(&ratios);
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (wanted, met) = match target {
            Target::AtLeast(bound) => (format!("≥ {bound:.2}"), Some(ratio >= bound)),
            Target::AtMost(bound) => (format!("≤ {bound:.2}"), Some(ratio <= bound)),
            Target::Within(bound) => (format!("≤ {}", unit.show(bound)), Some(median(ours) <= bound)),
            Target::None => (String::new(), None),
        };
        let ratio = match ratios.len() {
            _ if !ratio.is_finite() => "-".into(),
            0 => String::new(),
            1 => format!("{ratio:.2}"),
            _ => format!("{ratio:.2} ({least:.2}–{most:.2})"),
        };
        let told = match met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        println!(
            "{name:<9} {what:<46} {:<30} {:<30} {ratio:<18} {wanted:<10} {told}",
            unit.show_all(ours),
            unit.show_all(theirs)
        );
        self.judged += usize::from(met.is_some());
        if met == Some(false) {
            self.missed.push(format!("{name} {what}"));
        }
    }

    /// Kiln's figure by itself. What only names raw differently is the figure of the row before.
    fn plain_row(&mut self, name: &str, what: &str, unit: Unit, ours: &[f64], target: Target) {
        let part = what.trim_start();
        if part.starts_with("raw:") || ours.is_empty() {
            return;
        }
        let part = part.split(", raw:").next().unwrap_or(part);
        let is_part = name.is_empty() || what.starts_with(' ');
        let full_name = if is_part { format!("{}: {part}", self.row) } else { format!("{name} {part}") };
        let least = match target {
            // A look at what is close to nothing: its ratio says little.
            Target::Within(bound) if !is_part => {
                // What little time an idle process takes depends most on who else uses the processor.
                (bound / if matches!(unit, Unit::CpuSeconds) { 5.0 } else { 10.0 }).to_string()
            }
            _ if is_part => "-".into(),
            _ => "0".into(),
        };
        println!("{full_name}\t{}\t{}\t{least}", median(ours), unit.name());
        if !is_part {
            self.row = full_name;
        }
    }

    pub fn foot(&self) {
        let met = self.judged - self.missed.len();
        println!("\n{met} of {} targets met, in {:.0} s", self.judged, self.begun.elapsed().as_secs_f64());
        self.missed.iter().for_each(|missed| println!("missed: {missed}"));
    }
}

/// A folder of one run.
pub struct Place(TempDir);

pub fn place(folder: &Path) -> Place {
    Place(tempfile::Builder::new().prefix("kiln-bench-").tempdir_in(folder).expect("a folder in the bench folder"))
}

impl Place {
    pub fn file(&self) -> PathBuf {
        self.0.path().join("jobs.db")
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}
