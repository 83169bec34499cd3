//! The sidecar of a runtime: a file that the runtime keeps locked while it lives, and that lists the attempts which
//! have begun in it and are not acknowledged yet.
//!
//! An attempt is listed before its job begins, and its entry stays until the ack is committed. So after the end of the
//! process, an executing row that is not listed had not begun. Nothing is synced, because the list serves the end of a
//! process only. After a power cut the file belongs to another boot, and is not believed. Only Linux tells its boot: on
//! other systems an entry is believed, and a missing entry proves nothing.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0 to 254 | lines of text, filled up with zeros: what the file is, `boot`, `process`, `max_crashes`, `window` |
//! | 255 | 1 if the process has jobs that are not in the rows of this database |
//! | from 256 | blocks of 16 entries |
//!
//! An entry has 32 bytes: the job's id, the time of its claim, its state, 8 spare. All are 64-bit little-endian numbers.
//! The state is 0 for no entry, 1 for an attempt in its window, 2 for an attempt that has outlived its window. Entries
//! are not cleared: an entry of an attempt that has ended matches no executing row. No entry lies on two pages of the
//! system, so none is written in halves.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::iter;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::file::{beside, private};
use crate::job::Fence;

/// How many attempts can be listed with one write.
pub(crate) const BLOCK: usize = 16;

pub(super) const MAGIC: &str = "kiln runtime 3\n";
pub(super) const HEAD: usize = 256;
pub(super) const SHARED: usize = HEAD - 1;
pub(super) const ENTRY: usize = 32;

/// Where the state stands in an entry.
pub(super) const STATE: Range<usize> = 16..24;
const IN_WINDOW: u64 = 1;
pub(super) const OUTLIVED: u64 = 2;

/// The most blocks of a sidecar: 8 MB. At the worst, each attempt has a block of its own.
pub(super) const BLOCKS: usize = 16 * 1024;

/// What ends the name of a sidecar that is not locked yet.
pub(super) const UNBORN: &str = "-new";

/// The id of this boot of the machine. `None` if the system does not tell it: only Linux does.
pub(super) fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    BOOT.get_or_init(|| read().map(|boot| boot.trim().to_owned())).as_deref()
}

/// The name of this process. It differs from the name of any other, while process ids are used again, and are the same
/// in several containers.
pub(super) fn process() -> &'static str {
    static PROCESS: OnceLock<String> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        format!("{}-{since}-{:x}", std::process::id(), fastrand::u64(..))
    })
}

/// How a runtime treats crashes. Its sidecar tells the rescue, which may run under other rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How many crashes a job may have; with 0 they are not counted.
    pub max_crashes: u32,
    /// For how long after its start, or after its last checkpoint, the end of the process counts as an attempt's crash.
    pub window: Duration,
}

impl Rules {
    fn window_in_microseconds(self) -> u64 {
        self.window.as_micros().try_into().unwrap_or(u64::MAX)
    }
}

/// The sidecar of a runtime of this process.
#[derive(Debug)]
pub(crate) struct Sidecar {
    path: PathBuf,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    /// Holds the lock.
    file: File,
    /// What the file contains.
    image: Vec<u8>,
    /// The blocks whose entries may be overwritten.
    free: Vec<usize>,
    /// The file was emptied for good: the runtime left, or a write failed.
    silent: bool,
}

impl Sidecar {
    /// Creates the file and takes its lock.
    pub fn create(path: &Path, rules: Rules) -> Result<Arc<Self>> {
        let boot = boot().unwrap_or("unknown");
        let (max_crashes, window) = (rules.max_crashes, rules.window_in_microseconds());
        let head = format!("{MAGIC}boot {boot}\nprocess {}\n", process());
        let mut image = format!("{head}max_crashes {max_crashes}\nwindow {window}\n").into_bytes();
        image.resize(HEAD, 0);
        let (file, silent) = create(path, &image)?;
        let content = Mutex::new(Content { file, image, free: Vec::new(), silent });
        Ok(Arc::new(Self { path: path.to_owned(), content }))
    }

    /// Lists attempts as begun, in their windows: at most [`BLOCK`] of them, with one write. The result has an entry for
    /// each, in the same order. It is empty if the file says nothing any more; the jobs may begin all the same.
    ///
    /// The caller keeps an attempt's entry until the attempt's ack is committed.
    pub fn list(self: &Arc<Self>, fences: &[Fence]) -> impl ExactSizeIterator<Item = Listed> + use<> {
        assert!(fences.len() <= BLOCK, "BUG: {} attempts are too many for a block", fences.len());
        let number = self.content.lock().list(fences);
        let slots = 0..number.map_or(0, |_| fences.len());
        // One allocation for the block, whatever the number of its entries.
        let block = Arc::new(Block { sidecar: Arc::clone(self), number });
        slots.map(move |slot| Listed { block: Arc::clone(&block), slot })
    }

    /// Says whether the process has jobs that are not in the rows of this database.
    pub fn share(&self, shared: bool) {
        let mut content = self.content.lock();
        if content.image[SHARED] != u8::from(shared) {
            content.image[SHARED] = shared.into();
            content.write(SHARED..HEAD);
        }
    }

    /// Empties the file, so that nobody takes what follows for a crash. The lock stays.
    pub fn close(&self) {
        self.content.lock().fall_silent();
    }

    /// Writes the file anew if somebody deleted it.
    pub fn renew(&self) {
        if is_file(&self.path) {
            return;
        }
        let mut content = self.content.lock();
        let image: &[u8] = if content.silent { &[] } else { &content.image };
        // If the file cannot be made now, the next call tries again.
        if let Ok((file, silent)) = create(&self.path, image) {
            content.file = file;
            content.silent |= silent;
        }
    }
}

impl Content {
    fn list(&mut self, fences: &[Fence]) -> Option<usize> {
        if self.silent {
            return None;
        }
        let Some(number) = self.free.pop().or_else(|| self.grow()) else {
            // An attempt that is not listed would look as if it had not begun.
            self.fall_silent();
            return None;
        };
        let at = block_at(number);
        let entries = self.image[at..].chunks_exact_mut(ENTRY);
        iter::zip(entries, fences).for_each(|(entry, fence)| write_entry(entry, *fence));
        self.write(at..at + fences.len() * ENTRY);
        (!self.silent).then_some(number)
    }

    /// Makes room for one more block.
    fn grow(&mut self) -> Option<usize> {
        let number = (self.image.len() - HEAD) / (BLOCK * ENTRY);
        if number == BLOCKS {
            return None;
        }
        self.image.resize(block_at(number + 1), 0);
        Some(number)
    }

    fn set_state(&mut self, number: usize, slot: usize, state: u64) {
        let entry = block_at(number) + slot * ENTRY;
        let bytes = entry + STATE.start..entry + STATE.end;
        self.image[bytes.clone()].copy_from_slice(&state.to_le_bytes());
        self.write(bytes);
    }

    /// Writes these bytes of the image into the file.
    fn write(&mut self, bytes: Range<usize>) {
        if !self.silent && write_at(&mut self.file, bytes.start, &self.image[bytes]).is_err() {
            self.fall_silent();
        }
    }

    /// A list that is not complete would say of attempts that they had not begun. So it says nothing at all from now on.
    fn fall_silent(&mut self) {
        self.silent = true;
        empty(&mut self.file);
    }
}

pub(super) fn block_at(number: usize) -> usize {
    HEAD + number * BLOCK * ENTRY
}

pub(super) fn write_entry(entry: &mut [u8], fence: Fence) {
    entry[..8].copy_from_slice(&fence.id.to_le_bytes());
    entry[8..16].copy_from_slice(&fence.attempted_at.to_le_bytes());
    entry[STATE].copy_from_slice(&IN_WINDOW.to_le_bytes());
}

fn empty(file: &mut File) {
    if file.set_len(0).is_err() {
        let _ = write_at(file, 0, &[0; MAGIC.len()]);
    }
}

#[cfg(unix)]
fn write_at(file: &mut File, at: usize, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at as u64)
}

#[cfg(not(unix))]
fn write_at(file: &mut File, at: usize, bytes: &[u8]) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(at as u64))?;
    file.write_all(bytes)
}

/// Creates, locks and writes the file under another name, and renames it: under its own name it is never unlocked. Also
/// says whether the content could not be written; the file is empty then.
fn create(path: &Path, content: &[u8]) -> Result<(File, bool)> {
    let failed = |message: &str| Error::new(Kind::Runtime, format!("{message} {}", path.display()));
    let unborn = beside(path, UNBORN);
    loop {
        // A file of this name was left by a dead process. If it is a link, it must not be followed.
        let _ = std::fs::remove_file(&unborn);
        let mut file = private(OpenOptions::new().read(true).write(true).create_new(true))
            .open(&unborn)
            .map_err(|error| failed("cannot create the sidecar file").because(error))?;
        // Another process may hold the lock for a moment, to find out whether the file is locked.
        file.lock().map_err(|error| failed("this file system cannot lock the sidecar file").because(error))?;
        // If the disk is full, the file is still a lock.
        let silent = file.set_len(0).and_then(|()| file.write_all(content)).is_err();
        if silent {
            empty(&mut file);
        }
        match std::fs::rename(&unborn, path) {
            Ok(()) => return Ok((file, silent)),
            // Another runtime removed the file before it was locked.
            Err(error) if error.kind() == ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) => {}
            Err(error) => return Err(failed("cannot name the sidecar file").because(error)),
        }
    }
}

/// Whether there is a file at the path itself, not behind a link.
pub(super) fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file())
}

/// A block can be written again when the last of its entries is dropped.
#[derive(Debug)]
struct Block {
    sidecar: Arc<Sidecar>,
    /// `None` if nothing was written.
    number: Option<usize>,
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.sidecar.content.lock().free.push(number);
        }
    }
}

/// The entry of an attempt that has begun. It must live until the attempt's ack is committed.
#[derive(Debug)]
pub(crate) struct Listed {
    block: Arc<Block>,
    slot: usize,
}

impl Listed {
    /// Notes that the attempt has outlived its window: the end of the process is no crash of its own any more.
    pub fn outlived(&self) {
        self.set_state(OUTLIVED);
    }

    /// Notes that the attempt is in a window again.
    pub fn reopen(&self) {
        self.set_state(IN_WINDOW);
    }

    fn set_state(&self, state: u64) {
        if let Block { sidecar, number: Some(number) } = &*self.block {
            sidecar.content.lock().set_state(*number, self.slot, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Begun;
    use crate::presence::Remains;

    const RULES: Rules = Rules { max_crashes: u32::MAX, window: Duration::from_secs(60) };

    fn fences(ids: std::ops::RangeInclusive<i64>) -> Vec<Fence> {
        ids.map(|id| Fence { id, attempt: 1, attempted_at: id * 1000 }).collect()
    }

    fn fence(id: i64) -> Fence {
        Fence { id, attempt: 1, attempted_at: id * 1000 }
    }

    fn listed(path: &Path) -> Vec<i64> {
        let begun = Remains::read(path).expect("it says something").begun;
        let mut ids: Vec<i64> = begun.into_keys().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn an_entry_stays_until_the_last_of_its_block_is_dropped_and_is_written_over_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, RULES).unwrap();
        assert!(listed(&path).is_empty());
        let mut first: Vec<Listed> = sidecar.list(&fences(1..=16)).collect();
        let second: Vec<Listed> = sidecar.list(&fences(21..=21)).collect();
        assert_eq!((first.len(), second.len()), (16, 1));
        let all: Vec<i64> = (1..=16).chain([21]).collect();
        assert_eq!(listed(&path), all);
        let last = first.pop();
        drop(first);
        let third: Vec<Listed> = sidecar.list(&fences(31..=33)).collect();
        let all: Vec<i64> = (1..=16).chain([21]).chain(31..=33).collect();
        assert_eq!(listed(&path), all, "the block of the last entry is not free");
        drop(last);
        let fourth: Vec<Listed> = sidecar.list(&fences(41..=42)).collect();
        let all: Vec<i64> = (41..=42).chain(3..=16).chain([21]).chain(31..=33).collect();
        let mut found = all.clone();
        found.sort_unstable();
        assert_eq!(listed(&path), found, "two entries of the first block were written over");
        drop((second, third, fourth));
    }

    #[test]
    fn an_attempt_is_not_begun_or_in_its_window_or_has_outlived_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, RULES).unwrap();
        let entries: Vec<Listed> = sidecar.list(&fences(1..=2)).collect();
        let traces = || [1, 2, 3].map(|id| Remains::read(&path).unwrap().trace(fence(id)));
        let unlisted = if boot().is_some() { Begun::No } else { Begun::Unknown };
        assert_eq!(traces(), [Begun::InWindow, Begun::InWindow, unlisted]);
        entries[1].outlived();
        assert_eq!(traces(), [Begun::InWindow, Begun::Outlived, unlisted]);
        entries[1].reopen();
        entries[0].outlived();
        assert_eq!(traces(), [Begun::Outlived, Begun::InWindow, unlisted]);
        let other = Fence { attempted_at: 1, ..fence(1) };
        assert_eq!(Remains::read(&path).unwrap().trace(other), unlisted, "another attempt of the job");
    }

    #[test]
    fn a_deleted_file_is_written_anew_with_all_that_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, RULES).unwrap();
        let entries: Vec<Listed> = sidecar.list(&fences(1..=3)).collect();
        entries[2].outlived();
        assert!(!Remains::read(&path).unwrap().shared);
        sidecar.share(true);
        std::fs::remove_file(&path).unwrap();
        sidecar.renew();
        let remains = Remains::read(&path).unwrap();
        assert_eq!((remains.rules, remains.process.as_str(), remains.shared), (RULES, process(), true));
        assert_eq!([1, 3].map(|id| remains.trace(fence(id))), [Begun::InWindow, Begun::Outlived]);
        assert!(File::open(&path).unwrap().try_lock().is_err(), "the new file is locked");
        entries[0].outlived();
        sidecar.share(false);
        let remains = Remains::read(&path).unwrap();
        assert_eq!((remains.trace(fence(1)), remains.shared), (Begun::Outlived, false));
    }

    #[test]
    fn a_closed_file_says_nothing_and_stays_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, RULES).unwrap();
        let entries: Vec<Listed> = sidecar.list(&fences(1..=3)).collect();
        sidecar.close();
        entries[0].outlived();
        sidecar.share(true);
        assert_eq!(sidecar.list(&fences(4..=4)).len(), 0);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert!(Remains::read(&path).is_none());
        assert!(File::open(&path).unwrap().try_lock().is_err());
        std::fs::remove_file(&path).unwrap();
        sidecar.renew();
        assert!(Remains::read(&path).is_none(), "the new file is empty as well");
    }

    #[test]
    fn after_a_failed_write_the_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, RULES).unwrap();
        let before: Vec<Listed> = sidecar.list(&fences(1..=1)).collect();
        sidecar.content.lock().file = File::open(&path).unwrap();
        assert_eq!(sidecar.list(&fences(2..=2)).len(), 0);
        // A file that is open for reading cannot be emptied either: the next one is.
        sidecar.content.lock().file = File::options().write(true).open(&path).unwrap();
        sidecar.close();
        drop(before);
        assert_eq!(sidecar.list(&fences(3..=3)).len(), 0, "for good");
        assert!(Remains::read(&path).is_none());
    }

    #[test]
    fn a_list_without_an_end_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, RULES).unwrap();
        let entries: Vec<Listed> = (0..BLOCKS as i64).flat_map(|id| sidecar.list(&fences(id..=id))).collect();
        assert_eq!((entries.len(), listed(&path).len()), (BLOCKS, BLOCKS));
        assert_eq!(sidecar.list(&fences(-1..=-1)).len(), 0);
        assert!(Remains::read(&path).is_none());
    }
}
