//! The errors of SQLite, as callers of kiln see them.

use std::fmt::Display;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::error::{Error, Kind};

/// Translates an error of SQLite. This is the one list of the errors that trying again may cure.
pub(crate) fn failed(error: rusqlite::Error) -> Error {
    let code = error.sqlite_error_code();
    let translated = match code {
        Some(ErrorCode::DatabaseBusy) if extended_code(&error) == Some(ffi::SQLITE_BUSY_SNAPSHOT) => {
            let message = "the transaction has read what another connection changed since, so it can write nothing any \
                           more; roll it back, and begin it with IMMEDIATE";
            Error::new(Kind::Busy, message)
        }
        // SQLite reports the last of these if other connections held a lock for ten seconds that every read needs first.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            let message = "another process holds the database's write lock; nothing was written, try again";
            Error::new(Kind::Busy, message)
        }
        Some(ErrorCode::DiskFull) => Error::new(Kind::Full, "no space left for the database; nothing was written"),
        Some(ErrorCode::ReadOnly) => Error::new(Kind::Unusable, "the database became read-only"),
        _ => Error::new(Kind::Storage, "the database failed"),
    };
    translated.because(error)
}

/// The error for a file that cannot be opened.
pub(super) fn cannot_open(path: &Path, why: impl Display) -> Error {
    Error::new(Kind::Unusable, format!("cannot open {}: {why}", path.display()))
}

/// The error for a file that SQLite cannot use, with its path.
pub(super) fn cannot_use(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => cannot_open(path, "it is not a database; it was not touched"),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::new(Kind::Unusable, format!("cannot open {}", path.display())).because(error)
        }
        _ => failed(error),
    }
}

/// SQLite's extended code, which tells errors of one kind apart.
pub(super) fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}
