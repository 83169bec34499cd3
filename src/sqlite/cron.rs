//! Cron entries as rows. A slot's jobs and the slot itself are written together, and only where the entry still is what
//! it was read as: of several runtimes, one fires.

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::time::Duration;

use super::enqueue::Enqueue;
use super::verbs::run;
use super::write::{Op, Tx};
use super::{failed, rows, sql};
use crate::Result;
use crate::job::{CronEntry, Job, Missed, Shot};

pub(super) fn list(conn: &Connection) -> Result<Vec<CronEntry>> {
    let mut select = conn.prepare_cached(sql::CRONS).map_err(failed)?;
    let entries = select.query_map([], entry).map_err(failed)?;
    entries.collect::<rusqlite::Result<_>>().map_err(failed)
}

fn get(conn: &Connection, name: &str) -> Result<Option<CronEntry>> {
    conn.prepare_cached(sql::CRON).and_then(|mut select| select.query_one([name], entry).optional()).map_err(failed)
}

/// Reads the columns of [`CRONS`](sql::CRONS), in their order.
fn entry(row: &Row<'_>) -> rusqlite::Result<CronEntry> {
    let inserted_at = rows::time(row.get_ref(16)?).unwrap_or_default();
    Ok(CronEntry {
        name: rows::text(row.get_ref(0)?),
        expression: rows::text(row.get_ref(1)?),
        zone: rows::text(row.get_ref(2)?),
        worker: rows::text(row.get_ref(3)?),
        queue: rows::text(row.get_ref(4)?),
        args: rows::json(row.get_ref(5)?),
        meta: rows::json(row.get_ref(6)?),
        tags: rows::words(row.get_ref(7)?),
        max_attempts: rows::integer(row.get_ref(8)?),
        priority: rows::integer(row.get_ref(9)?),
        missed: missed(row.get_ref(10)?, row.get_ref(11)?, row.get_ref(12)?),
        paused: rows::integer(row.get_ref(13)?) != 0,
        since: rows::time(row.get_ref(14)?).unwrap_or(inserted_at),
        last_slot: rows::time(row.get_ref(15)?),
        inserted_at,
        revision: rows::integer(row.get_ref(17)?),
        uniqueness: match row.get_ref(18)? {
            ValueRef::Null => None,
            text => Some(rows::text(text)),
        },
        expires_in: match row.get_ref(19)? {
            ValueRef::Integer(micros) => u64::try_from(micros).ok().map(Duration::from_micros),
            _ => None,
        },
    })
}

/// A word that something else wrote counts as the default.
fn missed(word: ValueRef<'_>, max: ValueRef<'_>, within: ValueRef<'_>) -> Missed {
    match rows::text(word).as_str() {
        "skip" => Missed::Skip,
        "run_all" => Missed::RunAll {
            max: rows::integer(max).clamp(1, 1000) as u32,
            within: Duration::from_micros(rows::integer(within).max(0).unsigned_abs()),
        },
        _ => Missed::RunOnce,
    }
}

fn store(conn: &Connection, entry: &CronEntry) -> Result<()> {
    let (missed, max, within) = match entry.missed {
        Missed::Skip => ("skip", None, None),
        Missed::RunOnce => ("run_once", None, None),
        Missed::RunAll { max, within } => ("run_all", Some(max), Some(within.as_micros() as i64)),
    };
    let parameters = params![
        entry.name,
        entry.expression,
        entry.zone,
        entry.worker,
        entry.queue,
        entry.args.as_str(),
        entry.meta.as_str(),
        rows::words_json(&entry.tags),
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
    run(conn, sql::STORE_CRON, parameters).map(|_| ())
}

/// Adds entries, or redefines those that are there.
pub(super) struct Add {
    pub entries: Vec<CronEntry>,
    pub now: Timestamp,
    /// For each of them the row it became.
    pub added: Vec<CronEntry>,
}

impl Op for Add {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.added.clear();
        for new in &self.entries {
            let there = get(tx.conn, &new.name)?;
            let revision = self.now.as_microsecond();
            let new = CronEntry { since: self.now, inserted_at: self.now, revision, ..new.clone() };
            let wanted = there.as_ref().map_or_else(|| new.clone(), |there| there.redefined(&new, self.now));
            if there.as_ref() != Some(&wanted) {
                store(tx.conn, &wanted)?;
                tx.news.crons = true;
            }
            self.added.extend(get(tx.conn, &new.name)?);
        }
        Ok(())
    }
}

pub(super) struct Pause {
    pub name: String,
    pub paused: bool,
    pub now: Timestamp,
    pub changed: bool,
}

impl Op for Pause {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let there = get(tx.conn, &self.name)?.filter(|entry| entry.paused != self.paused);
        self.changed = there.is_some();
        let Some(there) = there else { return Ok(()) };
        tx.news.crons = true;
        store(tx.conn, &there.pausing(self.paused, self.now))
    }
}

pub(super) struct Delete {
    pub name: String,
    pub deleted: bool,
}

impl Op for Delete {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.deleted = run(tx.conn, sql::DELETE_CRON, [&self.name])? > 0;
        Ok(())
    }
}

/// Settles slots: each where its entry was not changed since it was read, not by another's shot either.
pub(super) struct Fire(Vec<Fired>);

struct Fired {
    name: String,
    revision: i64,
    slot: Timestamp,
    enqueue: Enqueue,
    hit: bool,
}

impl Fire {
    pub fn new(shots: Vec<Shot>) -> Self {
        let fired = |Shot { name, revision, slot, jobs }| {
            let enqueue = Enqueue::new(jobs);
            Fired { name, revision, slot, enqueue, hit: false }
        };
        Self(shots.into_iter().map(fired).collect())
    }

    /// The jobs of each slot that was settled.
    pub fn finish(self) -> Vec<Option<Vec<Job>>> {
        self.0.into_iter().map(|fired| fired.hit.then(|| fired.enqueue.finish())).collect()
    }
}

impl Op for Fire {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        for fired in &mut self.0 {
            let slot = (&fired.name, fired.revision, fired.slot.as_microsecond());
            fired.hit = run(tx.conn, sql::SETTLE_SLOT, slot)? > 0;
            if fired.hit {
                fired.enqueue.run(tx)?;
            }
        }
        Ok(())
    }
}
