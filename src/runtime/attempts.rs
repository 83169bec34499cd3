//! The attempts that threads have begun and that have not ended: to cancel them, to time them out, to stop them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::job::{Attempt, Fence, Job};
use crate::life::Inbox;
use crate::presence::Window;
use crate::worker::{Flag, Reason};

#[derive(Default)]
pub(super) struct Attempts {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: HashMap<Fence, Begun>,
    /// The attempts that somebody had asked to cancel when the file was last asked. An attempt among them that begins only
    /// now is flagged at once.
    cancelling: Vec<Fence>,
    /// The runtime stops, and its grace is over.
    leaving: bool,
}

/// An attempt that a thread executes.
pub(super) struct Begun {
    pub attempt: Attempt,
    pub job: Arc<Job>,
    pub inbox: Arc<Inbox>,
    pub flag: Arc<Flag>,
    /// Until when a crash of the process counts against the job. It holds the entry in the sidecar.
    pub window: Arc<Mutex<Window>>,
    /// When its time is up; then, when it is written off.
    pub deadline: Option<Instant>,
    pub timed_out: bool,
}

impl Attempts {
    pub fn begin(&self, begun: Begun) {
        let mut state = self.state.lock();
        if state.cancelling.contains(&begun.attempt.fence) {
            begun.flag.raise(Reason::Cancel);
        }
        if state.leaving {
            begun.flag.raise(Reason::Stop);
        }
        state.begun.insert(begun.attempt.fence, begun);
    }

    /// Takes an attempt out, and hands it to `then` before anybody can see that it is gone: so a stop sees the attempt or its
    /// ack. `None` if the attempt was taken already.
    pub fn end<T>(&self, fence: Fence, then: impl FnOnce(Begun) -> T) -> Option<T> {
        let mut state = self.state.lock();
        state.begun.remove(&fence).map(then)
    }

    /// Takes all attempts out.
    pub fn end_all(&self) -> Vec<Begun> {
        self.state.lock().begun.drain().map(|(_, begun)| begun).collect()
    }

    /// Raises the flags of these attempts. They are all that somebody has asked to cancel.
    pub fn cancel(&self, cancelling: Vec<Fence>) {
        let mut state = self.state.lock();
        cancelling.iter().filter_map(|fence| state.begun.get(fence)).for_each(|it| it.flag.raise(Reason::Cancel));
        state.cancelling = cancelling;
    }

    /// Asks everything that runs, or is just about to, to leave.
    pub fn ask_to_leave(&self) {
        let mut state = self.state.lock();
        state.leaving = true;
        state.begun.values().for_each(|it| it.flag.raise(Reason::Stop));
    }

    pub fn job(&self, fence: Fence) -> Option<Arc<Job>> {
        self.state.lock().begun.get(&fence).map(|begun| Arc::clone(&begun.job))
    }

    /// Asks the attempts whose time is up to leave. Returns the attempts that did not leave within `grace` after that, and
    /// when to look again.
    pub fn time_out(&self, now: Instant, grace: Duration) -> (Vec<Fence>, Option<Instant>) {
        let mut late = Vec::new();
        let begun = &mut self.state.lock().begun;
        for (fence, it) in begun.iter_mut().filter(|(_, it)| it.deadline.is_some_and(|deadline| deadline <= now)) {
            if it.timed_out {
                late.push(*fence);
            } else {
                it.timed_out = true;
                it.deadline = now.checked_add(grace);
                it.flag.raise(Reason::Timeout);
            }
        }
        (late, begun.values().filter_map(|it| it.deadline).filter(|deadline| *deadline > now).min())
    }

    /// Notes which attempts have outlived their window. Says when to look again.
    pub fn outlive(&self, now: Instant) -> Option<Instant> {
        let windows: Vec<Arc<Mutex<Window>>> =
            self.state.lock().begun.values().map(|it| Arc::clone(&it.window)).collect();
        windows.iter().filter_map(|window| window.lock().tick(now)).min()
    }
}
