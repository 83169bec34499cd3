//! How the file and the runtimes on it are doing.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// How the file and the runtimes on it are doing: [`Kiln::health`](crate::Kiln::health).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Health {
    /// Available jobs for workers that no live runtime on the file knows, by worker. They wait, and block nobody.
    pub unknown_workers: BTreeMap<String, u64>,
    /// The live runtimes on the file, in this process and in others.
    pub runtimes: Vec<RuntimeHealth>,
    /// How large the file's write-ahead log is, in bytes; 0 where there is none. It is written back and begun anew every
    /// 4 MB, unless somebody keeps a read open: one that grows far beyond names a reader that does not end.
    pub wal_bytes: u64,
}

/// One live runtime.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RuntimeHealth {
    /// Its id, as in a job's [`attempted_by`](crate::Job::attempted_by).
    pub id: String,
    /// The name of the machine, or what the program called it.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// The queues it runs.
    pub queues: Vec<String>,
    /// The workers it knows.
    pub workers: Vec<String>,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// What only its own process can tell: `None` for a runtime of another one.
    pub pulse: Option<Pulse>,
}

/// What a runtime tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulse {
    /// Jobs being executed.
    pub executing: usize,
    /// Threads written off, since their job did not leave when its time was up, and that still run.
    pub stuck: usize,
    /// Whether it claims jobs: not while it stops, nor while too many threads are stuck or nothing can be written.
    pub claiming: bool,
    /// Finished attempts whose ack could not be written yet.
    pub unwritten: usize,
    /// Why it cannot write all it has to, see [`Event::Degraded`](crate::Event::Degraded); `None` while all is well.
    pub trouble: Option<String>,
}
