//! What a look over the whole file found, and what care for it came to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::health::RuntimeHealth;
use crate::job::{Counts, State};

/// What a look over the whole file found: [`Kiln::diagnose`](crate::Kiln::diagnose).
///
/// `Display` shows it to people, a line for each thing and each piece of advice:
///
/// ```text
/// /home/me/app/jobs.db on ext4
///   file 1.2 MiB, of which 300.0 KiB free; WAL 4.0 KiB; schema version 1, written by kiln 0.1.0
///   jobs: available 12, executing 1, completed 300
/// runtimes
///   2f6c... on laptop, process 4711: executes 1 of default, media; oldest attempt 3 s
/// findings
///   orphans: executing jobs of runtimes that are dead: 2 (17, 23)
///     -> a runtime that runs on the file rescues them; start one
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The file; `None` for jobs in memory.
    pub file: Option<PathBuf>,
    /// The kind of file system it lies on, where the system tells.
    pub file_system: Option<String>,
    /// The version of kiln's tables.
    pub schema_version: Option<i64>,
    /// The program that wrote that version.
    pub written_by: Option<String>,
    /// Whether every page and every index was compared, or the quicker look was taken.
    pub full: bool,
    /// The size of the file, in bytes.
    pub file_bytes: u64,
    /// Of these, what [`Kiln::compact`](crate::Kiln::compact) gives back at least.
    pub free_bytes: u64,
    /// The size of the write-ahead log beside it, in bytes.
    pub wal_bytes: u64,
    /// The jobs, by queue and state.
    pub jobs: Counts,
    /// The live runtimes on the file, and what each of them executes.
    pub runtimes: Vec<Holder>,
    /// What is wrong, or soon will be. Empty is well.
    pub findings: Vec<Finding>,
}

/// A live runtime, and the jobs it holds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Holder {
    /// The runtime.
    pub runtime: RuntimeHealth,
    /// How many jobs it executes.
    pub executing: u64,
    /// How long its oldest attempt has been going.
    pub oldest: Option<Duration>,
}

/// One thing that was found, with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing it is.
    pub problem: Problem,
    /// What was found.
    pub text: String,
    /// What to do about it, in one sentence.
    pub advice: String,
    /// The first twenty jobs it is about.
    pub jobs: Vec<i64>,
}

/// The kinds of things that [`Kiln::diagnose`](crate::Kiln::diagnose) finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// The file is damaged, or a part of it could not be read.
    Damaged,
    /// Executing jobs of runtimes that are dead.
    Orphans,
    /// Executing jobs that were asked to leave a minute ago or more, that have been executing for a day, and threads that
    /// were written off.
    Stuck,
    /// A runtime of this process cannot write all it has to, see [`Event::Degraded`](crate::Event::Degraded).
    Degraded,
    /// Available jobs for workers that no live runtime knows.
    UnknownWorkers,
    /// Jobs whose process died soon after they had begun, and that have not ended in an ordinary way since. If such a job
    /// waits as a suspect, a finding of its own says what it waits for.
    Crashed,
    /// Available jobs without an attempt left.
    Exhausted,
    /// Rows that something else wrote or damaged.
    Malformed,
    /// Jobs with more than 64 KiB of args and meta.
    Large,
    /// The write-ahead log has grown beyond 64 MiB.
    LongLog,
    /// A quarter of the file or more is free.
    FreeSpace,
    /// Others may read or replace the file.
    Exposed,
}

/// What [`Kiln::compact`](crate::Kiln::compact) came to: the size of the file before and after, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

impl Compacted {
    pub(crate) fn new(before: u64, after: u64) -> Self {
        Self { before, after }
    }
}

impl Finding {
    pub(crate) fn new(problem: Problem, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { problem, text: text.into(), advice: advice.into(), jobs: Vec::new() }
    }

    /// A finding about jobs, where there are any.
    pub(crate) fn about(problem: Problem, ids: &[i64], what: &str, advice: &str) -> Option<Self> {
        const NAMED: usize = 20;
        let jobs: Vec<i64> = ids.iter().copied().take(NAMED).collect();
        let named: Vec<String> = jobs.iter().map(i64::to_string).collect();
        let more = if ids.len() > NAMED { ", ..." } else { "" };
        let text = format!("{what}: {} ({}{more})", ids.len(), named.join(", "));
        (!ids.is_empty()).then(|| Self { problem, text, advice: advice.to_owned(), jobs })
    }
}

impl Diagnosis {
    /// Whether nothing was found.
    pub fn is_well(&self) -> bool {
        self.findings.is_empty()
    }

    /// What was found of this kind.
    pub fn of(&self, problem: Problem) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.problem == problem)
    }
}

impl Problem {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Problem::Damaged => "damaged",
            Problem::Orphans => "orphans",
            Problem::Stuck => "stuck",
            Problem::Degraded => "degraded",
            Problem::UnknownWorkers => "unknown workers",
            Problem::Crashed => "crashed",
            Problem::Exhausted => "exhausted",
            Problem::Malformed => "malformed",
            Problem::Large => "large",
            Problem::LongLog => "long log",
            Problem::FreeSpace => "free space",
            Problem::Exposed => "exposed",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    -> {}", self.problem, self.text, self.advice)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &self.file_system) {
            (Some(file), Some(kind)) => writeln!(f, "{} on {kind}", file.display())?,
            (Some(file), None) => writeln!(f, "{}", file.display())?,
            (None, _) => writeln!(f, "memory")?,
        }
        let [file, free, wal] = [self.file_bytes, self.free_bytes, self.wal_bytes].map(Size);
        write!(f, "  file {file}, of which {free} free; WAL {wal}")?;
        match (self.schema_version, &self.written_by) {
            (Some(version), Some(by)) => writeln!(f, "; schema version {version}, written by {by}")?,
            _ => writeln!(f, "; schema version unknown")?,
        }
        let states = State::ALL.into_iter().chain([State::Unknown]);
        let counts: Vec<String> = states
            .filter(|state| self.jobs.state(*state) > 0)
            .map(|state| format!("{state} {}", self.jobs.state(state)))
            .collect();
        writeln!(f, "  jobs: {}", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") })?;
        writeln!(f, "runtimes{}", if self.runtimes.is_empty() { ": none" } else { "" })?;
        for Holder { runtime, executing, oldest } in &self.runtimes {
            let (RuntimeHealth { id, node, pid, .. }, queues) = (runtime, runtime.queues.join(", "));
            let oldest = oldest.map_or(String::new(), |age| format!("; oldest attempt {} s", age.as_secs()));
            writeln!(f, "  {id} on {node}, process {pid}: executes {executing} of {queues}{oldest}")?;
        }
        if self.is_well() {
            let look = if self.full { "full" } else { "quick" };
            return write!(f, "findings: none (integrity checked, {look})");
        }
        write!(f, "findings")?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

/// A number of bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = (self.0.max(1).ilog2() / 10).min(3);
        match ["B", "KiB", "MiB", "GiB"][power as usize] {
            "B" => write!(f, "{} B", self.0),
            unit => write!(f, "{:.1} {unit}", self.0 as f64 / f64::from(1 << (10 * power))),
        }
    }
}

/// How long ago `at` was.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}
