//! What the end of a process means for the jobs that it executed: real processes that their jobs take down, and that
//! are killed from outside.

use std::fs;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use kiln::{Job, Kiln, NewJob, State, Worker};

use crate::child::{Child, LONELY, Role, say};
use crate::folder::{Folder, entries, finished, job, outlived, wait_for};
use crate::report;
use crate::watch::Watch;
use crate::workers::{Dose, Harm, Held, Mood, Moody, Poison, SUSPECT, Saver, abandonments, rescued, suspicious};

/// How a child of these tests executes its jobs.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Four at a time, with the default settings.
    Plain,
    /// Eight at a time, with the default settings.
    Wide,
    /// Two at a time, and claims as far ahead as it can.
    Ahead,
    /// By two runtimes, one at a time each.
    Twins,
    /// Four at a time, with a short crash window.
    Brief,
    /// Four at a time, and counts no crashes.
    Uncounted,
    /// By a runtime on each of two files, two at a time each.
    TwoFiles,
}

pub fn work(folder: &Folder, orders: &Receiver<String>, manner: u64) {
    let kiln = folder.kiln();
    let runtimes = match manner {
        0 => vec![suspicious(&kiln, folder, "default", 4)],
        1 => vec![suspicious(&kiln, folder, "default", 8)],
        2 => vec![suspicious(&kiln, folder, "default", 2).claim_ahead(Duration::from_secs(60))],
        3 => ["default", "other"].map(|queue| suspicious(&kiln, folder, queue, 1)).into(),
        4 => vec![suspicious(&kiln, folder, "default", 4).crash_window(Duration::from_millis(50))],
        5 => vec![suspicious(&kiln, folder, "default", 4).max_crashes(0)],
        // The other file is there before the poison begins.
        _ => [folder.other_kiln(), kiln].map(|kiln| suspicious(&kiln, folder, "default", 2)).into(),
    };
    let runtimes: Vec<_> = runtimes.into_iter().map(|runtime| runtime.start().unwrap()).collect();
    folder.log().lives();
    say("started");
    assert_eq!(orders.recv().unwrap(), "stop");
    runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
}

fn start(folder: &Folder, manner: Manner) -> Child {
    Child::start(folder, Role::Poisoned(manner))
}

/// Waits for so many others, unless it is a suspect, and does its harm at once.
fn poison(company: usize, does: Harm) -> Dose {
    Dose { company, millis: 0, outlived: 0, does }
}

/// Waits until all of these run in that child.
fn run_there(folder: &Folder, child: &Child, ids: &[i64]) {
    wait_for("the start", || {
        let story = folder.log().read();
        ids.iter().all(|id| story.of(*id).iter().any(|execution| execution.pid == child.pid())).then_some(())
    });
}

/// The jobs that the child began.
fn begun_in(folder: &Folder, child: &Child) -> Vec<i64> {
    let story = folder.log().read();
    story.executions.iter().filter(|execution| execution.pid == child.pid()).map(|execution| execution.id).collect()
}

/// Enqueues held jobs.
fn held(kiln: &Kiln, count: usize) -> Vec<i64> {
    (0..count).map(|_| kiln.enqueue(Held::job(())).unwrap().id).collect()
}

/// Rescues what is to be rescued, and runs nothing.
fn rescue(folder: &Folder) {
    drop(folder.kiln());
}

/// Starts a child, waits until these jobs run in it, and kills it from outside.
fn kill_with(folder: &Folder, manner: Manner, ids: &[i64]) {
    let child = start(folder, manner);
    run_there(folder, &child, ids);
    child.kill(folder);
    rescue(folder);
}

/// State, attempt, errors, crashes.
fn shape(job: &Job) -> (State, i64, usize, i64) {
    (job.state, job.attempt, job.errors.len(), job.crashes)
}

/// How often the job was resumed, which only the row says.
fn resumes(folder: &Folder, id: i64) -> i64 {
    folder.look().query_one("SELECT resumes FROM kiln_jobs WHERE id = ?1", [id], |row| row.get(0)).unwrap()
}

/// A runtime that lives beside the file's jobs ends the test: all of these complete.
fn complete(folder: &Folder, kiln: &Kiln, manner: Manner, ids: &[i64]) {
    folder.release();
    let mut last = start(folder, manner);
    ids.iter().for_each(|id| assert_eq!(shape(&finished(kiln, *id)).0, State::Completed));
    last.says("started");
    last.order("stop");
    assert!(last.exit().success());
    folder.assert_nothing_left_behind();
}

/// Seven neighbours execute at the first two crashes, and nothing else in its window at the third.
fn ends_discarded(does: Harm) {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let poison = kiln.enqueue(Poison::job(poison(7, does))).unwrap().id;
    let neighbours = held(&kiln, 7);
    for crashes in [1, 2] {
        let mut child = start(&folder, Manner::Wide);
        child.dies(&folder);
        rescue(&folder);
        for id in neighbours.iter().chain([&poison]) {
            let job = job(&kiln, *id);
            assert_eq!(
                shape(&job),
                (State::Available, crashes, crashes as usize, crashes),
                "nobody knows which it was"
            );
            assert_eq!(rescued(&job), crashes as u64);
        }
    }
    let mut child = start(&folder, Manner::Wide);
    child.dies(&folder);
    assert_eq!(begun_in(&folder, &child), [poison], "one suspect at a time");
    rescue(&folder);
    let dead = job(&kiln, poison);
    assert_eq!((shape(&dead), abandonments(&dead).len()), ((State::Discarded, 3, 3, 3), 3));
    assert!(dead.discarded_at.is_some() && dead.attempt < dead.max_attempts);
    assert!(dead.errors[1].error.ends_with(
        "; the attempt had only just begun, as other jobs had, and this is crash 2 of the job in a row (max_crashes is 3)"
    ));
    assert!(dead.errors[2].error.ends_with(
        "; the attempt had only just begun, and this is crash 3 of the job in a row (max_crashes is 3); Kiln::retry gives \
         the job another try"
    ));
    neighbours.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Available, 2, 2, 2)));

    complete(&folder, &kiln, Manner::Wide, &neighbours);
    neighbours.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Completed, 3, 2, 0)));
    folder.log().read().assert_orderly();
}

#[test]
fn a_job_that_aborts_its_process_at_once_ends_discarded_and_its_seven_neighbours_complete() {
    ends_discarded(Harm::Abort);
    report("a job aborts its process, beside seven others", 3, "discarded; the others complete");
}

#[test]
fn a_job_that_exhausts_its_stack_ends_discarded_and_its_seven_neighbours_complete() {
    ends_discarded(Harm::ExhaustTheStack);
    report("a job exhausts its stack, beside seven others", 3, "discarded; the others complete");
}

/// Who else has begun when the process ends depends on what the machine has to do meanwhile, and what becomes of the
/// poison does not.
fn ends_whatever_runs_beside_it(millis: u64) {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let short = |n: u64| Moody::job(Mood { millis: 20 * n, ..Mood::default() });
    let poison = Poison::job(Dose { millis, ..poison(0, Harm::Abort) });
    let jobs: Vec<NewJob> = (0..4).map(short).chain([poison]).chain((4..7).map(short)).collect();
    let ids: Vec<i64> = kiln.enqueue_many(jobs).unwrap().iter().map(|job| job.id).collect();
    let poison = ids[4];
    let mut crashes = 0;
    while job(&kiln, poison).state != State::Discarded {
        let mut child = start(&folder, Manner::Plain);
        child.dies(&folder);
        rescue(&folder);
        crashes += 1;
        let found = job(&kiln, poison);
        assert_eq!((found.crashes, found.attempt), (crashes, crashes), "it is always there");
        assert!(crashes < 6 || found.state == State::Discarded, "twice max_crashes is the end: {found:?}");
        for id in ids.iter().filter(|id| **id != poison) {
            let job = job(&kiln, *id);
            assert!(matches!(job.state, State::Available | State::Completed), "an innocent is condemned: {job:?}");
        }
    }
    println!("discarded after {crashes} crashes with a poison of {millis} ms");
    assert!(crashes >= 3);
    let innocents: Vec<i64> = ids.into_iter().filter(|id| *id != poison).collect();
    complete(&folder, &kiln, Manner::Plain, &innocents);
}

#[test]
fn by_default_a_job_that_aborts_at_once_ends_discarded_and_no_other() {
    ends_whatever_runs_beside_it(0);
    report("a job aborts its process at once, by default", 1, "discarded after 3 to 6 crashes; the others complete");
}

#[test]
fn by_default_a_job_that_aborts_after_a_second_ends_discarded_and_no_other() {
    ends_whatever_runs_beside_it(1000);
    report(
        "a job aborts its process after a second, by default",
        1,
        "discarded after 3 to 6 crashes; the others complete",
    );
}

/// Nothing waits: a job that ended in an ordinary way in between is no suspect, however many kills there are.
#[test]
fn after_an_ordinary_kill_all_jobs_run_again_at_once_and_at_full_width() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let watch = Watch::start(&folder);
    let mut child = start(&folder, Manner::Plain);
    child.says("started");
    let ids = held(&kiln, 4);
    for kills in 1..=3 {
        let next = start(&folder, Manner::Plain);
        next.says("started");
        run_there(&folder, &child, &ids);
        child.kill(&folder);
        run_there(&folder, &next, &ids);
        for &id in &ids {
            assert_eq!(shape(&job(&kiln, id)), (State::Executing, 2 * kills, 2 * kills as usize - 1, 1));
            // An ordinary end, and the attempt after it.
            folder.fail(id, 2 * kills);
            wait_for("the next attempt", || (job(&kiln, id).attempt == 2 * kills + 1).then_some(()));
            assert_eq!(job(&kiln, id).crashes, 0);
        }
        wait_for("the starts", || (begun_in(&folder, &next).len() == 2 * ids.len()).then_some(()));
        child = next;
    }
    folder.release();
    ids.iter().for_each(|id| assert_eq!(shape(&finished(&kiln, *id)), (State::Completed, 7, 6, 0)));
    child.kill(&folder);
    let story = folder.log().read();
    story.assert_orderly();
    let waits = watch.end().waits_to_run_again(&story);
    assert_eq!(waits.len(), 3 * ids.len());
    report(
        "a process is killed with four jobs that have just begun",
        3,
        "all four run again at once, at the same time",
    );
}

#[test]
fn a_job_that_stored_a_checkpoint_survives_ten_kills_with_three_attempts() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let id = kiln.enqueue(Saver::job(())).unwrap().id;
    let saved = |child: &Child| {
        let here = |id: i64| folder.log().read().of(id).iter().any(|e| e.pid == child.pid() && e.saved);
        wait_for("the checkpoint", || here(id).then_some(()));
    };
    for kills in 1..=10 {
        let child = start(&folder, Manner::Plain);
        saved(&child);
        assert_eq!(job(&kiln, id).attempt, 1);
        child.kill(&folder);
        rescue(&folder);
        let found = job(&kiln, id);
        assert_eq!((shape(&found), resumes(&folder, id)), ((State::Available, 0, kills as usize, 0), kills));
        let last = &found.errors.last().unwrap().error;
        assert!(last.ends_with("; the attempt had stored a checkpoint, so it is given back"), "{last}");
    }
    // Not for ever: from the twentieth on, a crash costs the attempt.
    folder.look().execute("UPDATE kiln_jobs SET resumes = 20 WHERE id = ?1", [id]).unwrap();
    let child = start(&folder, Manner::Plain);
    saved(&child);
    child.kill(&folder);
    rescue(&folder);
    assert_eq!((shape(&job(&kiln, id)), resumes(&folder, id)), ((State::Available, 1, 11, 1), 20));
    complete(&folder, &kiln, Manner::Plain, &[id]);
    let done = job(&kiln, id);
    assert_eq!((shape(&done), resumes(&folder, id)), ((State::Completed, 2, 11, 0), 0));
    assert_eq!(done.recorded::<u64>().unwrap(), Some(12), "each attempt went on where the one before it was");
    folder.log().read().assert_orderly();
    report("a process is killed with a job of three attempts that stores checkpoints", 10, "it goes on, and completes");
}

#[test]
fn three_kills_from_outside_soon_after_a_start_discard_a_job_without_progress_if_it_was_alone() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let id = held(&kiln, 1)[0];
    for kills in 1..=2 {
        kill_with(&folder, Manner::Plain, &[id]);
        assert_eq!(shape(&job(&kiln, id)), (State::Available, kills, kills as usize, kills));
    }
    kill_with(&folder, Manner::Plain, &[id]);
    let dead = job(&kiln, id);
    assert_eq!(shape(&dead), (State::Discarded, 3, 3, 3));
    assert!(dead.errors[2].error.ends_with("; Kiln::retry gives the job another try"), "{:?}", dead.errors);
    assert_eq!(kiln.retry(id).unwrap(), 1);
    assert_eq!(shape(&job(&kiln, id)), (State::Available, 3, 3, 0));
    complete(&folder, &kiln, Manner::Plain, &[id]);
    report(
        "a process is killed with one job that has just begun",
        3,
        "the third discards it, and a retry runs it again",
    );
}

#[test]
fn two_neighbours_are_suspects_after_two_quick_kills_and_the_third_discards_the_one_that_it_finds_alone() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let ids = held(&kiln, 2);
    for kills in 1..=2 {
        kill_with(&folder, Manner::Plain, &ids);
        ids.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Available, kills, kills as usize, kills)));
    }
    let child = start(&folder, Manner::Plain);
    run_there(&folder, &child, &ids[..1]);
    assert_eq!(begun_in(&folder, &child), ids[..1], "one suspect at a time");
    child.kill(&folder);
    rescue(&folder);
    assert_eq!(shape(&job(&kiln, ids[0])), (State::Discarded, 3, 3, 3));
    assert_eq!(shape(&job(&kiln, ids[1])), (State::Available, 2, 2, 2), "it waited for its turn");
    complete(&folder, &kiln, Manner::Plain, &ids[1..]);
}

#[test]
fn a_job_beside_others_is_discarded_only_at_twice_as_many_kills() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let id = held(&kiln, 1)[0];
    for kills in 1..=6 {
        // A new job each time: it is no suspect, so both run.
        let ids = [id, held(&kiln, 1)[0]];
        kill_with(&folder, Manner::Plain, &ids);
        let state = if kills == 6 { State::Discarded } else { State::Available };
        assert_eq!(shape(&job(&kiln, id)), (state, kills, kills as usize, kills));
        assert_eq!(shape(&job(&kiln, ids[1])), (State::Available, 1, 1, 1));
        assert_eq!(kiln.cancel(ids[1]).unwrap(), 1);
    }
    report("a process is killed with a job that has just begun, beside another", 6, "only the sixth kill discards it");
}

#[test]
fn with_one_attempt_a_crash_ends_the_job() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    for (manner, outlives) in [(Manner::Plain, false), (Manner::Brief, true)] {
        let id = kiln.enqueue(Held::job(()).max_attempts(1)).unwrap().id;
        let child = start(&folder, manner);
        run_there(&folder, &child, &[id]);
        let sidecar = folder.sidecar_of(child.pid());
        wait_for("its window", || (outlived(&sidecar) == usize::from(outlives)).then_some(()));
        child.kill(&folder);
        rescue(&folder);
        let dead = job(&kiln, id);
        assert_eq!(shape(&dead), (State::Discarded, 1, 1, i64::from(!outlives)));
        let end = "it was the last attempt of 1; Kiln::retry gives the job another try";
        assert!(dead.errors[0].error.ends_with(end), "{dead:?}");
    }
    report("a process is killed with a job at its only attempt", 2, "discarded, and the error says why");
}

#[test]
fn a_job_that_dies_later_than_its_window_costs_its_neighbours_an_attempt_each_time() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let late = Dose { outlived: 4, ..poison(3, Harm::Abort) };
    let late = kiln.enqueue(Poison::job(late).max_attempts(4)).unwrap().id;
    let neighbours = held(&kiln, 3);
    for crashes in 1..=4 {
        let mut child = start(&folder, Manner::Brief);
        child.dies(&folder);
        rescue(&folder);
        let state = if crashes == 4 { State::Discarded } else { State::Available };
        assert_eq!(shape(&job(&kiln, late)), (state, crashes, crashes as usize, 0), "no crash is counted");
        for id in &neighbours {
            let job = job(&kiln, *id);
            assert_eq!(shape(&job), (State::Available, crashes, crashes as usize, 0));
            assert!(job.errors[0].error.ends_with("had outlived its crash window, so no crash is counted"), "{job:?}");
        }
    }
    complete(&folder, &kiln, Manner::Plain, &neighbours);
    neighbours.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Completed, 5, 4, 0)));
    report("a job aborts its process after its window, beside three others", 4, "an attempt each; the others complete");
}

#[test]
fn without_a_count_of_crashes_jobs_run_at_full_width_until_their_last_attempt() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let ids = [0; 4].map(|_| kiln.enqueue(Held::job(()).max_attempts(4)).unwrap().id);
    for kills in 1..=4 {
        kill_with(&folder, Manner::Uncounted, &ids);
        let state = if kills == 4 { State::Discarded } else { State::Available };
        ids.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (state, kills, kills as usize, 0)));
    }
}

/// Rewrites the boot in the sidecar of a killed process, as if the machine had gone down instead.
fn cut_power(folder: &Folder, child: Child) {
    let sidecar = folder.sidecar_of(child.pid());
    child.kill(folder);
    let mut bytes = fs::read(&sidecar).unwrap();
    let boot = bytes.windows(5).position(|at| at == b"boot ").unwrap() + 5;
    bytes[boot] = if bytes[boot] == b'0' { b'1' } else { b'0' };
    fs::write(&sidecar, bytes).unwrap();
    rescue(folder);
}

/// A child that executes two held jobs and has claimed a hundred more.
fn claimed_ahead(folder: &Folder, kiln: &Kiln, ahead: impl Fn() -> NewJob) -> (Child, Vec<i64>, Vec<i64>) {
    let child = start(folder, Manner::Ahead);
    // The runtime must know that they are quick.
    let quick = kiln.enqueue_many((0..50).map(|_| Moody::job(Mood::default()))).unwrap();
    quick.iter().for_each(|job| assert_eq!(finished(kiln, job.id).state, State::Completed));
    let held = (0..2).map(|_| Held::job(()));
    let jobs = held.chain((0..100).map(|_| ahead()));
    let ids: Vec<i64> = kiln.enqueue_many(jobs).unwrap().iter().map(|job| job.id).collect();
    let (held, ahead) = ids.split_at(2);
    run_there(folder, &child, held);
    let executing = |id: &i64| job(kiln, *id).state == State::Executing;
    wait_for("the claims", || ahead.iter().all(executing).then_some(()));
    (child, held.to_vec(), ahead.to_vec())
}

#[test]
fn jobs_that_were_claimed_and_not_begun_when_their_process_was_killed_are_as_they_were() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    // A job at its last attempt is listed by itself, shortly before it begins.
    let (child, held, ahead) = claimed_ahead(&folder, &kiln, || Moody::job(Mood::default()).max_attempts(1));
    child.kill(&folder);
    rescue(&folder);
    for id in &ahead {
        let job = job(&kiln, *id);
        assert_eq!((shape(&job), rescued(&job)), ((State::Available, 0, 0, 0), 0), "{job:?}");
    }
    for id in &held {
        let job = job(&kiln, *id);
        assert_eq!((shape(&job), rescued(&job)), ((State::Available, 1, 1, 1), 1), "{job:?}");
    }
    complete(&folder, &kiln, Manner::Plain, &[held.clone(), ahead.clone()].concat());
    ahead.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Completed, 1, 0, 0)));
    held.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Completed, 2, 1, 0)));
    folder.log().read().assert_orderly();
    report("a process is killed with jobs claimed and not begun", 100, "each is as if it had never been claimed");
}

/// Quick jobs are listed up to sixteen at a time, so up to fifteen of them look as if they had begun.
#[test]
fn of_quick_jobs_that_were_claimed_and_not_begun_fifteen_at_most_look_begun() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let (child, held, ahead) = claimed_ahead(&folder, &kiln, || Moody::job(Mood::default()));
    child.kill(&folder);
    rescue(&folder);
    let (begun, others): (Vec<i64>, Vec<i64>) = ahead.iter().partition(|id| job(&kiln, **id).attempt > 0);
    println!("{} of 100 jobs looked begun", begun.len());
    assert!(begun.len() <= 15 && begun.iter().zip(&ahead).all(|(begun, ahead)| begun == ahead), "{begun:?}");
    begun.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Available, 1, 1, 1)));
    others.iter().for_each(|id| assert_eq!(shape(&job(&kiln, *id)), (State::Available, 0, 0, 0)));
    complete(&folder, &kiln, Manner::Plain, &[held, ahead].concat());
}

/// The sidecar of an earlier boot was not synced when the power was cut, so none of it is believed.
#[test]
fn a_power_cut_costs_every_claimed_job_its_attempt_and_is_nobodys_crash() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let (child, held, ahead) = claimed_ahead(&folder, &kiln, || Moody::job(Mood::default()));
    assert!(!entries(&folder.sidecar_of(child.pid())).is_empty());
    cut_power(&folder, child);
    for id in ahead.iter().chain(&held) {
        let job = job(&kiln, *id);
        assert_eq!((shape(&job), rescued(&job)), ((State::Available, 1, 1, 0), 1), "{job:?}");
    }
}

#[test]
fn however_often_the_power_is_cut_no_job_is_discarded_and_none_is_a_suspect() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let ids = [1, 3, 20].map(|most| kiln.enqueue(Held::job(()).max_attempts(most)).unwrap().id);
    for cuts in 1..=6 {
        let child = start(&folder, Manner::Plain);
        run_there(&folder, &child, &ids);
        cut_power(&folder, child);
        for (id, attempt) in ids.iter().zip([0, cuts.min(2), cuts]) {
            let job = job(&kiln, *id);
            // The last attempt is given back, and the error says so.
            assert_eq!(shape(&job), (State::Available, attempt, cuts as usize, 0), "{job:?}");
            let last = &job.errors.last().unwrap().error;
            assert!(last.contains("; kiln cannot tell whether the attempt had begun"), "{last}");
            assert_eq!(last.ends_with("so it is given back"), attempt != cuts, "{last}");
        }
    }
    complete(&folder, &kiln, Manner::Plain, &ids);
    report("the power is cut with jobs executing, as their sidecar says", 6, "an attempt each, and none is discarded");
}

#[test]
fn a_job_of_another_file_in_the_process_counts_as_company() {
    let folder = Folder::new();
    let (kiln, other) = (folder.kiln(), folder.other_kiln());
    let poison = kiln.enqueue(Poison::job(poison(1, Harm::Abort))).unwrap().id;
    let innocent = other.enqueue(Held::job(())).unwrap().id;
    for crashes in 1..=6 {
        let mut child = start(&folder, Manner::TwoFiles);
        child.dies(&folder);
        rescue(&folder);
        drop(folder.other_kiln());
        let state = if crashes == 6 { State::Discarded } else { State::Available };
        let found = job(&kiln, poison);
        assert_eq!(
            shape(&found),
            (state, crashes, crashes as usize, crashes),
            "its file does not tell that it was alone"
        );
        assert!(found.errors.last().unwrap().error.contains("as other jobs had"), "{found:?}");
        if crashes <= SUSPECT {
            assert_eq!(shape(&job(&other, innocent)), (State::Available, crashes, crashes as usize, crashes));
        }
        if crashes == SUSPECT {
            // Both are suspects. The process executes one at a time, so the other must end.
            folder.release();
        }
    }
    let last = start(&folder, Manner::TwoFiles);
    assert_eq!(finished(&other, innocent).state, State::Completed);
    last.kill(&folder);
    report(
        "a job aborts its process, beside a job of another file",
        6,
        "discarded at twice max_crashes; the other completes",
    );
}

#[test]
fn two_runtimes_of_a_process_die_together() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let ids = ["default", "other"].map(|queue| kiln.enqueue(Held::job(()).queue(queue)).unwrap().id);
    for kills in 1..=2 {
        kill_with(&folder, Manner::Twins, &ids);
        for id in ids {
            let job = job(&kiln, id);
            assert_eq!(shape(&job), (State::Available, kills, kills as usize, kills));
            assert!(job.errors.last().unwrap().error.contains("as other jobs had"), "{job:?}");
        }
    }
    // Both are suspects now, and the process executes one of them.
    let child = start(&folder, Manner::Twins);
    let began = wait_for("the start", || begun_in(&folder, &child).first().copied());
    child.kill(&folder);
    rescue(&folder);
    let other = if began == ids[0] { ids[1] } else { ids[0] };
    assert_eq!(shape(&job(&kiln, began)), (State::Discarded, 3, 3, 3));
    assert_eq!(shape(&job(&kiln, other)), (State::Available, 2, 2, 2));
}

#[test]
#[cfg_attr(not(unix), ignore = "needs a command that kills a process")]
fn jobs_of_a_process_that_a_job_of_another_one_killed_run_again_at_once() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let mut victim = start(&folder, Manner::Plain);
    let held = held(&kiln, 4);
    run_there(&folder, &victim, &held);
    let killers = Child::start(&folder, Role::Loner { threads: 1 });
    let killer = kiln.enqueue(Poison::job(poison(0, Harm::Kill(victim.pid()))).queue(LONELY)).unwrap().id;
    let other = start(&folder, Manner::Plain);
    victim.dies(&folder);
    run_there(&folder, &other, &held);
    folder.release();
    held.iter().for_each(|id| assert_eq!(shape(&finished(&kiln, *id)), (State::Completed, 2, 1, 0)));
    assert_eq!(shape(&finished(&kiln, killer)), (State::Completed, 1, 0, 0), "of it nothing is known");
    other.kill(&folder);
    killers.kill(&folder);
    folder.log().read().assert_orderly();
    report("a job kills another process and the four jobs in it", 1, "they run again at once, and complete");
}

#[test]
fn a_job_whose_process_is_killed_twice_completes_at_the_third_attempt() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let ids = held(&kiln, 1);
    for _ in 0..2 {
        kill_with(&folder, Manner::Plain, &ids);
    }
    complete(&folder, &kiln, Manner::Plain, &ids);
    assert_eq!(shape(&job(&kiln, ids[0])), (State::Completed, 3, 2, 0));
}
