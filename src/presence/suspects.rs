//! What all runtimes of a process share, because a process ends with all of its jobs at once: the place of its one
//! suspect, and whether it has jobs that the rows of a database do not show.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;

use super::sidecar::Sidecar;

/// What is known of one process; for all of it, except in tests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspects(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// A suspect executes, or is about to be claimed.
    taken: bool,
    /// A place was asked for while it was taken.
    wanted: bool,
    listeners: Vec<Sender<()>>,
    /// The runtimes that live in the process.
    members: Vec<Member>,
    next_member: u64,
    /// The attempts that go on although their runtime has left.
    strays: usize,
}

#[derive(Debug)]
struct Member {
    number: u64,
    /// `None` if its database is in memory.
    file: Option<PathBuf>,
    sidecar: Option<Arc<Sidecar>>,
}

impl Suspects {
    /// What all of this process share.
    pub fn of_process() -> Self {
        static PROCESS: LazyLock<Suspects> = LazyLock::new(Suspects::default);
        PROCESS.clone()
    }

    /// Takes the place of the process's one suspect; `None` if it is taken. Then the listeners are signalled when it is
    /// free again.
    ///
    /// Ask only if a suspect waits: a refusal in vain wakes its listener in vain.
    pub fn reserve(&self) -> Option<Place> {
        let mut state = self.0.lock();
        state.wanted |= state.taken;
        let free = !std::mem::replace(&mut state.taken, true);
        free.then(|| Place(self.clone()))
    }

    /// From now on, each time that a place becomes free which was refused before, the channel gets a signal. A channel with
    /// room for one is enough; the listener is forgotten when its receiver is dropped.
    pub fn register(&self, listener: Sender<()>) {
        self.0.lock().listeners.push(listener);
    }

    /// A runtime starts to live in this process, until the result is dropped.
    pub fn enter(&self, file: Option<&Path>, sidecar: Option<Arc<Sidecar>>) -> Membership {
        let mut state = self.0.lock();
        let number = state.next_member;
        state.next_member += 1;
        state.members.push(Member { number, file: file.map(Path::to_owned), sidecar });
        state.share();
        Membership { suspects: self.clone(), number }
    }

    /// An attempt goes on although its runtime has left, until the result is dropped. The rows do not tell.
    pub fn stray(&self) -> Stray {
        let mut state = self.0.lock();
        state.strays += 1;
        state.share();
        Stray(self.clone())
    }
}

impl State {
    /// Writes into each sidecar whether the process has jobs that are not in the rows of its database.
    fn share(&self) {
        for member in &self.members {
            let is_elsewhere = |other: &Member| {
                // Two runtimes on one file have their jobs in the same rows; two databases in memory have not.
                other.number != member.number && (other.file.is_none() || other.file != member.file)
            };
            if let Some(sidecar) = &member.sidecar {
                sidecar.share(self.strays > 0 || self.members.iter().any(is_elsewhere));
            }
        }
    }

    fn free(&mut self) {
        self.taken = false;
        if std::mem::take(&mut self.wanted) {
            // A full channel has a signal that its listener has not seen yet.
            let is_gone = |listener: &Sender<()>| matches!(listener.try_send(()), Err(TrySendError::Disconnected(())));
            self.listeners.retain(|listener| !is_gone(listener));
        }
    }
}

/// The place of the one suspect of the process. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Suspects);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.lock().free();
    }
}

/// A runtime that lives in this process.
pub(crate) struct Membership {
    suspects: Suspects,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.suspects.0.lock();
        state.members.retain(|member| member.number != self.number);
        state.share();
    }
}

/// An attempt that goes on although its runtime has left.
pub(crate) struct Stray(Suspects);

impl Drop for Stray {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.strays -= 1;
        state.share();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::presence::{Remains, Rules};

    #[test]
    fn there_is_one_place_and_it_is_free_again_when_it_is_dropped() {
        let suspects = Suspects::default();
        let place = suspects.reserve().expect("nobody has it");
        assert!(suspects.reserve().is_none());
        assert!(suspects.clone().reserve().is_none(), "a clone is the same");
        assert!(Suspects::default().reserve().is_some(), "another process has its own");
        drop(place);
        assert!(suspects.reserve().is_some());
    }

    #[test]
    fn a_listener_hears_of_a_free_place_only_if_it_was_refused_to_somebody() {
        let suspects = Suspects::default();
        let (listener, signals) = bounded(1);
        let (gone, receiver) = bounded(1);
        suspects.register(listener);
        suspects.register(gone);
        drop(receiver);
        drop(suspects.reserve());
        assert!(signals.is_empty());
        for had in 0..2 {
            let place = suspects.reserve();
            assert!(suspects.reserve().is_none());
            assert_eq!(signals.len(), had);
            drop(place);
            assert_eq!(signals.len(), 1, "a full channel is enough");
        }
        assert_eq!(suspects.0.lock().listeners.len(), 1, "the other listener is gone");
    }

    #[test]
    fn a_sidecar_says_while_there_are_jobs_that_its_rows_do_not_show() {
        let folder = tempfile::tempdir().unwrap();
        let suspects = Suspects::default();
        let enter = |file: &str, name: &str| {
            let rules = Rules { max_crashes: 3, window: Duration::from_secs(60) };
            let sidecar = Sidecar::create(&folder.path().join(name), rules).unwrap();
            suspects.enter(Some(Path::new(file)), Some(sidecar))
        };
        let shared = |name: &str| Remains::read(&folder.path().join(name)).unwrap().shared;
        let one = enter("a", "one");
        let other = enter("a", "other");
        assert!(!shared("one") && !shared("other"), "the rows of the file show both");
        let memory = suspects.enter(None, None);
        assert!(shared("one") && shared("other"));
        drop(memory);
        assert!(!shared("one") && !shared("other"));
        let elsewhere = enter("b", "elsewhere");
        assert!(shared("one") && shared("other") && shared("elsewhere"));
        drop((one, other));
        assert!(!shared("elsewhere"));
        let stray = suspects.stray();
        let late = enter("b", "late");
        assert!(shared("elsewhere") && shared("late"));
        drop(stray);
        assert!(!shared("elsewhere") && !shared("late"));
        drop((elsewhere, late));
    }
}
