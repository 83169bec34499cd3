//! Care for the file: its size, whether it is whole, and how to make it small.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::busy::{be_patient, empty_log};
use super::connection::{has_log, pragma};
use super::error::failed;
use super::filesystem::beside;
use crate::error::{Error, Kind, Result};

/// The size of a database in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub bytes: u64,
    /// How much of it holds nothing, and is used by what is written next.
    pub free: u64,
}

/// The size of the database, without its log.
pub(crate) fn size(conn: &Connection) -> Result<Size> {
    let number = |name| pragma::<i64>(conn, name).map(i64::unsigned_abs).map_err(failed);
    let page = number("page_size")?;
    Ok(Size { bytes: number("page_count")? * page, free: number("freelist_count")? * page })
}

/// The size of a file's write-ahead log in bytes.
///
/// This asks the folder. Opening the file, and closing it, would drop the locks that this process has on it.
pub(crate) fn wal_bytes(file: &Path) -> u64 {
    std::fs::metadata(beside(file, "-wal")).map_or(0, |found| found.len())
}

/// What SQLite finds wrong with the database, a line for each fault. A `full` check compares indexes with tables as well.
pub(crate) fn integrity(conn: &Connection, full: bool) -> Result<Vec<String>> {
    let check = if full { "PRAGMA integrity_check(20)" } else { "PRAGMA quick_check(20)" };
    let mut select = conn.prepare(check).map_err(failed)?;
    let mut found = select.query([]).map_err(failed)?;
    let mut faults = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let line = row.get_ref(0).and_then(|line| Ok(String::from_utf8_lossy(line.as_bytes()?).into_owned()));
        let line = line.map_err(failed)?;
        if line != "ok" {
            faults.push(line);
        }
    }
    Ok(faults)
}

/// How many free pages the file keeps: they will be needed again.
const SPARE: i64 = 256;

/// How many pages the file gives back at once.
const BITE: i64 = 200;

/// Gives free pages back to the system, few at a time, so that nobody waits long for the lock. Returns whether there are more
/// to give back.
pub(crate) fn shrink(conn: &Connection) -> Result<bool> {
    let free =
        || conn.prepare_cached("PRAGMA freelist_count").and_then(|mut select| select.query_row([], |row| row.get(0)));
    let before: i64 = free().map_err(failed)?;
    if before <= SPARE {
        return Ok(false);
    }
    let bite = BITE.min(before - SPARE);
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({bite})")).map_err(failed)?;
    let mut pages = vacuum.query([]).map_err(failed)?;
    while pages.next().map_err(failed)?.is_some() {}
    let after = free().map_err(failed)?;
    // In an application's own file the pages may be there to stay.
    Ok(SPARE < after && after < before)
}

/// Writes the database anew without its free space, and returns its size in bytes before and after. `name` names it in
/// errors.
pub(crate) fn compact(conn: &Connection, name: &str, patience: Duration) -> Result<(u64, u64)> {
    be_patient(patience);
    let has_log = has_log(conn)?;
    let before = size(conn)?;
    let needed = (before.bytes - before.free) * if has_log { 2 } else { 1 };
    let cannot = |error: Error| {
        let kind = error.kind();
        let message = match kind {
            Kind::Full => format!(
                "cannot compact {name}: there is no room for it; about {needed} bytes are needed for a while, half of them \
                 where temporary files go; nothing was changed"
            ),
            Kind::Busy => format!(
                "cannot compact {name}: another process reads or writes it all the time; nothing was changed; try again \
                 when it rests"
            ),
            _ => format!("cannot compact {name}; nothing was changed"),
        };
        Error::new(kind, message).because(error)
    };
    // A reader of an old state keeps the log from being emptied, and so keeps the file from becoming smaller.
    if has_log && !empty_log(conn).map_err(failed).map_err(cannot)? {
        return Err(cannot(Error::new(Kind::Busy, "a reader keeps an old state")));
    }
    be_patient(patience);
    conn.execute_batch("VACUUM").map_err(failed).map_err(cannot)?;
    be_patient(patience);
    // The database is compact now. If a reader came meanwhile, the file becomes smaller a little later.
    let _ = has_log.then(|| empty_log(conn));
    Ok((before.bytes, size(conn)?.bytes))
}
