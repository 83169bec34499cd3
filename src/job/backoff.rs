//! Delays between attempts: how long a failed job waits before it is tried again.
//!
//! The functions follow oban-py's `_backoff.py` to the second. They are pure: all delays are whole **seconds**, and
//! the randomness is passed in as `draw`, a uniform number in `[0, 1)`, so that a delay can be tested exactly.
//! No delay is longer than [`LONGEST`], whatever the arguments; nothing overflows or panics.
//!
//! ```
//! use kiln::backoff::{self, Exponential};
//!
//! // Twice as long after every failure, but never beyond 2^6 seconds, and at least five.
//! let shape = Exponential { max_pow: 6, min_pad: 5, ..Exponential::default() };
//! let delays = [1, 2, 3, 100].map(|attempt| backoff::exponential(attempt, shape));
//!
//! assert_eq!(delays, [7, 9, 13, 69]);
//! ```

use std::time::Duration;

/// The longest delay these functions give, in seconds: a longer one is cut to this.
///
/// It is far beyond what a point in time can hold. Whoever adds a delay to a time must still bound it.
pub const LONGEST: u64 = u64::MAX / 2;

/// The attempts that [`jittery_clamped`] spreads a long series of attempts over, unless there is a reason for others.
pub const CLAMPED_MAX: u32 = 20;

/// The shape of an [`exponential`] delay: `min_pad + mult * 2^min(attempt, max_pow)` seconds.
///
/// The default is `max_pow: 10, min_pad: 0, mult: 1`: from two seconds to about seventeen minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exponential {
    /// The power of two from which on the delay grows no more.
    pub max_pow: u32,
    /// Seconds added to every delay.
    pub min_pad: u64,
    /// What the power of two is multiplied by.
    pub mult: u64,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { max_pow: 10, min_pad: 0, mult: 1 }
    }
}

/// Which way [`jitter`] moves a delay, and by which share of it at most: `Jitter::Both(0.1)` is up to 10 % either way.
///
/// The default is `Both(0.1)`. A share that is negative or not a number is no jitter at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// Longer only.
    Inc(f64),
    /// Shorter only.
    Dec(f64),
    /// Longer for a draw of a half and above, shorter for one below.
    Both(f64),
}

impl Default for Jitter {
    fn default() -> Self {
        Self::Both(0.1)
    }
}

/// A delay in seconds that doubles with every attempt.
///
/// ```
/// use kiln::backoff::{self, Exponential};
///
/// assert_eq!(backoff::exponential(3, Exponential::default()), 8);
/// assert_eq!(backoff::exponential(30, Exponential::default()), 1024);
/// ```
pub fn exponential(attempt: u32, shape: Exponential) -> u64 {
    let power = 1_u64.checked_shl(attempt.min(shape.max_pow)).unwrap_or(u64::MAX);
    shape.mult.saturating_mul(power).saturating_add(shape.min_pad).min(LONGEST)
}

/// A delay of `seconds` moved a little, so that jobs which failed together are not tried again together.
///
/// The larger the `draw`, the larger the move, in each of the three modes.
///
/// ```
/// use kiln::backoff::{self, Jitter};
///
/// assert_eq!(backoff::jitter(100, Jitter::Inc(0.1), 0.5), 105);
/// assert_eq!(backoff::jitter(100, Jitter::Dec(0.1), 0.5), 95);
/// assert_eq!(backoff::jitter(100, Jitter::Both(0.1), 0.25), 98);
/// ```
pub fn jitter(seconds: u64, jitter: Jitter, draw: f64) -> u64 {
    let (longer, share) = match jitter {
        Jitter::Inc(share) => (true, share),
        Jitter::Dec(share) => (false, share),
        Jitter::Both(share) => (draw >= 0.5, share),
    };
    // Multiplied in the reference's order, as another one rounds differently. The cast truncates and saturates.
    let moved = (draw * share * seconds as f64) as u64;
    let delay = if longer { seconds.saturating_add(moved) } else { seconds.saturating_sub(moved) };
    delay.min(LONGEST)
}

/// An [`exponential`] delay in seconds with up to 10 % of [`jitter`] either way.
///
/// ```
/// use kiln::backoff::{self, Exponential};
///
/// assert_eq!(backoff::jittery_exponential(10, Exponential::default(), 0.0), 1024);
/// assert_eq!(backoff::jittery_exponential(10, Exponential::default(), 0.75), 1100);
/// ```
pub fn jittery_exponential(attempt: u32, shape: Exponential, draw: f64) -> u64 {
    jitter(exponential(attempt, shape), Jitter::default(), draw)
}

/// The delay of a job whose worker asks for no other: `15 + 2^attempt` seconds, and up to 10 % longer.
///
/// Where a job has more than `clamped_max` attempts ([`CLAMPED_MAX`], mostly), they are spread evenly over the first
/// `clamped_max` powers, so that a job with a thousand attempts waits for days at the end and not for ages.
///
/// ```
/// use kiln::backoff::{self, CLAMPED_MAX};
///
/// assert_eq!(backoff::jittery_clamped(1, 20, CLAMPED_MAX, 0.0), 17);
/// assert_eq!(backoff::jittery_clamped(1, 100, CLAMPED_MAX, 0.0), 16);
/// assert_eq!(backoff::jittery_clamped(99, 100, CLAMPED_MAX, 0.0), 1_048_591);
/// ```
pub fn jittery_clamped(attempt: u32, max_attempts: u32, clamped_max: u32, draw: f64) -> u64 {
    let clamped = if max_attempts <= clamped_max {
        attempt
    } else {
        (f64::from(attempt) / f64::from(max_attempts) * f64::from(clamped_max)).round_ties_even() as u32
    };
    let shape = Exponential { max_pow: 100, min_pad: 15, mult: 1 };
    jitter(exponential(clamped, shape), Jitter::Inc(0.1), draw)
}

/// What a worker without a backoff of its own gets.
pub(crate) fn default_delay(attempt: i64, max_attempts: i64, draw: f64) -> Duration {
    let number = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
    Duration::from_secs(jittery_clamped(number(attempt), number(max_attempts), CLAMPED_MAX, draw))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u32; 12] = [0, 1, 2, 19, 20, 21, 62, 63, 64, 65, u32::MAX - 1, u32::MAX];

    #[test]
    fn a_delay_doubles_until_its_highest_power() {
        let delays = [0, 1, 5, 10, 11, 30].map(|attempt| exponential(attempt, Exponential::default()));
        assert_eq!(delays, [1, 2, 32, 1024, 1024, 1024]);
    }

    #[test]
    fn a_shape_caps_multiplies_and_pads() {
        let shape = Exponential { max_pow: 4, min_pad: 7, mult: 3 };
        assert_eq!([1, 3, 4, 11].map(|attempt| exponential(attempt, shape)), [13, 31, 55, 55]);
    }

    #[test]
    fn jitter_moves_the_way_it_is_told() {
        assert_eq!(jitter(1023, Jitter::Inc(0.1), 0.25), 1048);
        assert_eq!(jitter(1023, Jitter::Dec(0.1), 0.25), 998);
        assert_eq!(jitter(1023, Jitter::Both(0.1), 0.25), 998);
        assert_eq!(jitter(1023, Jitter::Both(0.1), 0.5), 1074);
        assert_eq!(jitter(0, Jitter::Inc(0.1), 0.999_999), 0);
    }

    #[test]
    fn jitter_by_more_than_the_whole_delay_ends_at_zero() {
        assert_eq!(jitter(10, Jitter::Dec(5.0), 0.9), 0);
    }

    #[test]
    fn a_senseless_share_or_draw_is_no_jitter() {
        for share in [-0.1, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(jitter(100, Jitter::Inc(share), 0.9), 100, "share {share}");
        }
        assert_eq!(jitter(100, Jitter::Both(0.1), f64::NAN), 100);
    }

    #[test]
    fn few_attempts_are_not_clamped() {
        assert_eq!(jittery_clamped(2, 3, CLAMPED_MAX, 0.0), 19);
        assert_eq!(jittery_clamped(20, 20, CLAMPED_MAX, 0.1), 1_059_076);
        assert_eq!(jittery_clamped(1, 0, CLAMPED_MAX, 0.0), 17);
    }

    #[test]
    fn many_attempts_are_clamped_in_proportion() {
        assert_eq!(jittery_clamped(5, 25, CLAMPED_MAX, 0.1), 31);
        assert_eq!(jittery_clamped(999, 1000, CLAMPED_MAX, 0.0), 1_048_591);
    }

    #[test]
    fn a_half_is_rounded_to_the_even_power() {
        // 1 / 40 * 20 = 0.5 becomes 0, 3 / 40 * 20 = 1.5 becomes 2, 5 / 40 * 20 = 2.5 becomes 2.
        assert_eq!([1, 3, 5].map(|attempt| jittery_clamped(attempt, 40, CLAMPED_MAX, 0.0)), [16, 19, 19]);
    }

    #[test]
    fn no_argument_overflows_or_exceeds_the_longest_delay() {
        let huge = Exponential { max_pow: u32::MAX, min_pad: u64::MAX, mult: u64::MAX };
        for attempt in EDGES {
            for draw in [0.0, 0.5, 1.0 - f64::EPSILON, 1e300, f64::NEG_INFINITY] {
                assert!(jittery_exponential(attempt, huge, draw) <= LONGEST);
                assert!(jitter(u64::MAX, Jitter::Inc(f64::INFINITY), draw) <= LONGEST);
                for max_attempts in EDGES {
                    for clamped_max in EDGES {
                        assert!(jittery_clamped(attempt, max_attempts, clamped_max, draw) <= LONGEST);
                    }
                }
            }
        }
        assert_eq!(jittery_clamped(62, 0, 0, 0.0), (1 << 62) + 15);
        assert_eq!(jittery_clamped(63, 0, 0, 0.0), LONGEST);
    }
}
