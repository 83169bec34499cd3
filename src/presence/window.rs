//! The window of an attempt: for how long after its start, or after its last checkpoint, the end of the process counts
//! as a crash of its own.

use std::time::{Duration, Instant};

use super::sidecar::Listed;
use super::suspects::Place;

#[derive(Debug)]
pub(crate) struct Window {
    opened: Instant,
    length: Duration,
    outlived: bool,
    listed: Option<Listed>,
    /// The attempt is a suspect, and no other suspect of the process executes.
    place: Option<Place>,
}

impl Window {
    /// The attempt begins now.
    pub fn new(listed: Option<Listed>, length: Duration, place: Option<Place>, now: Instant) -> Self {
        Self { opened: now, length, outlived: false, listed, place }
    }

    /// If the window is over, notes so in the sidecar and gives the place of a suspect back. Returns when to call this
    /// again; `None` if there is nothing to do before the next checkpoint.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        if self.outlived {
            return None;
        }
        // A window that ends later than the clock can tell does not end.
        let over = self.opened.checked_add(self.length)?;
        if now < over {
            return Some(over);
        }
        self.outlived = true;
        self.listed.iter().for_each(Listed::outlived);
        self.place = None;
        None
    }

    /// The attempt has stored a checkpoint: its window begins anew. A place that was given back stays with others.
    pub fn checkpoint(&mut self, now: Instant) {
        self.opened = now;
        if std::mem::take(&mut self.outlived) {
            self.listed.iter().for_each(Listed::reopen);
        }
    }

    /// The attempt has ended: the place of a suspect is free. The entry is to be kept until the ack is committed.
    pub fn close(&mut self) -> Option<Listed> {
        self.place = None;
        self.listed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Begun, Fence};
    use crate::presence::{Remains, Rules, Sidecar, Suspects};

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_window_is_over_after_its_length_and_opens_again_at_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, Rules { max_crashes: 3, window: MINUTE }).unwrap();
        let fence = Fence { id: 1, attempt: 1, attempted_at: 5 };
        let suspects = Suspects::default();
        let trace = || Remains::read(&path).unwrap().trace(fence);

        let start = Instant::now();
        let listed = sidecar.list(&[fence]).next();
        let mut window = Window::new(listed, MINUTE, suspects.reserve(), start);
        assert_eq!(window.tick(start), Some(start + MINUTE));
        assert_eq!(window.tick(start + MINUTE / 2), Some(start + MINUTE));
        assert_eq!((trace(), suspects.reserve().is_some()), (Begun::InWindow, false));
        window.checkpoint(start + MINUTE / 2);
        assert_eq!(window.tick(start + MINUTE), Some(start + MINUTE * 3 / 2));
        assert_eq!(window.tick(start + MINUTE * 3 / 2), None);
        assert_eq!((trace(), suspects.reserve().is_some()), (Begun::Outlived, true));
        window.checkpoint(start + MINUTE * 2);
        assert_eq!((trace(), suspects.reserve().is_some()), (Begun::InWindow, true));
        assert_eq!(window.tick(start + MINUTE * 2), Some(start + MINUTE * 3));

        let listed = window.close();
        drop(sidecar.list(&[Fence { id: 2, ..fence }]));
        assert_eq!(trace(), Begun::InWindow, "the entry is kept");
        drop(listed);
        drop(sidecar.list(&[Fence { id: 2, ..fence }]));
        assert_ne!(trace(), Begun::InWindow);
    }

    #[test]
    fn a_place_is_free_when_its_attempt_ends() {
        let suspects = Suspects::default();
        let mut window = Window::new(None, MINUTE, suspects.reserve(), Instant::now());
        assert!(suspects.reserve().is_none());
        assert!(window.close().is_none());
        assert!(suspects.reserve().is_some());
    }

    #[test]
    fn a_window_without_an_end_is_never_over_and_one_without_length_at_once() {
        let now = Instant::now();
        let mut window = Window::new(None, Duration::MAX, None, now);
        assert_eq!(window.tick(now + MINUTE), None);
        assert!(!window.outlived);
        let mut window = Window::new(None, Duration::ZERO, None, now);
        assert_eq!(window.tick(now), None);
        assert!(window.outlived);
    }
}
