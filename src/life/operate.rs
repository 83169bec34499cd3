//! Operate: cancel, retry, delete, update. A verb is applied to many jobs, a batch in each transaction.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::tx::Tx;
use crate::error::{Error, Kind, Result};
use crate::job::{Changes, Job, State, Verb, Which};
use crate::store::operate as rows;
use crate::store::query;
use crate::store::sweep::{Changed, ChangedJobs, keeping_ids};

/// How many rows a transaction touches at most, so that nobody waits long for the write lock.
pub(crate) const BATCH: u32 = 1000;

/// Applies a verb, which says what a job became if it changed that job, to the next batch of jobs. `from` is what the
/// batch before returned with its changes: where it ended. `None` stands for the begin and for the end.
pub(crate) fn operate(
    tx: &mut Tx<'_>,
    which: &Which,
    from: Option<i64>,
    wanted: bool,
    verb: &impl Fn(&mut Tx<'_>, i64) -> Result<Option<Changed>>,
) -> Result<(ChangedJobs, Option<i64>)> {
    let (ids, end) = match which {
        Which::Ids(ids) => {
            let begin = usize::try_from(from.unwrap_or(0)).unwrap_or(0);
            let ids: Vec<i64> = ids.iter().skip(begin).take(BATCH as usize).copied().collect();
            let end = begin + ids.len();
            (ids, Some(end as i64))
        }
        Which::Matching(filter) => {
            let ids = query::matching(tx.conn, filter, from.unwrap_or(i64::MIN), BATCH)?;
            let end = ids.last().copied();
            (ids, end)
        }
    };
    let mut changed = ChangedJobs::new(wanted);
    for &id in &ids {
        verb(tx, id).map_err(|error| with_id(id, error))?.into_iter().for_each(|job| changed.add(job));
    }
    Ok((changed, end.filter(|_| ids.len() == BATCH as usize)))
}

/// Names the job of an error, since the caller meant many.
fn with_id(id: i64, error: Error) -> Error {
    match error.kind() {
        Kind::Storage => Error::new(Kind::Storage, format!("job {id}")).because(error),
        _ => error,
    }
}

/// The job as it stands, if the verb does anything to it.
fn allowed(tx: &Tx<'_>, id: i64, verb: Verb) -> Result<Option<Changed>> {
    Ok(rows::brief(tx.conn, id)?.filter(|there| there.state.allows(verb)))
}

pub(crate) fn cancel(tx: &mut Tx<'_>, id: i64, now: Timestamp) -> Result<Option<Changed>> {
    let Some(there) = allowed(tx, id, Verb::Cancel)? else { return Ok(None) };
    if there.state == State::Executing {
        rows::request_cancel(tx.conn, id, now.as_microsecond())?;
        tx.notice.cancelling.push(id);
        return Ok(Some(there));
    }
    let mut meta = query::get(tx.conn, id)?.map_or_else(Map::new, |job| job.meta.map());
    meta.insert("cancel_attempted_at".into(), now.to_string().into());
    rows::cancel(tx.conn, id, now.as_microsecond(), &Value::Object(meta).to_string())?;
    Ok(Some(Changed { state: State::Cancelled, ..there }))
}

pub(crate) fn retry(tx: &mut Tx<'_>, id: i64, now: Timestamp) -> Result<Option<Changed>> {
    let Some(there) = allowed(tx, id, Verb::Retry)? else { return Ok(None) };
    rows::retry(tx.conn, id, now.as_microsecond())?;
    tx.notice.add_queue(&there.job.queue);
    Ok(Some(Changed { state: State::Available, ..there }))
}

pub(crate) fn delete(tx: &mut Tx<'_>, id: i64) -> Result<Option<Changed>> {
    let there = allowed(tx, id, Verb::Delete)?;
    if there.is_some() {
        tx.newest = None;
        keeping_ids(tx.conn, |conn| rows::delete(conn, id))?;
    }
    Ok(there)
}

pub(crate) fn update(tx: &mut Tx<'_>, id: i64, changes: &Changes, now: Timestamp) -> Result<Option<Changed>> {
    let Some(old) = query::get(tx.conn, id)?.filter(|job| job.state.allows(Verb::Update)) else { return Ok(None) };
    let mut new = old.clone();
    changes.apply(&mut new, now)?;
    rows::update(tx.conn, &old, &new)?;
    tx.notice.add_job(&new);
    Ok(Some(Changed { job: (&new).into(), state: new.state, error: None, is_suspect: false }))
}

/// Stores `new` if the row still is what `old` was read as. Returns whether it did.
pub(crate) fn replace(tx: &mut Tx<'_>, old: &Job, new: &Job) -> Result<bool> {
    let is_same = query::get(tx.conn, old.id)?.is_some_and(|job| job == *old);
    if is_same {
        rows::update(tx.conn, old, new)?;
        tx.notice.add_job(new);
    }
    Ok(is_same)
}
