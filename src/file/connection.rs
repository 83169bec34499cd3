//! Connections to a file, and what every connection of kiln's is set to.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::busy::{be_patient, busy};
use super::error::{cannot_use, failed};
use crate::error::{Error, Kind, Result};

pub(super) const WRITING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

const READING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// A connection that can write. It is not set up yet.
pub(super) fn writing(path: &Path) -> Result<Connection> {
    Connection::open_with_flags(path, WRITING).map_err(|error| cannot_use(path, error))
}

/// A connection that cannot write.
pub(crate) fn read_only(path: &Path, patience: Duration) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, READING).map_err(|error| cannot_use(path, error))?;
    conn.busy_timeout(patience).map_err(failed)?;
    Ok(conn)
}

/// One more connection that can write. It waits as long as its thread [is patient](be_patient).
pub(crate) fn spare(path: &Path) -> Result<Connection> {
    let conn = writing(path)?;
    conn.busy_handler(Some(busy)).map_err(failed)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON").map_err(failed)?;
    Ok(conn)
}

/// A connection that takes no locks and leaves nothing beside the file, for a file that no other connection writes.
pub(super) fn immutable(path: &Path) -> Result<Connection> {
    let mut uri = "file:".to_owned();
    let text = path.to_string_lossy();
    if cfg!(windows) {
        uri.push('/');
    }
    for byte in bytes(path, &text) {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => uri.push(char::from(byte)),
            b':' if cfg!(windows) => uri.push(':'),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    Connection::open_with_flags(uri, READING | OpenFlags::SQLITE_OPEN_URI).map_err(|error| cannot_use(path, error))
}

#[cfg(unix)]
fn bytes(path: &Path, _: &str) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}

/// Windows puts `\\?\` before a real path. An address cannot have that prefix.
#[cfg(not(unix))]
fn bytes(_: &Path, text: &str) -> Vec<u8> {
    text.strip_prefix(r"\\?\").unwrap_or(text).as_bytes().to_vec()
}

/// Sets up a connection for writing, and reads the settings back: SQLite silently ignores a misspelt pragma.
pub(super) fn set_up_to_write(conn: &Connection, patience: Duration) -> Result<()> {
    conn.set_prepared_statement_cache_capacity(128);
    keep_plans(conn).map_err(failed)?;
    rusqlite::vtab::array::load_module(conn).map_err(failed)?;
    for (name, expected) in
        [("synchronous", 2), ("fullfsync", 1), ("temp_store", 2), ("journal_size_limit", 67_108_864)]
    {
        conn.execute_batch(&format!("PRAGMA {name} = {expected}")).map_err(failed)?;
        let found: i64 = pragma(conn, name).map_err(failed)?;
        if found != expected {
            let message = format!("PRAGMA {name} is {found} where {expected} was set; this SQLite cannot be relied on");
            return Err(Error::new(Kind::Unusable, message));
        }
    }
    conn.busy_timeout(patience).map_err(failed)?;
    conn.busy_handler(Some(busy)).map_err(failed)?;
    // The next thing the thread does is to create the tables, which is a write like any other.
    be_patient(patience);
    Ok(())
}

/// Sets up a connection that only reads, although it was opened for writing. (A connection opened for reading could not
/// create the shared memory of the log.)
pub(super) fn set_up_to_read(conn: &Connection, patience: Duration) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(64);
    keep_plans(conn)?;
    conn.busy_timeout(patience)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY")
}

/// Keeps the plan of a statement whatever its parameters are. Otherwise SQLite compiles each statement on a partial index
/// again when a parameter is bound, since another value may allow another plan. That was three quarters of the time of a
/// claim of one job.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

/// The value of a pragma.
pub(crate) fn pragma<T: rusqlite::types::FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<T> {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// Whether the database keeps its changes in a write-ahead log.
pub(super) fn has_log(conn: &Connection) -> Result<bool> {
    Ok(pragma::<String>(conn, "journal_mode").map_err(failed)? == "wal")
}

/// Whether the database has a table of this name.
pub(super) fn has_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    Ok(conn.query_row(sql, [name], |_| Ok(())).optional()?.is_some())
}
