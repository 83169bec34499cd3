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
    pub fn manual(clock: &ManualClock) -> Self {
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

#[cfg(feature = "testing")]
/// A clock that stands still until it is turned: [`KilnBuilder::clock`](crate::KilnBuilder::clock).
///
/// ```
/// use std::time::Duration;
/// use kiln::testing::ManualClock;
///
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().duration_since(before).as_secs(), 60);
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<parking_lot::Mutex<Timestamp>>);

#[cfg(feature = "testing")]
impl ManualClock {
    /// A clock that stands at this time.
    pub fn at(time: Timestamp) -> Self {
        Self(Arc::new(parking_lot::Mutex::new(time)))
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        *self.0.lock()
    }

    /// Turns it to this time, forwards or backwards.
    pub fn set(&self, time: Timestamp) {
        *self.0.lock() = time;
    }

    /// Turns it forwards. It stops at the end of time, in the year 9999.
    pub fn advance(&self, by: std::time::Duration) {
        let mut time = self.0.lock();
        *time = time.checked_add(by).unwrap_or(Timestamp::MAX);
    }
}

#[cfg(feature = "testing")]
/// Stands at noon of 1 January 2026, UTC.
impl Default for ManualClock {
    fn default() -> Self {
        Self::at(Timestamp::from_second(1_767_268_800).unwrap_or(Timestamp::UNIX_EPOCH))
    }
}
