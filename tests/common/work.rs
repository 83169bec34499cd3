//! How much work something is, on whatever machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rusqlite::ffi;

/// What a thread did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Steps of SQLite's machine, counted by the thousand.
    pub steps: u64,
    /// Asked for by Rust, and given back or not.
    pub bytes: u64,
}

impl Work {
    pub fn max(self, other: Work) -> Work {
        Work { steps: self.steps.max(other.steps), bytes: self.bytes.max(other.bytes) }
    }
}

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

/// Nothing takes as long as that: it hangs.
const HANGS: Duration = Duration::from_secs(600);

/// Does something; says what it was in the way of work. Something that never ends ends the process, and says what it was.
pub fn measure<T>(what: &dyn Fn() -> String, act: impl FnOnce() -> T) -> (T, Work) {
    let shown = what();
    let (ended, end) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
            eprintln!("never ends: {shown}");
            std::process::abort();
        }
    });
    let before = (STEPS.get(), BYTES.get());
    let done = act();
    let work = Work { steps: STEPS.get() - before.0, bytes: BYTES.get() - before.1 };
    drop(ended);
    watch.join().expect("it only waits");
    (done, work)
}

const STRIDE: c_int = 1000;

unsafe extern "C" fn step(_: *mut c_void) -> c_int {
    STEPS.set(STEPS.get() + STRIDE as u64);
    0
}

unsafe extern "C" fn count(db: *mut ffi::sqlite3, _: *mut *mut c_char, _: *const ffi::sqlite3_api_routines) -> c_int {
    unsafe { ffi::sqlite3_progress_handler(db, STRIDE, Some(step), ptr::null_mut()) };
    ffi::SQLITE_OK
}

/// From now on, each connection of this process counts its steps.
pub fn count_steps() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let set = unsafe { ffi::sqlite3_auto_extension(Some(count)) };
        assert_eq!(set, ffi::SQLITE_OK);
    });
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get() + layout.size() as u64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.set(BYTES.get() + size as u64);
        unsafe { System.realloc(at, layout, size) }
    }
}
