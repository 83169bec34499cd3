//! What the end of a process says about the jobs that were executing in it.

use std::time::Duration;

use serde_json::Value;

use super::{Fence, Verdict};

/// What the end of its process is to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Its own, as far as anybody can tell: nothing else ran.
    Alone,
    /// The same, and the last it may have.
    Last,
    /// One of several did it, nobody knows which.
    Together,
}

/// An attempt that had begun in a process that died.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub fence: Fence,
    /// How often the job was executing before when its process died.
    pub crashes: i64,
    /// How often of these nothing else was.
    pub alone: i64,
    /// How many its runtime was told that a job may have; with 0 they are not counted.
    pub max_crashes: u32,
    /// Whether its runtime runs any job alone.
    pub solitude: bool,
    /// Whose it was, and where: for people.
    pub owner: String,
}

impl Lost {
    /// The rule: what to write for an attempt that had begun in a process that died; for each such process by itself.
    /// `company` is how many others are known to have begun in it, or `None` where it was the only one for sure.
    ///
    /// The only one is to blame, and nobody else ever: of several nobody knows which it was, so no attempt counts, and each
    /// runs alone from now on. Of the crashes that a job had in company the first makes it a suspect, and counts for that;
    /// more of them say nothing more of it, but it is run alone for longer.
    pub fn verdict(&self, company: Option<usize>) -> Verdict {
        match company {
            _ if self.max_crashes == 0 => self.uncounted(),
            None => {
                let is_last = self.counted() >= self.max_crashes.into();
                let error = self.says(&if is_last { self.last_straw() } else { String::new() });
                Verdict::Crash { error, crash: if is_last { Crash::Last } else { Crash::Alone } }
            }
            Some(others) => {
                let others = match others {
                    0 => "; the process had more to do than this file tells".to_owned(),
                    others => format!(", and with it {others} more"),
                };
                if !self.solitude {
                    let why = "nobody knows which job it was, and none is run alone here, so the attempt counts";
                    return Verdict::Abandon { error: self.says(&format!("{others}; {why}")) };
                }
                let why =
                    "nobody knows which job it was, so the attempt is given back, and the job runs alone from now on";
                Verdict::Crash { error: self.says(&format!("{others}; {why}")), crash: Crash::Together }
            }
        }
    }

    /// Nobody can tell why the process ended, or the whole machine went down with it: the attempt counts, and that is all.
    pub fn uncounted(&self) -> Verdict {
        Verdict::Abandon { error: self.says("") }
    }

    /// What counts towards `max_crashes`, with one more that it was alone at.
    fn counted(&self) -> i64 {
        let in_company = i64::from(self.crashes > self.alone);
        self.alone.saturating_add(1).saturating_add(in_company)
    }

    fn says(&self, what: &str) -> String {
        format!("abandoned: the process of runtime {} ended during the attempt{what}", self.owner)
    }

    fn last_straw(&self) -> String {
        let Lost { crashes, alone, max_crashes, .. } = self;
        let (count, alone) = (crashes.saturating_add(1), alone.saturating_add(1));
        format!(
            "; its process has ended {count} times while it ran, {alone} times while nothing else did, and max_crashes is \
             {max_crashes}"
        )
    }
}

/// The key of an error that says whether nothing else was executing at a crash.
const ALONE: &str = "alone";

/// The stored array of errors, whose last is of this verdict: at a crash it is noted whether the job was alone.
pub(crate) fn noted(errors: String, verdict: &Verdict) -> String {
    let Verdict::Crash { crash, .. } = verdict else { return errors };
    let Ok(Value::Array(mut entries)) = serde_json::from_str(&errors) else { return errors };
    if let Some(Value::Object(last)) = entries.last_mut() {
        last.insert(ALONE.to_owned(), Value::Bool(*crash != Crash::Together));
    }
    Value::Array(entries).to_string()
}

/// At how many of its last crashes a job was alone, as its stored errors say.
pub(crate) fn alone_at(errors: &str, crashes: i64) -> i64 {
    let Ok(Value::Array(entries)) = serde_json::from_str(errors) else { return 0 };
    let noted = entries.iter().rev().filter_map(|entry| entry[ALONE].as_bool());
    noted.take(usize::try_from(crashes).unwrap_or(0)).filter(|alone| *alone).count() as i64
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

    fn lost(crashes: i64, alone: i64, max_crashes: u32) -> Lost {
        let fence = Fence { id: 1, attempt: 1, attempted_at: 100 };
        Lost { fence, crashes, alone, max_crashes, solitude: true, owner: "\"r\" on \"n\"".into() }
    }

    fn ruled(lost: &Lost, company: Option<usize>) -> Crash {
        match lost.verdict(company) {
            Verdict::Crash { crash, error } => {
                assert!(error.starts_with("abandoned: the process of runtime \"r\" on \"n\" ended"), "{error}");
                crash
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_that_was_alone_is_to_blame_and_is_discarded_at_its_last_crash() {
        assert_eq!(ruled(&lost(0, 0, 3), None), Crash::Alone);
        assert_eq!(ruled(&lost(1, 1, 3), None), Crash::Alone);
        assert_eq!(ruled(&lost(2, 2, 3), None), Crash::Last);
        assert_eq!(ruled(&lost(2, 1, 3), None), Crash::Last, "among others first, then twice alone");
        assert_eq!(ruled(&lost(0, 0, 1), None), Crash::Last);
        assert_eq!(ruled(&lost(2, 2, u32::MAX), None), Crash::Alone);
        let Verdict::Crash { error, .. } = lost(2, 1, 3).verdict(None) else { panic!("it is a crash") };
        assert!(
            error.ends_with("ended 3 times while it ran, 2 times while nothing else did, and max_crashes is 3"),
            "{error}"
        );
    }

    #[test]
    fn crashes_in_company_condemn_nobody_and_only_the_first_counts() {
        for crashes in 0..10 {
            assert_eq!(ruled(&lost(crashes, 0, 3), Some(1)), Crash::Together);
            assert_eq!(ruled(&lost(crashes, 0, 3), None), Crash::Alone, "alone for the first time");
            assert_eq!(ruled(&lost(crashes + 2, 2, 3), Some(0)), Crash::Together, "nor where others may have run");
        }
    }

    #[test]
    fn where_none_is_run_alone_an_attempt_among_others_counts() {
        let lost = Lost { solitude: false, ..lost(5, 0, 3) };
        assert!(
            matches!(lost.verdict(Some(2)), Verdict::Abandon { error } if error.ends_with("so the attempt counts"))
        );
        assert!(matches!(lost.verdict(None), Verdict::Crash { crash: Crash::Alone, .. }));
        assert!(matches!(Lost { max_crashes: 0, ..lost }.verdict(None), Verdict::Abandon { .. }));
    }

    /// Every history there can be: of up to four jobs one is the poison, the others are there or not, at every crash. What
    /// is checked is the rule; that a poison gets to be alone is what the solitude is for, and has its own tests.
    #[test]
    fn whatever_came_before_only_who_was_alone_is_condemned_and_a_poison_that_is_alone_ends_in_so_many_crashes() {
        for jobs in 1..=4_usize {
            for max_crashes in 1..=4_u32 {
                // Who else is there at each of the first four crashes, drawn as bits; then the poison is alone.
                let masks = 1_u32 << (jobs - 1);
                for history in 0..masks.pow(4) {
                    let mut suspects = vec![lost(0, 0, max_crashes); jobs];
                    let mut alone = 0;
                    for crash in 0.. {
                        let there = if crash < 4 { history / masks.pow(crash) % masks } else { 0 };
                        let others = there.count_ones() as usize;
                        for (n, suspect) in suspects.iter_mut().enumerate() {
                            if n > 0 && there & (1 << (n - 1)) == 0 {
                                continue;
                            }
                            let company = (others > 0).then_some(others);
                            let ruled = ruled(suspect, company);
                            assert!(ruled == Crash::Together || company.is_none(), "{suspect:?}");
                            assert!(ruled != Crash::Last || n == 0, "an innocent is condemned: {suspect:?}");
                            suspect.crashes += 1;
                            suspect.alone += i64::from(company.is_none());
                            if n == 0 && company.is_none() {
                                alone += 1;
                                let shared = suspect.crashes > suspect.alone;
                                let is_last = alone + u32::from(shared) >= max_crashes;
                                assert_eq!(ruled == Crash::Last, is_last, "{suspect:?}");
                            }
                        }
                        if alone > 0 && alone + u32::from(suspects[0].crashes > suspects[0].alone) >= max_crashes {
                            break;
                        }
                        assert!(crash < 4 + max_crashes, "it never ends: {:?}", suspects[0]);
                    }
                }
            }
        }
    }

    #[test]
    fn an_error_tells_whether_the_job_was_alone_and_only_the_last_crashes_count() {
        let entry = r#"[{"at":"2026-01-01T00:00:00Z","attempt":1,"error":"e"}]"#;
        let one = |entries: &str| serde_json::from_str::<Vec<Value>>(entries).unwrap().remove(0);
        let errors = |alone: &[Option<bool>]| {
            let crash = |alone: &bool| Verdict::Crash {
                error: String::new(),
                crash: if *alone { Crash::Alone } else { Crash::Together },
            };
            let verdict = |alone: &Option<bool>| alone.as_ref().map_or(Verdict::Release, crash);
            let one = |alone: &Option<bool>| one(&noted(entry.to_owned(), &verdict(alone)));
            Value::Array(alone.iter().map(one).collect()).to_string()
        };
        let three = errors(&[Some(true), Some(false), None, Some(true), None]);
        assert_eq!([0, 1, 2, 3, 9].map(|crashes| alone_at(&three, crashes)), [0, 1, 1, 2, 2]);
        for odd in ["", "half", "{}", "[]", "[1, \"alone\", {\"alone\": 1}]"] {
            assert_eq!(alone_at(odd, 3), 0, "{odd}");
        }
        assert_eq!((alone_at("[]", -1), noted("half".into(), &lost(0, 0, 3).verdict(None))), (0, "half".to_owned()));
    }

    #[test]
    fn the_more_crashes_a_job_has_the_longer_others_wait_for_it() {
        let waits = [1, 2, 3, 4].map(|crashes| solitude(Duration::from_millis(500), crashes).as_millis());
        assert_eq!(waits, [500, 5_000, 50_000, 500_000]);
        assert_eq!(solitude(Duration::from_secs(1), i64::MAX), LONGEST);
        assert_eq!((solitude(Duration::MAX, 1), solitude(Duration::ZERO, 50)), (LONGEST, Duration::ZERO));
    }
}
