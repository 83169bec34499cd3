//! kiln, raw and four other queues on the same rows: `cargo run --release --manifest-path benches/peers/Cargo.toml`
//! builds them all and prints a table in Markdown; `-- --quick` after shorter runs, `-- W1 W4` of these rows.
//!
//! Only equal durability is compared. Each side takes its turn in every round, on a fresh file of the same disk.

#[allow(dead_code)]
#[path = "../../workloads/child.rs"]
mod child;
#[allow(dead_code)]
#[path = "../../machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "../../measure.rs"]
mod measure;
#[allow(dead_code)]
#[path = "../../ours.rs"]
mod ours;
#[allow(dead_code, unused_imports)]
#[path = "../../raw.rs"]
mod raw;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln::Durability;
use measure::{Run, median, place};
use serde_json::Value;

const PEERS: [&str; 4] = ["effectum", "honker", "apalis", "fang"];

/// What a commit has waited for when the call returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Level {
    Full,
    Normal,
}

/// One run's figures, by name.
type Figures = HashMap<&'static str, f64>;

struct Row {
    name: &'static str,
    what: &'static str,
    shown: &'static [(&'static str, &'static str)],
    /// Says nothing where a side cannot take part at this level.
    run: fn(&Runner, &str, Level) -> Option<Figures>,
    rounds: usize,
}

struct Runner {
    here: PathBuf,
    folder: PathBuf,
    quick: bool,
}

fn main() {
    if child::child() {
        return;
    }
    let quick = std::env::args().any(|arg| arg == "--quick");
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = measure::folder();
    std::fs::create_dir_all(&folder).expect("a folder for the files");
    let runner = Runner { here, folder, quick };
    PEERS.iter().for_each(|peer| runner.build(peer));
    machine::describe(&runner.folder);
    let rows = [
        Row { name: "W1", what: "single enqueue, 1 thread", shown: &[("rate", "")], run: single, rounds: 3 },
        Row { name: "W2", what: "single enqueue, 8 threads", shown: &[("rate", "")], run: eight, rounds: 3 },
        Row { name: "W3", what: "enqueue by 1000", shown: &[("rate", "")], run: many, rounds: 3 },
        Row { name: "W4", what: "drain, 8 at once", shown: &[("rate", "")], run: drain, rounds: 3 },
        Row {
            name: "W5",
            what: "500/s, enqueue to start",
            shown: &[("50", "50 %"), ("99", "99 %")],
            run: steady,
            rounds: 3,
        },
        Row {
            name: "W6",
            what: "50/s, across processes",
            shown: &[("50", "50 %"), ("99", "99 %")],
            run: across,
            rounds: 1,
        },
        Row { name: "W8", what: "idle, 10 s", shown: &[("cpu", "CPU"), ("rss", "memory")], run: idle, rounds: 1 },
    ];
    println!("\n| | sync | kiln | raw | effectum | honker | apalis-sqlite | fang |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for row in rows.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|name| name == row.name)) {
        for (level, sync) in [(Level::Full, "FULL"), (Level::Normal, "NORMAL")] {
            row_at(&runner, row, level, sync);
        }
    }
}

fn row_at(runner: &Runner, row: &Row, level: Level, sync: &str) {
    let sides = ["kiln", "raw"].into_iter().chain(PEERS).collect::<Vec<_>>();
    let mut found: HashMap<&str, Vec<Figures>> = HashMap::new();
    for _ in 0..if runner.quick { 1 } else { row.rounds } {
        for side in &sides {
            if let Some(figures) = (row.run)(runner, side, level) {
                found.entry(side).or_default().push(figures);
            }
        }
    }
    for (figure, label) in row.shown {
        let cells = sides.iter().map(|side| {
            let values: Vec<f64> =
                found.get(side).into_iter().flatten().filter_map(|run| run.get(figure)).copied().collect();
            if values.is_empty() { "-".to_owned() } else { show(figure, median(&values)) }
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        let what = if label.is_empty() { row.what.to_owned() } else { format!("{}, {label}", row.what) };
        println!("| {} {what} | {sync} | {cells} |", row.name);
    }
}

fn show(figure: &str, value: f64) -> String {
    match figure {
        "rate" if value >= 100_000.0 => format!("{:.0}k/s", value / 1000.0),
        "rate" => format!("{:.1}k/s", value / 1000.0),
        "cpu" => format!("{value:.3} s"),
        "rss" => format!("{value:.1} MB"),
        _ if value >= 1_000_000.0 => format!("{:.1} s", value / 1_000_000.0),
        _ if value >= 1000.0 => format!("{:.2} ms", value / 1000.0),
        _ => format!("{value:.0} µs"),
    }
}

impl Runner {
    fn target(&self) -> PathBuf {
        self.here.join("target/peers")
    }

    fn build(&self, peer: &str) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--quiet", "--manifest-path"]).arg(self.here.join(peer).join("Cargo.toml"));
        let done = build.arg("--target-dir").arg(self.target()).spawn().and_then(|mut child| child.wait());
        assert!(done.expect("cargo").success(), "{peer} cannot be built");
    }

    fn peer(&self, peer: &str, file: &Path, words: &[String]) -> Command {
        let mut command = Command::new(self.target().join("release").join(format!("peer-{peer}")));
        command.args(words).arg("--db").arg(file).stderr(Stdio::null());
        command
    }

    /// Runs a peer; says nothing where it does not take part.
    fn told(&self, peer: &str, level: Level, workload: &str, jobs: u64, more: &[(&str, u64)]) -> Option<Figures> {
        let place = place(&self.folder);
        let words = words(peer, level, workload, jobs, more)?;
        let output = self.peer(peer, &place.file(), &words).output().expect("a peer");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some(told) = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok()) else {
            eprintln!("{peer} {words:?}: no figures, {}", output.status);
            return None;
        };
        // What was begun twice, or never, is said where it was seen.
        if let Some(twice) = told["twice"].as_u64().filter(|twice| *twice > 0) {
            eprintln!("{peer} {words:?}: {twice} jobs were begun twice");
        }
        let names = [("rate", "per_sec"), ("50", "p50_us"), ("99", "p99_us"), ("cpu", "idle_cpu_s"), ("rss", "rss_mb")];
        Some(names.into_iter().filter_map(|(name, theirs)| Some((name, told[theirs].as_f64()?))).collect())
    }

    fn jobs(&self, jobs: u64) -> u64 {
        if self.quick { jobs / 4 } else { jobs }
    }
}

/// How a peer is told to run at this level, if it can.
fn words(peer: &str, level: Level, workload: &str, jobs: u64, more: &[(&str, u64)]) -> Option<Vec<String>> {
    let mut words = vec![workload.to_owned(), "--n".into(), jobs.to_string()];
    let mut say = |name: &str, value: &str| words.extend([format!("--{name}"), value.to_owned()]);
    match (peer, level) {
        // It means WAL, but the pragma it says is none: the file is put in WAL beforehand.
        ("effectum", Level::Normal) => say("journal", "wal"),
        ("honker" | "apalis", Level::Normal) => say("sync", "NORMAL"),
        ("honker" | "apalis", Level::Full) => say("sync", "FULL"),
        ("fang", Level::Full) => {
            say("journal", "wal");
            say("sleep", "10");
        }
        _ => return None,
    }
    for (name, value) in more {
        say(name, &value.to_string());
    }
    Some(words)
}

fn durability(level: Level) -> Durability {
    if level == Level::Full { Durability::Full } else { Durability::Normal }
}

fn sync(level: Level) -> raw::Sync {
    if level == Level::Full { raw::Sync::Full } else { raw::Sync::Normal }
}

fn rate(run: &Run) -> Option<Figures> {
    Some(HashMap::from([("rate", run.rate)]))
}

fn latency(run: &Run) -> Option<Figures> {
    Some(HashMap::from([("50", run.part(0.5)), ("99", run.part(0.99))]))
}

fn single(runner: &Runner, side: &str, level: Level) -> Option<Figures> {
    let jobs = runner.jobs(if level == Level::Full { 4_000 } else { 20_000 });
    let place = place(&runner.folder);
    match side {
        "kiln" => rate(&ours::enqueue(&place.file(), durability(level), 1, jobs)),
        "raw" => rate(&raw::enqueue(&place.file(), sync(level), jobs)),
        peer => runner.told(peer, level, "enqueue_one", jobs.min(8_000), &[]),
    }
}

fn eight(runner: &Runner, side: &str, level: Level) -> Option<Figures> {
    let jobs = runner.jobs(if level == Level::Full { 16_000 } else { 40_000 });
    let place = place(&runner.folder);
    let how = raw::Group::WriterThread;
    match side {
        "kiln" => rate(&ours::enqueue(&place.file(), durability(level), 8, jobs)),
        "raw" => rate(&raw::enqueue_shared(&place.file(), sync(level), how, 8, jobs)),
        peer => runner.told(peer, level, "enqueue_one_mt", jobs.min(8_000), &[("threads", 8)]),
    }
}

fn many(runner: &Runner, side: &str, level: Level) -> Option<Figures> {
    let jobs = runner.jobs(100_000);
    let place = place(&runner.folder);
    match side {
        "kiln" => rate(&ours::enqueue_many(&place.file(), durability(level), jobs)),
        "raw" => rate(&raw::enqueue_many(&place.file(), sync(level), raw::Many::Loop, jobs)),
        // It has no such call.
        "fang" => None,
        peer => runner.told(peer, level, "enqueue_batch", jobs, &[]),
    }
}

fn drain(runner: &Runner, side: &str, level: Level) -> Option<Figures> {
    let jobs = runner.jobs(100_000);
    let place = place(&runner.folder);
    match side {
        // At FULL acks are synced by the others, so kiln is told to sync them as well.
        "kiln" => {
            let strict = if level == Level::Full { Durability::Strict } else { Durability::Normal };
            ours::filled(&place.file(), jobs);
            rate(&ours::drain(&place.file(), ours::Drain::new(strict, 8), jobs))
        }
        "raw" => {
            raw::filled(&place.file(), jobs);
            rate(&raw::drain(&place.file(), raw::Drain::prefetching(sync(level)), jobs))
        }
        peer => {
            let jobs = if peer == "honker" { jobs } else { runner.jobs(8_000) };
            runner.told(peer, level, "drain", jobs, &[("conc", 8), ("limit", 30)])
        }
    }
}

fn steady(runner: &Runner, side: &str, level: Level) -> Option<Figures> {
    let seconds = if runner.quick { 2 } else { 4 };
    let place = place(&runner.folder);
    match side {
        "kiln" => latency(&ours::steady(&place.file(), durability(level), 500, 500 * seconds)),
        "raw" => latency(&raw::steady(&place.file(), sync(level), 500, 500 * seconds)),
        peer => runner.told(peer, level, "steady", 0, &[("secs", seconds), ("rate", 500)]),
    }
}

fn across(runner: &Runner, side: &str, level: Level) -> Option<Figures> {
    let jobs = if runner.quick { 100 } else { 300 };
    let place = place(&runner.folder);
    let normal = level == Level::Normal;
    match side {
        "kiln" => return latency(&child::kiln_to_another(&place.file(), normal, 50, jobs)),
        "raw" => return latency(&child::raw_to_another(&place.file(), normal, 50, jobs)),
        // It wakes no other process.
        "effectum" => return None,
        _ => {}
    }
    let (begun, called) = (place.folder().join("begun"), place.folder().join("called"));
    let at = |workload: &str, out: &Path| {
        let mut words = words(side, level, workload, jobs, &[("rate", 50)])?;
        words.extend(["--out".into(), out.display().to_string()]);
        Some(runner.peer(side, &place.file(), &words))
    };
    let mut works = at("steady_worker", &begun)?.stdout(Stdio::piped()).spawn().expect("a peer");
    let mut ready = String::new();
    let _ = BufReader::new(works.stdout.take().expect("its output")).read_line(&mut ready);
    at("steady_enq", &called)?.stdout(Stdio::null()).spawn().and_then(|mut child| child.wait()).expect("a peer");
    works.wait().expect("a peer");
    let read = |path: &Path| -> HashMap<u64, u64> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let pair = |line: &str| line.split_once(' ').and_then(|(n, at)| Some((n.parse().ok()?, at.parse().ok()?)));
        text.lines().filter_map(pair).filter(|(_, at)| *at != 0).collect()
    };
    let (begun, called) = (read(&begun), read(&called));
    let waits = called.iter().filter_map(|(n, called)| Some(begun.get(n)?.saturating_sub(*called) as f64 / 1000.0));
    let waits: Vec<f64> = waits.collect();
    if waits.is_empty() { None } else { latency(&Run::of(waits)) }
}

fn idle(runner: &Runner, side: &str, level: Level) -> Option<Figures> {
    let place = place(&runner.folder);
    let normal = level == Level::Normal;
    let used = match side {
        "kiln" => child::Other::start("kiln idles", &place.file(), 4, normal).used(),
        "raw" => child::Other::start("raw idles", &place.file(), 0, normal).used(),
        peer => return runner.told(peer, level, "idle", 0, &[("secs", 10)]),
    };
    Some(HashMap::from([("cpu", used.cpu_seconds), ("rss", used.resident_mb)]))
}
