//! What the figures were taken on, and what a process has cost so far. Read from /proc: nothing is known elsewhere.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use crate::figures::{median, number};

/// Prints the machine's facts.
pub fn describe(folder: &Path) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let kind = file_system(folder);
    println!("machine  {cores} cores, {}", cpu.trim_start_matches([' ', '\t', ':']));
    println!("kernel   {}, load {}", read("/proc/sys/kernel/osrelease").trim(), read("/proc/loadavg").trim());
    println!("sqlite   {}", rusqlite::version());
    println!("files    on {kind}, fdatasync of 4 KiB {:.0} µs in place", sync_cost(folder));
    if kind == "tmpfs" || kind == "ramfs" {
        println!("         A SYNC COSTS NOTHING THERE: set KILN_BENCH_DIR to a folder on a disk");
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The type of the file system that holds the folder.
fn file_system(folder: &Path) -> String {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mounts = read("/proc/self/mountinfo");
    let held = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        folder.starts_with(point).then(|| (point.len(), right.split(' ').next().unwrap_or_default().to_owned()))
    });
    // Of two mounts on one point the later one is seen.
    held.enumerate().max_by_key(|(at, (length, _))| (*length, *at)).map_or("unknown".into(), |(_, (_, kind))| kind)
}

fn sync_cost(folder: &Path) -> f64 {
    let path = folder.join("sync");
    let mut file = File::create(&path).expect("a file in the bench folder");
    let block = [7; 4096];
    file.write_all(&block).and_then(|()| file.sync_all()).expect("a write to the bench folder");
    let costs = (0..200).map(|_| {
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&block)).expect("a write to the bench folder");
        let begun = Instant::now();
        file.sync_data().expect("a sync in the bench folder");
        begun.elapsed().as_secs_f64() * 1e6
    });
    let cost = median(&costs.collect::<Vec<_>>());
    let _ = fs::remove_file(&path);
    cost
}

/// What all threads have used, those that have ended included, to a hundredth of a second.
pub fn cpu_seconds() -> f64 {
    let text = read("/proc/self/stat");
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).map(number);
    ticks.sum::<f64>() / 100.0
}

/// What this process has used, by all threads that live.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub cpu_seconds: f64,
    /// Calls that wrote, to files of any kind.
    pub writes: u64,
    pub resident_mb: f64,
    pub highest_mb: f64,
}

pub fn used() -> Used {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    let cpu_seconds = nanos.sum::<f64>() / 1e9;
    let memory = read("/proc/self/status");
    let kb = |name| field(&memory, name) as f64 / 1024.0;
    Used {
        cpu_seconds,
        writes: field(&read("/proc/self/io"), "syscw:"),
        resident_mb: kb("VmRSS:"),
        highest_mb: kb("VmHWM:"),
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Prints what was used, for the process that started this one.
pub fn tell(used: &Used) {
    let Used { cpu_seconds, writes, resident_mb, highest_mb } = used;
    println!("{cpu_seconds} {writes} {resident_mb} {highest_mb}");
}

pub fn told(line: &str) -> Used {
    let mut words = line.split_whitespace().map(number);
    let mut next = || words.next().expect("a child tells four numbers");
    Used { cpu_seconds: next(), writes: next() as u64, resident_mb: next(), highest_mb: next() }
}
