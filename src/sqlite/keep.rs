//! What keepers do: stage, rescue, prune.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::claim::abandon;
use super::verbs::{deleting, exists, run};
use super::write::{Op, Tx};
use super::{failed, rows, sql};
use crate::Result;
use crate::engine::Cutoffs;
use crate::job::{Attempt, End, Fence};

pub(super) struct Stage {
    pub queues: Vec<String>,
    pub now: Timestamp,
    pub batch: u32,
    pub staged: u64,
}

impl Op for Stage {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.staged = 0;
        for queue in &self.queues {
            let staged = run(tx.conn, sql::STAGE, (queue, self.now.as_microsecond(), self.batch))?;
            self.staged += staged as u64;
            if staged > 0 {
                tx.news.ring(queue);
            }
        }
        Ok(())
    }
}

/// When the first waiting job of these queues is due.
pub(super) fn next_due(conn: &Connection, queues: &[String]) -> Result<Option<Timestamp>> {
    let mut next: Option<Timestamp> = None;
    for queue in queues {
        let due = conn
            .prepare_cached(sql::NEXT_DUE)
            .and_then(|mut select| select.query_one([queue], |row| Ok(rows::time(row.get_ref(0)?))).optional())
            .map_err(failed)?;
        next = next.into_iter().chain(due.flatten()).min();
    }
    Ok(next)
}

/// An attempt that is executing somewhere, and whose it is.
#[derive(Debug)]
pub(super) struct Executing {
    pub fence: Fence,
    pub max_attempts: i64,
    pub queue: String,
    pub node: String,
    pub runtime: String,
}

pub(super) fn executing(conn: &Connection) -> Result<Vec<Executing>> {
    let mut select = conn.prepare_cached(sql::EXECUTING).map_err(failed)?;
    let found = select
        .query_map([], |row| {
            let mut owner = rows::words(row.get_ref(4)?).into_iter();
            Ok(Executing {
                fence: Fence {
                    id: row.get(0)?,
                    attempt: rows::integer(row.get_ref(1)?),
                    attempted_at: rows::integer(row.get_ref(3)?),
                },
                max_attempts: rows::integer(row.get_ref(2)?),
                queue: rows::text(row.get_ref(5)?),
                node: owner.next().unwrap_or_default(),
                runtime: owner.next().unwrap_or_default(),
            })
        })
        .map_err(failed)?;
    found.collect::<rusqlite::Result<_>>().map_err(failed)
}

/// Abandons attempts, and forgets the runtimes they belonged to.
pub(super) struct Rescue {
    pub whose: Whose,
    pub now: Timestamp,
    pub batch: u32,
    pub rescued: u64,
    /// Of the dead, those of whom nothing is left.
    pub forgotten: HashSet<String>,
}

pub(super) enum Whose {
    /// Of these runtimes, which are dead.
    Dead(HashSet<String>),
    /// Claimed before this time, but by these runtimes, which are here.
    Older(Timestamp, HashSet<String>),
}

impl Whose {
    /// Why an attempt is abandoned; `None` when it is not.
    fn why(&self, Executing { fence, node, runtime, .. }: &Executing) -> Option<String> {
        match self {
            Whose::Dead(dead) if dead.contains(runtime) => {
                Some(format!("abandoned: the process of runtime {runtime:?} on {node:?} ended during the attempt"))
            }
            Whose::Older(before, here) if fence.attempted_at < before.as_microsecond() && !here.contains(runtime) => {
                Some(format!("abandoned: runtime {runtime:?} on {node:?} executed it for too long"))
            }
            _ => None,
        }
    }
}

impl Op for Rescue {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.rescued = 0;
        let mut all = true;
        for executing in executing(tx.conn)? {
            let Some(error) = self.whose.why(&executing) else { continue };
            if self.rescued >= u64::from(self.batch) {
                all = false;
                break;
            }
            let attempt = Attempt { fence: executing.fence, max_attempts: executing.max_attempts };
            abandon(tx, &attempt.ack(End::Abandoned(error), self.now), self.now)?;
            self.rescued += 1;
        }
        self.forgotten = match &self.whose {
            // A runtime is forgotten, and its sidecar with it, only once nothing of it is left.
            Whose::Dead(dead) if all => dead.clone(),
            _ => HashSet::new(),
        };
        for id in &self.forgotten {
            run(tx.conn, sql::LEAVE, [id])?;
        }
        self.rescued += run(tx.conn, sql::DISCARD_EXHAUSTED, (self.now.as_microsecond(), self.batch))? as u64;
        Ok(())
    }
}

/// Whether there is an available job without an attempt left.
pub(super) fn any_exhausted(conn: &Connection) -> Result<bool> {
    exists(conn, sql::EXHAUSTED, [])
}

pub(super) struct Prune {
    pub cutoffs: Cutoffs,
    pub batch: u32,
    pub pruned: u64,
}

impl Op for Prune {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.pruned = 0;
        for (sql, cutoff) in [
            (sql::PRUNE_COMPLETED, self.cutoffs.completed),
            (sql::PRUNE_CANCELLED, self.cutoffs.cancelled),
            (sql::PRUNE_DISCARDED, self.cutoffs.discarded),
        ] {
            if let Some(cutoff) = cutoff {
                let prune = || run(tx.conn, sql, (cutoff.as_microsecond(), self.batch));
                self.pruned += deleting(tx.conn, prune)? as u64;
            }
        }
        Ok(())
    }
}

/// How many free pages the file keeps: they will be needed again.
const SPARE: i64 = 256;

/// How many it gives back in one go.
const BITE: i64 = 200;

/// Gives free pages back to the system, few at a time, so that nobody waits long for the lock; says whether there are
/// more to give.
pub(super) fn shrink(conn: &Connection) -> Result<bool> {
    let free =
        || conn.prepare_cached("PRAGMA freelist_count").and_then(|mut select| select.query_one([], |row| row.get(0)));
    let before: i64 = free().map_err(failed)?;
    if before <= SPARE {
        return Ok(false);
    }
    let bite = BITE.min(before - SPARE);
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({bite})")).map_err(failed)?;
    let mut pages = vacuum.query([]).map_err(failed)?;
    while pages.next().map_err(failed)?.is_some() {}
    let after = free().map_err(failed)?;
    // In an application's own file they may be there to stay.
    Ok(SPARE < after && after < before)
}
