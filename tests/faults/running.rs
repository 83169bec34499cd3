//! Acts of the disk fail under a real runtime, with threads and all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kiln::{Durability, Failure, Filter, Job, Kiln, NewJob, Outcome, Running, State, Worker};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::common::{Folder, until};
use crate::disk::{Act, Disk, FULL, Fault, SYNC_ERROR, WRITE_ERROR};
use crate::story::whole;
use crate::{long, report};

/// How a job behaves at its attempts, one after the other; the last one completes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "mood")]
enum Mood {
    Completes,
    FailsOnce,
    SnoozesOnce,
    TakesNotes,
    Records,
}

const MOODS: [Mood; 5] = [Mood::Completes, Mood::FailsOnce, Mood::SnoozesOnce, Mood::TakesNotes, Mood::Records];

#[derive(Clone, Default)]
struct Moody(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    running: HashSet<i64>,
    runs: HashMap<i64, u64>,
}

impl Worker for Moody {
    const NAME: &'static str = "moody";
    type Args = Mood;

    fn process(&self, job: &Running<Mood>) -> Result<Outcome, Failure> {
        let mut log = self.0.lock();
        assert!(log.running.insert(job.id), "job {} is executed twice at a time", job.id);
        let runs = log.runs.entry(job.id).or_default();
        *runs += 1;
        let first = *runs == 1;
        drop(log);
        // A note that cannot be written is an error of this attempt, like any other.
        let noted = match job.args {
            Mood::TakesNotes => {
                job.progress(1, 2, "half");
                job.checkpoint("here").err()
            }
            _ => None,
        };
        self.0.lock().running.remove(&job.id);
        match (job.args, noted) {
            (_, Some(error)) => Err(error.into()),
            (Mood::FailsOnce, None) if first => Err("the first time".into()),
            (Mood::SnoozesOnce, None) if first => Ok(Outcome::snooze(Duration::ZERO)),
            (Mood::Records, None) => Ok(Outcome::record("kept")?),
            _ => Ok(Outcome::Complete),
        }
    }

    fn backoff(&self, _: &Job) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

/// A runtime works off jobs while they are enqueued and the disk fails; says whether it did, and how often.
fn work(fault: Fault) -> Option<u64> {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let durability = if fault.act == Act::Sync { Durability::Strict } else { Durability::Full };
    let kiln = Kiln::builder(folder.db()).durability(durability).open().unwrap();
    let moody = Moody::default();
    let runtime = kiln.runtime().queue("default", 3).worker(moody.clone()).start().unwrap();
    disk.fail(fault);
    let mut ids = Vec::new();
    let mut refused = 0;
    for mood in MOODS.iter().cycle().take(12) {
        match kiln.enqueue(NewJob::new(Moody::NAME).args(mood)) {
            Ok(job) => ids.push((job.id, *mood)),
            Err(error) => {
                assert!(disk.injected() > 0, "{error}");
                refused += 1;
                disk.heal();
            }
        }
    }
    let ended = || kiln.count(Filter::new()).unwrap().state(State::Completed) == ids.len() as u64;
    until("it fails or all is done", || disk.injected() > 1 || ended());
    disk.heal();
    until("all have ended", ended);
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 12 - refused, "none is lost, none is invented");
    let log = moody.0.lock();
    for (id, mood) in &ids {
        let (runs, attempts) = (log.runs[id], kiln.get(*id).unwrap().unwrap().attempt);
        let (wanted, numbered) = match mood {
            Mood::FailsOnce => (2, 2),
            Mood::SnoozesOnce => (2, 1),
            _ => (1, 1),
        };
        let unnoted = kiln.get(*id).unwrap().unwrap().errors.len() as u64;
        let unnoted = if matches!(mood, Mood::TakesNotes) { unnoted } else { 0 };
        assert_eq!(
            (runs, attempts),
            (wanted + unnoted, numbered + unnoted as i64),
            "{mood:?} ran {runs} times: {fault:?}"
        );
    }
    drop(log);
    assert_eq!(runtime.stop().unwritten, 0);
    whole(&folder.db());
    (disk.injected() > 0).then(|| disk.injected())
}

/// As [`work`], for n = 1 and on, until a run meets no failure.
fn each_fails(act: Act, code: i32, lasts: bool, what: &str) {
    let mut nth: Vec<u64> = Vec::new();
    let mut n = 1;
    while n < 5000 {
        nth.push(n);
        n += if long() { 1 } else { 1 + n / 3 };
    }
    let mut met = 0;
    let mut injected = 0;
    // Several at a time: most of the time they wait.
    for some in nth.chunks(6) {
        let all = std::thread::scope(|scope| {
            let run = |&nth: &u64| scope.spawn(move || work(Fault { act, nth, code, lasts }));
            let runs: Vec<_> = some.iter().map(run).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
        });
        met += all.iter().flatten().count();
        injected += all.iter().flatten().sum::<u64>();
        if all.iter().any(Option::is_none) {
            break;
        }
    }
    assert!(met > 5, "{met} runs met a failure");
    report(
        format!("{what}, under a runtime with 3 threads"),
        format!("{met} runs, {injected} acts of the disk failed"),
        "every job whose enqueue returned was executed as often as its worker asked for, none twice at a time; no ack lost",
    );
}

#[test]
fn a_runtime_survives_a_disk_that_is_full_from_any_write_on() {
    each_fails(Act::Write, FULL, true, "the disk is full from the n-th write on, for a while");
}

#[test]
fn a_runtime_survives_a_disk_that_fails_from_any_write_on() {
    each_fails(Act::Write, WRITE_ERROR, true, "writes fail from the n-th on, for a while");
}

#[test]
fn a_runtime_survives_any_single_sync_that_fails() {
    each_fails(Act::Sync, SYNC_ERROR, false, "the n-th sync fails");
}
