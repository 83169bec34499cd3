//! Enqueue, and what an operator's hand does: cancel, retry, delete, update.

use std::rc::Rc;

use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, params};

use super::claim::MANY;
use super::look::{self, BATCH};
use super::write::{Op, Tx};
use super::{failed, rows, sql};
use crate::error::Kind;
use crate::job::{Changes, Check, Filter, Job, Ready, State, Verb, Which};
use crate::{Error, Result};

pub(super) struct Enqueue {
    pub ready: Vec<Ready>,
    /// For each of them the job that was stored, or its double.
    pub jobs: Vec<Job>,
}

impl Op for Enqueue {
    fn is_one_statement(&self) -> bool {
        matches!(&self.ready[..], [Ready { check: None, .. }])
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.jobs.clear();
        self.ready.iter_mut().for_each(|ready| ready.job.id = 0);
        let mut rest = &mut self.ready[..];
        while let Some(first) = rest.first() {
            let alike = match tx.newest {
                Some(_) => rest.iter().take_while(|next| next.is_like(first)).count(),
                None => 1,
            };
            let (now, later) = rest.split_at_mut(alike.max(1));
            rest = later;
            if let Some(newest) = tx.newest.filter(|_| alike >= MANY) {
                enqueue_alike(tx, now, newest)?;
                continue;
            }
            for Ready { job, check } in now {
                let there = check.as_ref().map_or(Ok(None), |check| double(tx, check, job))?;
                match there {
                    Some(there) => self.jobs.push(there),
                    None => enqueue_one(tx, job, check.as_deref())?,
                }
            }
        }
        Ok(())
    }
}

/// Stores a job, and gives it its id.
fn enqueue_one(tx: &mut Tx<'_>, job: &mut Job, check: Option<&Check>) -> Result<()> {
    let sql = if tx.newest.is_some() { sql::ENQUEUE_NEXT } else { sql::ENQUEUE_FIRST };
    let parameters = params![
        job.state.as_str(),
        job.queue,
        job.worker,
        job.args.as_str(),
        job.meta.as_str(),
        rows::words_json(&job.tags),
        job.max_attempts,
        job.priority,
        job.inserted_at.as_microsecond(),
        job.scheduled_at.as_microsecond(),
        job.expires_at.map(Timestamp::as_microsecond),
        check.map(|check| &check.key),
    ];
    run(tx.conn, sql, parameters)?;
    job.id = tx.conn.last_insert_rowid();
    tx.newest = Some(job.id);
    announce(tx, job);
    Ok(())
}

/// Stores jobs that differ in nothing but their arguments. Their ids follow that of the job before.
fn enqueue_alike(tx: &mut Tx<'_>, ready: &mut [Ready], mut newest: i64) -> Result<()> {
    let Some(Ready { job, .. }) = ready.first() else { return Ok(()) };
    let args: Vec<Sql> = ready.iter().map(|ready| Sql::Text(ready.job.args.as_str().to_owned())).collect();
    let parameters = params![
        job.state.as_str(),
        job.queue,
        job.worker,
        Rc::new(args),
        job.meta.as_str(),
        rows::words_json(&job.tags),
        job.max_attempts,
        job.priority,
        job.inserted_at.as_microsecond(),
        job.scheduled_at.as_microsecond(),
        job.expires_at.map(Timestamp::as_microsecond),
    ];
    run(tx.conn, sql::ENQUEUE_ALIKE, parameters)?;
    announce(tx, job);
    for Ready { job, .. } in ready {
        newest += 1;
        job.id = newest;
    }
    tx.newest = Some(newest);
    if tx.conn.last_insert_rowid() == newest {
        return Ok(());
    }
    let message = format!("the ids of new jobs end with {} where {newest} was due", tx.conn.last_insert_rowid());
    Err(Error::new(Kind::Storage, message))
}

fn announce(tx: &mut Tx<'_>, job: &Job) {
    match job.state {
        State::Available => tx.news.ring(&job.queue),
        State::Scheduled | State::Retryable => tx.news.due_at(job.scheduled_at),
        _ => {}
    }
}

impl Enqueue {
    pub fn new(ready: Vec<Ready>) -> Self {
        Self { ready, jobs: Vec::new() }
    }

    /// The jobs in the order they were given, stored or found.
    pub fn finish(self) -> Vec<Job> {
        let mut found = self.jobs.into_iter();
        let stored = |ready: Ready| if ready.job.id == 0 { None } else { Some(ready.job) };
        self.ready.into_iter().filter_map(|ready| stored(ready).or_else(|| found.next())).collect()
    }
}

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

/// The job that is there already, with what it was given of the new one.
fn double(tx: &mut Tx<'_>, check: &Check, new: &Job) -> Result<Option<Job>> {
    if !exists(tx.conn, sql::ANY_DOUBLE, [&check.key])? {
        return Ok(None);
    }
    let since = check.since.map_or(i64::MIN, Timestamp::as_microsecond);
    let expired = check.expired_by(new).map_or(i64::MIN, Timestamp::as_microsecond);
    for state in &check.states {
        let there = tx
            .conn
            .prepare_cached(sql::DOUBLE)
            .and_then(|mut select| select.query_one((&check.key, state.as_str(), since, expired), rows::job).optional())
            .map_err(failed)?;
        if let Some(there) = there {
            let replaced = check.replaced(&there, new);
            if let Some(job) = &replaced {
                store(tx, &there, job)?;
            }
            let mut job = replaced.unwrap_or(there);
            job.conflict = true;
            job.extra = new.extra.clone();
            return Ok(Some(job));
        }
    }
    Ok(None)
}

/// A verb applied to many jobs, a batch in each transaction, so that nobody waits long for the lock.
pub(super) struct Sweep<V> {
    which: Which,
    verb: V,
    /// What earlier batches came to.
    so_far: Batch,
    /// What this batch comes to, should it be committed.
    batch: Batch,
}

#[derive(Clone, Copy)]
struct Batch {
    /// Where the next one begins: a position in the ids, or the last id that matched.
    position: i64,
    done: bool,
    count: u64,
}

impl<V> Sweep<V> {
    pub fn new(which: &Which, verb: V) -> Self {
        let position = match which {
            Which::Ids(_) => 0,
            Which::Matching(_) => i64::MIN,
        };
        let nothing = Batch { position, done: false, count: 0 };
        Self { which: which.clone(), verb, so_far: nothing, batch: nothing }
    }

    /// After a commit: the number of jobs, when it was the last batch.
    pub fn next(&mut self) -> Option<u64> {
        self.so_far = self.batch;
        self.so_far.done.then_some(self.so_far.count)
    }
}

/// One verb on one row; says whether it changed it.
pub(super) trait OneRow: Send {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<bool>;
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
        let mut count = self.so_far.count;
        for &id in &ids {
            count += u64::from(self.verb.apply(tx, id).map_err(|error| of_job(id, error))?);
        }
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

/// The row's state, where the verb does anything to it.
fn allowed(conn: &Connection, id: i64, verb: Verb) -> Result<Option<(State, String)>> {
    let state = conn
        .prepare_cached(sql::STATE)
        .and_then(|mut select| {
            select
                .query_one([id], |row| {
                    Ok((State::from_name(&rows::text(row.get_ref(0)?)), rows::text(row.get_ref(1)?)))
                })
                .optional()
        })
        .map_err(failed)?;
    Ok(state.filter(|(state, _)| state.allows(verb)))
}

pub(super) struct Cancel {
    pub now: Timestamp,
}

impl OneRow for Cancel {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<bool> {
        let now = self.now.as_microsecond();
        match allowed(tx.conn, id, Verb::Cancel)? {
            None => return Ok(false),
            Some((State::Executing, _)) => {
                run(tx.conn, sql::CANCEL_EXECUTING, (id, now))?;
                tx.news.cancelling.push(id);
            }
            Some(_) => {
                let meta = get(tx.conn, id)?.map(|job| job.meta.map()).unwrap_or_default();
                let meta = with_entry(meta, "cancel_attempted_at", self.now.to_string().into());
                run(tx.conn, sql::CANCEL, (id, now, meta))?;
            }
        }
        Ok(true)
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
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<bool> {
        let Some((_, queue)) = allowed(tx.conn, id, Verb::Retry)? else { return Ok(false) };
        run(tx.conn, sql::RETRY, (id, self.now.as_microsecond()))?;
        tx.news.ring(&queue);
        Ok(true)
    }
}

pub(super) struct Delete;

impl OneRow for Delete {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<bool> {
        if allowed(tx.conn, id, Verb::Delete)?.is_none() {
            return Ok(false);
        }
        deleting(tx, |conn| run(conn, sql::DELETE, [id]))?;
        Ok(true)
    }
}

pub(super) struct Update {
    pub changes: Changes,
    pub now: Timestamp,
}

impl OneRow for Update {
    fn apply(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<bool> {
        match get(tx.conn, id)? {
            Some(old) if old.state.allows(Verb::Update) => {
                let mut new = old.clone();
                self.changes.apply(&mut new, self.now)?;
                store(tx, &old, &new)?;
                Ok(true)
            }
            _ => Ok(false),
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
fn store(tx: &mut Tx<'_>, old: &Job, job: &Job) -> Result<()> {
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
    match job.state {
        State::Available => tx.news.ring(&job.queue),
        State::Scheduled | State::Retryable => tx.news.due_at(job.scheduled_at),
        _ => {}
    }
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
