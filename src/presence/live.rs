//! Which runtimes live. A runtime holds an OS lock on its own sidecar. The kernel gives the lock back when the process
//! ends, however it ends. Neither sleep nor a clock nor a new process with an old id can fake that.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::remains::{self, Remains};
use super::sidecar::{self, Rules, Sidecar, UNBORN, is_file};
use crate::error::Result;
use crate::file::beside;

/// When a process ends, the kernel gives its locks back one by one. This long after the first, all are given back.
const ENDING: Duration = Duration::from_millis(100);

/// A missing sidecar may have been deleted although its runtime lives. The runtime puts it back within this time.
const MISSING: Duration = Duration::from_secs(4);

pub(crate) struct Live {
    /// The database; `None` if it is in memory: all runtimes that live are here then.
    file: Option<PathBuf>,
    /// The runtimes that live here.
    here: Mutex<HashMap<String, Option<Arc<Sidecar>>>>,
    /// Since when a sidecar is known to be missing.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Live {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, here: Mutex::default(), missing: Mutex::default() }
    }

    /// A runtime starts to live here. The result is its sidecar; `None` for a database in memory.
    pub fn enter(&self, id: &str, rules: Rules) -> Result<Option<Arc<Sidecar>>> {
        let sidecar = self.path(id).map(|path| Sidecar::create(&path, rules)).transpose()?;
        self.here.lock().insert(id.to_owned(), sidecar.clone());
        Ok(sidecar)
    }

    /// The runtime lives here no more.
    pub fn leave(&self, id: &str) {
        let left = self.here.lock().remove(id);
        if let Some(sidecar) = left {
            // While the lock is held, so that nobody takes this for a crash.
            sidecar.iter().for_each(|sidecar| sidecar.close());
            self.remove(id);
        }
    }

    /// Puts sidecars back that somebody deleted.
    pub fn refresh(&self) {
        self.here.lock().values().flatten().for_each(|sidecar| sidecar.renew());
    }

    /// The runtimes that live here.
    pub fn here(&self) -> HashSet<String> {
        self.here.lock().keys().cloned().collect()
    }

    fn is_here(&self, id: &str) -> bool {
        self.here.lock().contains_key(id)
    }

    /// Whether a runtime is dead for sure.
    pub fn is_dead(&self, id: &str) -> bool {
        if self.is_here(id) {
            return false;
        }
        let Some(path) = self.path(id) else { return true };
        if path.symlink_metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            // What a link points to must not be locked, and a pipe or a device tells nothing. A living runtime replaces them
            // by its sidecar in a moment. It cannot replace a folder, so a folder is a doubt, below.
            return self.is_missing_for_long(id);
        }
        match OpenOptions::new().read(true).write(true).open(&path).map(|file| file.try_lock()) {
            Ok(Ok(())) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => self.is_missing_for_long(id),
            // In doubt it lives: a job that waits is better than a job that runs twice.
            Ok(Err(_)) | Err(_) => {
                self.missing.lock().remove(id);
                false
            }
        }
    }

    fn is_missing_for_long(&self, id: &str) -> bool {
        self.missing.lock().entry(id.to_owned()).or_insert_with(Instant::now).elapsed() >= MISSING
    }

    /// The dead among these runtimes, with what each has left. Of a process that is just ending, so that some of its
    /// runtimes still have their locks, none is among them until all are dead.
    pub fn dead(&self, known: &HashSet<String>) -> HashMap<String, Option<Remains>> {
        let until = Instant::now() + ENDING;
        loop {
            let (dead, ending) = self.whole_processes(known);
            if !ending || Instant::now() >= until {
                return dead;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The dead runtimes whose whole process is dead, and whether a process may be just ending.
    fn whole_processes(&self, known: &HashSet<String>) -> (HashMap<String, Option<Remains>>, bool) {
        let (dead, living): (Vec<&String>, Vec<&String>) = known.iter().partition(|id| self.is_dead(id));
        if dead.is_empty() {
            return (HashMap::new(), false);
        }
        let processes: Vec<Option<String>> = living.into_iter().map(|id| self.process(id)).collect();
        let is_whole = |remains: &Option<Remains>| {
            remains.as_ref().is_none_or(|dead| !processes.iter().flatten().any(|living| *living == dead.process))
        };
        let count = dead.len();
        let remains = dead.into_iter().map(|id| (id.clone(), self.remains(id)));
        let dead: HashMap<_, _> = remains.filter(|(_, remains)| is_whole(remains)).collect();
        // Some systems let nobody read a locked file. Then the process of the living runtime may be the one that is ending.
        let ending = dead.len() < count || processes.contains(&None);
        (dead, ending)
    }

    /// The process of a living runtime, if that can be told.
    fn process(&self, id: &str) -> Option<String> {
        if self.is_here(id) {
            return Some(sidecar::process().to_owned());
        }
        self.remains(id).map(|remains| remains.process)
    }

    fn remains(&self, id: &str) -> Option<Remains> {
        let path = self.path(id).filter(|path| is_file(path))?;
        Remains::read(&path)
    }

    /// Whether a runtime is here or has a sidecar.
    pub fn has_trace(&self, id: &str) -> bool {
        self.is_here(id) || self.path(id).is_some_and(|path| path.exists())
    }

    /// Removes the sidecars of dead runtimes that no row names.
    pub fn sweep(&self, named: &HashSet<String>) {
        let Some((folder, name)) = self.file.as_ref().and_then(|file| file.parent().zip(file.file_name())) else {
            return;
        };
        let prefix = format!("{}-kiln-", name.to_string_lossy());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix(&prefix) else { continue };
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) || !is_sidecar(&entry.path()) {
                continue;
            }
            match id.strip_suffix(UNBORN) {
                // If a runtime is just creating the file, it creates it again.
                Some(id) if is_id(id) && can_be_locked(&entry.path()) => {
                    let _ = std::fs::remove_file(entry.path());
                }
                None if is_id(id) && !named.contains(id) && self.is_dead(id) => self.remove(id),
                _ => {}
            }
        }
    }

    /// Removes the sidecar of a dead runtime.
    pub fn remove(&self, id: &str) {
        self.missing.lock().remove(id);
        if let Some(path) = self.path(id) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The path of a runtime's sidecar.
    fn path(&self, id: &str) -> Option<PathBuf> {
        // The id comes from a row that anybody may have written.
        let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Some(beside(self.file.as_ref()?, &format!("-kiln-{}", if plain { id } else { "" })))
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a file with the name of a sidecar is a sidecar. It may be empty.
fn is_sidecar(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    read.is_ok() && (head.is_empty() || remains::is_head(&head))
}

fn can_be_locked(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Begun, Fence};

    const RULES: Rules = Rules { max_crashes: 3, window: Duration::from_secs(60) };

    fn id(n: u8) -> String {
        format!("{n:032x}")
    }

    fn live(folder: &Path) -> Live {
        Live::new(Some(folder.join("jobs.db")))
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_in_place_of_a_sidecar_is_no_death() {
        let folder = tempfile::tempdir().unwrap();
        let live = live(folder.path());
        let path = |n| live.path(&id(n)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path(1)).spawn().unwrap().wait().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", path(2)).unwrap();
        std::fs::create_dir(path(3)).unwrap();
        std::fs::write(path(4), "").unwrap();
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

    #[test]
    fn a_runtime_lives_until_it_leaves_and_a_deleted_sidecar_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let (here, elsewhere) = (live(folder.path()), live(folder.path()));
        here.enter(&id(1), RULES).unwrap().unwrap();
        assert!(!here.is_dead(&id(1)) && !elsewhere.is_dead(&id(1)));
        std::fs::remove_file(here.path(&id(1)).unwrap()).unwrap();
        assert!(!elsewhere.is_dead(&id(1)), "it is missing for a moment only");
        here.refresh();
        assert!(elsewhere.has_trace(&id(1)) && !elsewhere.is_dead(&id(1)));
        assert!(elsewhere.missing.lock().is_empty());
        here.leave(&id(1));
        assert!(!here.has_trace(&id(1)) && here.here().is_empty());
    }

    #[test]
    fn in_memory_all_that_live_are_here() {
        let live = Live::new(None);
        assert!(live.enter("a", RULES).unwrap().is_none());
        assert!(!live.is_dead("a") && live.is_dead("b"));
        let known = ["a", "b"].map(str::to_owned).into();
        assert_eq!(live.dead(&known).into_keys().collect::<Vec<_>>(), ["b"]);
        live.leave("a");
        assert!(live.is_dead("a"));
    }

    /// Lets a sidecar look as if its process had ended: a copy is not locked.
    fn kill(live: &Live, n: u8) {
        let path = live.path(&id(n)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }

    fn replace_process(live: &Live, n: u8) {
        let path = live.path(&id(n)).unwrap();
        let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        let other = "x".repeat(sidecar::process().len());
        std::fs::write(&path, text.replace(sidecar::process(), &other)).unwrap();
    }

    #[test]
    fn the_dead_are_told_with_what_they_have_left_when_their_whole_process_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let (dying, live) = (live(folder.path()), live(folder.path()));
        let known: HashSet<String> = [1, 2, 3].map(id).into();
        let sidecars = [1, 2, 3].map(|n| dying.enter(&id(n), RULES).unwrap().unwrap());
        let fence = Fence { id: 7, attempt: 1, attempted_at: 8 };
        let listed: Vec<_> = sidecars[0].list(&[fence]).collect();
        assert!(live.dead(&known).is_empty());
        kill(&dying, 1);
        assert!(live.dead(&known).is_empty(), "the others of its process have not been dead yet");
        [2, 3].iter().for_each(|n| kill(&dying, *n));
        let dead = live.dead(&known);
        assert_eq!(dead.keys().cloned().collect::<HashSet<_>>(), known);
        let remains = dead[&id(1)].as_ref().unwrap();
        assert_eq!((remains.trace(fence), remains.rules), (Begun::InWindow, RULES));
        drop(listed);
        live.enter(&id(4), RULES).unwrap();
        let known: HashSet<String> = [1, 4].map(id).into();
        assert!(live.dead(&known).is_empty(), "that is of this process, which lives");
        replace_process(&live, 1);
        assert_eq!(live.dead(&known).len(), 1);
    }

    #[test]
    fn a_living_sidecar_that_cannot_be_read_delays_the_dead_and_keeps_them_not() {
        let folder = tempfile::tempdir().unwrap();
        let (dying, other, live) = (live(folder.path()), live(folder.path()), live(folder.path()));
        dying.enter(&id(1), RULES).unwrap();
        let silent = other.enter(&id(2), RULES).unwrap().unwrap();
        silent.close();
        kill(&dying, 1);
        let started = Instant::now();
        let dead = live.dead(&[1, 2].map(id).into());
        assert!(started.elapsed() >= ENDING);
        assert!(dead.len() == 1 && dead[&id(1)].is_some());
    }

    #[test]
    fn a_sweep_removes_what_no_row_names_and_nobody_holds() {
        let folder = tempfile::tempdir().unwrap();
        let (here, other) = (live(folder.path()), live(folder.path()));
        for n in 1..=3 {
            here.enter(&id(n), RULES).unwrap();
        }
        [2, 3].iter().for_each(|n| kill(&here, *n));
        let file = |name: &str| folder.path().join(format!("jobs.db-kiln-{name}"));
        let unborn = file(&format!("{}{UNBORN}", id(4)));
        std::fs::write(&unborn, "").unwrap();
        std::fs::write(file(&id(5)), "somebody else's").unwrap();
        std::fs::write(file("notes"), "").unwrap();
        other.sweep(&[2].map(id).into());
        let left = [1, 2, 3, 5].map(|n| file(&id(n)).exists());
        assert_eq!(left, [true, true, false, true]);
        assert!(file("notes").exists() && !unborn.exists());
    }
}
