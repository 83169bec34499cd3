//! New jobs: stored one by one or many at once, unless they have a double.

use std::rc::Rc;

use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, ToSql, params};

use super::claim::MANY;
use super::verbs::{run, store};
use super::write::{Op, Tx};
use super::{failed, rows, sql};
use crate::error::Kind;
use crate::job::{Check, Job, Ready};
use crate::{Error, Result};

pub(super) struct Enqueue {
    pub ready: Vec<Ready>,
    /// For each of them the job that was stored, or its double.
    pub jobs: Vec<Job>,
}

impl Op for Enqueue {
    fn plain(&mut self) -> Option<&mut Job> {
        match &mut self.ready[..] {
            [Ready { job, check: None }] if job.is_plain() => Some(job),
            _ => None,
        }
    }

    fn may_be_one_statement(&self) -> bool {
        self.ready.len() == 1
    }

    fn run_as_one_statement(&mut self, tx: &mut Tx<'_>) -> Result<bool> {
        match &mut self.ready[..] {
            [Ready { job, check: None }] => enqueue_one(tx, job).map(|()| true),
            [Ready { job, check: Some(check) }] => enqueue_unless_double(tx, job, check),
            _ => Ok(false),
        }
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
                match check {
                    Some(check) => self.jobs.extend(enqueue_unique(tx, job, check)?),
                    None => enqueue_one(tx, job)?,
                }
            }
        }
        Ok(())
    }
}

pub(super) fn enqueue_one(tx: &mut Tx<'_>, job: &mut Job) -> Result<()> {
    if !job.is_plain() {
        let sql = if tx.newest.is_some() { sql::ENQUEUE_NEXT } else { sql::ENQUEUE_FIRST };
        return insert(tx, sql, job, None).map(|_| ());
    }
    let (args, at) = (job.args.as_str(), job.inserted_at.as_microsecond());
    let Job { queue, worker, max_attempts, priority, .. } = &*job;
    match tx.newest {
        Some(_) => run(tx.conn, sql::ENQUEUE_NEXT_PLAIN, (queue, worker, args, max_attempts, priority, at))?,
        None => run(tx.conn, sql::ENQUEUE_FIRST_PLAIN, (queue, worker, args, max_attempts, priority, at, tx.known))?,
    };
    stored(tx, job);
    Ok(())
}

/// Stores a plain job as it is once it is claimed: when, in microseconds, and by whom.
pub(super) fn enqueue_claimed(tx: &mut Tx<'_>, job: &mut Job, now: i64, by: &str) -> Result<()> {
    let (args, at) = (job.args.as_str(), job.inserted_at.as_microsecond());
    let Job { queue, worker, max_attempts, priority, .. } = &*job;
    let claimed = (queue, worker, args, max_attempts, priority, at, tx.known, now, by);
    run(tx.conn, sql::ENQUEUE_CLAIMED, claimed)?;
    identify(tx, job);
    Ok(())
}

/// Stores the job where there is none with its key, as mostly there is not; says whether it did.
fn enqueue_unless_double(tx: &mut Tx<'_>, job: &mut Job, check: &Check) -> Result<bool> {
    let sql = if tx.newest.is_some() { sql::ENQUEUE_NEXT_UNIQUE } else { sql::ENQUEUE_FIRST_UNIQUE };
    Ok(!tx.elder_keys && insert(tx, sql, job, Some(&check.key))?)
}

/// Stores the job, or gives back its double.
fn enqueue_unique(tx: &mut Tx<'_>, job: &mut Job, check: &Check) -> Result<Option<Job>> {
    if enqueue_unless_double(tx, job, check)? {
        return Ok(None);
    }
    let elder = if tx.elder_keys { check.elder_key(job) } else { None };
    for key in [Some(&check.key), elder.as_ref()].into_iter().flatten() {
        if let Some(there) = double(tx, key, check, job)? {
            return Ok(Some(there));
        }
    }
    let sql = if tx.newest.is_some() { sql::ENQUEUE_NEXT } else { sql::ENQUEUE_FIRST };
    insert(tx, sql, job, Some(&check.key)).map(|_| None)
}

/// Stores a job, and gives it its id; says whether there is a row more.
fn insert(tx: &mut Tx<'_>, sql: &str, job: &mut Job, key: Option<&String>) -> Result<bool> {
    if insert_with(tx, sql, job, &job.args.as_str(), key)? == 0 {
        return Ok(false);
    }
    stored(tx, job);
    Ok(true)
}

/// Runs one of the statements that store whole jobs, with these arguments; says how many it stored.
fn insert_with(tx: &Tx<'_>, sql: &str, job: &Job, args: &dyn ToSql, key: Option<&String>) -> Result<usize> {
    let parameters = params![
        job.state.as_str(),
        job.queue,
        job.worker,
        args,
        job.meta.as_str(),
        rows::words_json(&job.tags),
        job.max_attempts,
        job.priority,
        job.inserted_at.as_microsecond(),
        job.scheduled_at.as_microsecond(),
        job.expires_at.map(Timestamp::as_microsecond),
        key,
        tx.known,
    ];
    // The ids after the first of a transaction follow by themselves: those statements have no place for what is known.
    let asked = parameters.len() - usize::from(tx.newest.is_some());
    run(tx.conn, sql, &parameters[..asked])
}

fn stored(tx: &mut Tx<'_>, job: &mut Job) {
    identify(tx, job);
    tx.news.of(job);
}

fn identify(tx: &mut Tx<'_>, job: &mut Job) {
    job.id = tx.conn.last_insert_rowid();
    tx.newest = Some(job.id);
}

/// Stores jobs that differ in nothing but their arguments. Their ids follow that of the job before.
fn enqueue_alike(tx: &mut Tx<'_>, ready: &mut [Ready], mut newest: i64) -> Result<()> {
    // Lent to the statement rather than copied: there may be much of them.
    let args: Rc<Vec<Sql>> = Rc::new(ready.iter_mut().map(|ready| Sql::Text(ready.job.args.take())).collect());
    let Some(Ready { job, .. }) = ready.first() else { return Ok(()) };
    let stored = insert_with(tx, sql::ENQUEUE_ALIKE, job, &args, None);
    tx.news.of(job);
    for (Ready { job, .. }, args) in ready.iter_mut().zip(Rc::unwrap_or_clone(args)) {
        if let Sql::Text(args) = args {
            job.args.put_back(args);
        }
    }
    stored?;
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

impl Enqueue {
    pub fn new(ready: Vec<Ready>) -> Self {
        Self { ready, jobs: Vec::new() }
    }

    /// The jobs in the order they were given, stored or found.
    pub fn finish(self) -> Vec<Job> {
        if self.jobs.is_empty() {
            return self.ready.into_iter().map(|ready| ready.job).collect();
        }
        let mut found = self.jobs.into_iter();
        let stored = |ready: Ready| if ready.job.id == 0 { None } else { Some(ready.job) };
        self.ready.into_iter().filter_map(|ready| stored(ready).or_else(|| found.next())).collect()
    }
}

/// The job that is there already, with what it was given of the new one.
fn double(tx: &mut Tx<'_>, key: &str, check: &Check, new: &Job) -> Result<Option<Job>> {
    let since = check.since.map_or(i64::MIN, Timestamp::as_microsecond);
    let expired = check.expired_by(new).map_or(i64::MIN, Timestamp::as_microsecond);
    for state in &check.states {
        let there = tx
            .conn
            .prepare_cached(sql::DOUBLE)
            .and_then(|mut select| select.query_one((key, state.as_str(), since, expired), rows::job).optional())
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
