//! Cron entries.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::value::{all, integer, json, one, optional_text, run, text, time, words, words_json};
use crate::error::Result;
use crate::job::{CronEntry, Missed};

macro_rules! columns {
    () => {
        "name, expression, zone, worker, queue, args, meta, tags, max_attempts, priority, missed, missed_max, \
         missed_within, paused, since, last_slot, inserted_at, revision, uniqueness, expires_in"
    };
}

/// All entries: a program has a handful.
const LIST: &str = concat!("SELECT ", columns!(), " FROM kiln_crons ORDER BY name");

/// All entries by name.
pub(crate) fn list(conn: &Connection) -> Result<Vec<CronEntry>> {
    all(conn, LIST, [], read)
}

const GET: &str = concat!("SELECT ", columns!(), " FROM kiln_crons WHERE name = ?1");

pub(crate) fn get(conn: &Connection, name: &str) -> Result<Option<CronEntry>> {
    one(conn, GET, [name], read)
}

fn read(row: &Row<'_>) -> rusqlite::Result<CronEntry> {
    let inserted_at = time(row.get_ref(16)?).unwrap_or_default();
    Ok(CronEntry {
        name: text(row.get_ref(0)?),
        expression: text(row.get_ref(1)?),
        zone: text(row.get_ref(2)?),
        worker: text(row.get_ref(3)?),
        queue: text(row.get_ref(4)?),
        args: json(row.get_ref(5)?),
        meta: json(row.get_ref(6)?),
        tags: words(row.get_ref(7)?),
        max_attempts: integer(row.get_ref(8)?),
        priority: integer(row.get_ref(9)?),
        missed: missed(row.get_ref(10)?, row.get_ref(11)?, row.get_ref(12)?),
        paused: integer(row.get_ref(13)?) != 0,
        since: time(row.get_ref(14)?).unwrap_or(inserted_at),
        last_slot: time(row.get_ref(15)?),
        inserted_at,
        revision: integer(row.get_ref(17)?),
        uniqueness: optional_text(row.get_ref(18)?),
        expires_in: match row.get_ref(19)? {
            ValueRef::Integer(micros) => u64::try_from(micros).ok().map(Duration::from_micros),
            _ => None,
        },
    })
}

/// An unknown word, which another program wrote, means the default.
fn missed(word: ValueRef<'_>, max: ValueRef<'_>, within: ValueRef<'_>) -> Missed {
    match text(word).as_str() {
        "skip" => Missed::Skip,
        "run_all" => Missed::RunAll {
            max: integer(max).clamp(1, 1000) as u32,
            within: Duration::from_micros(integer(within).max(0).unsigned_abs()),
        },
        _ => Missed::RunOnce,
    }
}

const STORE: &str = "
INSERT INTO kiln_crons (name, expression, zone, worker, queue, args, meta, tags, max_attempts, priority, missed,
  missed_max, missed_within, paused, since, inserted_at, revision, uniqueness, expires_in)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
ON CONFLICT (name) DO UPDATE SET expression = ?2, zone = ?3, worker = ?4, queue = ?5, args = ?6, meta = ?7, tags = ?8,
  max_attempts = ?9, priority = ?10, missed = ?11, missed_max = ?12, missed_within = ?13, paused = ?14, since = ?15,
  uniqueness = ?18, expires_in = ?19, revision = revision + 1";

/// Stores a new entry, or a new definition of an entry that is there.
pub(crate) fn store(conn: &Connection, entry: &CronEntry) -> Result<()> {
    let (missed, max, within) = match entry.missed {
        Missed::Skip => ("skip", None, None),
        Missed::RunOnce => ("run_once", None, None),
        Missed::RunAll { max, within } => ("run_all", Some(max), Some(within.as_micros() as i64)),
    };
    let row = params![
        entry.name,
        entry.expression,
        entry.zone,
        entry.worker,
        entry.queue,
        entry.args.as_str(),
        entry.meta.as_str(),
        words_json(&entry.tags),
        entry.max_attempts,
        entry.priority,
        missed,
        max,
        within,
        entry.paused,
        entry.since.as_microsecond(),
        entry.inserted_at.as_microsecond(),
        entry.revision,
        entry.uniqueness,
        entry.expires_in.map(|delay| delay.as_micros() as i64),
    ];
    run(conn, STORE, row).map(|_| ())
}

const DELETE: &str = "DELETE FROM kiln_crons WHERE name = ?1";

/// Returns whether there was an entry of this name.
pub(crate) fn delete(conn: &Connection, name: &str) -> Result<bool> {
    Ok(run(conn, DELETE, [name])? > 0)
}

const SETTLE_SLOT: &str = "
UPDATE kiln_crons SET last_slot = ?3, revision = revision + 1 WHERE name = ?1 AND revision = ?2";

/// Settles a slot if nobody has changed the entry, or settled a slot of it, since it was read. Returns whether it did.
pub(crate) fn settle_slot(conn: &Connection, name: &str, revision: i64, slot: Timestamp) -> Result<bool> {
    Ok(run(conn, SETTLE_SLOT, (name, revision, slot.as_microsecond()))? > 0)
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    [LIST, GET, STORE, DELETE, SETTLE_SLOT].map(str::to_owned).into()
}
