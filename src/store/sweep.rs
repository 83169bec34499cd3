//! Statements that make the same of many rows at once: due jobs become available, old jobs are deleted, and jobs without
//! an attempt left are discarded.

use std::sync::LazyLock;

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row};

use super::value::{all, integer, one, run, text, time};
use crate::error::Result;
use crate::event::Subject;
use crate::job::State;

/// A job that was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub job: Subject,
    /// What the job is now; what it was, if it is gone.
    pub state: State,
    /// What was added to its errors.
    pub error: Option<String>,
    /// Whether a crash made it wait as a suspect.
    pub is_suspect: bool,
}

impl Changed {
    /// Reads the columns id, queue, worker, attempt.
    pub fn read(row: &Row<'_>, state: State) -> rusqlite::Result<Self> {
        let (queue, worker) = (text(row.get_ref(1)?), text(row.get_ref(2)?));
        let job = Subject { id: row.get(0)?, queue, worker, attempt: integer(row.get_ref(3)?) };
        Ok(Self { job, state, error: None, is_suspect: false })
    }
}

/// How many jobs a transaction changed and, if anybody wants to know, which.
#[derive(Debug, Default)]
pub(crate) struct ChangedJobs {
    pub count: u64,
    pub jobs: Vec<Changed>,
    wanted: bool,
}

impl ChangedJobs {
    /// Collects each job only if it is `wanted`: to name a job costs half as much as to change it.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    pub fn add(&mut self, changed: Changed) {
        self.count += 1;
        if self.wanted {
            self.jobs.push(changed);
        }
    }
}

/// An UPDATE or a DELETE of many rows of `kiln_jobs`.
struct Sweep {
    /// What the jobs are afterwards; what they were, if they are gone.
    state: State,
    sql: String,
    /// The same with the rows named.
    naming: String,
}

impl Sweep {
    fn new(state: State, sql: impl Into<String>) -> Self {
        let sql = sql.into();
        Self { state, naming: format!("{sql} RETURNING id, queue, worker, attempt"), sql }
    }

    /// Adds what it changes to `changed`, and returns how many that were.
    fn run(&self, conn: &Connection, parameters: impl Params, changed: &mut ChangedJobs) -> Result<u64> {
        let count = if changed.wanted {
            let mut jobs = all(conn, &self.naming, parameters, |row| Changed::read(row, self.state))?;
            let count = jobs.len();
            changed.jobs.append(&mut jobs);
            count
        } else {
            run(conn, &self.sql, parameters)?
        };
        changed.count += count as u64;
        Ok(count as u64)
    }
}

static STAGE: LazyLock<Sweep> = LazyLock::new(|| {
    let sql = "
UPDATE kiln_jobs SET state = 'available' WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_due
  WHERE state IN ('scheduled', 'retryable') AND queue = ?1 AND scheduled_at <= ?2
  ORDER BY scheduled_at LIMIT ?3)";
    Sweep::new(State::Available, sql)
});

/// Makes the jobs of a queue available that are due by `now`; at most `batch`.
pub(crate) fn stage(conn: &Connection, queue: &str, now: i64, batch: u32, changed: &mut ChangedJobs) -> Result<u64> {
    STAGE.run(conn, (queue, now, batch), changed)
}

/// Numbers come before all other values: a due time that is no number is never due.
const NEXT_DUE: &str = "
SELECT scheduled_at FROM kiln_jobs INDEXED BY kiln_jobs_due
WHERE state IN ('scheduled', 'retryable') AND queue = ?1 AND scheduled_at <= 9223372036854775807
ORDER BY scheduled_at LIMIT 1";

/// When the first job of the queue is due that waits for its time.
pub(crate) fn next_due(conn: &Connection, queue: &str) -> Result<Option<Timestamp>> {
    Ok(one(conn, NEXT_DUE, [queue], |row| Ok(time(row.get_ref(0)?)))?.flatten())
}

static DISCARD_EXHAUSTED: LazyLock<Sweep> = LazyLock::new(|| {
    let sql = "
UPDATE kiln_jobs SET state = 'discarded', discarded_at = ?1 WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_exhausted
  WHERE state = 'available' AND attempt >= max_attempts LIMIT ?2)";
    Sweep::new(State::Discarded, sql)
});

/// Discards available jobs without an attempt left, which no claim would take; at most `batch`.
pub(crate) fn discard_exhausted(conn: &Connection, now: i64, batch: u32, changed: &mut ChangedJobs) -> Result<u64> {
    DISCARD_EXHAUSTED.run(conn, (now, batch), changed)
}

/// One for each state in which a job has ended.
static PRUNES: LazyLock<[Sweep; 3]> = LazyLock::new(|| {
    [State::Completed, State::Cancelled, State::Discarded].map(|state| {
        let sql = format!(
            "
DELETE FROM kiln_jobs WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_{state}
  WHERE state = '{state}' AND {state}_at <= ?1 ORDER BY {state}_at LIMIT ?2)"
        );
        Sweep::new(state, sql)
    })
});

/// Deletes jobs that ended in this state by `until`; at most `batch`, the oldest first.
pub(crate) fn prune(conn: &Connection, state: State, until: i64, batch: u32, changed: &mut ChangedJobs) -> Result<()> {
    let mut prunes = PRUNES.iter().filter(|prune| prune.state == state);
    prunes.try_for_each(|prune| keeping_ids(conn, |conn| prune.run(conn, (until, batch), changed).map(|_| ())))
}

const NEWEST: &str = "SELECT ifnull(max(id), 0) FROM kiln_jobs";

const REMEMBER_NEWEST: &str = "UPDATE kiln_schema SET last_id = max(last_id, ?1)";

/// Runs a delete, and remembers the highest id if its job was deleted: no job gets that id again.
pub(crate) fn keeping_ids(conn: &Connection, delete: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
    let newest = || Ok(one(conn, NEWEST, [], |row| row.get::<_, i64>(0))?.unwrap_or(0));
    let before = newest()?;
    delete(conn)?;
    if newest()? < before {
        run(conn, REMEMBER_NEWEST, [before])?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    let sweeps = PRUNES.iter().chain([&*STAGE, &*DISCARD_EXHAUSTED]).map(|sweep| sweep.sql.clone());
    sweeps.chain([NEXT_DUE, NEWEST, REMEMBER_NEWEST].map(str::to_owned)).collect()
}
