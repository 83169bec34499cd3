//! From a path to a connection: everything that can be wrong with a file is found before the file is touched.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::connection::{pragma, set_up_to_write, writing};
use super::error::{cannot_open, cannot_use, failed};
use super::filesystem::{self, private};
use super::options::Options;
use super::schema::{Migration, SCHEMA, Schema, Use};
use crate::error::{Error, Kind, Result};

/// Makes sure that a path can be opened, and returns the real path. The file exists then, created if need be; it lies on a
/// disk of this machine; and it may be written, unless it is opened to be read only.
pub(crate) fn prepare(path: &Path, options: &Options) -> Result<PathBuf> {
    let unusable = |why: &str| cannot_open(path, why);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(unusable("it is a directory; give the path of a file in it")),
        Ok(found) if !found.is_file() => return Err(unusable("it is no regular file")),
        // SQLite takes a file of one byte for an empty file, and would write over it.
        Ok(found) if found.len() == 1 => return Err(unusable("it is not a database; it was not touched")),
        Ok(found) if found.permissions().readonly() && !options.read_only => return Err(unusable(READ_ONLY)),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && options.read_only => {
            return Err(unusable("it is not there, and opened to be read only it is not created"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path, options)?,
        Err(error) => return Err(unusable("it cannot be looked at").because(error)),
    }
    let real = fs::canonicalize(path).map_err(|error| unusable("its real path cannot be told").because(error))?;
    if let (Some(folder), false) = (real.parent(), options.network_allowed) {
        filesystem::check(path, folder)?;
    }
    Ok(real)
}

const READ_ONLY: &str = "it is read-only, and kiln has to write to it; to look at it only, open it with \
                         KilnBuilder::read_only";

fn create(path: &Path, options: &Options) -> Result<()> {
    let unusable = |why: &str| cannot_open(path, why);
    // Names that SQLite itself would not take for a path.
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
        filesystem::check(path, &folder)?;
    }
    match private(OpenOptions::new().write(true).create_new(true)).open(path) {
        Ok(_) => {
            // The file's name has to be as durable as its content will be. Not every system can sync a folder.
            let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
            Ok(())
        }
        // Another process was faster, so the file is there.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable("it cannot be created").because(error)),
    }
}

/// A connection for writing, set up, with kiln's tables in place; and what had to be done to the tables.
pub(crate) fn writer(path: &Path, options: &Options) -> Result<(Connection, Option<Migration>)> {
    writer_of(path, options, &SCHEMA)
}

/// The same for a kiln of another schema, which tests make up.
pub(super) fn writer_of(
    path: &Path,
    options: &Options,
    schema: &'static Schema,
) -> Result<(Connection, Option<Migration>)> {
    connect(path, options, schema).map_err(|error| match error.kind() {
        // What SQLite says of these does not name the file.
        Kind::Busy | Kind::Full | Kind::Storage => {
            Error::new(error.kind(), format!("cannot open {}", path.display())).because(error)
        }
        _ => error,
    })
}

fn connect(path: &Path, options: &Options, schema: &'static Schema) -> Result<(Connection, Option<Migration>)> {
    let conn = writing(path)?;
    conn.busy_timeout(options.patience).map_err(failed)?;
    if conn.is_readonly("main").map_err(failed)? {
        return Err(cannot_open(path, READ_ONLY));
    }
    // The first read of the file: it fails if the file is no database at all.
    let pages: i64 = pragma(&conn, "page_count").map_err(|error| cannot_use(path, error))?;
    schema.check(&conn, path, Use::Write)?;
    if pages == 0 {
        // This is possible only before the first table. It lets pruning give space back in small steps.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(failed)?;
    }
    if !options.keep_journal_mode {
        switch_to_wal(&conn, path, options.patience)?;
    }
    set_up_to_write(&conn, options.patience)?;
    let migration = schema.migrate(&conn, (!options.unbacked_migration).then_some(path))?;
    Ok((conn, migration))
}

/// The connection to a new database in memory, set up, with kiln's tables.
pub(crate) fn in_memory(options: &Options) -> Result<Connection> {
    let conn = Connection::open_in_memory().map_err(failed)?;
    set_up_to_write(&conn, options.patience)?;
    SCHEMA.migrate(&conn, None)?;
    Ok(conn)
}

fn switch_to_wal(conn: &Connection, path: &Path, patience: Duration) -> Result<()> {
    // SQLite does not wait for this lock by itself if two processes switch at once.
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
    let why = format!("its journal mode stays {mode:?} where \"wal\" is needed; is it on a network file system?");
    Err(cannot_open(path, why))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
