//! What durable jobs cost a real program: the checksum example's work over 10,000 small files, against the same work in
//! a plain pool of threads that remembers nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use kiln::{Failure, Filter, Kiln, Outcome, Running, State, Worker};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::measure::{Bench, Target, Unit, turns};

const FILES: usize = 10_000;

/// A tree like a project's: a hundred files a folder, from half a kilobyte to 32, the small ones many.
fn plant(root: &Path) {
    let mut dice = fastrand::Rng::with_seed(7);
    for n in 0..FILES {
        let folder = root.join(format!("{:02}", n / 100));
        fs::create_dir_all(&folder).expect("a folder");
        let size = 512.0 * 2_f64.powf(dice.f64() * 6.0);
        let bytes: Vec<u8> = (0..size as usize).map(|_| dice.u8(..)).collect();
        fs::write(folder.join(format!("file-{n}")), bytes).expect("a file");
    }
}

fn sum(path: &Path, mut go_on: impl FnMut() -> Result<(), Failure>) -> Result<Sum, Failure> {
    let found = fs::symlink_metadata(path)?;
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 128 * 1024];
    loop {
        go_on()?;
        let length = file.read(&mut block)?;
        if length == 0 {
            break;
        }
        hash.update(&block[..length]);
    }
    let after = file.metadata()?;
    if (after.len(), after.modified()?) != (found.len(), found.modified()?) {
        return Err("it changed while it was read".into());
    }
    let mut sha256 = String::new();
    for byte in hash.finalize() {
        let _ = write!(sha256, "{byte:02x}");
    }
    Ok(Sum { sha256, size: after.len() })
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: String,
}

#[derive(Serialize, Deserialize)]
struct Sum {
    sha256: String,
    size: u64,
}

struct Checksum {
    root: PathBuf,
}

impl Worker for Checksum {
    const NAME: &'static str = "checksum";
    type Args = Entry;

    fn process(&self, job: &Running<Entry>) -> Result<Outcome, Failure> {
        let sum = sum(&self.root.join(&job.args.path), || Ok(job.check()?))?;
        Ok(Outcome::record(&sum)?)
    }
}

fn paths(root: &Path) -> impl Iterator<Item = String> {
    let files = WalkDir::new(root).min_depth(1).into_iter().map(|entry| entry.expect("an entry"));
    let files = files.filter(|entry| entry.metadata().expect("metadata").is_file());
    let root = root.to_owned();
    files.map(move |entry| entry.path().strip_prefix(&root).expect("below the root").to_str().expect("text").to_owned())
}

fn write_manifest(folder: &Path, sums: &BTreeMap<String, Sum>) {
    let mut manifest = BufWriter::new(File::create(folder.join("SHA256SUMS")).expect("a manifest"));
    for (path, sum) in sums {
        writeln!(manifest, "{}  {path}", sum.sha256).expect("a line");
    }
    manifest.into_inner().expect("a manifest").sync_all().expect("a sync");
    assert_eq!(sums.len(), FILES);
}

fn threads() -> usize {
    thread::available_parallelism().map_or(4, usize::from)
}

/// As the example does it: enqueue what the walk finds, wait for the last, read what was recorded.
fn by_kiln(bench: &Bench, root: &Path) -> f64 {
    let place = bench.fresh();
    let begun = Instant::now();
    let kiln = Kiln::open(place.file()).expect("a new file");
    let worker = Checksum { root: root.to_owned() };
    let runtime = kiln.runtime().queue("default", threads()).worker(worker).start().expect("a runtime");
    let mut paths = paths(root).peekable();
    while paths.peek().is_some() {
        let jobs = paths.by_ref().take(1000).map(|path| Checksum::job(Entry { path }));
        kiln.enqueue_many(jobs).expect("an enqueue of many");
    }
    let unfinished = Filter::new().states(State::ALL.into_iter().filter(|state| !state.is_finished()));
    while let Some(job) = kiln.list(unfinished.clone().newest_first().limit(1)).expect("a list").pop() {
        kiln.wait(job.id, Duration::MAX).expect("a wait");
    }
    let mut sums = BTreeMap::new();
    let mut page = kiln.list(Filter::new().limit(1000)).expect("a list");
    while let Some(last) = page.last().map(|job| job.id) {
        for job in page {
            let path = job.args.decode::<Entry>().expect("args").path;
            sums.insert(path, job.recorded::<Sum>().expect("a sum").expect("a sum"));
        }
        page = kiln.list(Filter::new().limit(1000).after(last)).expect("a list");
    }
    write_manifest(place.folder(), &sums);
    runtime.stop();
    begun.elapsed().as_secs_f64()
}

fn by_plain_threads(bench: &Bench, root: &Path) -> f64 {
    let place = bench.fresh();
    let begun = Instant::now();
    let (to, from) = channel::<String>();
    let from = Mutex::new(from);
    let sums = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let next = from.lock().expect("a lock").recv();
                    let Ok(path) = next else { return };
                    let sum = sum(&root.join(&path), || Ok(())).expect("a sum");
                    sums.lock().expect("a lock").insert(path, sum);
                }
            });
        }
        paths(root).for_each(|path| to.send(path).expect("a thread"));
        drop(to);
    });
    write_manifest(place.folder(), &sums.into_inner().expect("a lock"));
    begun.elapsed().as_secs_f64()
}

pub fn overhead(bench: &mut Bench) {
    let tree = bench.fresh();
    let root = tree.folder().join("tree");
    plant(&root);
    by_plain_threads(bench, &root);
    let (ours, plain) = turns(bench.turns(), || by_kiln(bench, &root), || by_plain_threads(bench, &root));
    let what = "10k files, against bare threads";
    bench.row("checksum", what, Unit::Seconds, &ours, &plain, Target::None);
}
