//! What a power cut leaves.

/// When a commit is on the disk for good.
///
/// | | `Full` (default) | `Normal` | `Strict` |
/// | --- | --- | --- | --- |
/// | an enqueue that returned `Ok`, after kill -9 | there | there | there |
/// | the same, after a power cut or a kernel panic | there | the last ones may be gone | there |
/// | cancel, retry, delete, update that returned `Ok`, after a power cut | there | the last ones may be gone | there |
/// | a finished job's ack, after a power cut | the last ones may be gone: these jobs run again | the same | there |
/// | syncs | one for each commit with an enqueue or an operator's verb in it | at checkpoints only | one for each commit |
///
/// A crash of the process alone loses nothing in any mode, and the file stays whole in every case.
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
    /// What a caller was told is on the disk; what the runtime does by itself rides along.
    #[default]
    Full,
    /// Nothing waits for the disk.
    Normal,
    /// Everything waits for the disk.
    Strict,
}
