//! The one place that reads the clock; everything else is handed `now`.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time to a handle and all that is started from it. Times are kept in whole microseconds.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place")]
        Self(Arc::new(Timestamp::now))
    }

    #[cfg(feature = "testing")]
    pub fn manual(clock: &crate::testing::ManualClock) -> Self {
        let clock = clock.clone();
        Self(Arc::new(move || clock.now()))
    }

    pub fn now(&self) -> Timestamp {
        let now = (self.0)();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
