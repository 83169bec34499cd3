//! Jobs that take their process down, and those that were there.

use std::fs;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use kiln::{Job, Kiln, State, Worker};

use crate::child::{Child, Role, say};
use crate::folder::{Folder, finished, job, wait_for};
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
}

pub fn work(folder: &Folder, orders: &Receiver<String>, manner: u64) {
    let kiln = folder.kiln();
    let runtimes = match manner {
        // However slow the machine is, a job that is to be alone is.
        0 => vec![suspicious(&kiln, folder, "default", 4).solitude(Duration::from_secs(60))],
        1 => vec![suspicious(&kiln, folder, "default", 2).claim_ahead(Duration::from_secs(60))],
        _ => ["default", "other"].map(|queue| suspicious(&kiln, folder, queue, 1)).into(),
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
    Dose { company, does }
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
    assert!(last.ends_with("its process has ended 3 times while it ran, and max_crashes is 3"), "{last}");

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
    bytes[128..].chunks(16).filter(|slot| slot.iter().any(|byte| *byte != 0)).count()
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
