//! SHA-256 of every file in a folder tree, one durable job for each file, and a manifest for `sha256sum -c`.
//!
//! Kill it at any moment, even with -9, and start it again: it goes on where it was.
//!
//! * The jobs live in `<manifest>.db`, beside the manifest, unless `--db` says otherwise. They are kept for ever, as
//!   they are the memory of what was done. Each tree is a queue of its own, named by its real path, so that trees may
//!   share a database; the manifest is that of the tree just run.
//! * Every run scans the tree anew. A file is read when it is new, when its size or its modification time is not what
//!   it was when it was read last, or when that failed. No other file is opened. What has vanished leaves the memory
//!   and the manifest.
//! * A file that cannot be read, or changes meanwhile, is tried three times in a run, then its job is discarded with the
//!   reason.
//! * A folder that cannot be read is a failure; the sums known of what is below it stay in the manifest.
//! * The manifest has DIR as it was given in front of every name, so that `sha256sum -c` works from the same place.
//!   It is sorted by the names' bytes, and replaced as a whole at the end. Names that are no text are kept as they are.
//! * Left out are symbolic links, all else that is no regular file, the manifest, the database and its side files.
//! * Only one run at a time works on a database; a second one says so and ends.
//!
//! The exit code is 0 when every file is in the manifest, 1 when some failed, 2 when the run could not be done.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, mem, slice, thread};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use kiln::{Changes, Failure, Filter, Job, Kiln, NewJob, Outcome, Running, RuntimeHealth, State, Worker};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

const USAGE: &str = "\
usage: checksum [DIR] [--db FILE] [--manifest FILE] [--threads N]

Writes the SHA-256 of every regular file under DIR (default: the current folder).
Stop it as you like; the next run goes on where it was.

  --manifest FILE  where to write the sums (default: SHA256SUMS); check with sha256sum -c
  --db FILE        where to remember what was done (default: the manifest's name and .db)
  --threads N      how many files to read at once (default: as many as the machine has cores)
  -h, --help       this text
";

/// How many files are enqueued in one transaction.
const BATCH: usize = 1000;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// What a job is given: a file's path within the tree, as text where it is text, else as the system has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Text { path: String },
    Raw { path: OsString },
}

impl Entry {
    fn new(path: &Path) -> Entry {
        match path.as_os_str().to_owned().into_string() {
            Ok(path) => Entry::Text { path },
            Err(path) => Entry::Raw { path },
        }
    }

    fn path(&self) -> &Path {
        match self {
            Entry::Text { path } => Path::new(path),
            Entry::Raw { path } => Path::new(path),
        }
    }
}

/// What a job records.
#[derive(Serialize, Deserialize)]
struct Sum {
    sha256: String,
    stamp: Stamp,
}

/// What tells that a file has changed.
#[derive(PartialEq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Empty where the system does not know; then the size has to do.
    modified: String,
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Self {
        let modified = found.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
        Stamp { size: found.len(), modified: modified.map_or_else(String::new, |at| at.to_string()) }
    }
}

/// The worker: reads a file.
struct Checksum {
    root: PathBuf,
    bar: ProgressBar,
}

impl Worker for Checksum {
    const NAME: &'static str = "checksum";
    const MAX_ATTEMPTS: i64 = 3;
    type Args = Entry;

    fn process(&self, job: &Running<Entry>) -> Result<Outcome, Failure> {
        let path = self.root.join(job.args.path());
        // Looked at before it is opened: to open a pipe that has taken its place would wait for ever.
        let found = fs::symlink_metadata(&path)?;
        if !found.is_file() {
            return Err("it is no regular file any more".into());
        }
        let mut file = File::open(&path)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 128 * 1024];
        loop {
            job.check()?;
            let length = file.read(&mut block)?;
            if length == 0 {
                break;
            }
            hash.update(&block[..length]);
            self.bar.inc(length as u64);
        }
        let stamp = Stamp::from(&file.metadata()?);
        if stamp != Stamp::from(&found) {
            return Err("it changed while it was read".into());
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Outcome::record(&Sum { sha256, stamp })?)
    }

    fn backoff(&self, job: &Job) -> Option<Duration> {
        Some(Duration::from_millis(200 * job.attempt.unsigned_abs()))
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("checksum: {error}");
        ExitCode::from(2)
    })
}

fn run() -> Result<ExitCode> {
    let Some(options) = Options::parse(env::args_os().skip(1))? else {
        print!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let started = Instant::now();
    let tree = Tree::open(&options)?;
    let kiln = &tree.kiln;
    // What an earlier run has begun and not ended is tried as often as what is new.
    let known = tree.known()?;
    let begun: Vec<i64> = known.values().filter(|job| job.waits && job.begun).map(|job| job.id).collect();
    kiln.update(begun, |job: &Job| Changes::new().max_attempts(job.attempt + Checksum::MAX_ATTEMPTS))?;

    let template = "{wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} to go";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?);
    let runtime = kiln
        .runtime()
        .queue(&tree.queue, options.threads)
        .worker(Checksum { root: tree.root.clone(), bar: bar.clone() })
        .retention(State::Completed, Duration::MAX)
        .retention(State::Cancelled, Duration::MAX)
        .retention(State::Discarded, Duration::MAX)
        .start()?;
    let own = runtime.id().ok_or("the runtime does not run")?;
    tree.refuse_company(&own)?;
    // A manifest that cannot be written is found out now, not after hours.
    let draft = File::create(&tree.draft).map_err(|error| format!("cannot write {:?}: {error}", tree.draft))?;

    let scan = tree.scan(known, &bar)?;
    kiln.cancel(&scan.vanished[..])?;
    let unfinished = tree.jobs().states(State::ALL.into_iter().filter(|state| !state.is_finished()));
    // The newest first: it is mostly the last to be done.
    while let Some(job) = kiln.list(unfinished.clone().newest_first().limit(1))?.pop() {
        kiln.wait(job.id, Duration::MAX)?;
    }
    kiln.delete(&scan.vanished[..])?;

    let Results { sums, mut failures, read, read_bytes } = tree.results(&own)?;
    failures.extend(scan.failures);
    failures.sort();
    tree.write(draft, &sums)?;
    runtime.stop();
    bar.finish_and_clear();

    let seconds = started.elapsed().as_secs_f64();
    let bytes: u64 = sums.values().map(|sum| sum.stamp.size).sum();
    println!("files:    {} in {}", sums.len(), options.manifest.display());
    println!("bytes:    {bytes} ({})", HumanBytes(bytes));
    println!("read now: {read} files, {read_bytes} bytes");
    println!("failures: {}", failures.len());
    println!("time:     {seconds:.2} s");
    println!("rate:     {:.0} files/s, {}/s", read as f64 / seconds, HumanBytes((read_bytes as f64 / seconds) as u64));
    for (path, reason) in &failures {
        eprintln!("failed: {:?}: {reason}", options.dir.join(path));
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tree, and what belongs to it.
struct Tree {
    kiln: Kiln,
    dir: PathBuf,
    /// The same, as its real path.
    root: PathBuf,
    queue: String,
    db: PathBuf,
    manifest: PathBuf,
    /// The manifest while it is written.
    draft: PathBuf,
}

/// What is known of a file from its job.
struct Known {
    id: i64,
    waits: bool,
    begun: bool,
    /// Of a file that was read.
    stamp: Option<Stamp>,
}

/// What a walk through the tree has found, but for the files to be read.
#[derive(Default)]
struct Scan {
    /// Jobs of files that are no more.
    vanished: Vec<i64>,
    failures: Failures,
}

/// Paths within the tree, and reasons.
type Failures = Vec<(PathBuf, String)>;

/// What came of a run.
#[derive(Default)]
struct Results {
    /// By path as the manifest has it, in its order.
    sums: BTreeMap<Vec<u8>, Sum>,
    failures: Failures,
    /// By this run.
    read: u64,
    read_bytes: u64,
}

impl Tree {
    fn open(options: &Options) -> Result<Tree> {
        let Options { dir, db, manifest, .. } = options;
        let root = fs::canonicalize(dir).map_err(|error| format!("cannot use the folder {dir:?}: {error}"))?;
        if !root.is_dir() {
            return Err(format!("cannot use {dir:?}: it is no folder").into());
        }
        let (Some(name), false) = (manifest.file_name(), manifest.is_dir()) else {
            return Err(format!("cannot write {manifest:?}: it names no file").into());
        };
        let folder = manifest.parent().filter(|folder| *folder != "").unwrap_or(Path::new("."));
        let folder = fs::canonicalize(folder).map_err(|error| format!("cannot write {manifest:?}: {error}"))?;
        let manifest = folder.join(name);
        let draft = appended(&manifest, ".tmp");
        let kiln = Kiln::open(db)?;
        let db = fs::canonicalize(db)?;
        if db == manifest || db == draft {
            return Err("the database and the manifest must not be one file".into());
        }
        let queue = root.to_str().map_or_else(|| format!("{root:?}"), String::from);
        Ok(Tree { kiln, dir: dir.clone(), root, queue, db, manifest, draft })
    }

    /// Whether a file is one of ours, and no business of the user.
    fn owns(&self, path: &Path) -> bool {
        let after = |own: &Path| path.as_os_str().as_encoded_bytes().strip_prefix(own.as_os_str().as_encoded_bytes());
        let side = |rest: &[u8]| matches!(rest, b"" | b"-wal" | b"-shm" | b"-journal") || rest.starts_with(b"-kiln-");
        matches!(after(&self.manifest), Some(b"" | b".tmp")) || after(&self.db).is_some_and(side)
    }

    fn jobs(&self) -> Filter {
        Filter::new().queue(&self.queue)
    }

    /// Looks at all jobs of the tree, page by page.
    fn each_job(&self, mut look: impl FnMut(Job) -> Result<()>) -> Result<()> {
        let mut page = self.kiln.list(self.jobs().limit(1000))?;
        while let Some(last) = page.last().map(|job| job.id) {
            page.into_iter().try_for_each(&mut look)?;
            page = self.kiln.list(self.jobs().limit(1000).after(last))?;
        }
        Ok(())
    }

    /// What is known of the files, by path.
    fn known(&self) -> Result<HashMap<PathBuf, Known>> {
        let mut known = HashMap::new();
        self.each_job(|job| {
            let sum = if job.state == State::Completed { job.recorded::<Sum>()? } else { None };
            let (waits, begun) = (!job.state.is_finished(), job.attempt > 0);
            let path = job.args.decode::<Entry>()?.path().to_owned();
            known.insert(path, Known { id: job.id, waits, begun, stamp: sum.map(|sum| sum.stamp) });
            Ok(())
        })?;
        Ok(known)
    }

    fn refuse_company(&self, own: &str) -> Result<()> {
        let knows = |other: &RuntimeHealth| other.workers.iter().any(|worker| worker == Checksum::NAME);
        match self.kiln.health()?.runtimes.iter().find(|other| other.id != own && knows(other)) {
            Some(other) => Err(format!("another run is at work on this database: process {}", other.pid).into()),
            None => Ok(()),
        }
    }

    /// Walks through the tree and enqueues what has to be read.
    ///
    /// A kill between two batches does no harm: the next scan knows the jobs of the first one.
    fn scan(&self, mut known: HashMap<PathBuf, Known>, bar: &ProgressBar) -> Result<Scan> {
        let mut scan = Scan::default();
        let (mut outdated, mut new) = (Vec::new(), Vec::new());
        for entry in WalkDir::new(&self.root).min_depth(1) {
            let (entry, found) = match entry.and_then(|entry| entry.metadata().map(|found| (entry, found))) {
                Ok(found) => found,
                Err(error) => {
                    scan.failures.extend(self.unreadable(&error));
                    continue;
                }
            };
            if !found.is_file() || self.owns(entry.path()) {
                continue;
            }
            let path = entry.path().strip_prefix(&self.root)?;
            let stamp = Stamp::from(&found);
            match known.remove(path) {
                Some(Known { stamp: Some(read), .. }) if read == stamp => continue,
                Some(Known { waits: true, .. }) => {}
                job => {
                    outdated.extend(job.map(|job| job.id));
                    new.push(Checksum::job(Entry::new(path)).queue(&self.queue));
                }
            }
            bar.inc_length(stamp.size);
            if new.len() == BATCH {
                self.renew(&mut outdated, &mut new)?;
            }
        }
        self.renew(&mut outdated, &mut new)?;
        known.retain(|path, _| !scan.failures.iter().any(|(folder, _)| path.starts_with(folder)));
        scan.vanished = known.into_values().map(|job| job.id).collect();
        Ok(scan)
    }

    /// Puts new jobs in the place of old ones. After a kill in between, the next scan takes their files for new.
    fn renew(&self, outdated: &mut Vec<i64>, new: &mut Vec<NewJob>) -> Result<()> {
        self.kiln.delete(mem::take(outdated))?;
        self.kiln.enqueue_many(new.drain(..))?;
        Ok(())
    }

    /// What the walk could not look at, unless it is just gone.
    fn unreadable(&self, error: &walkdir::Error) -> Option<(PathBuf, String)> {
        let path = error.path()?.strip_prefix(&self.root).ok()?;
        let cause = error.io_error().filter(|cause| cause.kind() != ErrorKind::NotFound)?;
        Some((path.to_owned(), cause.to_string()))
    }

    /// What came of the jobs, once all have ended.
    fn results(&self, own: &str) -> Result<Results> {
        let mut results = Results::default();
        self.each_job(|job| {
            let entry: Entry = job.args.decode()?;
            if job.state == State::Completed
                && let Some(sum) = job.recorded::<Sum>()?
            {
                if job.attempted_by.iter().any(|runtime| runtime == own) {
                    results.read += 1;
                    results.read_bytes += sum.stamp.size;
                }
                results.sums.insert(self.dir.join(entry.path()).into_os_string().into_encoded_bytes(), sum);
            } else {
                let reason = job.errors.into_iter().next_back().map(|last| last.error);
                let reason = reason.unwrap_or_else(|| format!("its job is {}", job.state));
                results.failures.push((entry.path().to_owned(), reason));
            }
            Ok(())
        })?;
        Ok(results)
    }

    /// Writes the manifest as sha256sum does: a name in which something had to be escaped has a mark in front.
    fn write(&self, draft: File, sums: &BTreeMap<Vec<u8>, Sum>) -> Result<()> {
        let mut out = BufWriter::new(draft);
        for (name, sum) in sums {
            let escaped = name.iter().map(|byte| match byte {
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                byte => slice::from_ref(byte),
            });
            let escaped: Vec<u8> = escaped.flatten().copied().collect();
            write!(out, "{}{}  ", if escaped.len() > name.len() { "\\" } else { "" }, sum.sha256)?;
            out.write_all(&escaped)?;
            out.write_all(b"\n")?;
        }
        out.into_inner()?.sync_all()?;
        Ok(fs::rename(&self.draft, &self.manifest)?)
    }
}

struct Options {
    dir: PathBuf,
    db: PathBuf,
    manifest: PathBuf,
    threads: usize,
}

impl Options {
    /// Reads the arguments; `None` when help was asked for.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Options>> {
        let (mut dir, mut db, mut manifest, mut threads) = (None, None, None, None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{} needs a value", arg.display()));
            match arg.to_str() {
                Some("-h" | "--help") => return Ok(None),
                Some("--db") => db = Some(PathBuf::from(value()?)),
                Some("--manifest") => manifest = Some(PathBuf::from(value()?)),
                Some("--threads") => {
                    let value = value()?;
                    let number = value.to_str().and_then(|value| value.parse().ok()).filter(|number| *number > 0);
                    threads = Some(number.ok_or_else(|| format!("--threads takes a number from 1 on, got {value:?}"))?);
                }
                Some(option) if option.starts_with('-') => return Err(format!("unknown option {option:?}").into()),
                _ if dir.is_some() => return Err(format!("one folder at a time, got {arg:?} as well").into()),
                _ => dir = Some(PathBuf::from(arg)),
            }
        }
        let manifest = manifest.unwrap_or_else(|| "SHA256SUMS".into());
        Ok(Some(Options {
            dir: dir.unwrap_or_else(|| ".".into()),
            db: db.unwrap_or_else(|| appended(&manifest, ".db")),
            threads: threads.unwrap_or_else(|| thread::available_parallelism().map_or(4, usize::from)),
            manifest,
        }))
    }
}

fn appended(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}
