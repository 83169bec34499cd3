//! How long the jobs of a queue take, and what follows from it: how far a claim may run ahead.

use std::time::Duration;

/// However quick the jobs are, no more than so many are claimed ahead.
const MOST_AHEAD: usize = 400;

/// Jobs that are done in less are worth putting together: in one transaction, and on one thread.
const QUICK: Duration = Duration::from_millis(1);

/// A mean over the last jobs, in which the latest count most. It is none before the first has ended.
#[derive(Debug, Default)]
pub(super) struct Pace(Option<Duration>);

impl Pace {
    /// A job took so long.
    pub fn note(&mut self, took: Duration) {
        self.0 = Some(match self.0 {
            None => took,
            Some(mean) if took > mean => mean + (took - mean) / 8,
            Some(mean) => mean - (mean - took) / 8,
        });
    }

    /// A job has taken so long and has not ended.
    pub fn stalls(&mut self, for_now: Duration) {
        self.0 = self.0.max(Some(for_now));
    }

    pub fn is_quick(&self) -> bool {
        self.0.is_some_and(|mean| mean < QUICK)
    }

    /// How many jobs are begun for the price of writing down that one is: a write costs about a microsecond.
    pub fn stride(&self) -> usize {
        const WORTH: Duration = Duration::from_micros(100);
        const LONGEST: usize = 16;
        let mean = self.0.map_or(1, |mean| mean.as_nanos().max(1));
        usize::try_from(WORTH.as_nanos() / mean).unwrap_or(LONGEST).clamp(1, LONGEST)
    }

    /// How many jobs this many threads are expected to finish within `time`, and may be claimed ahead for them.
    pub fn ahead(&self, time: Duration, threads: usize) -> usize {
        let Some(mean) = self.0 else { return 0 };
        let each = time.as_nanos() / mean.as_nanos().max(1);
        usize::try_from(each).unwrap_or(MOST_AHEAD).saturating_mul(threads).min(MOST_AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace(took: impl IntoIterator<Item = Duration>) -> Pace {
        let mut pace = Pace::default();
        took.into_iter().for_each(|took| pace.note(took));
        pace
    }

    #[test]
    fn nothing_is_claimed_ahead_of_jobs_that_nobody_has_seen_end() {
        assert_eq!(Pace::default().ahead(10 * MS, 8), 0);
        assert!(!Pace::default().is_quick());
    }

    #[test]
    fn the_shorter_the_jobs_the_more_are_claimed_ahead_up_to_a_bound() {
        let ahead = |took| pace([took]).ahead(10 * MS, 8);
        assert_eq!([ahead(30 * MS), ahead(10 * MS), ahead(5 * MS), ahead(MS)], [0, 8, 16, 80]);
        assert_eq!([ahead(MS / 10), ahead(Duration::ZERO)], [MOST_AHEAD, MOST_AHEAD]);
        assert_eq!(pace([MS]).ahead(Duration::ZERO, 8), 0, "turned off");
    }

    #[test]
    fn slow_jobs_end_it_soon_and_one_among_quick_ones_does_not() {
        let quick = || std::iter::repeat_n(MS / 100, 50);
        assert!(pace(quick().chain([5 * MS])).ahead(10 * MS, 8) > 50);
        assert_eq!(pace(quick().chain([40 * MS; 8])).ahead(10 * MS, 8), 0);
        let mut stalled = pace(quick());
        stalled.stalls(100 * MS);
        assert_eq!(stalled.ahead(10 * MS, 8), 0);
    }
}
