//! How long a writer waits while another process holds the write lock.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

thread_local! {
    static PATIENT_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

pub(super) fn be_patient(patience: Duration) {
    PATIENT_UNTIL.set(Instant::now().checked_add(patience));
}

/// SQLite's own back-off leaves single callers waiting for a second among many; short, jittered naps do not.
pub(super) fn busy(tries: i32) -> bool {
    let until = PATIENT_UNTIL.get();
    if until.is_none_or(|until| Instant::now() >= until) {
        return false;
    }
    let longest = 200_u64 << tries.clamp(0, 5);
    thread::sleep(Duration::from_micros(fastrand::u64(longest / 2..=longest)));
    true
}
