//! The connection that writes, and its transactions.
//!
//! A commit is synced if its caller needs it. After a sync that failed, it is unknown what of the log is on the disk. The
//! system may take the lost pages for written, so that the next sync succeeds although there is a hole in the log. After a
//! power cut everything behind the hole is gone. So after a failed sync, nothing is written before the whole log was moved
//! into the database and begun anew.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ffi};

use super::busy::{be_patient, empty_log};
use super::error::{extended_code, failed};
use super::schema::Permission;
use crate::error::{Error, Kind, Result};

/// The connection that writes.
pub(crate) struct WriteConnection {
    pub conn: Connection,
    permission: Arc<Permission>,
    /// How long a transaction waits for the write lock.
    patience: Duration,
    /// The level of syncing that the connection is set to; `None` before the first transaction.
    synced: Option<bool>,
    /// A sync failed, and what it concerned may be lost.
    doubtful: bool,
}

impl WriteConnection {
    pub fn new(conn: Connection, permission: Arc<Permission>, patience: Duration) -> Self {
        Self { conn, permission, patience, synced: None, doubtful: false }
    }

    /// Runs a transaction: `body`, and a commit. Everything is rolled back if either fails. With `sync`, the transaction is
    /// on the disk when this returns.
    pub fn commit<T>(&mut self, sync: bool, body: &mut dyn FnMut(&Connection) -> Result<T>) -> Result<T> {
        self.prepare(sync)?;
        let result = self.transact(body);
        self.doubtful |= result.as_ref().is_err_and(is_failed_sync);
        result
    }

    fn transact<T>(&self, body: &mut dyn FnMut(&Connection) -> Result<T>) -> Result<T> {
        let execute = |sql| self.conn.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        execute("BEGIN IMMEDIATE").map_err(failed)?;
        let _end = RollBack(&self.conn);
        self.permission.check(&self.conn)?;
        let value = body(&self.conn)?;
        execute("COMMIT").map_err(failed)?;
        Ok(value)
    }

    /// Sets the level of syncing, and ends a doubt.
    fn prepare(&mut self, sync: bool) -> Result<()> {
        be_patient(self.patience);
        if self.synced != Some(sync) {
            let level = if sync { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.conn.execute_batch(level).map_err(failed)?;
            self.synced = Some(sync);
        }
        if self.doubtful {
            if !empty_log(&self.conn).map_err(failed)? {
                let message = "the disk failed before, and what was written then cannot be made safe while another process \
                               reads; nothing was written, try again";
                return Err(Error::new(Kind::Busy, message));
            }
            self.doubtful = false;
        }
        Ok(())
    }
}

/// Rolls back, unless the transaction has ended. Some errors of SQLite end it by themselves.
struct RollBack<'c>(&'c Connection);

impl Drop for RollBack<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}

fn is_failed_sync(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<rusqlite::Error>());
    cause.and_then(extended_code) == Some(ffi::SQLITE_IOERR_FSYNC)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::file::{Options, open};

    const INSERT: &str = "INSERT INTO kiln_jobs (worker) VALUES ('w')";

    fn insert(conn: &Connection) -> Result<usize> {
        conn.execute(INSERT, []).map_err(failed)
    }

    fn stored(conn: &Connection) -> i64 {
        conn.query_row("SELECT count(*) FROM kiln_jobs", [], |row| row.get(0)).unwrap()
    }

    fn in_memory() -> WriteConnection {
        let options = Options::default();
        WriteConnection::new(open::in_memory(&options).unwrap(), Arc::new(Permission::to_write()), options.patience)
    }

    #[test]
    fn a_transaction_is_committed_as_a_whole_or_not_at_all() {
        let mut writer = in_memory();
        assert_eq!(writer.commit(true, &mut |conn| Ok(insert(conn)? + insert(conn)?)).unwrap(), 2);
        let error = writer.commit(true, &mut |conn| {
            insert(conn)?;
            conn.execute_batch("INSERT INTO kiln_jobs (worker) VALUES (NULL)").map_err(failed)
        });
        assert!(error.unwrap_err().to_string().contains("NOT NULL"));
        assert_eq!(stored(&writer.conn), 2);
        // SQLite itself rolls back here.
        let error = writer.commit(true, &mut |conn| {
            insert(conn)?;
            conn.execute_batch("INSERT OR ROLLBACK INTO kiln_jobs (worker) VALUES (NULL)").map_err(failed)
        });
        assert!(error.is_err());
        assert_eq!(stored(&writer.conn), 2);
        writer.commit(true, &mut |conn| insert(conn)).unwrap();
        assert_eq!(stored(&writer.conn), 3);
    }

    #[test]
    fn a_body_that_panics_is_rolled_back_and_the_connection_goes_on() {
        let mut writer = in_memory();
        let panicking = &mut |conn: &Connection| -> Result<()> {
            insert(conn)?;
            panic!("on purpose");
        };
        assert!(catch_unwind(AssertUnwindSafe(|| writer.commit(false, panicking))).is_err());
        assert_eq!(stored(&writer.conn), 0);
        writer.commit(false, &mut |conn| insert(conn)).unwrap();
        assert_eq!(stored(&writer.conn), 1);
    }

    #[test]
    fn each_transaction_is_synced_as_its_caller_needs() {
        let mut writer = in_memory();
        let level = |conn: &Connection| super::super::connection::pragma::<i64>(conn, "synchronous").map_err(failed);
        for (sync, expected) in [(true, 2), (false, 1), (false, 1), (true, 2)] {
            assert_eq!(writer.commit(sync, &mut |conn| level(conn)).unwrap(), expected);
            assert_eq!(writer.commit(sync, &mut |conn| level(conn)).unwrap(), expected);
        }
    }

    #[test]
    fn nothing_is_written_without_permission_or_without_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { patience: Duration::from_millis(20), ..Options::default() };
        let db = open::prepare(&folder.path().join("jobs.db"), &options).unwrap();
        let (conn, _) = open::writer(&db, &options).unwrap();
        let mut writer = WriteConnection::new(conn, Arc::new(Permission::to_write()), options.patience);
        let other = Connection::open(&db).unwrap();
        other.execute_batch("BEGIN IMMEDIATE; UPDATE kiln_schema SET min_writer = 100").unwrap();
        assert!(writer.commit(true, &mut |conn| insert(conn)).unwrap_err().is_busy());
        assert!(writer.commit(true, &mut |conn| insert(conn)).unwrap_err().is_busy());
        other.execute_batch("COMMIT").unwrap();
        std::thread::sleep(Duration::from_millis(350));
        assert!(writer.commit(true, &mut |conn| insert(conn)).unwrap_err().is_incompatible());
        assert!(writer.commit(true, &mut |conn| insert(conn)).unwrap_err().is_incompatible());
        assert_eq!(stored(&other), 0);
    }
}
