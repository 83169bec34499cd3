//! The library's files, as the [disk](crate::disk) has them.
//!
//! SQLite reaches its files through a table of functions, a VFS. The one below becomes the default of this process, so
//! that the unchanged library runs on it. It hands every call on to the system's own VFS, and files in a folder that
//! no [`Disk`](crate::disk::Disk) was made for pass through untouched. For the others it asks the disk whether the call
//! is to fail, and tells it what was done.
//!
//! This is the only file with unsafe code. Its rules are few: SQLite gives each open file a piece of memory of
//! `szOsFile` bytes, which holds our [`File`] first and the system's file after it; both live until `xClose`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use parking_lot::Mutex;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};

use crate::disk::{Act, Change, State, Which, disk_of};

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
        if *which == Which::Wal && length == 24 {
            state.frame(commits);
        }
        if state.is_full(name, at as usize + bytes.len()) {
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
        if let Some(code) = state.sync(name, *which, folder.load(Ordering::Relaxed)) {
            return code;
        }
        folder.store(false, Ordering::Relaxed);
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
        let is_news = locked.as_ref().is_some_and(|(state, name)| !state.knows(name));
        let was_there = path.filter(|_| is_news).and_then(|path| fs::read(path).ok());
        let Some(open) = (*system(vfs)).xOpen else { return ffi::SQLITE_ERROR };
        let code = open(system(vfs), name, inner(file), flags, out);
        if code != ffi::SQLITE_OK {
            return code;
        }
        if let Some((state, name)) = locked.as_mut().filter(|_| is_news) {
            state.opened(name, was_there);
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
        {
            state.lock().deleted(&name, sync_folder != 0);
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
pub fn install() {
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
