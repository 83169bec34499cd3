//! What keepers do: stage, rescue, prune.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::ack::abandon;
use super::ledger::{Remains, Rules};
use super::tally::Tally;
use super::verbs::{deleting, exists, run, standing};
use super::write::{Op, Tx};
use super::{failed, rows, sql};
use crate::Result;
use crate::engine::{Changed, Cutoffs};
use crate::job::{Ack, Fence, Lost, State, Verdict, alone_at};

pub(super) struct Stage {
    pub queues: Vec<String>,
    pub now: Timestamp,
    pub batch: u32,
    pub staged: Tally,
}

impl Op for Stage {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.staged.clear();
        for queue in &self.queues {
            let due = (queue, self.now.as_microsecond(), self.batch);
            if self.staged.run(tx.conn, sql::STAGE, due, State::Available)? > 0 {
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
    pub crashes: i64,
    pub queue: String,
    pub node: String,
    pub runtime: String,
}

pub(super) fn executing(conn: &Connection) -> Result<Vec<Executing>> {
    let mut select = conn.prepare_cached(sql::EXECUTING).map_err(failed)?;
    let found = select
        .query_map([], |row| {
            let mut owner = rows::words(row.get_ref(3)?).into_iter();
            Ok(Executing {
                fence: Fence {
                    id: row.get(0)?,
                    attempt: rows::integer(row.get_ref(1)?),
                    attempted_at: rows::integer(row.get_ref(2)?),
                },
                queue: rows::text(row.get_ref(4)?),
                crashes: rows::integer(row.get_ref(5)?),
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
    pub rescued: Tally,
    /// Of the dead, those of whom nothing is left.
    pub forgotten: HashSet<String>,
    /// There are more than fit into one transaction.
    pub more: bool,
}

pub(super) enum Whose {
    /// Of these runtimes, which are dead, with what each has left, where that tells anything.
    Dead(HashMap<String, Option<Remains>>),
    /// Claimed before this time, but by these runtimes, which are here.
    Older(Timestamp, HashSet<String>),
}

impl Rescue {
    pub fn new(whose: Whose, now: Timestamp, batch: u32, rescued: Tally) -> Self {
        Self { whose, now, batch, rescued, forgotten: HashSet::new(), more: false }
    }
}

/// What is found of an attempt that is to be rescued.
enum Found<'a> {
    /// No thread had begun it.
    NotBegun,
    /// It was executing when its process died, of which this is left.
    Begun(&'a Remains, Lost),
    /// Its owner is gone, and nobody knows how.
    Orphan(Verdict),
}

impl Whose {
    fn find(&self, Executing { fence, node, runtime, crashes, .. }: &Executing) -> Option<Found<'_>> {
        match self {
            Whose::Dead(dead) => {
                let remains = dead.get(runtime)?;
                let Rules { max_crashes, solitude } = remains.as_ref().map(|remains| remains.rules).unwrap_or_default();
                let owner = format!("{runtime:?} on {node:?}");
                let lost = Lost { fence: *fence, crashes: *crashes, alone: 0, max_crashes, solitude, owner };
                Some(match remains {
                    Some(remains) if remains.has_not_begun(*fence) => Found::NotBegun,
                    Some(remains) => Found::Begun(remains, lost),
                    None => Found::Orphan(lost.uncounted()),
                })
            }
            Whose::Older(before, here) => {
                let is_old = fence.attempted_at < before.as_microsecond() && !here.contains(runtime);
                let error = || format!("abandoned: runtime {runtime:?} on {node:?} executed it for too long");
                is_old.then(|| Found::Orphan(Verdict::Abandon { error: error() }))
            }
        }
    }
}

impl Op for Rescue {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let mut acks = Vec::new();
        let mut all = true;
        let mut deaths: BTreeMap<&str, Vec<(&Remains, Lost)>> = BTreeMap::new();
        for executing in executing(tx.conn)? {
            let fence = executing.fence;
            let verdict = match self.whose.find(&executing) {
                None => continue,
                Some(Found::Begun(remains, lost)) => {
                    deaths.entry(&remains.process).or_default().push((remains, lost));
                    continue;
                }
                Some(Found::NotBegun) => Verdict::Release,
                Some(Found::Orphan(verdict)) => verdict,
            };
            match acks.len() < self.batch as usize {
                true => acks.push(Ack { fence, verdict }),
                false => all = false,
            }
        }
        // Those of one process at once: whether one was alone can be said of all of them only.
        for begun in deaths.into_values() {
            let others = begun.len() - 1;
            for (remains, mut lost) in begun {
                lost.alone = crashes_alone(tx.conn, &lost)?;
                let company = (others > 0 || !remains.tells_all(lost.fence)).then_some(others);
                acks.push(Ack { fence: lost.fence, verdict: lost.verdict(company) });
            }
        }
        self.rescued.clear();
        for ack in &acks {
            // As it is before: the attempt's number is given back with some of them.
            let before = standing(tx.conn, ack.fence.id)?;
            let state = abandon(tx, ack, self.now)?;
            if let Some(before) = before {
                self.rescued.add(Changed { state, error: ack.error().map(str::to_owned), ..before });
            }
        }
        self.more = !all;
        self.forgotten = match &self.whose {
            // A runtime is forgotten, and its sidecar with it, only once nothing of it is left.
            Whose::Dead(dead) if all => dead.keys().cloned().collect(),
            _ => HashSet::new(),
        };
        for id in &self.forgotten {
            run(tx.conn, sql::LEAVE, [id])?;
        }
        let exhausted = (self.now.as_microsecond(), self.batch);
        self.rescued.run(tx.conn, sql::DISCARD_EXHAUSTED, exhausted, State::Discarded).map(|_| ())
    }
}

/// At how many of its crashes a job was alone.
fn crashes_alone(conn: &Connection, lost: &Lost) -> Result<i64> {
    if lost.crashes == 0 {
        return Ok(0);
    }
    let read = |row: &rusqlite::Row<'_>| Ok(rows::text(row.get_ref(0)?));
    let errors = conn.prepare_cached(sql::ERRORS).and_then(|mut select| select.query_one([lost.fence.id], read));
    Ok(alone_at(&errors.map_err(failed)?, lost.crashes))
}

/// Whether there is an available job without an attempt left.
pub(super) fn any_exhausted(conn: &Connection) -> Result<bool> {
    exists(conn, sql::EXHAUSTED, [])
}

pub(super) struct Prune {
    pub cutoffs: Cutoffs,
    pub batch: u32,
    pub pruned: Tally,
}

impl Op for Prune {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.pruned.clear();
        for (state, sql, cutoff) in [
            (State::Completed, sql::PRUNE_COMPLETED, self.cutoffs.completed),
            (State::Cancelled, sql::PRUNE_CANCELLED, self.cutoffs.cancelled),
            (State::Discarded, sql::PRUNE_DISCARDED, self.cutoffs.discarded),
        ] {
            if let Some(cutoff) = cutoff {
                let old = (cutoff.as_microsecond(), self.batch);
                deleting(tx, |conn| self.pruned.run(conn, sql, old, state))?;
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
