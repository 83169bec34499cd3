//! What the end of a process says about the jobs that were executing in it.

use std::time::Duration;

use super::{Fence, Verdict};

/// What the end of its process is to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Its own: nothing else ran.
    Alone,
    /// Its own, and the last it may have.
    Last,
    /// One of several did it, nobody knows which.
    Together,
    /// Another did it.
    Innocent,
}

/// An attempt whose process ended.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub fence: Fence,
    /// How often the job was executing before when its process died.
    pub crashes: i64,
    /// How many its runtime was told that a job may have; at least 1.
    pub max_crashes: u32,
    /// Whose it was, and where: for people.
    pub owner: String,
}

impl Lost {
    fn says(&self, what: &str) -> String {
        format!("abandoned: the process of runtime {} ended during the attempt{what}", self.owner)
    }

    /// With this one.
    fn count(&self) -> i64 {
        self.crashes.saturating_add(1)
    }

    fn last_straw(&self) -> String {
        let Lost { max_crashes, .. } = self;
        format!("; its process has ended {} times while it ran, and max_crashes is {max_crashes}", self.count())
    }

    /// Nobody can tell why the process ended, or the whole machine went down with it: the attempt counts, and that is all.
    pub fn uncounted(&self) -> Verdict {
        Verdict::Abandon { error: self.says("") }
    }
}

/// The rule: what to write for the attempts that had begun in a process that died. Those of one process.
///
/// The only one is to blame. Of several nobody knows which it was, so no attempt counts, and each runs alone from now on:
/// then it is known the next time. Where that could not be done for long enough, the one that began last of those with too
/// many crashes is taken for it.
pub(crate) fn verdicts(suspects: &[Lost]) -> Vec<Verdict> {
    if let [only] = suspects {
        let discard = only.count() >= only.max_crashes.into();
        let error = only.says(&if discard { only.last_straw() } else { String::new() });
        return vec![Verdict::Crash { error, crash: if discard { Crash::Last } else { Crash::Alone } }];
    }
    // At the first crash in company nobody has had a chance to run alone.
    let spent = |lost: &Lost| lost.count() >= lost.max_crashes.max(2).into();
    let began = |lost: &Lost| (lost.fence.attempted_at, lost.fence.id);
    let last = suspects.iter().filter(|lost| spent(lost)).max_by_key(|lost| began(lost)).map(|lost| lost.fence.id);
    let verdict = |lost: &Lost| {
        let others = suspects.len() - 1;
        if last == Some(lost.fence.id) {
            let company = format!(", and with it {others} more, of which this began last");
            let error = lost.says(&(company + &lost.last_straw()));
            return Verdict::Crash { error, crash: Crash::Last };
        }
        // Where one is found out, it is not the others' crash.
        let (crash, more) = match last {
            Some(_) => (Crash::Innocent, ""),
            None => (Crash::Together, ", and the job runs alone from now on"),
        };
        let company =
            format!(", and with it {others} more; nobody knows which job it was, so the attempt is given back");
        let error = lost.says(&(company + more));
        Verdict::Crash { error, crash }
    };
    suspects.iter().map(verdict).collect()
}

/// A wait past the end of the clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a job with so many crashes, at least one, may keep others waiting: `base` at first, and ten times as long with
/// each one more.
pub(crate) fn solitude(base: Duration, crashes: i64) -> Duration {
    let more = u32::try_from(crashes.saturating_sub(1)).unwrap_or(u32::MAX);
    base.saturating_mul(10_u32.saturating_pow(more)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(id: i64, crashes: i64) -> Lost {
        let fence = Fence { id, attempt: 1, attempted_at: 100 + id };
        Lost { fence, crashes, max_crashes: 3, owner: "\"r\" on \"n\"".into() }
    }

    fn ruled(suspects: &[Lost], max_crashes: u32) -> Vec<Crash> {
        let suspects: Vec<Lost> = suspects.iter().map(|lost| Lost { max_crashes, ..lost.clone() }).collect();
        let told = |verdict| match verdict {
            Verdict::Crash { crash, error } => {
                assert!(error.starts_with("abandoned: the process of runtime \"r\" on \"n\" ended"), "{error}");
                crash
            }
            other => panic!("{other:?}"),
        };
        verdicts(&suspects).into_iter().map(told).collect()
    }

    #[test]
    fn a_job_that_was_alone_is_to_blame_and_is_discarded_at_its_last_crash() {
        assert_eq!(ruled(&[lost(1, 0)], 3), [Crash::Alone]);
        assert_eq!(ruled(&[lost(1, 1)], 3), [Crash::Alone]);
        assert_eq!(ruled(&[lost(1, 2)], 3), [Crash::Last]);
        assert_eq!(ruled(&[lost(1, 0)], 1), [Crash::Last]);
        assert_eq!(ruled(&[lost(1, 2)], u32::MAX), [Crash::Alone]);
    }

    #[test]
    fn of_several_no_attempt_counts() {
        assert_eq!(ruled(&[lost(1, 0), lost(2, 0), lost(3, 1)], 3), [Crash::Together; 3]);
        assert_eq!(ruled(&[lost(1, 0), lost(2, 0)], 1), [Crash::Together; 2], "none of them has run alone yet");
    }

    #[test]
    fn where_the_same_crash_together_again_and_again_they_are_discarded_one_after_the_other() {
        assert_eq!(ruled(&[lost(1, 2), lost(3, 2), lost(2, 2)], 3), [Crash::Innocent, Crash::Last, Crash::Innocent]);
        assert_eq!(ruled(&[lost(1, 2), lost(3, 0), lost(2, 2)], 3), [Crash::Innocent, Crash::Innocent, Crash::Last]);
        assert_eq!(ruled(&[lost(1, 1), lost(2, 1)], 1), [Crash::Innocent, Crash::Last]);
    }

    #[test]
    fn the_more_crashes_a_job_has_the_longer_others_wait_for_it() {
        let waits = [1, 2, 3, 4].map(|crashes| solitude(Duration::from_millis(500), crashes).as_millis());
        assert_eq!(waits, [500, 5_000, 50_000, 500_000]);
        assert_eq!(solitude(Duration::from_secs(1), i64::MAX), LONGEST);
        assert_eq!((solitude(Duration::MAX, 1), solitude(Duration::ZERO, 50)), (LONGEST, Duration::ZERO));
    }

    #[test]
    fn nothing_is_said_of_nobody() {
        assert_eq!(verdicts(&[]), []);
    }
}
