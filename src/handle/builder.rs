//! How a file is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Kiln};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::engine::Engine;
use crate::event::{Event, Observers};
use crate::sqlite::{Options, Sqlite};
use crate::{Durability, Job, Result};

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
    place: Place,
    options: Options,
    node: Option<String>,
    clock: Clock,
    dice: Dice,
    observers: Observers,
    hooks: Vec<Arc<AfterNew>>,
}

pub(super) type AfterNew = dyn Fn(&mut Job) + Send + Sync;

#[derive(Clone, Debug)]
pub(super) enum Place {
    File(PathBuf),
    Memory,
}

impl KilnBuilder {
    pub(super) fn new(place: Place) -> Self {
        let options =
            Options { durability: Durability::Full, patience: Duration::from_secs(5), keep_journal_mode: false };
        Self {
            place,
            options,
            node: None,
            clock: Clock::system(),
            dice: Dice::new(),
            observers: Observers::default(),
            hooks: Vec::new(),
        }
    }

    /// When a commit is on the disk for good.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// How long a call waits while another process holds the write lock, before it gives up with an error that
    /// [`is_busy`](crate::Error::is_busy): 5 seconds unless said otherwise.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.options.patience = patience;
        self
    }

    /// Leaves the journal mode of an application's own database as it is. Otherwise it is switched to WAL, which lets
    /// readers and the writer work side by side; that is a property of the file, seen by all who open it.
    pub fn keep_journal_mode(mut self) -> Self {
        self.options.keep_journal_mode = true;
        self
    }

    /// What this machine is called in a job's [`attempted_by`](Job::attempted_by): its host name unless said otherwise.
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

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
    pub fn after_new(mut self, hook: impl Fn(&mut Job) + Send + Sync + 'static) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Tells everything that happens to this observer; those given earlier are told first. See [`Event`].
    pub fn observe(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observers.add(observer);
        self
    }

    /// Tells the time by this clock, for tests. Threads still wait by the system's.
    #[cfg(feature = "testing")]
    pub fn clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.clock = Clock::manual(clock);
        self
    }

    /// Draws the jitter of backoffs from this seed, for tests.
    #[cfg(feature = "testing")]
    pub fn seed(mut self, seed: u64) -> Self {
        self.dice = Dice::seeded(seed);
        self
    }

    /// Opens the file, creating it and kiln's tables where they are missing.
    ///
    /// # Errors
    ///
    /// As [`Kiln::open`].
    pub fn open(self) -> Result<Kiln> {
        let (engine, place) = match &self.place {
            Place::File(path) => (Sqlite::open(path, &self.options)?, path.display().to_string()),
            Place::Memory => (Sqlite::in_memory(&self.options)?, "memory".to_owned()),
        };
        // The jobs of the dead are shown as what they are: waiting. A runtime looks again, so a failure may pass here.
        if let Ok(count) = engine.rescue(self.clock.now(), 500) {
            self.observers.count(count, |count| Event::Rescued { count });
        }
        let node = self.node.unwrap_or_else(host_name);
        Ok(Kiln(Arc::new(Inner {
            engine: Arc::new(engine),
            clock: self.clock,
            dice: self.dice,
            observers: self.observers,
            hooks: self.hooks,
            node,
            place,
            booted: Default::default(),
        })))
    }
}

fn host_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    match told.as_deref().map(str::trim) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}
