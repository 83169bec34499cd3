//! A copy of a whole database, through SQLite's own backup: the file itself is never opened by other means, which would
//! drop the process's locks on it.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::live::private;
use super::open::{self, has_table};
use super::patience::{be_patient, busy};
use super::{failed, sql};
use crate::error::Kind;
use crate::{Error, Result};

/// So many pages are copied at a time.
const PAGES: i32 = 1000;

/// A copy that was begun anew so often, since somebody wrote meanwhile, is made in one go.
const PATIENT: u32 = 5;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Takes the place of a file that is there.
    pub over: bool,
    /// The runtimes of the original are none of the copy's.
    pub forget_runtimes: bool,
    /// On a connection that is for nothing else: how long each look waits for its turn. It does so as fairly as a writer,
    /// or it would never come in between those who write one after the other.
    pub patience: Option<Duration>,
}

impl Manner {
    fn be_patient(&self) {
        self.patience.into_iter().for_each(be_patient);
    }
}

/// The path a copy of `file` may be written to: its real folder, and nothing that is the file's own.
pub(super) fn destination(file: Option<&Path>, to: &Path, over: bool) -> Result<PathBuf> {
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
        if with(&real, end).exists() {
            return refused(format!(
                "{} lies beside it: a database of this name is open, or was not closed well; choose another name",
                with(&real, end).display()
            ));
        }
    }
    Ok(real)
}

/// Whether two paths are one file, whatever links lead there.
fn is_same(file: &Path, other: &Path) -> bool {
    if fs::canonicalize(other).is_ok_and(|other| fs::canonicalize(file).is_ok_and(|file| file == other)) {
        return true;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        id(file).is_some_and(|file| id(other) == Some(file))
    }
    #[cfg(not(unix))]
    false
}

fn is_sidecar(file: &Path, other: &Path) -> bool {
    let (Some(name), Some(others)) = (file.file_name(), other.file_name()) else { return false };
    let prefix = format!("{}-", name.to_string_lossy());
    file.parent() == other.parent() && others.to_string_lossy().starts_with(&prefix)
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Copies what `from` sees to `to`, which is there as a whole, synced, or not at all; says how many bytes it has.
pub(super) fn snapshot(from: &Connection, to: &Path, manner: &Manner) -> Result<u64> {
    let unborn = with(to, &format!(".{:08x}.unfinished", fastrand::u32(..)));
    let done = fill(from, &unborn, manner).and_then(|()| name(&unborn, to, manner.over));
    if done.is_err() {
        for end in ["", "-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(with(&unborn, end));
        }
    }
    done.map_err(|error| {
        Error::new(error.kind(), format!("cannot copy the database to {}", to.display())).because(error)
    })
}

fn fill(from: &Connection, unborn: &Path, manner: &Manner) -> Result<()> {
    let lost = |error: std::io::Error| storage("the file cannot be written", error);
    private(OpenOptions::new().write(true).create_new(true)).open(unborn).map_err(lost)?;
    let mut copy = Connection::open_with_flags(unborn, open::WRITING).map_err(failed)?;
    // It is not there until it is whole: nothing of it has to be undone.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(failed)?;
    if manner.patience.is_some() {
        from.busy_handler(Some(busy)).map_err(failed)?;
    }
    manner.be_patient();
    let wal = open::pragma::<String>(from, "journal_mode").map_err(failed)? == "wal";
    // In WAL mode a reader keeps nobody from writing, so all is read as it is now. Otherwise it would: then the lock is
    // given back between steps, as often as that leads to an end.
    let held = (wal && from.is_autocommit()).then(|| from.unchecked_transaction()).transpose().map_err(failed)?;
    manner.be_patient();
    from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    pages(from, &mut copy, manner).map_err(failed)?;
    drop(held);
    if manner.forget_runtimes && has_table(&copy, "kiln_runtimes").map_err(failed)? {
        copy.execute(sql::FORGET_RUNTIMES, []).map_err(failed)?;
    }
    copy.close().map_err(|(_, error)| failed(error))?;
    // Nobody has it open any more.
    OpenOptions::new().read(true).write(true).open(unborn).and_then(|file| file.sync_all()).map_err(lost)
}

fn pages(from: &Connection, copy: &mut Connection, manner: &Manner) -> rusqlite::Result<()> {
    let backup = Backup::new(from, copy)?;
    let (mut left, mut anew, mut busy) = (i32::MAX, 0, 0);
    loop {
        manner.be_patient();
        match backup.step(if anew < PATIENT { PAGES } else { -1 })? {
            StepResult::Done => return Ok(()),
            StepResult::More => busy = 0,
            // Whoever commits has it in a moment.
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
            anew += 1;
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
            // Not every file system has links; then what came to be there meanwhile is looked for.
            Err(_) if fs::symlink_metadata(to).is_err() => fs::rename(unborn, to).map_err(lost)?,
            Err(error) => return Err(lost(error)),
        }
    }
    // Not every system syncs folders.
    let _ = to.parent().map(File::open).and_then(|folder| folder.ok()?.sync_all().ok());
    Ok(bytes)
}

fn storage(message: &'static str, error: std::io::Error) -> Error {
    let kind = if error.kind() == ErrorKind::StorageFull { Kind::Full } else { Kind::Storage };
    Error::new(kind, message).because(error)
}
