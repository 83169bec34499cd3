use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The cancellation flag of one attempt. Raised once, for one reason, and never lowered.
#[derive(Default)]
pub(crate) struct Flag {
    reason: AtomicU8,
    lock: Mutex<()>,
    raised: Condvar,
}

/// Why a job is asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// Somebody cancelled it.
    Cancel = 1,
    /// Its time is up.
    Timeout = 2,
    /// The runtime stops.
    Stop = 3,
}

impl Flag {
    /// Raises the flag and wakes who waits on it; the first reason stays.
    pub fn raise(&self, reason: Reason) {
        let _guard = self.lock.lock();
        let _ = self.reason.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
        self.raised.notify_all();
    }

    pub fn is_raised(&self) -> bool {
        self.reason.load(Ordering::Acquire) != 0
    }

    pub fn reason(&self) -> Option<Reason> {
        match self.reason.load(Ordering::Acquire) {
            1 => Some(Reason::Cancel),
            2 => Some(Reason::Timeout),
            3 => Some(Reason::Stop),
            _ => None,
        }
    }

    /// Waits until the flag is raised, at most for `timeout`; says whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        // `None` is a wait past the end of the clock: for ever.
        let until = Instant::now().checked_add(timeout);
        let mut guard = self.lock.lock();
        while !self.is_raised() {
            match until {
                Some(until) if self.raised.wait_until(&mut guard, until).timed_out() => return self.is_raised(),
                Some(_) => {}
                None => self.raised.wait(&mut guard),
            }
        }
        true
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flag({:?})", self.reason())
    }
}
