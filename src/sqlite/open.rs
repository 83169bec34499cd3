//! From a path to a connection: everything that can be wrong with a file is found before it is touched.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::live::private;
use super::patience::{be_patient, busy};
use super::schema::{self, Migration};
use super::{failed, place, recorded};
use crate::error::Kind;
use crate::{Durability, Error, Result};

/// How a file is opened.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub durability: Durability,
    /// How long a call waits for the write lock before it gives up.
    pub patience: Duration,
    pub keep_journal_mode: bool,
    /// Nothing is written.
    pub read_only: bool,
    /// A network or FUSE file system will do.
    pub network_allowed: bool,
    /// No backup before a migration.
    pub unbacked_migration: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            patience: Duration::from_secs(5),
            keep_journal_mode: false,
            read_only: false,
            network_allowed: false,
            unbacked_migration: false,
        }
    }
}

/// A path that can be opened: the file is there, it is a file on a disk of this machine, and it may be written, unless
/// it is only to be read.
pub(super) fn prepare(path: &Path, options: &Options) -> Result<PathBuf> {
    let unusable = |why: &str| Error::new(Kind::Unusable, format!("cannot open {}: {why}", path.display()));
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(unusable("it is a directory; give the path of a file in it")),
        Ok(found) if !found.is_file() => return Err(unusable("it is no regular file")),
        // SQLite takes a file of one byte for an empty one, and would write over it.
        Ok(found) if found.len() == 1 => return Err(unusable("it is not a database; it was not touched")),
        Ok(found) if found.permissions().readonly() && !options.read_only => return Err(unusable(READ_ONLY)),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && options.read_only => {
            return Err(unusable("it is not there, and opened to be read only it is not created"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path, options, &unusable)?,
        Err(error) => return Err(unusable("it cannot be looked at").because(error)),
    }
    let real = fs::canonicalize(path).map_err(|error| unusable("its real path cannot be told").because(error))?;
    if let (Some(folder), false) = (real.parent(), options.network_allowed) {
        place::check(path, folder)?;
    }
    Ok(real)
}

const READ_ONLY: &str = "it is read-only, and kiln has to write to it; to look at it only, open it with \
                         KilnBuilder::read_only";

fn create(path: &Path, options: &Options, unusable: &dyn Fn(&str) -> Error) -> Result<()> {
    // What SQLite itself would not take for a path.
    match path.as_os_str().as_encoded_bytes() {
        b":memory:" => return Err(unusable("it would be a file of that name; for jobs in memory use Kiln::in_memory")),
        [b'f', b'i', b'l', b'e', b':', ..] => return Err(unusable("it is an address; give a path")),
        _ => {}
    }
    let folder = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(unusable("it names no file")),
    };
    if !folder.is_dir() {
        return Err(unusable(&format!("the folder {} does not exist; create it first", folder.display())));
    }
    if let (Ok(folder), false) = (fs::canonicalize(folder), options.network_allowed) {
        place::check(path, &folder)?;
    }
    match private(OpenOptions::new().write(true).create_new(true)).open(path) {
        Ok(_) => {
            // The file's name is as durable as its content is going to be. Not every system syncs folders.
            let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
            Ok(())
        }
        // Somebody else was faster: then it is there.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable("it cannot be created").because(error)),
    }
}

/// A connection for writing, with kiln's tables in place, and what had to be done to them.
pub(super) fn writer(path: &Path, options: &Options) -> Result<(Connection, Option<Migration>)> {
    connect(path, options).map_err(|error| match error.kind() {
        // What the database says of itself does not name it.
        Kind::Busy | Kind::Full | Kind::Storage => {
            Error::new(error.kind(), format!("cannot open {}", path.display())).because(error)
        }
        _ => error,
    })
}

fn connect(path: &Path, options: &Options) -> Result<(Connection, Option<Migration>)> {
    let conn = Connection::open_with_flags(path, WRITING).map_err(|error| cannot_use(path, error))?;
    conn.busy_timeout(options.patience).map_err(failed)?;
    if conn.is_readonly("main").map_err(failed)? {
        return Err(Error::new(Kind::Unusable, format!("cannot open {}: {READ_ONLY}", path.display())));
    }
    // The first look at the file: whether it is a database at all.
    let pages: i64 = pragma(&conn, "page_count").map_err(|error| cannot_use(path, error))?;
    schema::check(&conn, path)?;
    if pages == 0 {
        // Only before the first table; it lets pruning give space back in small bites.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(failed)?;
    }
    if !options.keep_journal_mode {
        switch_to_wal(&conn, path, options.patience)?;
    }
    settle(&conn, options)?;
    let migration = schema::migrate(&conn, (!options.unbacked_migration).then_some(path))?;
    Ok((conn, migration))
}

pub(super) fn in_memory(options: &Options) -> Result<Connection> {
    let conn = Connection::open_in_memory().map_err(failed)?;
    settle(&conn, options)?;
    schema::migrate(&conn, None)?;
    Ok(conn)
}

pub(super) const WRITING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

const READING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// A connection that cannot write.
pub(super) fn read_only(path: &Path, patience: Duration) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, READING).map_err(|error| cannot_use(path, error))?;
    conn.busy_timeout(patience).map_err(failed)?;
    Ok(conn)
}

/// One more connection that can write, for as long as its thread is patient.
pub(super) fn spare(path: &Path) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, WRITING).map_err(|error| cannot_use(path, error))?;
    conn.busy_handler(Some(busy)).map_err(failed)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON").map_err(failed)?;
    Ok(conn)
}

/// A connection that takes no locks and leaves nothing beside the file: for one that nobody writes.
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

/// Windows puts `\\?\` before a real path, which is none within an address.
#[cfg(not(unix))]
fn bytes(_: &Path, text: &str) -> Vec<u8> {
    text.strip_prefix(r"\\?\").unwrap_or(text).as_bytes().to_vec()
}

/// What every connection of ours is set to, and read back: a pragma that is misspelt is silently ignored.
fn settle(conn: &Connection, options: &Options) -> Result<()> {
    conn.set_prepared_statement_cache_capacity(128);
    keep_plans(conn).map_err(failed)?;
    rusqlite::vtab::array::load_module(conn).map_err(failed)?;
    recorded::teach(conn).map_err(failed)?;
    let settings = "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA temp_store = MEMORY;";
    conn.execute_batch(settings).map_err(failed)?;
    let _: i64 = conn.query_row("PRAGMA journal_size_limit = 67108864", [], |row| row.get(0)).map_err(failed)?;
    for (name, expected) in
        [("synchronous", 2), ("fullfsync", 1), ("temp_store", 2), ("journal_size_limit", 67_108_864)]
    {
        let found: i64 = pragma(conn, name).map_err(failed)?;
        if found != expected {
            let message = format!("PRAGMA {name} is {found} where {expected} was set; this SQLite cannot be relied on");
            return Err(Error::new(Kind::Unusable, message));
        }
    }
    conn.busy_timeout(options.patience).map_err(failed)?;
    conn.busy_handler(Some(busy)).map_err(failed)?;
    // Creating the tables is a write like any other.
    be_patient(options.patience);
    Ok(())
}

pub(super) fn reader(conn: &mut Connection, patience: Duration) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(64);
    keep_plans(conn)?;
    conn.busy_timeout(patience)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY")
}

/// Otherwise every statement on a partial index would be compiled anew each time a parameter is bound, since its value
/// might allow another plan: three quarters of a claim of one job.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

fn switch_to_wal(conn: &Connection, path: &Path, patience: Duration) -> Result<()> {
    // SQLite does not wait for this lock by itself where two processes switch at once.
    let until = Instant::now() + patience;
    let mode: String = loop {
        match conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if is_busy(&error) && Instant::now() < until => thread::sleep(Duration::from_millis(2)),
            result => break result.map_err(failed)?,
        }
    };
    if mode == "wal" {
        return Ok(());
    }
    let message = format!(
        "cannot open {}: its journal mode stays {mode:?} where \"wal\" is needed; is it on a network file system?",
        path.display()
    );
    Err(Error::new(Kind::Unusable, message))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub(super) fn pragma<T: rusqlite::types::FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<T> {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

fn cannot_use(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            let message = format!("cannot open {}: it is not a database; it was not touched", path.display());
            Error::new(Kind::Unusable, message)
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::new(Kind::Unusable, format!("cannot open {}", path.display())).because(error)
        }
        _ => failed(error),
    }
}

/// Whether the database has a table of this name.
pub(super) fn has_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    Ok(conn.query_row(sql, [name], |_| Ok(())).optional()?.is_some())
}
