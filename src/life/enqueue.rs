//! Enqueue: new jobs are stored one by one or many at once, unless they have a duplicate.

use std::rc::Rc;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::tx::{Operation, Tx};
use crate::error::{Error, Kind, Result};
use crate::file::Permission;
use crate::job::{Check, Job, Notice, Ready};
use crate::store::insert::{duplicate, has_key, insert, insert_alike, next_id};
use crate::store::operate;

/// From how many rows on one statement for all of them costs less than one for each.
const MANY: usize = 4;

/// Stores new jobs, all or none.
pub(crate) struct Enqueue {
    ready: Vec<Ready>,
    /// The duplicates that were found, each with the place of the job that was not stored.
    found: Vec<(usize, Job)>,
}

impl Enqueue {
    pub fn new(ready: Vec<Ready>) -> Self {
        Self { ready, found: Vec::new() }
    }

    /// The jobs in the order they were given, each as it was stored, or its duplicate.
    pub fn finish(self) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.ready.into_iter().map(|ready| ready.job).collect();
        self.found.into_iter().for_each(|(n, duplicate)| jobs[n] = duplicate);
        jobs
    }
}

impl Operation for Enqueue {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.found.clear();
        let all = self.ready.len();
        let mut rest = &mut self.ready[..];
        while let Some(first) = rest.first() {
            let alike = match tx.newest {
                Some(_) => rest.iter().take_while(|next| next.is_like(first)).count().max(1),
                None => 1,
            };
            let first = all - rest.len();
            let (now, later) = rest.split_at_mut(alike);
            rest = later;
            if alike >= MANY {
                store_alike(tx, now)?;
                continue;
            }
            for (n, Ready { job, check }) in (first..).zip(now) {
                match check {
                    Some(check) => self.found.extend(store_unique(tx, job, check)?.map(|duplicate| (n, duplicate))),
                    None => store(tx, job, None)?,
                }
            }
        }
        Ok(())
    }
}

/// Stores a job within a transaction that the application began and will end. The caller passes the notice on.
pub(crate) fn within(conn: &Connection, ready: Ready) -> Result<(Job, Notice)> {
    Permission::check_within(conn)?;
    let mut tx = Tx::new(conn, 0);
    let mut enqueue = Enqueue::new(vec![ready]);
    enqueue.run(&mut tx)?;
    let job = enqueue.finish().pop().expect("BUG: an enqueue gives back what it was given");
    Ok((job, tx.notice))
}

fn store(tx: &mut Tx<'_>, job: &mut Job, key: Option<&str>) -> Result<()> {
    let id = if tx.newest.is_none() { next_id(tx.conn, tx.known)? } else { None };
    job.id = insert(tx.conn, job, id, key)?;
    tx.newest = Some(job.id);
    tx.notice.add_job(job);
    Ok(())
}

/// Stores a job that must be unique, or gives back its duplicate.
fn store_unique(tx: &mut Tx<'_>, job: &mut Job, check: &Check) -> Result<Option<Job>> {
    // Mostly no job at all has the key, and this look is quicker than one at each state.
    if has_key(tx.conn, &check.key)?
        && let Some(there) = find_duplicate(tx, check, job)?
    {
        return Ok(Some(there));
    }
    store(tx, job, Some(&check.key)).map(|()| None)
}

/// The duplicate of a new job, with the fields of the new job that it was given.
fn find_duplicate(tx: &mut Tx<'_>, check: &Check, new: &Job) -> Result<Option<Job>> {
    let since = check.since.map_or(i64::MIN, Timestamp::as_microsecond);
    let expired = check.expired_by(new).map_or(i64::MIN, Timestamp::as_microsecond);
    for &state in &check.states {
        let Some(there) = duplicate(tx.conn, &check.key, state, since, expired)? else { continue };
        let replaced = check.replaced(&there, new);
        if let Some(job) = &replaced {
            operate::update(tx.conn, &there, job)?;
            tx.notice.add_job(job);
        }
        let mut job = replaced.unwrap_or(there);
        job.conflict = true;
        job.extra = new.extra.clone();
        return Ok(Some(job));
    }
    Ok(None)
}

/// Stores jobs that differ in nothing but their arguments. Their ids follow that of the newest job.
fn store_alike(tx: &mut Tx<'_>, ready: &mut [Ready]) -> Result<()> {
    let Some(newest) = tx.newest else { return Ok(()) };
    // The arguments are lent to the statement and not copied: they may be large.
    let args: Rc<Vec<Value>> = Rc::new(ready.iter_mut().map(|ready| Value::Text(ready.job.args.take())).collect());
    let stored = insert_alike(tx.conn, &ready[0].job, &args);
    for (Ready { job, .. }, args) in ready.iter_mut().zip(Rc::unwrap_or_clone(args)) {
        if let Value::Text(args) = args {
            job.args.put_back(args);
        }
    }
    let last = stored?;
    for (n, Ready { job, .. }) in (1..).zip(ready.iter_mut()) {
        job.id = newest + n;
    }
    tx.notice.add_job(&ready[0].job);
    let due = newest + ready.len() as i64;
    tx.newest = Some(last);
    if last == due {
        return Ok(());
    }
    Err(Error::new(Kind::Storage, format!("the ids of new jobs end with {last}, but should end with {due}")))
}
