//! Who lives: a runtime holds an OS lock on its own sidecar file. The kernel drops it with the process, however that
//! ends, and neither sleep nor a clock nor a new process with an old number can fake it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Kind;
use crate::{Error, Result};

/// A sidecar that is not there may have been deleted under a living runtime; that one puts it back within this time.
const MISSING: Duration = Duration::from_secs(2);

pub(super) struct Live {
    /// The database's file; `None` for one in memory, where all who live are here.
    file: Option<PathBuf>,
    held: Mutex<HashMap<String, Option<File>>>,
    missing: Mutex<HashMap<String, Instant>>,
}

impl Live {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, held: Mutex::default(), missing: Mutex::default() }
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Takes the lock of a runtime that is to live here.
    pub fn enter(&self, id: &str) -> Result<()> {
        let lock = match self.sidecar(id) {
            Some(path) => Some(create(&path)?),
            None => None,
        };
        self.held.lock().insert(id.to_owned(), lock);
        Ok(())
    }

    /// Puts back what somebody deleted.
    pub fn refresh(&self) {
        for (id, lock) in self.held.lock().iter_mut() {
            if let Some(path) = self.sidecar(id)
                && !path.exists()
                && let Ok(file) = create(&path)
            {
                *lock = Some(file);
            }
        }
    }

    /// Gives the lock back.
    pub fn leave(&self, id: &str) {
        if self.held.lock().remove(id).is_some() {
            self.bury(id);
        }
    }

    pub fn is_here(&self, id: &str) -> bool {
        self.held.lock().contains_key(id)
    }

    /// Whether a runtime is dead for sure.
    pub fn is_dead(&self, id: &str) -> bool {
        if self.is_here(id) {
            return false;
        }
        let Some(path) = self.sidecar(id) else { return true };
        match OpenOptions::new().read(true).write(true).open(&path).map(|file| file.try_lock()) {
            Ok(Ok(())) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.missing.lock().entry(id.to_owned()).or_insert_with(Instant::now).elapsed() >= MISSING
            }
            // In doubt it lives: a job that waits is better than one that runs twice.
            Ok(Err(_)) | Err(_) => {
                self.missing.lock().remove(id);
                false
            }
        }
    }

    /// Removes what a dead runtime left.
    pub fn bury(&self, id: &str) {
        self.missing.lock().remove(id);
        if let Some(path) = self.sidecar(id) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn sidecar(&self, id: &str) -> Option<PathBuf> {
        // An id is read from a row that anybody may have written.
        let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let mut name = self.file.clone()?.into_os_string();
        name.push(if plain { format!("-kiln-{id}") } else { "-kiln-".to_owned() });
        Some(name.into())
    }
}

fn create(path: &Path) -> Result<File> {
    let failed = |message: &str| Error::new(Kind::Runtime, format!("{message} {}", path.display()));
    let file = private(OpenOptions::new().read(true).write(true).create_new(true))
        .open(path)
        .map_err(|error| failed("cannot create the sidecar file").because(error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(failed("somebody else locked the sidecar file")),
        Err(TryLockError::Error(error)) => Err(failed("this file system cannot lock the sidecar file").because(error)),
    }
}

/// For the owner's eyes only, where the system knows such a thing.
#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

/// For the owner's eyes only: elsewhere a file inherits what its folder allows.
#[cfg(not(unix))]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}
