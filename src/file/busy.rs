//! How long a thread waits for other connections to the file.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

thread_local! {
    static PATIENT_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From now on, this thread waits for locks until `patience` has passed, on connections whose busy handler is [`busy`].
pub(super) fn be_patient(patience: Duration) {
    PATIENT_UNTIL.set(Instant::now().checked_add(patience));
}

/// The busy handler: sleeps briefly, and returns `false` once the thread's patience is over.
///
/// Among many callers, SQLite's own back-off leaves single ones waiting for a second. Short, jittered naps do not.
pub(super) fn busy(tries: i32) -> bool {
    let until = PATIENT_UNTIL.get();
    if until.is_none_or(|until| Instant::now() >= until) {
        return false;
    }
    let longest = 200_u64 << tries.clamp(0, 5);
    thread::sleep(Duration::from_micros(fastrand::u64(longest / 2..=longest)));
    true
}

/// Moves the log into the database and empties it. Returns `false` if another connection was in the way until the
/// thread's patience was over.
///
/// SQLite waits for readers and writers, but gives up at once if another connection is moving the log. Hence the loop.
pub(super) fn empty_log(conn: &Connection) -> rusqlite::Result<bool> {
    let mut tries = 0;
    while conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))? {
        if !busy(tries) {
            return Ok(false);
        }
        tries += 1;
    }
    Ok(true)
}
