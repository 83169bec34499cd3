//! Transactions of the application on its own connection to the same file: a job and the data it is about are
//! committed together, or not at all.

use std::path::{Path, PathBuf};

use rusqlite::Transaction;

use super::handle::Kiln;
use crate::error::{Error, Result};
use crate::job::{Job, NewJob};
use crate::life::enqueue;

impl Kiln {
    /// Stores a job within a transaction of the application, on a connection of its own to the file this handle is
    /// opened on: a commit makes the job, a rollback leaves none. Runtimes on the file, of this process and of others,
    /// look for the commit at once, and then more and more rarely for a second; in another journal mode than WAL, those
    /// of other handles within a second only.
    ///
    /// The types are those of [`kiln::rusqlite`](rusqlite), version 0.40.
    ///
    /// ```
    /// use kiln::rusqlite::Connection;
    /// use kiln::{Filter, Kiln, NewJob};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let kiln = Kiln::open(&path)?;
    /// let mut app = Connection::open(&path)?;
    /// app.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")?;
    ///
    /// let tx = app.transaction()?;
    /// tx.execute("INSERT INTO orders (item) VALUES ('tea')", [])?;
    /// let job = kiln.enqueue_in(&tx, NewJob::new("ship").args(serde_json::json!({ "order": tx.last_insert_rowid() })))?;
    /// assert!(kiln.get(job.id)?.is_none(), "not before the commit");
    /// tx.commit()?;
    /// assert_eq!(kiln.get(job.id)?.unwrap().worker, "ship");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue), and [`is_invalid`](Error::is_invalid) for a connection to another file. The
    /// transaction stays open either way, and may be committed without the job; but where it [`is_full`](Error::is_full),
    /// SQLite has rolled all of it back, and a commit is an error.
    ///
    /// A transaction that has read before somebody else wrote can write nothing any more: it
    /// [`is_busy`](Error::is_busy) however often it tries. One that begins with `IMMEDIATE` does not come to that.
    pub fn enqueue_in(&self, tx: &Transaction<'_>, job: NewJob) -> Result<Job> {
        self.check_transaction(tx)?;
        let (job, notice) = enqueue::within(tx, self.admit(job, self.clock().now())?)?;
        self.observers().enqueued([&job]);
        self.life().announce_soon(notice);
        Ok(self.own(job))
    }

    pub(crate) fn check_transaction(&self, tx: &Transaction<'_>) -> Result<()> {
        self.life().writer()?;
        let theirs = tx.path().filter(|path| !path.is_empty()).map(PathBuf::from);
        let ours = self.life().file();
        if ours.is_some() && theirs.as_deref().and_then(|path| path.canonicalize().ok()).as_deref() == ours {
            return Ok(());
        }
        let shown = |path: Option<&Path>| path.map_or("memory".to_owned(), |path| path.display().to_string());
        let message = format!(
            "the transaction must be on the file that the handle is opened on, {}, and is on {}",
            shown(ours),
            shown(theirs.as_deref())
        );
        Err(Error::invalid("transaction", message))
    }
}
