//! What the end of a process means for the jobs that it executed.
//!
//! kiln cannot tell whether a job crashed its process or somebody killed the process from outside. It counts the
//! crashes in which a job had only just begun, and gives a job that makes progress its attempt back.

use super::ack::{Crash, Fence, Verdict};

/// A job with so many crashes is a suspect: a process executes one suspect at a time.
pub const SUSPECT: i64 = 2;

/// So many times an attempt is given back after a crash, until the job ends in an ordinary way.
pub const MOST_RESUMES: i64 = 20;

/// What the sidecar of a dead runtime says about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The attempt had not begun.
    No,
    /// The sidecar is lost, cannot be read, or is of an earlier boot of the machine.
    Unknown,
    /// The owner of the attempt keeps no list, and executes what it claims: a hand, or another program.
    Unlisted,
    /// The attempt had begun, or stored a checkpoint, at most a window ago.
    InWindow,
    /// The attempt had begun, and had been executing for longer than its window.
    Outlived,
}

/// An attempt whose runtime is dead.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub fence: Fence,
    pub begun: Begun,
    /// How many crashes of the job counted before this one.
    pub crashes: i64,
    /// How often an attempt was given back to the job before.
    pub resumes: i64,
    pub max_attempts: i64,
    /// Whether this attempt stored a checkpoint.
    pub has_checkpoint: bool,
    /// At how many crashes the dead runtime was to discard a job; 0 counts none.
    pub max_crashes: u32,
    /// Whether another job of the process was in its window, or may have been.
    pub company: bool,
    /// The runtime and its machine, for people.
    pub owner: String,
}

impl Lost {
    /// The rule: what to store for the attempt.
    pub fn verdict(&self) -> Verdict {
        if self.begun == Begun::No {
            return Verdict::Release;
        }
        let crash = self.crash();
        Verdict::Crash { error: self.describe(crash), crash }
    }

    fn crash(&self) -> Crash {
        let may_resume = self.resumes < MOST_RESUMES;
        match self.begun {
            _ if self.has_checkpoint && may_resume => Crash::Resume,
            Begun::Unknown if self.fence.attempt == self.max_attempts && may_resume => Crash::GiveBack,
            Begun::InWindow if self.is_too_many() => Crash::Condemned,
            Begun::InWindow if self.max_crashes > 0 => Crash::Counted,
            _ => Crash::Uncounted,
        }
    }

    fn is_last(&self) -> bool {
        self.fence.attempt >= self.max_attempts
    }

    /// The number of this crash.
    fn number(&self) -> i64 {
        self.crashes.saturating_add(1)
    }

    /// A job that had company may be innocent, and is given twice as many crashes.
    fn is_too_many(&self) -> bool {
        let most = i64::from(self.max_crashes);
        most > 0 && self.number() >= if self.company { 2 * most } else { most }
    }

    /// The error, for people.
    fn describe(&self, crash: Crash) -> String {
        let why = match (self.begun, crash) {
            (_, Crash::Resume) => "; the attempt had stored a checkpoint, so it is given back".to_owned(),
            (_, Crash::Counted | Crash::Condemned) => self.describe_count(),
            (Begun::Unknown, _) => "; kiln cannot tell whether the attempt had begun".to_owned(),
            (Begun::Outlived, _) => "; the attempt had outlived its crash window, so no crash is counted".to_owned(),
            _ => String::new(),
        };
        let then = match crash {
            Crash::GiveBack => "; it was the last attempt, so it is given back".to_owned(),
            Crash::Uncounted | Crash::Counted if self.is_last() => {
                format!("; it was the last attempt of {}; {ANOTHER_TRY}", self.max_attempts)
            }
            Crash::Condemned => format!("; {ANOTHER_TRY}"),
            _ => String::new(),
        };
        format!("abandoned: the process of runtime {} ended during the attempt{why}{then}", self.owner)
    }

    fn describe_count(&self) -> String {
        let others = if self.company { ", as other jobs had" } else { "" };
        format!(
            "; the attempt had only just begun{others}, and this is crash {} of the job in a row (max_crashes is {})",
            self.number(),
            self.max_crashes
        )
    }
}

const ANOTHER_TRY: &str = "Kiln::retry gives the job another try";

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(begun: Begun, crashes: i64) -> Lost {
        let fence = Fence { id: 1, attempt: 4, attempted_at: 100 };
        let owner = "\"r\" on \"n\"".to_owned();
        let (resumes, max_attempts, has_checkpoint, max_crashes, company) = (0, 20, false, 3, false);
        Lost { fence, begun, crashes, resumes, max_attempts, has_checkpoint, max_crashes, company, owner }
    }

    fn crash(lost: Lost) -> Crash {
        match lost.verdict() {
            Verdict::Crash { crash, error } => {
                assert!(error.starts_with("abandoned: the process of runtime \"r\" on \"n\" ended"), "{error}");
                let is_end =
                    crash == Crash::Condemned || lost.is_last() && !matches!(crash, Crash::Resume | Crash::GiveBack);
                assert_eq!(error.ends_with("Kiln::retry gives the job another try"), is_end, "{error}");
                crash
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_attempt_that_had_not_begun_is_released() {
        assert_eq!(lost(Begun::No, 9).verdict(), Verdict::Release);
    }

    #[test]
    fn a_crash_in_the_window_counts_up_to_the_limit_and_twice_as_far_in_company() {
        let counted = |crashes, company| crash(Lost { company, ..lost(Begun::InWindow, crashes) });
        assert_eq!([0, 1, 2].map(|n| counted(n, false)), [Crash::Counted, Crash::Counted, Crash::Condemned]);
        assert_eq!([0, 2, 4, 5].map(|n| counted(n, true) == Crash::Condemned), [false, false, false, true]);
        assert_eq!(crash(Lost { max_crashes: 1, ..lost(Begun::InWindow, 0) }), Crash::Condemned);
        assert_eq!(crash(Lost { max_crashes: 0, ..lost(Begun::InWindow, 99) }), Crash::Uncounted);
        assert_eq!(crash(Lost { max_crashes: u32::MAX, ..lost(Begun::InWindow, 99) }), Crash::Counted);
        assert_eq!(crash(Lost { max_attempts: 4, ..lost(Begun::InWindow, 0) }), Crash::Counted);
        assert_eq!(crash(lost(Begun::InWindow, i64::MAX)), Crash::Condemned);
    }

    #[test]
    fn a_later_crash_costs_the_attempt_alone() {
        assert_eq!(crash(lost(Begun::Outlived, 99)), Crash::Uncounted);
        assert_eq!(crash(Lost { max_attempts: 4, ..lost(Begun::Outlived, 0) }), Crash::Uncounted);
    }

    #[test]
    fn progress_gives_the_attempt_back_but_not_for_ever() {
        for begun in [Begun::Unknown, Begun::InWindow, Begun::Outlived] {
            let resumed = |resumes| crash(Lost { has_checkpoint: true, resumes, max_attempts: 4, ..lost(begun, 2) });
            assert_eq!(resumed(MOST_RESUMES - 1), Crash::Resume);
            assert_ne!(resumed(MOST_RESUMES), Crash::Resume);
        }
    }

    #[test]
    fn what_is_not_known_to_have_begun_loses_no_last_attempt() {
        assert_eq!(crash(lost(Begun::Unknown, 9)), Crash::Uncounted);
        let last = |resumes| crash(Lost { max_attempts: 4, resumes, ..lost(Begun::Unknown, 9) });
        assert_eq!(last(MOST_RESUMES - 1), Crash::GiveBack);
        assert_eq!(last(MOST_RESUMES), Crash::Uncounted);
    }

    #[test]
    fn whoever_lists_nothing_loses_the_attempt_and_no_crash_is_counted() {
        assert_eq!(crash(lost(Begun::Unlisted, 9)), Crash::Uncounted);
        assert_eq!(crash(Lost { max_attempts: 4, ..lost(Begun::Unlisted, 9) }), Crash::Uncounted);
        assert_eq!(crash(Lost { has_checkpoint: true, ..lost(Begun::Unlisted, 9) }), Crash::Resume);
    }

    #[test]
    fn the_error_says_what_happened() {
        let error = |lost: Lost| match lost.verdict() {
            Verdict::Crash { error, .. } => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            error(Lost { company: true, ..lost(Begun::InWindow, 1) }),
            "abandoned: the process of runtime \"r\" on \"n\" ended during the attempt; the attempt had only just begun, \
             as other jobs had, and this is crash 2 of the job in a row (max_crashes is 3)"
        );
        assert_eq!(
            error(lost(Begun::InWindow, 2)),
            "abandoned: the process of runtime \"r\" on \"n\" ended during the attempt; the attempt had only just begun, \
             and this is crash 3 of the job in a row (max_crashes is 3); Kiln::retry gives the job another try"
        );
        assert_eq!(
            error(Lost { max_attempts: 4, ..lost(Begun::Outlived, 0) }),
            "abandoned: the process of runtime \"r\" on \"n\" ended during the attempt; the attempt had outlived its \
             crash window, so no crash is counted; it was the last attempt of 4; Kiln::retry gives the job another try"
        );
    }
}
