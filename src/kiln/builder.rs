//! How a file is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::handle::{AfterNew, Inner, Kiln};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::error::{Error, Result};
use crate::event::{Event, Observers};
use crate::file::{Durability, Migration, Options, exposures};
use crate::job::{Job, Redaction};
use crate::life::Life;
use crate::setters::setters;

/// Opens a file with other settings than the usual ones: [`Kiln::builder`].
///
/// ```
/// use std::time::Duration;
/// use kiln::{Durability, Kiln};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("app.db");
/// let kiln = Kiln::builder(&path)
///     .durability(Durability::Strict)
///     .patience(Duration::from_secs(1))
///     .observe(|event| eprintln!("{event}"))
///     .open()?;
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is opened until `open`"]
pub struct KilnBuilder {
    target: Target,
    options: Options,
    node: Option<String>,
    clock: Clock,
    dice: Dice,
    observers: Observers,
    hooks: Vec<Arc<AfterNew>>,
    redaction: Redaction,
    max_payload: usize,
}

/// Unless said otherwise, in bytes.
const MAX_PAYLOAD: usize = 1024 * 1024;

#[derive(Clone, Debug)]
enum Target {
    File(PathBuf),
    Memory,
}

impl KilnBuilder {
    fn new(target: Target) -> Self {
        Self {
            target,
            options: Options::default(),
            node: None,
            clock: Clock::system(),
            dice: Dice::new(),
            observers: Observers::default(),
            hooks: Vec::new(),
            redaction: Redaction::default(),
            max_payload: MAX_PAYLOAD,
        }
    }

    setters! { builder =>
        /// When a commit is on the disk for good.
        fn durability(durability: Durability) { builder.options.durability = durability }

        /// How long a call waits while another process holds the write lock, before it gives up with an error that
        /// [`is_busy`](crate::Error::is_busy): 5 seconds unless said otherwise.
        fn patience(patience: Duration) { builder.options.patience = patience }

        /// Leaves the journal mode of an application's own database as it is. Otherwise it is switched to WAL, which lets
        /// readers and the writer work side by side; that is a property of the file, seen by all who open it.
        fn keep_journal_mode() { builder.options.keep_journal_mode = true }

        /// Opens the file to look at it only: it may be one that cannot be written, on a medium that cannot, or of a newer kiln
        /// that still lets this one read. Nothing is created or left beside it. All verbs that read work, while other programs
        /// work with it as well; those that write fail with an error that [`is_unusable`](crate::Error::is_unusable), and so does
        /// starting a runtime.
        ///
        /// It has to be said, since a program that means to enqueue had better fail as it opens than as it enqueues.
        ///
        /// ```
        /// use kiln::{Filter, Kiln, NewJob};
        ///
        /// # let folder = tempfile::tempdir().unwrap();
        /// # let path = folder.path().join("app.db");
        /// Kiln::open(&path)?.enqueue(NewJob::new("app.Mailer"))?;
        /// let kiln = Kiln::builder(&path).read_only().open()?;
        /// assert_eq!(kiln.count(Filter::new())?.total(), 1);
        /// assert!(kiln.cancel(1).unwrap_err().is_unusable());
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn read_only() { builder.options.read_only = true }

        /// Opens a file on a network or FUSE file system as well, which is refused otherwise.
        ///
        /// SQLite needs locks that all who use the file obey, and memory that they share. Where these are missing, commits are
        /// lost and the file is damaged, without an error. So only one process, on one machine, may use the file at a time;
        /// a runtime that died may be taken for living, or the other way round, see
        /// [`rescue_after`](crate::RuntimeBuilder::rescue_after); and what [`Durability`] promises is what the server keeps.
        ///
        /// The kind of the file system is told by the system's table of mounts on Linux and by the name of the share on
        /// Windows; elsewhere nothing is refused.
        fn allow_network_file_system() { builder.options.network_allowed = true }

        /// Migrates a file of an older kiln without a backup. Otherwise the file is copied first, as `jobs.db.v1.bak` beside it
        /// (with the version it had, and with a number where there is such a file), told by [`Event::Migrated`]; when that is
        /// not possible, since the disk is full, say, the file is not opened. Delete the copy when you like.
        fn migrate_without_backup() { builder.options.unbacked_migration = true }

        /// What this machine is called in a job's [`attempted_by`](Job::attempted_by): its host name unless said otherwise.
        fn node(node: impl Into<String>) { builder.node = Some(node.into()) }

        /// Shows every job that is built on this handle to this hook, before it is stored, with its
        /// [`extra`](crate::NewJob::extra). What the hook changes is validated again. Hooks run in the order they are given.
        ///
        /// ```
        /// use kiln::{Kiln, NewJob};
        ///
        /// let kiln = Kiln::memory_builder()
        ///     .after_new(|job| {
        ///         if job.extra.contains_key("urgent") {
        ///             job.priority = 0;
        ///         }
        ///     })
        ///     .open()?;
        /// let job = kiln.enqueue(NewJob::new("app.Mailer").priority(5).extra("urgent", true))?;
        /// assert_eq!(job.priority, 0);
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn after_new(hook: impl Fn(&mut Job) + Send + Sync + 'static) { builder.hooks.push(Arc::new(hook)) }

        /// How many bytes a job's `args` and `meta` may have together, as the JSON that is stored: 1 MiB unless said otherwise,
        /// `usize::MAX` for no limit. A job that is larger is refused where it is enqueued, changed, or added as a cron entry.
        ///
        /// Every claim, every look at a job and every page of a list reads them: data belongs into a file, or into a table of
        /// your own, and where it is into the arguments. Jobs above 64 KiB are named by [`Kiln::diagnose`].
        ///
        /// ```
        /// use kiln::{Kiln, NewJob};
        /// use serde_json::json;
        ///
        /// let kiln = Kiln::memory_builder().max_payload(100).open()?;
        /// let error = kiln.enqueue(NewJob::new("app.Mailer").args(json!({ "text": "x".repeat(200) }))).unwrap_err();
        /// assert!(error.is_invalid() && error.to_string().contains("213 bytes") && error.to_string().contains("100"));
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn max_payload(bytes: usize) { builder.max_payload = bytes }

        /// Hides more values where jobs are shown. A value is hidden, at any depth of `args` and `meta`, when its key contains
        /// one of these words, without regard to case, `_`, `-`, `.` and spaces:
        ///
        /// > password, passwd, passphrase, pwd, secret, token, apikey, accesskey, privatekey, credential, authorization,
        /// > bearer, cookie, cardnumber, and what is given here.
        ///
        /// "Shown" is what ends up in logs and before people: `Display` and `Debug` of a [`Job`], [`Kiln::export`], and the
        /// errors in [events](Event), from which the hidden values of the job are taken out where they have four characters or
        /// more. Events carry no arguments at all. Not hidden is what a program asks for: the fields of a job, and the file
        /// itself, which holds them in the clear.
        ///
        /// ```
        /// use kiln::{Kiln, NewJob};
        /// use serde_json::json;
        ///
        /// let kiln = Kiln::memory_builder().redact(["iban"]).open()?;
        /// let job = kiln.enqueue(NewJob::new("app.Pay").args(json!({ "account": { "IBAN": "DE02" }, "api_key": "s3cret" })))?;
        /// let shown = r#"Job(id=1, worker=Pay, args={"account":{"IBAN":"[redacted]"},"api_key":"[redacted]"}, queue=default, state=available)"#;
        /// assert_eq!(job.to_string(), shown);
        /// assert_eq!(job.args.get("api_key"), Some(json!("s3cret")));
        /// # Ok::<(), kiln::Error>(())
        /// ```
        fn redact(words: impl IntoIterator<Item = impl Into<String>>) {
            builder.redaction.add(words.into_iter().map(Into::into))
        }

        /// Tells everything that happens to this observer; those given earlier are told first. See [`Event`].
        fn observe(observer: impl Fn(&Event) + Send + Sync + 'static) { builder.observers.add(observer) }

        /// Tells the time by this clock, for tests. Threads still wait by the system's.
        #[cfg(feature = "testing")]
        fn clock(clock: &crate::clock::ManualClock) { builder.clock = Clock::manual(clock) }

        /// Draws the jitter of backoffs from this seed, for tests.
        #[cfg(feature = "testing")]
        fn seed(seed: u64) { builder.dice = Dice::seeded(seed) }
    }

    /// Opens the file, creating it and kiln's tables where they are missing.
    ///
    /// # Errors
    ///
    /// As [`Kiln::open`].
    pub fn open(self) -> Result<Kiln> {
        let (life, target) = match &self.target {
            Target::File(path) => (self.open_file(path)?, path.display().to_string()),
            Target::Memory if self.options.read_only => {
                return Err(Error::invalid("read_only", "jobs in memory are new: there is nothing to read only"));
            }
            Target::Memory => (Life::in_memory(&self.options, &self.observers, &self.redaction)?, "memory".to_owned()),
        };
        let node = self.node.unwrap_or_else(host_name);
        let kiln = Kiln(Arc::new(Inner {
            life,
            clock: self.clock,
            dice: self.dice,
            observers: self.observers,
            hooks: self.hooks,
            redaction: self.redaction,
            max_payload: self.max_payload,
            node,
            target,
            booted: Default::default(),
        }));
        // The jobs of the dead are shown as what they are: waiting. A runtime looks again, so a failure may pass here.
        let _ = kiln.rescue(500);
        Ok(kiln)
    }

    /// Opens the file, and tells what is to be told of it.
    fn open_file(&self, path: &Path) -> Result<Life> {
        let life = if self.options.read_only {
            Life::read_only(path, &self.options)?
        } else {
            let (life, migration) = Life::open(path, &self.options, &self.observers, &self.redaction)?;
            if let Some(Migration { from, to, backup }) = migration {
                self.observers.tell(|| Event::Migrated { from, to, backup });
            }
            life
        };
        let exposures = life.file().map_or_else(Vec::new, exposures);
        exposures.into_iter().for_each(|warning| self.observers.tell(|| Event::Warned { warning }));
        Ok(life)
    }
}

impl Kiln {
    /// Opens a file of jobs, creating it (for its owner's eyes only, where the system knows such a thing) when it is
    /// not there. The folder has to exist. An application's own database will do: kiln's tables stand beside its own,
    /// their names begin with `kiln_`, and nothing else changes but the journal mode, which becomes WAL, see
    /// [`KilnBuilder::keep_journal_mode`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let kiln = kiln::Kiln::open(&path)?;
    /// assert_eq!(kiln.count(kiln::Filter::new())?.total(), 0);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_unusable`](crate::Error::is_unusable) for a path that is a directory, not a database, read-only (but see
    /// [`KilnBuilder::read_only`]), on a network or FUSE file system (but see
    /// [`KilnBuilder::allow_network_file_system`]), or in a folder that does not exist;
    /// [`is_incompatible`](crate::Error::is_incompatible) for a file of a newer kiln. Such a file is not touched. Nor is one
    /// of an older kiln that cannot be [copied](KilnBuilder::migrate_without_backup) before it is migrated.
    pub fn open(path: impl AsRef<Path>) -> Result<Kiln> {
        Self::builder(path).open()
    }

    /// Opens a file with other settings than the usual ones.
    pub fn builder(path: impl AsRef<Path>) -> KilnBuilder {
        KilnBuilder::new(Target::File(path.as_ref().to_owned()))
    }

    /// Jobs in memory, gone with the last clone of the handle: for tests.
    ///
    /// # Errors
    ///
    /// When there is no memory left for it.
    pub fn in_memory() -> Result<Kiln> {
        Self::memory_builder().open()
    }

    /// Jobs in memory, with other settings than the usual ones.
    pub fn memory_builder() -> KilnBuilder {
        KilnBuilder::new(Target::Memory)
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    match name.as_deref().map(str::trim) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}
