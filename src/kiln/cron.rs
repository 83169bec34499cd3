//! The handle's verbs for what recurs.

use super::handle::Kiln;
use crate::error::Result;
use crate::event::Event;
use crate::job::{CronEntry, Firing, Job, NewCron, fits};
use crate::life::{Need, crons};
use crate::store;

impl Kiln {
    /// Adds a cron entry, or gives the one of the same name a new definition; see
    /// [the guide](crate::guide::scheduling#cron) for what stays then.
    /// The runtimes on the file know of it at once, in other processes within a second.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.cron(NewCron::new("@daily", NewJob::new("app.Digest")).name("digest"))?;
    /// kiln.cron(NewCron::new("@weekly", NewJob::new("app.Digest")).name("digest"))?;
    ///
    /// let entries = kiln.crons()?;
    /// assert_eq!((entries.len(), entries[0].expression.as_str()), (1, "@weekly"));
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](crate::Error::is_invalid) for an entry that cannot be, see [`NewCron`]; when the database
    /// cannot be written.
    pub fn cron(&self, entry: NewCron) -> Result<CronEntry> {
        let entry = self.admit_cron(entry)?;
        let mut added = self.add_crons(vec![entry])?;
        Ok(self.own_cron(added.pop().expect("BUG: an entry that was added is there")))
    }

    /// The entry as it is to be stored.
    pub(crate) fn admit_cron(&self, entry: NewCron) -> Result<CronEntry> {
        let entry = entry.build(self.0.clock.now())?;
        fits(&entry.worker, &entry.args, &entry.meta, self.0.max_payload)?;
        Ok(entry)
    }

    /// The entry as it is handed out: where it is shown, it hides what this handle was told to hide.
    fn own_cron(&self, mut entry: CronEntry) -> CronEntry {
        entry.args.redact(&self.0.redaction);
        entry.meta.redact(&self.0.redaction);
        entry
    }

    pub(crate) fn add_crons(&self, entries: Vec<CronEntry>) -> Result<Vec<CronEntry>> {
        let now = self.0.clock.now();
        let added = self.0.life.call(Need::Durable, move |tx| crons::add(tx, &entries, now))?;
        added.iter().for_each(|entry| self.0.observers.tell(|| Event::CronAdded { name: entry.name.clone() }));
        Ok(added)
    }

    /// The cron entries on the file, in the order of their names.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.cron(NewCron::new("0 9 * * MON-FRI", NewJob::new("app.Digest")).name("digest"))?;
    /// kiln.cron(NewCron::new("@hourly", NewJob::new("app.Backup")).name("backup"))?;
    ///
    /// let names: Vec<String> = kiln.crons()?.into_iter().map(|entry| entry.name).collect();
    /// assert_eq!(names, ["backup", "digest"]);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn crons(&self) -> Result<Vec<CronEntry>> {
        Ok(self.0.life.crons()?.into_iter().map(|entry| self.own_cron(entry)).collect())
    }

    /// Pauses a cron entry, for all runtimes and until it is resumed: its slots pass. Says whether there is such an
    /// entry that was not paused.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.cron(NewCron::new("@daily", NewJob::new("app.Digest")).name("digest"))?;
    /// assert!(kiln.pause_cron("digest")?);
    /// assert!(kiln.crons()?[0].paused);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the database cannot be written; so with the two verbs below.
    pub fn pause_cron(&self, name: &str) -> Result<bool> {
        self.set_paused(name, true, |name| Event::CronPaused { name })
    }

    /// Resumes a cron entry, with the next slot from now on. Says whether there is such an entry that was paused.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.cron(NewCron::new("@daily", NewJob::new("app.Digest")).name("digest").paused())?;
    /// assert!(kiln.resume_cron("digest")?);
    /// assert!(!kiln.resume_cron("digest")?);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    #[expect(clippy::missing_errors_doc, reason = "see pause_cron")]
    pub fn resume_cron(&self, name: &str) -> Result<bool> {
        self.set_paused(name, false, |name| Event::CronResumed { name })
    }

    /// Deletes a cron entry. Its jobs stay. Says whether there was such an entry.
    ///
    /// ```
    /// use kiln::{Kiln, NewCron, NewJob};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// kiln.cron(NewCron::new("@daily", NewJob::new("app.Digest")).name("digest"))?;
    /// assert!(kiln.delete_cron("digest")?);
    /// assert!(kiln.crons()?.is_empty());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    #[expect(clippy::missing_errors_doc, reason = "see pause_cron")]
    pub fn delete_cron(&self, name: &str) -> Result<bool> {
        let entry = name.to_owned();
        let deleted = self.0.life.call(Need::Durable, move |tx| store::crons::delete(tx.conn, &entry))?;
        Ok(self.tell_if(deleted, name, |name| Event::CronDeleted { name }))
    }

    fn set_paused(&self, name: &str, paused: bool, event: fn(String) -> Event) -> Result<bool> {
        let (entry, now) = (name.to_owned(), self.0.clock.now());
        let changed = self.0.life.call(Need::Durable, move |tx| crons::pause(tx, &entry, paused, now))?;
        Ok(self.tell_if(changed, name, event))
    }

    fn tell_if(&self, done: bool, name: &str, event: fn(String) -> Event) -> bool {
        if done {
            self.0.observers.tell(|| event(name.to_owned()));
        }
        done
    }

    /// Settles slots, and tells of their jobs; gives back those that were stored.
    pub(crate) fn fire(&self, firings: Vec<Firing>) -> Result<Vec<Option<Vec<Job>>>> {
        let mut fired = self.0.life.call(Need::Durable, move |tx| crons::fire(tx, &firings))?;
        self.0.observers.enqueued(fired.iter().flatten().flatten());
        fired.iter_mut().flatten().for_each(|jobs| jobs.retain(|job| !job.conflict));
        Ok(fired)
    }

    /// Whether the `@reboot` entry of this name was not started before with this handle.
    pub(crate) fn boots(&self, name: &str) -> bool {
        self.0.booted.lock().insert(name.to_owned())
    }
}
