//! Who holds the write lock, for the error of those who waited for it in vain.

use std::error::Error as _;
use std::path::Path;

use rusqlite::Connection;

use super::look;
use crate::Error;
use crate::health::RuntimeHealth;

/// The same error, naming the holder where he can be told, and otherwise the runtimes on the file.
pub(super) fn named(error: Error, conn: &Connection) -> Error {
    let Some(file) = conn.path().filter(|path| !path.is_empty()) else { return error };
    if error.source().is_none() {
        // It is not for want of the lock.
        return error;
    }
    // The lock that is missing is no hindrance to reading, but if this cannot be read either, the error is good enough.
    let runtimes = look::members(conn).unwrap_or_default();
    let who = match holder(Path::new(file)) {
        Some(pid) => describe(pid, &runtimes),
        None if runtimes.is_empty() => return error,
        None => {
            let runtimes: Vec<String> = runtimes.iter().map(one_of_ours).collect();
            format!("another process, perhaps {}", runtimes.join(" or "))
        }
    };
    Error::new(error.kind(), format!("the database's write lock is held by {who}; nothing was written, try again"))
}

fn describe(pid: u32, runtimes: &[RuntimeHealth]) -> String {
    match runtimes.iter().find(|runtime| runtime.pid == pid) {
        _ if pid == std::process::id() => format!("another connection of this process, {pid}"),
        Some(ours) => one_of_ours(ours),
        None => format!("process {pid}{}", name(pid)),
    }
}

fn one_of_ours(RuntimeHealth { id, node, pid, .. }: &RuntimeHealth) -> String {
    format!("process {pid} with kiln's runtime {id:?} on {node:?}")
}

/// The byte of the shared memory's file that stands for the write lock.
#[cfg(target_os = "linux")]
const WRITE_LOCK: &str = "120";

/// Asked of the system: opening the file would drop the locks that this process has on it.
#[cfg(target_os = "linux")]
fn holder(file: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let mut shared = file.as_os_str().to_owned();
    shared.push("-shm");
    let inode = std::fs::metadata(shared).ok()?.ino().to_string();
    // The list is not read in one go, and may miss a line while others come and go.
    (0..5).find_map(|_| {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        // 1: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120
        locks.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, "WRITE", pid, place, first, _] = words[..] else { return None };
            let held = first == WRITE_LOCK && place.rsplit(':').next() == Some(inode.as_str());
            pid.parse().ok().filter(|_| held)
        })
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_: &Path) -> Option<u32> {
    None
}

#[cfg(target_os = "linux")]
fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.is_empty() { name } else { format!(" ({})", name.trim_end()) }
}

#[cfg(not(target_os = "linux"))]
fn name(_: u32) -> String {
    String::new()
}
