//! What an operator's hand does: cancel, retry, delete, update.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::look::{self, BATCH};
use super::tally::Tally;
use super::write::{Op, Tx};
use super::{failed, rows, sql};
use crate::engine::{Changed, Told};
use crate::error::Kind;
use crate::job::{Changes, Check, Filter, Job, State, Verb, Which};
use crate::{Error, Result};

/// Deletes what `delete` says, and remembers the newest id where it went along.
pub(super) fn deleting<T>(tx: &mut Tx<'_>, delete: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let conn = tx.conn;
    tx.newest = None;
    let newest =
        || conn.prepare_cached(sql::NEWEST).and_then(|mut select| select.query_one([], |row| row.get::<_, i64>(0)));
    let before = newest().map_err(failed)?;
    let deleted = delete(conn)?;
    if newest().map_err(failed)? < before {
        run(conn, sql::REMEMBER_NEWEST, [before])?;
    }
    Ok(deleted)
}

/// Whether the query finds anything.
pub(super) fn exists(conn: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<bool> {
    conn.prepare_cached(sql).and_then(|mut select| select.exists(parameters)).map_err(failed)
}

/// A verb applied to many jobs, a batch in each transaction, so that nobody waits long for the lock.
pub(super) struct Sweep<V> {
    which: Which,
    verb: V,
    /// What earlier batches came to.
    so_far: Batch,
    /// What this batch comes to, should it be committed.
    batch: Batch,
    tally: Tally,
}

#[derive(Clone, Copy)]
struct Batch {
    /// Where the next one begins: a position in the ids, or the last id that matched.
    position: i64,
    done: bool,
    count: u64,
}

impl<V> Sweep<V> {
    pub fn new(which: &Which, verb: V, tally: Tally) -> Self {
        let position = match which {
            Which::Ids(_) => 0,
            Which::Matching(_) => i64::MIN,
        };
        let nothing = Batch { position, done: false, count: 0 };
        Self { which: which.clone(), verb, so_far: nothing, batch: nothing, tally }
    }

    /// After a commit: tells what was changed; the number of jobs, when it was the last batch.
    pub fn next(&mut self, told: &mut Told<'_>) -> Option<u64> {
        self.so_far = self.batch;
        self.tally.tell(told);
        self.so_far.done.then_some(self.so_far.count)
    }
}

/// One verb on one row; says what it made of it, where it changed it.
pub(super) trait OneRow: Send {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<Option<Changed>>;
}

impl<V: OneRow> Op for Sweep<V> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let (ids, position) = match &self.which {
            Which::Ids(ids) => {
                let from = self.so_far.position as usize;
                let to = ids.len().min(from + BATCH as usize);
                (ids[from..to].to_vec(), to as i64)
            }
            Which::Matching(filter) => {
                let ids = matching(tx.conn, filter, self.so_far.position)?;
                let last = ids.last().copied().unwrap_or(self.so_far.position);
                (ids, last)
            }
        };
        self.tally.clear();
        for &id in &ids {
            if let Some(changed) = self.verb.apply(tx, id).map_err(|error| of_job(id, error))? {
                self.tally.add(changed);
            }
        }
        let count = self.so_far.count + self.tally.count;
        self.batch = Batch { position, done: ids.len() < BATCH as usize, count };
        Ok(())
    }
}

/// Whoever meant many is to know which it was.
fn of_job(id: i64, error: Error) -> Error {
    match error.kind() {
        Kind::Storage => Error::new(Kind::Storage, format!("job {id}")).because(error),
        _ => error,
    }
}

fn matching(conn: &Connection, filter: &Filter, after: i64) -> Result<Vec<i64>> {
    let (condition, parameters) = look::condition(filter);
    let text = format!("SELECT id FROM kiln_jobs WHERE id > {after} AND {condition} ORDER BY id LIMIT {BATCH}");
    let mut select = conn.prepare_cached(&text).map_err(failed)?;
    let ids = select.query_map(rusqlite::params_from_iter(parameters), |row| row.get(0)).map_err(failed)?;
    ids.collect::<rusqlite::Result<_>>().map_err(failed)
}

/// The job as it stands, where it is there.
pub(super) fn standing(conn: &Connection, id: i64) -> Result<Option<Changed>> {
    let read = |row: &rusqlite::Row<'_>| {
        let state = State::from_name(&rows::text(row.get_ref(4)?));
        Ok(Changed { job: rows::subject(row)?, state, error: None })
    };
    conn.prepare_cached(sql::SUBJECT).and_then(|mut select| select.query_one([id], read).optional()).map_err(failed)
}

/// The same, where the verb does anything to it.
fn allowed(conn: &Connection, id: i64, verb: Verb) -> Result<Option<Changed>> {
    Ok(standing(conn, id)?.filter(|there| there.state.allows(verb)))
}

pub(super) struct Cancel {
    pub now: Timestamp,
}

impl OneRow for Cancel {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<Option<Changed>> {
        let now = self.now.as_microsecond();
        let Some(there) = allowed(tx.conn, id, Verb::Cancel)? else { return Ok(None) };
        if there.state == State::Executing {
            run(tx.conn, sql::CANCEL_EXECUTING, (id, now))?;
            tx.news.cancelling.push(id);
            return Ok(Some(there));
        }
        let meta = get(tx.conn, id)?.map(|job| job.meta.map()).unwrap_or_default();
        let meta = with_entry(meta, "cancel_attempted_at", self.now.to_string().into());
        run(tx.conn, sql::CANCEL, (id, now, meta))?;
        Ok(Some(Changed { state: State::Cancelled, ..there }))
    }
}

fn with_entry(mut meta: serde_json::Map<String, serde_json::Value>, key: &str, value: serde_json::Value) -> String {
    meta.insert(key.into(), value);
    serde_json::Value::Object(meta).to_string()
}

pub(super) struct Retry {
    pub now: Timestamp,
}

impl OneRow for Retry {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<Option<Changed>> {
        let Some(there) = allowed(tx.conn, id, Verb::Retry)? else { return Ok(None) };
        run(tx.conn, sql::RETRY, (id, self.now.as_microsecond()))?;
        tx.news.ring(&there.job.queue);
        Ok(Some(Changed { state: State::Available, ..there }))
    }
}

pub(super) struct Delete;

impl OneRow for Delete {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<Option<Changed>> {
        let there = allowed(tx.conn, id, Verb::Delete)?;
        if there.is_some() {
            deleting(tx, |conn| run(conn, sql::DELETE, [id]))?;
        }
        Ok(there)
    }
}

pub(super) struct Update {
    pub changes: Changes,
    pub now: Timestamp,
}

impl OneRow for Update {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<Option<Changed>> {
        match get(tx.conn, id)? {
            Some(old) if old.state.allows(Verb::Update) => {
                let mut new = old.clone();
                self.changes.apply(&mut new, self.now)?;
                store(tx, &old, &new)?;
                Ok(Some(Changed { job: (&new).into(), state: new.state, error: None }))
            }
            _ => Ok(None),
        }
    }
}

/// Stores `new` where the row still is what `old` was read as.
pub(super) struct Replace {
    pub old: Job,
    pub new: Job,
    pub done: bool,
}

impl Op for Replace {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.done = get(tx.conn, self.old.id)?.is_some_and(|job| job == self.old);
        if self.done { store(tx, &self.old, &self.new) } else { Ok(()) }
    }
}

/// Stores `job` over `old`, and what it is compared by from now on where that changed.
pub(super) fn store(tx: &mut Tx<'_>, old: &Job, job: &Job) -> Result<()> {
    let key = if Check::may_differ(old, job) { Check::rekey(&unique_key(tx.conn, job.id)?, old, job) } else { None };
    tx.conn
        .prepare_cached(sql::UPDATE)
        .and_then(|mut update| {
            update.execute(params![
                job.id,
                job.args.as_str(),
                job.max_attempts,
                job.meta.as_str(),
                job.priority,
                job.queue,
                job.scheduled_at.as_microsecond(),
                job.state.as_str(),
                rows::words_json(&job.tags),
                job.worker,
                job.expires_at.map(Timestamp::as_microsecond),
                key,
            ])
        })
        .map_err(failed)?;
    tx.news.of(job);
    Ok(())
}

fn unique_key(conn: &Connection, id: i64) -> Result<String> {
    conn.prepare_cached(sql::UNIQUE_KEY)
        .and_then(|mut select| select.query_one([id], |row| Ok(rows::text(row.get_ref(0)?))))
        .map_err(failed)
}

pub(super) fn get(conn: &Connection, id: i64) -> Result<Option<Job>> {
    conn.prepare_cached(sql::GET).and_then(|mut select| select.query_one([id], rows::job).optional()).map_err(failed)
}

pub(super) fn run(conn: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<usize> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters)).map_err(failed)
}
