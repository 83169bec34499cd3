//! The one place that draws lots; everything else is handed the draw.

use std::sync::Arc;

use parking_lot::Mutex;

/// Draws for a handle and all that is started from it.
#[derive(Clone)]
pub(crate) struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    #[cfg(feature = "testing")]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Uniform, from 0 to below 1.
    pub fn draw(&self) -> f64 {
        self.0.lock().f64()
    }

    /// A name that nobody else has: 32 hexadecimal digits.
    pub fn name(&self) -> String {
        // Not from the seed: two runs of one test must not share a name.
        format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
    }
}
