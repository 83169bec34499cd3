//! A disk that fails when it is told to, and that remembers what a power cut would leave of it.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use rusqlite::ffi;

use crate::vfs;

/// What the library does to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Write,
    /// The write that ends a transaction: the header of a frame of the WAL that says how large the database is now.
    Commit,
    Sync,
    Truncate,
    /// The lock for writing, in the memory that the connections share.
    WriteLock,
    /// Any other lock.
    OtherLock,
}

/// Which file it does that to. The shared memory is no file to speak of: it does not survive anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    Db,
    Wal,
    Journal,
}

/// Fails the `nth` act of a kind, counted from when it is set, and those after it while it `lasts`.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub act: Act,
    pub nth: u64,
    pub code: c_int,
    /// Until it is lifted; else once.
    pub lasts: bool,
}

pub const FULL: c_int = ffi::SQLITE_FULL;
pub const BUSY: c_int = ffi::SQLITE_BUSY;
pub const WRITE_ERROR: c_int = ffi::SQLITE_IOERR_WRITE;
pub const LOCK_ERROR: c_int = ffi::SQLITE_IOERR_LOCK;
pub const SYNC_ERROR: c_int = ffi::SQLITE_IOERR_FSYNC;

/// The files below a folder, as this process writes them.
pub struct Disk {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    counts: BTreeMap<(Act, Which), u64>,
    fault: Option<(Fault, u64)>,
    injected: u64,
    sparing: bool,
    files: BTreeMap<String, Content>,
    keeping: bool,
    mark: usize,
    moments: Vec<Moment>,
    /// A sync that fails leaves the system with no memory of what it did not write, as on Linux.
    forgetful: bool,
    /// How large the files may be together.
    room: Option<usize>,
    /// Pages written since the last commit, and in the largest transaction.
    pages: u64,
    most_pages: u64,
}

/// A file, as it is on the disk for sure, and what was done to it since.
#[derive(Clone, Default)]
struct Content {
    synced: Vec<u8>,
    since: Vec<Change>,
    length: usize,
    /// The deleted file of the same name, while it may come back.
    ghost: Option<Box<Content>>,
    /// Whether its name is on the disk.
    named: bool,
    gone: bool,
}

#[derive(Clone)]
pub enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// The disk at one moment.
#[derive(Clone)]
pub struct Moment {
    files: BTreeMap<String, Content>,
    /// What the test had said last with [`Disk::mark`].
    pub mark: usize,
    pub what: &'static str,
}

/// What a power cut takes.
pub enum Cut<'r> {
    /// All that was not synced.
    Unsynced,
    /// Nothing: the process was killed, and the system wrote everything.
    Nothing,
    /// Nothing but half of the last write to the WAL.
    LastFrameTorn,
    /// Any of what was not synced, in any order, and torn anywhere.
    Drawn(&'r mut Rng),
}

static DISKS: Mutex<Vec<(PathBuf, Arc<Mutex<State>>)>> = Mutex::new(Vec::new());

impl Disk {
    /// Takes the files below this folder under control; to be called before any of them is opened.
    pub fn at(folder: &Path) -> Disk {
        vfs::install();
        let folder = fs::canonicalize(folder).unwrap();
        let state = Arc::default();
        DISKS.lock().push((folder.clone(), Arc::clone(&state)));
        Disk { folder, state }
    }

    pub fn count(&self, act: Act, which: Which) -> u64 {
        self.state.lock().counts.get(&(act, which)).copied().unwrap_or(0)
    }

    pub fn fail(&self, fault: Fault) {
        self.state.lock().fault = Some((fault, 0));
    }

    /// The disk is well again.
    pub fn heal(&self) {
        self.state.lock().fault = None;
    }

    /// What a failed sync did not write, no later sync writes.
    pub fn forget(&self) {
        self.state.lock().forgetful = true;
    }

    /// Does something that the disk does not fail at, whatever it was told.
    pub fn spare<T>(&self, act: impl FnOnce() -> T) -> T {
        self.state.lock().sparing = true;
        let done = act();
        self.state.lock().sparing = false;
        done
    }

    /// How often it failed.
    pub fn injected(&self) -> u64 {
        self.state.lock().injected
    }

    /// From now on, the files may grow by so many bytes; `None` for any number.
    pub fn room(&self, bytes: Option<usize>) {
        let mut state = self.state.lock();
        state.room = bytes.map(|bytes| state.length() + bytes);
    }

    /// How many pages the largest transaction since the last call wrote.
    pub fn most_pages(&self) -> u64 {
        std::mem::take(&mut self.state.lock().most_pages)
    }

    /// From now on, remembers the disk around every commit and every sync.
    pub fn remember(&self) {
        self.state.lock().keeping = true;
    }

    /// Says how far the test is.
    pub fn mark(&self, mark: usize) {
        self.state.lock().mark = mark;
    }

    pub fn moments(&self) -> Vec<Moment> {
        std::mem::take(&mut self.state.lock().moments)
    }

    /// The disk as it is now.
    pub fn now(&self) -> Moment {
        self.state.lock().moment("now")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        DISKS.lock().retain(|(folder, _)| *folder != self.folder);
    }
}

impl Moment {
    /// Writes what is left into another folder; how many changes were lost or torn.
    pub fn cut(&self, cut: &mut Cut<'_>, into: &Path) -> usize {
        let mut lost = 0;
        for (name, content) in &self.files {
            if let Some(bytes) = content.after(cut, name.ends_with("-wal"), &mut lost) {
                fs::write(into.join(name), bytes).unwrap();
            }
        }
        lost
    }
}

impl Content {
    fn after(&self, cut: &mut Cut<'_>, is_wal: bool, lost: &mut usize) -> Option<Vec<u8>> {
        if let Some(ghost) = &self.ghost {
            let returns = match cut {
                Cut::Unsynced => true,
                Cut::Nothing | Cut::LastFrameTorn => false,
                Cut::Drawn(rng) => rng.bool(),
            };
            if returns {
                *lost += self.since.len();
                return ghost.after(cut, is_wal, lost);
            }
        }
        let vanishes = !self.named && matches!(cut, Cut::Unsynced);
        if self.gone || vanishes {
            *lost += self.since.len();
            return None;
        }
        let mut bytes = self.synced.clone();
        match cut {
            Cut::Unsynced => *lost += self.since.len(),
            Cut::Nothing => self.since.iter().for_each(|change| change.apply(&mut bytes)),
            Cut::LastFrameTorn => {
                let last = self.since.len().saturating_sub(1);
                for (n, change) in self.since.iter().enumerate() {
                    match change {
                        Change::Write(at, data) if is_wal && n == last => {
                            write(&mut bytes, *at, &data[..data.len() / 2]);
                            *lost += 1;
                        }
                        _ => change.apply(&mut bytes),
                    }
                }
            }
            Cut::Drawn(rng) => {
                let mut changes: Vec<&Change> = self.since.iter().collect();
                if rng.bool() {
                    rng.shuffle(&mut changes);
                }
                for change in changes {
                    match (rng.u8(..4), change) {
                        (0, _) => *lost += 1,
                        (1, Change::Write(at, data)) => {
                            *lost += 1;
                            let (from, to) = (rng.usize(..=data.len()), rng.usize(..=data.len()));
                            write(&mut bytes, at + from.min(to), &data[from.min(to)..from.max(to)]);
                        }
                        _ => change.apply(&mut bytes),
                    }
                }
            }
        }
        Some(bytes)
    }
}

impl Change {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(at, data) => write(bytes, *at, data),
            Change::Truncate(length) => bytes.resize(*length, 0),
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

impl State {
    /// Counts an act; the code to fail it with, where it is to fail.
    pub fn act(&mut self, act: Act, which: Which) -> Option<c_int> {
        *self.counts.entry((act, which)).or_default() += 1;
        let (fault, seen) = self.fault.as_mut().filter(|_| !self.sparing)?;
        let meant = fault.act == act || (fault.act == Act::Write && act == Act::Commit);
        if !meant {
            return None;
        }
        *seen += 1;
        let fails = if fault.lasts { *seen >= fault.nth } else { *seen == fault.nth };
        self.injected += u64::from(fails);
        fails.then_some(fault.code)
    }

    fn length(&self) -> usize {
        self.files.values().map(|content| content.length).sum()
    }

    /// Whether a write would need more room than there is.
    pub fn is_full(&mut self, name: &str, end: usize) -> bool {
        let length = self.files.get(name).map_or(0, |content| content.length);
        let is_full = self.room.is_some_and(|room| end > length && self.length() - length + end > room);
        self.injected += u64::from(is_full);
        is_full
    }

    /// A frame of the WAL is about to be written: a page, perhaps the last of its transaction.
    pub fn frame(&mut self, commits: bool) {
        self.pages += 1;
        if commits {
            self.keep("before a commit");
            self.most_pages = self.most_pages.max(self.pages);
            self.pages = 0;
        }
    }

    pub fn knows(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|content| !content.gone)
    }

    /// A file is opened that was not there as far as is known; one that somebody else made is taken to be on the disk.
    pub fn opened(&mut self, name: &str, was_there: Option<Vec<u8>>) {
        let content = self.files.entry(name.to_owned()).or_default();
        let ghost = content.ghost.take();
        let named = was_there.is_some();
        let synced = was_there.unwrap_or_default();
        *content = Content { length: synced.len(), synced, ghost, named, ..Content::default() };
    }

    /// Syncs a file; the code to fail it with, where it is to fail. The system's VFS syncs the `folder` along with the
    /// first sync of a journal or a WAL.
    pub fn sync(&mut self, name: &str, which: Which, folder: bool) -> Option<c_int> {
        self.keep("before a sync");
        let code = self.act(Act::Sync, which);
        let content = self.files.entry(name.to_owned()).or_default();
        if code.is_some() {
            if self.forgetful {
                content.since.clear();
            }
            return code;
        }
        for change in std::mem::take(&mut content.since) {
            change.apply(&mut content.synced);
        }
        // The name of a new file that is synced is on the disk on all file systems of today.
        content.named = true;
        if folder {
            for content in self.files.values_mut() {
                content.named |= !content.gone;
                content.ghost = None;
            }
        }
        None
    }

    pub fn deleted(&mut self, name: &str, folder_synced: bool) {
        let Some(content) = self.files.get_mut(name) else { return };
        let old = std::mem::take(content);
        let ghost = if old.named { Some(Box::new(Content { ghost: None, ..old })) } else { old.ghost };
        *content = Content { ghost: ghost.filter(|_| !folder_synced), gone: true, ..Content::default() };
    }

    pub fn note(&mut self, name: &str, change: Change) {
        let content = self.files.entry(name.to_owned()).or_default();
        content.length = match &change {
            Change::Write(at, data) => content.length.max(at + data.len()),
            Change::Truncate(length) => *length,
        };
        content.since.push(change);
    }

    fn moment(&self, what: &'static str) -> Moment {
        Moment { files: self.files.clone(), mark: self.mark, what }
    }

    fn keep(&mut self, what: &'static str) {
        if self.keeping {
            self.moments.push(self.moment(what));
        }
    }
}

/// The disk that a file is on, and the file's name there.
pub fn disk_of(path: &Path) -> Option<(Arc<Mutex<State>>, String)> {
    let disks = DISKS.lock();
    let (_, state) = disks.iter().find(|(folder, _)| path.parent() == Some(folder))?;
    Some((Arc::clone(state), path.file_name()?.to_str()?.to_owned()))
}
