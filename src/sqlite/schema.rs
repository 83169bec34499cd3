//! kiln's tables and their version. They have a version of their own: `user_version` belongs to the application.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::open::{self, has_table};
use super::{copy, failed, rows};
use crate::error::Kind;
use crate::{Error, Result};

/// The version this kiln writes.
const VERSION: i64 = 2;

/// Who may write what it writes.
const MIN_WRITER: i64 = 2;

/// From version n to n + 1, for n from 0.
const MIGRATIONS: [&str; VERSION as usize] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

struct Found {
    version: i64,
    min_reader: i64,
    min_writer: i64,
    written_by: String,
}

/// What was done to a file that an older kiln had written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Migration {
    pub from: i64,
    pub to: i64,
    pub backup: Option<PathBuf>,
}

/// Refuses a file that may not be written by this kiln, without writing to it.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<()> {
    match read(conn)? {
        Some(found) if found.min_reader > VERSION => Err(found.refuse(path, "use the newer one")),
        Some(found) if found.min_writer > VERSION => {
            Err(found.refuse(path, "use the newer one; to look at it only, open it with KilnBuilder::read_only"))
        }
        _ => Ok(()),
    }
}

/// Refuses a file that cannot be read by this kiln as it is.
pub(super) fn check_to_read(conn: &Connection, path: &Path) -> Result<()> {
    match read(conn)? {
        Some(found) if found.min_reader > VERSION => Err(found.refuse(path, "use the newer one")),
        Some(found) if found.version < VERSION => {
            let message = format!(
                "cannot open {} to read only: its schema version is {}, and this kiln {} reads {VERSION} and later; open \
                 it once to write, which migrates it, or open a copy of it so",
                path.display(),
                found.version,
                env!("CARGO_PKG_VERSION"),
            );
            Err(Error::new(Kind::Incompatible, message))
        }
        Some(_) => Ok(()),
        None => {
            let message =
                format!("cannot open {} to read only: it has no jobs, and none of kiln's tables", path.display());
            Err(Error::new(Kind::Unusable, message))
        }
    }
}

impl Found {
    fn refuse(&self, path: &Path, advice: &str) -> Error {
        let message = format!(
            "cannot open {}: it was written by {}, with schema version {}, which this kiln {} does not understand; it was \
             not touched; {advice}",
            path.display(),
            self.written_by,
            self.version,
            env!("CARGO_PKG_VERSION"),
        );
        Error::new(Kind::Incompatible, message)
    }
}

/// Brings the tables to this version, in one transaction: two processes that open at once do it once, since the second
/// gets the write lock after the first, and looks again. A file that has jobs already is copied before, under the same
/// lock, where its path is given.
pub(super) fn migrate(conn: &Connection, backed_up: Option<&Path>) -> Result<Option<Migration>> {
    let version = |conn| Ok::<_, Error>(read(conn)?.map_or(0, |found| found.version));
    if version(conn)? >= VERSION {
        return Ok(None);
    }
    let tx = rusqlite::Transaction::new_unchecked(conn, rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let from = version(&tx)?;
    if from >= VERSION {
        return Ok(None);
    }
    let backup = match backed_up {
        Some(path) if from > 0 => Some(back_up(path, from)?),
        _ => None,
    };
    for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        tx.execute_batch(migration).map_err(failed)?;
    }
    let written_by = concat!("kiln ", env!("CARGO_PKG_VERSION"));
    let update = "UPDATE kiln_schema SET version = ?1, min_writer = ?2, written_by = ?3";
    if tx.execute(update, (VERSION, MIN_WRITER, written_by)).map_err(failed)? == 0 {
        let insert = "INSERT INTO kiln_schema (version, min_reader, min_writer, written_by) VALUES (?1, 1, ?2, ?3)";
        tx.execute(insert, (VERSION, MIN_WRITER, written_by)).map_err(failed)?;
    }
    tx.commit().map_err(failed)?;
    Ok((from > 0).then_some(Migration { from, to: VERSION, backup }))
}

/// Copies the file, as it was committed last, beside itself: `jobs.db.v1.bak`, or the next name that is free.
fn back_up(path: &Path, version: i64) -> Result<PathBuf> {
    let made = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        let number = if number == 1 { String::new() } else { format!(".{number}") };
        name.push(format!(".v{version}{number}.bak"));
        PathBuf::from(name)
    };
    let free = (1..100).map(made).find(|name| fs::symlink_metadata(name).is_err());
    let failed = |error: Error| {
        let message = format!(
            "cannot open {}: its schema version {version} is to become {VERSION}, and the backup before that could not be \
             made; the file is as it was; make room, or see KilnBuilder::migrate_without_backup",
            path.display()
        );
        Error::new(error.kind(), message).because(error)
    };
    let free = free.unwrap_or_else(|| made(1));
    let conn = open::read_only(path, Duration::ZERO).map_err(failed)?;
    copy::snapshot(&conn, &free, &copy::Manner::default()).map_err(failed)?;
    Ok(free)
}

/// The version of the tables, and what wrote it last; `None` where there are none.
pub(super) fn version(conn: &Connection) -> Result<Option<(i64, String)>> {
    Ok(read(conn)?.map(|found| (found.version, found.written_by)))
}

fn read(conn: &Connection) -> Result<Option<Found>> {
    if !has_table(conn, "kiln_schema").map_err(failed)? {
        return Ok(None);
    }
    let sql = "SELECT version, min_reader, min_writer, written_by FROM kiln_schema ORDER BY version DESC";
    let found = conn
        .query_row(sql, [], |row| {
            Ok(Found {
                version: row.get(0)?,
                min_reader: row.get(1)?,
                min_writer: row.get(2)?,
                written_by: rows::text(row.get_ref(3)?),
            })
        })
        .map_err(failed)?;
    Ok(Some(found))
}
