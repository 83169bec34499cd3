//! Which process holds the write lock of a file, as far as the operating system tells. Only Linux does.

use std::fs;
use std::path::Path;

use super::filesystem::{beside, identity};

/// The byte in the file of the shared memory that stands for the write lock.
const WRITE_LOCK: &str = "120";

/// The process that holds the write lock of a file with a log.
///
/// This asks the system. Opening the file, and closing it, would drop the locks that this process has on it.
pub(crate) fn holder(file: &Path) -> Option<u32> {
    let (_, inode) = identity(&beside(file, "-shm"))?;
    let inode = inode.to_string();
    // The kernel does not give the list in one go, so a line may be missing while other locks come and go.
    (0..5).find_map(|_| {
        let locks = fs::read_to_string("/proc/locks").ok()?;
        // 1: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120
        locks.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, "WRITE", pid, place, first, _] = words[..] else { return None };
            let held = first == WRITE_LOCK && place.rsplit(':').next() == Some(inode.as_str());
            pid.parse().ok().filter(|_| held)
        })
    })
}

/// The name of a process; `None` if the system does not tell.
pub(crate) fn process_name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())
}
