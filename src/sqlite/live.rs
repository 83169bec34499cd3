//! Who lives: a runtime holds an OS lock on its own sidecar file. The kernel drops it with the process, however that
//! ends, and neither sleep nor a clock nor a new process with an old number can fake it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ledger::{self, Ledger, Remains, Rules};
use crate::error::Kind;
use crate::{Error, Result};

/// The kernel drops the locks of a process that ends one by one: so long after the first all are gone.
const ENDING: Duration = Duration::from_millis(100);

/// A sidecar that is not there may have been deleted under a living runtime; that one puts it back within this time.
const MISSING: Duration = Duration::from_secs(4);

pub(super) struct Live {
    /// The database's file; `None` for one in memory, where all who live are here.
    file: Option<PathBuf>,
    /// Each with the lock.
    held: Mutex<HashMap<String, Option<Arc<Ledger>>>>,
    missing: Mutex<HashMap<String, Instant>>,
}

impl Live {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, held: Mutex::default(), missing: Mutex::default() }
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Takes the lock of a runtime that is to live here.
    pub fn enter(&self, id: &str, rules: Rules) -> Result<()> {
        let ledger = match self.sidecar(id) {
            Some(path) => Some(Arc::new(Ledger::new(rules, |content| create(&path, content))?)),
            None => None,
        };
        self.held.lock().insert(id.to_owned(), ledger);
        Ok(())
    }

    /// Where a runtime that lives here writes what others are to find.
    pub fn ledger(&self, id: &str) -> Option<Arc<Ledger>> {
        self.held.lock().get(id).cloned().flatten()
    }

    /// Puts back what somebody deleted.
    pub fn refresh(&self) {
        for (id, ledger) in self.held.lock().iter() {
            if let (Some(path), Some(ledger)) = (self.sidecar(id), ledger)
                && !is_file(&path)
            {
                ledger.renew(|content| create(&path, content));
            }
        }
    }

    /// Gives the lock back.
    pub fn leave(&self, id: &str) {
        let held = self.held.lock().remove(id);
        if let Some(ledger) = held {
            // While the lock is held: nobody shall take this for a crash.
            ledger.iter().for_each(|ledger| ledger.close());
            self.bury(id);
        }
    }

    pub fn here(&self) -> HashSet<String> {
        self.held.lock().keys().cloned().collect()
    }

    fn is_here(&self, id: &str) -> bool {
        self.held.lock().contains_key(id)
    }

    /// Whether a runtime is dead for sure.
    pub fn is_dead(&self, id: &str) -> bool {
        if self.is_here(id) {
            return false;
        }
        let Some(path) = self.sidecar(id) else { return true };
        if path.symlink_metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            // What a link points to is not ours to lock, and what is no file tells nothing. (A folder's owner cannot put his
            // own in its place: he may live.)
            return self.is_missing_for_long(id);
        }
        match OpenOptions::new().read(true).write(true).open(&path).map(|file| file.try_lock()) {
            Ok(Ok(())) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => self.is_missing_for_long(id),
            // In doubt it lives: a job that waits is better than one that runs twice.
            Ok(Err(_)) | Err(_) => {
                self.missing.lock().remove(id);
                false
            }
        }
    }

    /// The dead among these, with what each has left, where that tells anything. Where a process is just ending, so that
    /// others of it have their lock still, all of it is waited for.
    pub fn dead(&self, known: &HashSet<String>) -> HashMap<String, Option<Remains>> {
        let until = Instant::now() + ENDING;
        loop {
            let (dead, ending) = self.look_for_dead(known.clone());
            if !ending || Instant::now() >= until {
                return dead;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Those whose whole process is dead, and whether one is just ending.
    fn look_for_dead(&self, mut known: HashSet<String>) -> (HashMap<String, Option<Remains>>, bool) {
        let remains = |id: String| {
            let sidecar = self.sidecar(&id).filter(|sidecar| is_file(sidecar));
            let remains = sidecar.and_then(|sidecar| Remains::read(&sidecar));
            (id, remains)
        };
        let dead: Vec<String> = known.extract_if(|id| self.is_dead(id)).collect();
        if dead.is_empty() {
            return (HashMap::new(), false);
        }
        let living = known.into_iter().filter_map(|id| remains(id).1).map(|remains| remains.process);
        let living: HashSet<String> = living.collect();
        let ended = |remains: &Option<Remains>| remains.as_ref().is_none_or(|it| !living.contains(&it.process));
        let count = dead.len();
        let dead: HashMap<_, _> = dead.into_iter().map(remains).filter(|(_, remains)| ended(remains)).collect();
        let ending = dead.len() < count;
        (dead, ending)
    }

    fn is_missing_for_long(&self, id: &str) -> bool {
        self.missing.lock().entry(id.to_owned()).or_insert_with(Instant::now).elapsed() >= MISSING
    }

    /// Whether there is anything to be seen of a runtime: it is here, or has a sidecar.
    pub fn has_trace(&self, id: &str) -> bool {
        self.is_here(id) || self.sidecar(id).is_some_and(|sidecar| sidecar.exists())
    }

    /// Removes what was left by runtimes that died before they were named anywhere, or after.
    pub fn sweep(&self, named: &HashSet<String>) {
        let Some((folder, name)) = self.file.as_ref().and_then(|file| file.parent().zip(file.file_name())) else {
            return;
        };
        let prefix = format!("{}-kiln-", name.to_string_lossy());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix(&prefix) else { continue };
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) || !is_ours(&entry.path()) {
                continue;
            }
            match id.strip_suffix(UNBORN) {
                // One that is just being made is made again by its owner.
                Some(id) if is_id(id) && can_be_locked(&entry.path()) => {
                    let _ = std::fs::remove_file(entry.path());
                }
                None if is_id(id) && !named.contains(id) && self.is_dead(id) => self.bury(id),
                _ => {}
            }
        }
    }

    /// Removes what a dead runtime left.
    pub fn bury(&self, id: &str) {
        self.missing.lock().remove(id);
        if let Some(path) = self.sidecar(id) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn sidecar(&self, id: &str) -> Option<PathBuf> {
        // An id is read from a row that anybody may have written.
        let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let mut name = self.file.clone()?.into_os_string();
        name.push(if plain { format!("-kiln-{id}") } else { "-kiln-".to_owned() });
        Some(name.into())
    }
}

/// A link to a file is none.
fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file())
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a file with the name of a sidecar is one: a runtime that died early, or an older one, left it empty.
fn is_ours(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    read.is_ok() && (head.is_empty() || ledger::is_head(&head))
}

/// What ends the name of a sidecar that is not locked yet.
const UNBORN: &str = "-new";

fn can_be_locked(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.is_ok_and(|file| file.try_lock().is_ok())
}

/// Made, locked and written under another name: whoever finds it under its own finds it so.
fn create(path: &Path, content: &[u8]) -> Result<File> {
    let failed = |message: &str| Error::new(Kind::Runtime, format!("{message} {}", path.display()));
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(UNBORN);
    loop {
        // Whatever has this name is nobody's by now, and is not to be followed where it is a link.
        let _ = std::fs::remove_file(&unborn);
        let mut file = private(OpenOptions::new().read(true).write(true).create_new(true))
            .open(&unborn)
            .map_err(|error| failed("cannot create the sidecar file").because(error))?;
        // Others hold it for a look at the most.
        file.lock().map_err(|error| failed("this file system cannot lock the sidecar file").because(error))?;
        // Where there is no room for what it says, it is a lock all the same.
        let _ = file.set_len(0).and_then(|()| file.write_all(content));
        match std::fs::rename(&unborn, path) {
            Ok(()) => return Ok(file),
            // Somebody swept it away before it was locked.
            Err(error) if error.kind() == ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) => {}
            Err(error) => return Err(failed("cannot name the sidecar file").because(error)),
        }
    }
}

/// For the owner's eyes only, where the system knows such a thing.
#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

/// For the owner's eyes only: elsewhere a file inherits what its folder allows.
#[cfg(not(unix))]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_in_place_of_a_sidecar_is_no_death() {
        let folder = tempfile::tempdir().unwrap();
        let live = Live::new(Some(folder.path().join("jobs.db")));
        let id = |n: u8| format!("{n:032x}");
        let place = |n| live.sidecar(&id(n)).unwrap();
        // Anybody can lock these, which a living runtime puts its own in the place of in a moment.
        assert!(std::process::Command::new("mkfifo").arg(place(1)).spawn().unwrap().wait().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", place(2)).unwrap();
        std::fs::create_dir(place(3)).unwrap();
        std::fs::write(place(4), "").unwrap();
        for n in 1..=3 {
            assert!(!live.is_dead(&id(n)), "{n}");
        }
        assert!(live.is_dead(&id(4)), "a file that nobody has locked");
        for n in 1..=2 {
            let long_ago = Instant::now().checked_sub(MISSING);
            live.missing.lock().insert(id(n), long_ago.expect("the machine has been up for longer"));
            assert!(live.is_dead(&id(n)), "nobody has put {n} back");
        }
    }
}
