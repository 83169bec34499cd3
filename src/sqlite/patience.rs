//! How long a caller waits for others on the file.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

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

/// Moves the log into the database and empties it; `false` when somebody was in the way for longer than we are patient.
/// SQLite waits for those who read and write, but gives up at once where another connection moves the log.
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
