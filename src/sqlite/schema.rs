//! kiln's tables and their version. They have a version of their own: `user_version` belongs to the application.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};

use super::open::{self, has_table};
use super::verbs::run;
use super::{copy, failed, rows, sql};
use crate::error::Kind;
use crate::{Error, Result};

/// The version this kiln writes.
const VERSION: i64 = 2;

/// Who may write what it writes.
const MIN_WRITER: i64 = 2;

/// From version n to n + 1, for n from 0.
const MIGRATIONS: [&str; VERSION as usize] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

const FOUND: &str = "SELECT version, min_reader, min_writer, written_by FROM kiln_schema ORDER BY version DESC LIMIT 1";

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
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
        Ok(Found {
            version: rows::integer(row.get_ref(0)?),
            min_reader: rows::integer(row.get_ref(1)?),
            min_writer: rows::integer(row.get_ref(2)?),
            written_by: rows::text(row.get_ref(3)?),
        })
    }

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

    fn lost(&self, conn: &Connection, to: Use) -> Error {
        let message = format!(
            "nothing was {}: while {} was open here, {} took it over, with schema version {}, which this kiln {} does not \
             understand; end this program, and start one with the newer kiln",
            if to == Use::Read { "read" } else { "written" },
            conn.path().unwrap_or("the file"),
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

/// Leave to use a file that is open here, which a newer kiln may take away meanwhile.
pub(super) struct Leave {
    to: Use,
    /// When it was last seen to be given.
    given: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

/// How long leave is believed to last.
const LASTS: Duration = Duration::from_millis(300);

impl Leave {
    pub fn to_read() -> Self {
        Self { to: Use::Read, given: Mutex::default() }
    }

    pub fn to_write() -> Self {
        Self { to: Use::Write, given: Mutex::default() }
    }

    /// Looks whether it is given, where it was not seen to be for a while.
    pub fn ask(&self, conn: &Connection) -> Result<()> {
        if self.given.lock().is_some_and(|given| given.elapsed() < LASTS) { Ok(()) } else { self.look(conn) }
    }

    pub fn look(&self, conn: &Connection) -> Result<()> {
        // Of two that look, the later has the last word.
        let mut given = self.given.lock();
        let now = Instant::now();
        let found = conn
            .prepare_cached(FOUND)
            .and_then(|mut select| select.query_one([], Found::read).optional())
            .map_err(failed)?;
        let refused = found.filter(|found| match self.to {
            Use::Read => found.min_reader > VERSION,
            Use::Write => found.min_reader.max(found.min_writer) > VERSION,
        });
        *given = refused.is_none().then_some(now);
        refused.map_or(Ok(()), |found| Err(found.lost(conn, self.to)))
    }
}

/// Looks within somebody else's transaction. It must not begin with a look: who has read can write nothing once others
/// have written, and is not waited for.
pub(super) fn ask_to_write(conn: &Connection) -> Result<()> {
    if run(conn, sql::TAKEN_OVER, [VERSION])? == 0 { Ok(()) } else { Leave::to_write().look(conn) }
}

/// The version of the tables, and what wrote it last; `None` where there are none.
pub(super) fn version(conn: &Connection) -> Result<Option<(i64, String)>> {
    Ok(read(conn)?.map(|found| (found.version, found.written_by)))
}

fn read(conn: &Connection) -> Result<Option<Found>> {
    if !has_table(conn, "kiln_schema").map_err(failed)? {
        return Ok(None);
    }
    conn.query_row(FOUND, [], Found::read).map(Some).map_err(failed)
}
