//! The power is cut around every commit and every sync of the workload: what is left is opened on another disk.

use std::collections::BTreeSet;
use std::path::Path;

use fastrand::Rng;
use kiln::testing::{Hand, ManualClock};
use kiln::{Durability, Filter, Job, Kiln, NewJob, Outcome, State};

use crate::common::Folder;
use crate::disk::{Act, Cut, Disk, Fault, SYNC_ERROR, Which};
use crate::story::{STEPS, Story, key, whole};
use crate::{long, report, seed};

/// What had returned when the power was cut, one line for each step of the story.
struct Returned {
    there: BTreeSet<String>,
    removed: BTreeSet<String>,
}

/// Tells the story, cuts the power at every moment in several ways, and looks at what is left; says how many jobs whose
/// enqueue had returned were not there.
fn cut_everywhere(durability: Durability) -> u64 {
    let mut rng = Rng::with_seed(seed());
    let mut story = Story::new(durability);
    story.disk.remember();
    let mut returned = Vec::new();
    for step in STEPS {
        // What a step is about to remove may be gone or not.
        returned.push(Returned { there: story.there.clone(), removed: BTreeSet::new() });
        story.disk.mark(returned.len() - 1);
        (step.take)(&mut story).unwrap();
        let last = returned.last_mut().unwrap();
        last.removed.clone_from(story.removed());
    }
    let moments = story.disk.moments();
    let (mut cuts, mut changes, mut lost_jobs) = (0_u64, 0, 0);
    let draws = if long() { 20 } else { 2 };
    for moment in &moments {
        let mut ways = vec![Cut::Nothing, Cut::Unsynced, Cut::LastFrameTorn];
        let mut dice: Vec<Rng> = (0..draws).map(|_| rng.fork()).collect();
        ways.extend(dice.iter_mut().map(Cut::Drawn));
        for mut way in ways {
            let keeps = matches!(way, Cut::Nothing);
            let folder = Folder::new();
            changes += moment.cut(&mut way, folder.db().parent().unwrap());
            let kiln = Kiln::open(folder.db()).unwrap_or_else(|error| panic!("{}: {error}", moment.what));
            whole(&folder.db());
            let jobs = kiln.list(Filter::new().limit(u32::MAX)).unwrap();
            let keys: Vec<String> = jobs.iter().filter_map(key).collect();
            let found: BTreeSet<&String> = keys.iter().collect();
            assert_eq!(found.len(), keys.len(), "no job is there twice");
            let Returned { there, removed, .. } = &returned[moment.mark];
            let lost = there.difference(removed).filter(|key| !found.contains(key)).count() as u64;
            if keeps || durability != Durability::Normal {
                assert_eq!(lost, 0, "an enqueue had returned, {} in step {:?}", moment.what, STEPS[moment.mark].name);
            }
            lost_jobs += lost;
            cuts += 1;
        }
    }
    assert!(moments.len() > 50 && changes > 1000, "{} moments, {changes} changes lost", moments.len());
    report(
        format!("power cut around every commit and sync, Durability::{durability:?}"),
        format!("{cuts} cuts at {} moments, {changes} writes lost or torn", moments.len()),
        format!("each opened, integrity_check ok, {lost_jobs} jobs lost whose enqueue had returned"),
    );
    lost_jobs
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_whole_file_with_every_job_whose_enqueue_had_returned() {
    assert_eq!(cut_everywhere(Durability::Full), 0);
}

#[test]
fn without_waiting_for_the_disk_the_last_jobs_may_be_gone_and_the_file_is_whole() {
    assert!(cut_everywhere(Durability::Normal) > 0, "the table at Durability says so, and this test could not fail");
}

#[test]
fn waiting_for_everything_loses_nothing() {
    assert_eq!(cut_everywhere(Durability::Strict), 0);
}

/// One cell of the table at [`Durability`]: a change that had returned, and whether it is there after a power cut.
struct Cell {
    what: &'static str,
    change: fn(&Kiln, &Hand, &Job),
    is_there: fn(&Kiln, &Job) -> bool,
    /// For `Full`, `Normal` and `Strict`.
    kept: [bool; 3],
}

fn state(kiln: &Kiln, job: &Job) -> State {
    kiln.get(job.id).unwrap().map_or(State::Unknown, |job| job.state)
}

const TABLE: [Cell; 7] = [
    Cell {
        what: "an enqueue",
        change: |kiln, _, _| drop(kiln.enqueue(NewJob::new("late")).unwrap()),
        is_there: |kiln, _| kiln.count(Filter::new().worker("late")).unwrap().total() == 1,
        kept: [true, false, true],
    },
    Cell {
        what: "a cancel",
        change: |kiln, _, job| assert_eq!(kiln.cancel(job.id).unwrap(), 1),
        is_there: |kiln, job| state(kiln, job) == State::Cancelled,
        kept: [true, false, true],
    },
    Cell {
        what: "a retry",
        change: |kiln, _, _| assert_eq!(kiln.retry(Filter::new().state(State::Suspended)).unwrap(), 1),
        is_there: |kiln, _| kiln.count(Filter::new().state(State::Suspended)).unwrap().total() == 0,
        kept: [true, false, true],
    },
    Cell {
        what: "a delete",
        change: |kiln, _, job| assert_eq!(kiln.delete(job.id).unwrap(), 1),
        is_there: |kiln, job| kiln.get(job.id).unwrap().is_none(),
        kept: [true, false, true],
    },
    Cell {
        what: "an update",
        change: |kiln, _, job| assert_eq!(kiln.update(job.id, kiln::Changes::new().priority(5)).unwrap(), 1),
        is_there: |kiln, job| kiln.get(job.id).unwrap().unwrap().priority == 5,
        kept: [true, false, true],
    },
    Cell {
        what: "a claim",
        change: |_, hand, _| assert_eq!(hand.claim("default", 1).unwrap().len(), 1),
        is_there: |kiln, job| state(kiln, job) == State::Executing,
        kept: [false, false, true],
    },
    Cell {
        what: "an ack",
        change: |_, hand, _| {
            let job = hand.claim("default", 1).unwrap().remove(0);
            assert!(hand.ack(&job, Outcome::Complete).unwrap());
        },
        is_there: |kiln, job| state(kiln, job) == State::Completed,
        kept: [false, false, true],
    },
];

#[test]
fn each_cell_of_the_table_at_durability_is_as_it_says() {
    for cell in TABLE {
        for (durability, kept) in [Durability::Full, Durability::Normal, Durability::Strict].into_iter().zip(cell.kept)
        {
            let folder = Folder::new();
            let disk = Disk::at(folder.db().parent().unwrap());
            let kiln = Kiln::builder(folder.db()).durability(durability).open().unwrap();
            let hand = Hand::new(&kiln, ["w"]);
            let job = kiln.enqueue(NewJob::new("w")).unwrap();
            kiln.enqueue(NewJob::new("w").state(State::Suspended)).unwrap();
            // What was there before is on the disk, whatever the mode.
            checkpoint(&folder.db());
            (cell.change)(&kiln, &hand, &job);
            assert!((cell.is_there)(&kiln, &job), "{}", cell.what);

            let look = |mut cut: Cut<'_>| {
                let left = Folder::new();
                disk.now().cut(&mut cut, left.db().parent().unwrap());
                let there = (cell.is_there)(&left.open(), &job);
                whole(&left.db());
                there
            };
            assert!(look(Cut::Nothing), "{} under {durability:?} after a kill", cell.what);
            assert_eq!(look(Cut::Unsynced), kept, "{} under {durability:?} after a power cut", cell.what);
            let word = if kept { "kept" } else { "gone" };
            report(format!("power cut after {} that had returned, {durability:?}", cell.what), 1, word);
        }
    }
}

fn checkpoint(db: &Path) {
    let busy: i64 =
        crate::common::stranger(db).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
}

/// An ack that a power cut took is no loss: its job runs again.
#[test]
fn a_job_whose_ack_a_power_cut_took_is_rescued_and_runs_again() {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let clock = ManualClock::default();
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    let hand = Hand::new(&kiln, ["w"]);
    let ids: Vec<i64> = (0..5).map(|_| kiln.enqueue(NewJob::new("w")).unwrap().id).collect();
    let claimed = hand.claim("default", 3).unwrap();
    assert!(hand.ack(&claimed[0], Outcome::Complete).unwrap());
    // The claims, and one ack, ride on this; the second ack rides on nothing.
    kiln.enqueue(NewJob::new("other")).unwrap();
    assert!(hand.ack(&claimed[1], Outcome::Complete).unwrap());

    let left = Folder::new();
    disk.now().cut(&mut Cut::Unsynced, left.db().parent().unwrap());
    std::fs::write(left.path(&format!("jobs.db-kiln-{}", claimed[0].attempted_by[1])), "").unwrap();
    let kiln = left.open();
    let hand = Hand::new(&kiln, ["w"]);
    // Some of them an open rescues by itself.
    hand.rescue().unwrap();
    let found = ids.iter().map(|id| kiln.get(*id).unwrap().unwrap());
    let found: Vec<(State, i64, usize)> = found.map(|job| (job.state, job.attempt, job.errors.len())).collect();
    let (fresh, rescued) = ((State::Available, 0, 0), (State::Available, 1, 1));
    assert_eq!(found, [(State::Completed, 1, 0), rescued, rescued, fresh, fresh]);
    for job in hand.claim("default", 9).unwrap() {
        assert!(hand.ack(&job, Outcome::Complete).unwrap());
    }
    assert_eq!(kiln.count(Filter::new().worker("w")).unwrap().state(State::Completed), 5);
}

/// Linux marks what it could not write as written: a second sync says that all is well, and the log has a hole, beyond
/// which nothing is found after a power cut.
#[test]
fn an_enqueue_that_returned_after_a_failed_sync_is_there_after_a_power_cut() {
    for reader in [false, true] {
        let folder = Folder::new();
        let disk = Disk::at(folder.db().parent().unwrap());
        let kiln = Kiln::builder(folder.db()).patience(crate::common::ms(50)).open().unwrap();
        let hand = Hand::new(&kiln, ["w"]);
        kiln.enqueue(NewJob::new("w")).unwrap();
        // These ride, and are not on the disk when the sync fails.
        let job = hand.claim("default", 1).unwrap().remove(0);
        assert!(hand.ack(&job, Outcome::Complete).unwrap());
        let stuck = crate::common::stranger(&folder.db());
        if reader {
            stuck.execute_batch("BEGIN; SELECT count(*) FROM kiln_jobs").unwrap();
        }
        disk.forget();
        disk.fail(Fault { act: Act::Sync, nth: 1, code: SYNC_ERROR, lasts: false });
        let first = kiln.enqueue(NewJob::new("late"));
        assert_eq!(disk.injected(), 1);
        assert_eq!(first.is_err(), reader, "what cannot be made safe is not said to be: {first:?}");
        stuck.execute_batch(if reader { "COMMIT" } else { "" }).unwrap();
        kiln.enqueue(NewJob::new("late")).unwrap();

        let left = Folder::new();
        disk.now().cut(&mut Cut::Unsynced, left.db().parent().unwrap());
        let found = left.open().count(Filter::new().worker("late")).unwrap().total();
        assert_eq!(found, if reader { 1 } else { 2 }, "with a reader: {reader}");
        whole(&left.db());
    }
    report(
        "a sync fails, the system forgets what it did not write, the power is cut",
        "2 times, once with a reader that keeps the log from being begun anew",
        "every enqueue that returned Ok afterwards was there",
    );
}

/// How often each part of a script waits for the disk, by mode.
#[test]
fn each_mode_syncs_as_often_as_the_table_says() {
    let expected =
        [(Durability::Full, [1, 1, 1, 1, 0, 0, 0, 0]), (Durability::Normal, [0; 8]), (Durability::Strict, [1; 8])];
    for (durability, expected) in expected {
        let folder = Folder::new();
        let disk = Disk::at(folder.db().parent().unwrap());
        let clock = ManualClock::default();
        let kiln = Kiln::builder(folder.db()).clock(&clock).durability(durability).open().unwrap();
        let hand = Hand::new(&kiln, ["w"]);
        kiln.enqueue(NewJob::new("w")).unwrap();
        let (mut first, mut many, mut job) = (0, Vec::new(), None);
        let syncs = |act: &mut dyn FnMut()| {
            let before = (disk.count(Act::Sync, Which::Wal), disk.count(Act::Commit, Which::Wal));
            act();
            let commits = disk.count(Act::Commit, Which::Wal) - before.1;
            assert_eq!(commits, 1, "each part of the script is one transaction");
            disk.count(Act::Sync, Which::Wal) - before.0
        };
        let found = [
            syncs(&mut || first = kiln.enqueue(NewJob::new("w")).unwrap().id),
            syncs(&mut || many = kiln.enqueue_many((0..50).map(|_| NewJob::new("w"))).unwrap()),
            syncs(&mut || assert_eq!(kiln.cancel(first).unwrap(), 1)),
            syncs(&mut || assert_eq!(kiln.update(many[9].id, kiln::Changes::new().priority(1)).unwrap(), 1)),
            syncs(&mut || job = hand.claim("default", 1).unwrap().pop()),
            syncs(&mut || {
                assert!(hand.ack(job.as_ref().unwrap(), Outcome::snooze(std::time::Duration::ZERO)).unwrap())
            }),
            syncs(&mut || assert_eq!(hand.stage(&["default"]).unwrap(), 1)),
            syncs(&mut || assert_eq!(hand.prune(std::time::Duration::ZERO).unwrap(), 1)),
        ];
        assert_eq!(found, expected, "{durability:?}");
        report(
            format!("syncs for enqueue, enqueue of 50, cancel, update, claim, ack, stage, prune under {durability:?}"),
            "each once",
            format!("{found:?}"),
        );
    }
}

const NEW_FILE: &str = "KILN_TEST_NEW_FILE";

/// A new file's name is as durable as its content: its folder is synced before the first enqueue returns. Seen by
/// looking on as the system is called, where there is a tool for that.
#[test]
fn the_name_of_a_new_file_is_synced_before_its_first_job_is() {
    if let Some(folder) = std::env::var_os(NEW_FILE) {
        let kiln = Kiln::open(Path::new(&folder).join("jobs.db")).unwrap();
        kiln.enqueue(NewJob::new("w")).unwrap();
        return;
    }
    let folder = Folder::new();
    let place = std::fs::canonicalize(folder.db().parent().unwrap()).unwrap();
    let output = std::process::Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-e", "trace=openat,fsync,fdatasync", "-o"])
        .arg(folder.path("calls"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "power::the_name_of_a_new_file_is_synced_before_its_first_job_is", "--test-threads=1"])
        .env(NEW_FILE, &place)
        .output();
    if !output.is_ok_and(|output| output.status.success()) {
        return report("a new file's folder is synced", 0, "not run: nothing here shows the calls of a process");
    }
    let calls = std::fs::read_to_string(folder.path("calls")).unwrap();
    let synced: Vec<&str> = calls.lines().filter(|line| line.contains("sync(")).collect();
    let of = |what: String| synced.iter().position(|line| line.contains(&what));
    let (folder, log) = (of(format!("<{}>", place.display())), of(format!("<{}/jobs.db-wal>", place.display())));
    assert!(folder.is_some() && folder < log, "the folder first, then the log: {synced:?}");
    report("a new file's folder is synced", 1, "before the first sync of its log, as the system's calls show");
}
