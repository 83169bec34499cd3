//! A disk that fails when it is told to, and that remembers what a power cut would leave of it.
//!
//! SQLite reaches its files through a table of functions, a VFS. The one below becomes the default of this process, so
//! that the unchanged library runs on it. It hands every call on to the system's own VFS, and files in a folder that
//! no [`Disk`] was made for pass through untouched. For the others it counts, fails, and records.
//!
//! This is the only file with unsafe code. Its rules are few: SQLite gives each open file a piece of memory of
//! `szOsFile` bytes, which holds our [`File`] first and the system's file after it; both live until `xClose`.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use fastrand::Rng;
use parking_lot::Mutex;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};

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
struct State {
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
enum Change {
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
        install();
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
    fn apply(&self, bytes: &mut Vec<u8>) {
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
    fn act(&mut self, act: Act, which: Which) -> Option<c_int> {
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
    fn is_full(&self, name: &str, end: usize) -> bool {
        let length = self.files.get(name).map_or(0, |content| content.length);
        self.room.is_some_and(|room| end > length && self.length() - length + end > room)
    }

    fn note(&mut self, name: &str, change: Change) {
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

/// An open file of ours.
#[repr(C)]
struct File {
    base: sqlite3_file,
    /// Where it belongs to a disk.
    place: *mut Place,
}

struct Place {
    state: Arc<Mutex<State>>,
    name: String,
    which: Which,
    /// Whether its next sync is a sync of the folder as well: the first of each journal and each WAL that is opened.
    folder: AtomicBool,
}

/// The system's file, which lies behind ours.
unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    unsafe { file.cast::<u8>().add(size_of::<File>()).cast() }
}

unsafe fn place<'a>(file: *mut sqlite3_file) -> Option<&'a Place> {
    unsafe { (*file.cast::<File>()).place.as_ref() }
}

/// Calls a function of the system's file.
macro_rules! pass {
    ($file:expr, $function:ident $(, $argument:expr)*) => {{
        let inner = inner($file);
        match (*(*inner).pMethods).$function {
            Some(function) => function(inner $(, $argument)*),
            None => ffi::SQLITE_NOTFOUND,
        }
    }};
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    unsafe {
        let code = pass!(file, xClose);
        let ours = file.cast::<File>();
        if !(*ours).place.is_null() {
            drop(Box::from_raw((*ours).place));
            (*ours).place = ptr::null_mut();
        }
        code
    }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, data: *mut c_void, length: c_int, at: i64) -> c_int {
    unsafe { pass!(file, xRead, data, length, at) }
}

unsafe extern "C" fn write_file(file: *mut sqlite3_file, data: *const c_void, length: c_int, at: i64) -> c_int {
    unsafe {
        let Some(Place { state, name, which, .. }) = place(file) else { return pass!(file, xWrite, data, length, at) };
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), length as usize);
        // A frame's header is 24 bytes; bytes 4 to 7 are 0 in all frames of a transaction but the last.
        let commits = *which == Which::Wal && length == 24 && bytes[4..8] != [0; 4];
        let mut state = state.lock();
        if commits {
            state.keep("before a commit");
        }
        if *which == Which::Wal && length == 24 {
            state.pages += 1;
            if commits {
                state.most_pages = state.most_pages.max(state.pages);
                state.pages = 0;
            }
        }
        if state.is_full(name, at as usize + bytes.len()) {
            state.injected += 1;
            return ffi::SQLITE_FULL;
        }
        if let Some(code) = state.act(if commits { Act::Commit } else { Act::Write }, *which) {
            // As a disk that is full does it: a part is written.
            let half = length / 2;
            if half > 0 && pass!(file, xWrite, data, half, at) == ffi::SQLITE_OK {
                let part = bytes[..half as usize].to_vec();
                state.note(name, Change::Write(at as usize, part));
            }
            return code;
        }
        let code = pass!(file, xWrite, data, length, at);
        if code == ffi::SQLITE_OK {
            state.note(name, Change::Write(at as usize, bytes.to_vec()));
        }
        code
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: i64) -> c_int {
    unsafe {
        let Some(Place { state, name, which, .. }) = place(file) else { return pass!(file, xTruncate, length) };
        let mut state = state.lock();
        if let Some(code) = state.act(Act::Truncate, *which) {
            return code;
        }
        state.note(name, Change::Truncate(length as usize));
        pass!(file, xTruncate, length)
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    unsafe {
        let Some(Place { state, name, which, folder }) = place(file) else { return pass!(file, xSync, flags) };
        let mut state = state.lock();
        state.keep("before a sync");
        if let Some(code) = state.act(Act::Sync, *which) {
            if state.forgetful {
                state.files.entry(name.clone()).or_default().since.clear();
            }
            return code;
        }
        let content = state.files.entry(name.clone()).or_default();
        for change in std::mem::take(&mut content.since) {
            change.apply(&mut content.synced);
        }
        // The name of a new file that is synced is on the disk on all file systems of today.
        content.named = true;
        if folder.swap(false, Ordering::Relaxed) {
            state.files.values_mut().for_each(|content| {
                content.named |= !content.gone;
                content.ghost = None;
            });
        }
        // Nothing here survives a power cut, so the real disk need not be waited for.
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    unsafe { pass!(file, xFileSize, size) }
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    unsafe {
        if let Some(Place { state, which, .. }) = place(file)
            && let Some(code) = state.lock().act(Act::OtherLock, *which)
        {
            return code;
        }
        pass!(file, xLock, level)
    }
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    unsafe { pass!(file, xUnlock, level) }
}

unsafe extern "C" fn check_reserved(file: *mut sqlite3_file, reserved: *mut c_int) -> c_int {
    unsafe { pass!(file, xCheckReservedLock, reserved) }
}

unsafe extern "C" fn control(file: *mut sqlite3_file, verb: c_int, argument: *mut c_void) -> c_int {
    unsafe { pass!(file, xFileControl, verb, argument) }
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    unsafe { pass!(file, xSectorSize) }
}

unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    unsafe { pass!(file, xDeviceCharacteristics) }
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    unsafe { pass!(file, xShmMap, page, size, extend, memory) }
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, at: c_int, count: c_int, flags: c_int) -> c_int {
    unsafe {
        let takes = flags & ffi::SQLITE_SHM_LOCK != 0;
        let writes = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0 && at == 0 && count == 1;
        let act = if writes { Act::WriteLock } else { Act::OtherLock };
        if let Some(Place { state, which, .. }) = place(file)
            && takes
            && let Some(code) = state.lock().act(act, *which)
        {
            return code;
        }
        pass!(file, xShmLock, at, count, flags)
    }
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    unsafe {
        let inner = inner(file);
        if let Some(barrier) = (*(*inner).pMethods).xShmBarrier {
            barrier(inner);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    unsafe { pass!(file, xShmUnmap, delete) }
}

/// Version 2: with shared memory, without mapping the database itself.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write_file),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The system's VFS, kept where SQLite keeps what belongs to ours.
unsafe fn system(vfs: *mut sqlite3_vfs) -> *mut sqlite3_vfs {
    unsafe { (*vfs).pAppData.cast() }
}

fn disk_of(path: &Path) -> Option<(Arc<Mutex<State>>, String)> {
    let disks = DISKS.lock();
    let (_, state) = disks.iter().find(|(folder, _)| path.parent() == Some(folder))?;
    Some((Arc::clone(state), path.file_name()?.to_str()?.to_owned()))
}

unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })?;
    name.to_str().ok().map(Path::new)
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    unsafe {
        let ours = file.cast::<File>();
        (*ours).base.pMethods = ptr::null();
        (*ours).place = ptr::null_mut();
        let which = match flags {
            _ if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => Some(Which::Db),
            _ if flags & ffi::SQLITE_OPEN_WAL != 0 => Some(Which::Wal),
            _ if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 => Some(Which::Journal),
            _ => None,
        };
        let path = path_of(name);
        let found = which.zip(path.and_then(disk_of));
        let mut locked = found.as_ref().map(|(_, (state, name))| (state.lock(), name));
        // Only before the first of us opens it: closing what was read here would drop the locks of the others.
        let was_there = match &locked {
            Some((state, name)) if state.files.get(*name).is_none_or(|content| content.gone) => {
                path.and_then(|path| fs::read(path).ok())
            }
            _ => None,
        };
        let Some(open) = (*system(vfs)).xOpen else { return ffi::SQLITE_ERROR };
        let code = open(system(vfs), name, inner(file), flags, out);
        if code != ffi::SQLITE_OK {
            return code;
        }
        if let Some((state, name)) = &mut locked {
            let content =
                state.files.entry(name.clone()).or_insert_with(|| Content { gone: true, ..Content::default() });
            if content.gone {
                let ghost = content.ghost.take();
                // A file that somebody else made is taken to be on the disk.
                let named = was_there.is_some();
                let synced = was_there.unwrap_or_default();
                *content = Content { length: synced.len(), synced, ghost, named, ..Content::default() };
            }
        }
        drop(locked);
        if let Some((which, (state, name))) = found {
            let folder = AtomicBool::new(which != Which::Db);
            (*ours).place = Box::into_raw(Box::new(Place { state, name, which, folder }));
        }
        (*ours).base.pMethods = &METHODS;
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    unsafe {
        let Some(delete) = (*system(vfs)).xDelete else { return ffi::SQLITE_ERROR };
        let code = delete(system(vfs), name, sync_folder);
        if code == ffi::SQLITE_OK
            && let Some((state, name)) = path_of(name).and_then(disk_of)
            && let Some(content) = state.lock().files.get_mut(&name)
        {
            let old = std::mem::take(content);
            let ghost = if old.named { Some(Box::new(Content { ghost: None, ..old })) } else { old.ghost };
            *content = Content { ghost: ghost.filter(|_| sync_folder == 0), gone: true, ..Content::default() };
        }
        code
    }
}

unsafe extern "C" fn access(vfs: *mut sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    unsafe { (*system(vfs)).xAccess.map_or(ffi::SQLITE_ERROR, |access| access(system(vfs), name, flags, out)) }
}

unsafe extern "C" fn full_path(vfs: *mut sqlite3_vfs, name: *const c_char, size: c_int, out: *mut c_char) -> c_int {
    unsafe { (*system(vfs)).xFullPathname.map_or(ffi::SQLITE_ERROR, |full| full(system(vfs), name, size, out)) }
}

/// Makes the VFS the default of this process, once.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| unsafe {
        let system = ffi::sqlite3_vfs_find(ptr::null());
        assert!(!system.is_null());
        // What is not named here, randomness and time among it, is the system's; those functions do not look at the
        // VFS they are handed. It lives as long as the process.
        let ours = Box::leak(Box::new(*system));
        ours.szOsFile = size_of::<File>() as c_int + (*system).szOsFile;
        ours.pNext = ptr::null_mut();
        ours.zName = c"kiln-faults".as_ptr();
        ours.pAppData = system.cast();
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        ours.xAccess = Some(access);
        ours.xFullPathname = Some(full_path);
        assert_eq!(ffi::sqlite3_vfs_register(ours, 1), ffi::SQLITE_OK);
    });
}
