//! The connection that writes, and what is known of it.

use std::cell::Cell;

use rusqlite::Connection;

use super::verbs::exists;
use super::write::Tx;
use super::{doubt, failed, sql};
use crate::Result;
use crate::engine::News;

pub(super) struct Link {
    pub conn: Connection,
    /// The level of syncing it is set to.
    synced: Option<bool>,
    /// A sync failed, and what it concerned may be lost.
    doubtful: Cell<bool>,
    /// The newest job that was stored with it.
    newest: i64,
    elder_keys: bool,
}

impl Link {
    pub fn new(conn: Connection) -> Self {
        let elder_keys = exists(&conn, sql::ELDER_KEYS, []).unwrap_or(true);
        Self { conn, synced: None, doubtful: Cell::new(false), newest: 0, elder_keys }
    }

    /// Runs a transaction: all of it, or nothing. One statement alone is one by itself.
    pub fn run<T>(
        &mut self,
        synced: bool,
        alone: bool,
        body: impl FnOnce(&mut Tx<'_>) -> Result<T>,
    ) -> Result<(T, News)> {
        self.sync(synced)?;
        let conn = &self.conn;
        doubt::end(conn, &self.doubtful)?;
        let execute = |sql| conn.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(failed);
        if !alone {
            execute("BEGIN IMMEDIATE")?;
        }
        let mut tx = Tx { known: self.newest, elder_keys: self.elder_keys, ..Tx::new(conn) };
        let result = body(&mut tx).and_then(|value| {
            if !alone {
                execute("COMMIT")?;
            }
            Ok(value)
        });
        let Tx { news, newest, .. } = tx;
        match result {
            Ok(value) => {
                self.newest = newest.unwrap_or(self.newest);
                Ok((value, news))
            }
            Err(error) => {
                if doubt::arises(&error) {
                    self.doubtful.set(true);
                    // What is there is as doubtful.
                    self.newest = 0;
                }
                // Some errors have rolled back already.
                if !conn.is_autocommit() {
                    let _ = conn.execute_batch("ROLLBACK");
                }
                Err(error)
            }
        }
    }

    fn sync(&mut self, synced: bool) -> Result<()> {
        if self.synced != Some(synced) {
            let level = if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.conn.execute_batch(level).map_err(failed)?;
            self.synced = Some(synced);
        }
        Ok(())
    }
}
