//! When something is due, as far as is known.

use std::time::{Duration, Instant};

use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It has to be looked up.
    Unknown,
    Never,
    At(Timestamp),
}

impl Due {
    /// Whether there is, or may be, something to do.
    pub fn is_now(self, now: Timestamp) -> bool {
        match self {
            Due::Unknown => true,
            Due::Never => false,
            Due::At(due) => due <= now,
        }
    }

    /// In microseconds since 1970.
    pub fn micros(self) -> Option<i64> {
        match self {
            Due::At(due) => Some(due.as_microsecond()),
            Due::Unknown | Due::Never => None,
        }
    }

    /// The instant at which it is due, when it is `time` by the clock at the instant `now`.
    pub fn instant(self, time: Timestamp, now: Instant) -> Option<Instant> {
        match self {
            Due::At(due) => now.checked_add(Duration::try_from(due.duration_since(time)).unwrap_or_default()),
            Due::Unknown | Due::Never => None,
        }
    }
}
