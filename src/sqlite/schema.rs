//! kiln's tables and their version. They have a version of their own: `user_version` belongs to the application.

use std::path::Path;

use rusqlite::Connection;

use super::failed;
use super::open::has_table;
use crate::error::Kind;
use crate::{Error, Result};

/// The version this kiln writes.
const VERSION: i64 = 2;

/// From version n to n + 1, for n from 0. Within a major release they only add, so that an older kiln keeps working.
const MIGRATIONS: [&str; VERSION as usize] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

struct Found {
    version: i64,
    min_writer: i64,
    written_by: String,
}

/// Refuses a file of a kiln that this one does not understand, without writing to it.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<()> {
    match read(conn)? {
        Some(found) if found.min_writer > VERSION => {
            let message = format!(
                "cannot open {}: it was written by {}, with schema version {}, which this kiln {} does not understand; \
                 it was not touched; use the newer one",
                path.display(),
                found.written_by,
                found.version,
                env!("CARGO_PKG_VERSION"),
            );
            Err(Error::new(Kind::Incompatible, message))
        }
        _ => Ok(()),
    }
}

/// Brings the tables to this version, in one transaction: two processes that open at once do it once.
pub(super) fn migrate(conn: &Connection) -> Result<()> {
    let version = |conn| Ok::<_, Error>(read(conn)?.map_or(0, |found| found.version));
    if version(conn)? >= VERSION {
        return Ok(());
    }
    let tx = rusqlite::Transaction::new_unchecked(conn, rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    for migration in MIGRATIONS.iter().skip(version(&tx)? as usize) {
        tx.execute_batch(migration).map_err(failed)?;
    }
    let written_by = concat!("kiln ", env!("CARGO_PKG_VERSION"));
    let update = "UPDATE kiln_schema SET version = ?1, written_by = ?2";
    if tx.execute(update, (VERSION, written_by)).map_err(failed)? == 0 {
        let insert = "INSERT INTO kiln_schema (version, min_reader, min_writer, written_by) VALUES (?1, 1, 1, ?2)";
        tx.execute(insert, (VERSION, written_by)).map_err(failed)?;
    }
    tx.commit().map_err(failed)
}

fn read(conn: &Connection) -> Result<Option<Found>> {
    if !has_table(conn, "kiln_schema").map_err(failed)? {
        return Ok(None);
    }
    let found = conn
        .query_row("SELECT version, min_writer, written_by FROM kiln_schema ORDER BY version DESC", [], |row| {
            Ok(Found { version: row.get(0)?, min_writer: row.get(1)?, written_by: row.get(2)? })
        })
        .map_err(failed)?;
    Ok(Some(found))
}
