//! Care for the file, while others work with it: backup, diagnose, compact, export.

use std::io::Write;
use std::path::Path;

use super::export;
use super::handle::Kiln;
use crate::error::Result;
use crate::job::{Filter, Redaction};
use crate::report::{Compacted, Diagnosis};
use crate::store::query;

/// Care for the file. All of it may be done while runtimes work, in this process and in others.
impl Kiln {
    /// Copies the file, as it is now, to another path; says how many bytes the copy has. Everything that was enqueued
    /// before is in it, and nobody waits for it: a copy of the file by other means would lack what is not in it yet, and
    /// would take the locks from this process.
    ///
    /// The copy is there as a whole or not at all: it is written beside its path under a name that ends in `.unfinished`,
    /// synced, and then named. (A process that is killed meanwhile leaves that file.) It is for its owner's eyes only. To
    /// go back to it, put it in the place of the file while no program has that open.
    ///
    /// It can be opened like any other file of jobs. The runtimes of the original are not those of the copy: jobs that
    /// were executing are rescued a few seconds after a runtime starts on it, and run once more.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (folder.path().join("app.db"), folder.path().join("copy.db"));
    /// let kiln = Kiln::open(&path)?;
    /// kiln.enqueue(NewJob::new("app.Mailer"))?;
    /// kiln.backup(&copy)?;
    /// assert_eq!(Kiln::open(&copy)?.get(1)?.unwrap().worker, "app.Mailer");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](crate::Error::is_invalid) for a path that exists, see [`backup_over`](Self::backup_over), that lies in
    /// no folder, or that is the file itself or one of its side files; [`is_full`](crate::Error::is_full), and when the
    /// file cannot be read or the copy cannot be written. Nothing is left of the copy then.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<u64> {
        self.0.life.backup(path.as_ref(), false)
    }

    /// As [`backup`](Self::backup), in the place of a file that is there, which stays until the new one is whole.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let copy = folder.path().join("copy.db");
    /// let kiln = kiln::Kiln::in_memory()?;
    /// kiln.backup(&copy)?;
    /// assert!(kiln.backup(&copy).unwrap_err().is_invalid());
    /// kiln.backup_over(&copy)?;
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`backup`](Self::backup); also when a database of that name is open, or was left open by a crash.
    pub fn backup_over(&self, path: impl AsRef<Path>) -> Result<u64> {
        self.0.life.backup(path.as_ref(), true)
    }

    /// Looks over the whole file, and says what is wrong and what to do about it: damage, jobs whose runtime is dead,
    /// stuck jobs, unknown workers, jobs without attempts left, rows that something else spoilt, who else may get at it;
    /// and who holds what. See [`Problem`](crate::Problem) for the list.
    ///
    /// It reads all rows, so it is for people and for support, where [`health`](Self::health) is for a probe; and it is
    /// about the file, where [`check`](Self::check) is about queues. A damaged file is a finding, not an error.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob, Problem};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.enqueue(NewJob::new("app.Mailer"))?;
    /// let diagnosis = kiln.diagnose()?;
    /// assert_eq!(diagnosis.of(Problem::UnknownWorkers).count(), 1);
    /// println!("{diagnosis}");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When no connection can be made at all.
    pub fn diagnose(&self) -> Result<Diagnosis> {
        self.0.life.diagnose(false, self.0.clock.now())
    }

    /// As [`diagnose`](Self::diagnose), comparing each index with its table as well, which takes longer.
    ///
    /// ```
    /// assert!(kiln::Kiln::in_memory()?.diagnose_fully()?.is_well());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`diagnose`](Self::diagnose).
    pub fn diagnose_fully(&self) -> Result<Diagnosis> {
        self.0.life.diagnose(true, self.0.clock.now())
    }

    /// Makes the file as small as it can be. Pruning gives space back by itself, in small bites; this is for a file that
    /// was large once, and for one of an application whose own tables were.
    ///
    /// The file is written anew, which takes the write lock for as long as that lasts: calls wait within their
    /// [patience](super::KilnBuilder::patience) and fail as busy then, acks are held until they can be written. For a while
    /// it needs twice the space of what is in use: once where temporary files go, once beside the file;
    /// [`Diagnosis::free_bytes`] tells what is to be gained. Rows of an application's tables without an
    /// `INTEGER PRIMARY KEY` may be numbered anew.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let kiln = kiln::Kiln::open(&path)?;
    /// let compacted = kiln.compact()?;
    /// assert!(compacted.after <= compacted.before);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_full`](crate::Error::is_full) when there is no room for it, [`is_busy`](crate::Error::is_busy) when another
    /// process reads or writes all the time. The file is as it was then.
    pub fn compact(&self) -> Result<Compacted> {
        self.0.life.compact()
    }

    /// Writes all jobs that match as JSON, one job a line, in the order of their ids; says how many. The filter's `limit`,
    /// `after` and order are not looked at. It is read page by page, so nobody waits for it, and a job that changes
    /// meanwhile is written as it was or as it is.
    ///
    /// The fields are the table's columns, in their order: `id`, `state`, `queue`, `worker`, `args`, `meta`, `tags`,
    /// `errors`, `attempt`, `max_attempts`, `priority`, `attempted_by`, `inserted_at` and the other times, `unique_key`,
    /// `progress`, `checkpoint`, and what later versions add. Times are RFC 3339 in UTC with microseconds. `args`, `meta`
    /// and the like stand as the JSON they are, with the text of numbers and the order of keys as stored. A column that does
    /// not hold what it should is written as it is, as a string where it is no number, and named in one more field,
    /// `malformed`. Of a job whose pages are damaged there are two fields, its `id` and why it is `unreadable`.
    ///
    /// What is [hidden](super::KilnBuilder::redact) where jobs are shown is hidden here, in `args`, `meta`, `errors`,
    /// `progress` and `checkpoint`, and a `unique_key` has a digest of them:
    /// [`export_with_secrets`](Self::export_with_secrets) hides nothing.
    ///
    /// ```
    /// use kiln::{Filter, Kiln, NewJob};
    /// use serde_json::{Value, json};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.enqueue(NewJob::new("app.Mailer").args(json!({ "to": "a@b.c", "password": "hunter2" })))?;
    /// let mut lines = Vec::new();
    /// assert_eq!(kiln.export(&mut lines, Filter::new())?, 1);
    /// let job: Value = serde_json::from_slice(&lines)?;
    /// assert_eq!(job["args"], json!({ "to": "a@b.c", "password": "[redacted]" }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or the writer fails; what was written before is whole lines.
    pub fn export(&self, to: impl Write, filter: Filter) -> Result<u64> {
        self.write_rows(to, &filter, Some(&self.0.redaction))
    }

    /// As [`export`](Self::export), with everything: to move jobs, not to show them.
    ///
    /// ```
    /// # use kiln::{Filter, Kiln, NewJob};
    /// let kiln = Kiln::in_memory()?;
    /// kiln.enqueue(NewJob::new("app.Mailer").args(serde_json::json!({ "password": "hunter2" })))?;
    /// let mut lines = Vec::new();
    /// kiln.export_with_secrets(&mut lines, Filter::new())?;
    /// assert!(String::from_utf8_lossy(&lines).contains("hunter2"));
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`export`](Self::export).
    pub fn export_with_secrets(&self, to: impl Write, filter: Filter) -> Result<u64> {
        self.write_rows(to, &filter, None)
    }

    fn write_rows(&self, mut to: impl Write, filter: &Filter, hide: Option<&Redaction>) -> Result<u64> {
        let (mut count, mut after) = (0, i64::MIN);
        loop {
            let page = self.0.life.read(|conn| query::rows(conn, filter, after))?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for row in &page {
                to.write_all(export::line(row, hide).as_bytes()).map_err(export::unwritten)?;
                count += 1;
            }
        }
        to.flush().map_err(export::unwritten)?;
        Ok(count)
    }
}
