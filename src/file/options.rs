//! How a file is opened, and what a commit promises.

use std::time::Duration;

/// When a commit is on the disk for good.
///
/// The table shows what each mode keeps, and how often it waits for the disk.
///
/// | | `Full` (default) | `Normal` | `Strict` |
/// | --- | --- | --- | --- |
/// | an enqueue that returned `Ok`, after kill -9 | there | there | there |
/// | the same, after a power cut or a kernel panic | there | the last ones may be gone | there |
/// | cancel, retry, delete, update that returned `Ok`, after a power cut | there | the last ones may be gone | there |
/// | a finished job's ack, after a power cut | the last ones may be gone: these jobs run again | the same | there |
/// | syncs | one for each commit with an enqueue or an operator's verb in it | at checkpoints only | one for each commit |
///
/// A crash of the process alone loses nothing in any mode. The file stays whole in every case.
///
/// ```
/// use kiln::{Durability, Kiln};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("app.db");
/// let kiln = Kiln::builder(&path).durability(Durability::Strict).open()?;
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// A call that returned `Ok` is on the disk. What the runtime writes by itself is synced with the next such call.
    #[default]
    Full,
    /// No commit waits for the disk.
    Normal,
    /// Every commit waits for the disk.
    Strict,
}

/// How a file is opened.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub durability: Durability,
    /// How long a call waits for the write lock before it gives up.
    pub patience: Duration,
    /// The file keeps its journal mode instead of being switched to WAL.
    pub keep_journal_mode: bool,
    /// Nothing is written.
    pub read_only: bool,
    /// A network or FUSE file system is accepted.
    pub network_allowed: bool,
    /// No backup is made before a migration.
    pub unbacked_migration: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            patience: Duration::from_secs(5),
            keep_journal_mode: false,
            read_only: false,
            network_allowed: false,
            unbacked_migration: false,
        }
    }
}
