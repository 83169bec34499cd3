//! What the sidecar of a dead runtime says about its attempts.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::sidecar::{BLOCKS, ENTRY, HEAD, MAGIC, OUTLIVED, Rules, SHARED, STATE, block_at, boot};
use crate::job::{Begun, Fence};

/// What a dead runtime left in its sidecar.
#[derive(Debug)]
pub(crate) struct Remains {
    /// The process of the runtime, as no other is called.
    pub process: String,
    pub rules: Rules,
    /// Whether the process had jobs that are not in the rows of this database.
    pub shared: bool,
    /// The listed attempts, by the id of the job and the time of the claim; whether they had outlived their window.
    pub begun: HashMap<(i64, i64), bool>,
    /// Whether an attempt that is not listed had not begun. False if the system does not tell the id of its boot: a
    /// power cut may have taken entries away then.
    pub complete: bool,
}

impl Remains {
    /// `None` if the file cannot be read, is of another boot, or says nothing.
    pub fn read(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut bytes = Vec::new();
        file.take(block_at(BLOCKS) as u64).read_to_end(&mut bytes).ok()?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, blocks) = bytes.split_at_checked(HEAD)?;
        let mut lines = std::str::from_utf8(&head[..SHARED]).ok()?.strip_prefix(MAGIC)?.lines();
        if lines.next()?.strip_prefix("boot ")? != boot().unwrap_or("unknown") {
            return None;
        }
        let process = lines.next()?.strip_prefix("process ")?.to_owned();
        let max_crashes = lines.next()?.strip_prefix("max_crashes ")?.parse().ok()?;
        let window = Duration::from_micros(lines.next()?.strip_prefix("window ")?.parse().ok()?);
        let mut begun = HashMap::new();
        for (attempt, state) in blocks.chunks_exact(ENTRY).map(read_entry).filter(|(_, state)| *state != 0) {
            // An attempt that was listed twice has one entry that is kept up to date.
            *begun.entry(attempt).or_insert(false) |= state == OUTLIVED;
        }
        let rules = Rules { max_crashes, window };
        Some(Self { process, rules, shared: head[SHARED] != 0, begun, complete: boot().is_some() })
    }

    /// How far an attempt had come when its process ended.
    pub fn trace(&self, fence: Fence) -> Begun {
        match self.begun.get(&(fence.id, fence.attempted_at)) {
            Some(true) => Begun::Outlived,
            Some(false) => Begun::InWindow,
            None if self.complete => Begun::No,
            None => Begun::Unknown,
        }
    }
}

fn read_entry(entry: &[u8]) -> ((i64, i64), u64) {
    let bytes = |range: Range<usize>| entry[range].try_into().unwrap_or_default();
    let [id, attempted_at] = [bytes(0..8), bytes(8..16)].map(i64::from_le_bytes);
    ((id, attempted_at), u64::from_le_bytes(bytes(STATE)))
}

/// Whether these are the first bytes of a sidecar, of any boot and any version of kiln.
pub(super) fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(b"kiln runtime ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::sidecar::write_entry;

    fn fence(id: i64) -> Fence {
        Fence { id, attempt: 1, attempted_at: id * 1000 }
    }

    #[test]
    fn of_a_strange_file_nothing_is_believed() {
        let boot = boot().unwrap_or("unknown");
        let head = format!("{MAGIC}boot {boot}\nprocess 1\nmax_crashes 3\nwindow 60000000\n");
        let sidecar = |head: &str| {
            let mut bytes = head.as_bytes().to_vec();
            bytes.resize(HEAD + 2 * ENTRY + 3, 0);
            write_entry(&mut bytes[HEAD + ENTRY..][..ENTRY], fence(7));
            bytes
        };
        let whole = Remains::parse(&sidecar(&head)).unwrap();
        assert_eq!(whole.begun, HashMap::from([((7, 7000), false)]));
        assert_eq!(whole.rules, Rules { max_crashes: 3, window: Duration::from_secs(60) });
        assert!(Remains::parse(&sidecar(&head)[..HEAD - 1]).is_none());
        for damaged in ["", "mine", &head.replace("boot", "root"), &head.replace(" 3", " many"), &head[..20]] {
            assert!(Remains::parse(&sidecar(damaged)).is_none(), "{damaged}");
        }
        assert!(Remains::parse(&sidecar(&head.replace(boot, "another boot"))).is_none());
    }
}
