//! After a sync that failed, nobody knows what of the log is on the disk. The system may take for written what it could not
//! write, so that the next sync says that all is well; and at the first hole in the log, a power cut ends it.

use std::cell::Cell;
use std::error::Error as _;

use rusqlite::{Connection, ffi};

use super::failed;
use super::patience::empty_log;
use crate::error::Kind;
use crate::{Error, Result};

/// Whether an error means that a sync failed.
pub(super) fn arises(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<rusqlite::Error>());
    let code = cause.and_then(rusqlite::Error::sqlite_error).map(|error| error.extended_code);
    code == Some(ffi::SQLITE_IOERR_FSYNC)
}

/// Where there is doubt, writes the whole log back into the database and begins it anew: only then is anything after it
/// safe.
pub(super) fn end(conn: &Connection, doubtful: &Cell<bool>) -> Result<()> {
    if !doubtful.get() {
        return Ok(());
    }
    if !empty_log(conn).map_err(failed)? {
        let message = "the disk failed before, and what was written then cannot be made safe while somebody reads; \
                       nothing was written, try again";
        return Err(Error::new(Kind::Busy, message));
    }
    doubtful.set(false);
    Ok(())
}
