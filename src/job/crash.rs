//! What the end of a process says about the jobs that were executing in it.

use super::{Fence, Verdict};

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
/// then it is known the next time. Where that could not be done often enough, the one that began last goes first.
pub(crate) fn verdicts(suspects: &[Lost]) -> Vec<Verdict> {
    if let [only] = suspects {
        let discard = only.count() >= only.max_crashes.into();
        let error = only.says(&if discard { only.last_straw() } else { String::new() });
        return vec![Verdict::Crash { error, counts: true, discard }];
    }
    // At the first crash in company nobody has had a chance to run alone.
    let spent = |lost: &Lost| lost.count() >= lost.max_crashes.max(2).into();
    let began = |lost: &Lost| (lost.fence.attempted_at, lost.fence.id);
    let last = suspects.iter().filter(|lost| spent(lost)).max_by_key(|lost| began(lost)).map(|lost| lost.fence.id);
    let verdict = |lost: &Lost| {
        let others = suspects.len() - 1;
        let company = format!(", and with it {others} more; nobody knows which job it was");
        if last == Some(lost.fence.id) {
            let error = lost.says(&(company + &lost.last_straw()));
            return Verdict::Crash { error, counts: true, discard: true };
        }
        let error = lost.says(&format!("{company}, so the attempt is given back, and the job runs alone from now on"));
        Verdict::Crash { error, counts: false, discard: false }
    };
    suspects.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(id: i64, crashes: i64) -> Lost {
        let fence = Fence { id, attempt: 1, attempted_at: 100 + id };
        Lost { fence, crashes, max_crashes: 3, owner: "\"r\" on \"n\"".into() }
    }

    /// For each suspect: whether its attempt counts, and whether it is discarded.
    fn ruled(suspects: &[Lost], max_crashes: u32) -> Vec<(bool, bool)> {
        let suspects: Vec<Lost> = suspects.iter().map(|lost| Lost { max_crashes, ..lost.clone() }).collect();
        let told = |verdict| match verdict {
            Verdict::Crash { counts, discard, error } => {
                assert!(error.starts_with("abandoned: the process of runtime \"r\" on \"n\" ended"), "{error}");
                (counts, discard)
            }
            other => panic!("{other:?}"),
        };
        verdicts(&suspects).into_iter().map(told).collect()
    }

    const GIVEN_BACK: (bool, bool) = (false, false);
    const COUNTS: (bool, bool) = (true, false);
    const DISCARDED: (bool, bool) = (true, true);

    #[test]
    fn a_job_that_was_alone_is_to_blame_and_is_discarded_at_its_last_crash() {
        assert_eq!(ruled(&[lost(1, 0)], 3), [COUNTS]);
        assert_eq!(ruled(&[lost(1, 1)], 3), [COUNTS]);
        assert_eq!(ruled(&[lost(1, 2)], 3), [DISCARDED]);
        assert_eq!(ruled(&[lost(1, 0)], 1), [DISCARDED]);
        assert_eq!(ruled(&[lost(1, 2)], u32::MAX), [COUNTS]);
    }

    #[test]
    fn of_several_no_attempt_counts() {
        assert_eq!(ruled(&[lost(1, 0), lost(2, 0), lost(3, 1)], 3), [GIVEN_BACK; 3]);
        assert_eq!(ruled(&[lost(1, 0), lost(2, 0)], 1), [GIVEN_BACK; 2], "none of them has run alone yet");
    }

    #[test]
    fn where_the_same_crash_together_again_and_again_they_are_discarded_one_after_the_other() {
        assert_eq!(ruled(&[lost(1, 2), lost(3, 2), lost(2, 2)], 3), [GIVEN_BACK, DISCARDED, GIVEN_BACK]);
        assert_eq!(ruled(&[lost(1, 2), lost(3, 0), lost(2, 2)], 3), [GIVEN_BACK, GIVEN_BACK, DISCARDED]);
        assert_eq!(ruled(&[lost(1, 1), lost(2, 1)], 1), [GIVEN_BACK, DISCARDED]);
    }

    #[test]
    fn nothing_is_said_of_nobody() {
        assert_eq!(verdicts(&[]), []);
    }
}
