//! What a runtime writes into its sidecar, for those who find it dead: which start of the machine and which process it
//! belongs to, how many crashes it allows a job, which of its claimed jobs no thread has begun, and what tells whether one
//! was alone in the process.
//!
//! Nothing of it is synced: it is for the end of a process. After a power cut it is of another start, and not believed.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::engine::{self, SLOTS};
use crate::job::Fence;

/// The head tells what it is in words, filled up with zeros; then come a slot for the job that is alone in the process,
/// and a byte that says whether there may be more in the process than its rows on the file tell.
const HEAD: usize = 256;
const WORDS: usize = 224;
const ALONE: usize = WORDS;
const CROWDED: usize = ALONE + SLOT;
const MAGIC: &str = "kiln runtime 2\n";

/// A slot is an id and a time; zeros are none. None lies on two pages of the system, so none is written in halves.
const SLOT: usize = 16;
const PAGE: usize = SLOT * SLOTS;

/// So many pages there are at the most; who gets none lists nothing.
const PAGES: usize = 64;

/// Which start of the machine this is, where the system tells.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        told.map_or_else(|_| "unknown".to_owned(), |boot| boot.trim().to_owned())
    })
}

/// This process, as no other is called: numbers of processes come again, and are many at once where there are containers.
fn process() -> &'static str {
    static PROCESS: OnceLock<String> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        format!("{}-{since}-{:x}", std::process::id(), fastrand::u64(..))
    })
}

pub(super) struct Ledger(Mutex<Book>);

struct Book {
    /// With the lock.
    file: File,
    /// All that is in the file.
    image: Vec<u8>,
    free: Vec<usize>,
    /// It says nothing any more.
    closed: bool,
}

static NONE: [[u8; SLOT]; SLOTS] = [[0; SLOT]; SLOTS];

impl Ledger {
    pub fn new(rules: Rules, make: impl FnOnce(&[u8]) -> crate::Result<File>) -> crate::Result<Self> {
        let Rules { max_crashes, solitude } = rules;
        let image = format!("{MAGIC}boot {}\nprocess {}\n", boot(), process());
        let mut image = format!("{image}max_crashes {max_crashes}\nsolitude {solitude}\n").into_bytes();
        image.resize(HEAD, 0);
        let file = make(&image)?;
        Ok(Self(Mutex::new(Book { file, image, free: Vec::new(), closed: false })))
    }

    /// Writes all of it into a new file, in place of one that is lost.
    pub fn renew(&self, make: impl FnOnce(&[u8]) -> crate::Result<File>) {
        let mut book = self.0.lock();
        if let Ok(file) = make(if book.closed { &[] } else { &book.image }) {
            book.file = file;
        }
    }

    /// Nothing else has begun in this process but this attempt, or nothing is said of any. From when this returns, others
    /// may begin.
    pub fn mark(&self, alone: Option<Fence>) {
        let slot = alone.map_or([0; SLOT], slot);
        self.0.lock().put(ALONE, &slot);
    }

    /// There may be more in this process than its rows on this file tell, from now on.
    pub fn crowd(&self) {
        self.0.lock().put(CROWDED, &[1]);
    }

    /// Whoever owned it leaves in good order, and nothing of it is to be read any more.
    pub fn close(&self) {
        self.0.lock().close();
    }
}

impl Book {
    /// What cannot be written as it should be says nothing at all: what may have begun must not look as if it had not. The
    /// file stays, for its lock.
    fn close(&mut self) {
        self.closed = true;
        let _ = self.file.set_len(0);
    }

    fn write(&mut self, page: usize, slot: usize, slots: &[[u8; SLOT]]) -> bool {
        let (slot, bytes) = (slot % SLOTS, slots.as_flattened());
        // A page is a ring.
        let (to_the_end, rest) = bytes.split_at(bytes.len().min(PAGE - slot * SLOT));
        let page = HEAD + page * PAGE;
        self.put(page + slot * SLOT, to_the_end) && (rest.is_empty() || self.put(page, rest))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> bool {
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
        let put = !self.closed && write_at(&mut self.file, at as u64, bytes).is_ok();
        if !put {
            self.close();
        }
        put
    }
}

/// What a runtime was told of crashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// How many it allows a job; with 0 they are not counted.
    pub max_crashes: u32,
    /// Whether it runs any job alone.
    pub solitude: bool,
}

fn slot(fence: Fence) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&fence.id.to_le_bytes());
    slot[8..].copy_from_slice(&fence.attempted_at.to_le_bytes());
    slot
}

impl engine::Ledger for Ledger {
    fn page(&self) -> Option<usize> {
        let mut book = self.0.lock();
        if let Some(page) = book.free.pop() {
            return Some(page);
        }
        let page = (book.image.len() - HEAD) / PAGE;
        if page == PAGES || book.closed {
            return None;
        }
        book.image.resize(HEAD + (page + 1) * PAGE, 0);
        Some(page)
    }

    fn give_back(&self, page: usize) {
        self.0.lock().free.push(page);
    }

    fn list(&self, page: usize, slot: usize, fences: &[Fence]) -> bool {
        let slots: Vec<[u8; SLOT]> = fences.iter().take(SLOTS).map(|fence| self::slot(*fence)).collect();
        self.0.lock().write(page, slot, &slots)
    }

    fn strike(&self, page: usize, slot: usize, count: usize) {
        self.0.lock().write(page, slot, &NONE[..count.min(SLOTS)]);
    }
}

#[cfg(unix)]
fn write_at(file: &mut File, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(not(unix))]
fn write_at(file: &mut File, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

/// What is read in the sidecar of another runtime.
#[derive(Debug)]
pub(super) struct Remains {
    /// The process it lived in, as no other is called.
    pub process: String,
    pub rules: Rules,
    /// Whether there may have been more in the process than its rows on the file tell.
    pub crowded: bool,
    /// The job that was alone in it all the same, and when it was claimed.
    alone: (i64, i64),
    /// Jobs, and when each was claimed.
    not_begun: HashSet<(i64, i64)>,
}

impl Remains {
    /// `None` where nothing can be read that is of this start of the machine.
    pub fn read(sidecar: &Path) -> Option<Self> {
        let file = File::open(sidecar).ok()?;
        let mut bytes = Vec::new();
        file.take((HEAD + PAGES * PAGE) as u64).read_to_end(&mut bytes).ok()?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(bytes.get(..HEAD)?.get(..WORDS)?).ok()?.strip_prefix(MAGIC)?;
        let mut lines = head.lines();
        if lines.next()?.strip_prefix("boot ")? != boot() {
            return None;
        }
        let process = lines.next()?.strip_prefix("process ")?.to_owned();
        let max_crashes = lines.next()?.strip_prefix("max_crashes ")?.parse().ok()?;
        let solitude = lines.next()?.strip_prefix("solitude ")?.parse().ok()?;
        let number = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).unwrap_or_default();
        let slot = |slot: &[u8]| (number(&slot[..8]), number(&slot[8..]));
        let slots = bytes[HEAD..].chunks_exact(SLOT).map(slot);
        Some(Self {
            process,
            rules: Rules { max_crashes, solitude },
            crowded: bytes[CROWDED] != 0,
            alone: slot(&bytes[ALONE..CROWDED]),
            not_begun: slots.filter(|slot| *slot != (0, 0)).collect(),
        })
    }

    /// Whether this was the only attempt that had begun in the process, where it is the only one that the file knows of.
    pub fn tells_all(&self, fence: Fence) -> bool {
        !self.crowded || self.alone == (fence.id, fence.attempted_at)
    }

    pub fn has_not_begun(&self, fence: Fence) -> bool {
        self.not_begun.contains(&(fence.id, fence.attempted_at))
    }
}

/// Whether these are the first bytes of a sidecar, of whatever start and whatever kiln.
pub(super) fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(b"kiln runtime ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Ledger as _;

    fn fences(ids: std::ops::RangeInclusive<i64>) -> Vec<Fence> {
        ids.map(|id| Fence { id, attempt: 1, attempted_at: id * 1000 }).collect()
    }

    fn found(path: &Path) -> Vec<i64> {
        let mut ids: Vec<i64> =
            Remains::read(path).expect("it says something").not_begun.into_iter().map(|slot| slot.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn what_is_listed_and_not_struck_is_found_also_around_the_end_of_a_page_and_in_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let make = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Ok(File::options().read(true).write(true).open(&path).unwrap())
        };
        let ledger = Ledger::new(Rules { max_crashes: u32::MAX, solitude: true }, make).unwrap();
        let first = ledger.page().unwrap();
        let page = ledger.page().unwrap();
        assert!(found(&path).is_empty());
        assert!(ledger.list(page, SLOTS - 2, &fences(1..=5)) && ledger.list(first, 0, &fences(9..=9)));
        assert_eq!(found(&path), [1, 2, 3, 4, 5, 9]);
        ledger.strike(page, SLOTS - 2, 3);
        assert_eq!(found(&path), [4, 5, 9]);
        std::fs::remove_file(&path).unwrap();
        ledger.renew(make);
        assert_eq!(found(&path), [4, 5, 9]);
        let remains = Remains::read(&path).unwrap();
        assert_eq!((remains.rules.max_crashes, remains.process.as_str()), (u32::MAX, process()));
        assert!(remains.has_not_begun(fences(4..=4)[0]));
        assert!(!remains.has_not_begun(Fence { attempted_at: 1, ..fences(4..=4)[0] }), "another attempt");
        ledger.close();
        assert!(Remains::read(&path).is_none(), "who leaves in good order leaves nothing");
    }

    #[test]
    fn a_job_is_alone_where_the_file_tells_all_of_the_process_or_it_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let make = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Ok(File::options().read(true).write(true).open(&path).unwrap())
        };
        let ledger = Ledger::new(Rules { max_crashes: 3, solitude: false }, make).unwrap();
        let [one, other] = [fences(1..=1)[0], fences(2..=2)[0]];
        let told = || [one, other].map(|fence| Remains::read(&path).unwrap().tells_all(fence));
        assert_eq!(told(), [true, true]);
        ledger.crowd();
        assert_eq!(told(), [false, false]);
        ledger.mark(Some(one));
        assert_eq!(told(), [true, false]);
        ledger.mark(None);
        assert_eq!(told(), [false, false]);
        std::fs::remove_file(&path).unwrap();
        ledger.renew(make);
        assert_eq!(told(), [false, false], "in a new file as well");
        assert_eq!(Remains::read(&path).unwrap().rules, Rules { max_crashes: 3, solitude: false });
    }

    #[test]
    fn pages_are_given_back_and_are_no_more_than_there_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Rules { max_crashes: 3, solitude: true }, |_| {
            Ok(File::create_new(folder.path().join("sidecar")).unwrap())
        })
        .unwrap();
        let pages: HashSet<usize> = (0..PAGES).filter_map(|_| ledger.page()).collect();
        assert_eq!((pages.len(), ledger.page()), (PAGES, None));
        ledger.give_back(5);
        assert_eq!((ledger.page(), ledger.page()), (Some(5), None));
    }

    #[test]
    fn of_something_else_nothing_is_believed() {
        let head = format!("{MAGIC}boot {}\nprocess 1\nmax_crashes 3\nsolitude true\n", boot());
        let sidecar = |head: &str| {
            let mut bytes = head.as_bytes().to_vec();
            bytes.resize(HEAD + 2 * SLOT + 3, 0);
            bytes[HEAD] = 1;
            bytes
        };
        let whole = Remains::parse(&sidecar(&head)).unwrap();
        assert_eq!(whole.not_begun, HashSet::from([(1, 0)]));
        assert!(Remains::parse(&sidecar(&head)[..HEAD - 1]).is_none());
        for damaged in ["", "mine", &head.replace("boot", "root"), &head.replace(" 3", " many"), &head[..20]] {
            assert!(Remains::parse(&sidecar(damaged)).is_none(), "{damaged}");
        }
    }
}
