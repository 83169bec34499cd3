//! What a transaction changed, until it is committed and told.

use rusqlite::{Connection, Params, Row};

use super::verbs::run;
use super::{failed, rows};
use crate::Result;
use crate::engine::{Changed, Told};
use crate::job::State;

/// How many jobs were changed, and, where somebody wants to be told, which.
#[derive(Default)]
pub(super) struct Tally {
    pub count: u64,
    wanted: bool,
    changed: Vec<Changed>,
}

impl Tally {
    pub fn new(told: &Told<'_>) -> Self {
        Self { wanted: told.is_some(), ..Self::default() }
    }

    /// Nothing: a transaction may be run again.
    pub fn clear(&mut self) {
        self.count = 0;
        self.changed.clear();
    }

    pub fn add(&mut self, changed: Changed) {
        self.count += 1;
        if self.wanted {
            self.changed.push(changed);
        }
    }

    /// Runs a statement that makes this of many rows; says of how many. That it names them costs half as much again as
    /// changing them, so it does where it has to.
    pub fn run(&mut self, conn: &Connection, sql: &str, parameters: impl Params, state: State) -> Result<u64> {
        let before = self.count;
        if !self.wanted {
            self.count += run(conn, sql, parameters)? as u64;
            return Ok(self.count - before);
        }
        let naming = format!("{sql} RETURNING id, queue, worker, attempt");
        let mut statement = conn.prepare_cached(&naming).map_err(failed)?;
        let read = |row: &Row<'_>| Ok(Changed { job: rows::subject(row)?, state, error: None });
        for changed in statement.query_map(parameters, read).map_err(failed)? {
            self.add(changed.map_err(failed)?);
        }
        Ok(self.count - before)
    }

    /// After the commit: tells of them, and forgets them.
    pub fn tell(&mut self, told: &mut Told<'_>) {
        if let Some(told) = told {
            self.changed.drain(..).for_each(told);
        }
    }
}
