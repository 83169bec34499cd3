//! Jobs that take their process down, and those that were there.

use std::fs;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use kiln::{Job, Kiln, State, Worker};

use serde_json::json;

use crate::child::{Child, LONELY, Role, say};
use crate::folder::{Folder, finished, job, wait_for};
use crate::log::Execution;
use crate::report;
use crate::workers::{Dose, Harm, Held, Mood, Moody, Poison, abandonments, given_back, rescued, suspicious};

/// How a child of these tests runs its jobs.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Four at a time.
    Plain,
    /// Two at a time, and claims as far ahead as it can.
    Ahead,
    /// By two runtimes, one at a time each.
    Twins,
    /// Four at a time, and all as it is unless something is said.
    Unsaid,
    /// Four at a time, and who is to be alone is not for long.
    Hasty,
    /// By a runtime on each of two files.
    TwoFiles,
}

pub fn work(folder: &Folder, orders: &Receiver<String>, manner: u64) {
    let kiln = folder.kiln();
    // However slow the machine is, a job that is to be alone is.
    let minute = Duration::from_secs(60);
    let runtimes = match manner {
        0 => vec![suspicious(&kiln, folder, "default", 4).solitude(minute)],
        1 => vec![suspicious(&kiln, folder, "default", 2).claim_ahead(minute)],
        2 => ["default", "other"].map(|queue| suspicious(&kiln, folder, queue, 1)).into(),
        3 => vec![suspicious(&kiln, folder, "default", 4)],
        4 => vec![suspicious(&kiln, folder, "default", 4).solitude(Duration::from_millis(1))],
        _ => [kiln, folder.other_kiln()].map(|kiln| suspicious(&kiln, folder, "default", 2).solitude(minute)).into(),
    };
    let runtimes: Vec<_> = runtimes.into_iter().map(|runtime| runtime.start().unwrap()).collect();
    say("started");
    assert_eq!(orders.recv().unwrap(), "stop");
    runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
}

fn start(folder: &Folder, manner: Manner) -> Child {
    Child::start(folder, Role::Poisoned(manner))
}

fn poison(company: usize, does: Harm) -> Dose {
    Dose { company, millis: 0, does }
}

/// Waits until all of these run in that child.
fn run_there(folder: &Folder, child: &Child, ids: &[i64]) {
    wait_for("the start", || {
        let story = folder.log().read();
        ids.iter().all(|id| story.of(*id).iter().any(|execution| execution.pid == child.pid())).then_some(())
    });
}

/// Enqueues held jobs, and waits until they run in that child.
fn hold(folder: &Folder, kiln: &Kiln, child: &Child, count: usize) -> Vec<i64> {
    let ids: Vec<i64> = (0..count).map(|_| kiln.enqueue(Held::job(())).unwrap().id).collect();
    run_there(folder, child, &ids);
    ids
}

/// Rescues what is to be rescued, and runs nothing.
fn rescue(folder: &Folder) {
    drop(folder.kiln());
}

/// State, attempt, errors, crashes.
fn shape(job: &Job) -> (State, i64, usize, i64) {
    (job.state, job.attempt, job.errors.len(), job.crashes)
}

/// Three neighbours are executing at the first crash, and none at the others.
fn ends_discarded(does: Harm) {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let poison = kiln.enqueue(Poison::job(poison(3, does))).unwrap().id;
    let neighbours = [0; 3].map(|_| kiln.enqueue(Held::job(())).unwrap().id);

    let mut first = start(&folder, Manner::Plain);
    assert!(!first.exit().success());
    rescue(&folder);
    assert_eq!(shape(&job(&kiln, poison)), (State::Available, 0, 1, 1), "nobody knows which it was");
    for id in neighbours {
        let job = job(&kiln, id);
        assert_eq!((shape(&job), rescued(&job), given_back(&job)), ((State::Available, 0, 1, 1), 1, 1));
    }

    for crashes in [2, 3] {
        let mut child = start(&folder, Manner::Plain);
        assert!(!child.exit().success());
        let story = folder.log().read();
        let there: Vec<i64> = story.executions.iter().filter(|e| e.pid == child.pid()).map(|e| e.id).collect();
        assert_eq!(there, [poison], "it ran alone");
        rescue(&folder);
        let state = if crashes == 3 { State::Discarded } else { State::Available };
        assert_eq!(shape(&job(&kiln, poison)), (state, crashes - 1, crashes as usize, crashes));
    }
    let dead = job(&kiln, poison);
    assert!(dead.discarded_at.is_some() && dead.attempt < dead.max_attempts);
    assert_eq!((abandonments(&dead).len(), given_back(&dead)), (3, 1));
    let last = &dead.errors[2].error;
    assert!(last.ends_with("3 times while it ran, 2 times while nothing else did, and max_crashes is 3"), "{last}");

    folder.release();
    let mut last = start(&folder, Manner::Plain);
    for id in neighbours {
        assert_eq!(shape(&finished(&kiln, id)), (State::Completed, 1, 1, 0), "it did nothing wrong");
    }
    last.says("started");
    last.order("stop");
    assert!(last.exit().success());
    folder.assert_nothing_left_behind();
}

#[test]
fn a_job_that_aborts_its_process_ends_discarded_and_its_neighbours_complete() {
    ends_discarded(Harm::Abort);
    report(
        "a job aborts its process, beside three others",
        3,
        "alone after the first; discarded; the others complete at attempt 1",
    );
}

#[test]
fn a_job_that_exhausts_its_stack_ends_discarded_and_its_neighbours_complete() {
    ends_discarded(Harm::ExhaustTheStack);
    report(
        "a job exhausts its stack, beside three others",
        3,
        "alone after the first; discarded; the others complete at attempt 1",
    );
}

/// With all settings as they are by themselves: who else is executing when the process ends depends on how much the
/// machine has to do, and what becomes of the job only on that.
fn ends_discarded_unsaid(millis: u64, long: bool) {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let poison = Poison::job(Dose { company: 3, millis, does: Harm::Abort });
    let held = || Held::job(());
    let mut first = None;
    // Those that do not end have begun before it; those that do stand in line before it and after.
    let (innocents, poison) = if long {
        let ids = [0; 3].map(|_| kiln.enqueue(held()).unwrap().id);
        let child = start(&folder, Manner::Unsaid);
        run_there(&folder, &child, &ids);
        first = Some(child);
        (ids, kiln.enqueue(poison).unwrap().id)
    } else {
        let jobs = kiln.enqueue_many([held(), held(), poison, held()]).unwrap();
        ([jobs[0].id, jobs[1].id, jobs[3].id], jobs[2].id)
    };
    let (mut alone, mut shared) = (0, 0);
    while job(&kiln, poison).state != State::Discarded {
        let mut child = first.take().unwrap_or_else(|| start(&folder, Manner::Unsaid));
        assert!(!child.exit().success());
        rescue(&folder);
        let story = folder.log().read();
        let there = |execution: &&Execution| execution.pid == child.pid() && execution.ended.is_none();
        let there: Vec<i64> = story.executions.iter().filter(there).map(|execution| execution.id).collect();
        assert!(there.contains(&poison), "it is always there");
        if there.len() == 1 {
            alone += 1
        } else {
            shared += 1
        }
        let found = job(&kiln, poison);
        assert_eq!((found.crashes, found.attempt), (alone + shared, alone));
        assert_eq!(found.state == State::Discarded, alone == 2, "two crashes alone, after one among others: {found:?}");
        let may_be = [State::Available, State::Completed];
        innocents.iter().for_each(|id| assert!(may_be.contains(&job(&kiln, *id).state), "an innocent is condemned"));
        if !long || shared > 1 {
            // From now on they end at once. Where the machine has kept the poison from being alone, so that it may be.
            folder.release();
        }
    }
    println!("{alone} crashes alone, {shared} among others, with a poison of {millis} ms");
    folder.release();
    let last = start(&folder, Manner::Unsaid);
    innocents.iter().for_each(|id| assert_eq!(shape(&finished(&kiln, *id)).0, State::Completed));
    innocents.iter().for_each(|id| assert_eq!(job(&kiln, *id).attempt, 1));
    last.kill(&folder);
}

#[test]
fn by_default_a_job_that_aborts_at_once_ends_discarded_and_no_other() {
    ends_discarded_unsaid(0, false);
    ends_discarded_unsaid(0, true);
    report("a job aborts its process at once, by default", 2, "discarded after two crashes alone; the others complete");
}

#[test]
fn by_default_a_job_that_aborts_after_a_second_ends_discarded_and_no_other() {
    ends_discarded_unsaid(1000, false);
    ends_discarded_unsaid(1000, true);
    report(
        "a job aborts its process after a second, by default",
        2,
        "discarded after two crashes alone; the others complete",
    );
}

#[test]
fn a_job_that_ends_a_process_with_the_jobs_of_another_file_in_it_is_found_and_they_go_free() {
    let folder = Folder::new();
    let (kiln, other) = (folder.kiln(), folder.other_kiln());
    let poison = kiln.enqueue(Poison::job(poison(1, Harm::Abort))).unwrap().id;
    let innocent = other.enqueue(Held::job(()).meta(json!({ "file": "other" }))).unwrap().id;
    let mut first = start(&folder, Manner::TwoFiles);
    assert!(!first.exit().success());
    let rescue = || {
        rescue(&folder);
        drop(folder.other_kiln());
    };
    rescue();
    assert_eq!(shape(&job(&kiln, poison)), (State::Available, 0, 1, 1), "the file alone does not tell");
    assert_eq!(shape(&job(&other, innocent)), (State::Available, 0, 1, 1), "nor does its own");
    folder.release();
    for crashes in [2, 3] {
        let mut child = start(&folder, Manner::TwoFiles);
        assert!(!child.exit().success());
        rescue();
        let state = if crashes == 3 { State::Discarded } else { State::Available };
        assert_eq!(
            shape(&job(&kiln, poison)),
            (state, crashes - 1, crashes as usize, crashes),
            "it was alone, and said so"
        );
        let found = job(&other, innocent);
        assert!([(State::Available, 0, 1, 1), (State::Completed, 1, 1, 0)].contains(&shape(&found)), "{found:?}");
    }
    let last = start(&folder, Manner::TwoFiles);
    assert_eq!(shape(&finished(&other, innocent)), (State::Completed, 1, 1, 0));
    last.kill(&folder);
    report("a job aborts its process, beside a job of another file", 3, "discarded; the other completes at attempt 1");
}

#[test]
#[cfg_attr(not(unix), ignore = "needs a command that kills a process")]
fn however_often_a_job_of_another_process_kills_theirs_jobs_that_run_together_are_not_condemned() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let held = [0; 4].map(|_| kiln.enqueue(Held::job(())).unwrap().id);
    let killers = Child::start(&folder, Role::Loner { threads: 1 });
    for round in 1..=4 {
        let mut victim = start(&folder, Manner::Hasty);
        run_there(&folder, &victim, &held);
        folder.log().kill(victim.pid());
        let killer = kiln.enqueue(Poison::job(poison(0, Harm::Kill(victim.pid()))).queue(LONELY)).unwrap().id;
        assert!(!victim.exit().success());
        assert_eq!(shape(&finished(&kiln, killer)), (State::Completed, 1, 0, 0), "of it nothing is known");
        rescue(&folder);
        for id in held {
            assert_eq!(shape(&job(&kiln, id)), (State::Available, 0, round as usize, round));
        }
    }
    killers.kill(&folder);
    folder.release();
    let last = start(&folder, Manner::Unsaid);
    held.iter().for_each(|id| assert_eq!(shape(&finished(&kiln, *id)), (State::Completed, 1, 4, 0)));
    last.kill(&folder);
    folder.log().read().assert_orderly();
    report("jobs of one process kill another again and again, with four jobs in it", 4, "these complete at attempt 1");
}

#[test]
#[cfg_attr(not(unix), ignore = "needs a command that kills a process")]
fn jobs_of_a_process_that_a_job_of_another_one_killed_get_their_attempt_back() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let mut victim = start(&folder, Manner::Plain);
    let held = hold(&folder, &kiln, &victim, 4);
    let killer = kiln.enqueue(Poison::job(poison(0, Harm::Kill(victim.pid())))).unwrap().id;
    folder.log().kill(victim.pid());
    let other = start(&folder, Manner::Plain);
    assert!(!victim.exit().success());
    folder.release();
    for id in held {
        assert_eq!(shape(&finished(&kiln, id)), (State::Completed, 1, 1, 0));
    }
    assert_eq!(shape(&finished(&kiln, killer)), (State::Completed, 1, 0, 0));
    other.kill(&folder);
    folder.log().read().assert_orderly();
    report("a job kills another process and the four jobs in it", 1, "each has its attempt again, and completes");
}

/// How many jobs a sidecar lists as not begun.
fn listed(sidecar: &std::path::Path) -> usize {
    let bytes = fs::read(sidecar).unwrap();
    bytes[256..].chunks(16).filter(|slot| slot.iter().any(|byte| *byte != 0)).count()
}

/// A child that executes two held jobs and has claimed a hundred more, and these.
fn claimed_ahead(folder: &Folder, kiln: &Kiln) -> (Child, [i64; 2], Vec<i64>) {
    let child = start(folder, Manner::Ahead);
    // It has to know that they are quick.
    let quick = kiln.enqueue_many((0..50).map(|_| Moody::job(Mood::default()))).unwrap();
    quick.iter().for_each(|job| assert_eq!(finished(kiln, job.id).state, State::Completed));
    let held = [0; 2].map(|_| Held::job(()));
    let jobs = held.into_iter().chain((0..100).map(|_| Moody::job(Mood::default())));
    let ids: Vec<i64> = kiln.enqueue_many(jobs).unwrap().iter().map(|job| job.id).collect();
    let (held, ahead) = ids.split_at(2);
    run_there(folder, &child, held);
    let executing = |id: &i64| job(kiln, *id).state == State::Executing;
    wait_for("the claims", || ahead.iter().all(executing).then_some(()));
    let sidecar = folder.sidecar_of(child.pid());
    wait_for("the list", || (listed(&sidecar) == 100).then_some(()));
    (child, [held[0], held[1]], ahead.to_vec())
}

#[test]
fn jobs_that_were_claimed_and_not_begun_when_their_process_was_killed_are_as_they_were() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let (child, held, ahead) = claimed_ahead(&folder, &kiln);
    child.kill(&folder);
    rescue(&folder);
    for id in &ahead {
        let job = job(&kiln, *id);
        assert_eq!((shape(&job), rescued(&job)), ((State::Available, 0, 0, 0), 0), "{job:?}");
    }
    for id in held {
        let job = job(&kiln, id);
        assert_eq!((shape(&job), rescued(&job)), ((State::Available, 0, 1, 1), 1), "{job:?}");
    }
    folder.release();
    let last = start(&folder, Manner::Plain);
    ahead.iter().for_each(|id| assert_eq!(shape(&finished(&kiln, *id)), (State::Completed, 1, 0, 0)));
    held.iter().for_each(|id| assert_eq!(shape(&finished(&kiln, *id)), (State::Completed, 1, 1, 0)));
    last.kill(&folder);
    folder.log().read().assert_orderly();
    report("a process is killed with jobs claimed and not begun", 100, "each is as if it had never been claimed");
}

/// What is in a sidecar of another start of the machine was not synced when the power was cut: none of it is believed.
#[test]
fn a_power_cut_costs_every_claimed_job_its_attempt_and_is_nobodys_crash() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let (child, held, ahead) = claimed_ahead(&folder, &kiln);
    let sidecar = folder.sidecar_of(child.pid());
    child.kill(&folder);
    let mut bytes = fs::read(&sidecar).unwrap();
    let boot = bytes.windows(5).position(|at| at == b"boot ").unwrap() + 5;
    bytes[boot] = if bytes[boot] == b'0' { b'1' } else { b'0' };
    fs::write(&sidecar, bytes).unwrap();
    rescue(&folder);
    for id in ahead.iter().chain(&held) {
        let job = job(&kiln, *id);
        assert_eq!((shape(&job), rescued(&job)), ((State::Available, 1, 1, 0), 1), "{job:?}");
    }
}

#[test]
fn a_job_whose_process_is_killed_twice_completes_at_the_third_attempt() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let id = kiln.enqueue(Held::job(())).unwrap().id;
    for crashes in 1..=2 {
        let child = start(&folder, Manner::Plain);
        run_there(&folder, &child, &[id]);
        child.kill(&folder);
        rescue(&folder);
        assert_eq!(shape(&job(&kiln, id)), (State::Available, crashes, crashes as usize, crashes));
    }
    folder.release();
    let last = start(&folder, Manner::Plain);
    assert_eq!(shape(&finished(&kiln, id)), (State::Completed, 3, 2, 0));
    last.kill(&folder);
}

#[test]
fn two_runtimes_of_a_process_die_together() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let child = start(&folder, Manner::Twins);
    let ids = ["default", "other"].map(|queue| kiln.enqueue(Held::job(()).queue(queue)).unwrap().id);
    run_there(&folder, &child, &ids);
    child.kill(&folder);
    rescue(&folder);
    ids.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Available, 0, 1, 1)));
}
