//! A runtime's part in a transaction: acks first, then claims for the slots they freed.

use std::borrow::Cow;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, ToSql};

use super::ack::acknowledge_all;
use super::enqueue::{enqueue_claimed, enqueue_one};
use super::solitude::{Place, Room, Solitude};
use super::verbs::{exists, run};
use super::write::{Op, Tx};
use super::{failed, rows, sql};
use crate::Result;
use crate::engine::{Claimed, Demand, Done, LOAD, Member, Turn};
use crate::job::{Attempt, Fence, Job, JobError, Note, State};

/// The turns of the runtimes in this process. A new job that comes by itself is stored here: where it would be the only one
/// to claim, it is claimed as it is stored, which is half the work.
pub(super) fn turns(
    tx: &mut Tx<'_>,
    turns: &[Turn],
    mut new: Option<&mut Job>,
    solitude: &Solitude,
) -> Result<Vec<Done>> {
    let mut done = Vec::with_capacity(turns.len());
    if turns.is_empty() {
        new.map_or(Ok(()), |job| enqueue_one(tx, job))?;
        return Ok(done);
    }
    for turn in turns {
        done.push(Done { acked: acknowledge_all(tx, &turn.acks, turn.now)?, ..Done::default() });
    }
    let mut room = solitude.room(turns, Instant::now());
    if let Some(queue) = room.waits()
        && !still_waits(tx.conn, turns, &mut done, &mut room, &queue)?
    {
        room.nobody_waits();
    }
    for (n, turn) in turns.iter().enumerate() {
        for demand in &turn.demands {
            if let Some(job) = new.take_if(|job| *job.queue == *demand.queue) {
                if may_be_claimed_new(tx.conn, turn, demand, job, &mut room)? {
                    enqueue_claimed(tx, job, turn.now.as_microsecond(), &owner(turn))?;
                    // Who enqueued it is given back what it was before.
                    done[n].claimed.push(claim_job(job.clone(), turn));
                    continue;
                }
                enqueue_one(tx, job)?;
            }
            match claim_queue(tx.conn, turn, demand, &mut done[n], &mut room)? {
                Met::All => {}
                Met::Enough => done[n].more = true,
                Met::Suspect => drop(claim_suspect(tx.conn, turns, &mut done, &mut room)?),
            }
        }
    }
    new.map_or(Ok(()), |job| enqueue_one(tx, job))?;
    done.iter_mut().for_each(|done| done.until = room.until());
    Ok(done)
}

/// Whether a new job would be what this demand is met with, were it stored.
fn may_be_claimed_new(conn: &Connection, turn: &Turn, demand: &Demand, job: &Job, room: &mut Room<'_>) -> Result<bool> {
    Ok(turn.runtime.workers.contains(&job.worker)
        && demand.limit.min(demand.slots) > 0
        && !room.is_closed()
        && !exists(conn, sql::ANY_AVAILABLE, [&demand.queue])?
        && room.place(turn, job) == Place::Free)
}

/// From how many rows on one statement for all of them costs less than one for each.
pub(super) const MANY: usize = 4;

/// A turn of somebody who is no crew.
#[cfg(feature = "testing")]
pub(super) struct Taken {
    pub turn: Turn,
    pub done: Done,
}

#[cfg(feature = "testing")]
impl Op for Taken {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let done = turns(tx, std::slice::from_ref(&self.turn), None, &Solitude::apart())?;
        self.done = done.into_iter().next().unwrap_or_default();
        Ok(())
    }
}

/// How often a claim goes on to the next jobs when those it found had expired.
const ROUNDS: u32 = 16;

/// Looks after the suspect that waits in this queue: claims one where nothing runs any more; says whether it is there.
fn still_waits(conn: &Connection, turns: &[Turn], done: &mut [Done], room: &mut Room<'_>, queue: &str) -> Result<bool> {
    if room.is_empty() {
        return claim_suspect(conn, turns, done, room);
    }
    let mut asked = false;
    for (turn, demand) in demands(turns).filter(|(_, demand)| *demand.queue == *queue) {
        asked = true;
        let found = available(conn, queue, &turn.runtime, demand.limit, demand.slots)?.jobs;
        if found.iter().any(|job| room.is_suspect(turn, job) && !has_expired(job, turn)) {
            return Ok(true);
        }
    }
    Ok(!asked)
}

/// Claims a suspect by itself, where nothing runs: of all that could be claimed the one that began last before. Says whether
/// there is any.
fn claim_suspect(conn: &Connection, turns: &[Turn], done: &mut [Done], room: &mut Room<'_>) -> Result<bool> {
    let mut last: Option<(usize, Job)> = None;
    for (n, turn) in turns.iter().enumerate() {
        for (_, demand) in demands(std::slice::from_ref(turn)) {
            let found = available(conn, &demand.queue, &turn.runtime, demand.limit, demand.slots)?.jobs;
            for job in found.into_iter().filter(|job| room.is_suspect(turn, job) && !has_expired(job, turn)) {
                // Of several that began at once, the first in claim order.
                if last.as_ref().is_none_or(|(_, last)| last.attempted_at < job.attempted_at) {
                    last = Some((n, job));
                }
            }
        }
    }
    let Some((n, suspect)) = last else { return Ok(false) };
    if room.place(&turns[n], &suspect) == Place::Alone {
        claim_alone(suspect, &turns[n], &mut done[n], room);
        store_claims(conn, &done[n].claimed, &turns[n])?;
    }
    Ok(true)
}

fn claim_alone(suspect: Job, turn: &Turn, done: &mut Done, room: &Room<'_>) {
    let claimed = claim_job(suspect, turn);
    room.mark(claimed.attempt.fence);
    done.claimed.push(claimed);
    done.alone = true;
}

/// Whatever is asked for by somebody who could execute it.
fn demands(turns: &[Turn]) -> impl Iterator<Item = (&Turn, &Demand)> {
    let able = turns.iter().filter(|turn| !turn.runtime.workers.is_empty());
    able.flat_map(|turn| turn.demands.iter().map(move |demand| (turn, demand)))
}

/// What a claim for a demand came to.
enum Met {
    /// All there is for now.
    All,
    /// There may be more that it did not get to.
    Enough,
    /// A suspect, with nothing else running or claimed.
    Suspect,
}

fn has_expired(job: &Job, turn: &Turn) -> bool {
    job.expires_at.is_some_and(|at| at <= turn.now)
}

/// Claims for a demand.
fn claim_queue(conn: &Connection, turn: &Turn, demand: &Demand, done: &mut Done, room: &mut Room<'_>) -> Result<Met> {
    let workers = &turn.runtime.workers;
    if workers.is_empty() {
        return Ok(Met::All);
    }
    if room.is_closed() {
        done.held = true;
        return Ok(Met::All);
    }
    let first = done.claimed.len();
    for _ in 0..ROUNDS {
        let (begin, expired) = (done.claimed.len(), done.expired.len());
        let (limit, slots) = (demand.limit - (begin - first), demand.slots.saturating_sub(begin - first));
        let load = available(conn, &demand.queue, &turn.runtime, limit, slots)?;
        let heavy = load.is_heavy();
        for job in load.jobs {
            if has_expired(&job, turn) {
                expire(conn, &job, turn.now)?;
                done.expired.push(job);
                continue;
            }
            if room.is_empty() && room.is_suspect(turn, &job) {
                done.held = true;
                return Ok(Met::Suspect);
            }
            match room.place(turn, &job) {
                Place::Free => done.claimed.push(claim_job(job, turn)),
                Place::Alone => claim_alone(job, turn, done, room),
                Place::None => {}
            }
            if room.is_closed() {
                done.held = true;
                break;
            }
        }
        store_claims(conn, &done.claimed[begin..], turn)?;
        let some = (done.claimed.len(), done.expired.len()) != (begin, expired);
        if done.held || heavy || done.expired.len() == expired {
            return Ok(if heavy && some && !done.held { Met::Enough } else { Met::All });
        }
    }
    Ok(Met::Enough)
}

/// The jobs a claim finds: no more than it was asked for, and than it may carry.
struct Load {
    limit: usize,
    slots: usize,
    jobs: Vec<Job>,
    bytes: usize,
}

impl Load {
    fn new(limit: usize, slots: usize) -> Self {
        Self { limit, slots, jobs: Vec::new(), bytes: 0 }
    }

    /// Whether there may be more, which would be too much to carry.
    fn is_heavy(&self) -> bool {
        self.bytes >= LOAD && self.jobs.len() >= self.slots && self.jobs.len() < self.limit
    }

    fn is_full(&self) -> bool {
        self.jobs.len() >= self.limit || self.is_heavy()
    }

    /// Says whether it is full then.
    fn take(&mut self, job: Job) -> bool {
        self.bytes += job.bytes();
        self.jobs.push(job);
        self.is_full()
    }
}

fn available(conn: &Connection, queue: &str, runtime: &Member, limit: usize, slots: usize) -> Result<Load> {
    let mut load = Load::new(limit, slots);
    if load.is_full() {
        return Ok(load);
    }
    if !runtime.damaged.lock().is_empty() {
        readable(conn, queue, runtime, |job| load.take(job))?;
        return Ok(load);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(sql::claim(runtime.workers.len())).map_err(failed)?;
    let mut parameters: Vec<&dyn ToSql> = vec![&queue, &limit];
    parameters.extend(runtime.workers.iter().map(|worker| worker as &dyn ToSql));
    let read = |row: &rusqlite::Row<'_>| rows::claimable(row, queue.to_owned());
    for job in select.query_map(parameters.as_slice(), read).map_err(failed)? {
        if job.as_ref().is_err_and(is_damaged) {
            // To find it, all are read until it is come across.
            readable(conn, queue, runtime, |_| false)?;
        }
        if load.take(job.map_err(failed)?) {
            break;
        }
    }
    Ok(load)
}

/// Those that can be read, worker by worker, until `take` has enough. A transaction that came across a damaged row writes
/// nothing more: the row is remembered, and left alone by the next.
fn readable(conn: &Connection, queue: &str, runtime: &Member, mut take: impl FnMut(Job) -> bool) -> Result<()> {
    let mut ids = conn.prepare_cached(sql::CLAIMABLE).map_err(failed)?;
    let mut get = conn.prepare_cached(sql::GET).map_err(failed)?;
    for worker in &runtime.workers {
        let mut found = ids.query((queue, worker)).map_err(failed)?;
        while let Some(row) = found.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            if runtime.damaged.lock().contains(&id) {
                continue;
            }
            let job = get.query_one([id], |row| rows::claimable(row, queue.to_owned()));
            if job.as_ref().is_err_and(is_damaged) {
                runtime.damaged.lock().insert(id);
            }
            if take(job.map_err(failed)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether it is the row that cannot be read: its pages are not whole, or it is more than fits into memory.
pub(super) fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::OutOfMemory | ErrorCode::TooBig))
}

fn expire(conn: &Connection, job: &Job, now: Timestamp) -> Result<()> {
    let at = job.expires_at.unwrap_or(now);
    let raw = |row: &rusqlite::Row<'_>| Ok(rows::text(row.get_ref(0)?));
    let errors =
        conn.prepare_cached(sql::ERRORS).and_then(|mut select| select.query_one([job.id], raw)).map_err(failed)?;
    let errors = JobError::add_to(&errors, now, job.attempt, format!("expired: not claimed before {at}"));
    run(conn, sql::EXPIRE, (job.id, now.as_microsecond(), errors)).map(|_| ())
}

fn store_claims(conn: &Connection, claimed: &[Claimed], turn: &Turn) -> Result<()> {
    if claimed.is_empty() {
        return Ok(());
    }
    let owner = owner(turn);
    let now = turn.now.as_microsecond();
    let is_fresh = |fence: Fence| (fence.attempt, fence.attempted_at) == (1, now);
    let mut fences: Vec<Fence> = claimed.iter().map(|claim| claim.attempt.fence).collect();
    fences.sort_unstable_by_key(|fence| fence.id);
    let mut update = conn.prepare_cached(sql::CLAIM_ONE).map_err(failed)?;
    for neighbours in fences.chunk_by(|a, b| a.id.checked_add(1) == Some(b.id) && is_fresh(*a) && is_fresh(*b)) {
        if let [first, .., last] = neighbours
            && neighbours.len() >= MANY
        {
            run(conn, sql::CLAIM_FRESH, (first.id, last.id, now, &owner))?;
            continue;
        }
        for Fence { id, attempt, attempted_at } in neighbours {
            update.execute((id, attempt, attempted_at, &owner)).map_err(failed)?;
        }
    }
    Ok(())
}

fn owner(turn: &Turn) -> Cow<'static, str> {
    rows::words_json(&[&turn.runtime.node, &turn.runtime.id])
}

fn claim_job(mut job: Job, turn: &Turn) -> Claimed {
    // A clock set back, or an attempt given back, must not make two attempts look the same.
    let after_the_last = job.attempted_at.map_or(i64::MIN, |last| last.as_microsecond().saturating_add(1));
    let attempted_at = turn.now.as_microsecond().max(after_the_last);
    job.state = State::Executing;
    job.attempt = job.attempt.saturating_add(1);
    job.attempted_at = Some(rows::from_micros(attempted_at));
    job.attempted_by = vec![turn.runtime.node.clone(), turn.runtime.id.clone()];
    let fence = Fence { id: job.id, attempt: job.attempt, attempted_at };
    Claimed { attempt: Attempt { fence, max_attempts: job.max_attempts }, job }
}

/// What an attempt says about itself.
pub(super) struct Noted {
    pub fence: Fence,
    pub note: Note,
    pub landed: bool,
}

impl Op for Noted {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let Fence { id, attempt, attempted_at } = self.fence;
        let (sql, text) = match &self.note {
            Note::Progress(text) => (sql::NOTE_PROGRESS, text),
            Note::Checkpoint(text) => (sql::NOTE_CHECKPOINT, text),
        };
        self.landed = run(tx.conn, sql, (id, attempt, attempted_at, text))? == 1;
        Ok(())
    }
}
