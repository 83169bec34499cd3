//! A copy of a whole database, through SQLite's own backup. The file is never opened by other means: closing it would drop
//! the process's locks on it.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::busy::{be_patient, busy};
use super::connection::{WRITING, has_log, has_table};
use super::error::failed;
use super::filesystem::{beside, identity, private};
use crate::error::{Error, Kind, Result};

/// How many pages are copied at a time.
const PAGES: i32 = 1000;

/// SQLite begins a copy again if another process writes meanwhile. After so many times, the copy is made in one go.
const RESTARTS: u32 = 5;

/// How a copy is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CopyOptions {
    /// The copy takes the place of a file that is there.
    pub over: bool,
    /// Tables whose rows are left out of the copy.
    pub without: &'static [&'static str],
    /// For a connection that serves nothing else: how long each step waits for a lock. The connection gets kiln's busy
    /// handler then. With SQLite's own it would hardly get a turn between busy writers.
    pub patience: Option<Duration>,
}

impl CopyOptions {
    fn be_patient(&self) {
        if let Some(patience) = self.patience {
            be_patient(patience);
        }
    }
}

/// Checks that a copy of `file` may be written to `to`, and returns the real path. The name must not be taken, unless
/// `over`, and must not be one of the database's own names.
pub(crate) fn destination(file: Option<&Path>, to: &Path, over: bool) -> Result<PathBuf> {
    let refused = |why: String| Err(Error::invalid("path", format!("cannot back up to {}: {why}", to.display())));
    let (Some(name), Some(folder)) = (to.file_name(), to.parent()) else {
        return refused("it names no file".to_owned());
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(folder) = fs::canonicalize(folder) else {
        return refused(format!("the folder {} does not exist; create it first", folder.display()));
    };
    let mut real = folder.join(name);
    if let Ok(found) = fs::symlink_metadata(&real) {
        if file.is_some_and(|file| is_same(file, &real)) {
            return refused("it is the database itself".to_owned());
        }
        if !over {
            return refused("it exists; choose another name, or replace it with Kiln::backup_over".to_owned());
        }
        if found.is_symlink() {
            let Ok(target) = fs::canonicalize(&real) else {
                return refused("it is a link to nowhere".to_owned());
            };
            real = target;
        }
        if !real.is_file() {
            return refused("it is no regular file".to_owned());
        }
    }
    if file.is_some_and(|file| is_sidecar(file, &real)) {
        return refused("it is the name of one of the database's own side files; choose another".to_owned());
    }
    for end in ["-wal", "-journal"] {
        if beside(&real, end).exists() {
            return refused(format!(
                "{} lies beside it: a database of this name is open, or was not closed well; choose another name",
                beside(&real, end).display()
            ));
        }
    }
    Ok(real)
}

/// Whether two paths lead to one file, through whatever links.
fn is_same(file: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    real(file).is_some_and(|file| real(other) == Some(file))
        || identity(file).is_some_and(|file| identity(other) == Some(file))
}

fn is_sidecar(file: &Path, other: &Path) -> bool {
    let (Some(name), Some(others)) = (file.file_name(), other.file_name()) else { return false };
    let prefix = format!("{}-", name.to_string_lossy());
    file.parent() == other.parent() && others.to_string_lossy().starts_with(&prefix)
}

/// Copies what `from` sees to `to`, and returns the size of the copy in bytes. The copy is there as a whole, and synced, or
/// not at all.
pub(crate) fn snapshot(from: &Connection, to: &Path, options: &CopyOptions) -> Result<u64> {
    let unborn = beside(to, &format!(".{:08x}.unfinished", fastrand::u32(..)));
    let done = fill(from, &unborn, options).and_then(|()| name(&unborn, to, options.over));
    if done.is_err() {
        for end in ["", "-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(&unborn, end));
        }
    }
    done.map_err(|error| {
        Error::new(error.kind(), format!("cannot copy the database to {}", to.display())).because(error)
    })
}

fn fill(from: &Connection, unborn: &Path, options: &CopyOptions) -> Result<()> {
    let lost = |error: std::io::Error| storage("the file cannot be written", error);
    private(OpenOptions::new().write(true).create_new(true)).open(unborn).map_err(lost)?;
    let mut copy = Connection::open_with_flags(unborn, WRITING).map_err(failed)?;
    // The copy gets its name once it is whole, so nothing of it ever has to be rolled back.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(failed)?;
    if options.patience.is_some() {
        from.busy_handler(Some(busy)).map_err(failed)?;
    }
    options.be_patient();
    // With a log a reader keeps nobody from writing, so the whole copy is one transaction. Without a log it would, so the
    // lock is given back between steps.
    let held =
        (has_log(from)? && from.is_autocommit()).then(|| from.unchecked_transaction()).transpose().map_err(failed)?;
    options.be_patient();
    from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    pages(from, &mut copy, options).map_err(failed)?;
    drop(held);
    for table in options.without {
        if has_table(&copy, table).map_err(failed)? {
            copy.execute(&format!("DELETE FROM {table}"), []).map_err(failed)?;
        }
    }
    copy.close().map_err(|(_, error)| failed(error))?;
    // No connection has the copy open any more, so no lock is lost.
    OpenOptions::new().read(true).write(true).open(unborn).and_then(|file| file.sync_all()).map_err(lost)
}

fn pages(from: &Connection, copy: &mut Connection, options: &CopyOptions) -> rusqlite::Result<()> {
    let backup = Backup::new(from, copy)?;
    let (mut left, mut restarts, mut busy) = (i32::MAX, 0, 0);
    loop {
        options.be_patient();
        match backup.step(if restarts < RESTARTS { PAGES } else { -1 })? {
            StepResult::Done => return Ok(()),
            StepResult::More => busy = 0,
            // Another connection is committing, and is done in a moment.
            _ if busy < 500 => {
                busy += 1;
                thread::sleep(Duration::from_millis(10));
            }
            _ => {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, None));
            }
        }
        let progress = backup.progress();
        if progress.remaining > left {
            restarts += 1;
        }
        left = progress.remaining;
        thread::yield_now();
    }
}

fn name(unborn: &Path, to: &Path, over: bool) -> Result<u64> {
    let lost = |error: std::io::Error| storage("the file cannot be given its name", error);
    let bytes = fs::metadata(unborn).map_err(lost)?.len();
    if over {
        fs::rename(unborn, to).map_err(lost)?;
    } else {
        match fs::hard_link(unborn, to) {
            Ok(()) => fs::remove_file(unborn).map_err(lost)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(lost(error)),
            // Not every file system has links. Then the name is checked once more, and the file renamed.
            Err(_) if fs::symlink_metadata(to).is_err() => fs::rename(unborn, to).map_err(lost)?,
            Err(error) => return Err(lost(error)),
        }
    }
    // Not every system can sync a folder.
    let _ = to.parent().map(File::open).and_then(|folder| folder.ok()?.sync_all().ok());
    Ok(bytes)
}

fn storage(message: &'static str, error: std::io::Error) -> Error {
    let kind = if error.kind() == ErrorKind::StorageFull { Kind::Full } else { Kind::Storage };
    Error::new(kind, message).because(error)
}
