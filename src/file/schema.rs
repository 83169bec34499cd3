//! kiln's tables and their version. The version has a table of its own, since `user_version` belongs to the application.
//!
//! An older kiln may read or write a newer file as far as the file says: `min_reader` and `min_writer` are the versions that
//! a kiln must know to do so. A newer kiln migrates an older file when it opens the file to write.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};

use super::connection::{has_table, read_only};
use super::copy::{self, CopyOptions};
use super::error::{cannot_open, failed};
use super::filesystem::beside;
use crate::error::{Error, Kind, Result};

/// What a kiln knows of the tables. There is one in the program, and tests make up others.
#[derive(Debug)]
pub(super) struct Schema {
    /// The n-th leads from version n to version n + 1, and the first creates the tables. So their number is the version.
    pub migrations: &'static [&'static str],
    /// The lowest version whose kiln may read a file of this version.
    pub min_reader: i64,
    /// The lowest version whose kiln may write a file of this version.
    pub min_writer: i64,
}

/// The schema of this kiln.
pub(super) const SCHEMA: Schema = Schema { migrations: &[include_str!("schema/1.sql")], min_reader: 1, min_writer: 1 };

/// What was done to a file that an older kiln had written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Migration {
    pub from: i64,
    pub to: i64,
    pub backup: Option<PathBuf>,
}

const THIS_KILN: &str = concat!("kiln ", env!("CARGO_PKG_VERSION"));

impl Schema {
    pub fn version(&self) -> i64 {
        i64::try_from(self.migrations.len()).expect("BUG: there are few migrations")
    }

    /// Refuses a file that this kiln may not use so, without writing to it.
    pub fn check(&self, conn: &Connection, path: &Path, to: Use) -> Result<()> {
        let this = self.version();
        match (Found::read(conn)?, to) {
            (Some(found), _) if found.min_reader > this => Err(found.refuse(path, "use the newer one")),
            (Some(found), Use::Write) if found.min_writer > this => {
                Err(found.refuse(path, "use the newer one; to look at it only, open it with KilnBuilder::read_only"))
            }
            (Some(found), Use::Read) if found.version < this => {
                let message = format!(
                    "cannot open {} to read only: its schema version is {}, and this {THIS_KILN} reads {this} and later; \
                     open it once to write, which migrates it, or open a copy of it so",
                    path.display(),
                    found.version,
                );
                Err(Error::new(Kind::Incompatible, message))
            }
            (None, Use::Read) => {
                let why =
                    "it has no jobs, and none of kiln's tables, which a file that is opened to read only does not get";
                Err(cannot_open(path, why))
            }
            _ => Ok(()),
        }
    }

    /// Brings the tables to this version, in one transaction. If two processes open a file at once, the second gets the
    /// write lock after the first, finds the new version, and does nothing.
    ///
    /// `backed_up` is the path of a file that is to be copied before. The copy is made under the same lock, and only if the
    /// file has kiln's tables already.
    pub fn migrate(&self, conn: &Connection, backed_up: Option<&Path>) -> Result<Option<Migration>> {
        let version = |conn: &Connection| Ok::<_, Error>(Found::read(conn)?.map_or(0, |found| found.version));
        let to = self.version();
        if version(conn)? >= to {
            return Ok(None);
        }
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate).map_err(failed)?;
        let from = version(&tx)?;
        if from >= to {
            return Ok(None);
        }
        let backup = match backed_up {
            Some(path) if from > 0 => Some(back_up(path, from, to)?),
            _ => None,
        };
        for migration in self.migrations.iter().skip(usize::try_from(from).unwrap_or(0)) {
            tx.execute_batch(migration).map_err(failed)?;
        }
        let now = (to, self.min_reader, self.min_writer, THIS_KILN);
        let update = "UPDATE kiln_schema SET version = ?1, min_reader = ?2, min_writer = ?3, written_by = ?4";
        if tx.execute(update, now).map_err(failed)? == 0 {
            let insert =
                "INSERT INTO kiln_schema (version, min_reader, min_writer, written_by) VALUES (?1, ?2, ?3, ?4)";
            tx.execute(insert, now).map_err(failed)?;
        }
        tx.commit().map_err(failed)?;
        Ok((from > 0).then_some(Migration { from, to, backup }))
    }
}

/// Copies the file, as it was committed last, beside itself: to `jobs.db.v1.bak`, or to the next name that is free.
fn back_up(path: &Path, version: i64, to: i64) -> Result<PathBuf> {
    let name = |number: u32| {
        let number = if number == 1 { String::new() } else { format!(".{number}") };
        beside(path, &format!(".v{version}{number}.bak"))
    };
    let free = (1..100).map(name).find(|name| fs::symlink_metadata(name).is_err());
    let failed = |error: Error| {
        let message = format!(
            "cannot open {}: its schema version {version} is to become {to}, and the backup before that could not be made; \
             the file is as it was; make room, or see KilnBuilder::migrate_without_backup",
            path.display()
        );
        Error::new(error.kind(), message).because(error)
    };
    // If no name is free, the copy fails and its error names the first.
    let free = free.unwrap_or_else(|| name(1));
    let conn = read_only(path, Duration::ZERO).map_err(failed)?;
    copy::snapshot(&conn, &free, &CopyOptions::default()).map_err(failed)?;
    Ok(free)
}

/// What a file says of its tables.
struct Found {
    version: i64,
    min_reader: i64,
    min_writer: i64,
    written_by: String,
}

impl Found {
    /// The casts are for a file that another program has spoilt.
    const SELECT: &str = "
SELECT CAST(version AS INTEGER), CAST(min_reader AS INTEGER), CAST(min_writer AS INTEGER), CAST(written_by AS TEXT)
FROM kiln_schema ORDER BY version DESC LIMIT 1";

    fn of(row: &Row<'_>) -> rusqlite::Result<Found> {
        let written_by = String::from_utf8_lossy(row.get_ref(3)?.as_bytes()?).into_owned();
        Ok(Found { version: row.get(0)?, min_reader: row.get(1)?, min_writer: row.get(2)?, written_by })
    }

    /// `None` if the database has none of kiln's tables.
    fn read(conn: &Connection) -> Result<Option<Found>> {
        if !has_table(conn, "kiln_schema").map_err(failed)? {
            return Ok(None);
        }
        conn.query_row(Self::SELECT, [], Found::of).map(Some).map_err(failed)
    }

    fn refuse(&self, path: &Path, advice: &str) -> Error {
        let message = format!(
            "cannot open {}: it was written by {}, with schema version {}, which this {THIS_KILN} does not understand; it \
             was not touched; {advice}",
            path.display(),
            self.written_by,
            self.version,
        );
        Error::new(Kind::Incompatible, message)
    }

    fn lost(&self, conn: &Connection, to: Use) -> Error {
        let message = format!(
            "nothing was {}: while {} was open here, {} took it over, with schema version {}, which this {THIS_KILN} does \
             not understand; end this program, and start one with the newer kiln",
            if to == Use::Read { "read" } else { "written" },
            conn.path().unwrap_or("the file"),
            self.written_by,
            self.version,
        );
        Error::new(Kind::Incompatible, message)
    }
}

/// The version of the tables, and the kiln that wrote it last; `None` if the database has none of kiln's tables.
pub(crate) fn version(conn: &Connection) -> Result<Option<(i64, String)>> {
    Ok(Found::read(conn)?.map(|found| (found.version, found.written_by)))
}

/// Permission to read or write a file that is open here. A newer kiln may migrate the file meanwhile, and take the
/// permission away.
pub(crate) struct Permission {
    version: i64,
    to: Use,
    /// When the permission was last seen to hold.
    seen: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
}

/// How long a permission is believed to hold after it was seen to.
const LASTS: Duration = Duration::from_millis(300);

impl Permission {
    pub fn to_read() -> Self {
        Self::of(&SCHEMA, Use::Read)
    }

    pub fn to_write() -> Self {
        Self::of(&SCHEMA, Use::Write)
    }

    pub(super) fn of(schema: &Schema, to: Use) -> Self {
        Self { version: schema.version(), to, seen: Mutex::default() }
    }

    /// Checks the permission, unless it was seen to hold a moment ago.
    pub fn check(&self, conn: &Connection) -> Result<()> {
        if self.seen.lock().is_some_and(|seen| seen.elapsed() < LASTS) { Ok(()) } else { self.check_now(conn) }
    }

    /// Reads from the file whether the permission holds.
    pub fn check_now(&self, conn: &Connection) -> Result<()> {
        // Held while the file is read, so that of two threads the later one has the last word.
        let mut seen = self.seen.lock();
        let now = Instant::now();
        let found = conn
            .prepare_cached(Found::SELECT)
            .and_then(|mut select| select.query_row([], Found::of).optional())
            .map_err(failed)?;
        let refused = found.filter(|found| match self.to {
            Use::Read => found.min_reader > self.version,
            Use::Write => found.min_reader.max(found.min_writer) > self.version,
        });
        *seen = refused.is_none().then_some(now);
        refused.map_or(Ok(()), |found| Err(found.lost(conn, self.to)))
    }

    /// Checks the permission to write within a transaction that the application began.
    ///
    /// The transaction must not begin with a read. Once it has read, and another connection has written, SQLite refuses
    /// its writes at once instead of waiting. So this is an update that takes the write lock, and changes a row only if the
    /// permission is gone.
    pub fn check_within(conn: &Connection) -> Result<()> {
        const GONE: &str = "UPDATE kiln_schema SET last_id = last_id WHERE max(min_reader, min_writer) > ?1";
        let gone = conn.prepare_cached(GONE).and_then(|mut update| update.execute([SCHEMA.version()]));
        if gone.map_err(failed)? == 0 { Ok(()) } else { Self::to_write().check_now(conn) }
    }
}
