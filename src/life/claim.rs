//! Claim: jobs are given to a runtime that has room for them.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::tx::{Claimed, Demand, Done, Part, Tx};
use crate::error::Result;
use crate::file::failed;
use crate::job::{Attempt, Fence, Job, JobError, State};
use crate::presence::{Place, Suspects};
use crate::store::claim as rows;
use crate::store::query;
use crate::store::value::{from_micros, is_damaged, words_json};

/// How many bytes of jobs are claimed at once: they are all in memory.
pub(crate) const MOST_BYTES: usize = 8 * 1024 * 1024;

/// How often a claim goes on to the next jobs if those it found had expired.
const ROUNDS: u32 = 16;

/// From how many rows on one statement for all of them costs less than one for each.
const MANY: usize = 4;

/// How long a suspect lets ordinary jobs of its queue go first.
const SUSPECT_WAITS: SignedDuration = SignedDuration::from_secs(60);

/// How often a queue that always has ordinary jobs is searched for suspects.
const SUSPECT_SEARCH: SignedDuration = SignedDuration::from_secs(1);

/// What claims know from one transaction to the next. A rollback does it no harm.
#[derive(Clone, Default)]
pub(crate) struct ClaimState {
    /// The place of the one suspect that this process executes at a time.
    suspects: Suspects,
    searches: HashMap<Arc<str>, Search>,
}

/// The last search for suspects in a queue.
#[derive(Clone, Copy, Debug)]
struct Search {
    at: Timestamp,
    /// Since when a suspect is known to wait.
    waits_since: Option<Timestamp>,
}

impl ClaimState {
    pub fn new(suspects: Suspects) -> Self {
        Self { suspects, searches: HashMap::new() }
    }

    /// Whether a suspect of this queue goes before ordinary jobs.
    fn goes_first(&self, queue: &str, now: Timestamp) -> bool {
        let since = self.searches.get(queue).and_then(|search| search.waits_since);
        since.is_some_and(|since| now.duration_since(since) >= SUSPECT_WAITS)
    }

    /// Whether the queue is to be searched although it has no room for a suspect.
    fn is_to_search(&self, queue: &str, now: Timestamp) -> bool {
        // A clock that was set back makes no search of long ago.
        self.searches.get(queue).is_none_or(|search| now.duration_since(search.at).abs() >= SUSPECT_SEARCH)
    }

    /// Whether the last search found a suspect that has to wait.
    fn waits(&self, queue: &str) -> bool {
        self.searches.get(queue).is_some_and(|search| search.waits_since.is_some())
    }

    /// After a claim of a suspect, the next one waits anew.
    fn searched(&mut self, queue: &Arc<str>, now: Timestamp, waits: bool, claimed: bool) {
        let before = self.searches.get(queue).and_then(|search| search.waits_since);
        let before = before.filter(|since| *since <= now && !claimed);
        let waits_since = waits.then(|| before.unwrap_or(now));
        self.searches.insert(Arc::clone(queue), Search { at: now, waits_since });
    }
}

/// Claims for all demands of a runtime. Write its acks before: they free what is demanded.
pub(crate) fn claim(tx: &mut Tx<'_>, part: &Part, state: &mut ClaimState, done: &mut Done) -> Result<()> {
    if part.runtime.workers.is_empty() || part.demands.is_empty() {
        return Ok(());
    }
    let owner = words_json(&[&part.runtime.node, &part.runtime.id]);
    for demand in &part.demands {
        let first = done.claimed.len();
        let mut claim = Claim { conn: tx.conn, part, demand, owner: &owner, first, done };
        let mut searched = state.goes_first(&demand.queue, part.now);
        if searched {
            claim.suspect(state)?;
        }
        claim.ordinary()?;
        if !searched && (claim.has_thread() || state.is_to_search(&demand.queue, part.now)) {
            claim.suspect(state)?;
            searched = true;
        }
        if !claim.has_thread() && (!searched || state.waits(&demand.queue)) {
            done.waiting.push(Arc::clone(&demand.queue));
        }
    }
    Ok(())
}

/// Writes the acks of a runtime and claims for its demands, as a turn does; for runtimes without threads.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn by_hand(tx: &mut Tx<'_>, part: &Part, state: &mut ClaimState) -> Result<Done> {
    let mut done = Done { acked: super::ack::acknowledge(tx, &part.acks, part.now)?, ..Done::default() };
    claim(tx, part, state, &mut done)?;
    Ok(done)
}

/// The claim for one demand.
struct Claim<'a> {
    conn: &'a Connection,
    part: &'a Part,
    demand: &'a Demand,
    owner: &'a str,
    /// How many jobs were claimed for the demands before.
    first: usize,
    done: &'a mut Done,
}

impl Claim<'_> {
    fn taken(&self) -> usize {
        self.done.claimed.len() - self.first
    }

    fn limit(&self) -> usize {
        self.demand.limit - self.taken()
    }

    fn slots(&self) -> usize {
        self.demand.slots.saturating_sub(self.taken())
    }

    /// Whether a thread would begin one more job at once. A suspect is never claimed ahead.
    fn has_thread(&self) -> bool {
        self.limit().min(self.slots()) > 0
    }

    /// Claims ordinary jobs, and cancels those that it finds expired.
    fn ordinary(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            let (begin, expired) = (self.done.claimed.len(), self.done.expired.len());
            let batch = self.available()?;
            let heavy = batch.is_heavy();
            for job in batch.jobs {
                if has_expired(&job, self.part.now) {
                    self.expire(job)?;
                } else {
                    self.done.claimed.push(claimed(job, self.part, None));
                }
            }
            self.store(begin)?;
            let some = (self.done.claimed.len(), self.done.expired.len()) != (begin, expired);
            if heavy || self.done.expired.len() == expired {
                self.done.more |= heavy && some;
                return Ok(());
            }
        }
        self.done.more = true;
        Ok(())
    }

    /// The next ordinary jobs, no more than are demanded and may be in memory.
    fn available(&mut self) -> Result<Found> {
        let mut batch = Found { limit: self.limit(), slots: self.slots(), jobs: Vec::new(), bytes: 0 };
        if !batch.is_full() {
            let mut passed = Vec::new();
            self.find(&mut batch, &mut passed)?;
            self.done.passed.append(&mut passed);
        }
        Ok(batch)
    }

    /// Fills the batch; `passed` gets the jobs that it may not take yet.
    fn find(&self, batch: &mut Found, passed: &mut Vec<i64>) -> Result<()> {
        let (queue, runtime) = (&*self.demand.queue, &*self.part.runtime);
        let limit = batch.limit.saturating_add(self.part.held.len());
        let mut take = |job: Job| {
            if self.is_held(&job) {
                passed.push(job.id);
                return true;
            }
            batch.take(job)
        };
        if !runtime.damaged.lock().is_empty() {
            return self.readable(take);
        }
        let found = rows::available(self.conn, queue, &runtime.workers, limit, &mut take);
        if found.as_ref().is_err_and(is_damaged) {
            // Reads all jobs one by one, until it comes to the one that is damaged.
            self.readable(|_| true)?;
        }
        found.map_err(failed)
    }

    /// An attempt of before may go on here, though its row was given to others meanwhile.
    fn is_held(&self, job: &Job) -> bool {
        (job.attempt > 0 || job.attempted_at.is_some()) && self.part.held.contains(&job.id)
    }

    /// Hands jobs that can be read to `take`, worker by worker, until it returns `false`.
    fn readable(&self, mut take: impl FnMut(Job) -> bool) -> Result<()> {
        for worker in &self.part.runtime.workers {
            let mut more = true;
            rows::available_ids(self.conn, &self.demand.queue, worker, |id| {
                if let Some(job) = self.read(id)? {
                    more = take(job);
                }
                Ok(more)
            })?;
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A job, unless its row is known to be damaged. A transaction that comes upon a damaged row writes nothing more: the
    /// row is remembered, and the next transaction leaves it alone.
    fn read(&self, id: i64) -> Result<Option<Job>> {
        let damaged = &self.part.runtime.damaged;
        if damaged.lock().contains(&id) {
            return Ok(None);
        }
        let job = query::try_get(self.conn, id);
        if job.as_ref().is_err_and(is_damaged) {
            damaged.lock().insert(id);
        }
        job.map_err(failed)
    }

    /// Claims the suspect that comes first, if a thread is free and no other suspect runs in this process.
    fn suspect(&mut self, state: &mut ClaimState) -> Result<()> {
        let begin = self.done.claimed.len();
        let mut waits = false;
        while let Some(job) = self.next_suspect()? {
            // The next suspect is refused the place that the first has just taken: so it is told when the place is free.
            let place = if self.has_thread() { state.suspects.reserve() } else { None };
            waits = place.is_none();
            if waits {
                break;
            }
            self.done.claimed.push(claimed(job, self.part, place));
            self.store(self.done.claimed.len() - 1)?;
        }
        let claimed = self.done.claimed.len() > begin;
        state.searched(&self.demand.queue, self.part.now, waits, claimed);
        Ok(())
    }

    fn next_suspect(&mut self) -> Result<Option<Job>> {
        for id in rows::suspects(self.conn, &self.demand.queue)? {
            let Some(job) = self.read(id)? else { continue };
            let known = self.part.runtime.workers.contains(&job.worker);
            if !known || job.attempt >= job.max_attempts {
                continue;
            }
            if self.is_held(&job) {
                self.done.passed.push(id);
                continue;
            }
            if !has_expired(&job, self.part.now) {
                return Ok(Some(job));
            }
            self.expire(job)?;
        }
        Ok(None)
    }

    fn expire(&mut self, job: Job) -> Result<()> {
        let (now, at) = (self.part.now, job.expires_at.unwrap_or(self.part.now));
        let errors = rows::errors(self.conn, job.id)?;
        let errors = JobError::add_to(&errors, now, job.attempt, format!("expired: not claimed before {at}"));
        rows::expire(self.conn, job.id, now.as_microsecond(), &errors)?;
        self.done.expired.push(job);
        Ok(())
    }

    /// Stores the claims from this one on. Neighbours that were never claimed before share a statement.
    fn store(&self, begin: usize) -> Result<()> {
        let now = self.part.now.as_microsecond();
        let is_fresh = |fence: &Fence| (fence.attempt, fence.attempted_at) == (1, now);
        let mut fences: Vec<Fence> = self.done.claimed[begin..].iter().map(|claim| claim.attempt.fence).collect();
        fences.sort_unstable_by_key(|fence| fence.id);
        for neighbours in fences.chunk_by(|a, b| a.id.checked_add(1) == Some(b.id) && is_fresh(a) && is_fresh(b)) {
            if let [first, .., last] = neighbours
                && neighbours.len() >= MANY
            {
                rows::claim_fresh(self.conn, first.id, last.id, now, self.owner)?;
                continue;
            }
            neighbours.iter().try_for_each(|fence| rows::claim(self.conn, *fence, self.owner))?;
        }
        Ok(())
    }
}

/// Jobs that a claim has found: no more than were demanded, and than may be in memory.
struct Found {
    limit: usize,
    slots: usize,
    jobs: Vec<Job>,
    bytes: usize,
}

impl Found {
    /// Whether there may be more jobs, which would be too many bytes to claim ahead.
    fn is_heavy(&self) -> bool {
        self.bytes >= MOST_BYTES && self.jobs.len() >= self.slots && self.jobs.len() < self.limit
    }

    fn is_full(&self) -> bool {
        self.jobs.len() >= self.limit || self.is_heavy()
    }

    /// Returns whether there is room for more.
    fn take(&mut self, job: Job) -> bool {
        self.bytes += job.bytes();
        self.jobs.push(job);
        !self.is_full()
    }
}

fn has_expired(job: &Job, now: Timestamp) -> bool {
    job.expires_at.is_some_and(|at| at <= now)
}

/// The job as it is once it is claimed.
fn claimed(mut job: Job, part: &Part, suspect: Option<Place>) -> Claimed {
    // A clock that was set back, or an attempt that was given back, must not make two attempts look the same.
    let after_the_last = job.attempted_at.map_or(i64::MIN, |last| last.as_microsecond().saturating_add(1));
    let attempted_at = part.now.as_microsecond().max(after_the_last);
    job.state = State::Executing;
    job.attempt = job.attempt.saturating_add(1);
    job.attempted_at = Some(from_micros(attempted_at));
    job.attempted_by = vec![part.runtime.node.clone(), part.runtime.id.clone()];
    let fence = Fence { id: job.id, attempt: job.attempt, attempted_at };
    Claimed { attempt: Attempt { fence, max_attempts: job.max_attempts }, job, suspect }
}
