//! Whose process is dead, and whose only looks like it.

use std::thread;
use std::time::{Duration, Instant};

use kiln::{Filter, Kiln, State, Worker};

use crate::child::{Child, LONELY, Role};
use crate::folder::{Folder, finished, job, outlived, wait_for};
use crate::poison::Manner;
use crate::report;
use crate::watch::Watch;
use crate::workers::{Bomb, Deaf, Held, Mood, Moody, abandonments, rescued, runtime};

/// For machines that have much else to do. That each rescue comes within a second, less what the machine loses, is shown
/// where processes are killed at random.
const SOON: Duration = Duration::from_secs(5);

/// Enqueues held jobs, and waits until all of them run in that child.
fn hold(folder: &Folder, kiln: &Kiln, child: &Child, count: usize) -> Vec<i64> {
    let ids: Vec<i64> = (0..count).map(|_| kiln.enqueue(Held::job(())).unwrap().id).collect();
    run_in(folder, child, &ids);
    ids
}

/// Waits until all of these run in that child.
fn run_in(folder: &Folder, child: &Child, ids: &[i64]) {
    wait_for("the start", || {
        let story = folder.log().read();
        ids.iter().all(|id| story.of(*id).iter().any(|execution| execution.pid == child.pid())).then_some(())
    });
}

/// Waits until all of these have been started by this process, the test's own.
fn started_here(folder: &Folder, ids: &[i64]) {
    let here = std::process::id();
    wait_for("the rescue", || {
        let story = folder.log().read();
        ids.iter().all(|id| story.of(*id).iter().any(|execution| execution.pid == here)).then_some(())
    });
}

#[test]
fn jobs_of_a_killed_process_run_again_within_a_second_of_the_next_start() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let child = Child::worker(&folder, 4);
    let ids = hold(&folder, &kiln, &child, 4);
    child.kill(&folder);

    let start = Instant::now();
    let next = runtime(&kiln, &folder, 4).start().unwrap();
    started_here(&folder, &ids);
    let took = start.elapsed();
    println!("run again {took:?} after the next start");
    assert!(took < SOON, "{took:?}");

    folder.release();
    for id in ids {
        let job = finished(&kiln, id);
        assert_eq!((job.state, job.attempt, rescued(&job), job.crashes), (State::Completed, 2, 1, 0));
        assert_eq!((job.errors.len(), abandonments(&job).len(), job.errors[0].attempt), (1, 1, 1));
    }
    next.stop();
    folder.log().read().assert_orderly();
}

#[test]
fn jobs_of_a_killed_process_run_again_within_the_next_ticks_of_one_that_lives() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let child = Child::worker(&folder, 4);
    let ids = hold(&folder, &kiln, &child, 3);
    let other = runtime(&kiln, &folder, 4).start().unwrap();

    let kill = Instant::now();
    child.kill(&folder);
    started_here(&folder, &ids);
    let took = kill.elapsed();
    println!("run again {took:?} after the kill");
    assert!(took < SOON, "{took:?}");

    folder.release();
    ids.iter().for_each(|id| assert_eq!(finished(&kiln, *id).attempt, 2, "a crash costs the attempt"));
    other.stop();
    folder.log().read().assert_orderly();
}

/// Far more than one transaction rescues: a runtime that died with jobs claimed ahead.
#[test]
fn what_a_look_finds_dead_is_rescued_in_that_look_however_much_it_is() {
    const JOBS: u64 = 1600;
    let folder = Folder::new();
    drop(folder.kiln());
    let id = "0123456789abcdef0123456789abcdef";
    std::fs::write(folder.path().join(format!("jobs.db-kiln-{id}")), "").unwrap();
    let conn = folder.look();
    let sql = "INSERT INTO kiln_jobs (worker, state, attempt, attempted_at, attempted_by)
               VALUES ('ghost', 'executing', 1, 1, json_array('there', ?1))";
    conn.execute_batch("BEGIN").unwrap();
    (0..JOBS).for_each(|_| assert_eq!(conn.execute(sql, [id]).unwrap(), 1));
    conn.execute_batch("COMMIT").unwrap();
    // A handle looks once as it is opened.
    let kiln = folder.kiln();
    assert_eq!(kiln.count(Filter::new()).unwrap().state(State::Available), JOBS);
    drop(kiln);
    folder.assert_nothing_left_behind();
}

/// Nobody starts meanwhile, so that it is the runtime that lives which finds the dead.
#[test]
fn each_of_many_rescues_by_a_runtime_that_lives_comes_within_a_second() {
    let rounds: usize = if std::env::var_os("KILN_LONG").is_some_and(|long| long != "0") { 60 } else { 8 };
    let folder = Folder::new();
    let kiln = folder.kiln();
    let rescuer = Child::start(&folder, Role::Loner { threads: 1 });
    rescuer.says("started");
    let watch = Watch::start(&folder);
    for _ in 0..rounds {
        let child = Child::worker(&folder, 2);
        let ids = hold(&folder, &kiln, &child, 2);
        // At any moment between two looks.
        thread::sleep(Duration::from_millis(fastrand::u64(..600)));
        child.kill(&folder);
        for id in ids {
            wait_for("the rescue", || (rescued(&job(&kiln, id)) == 1).then_some(()));
            assert_eq!(kiln.cancel(id).unwrap(), 1);
        }
    }
    let seen = watch.end();
    let waits = seen.waits(&folder.log().read());
    assert_eq!(waits.len(), rounds, "each died with jobs");
    let mut sorted: Vec<u64> = waits.values().map(|wait| wait.micros / 1000).collect();
    sorted.sort_unstable();
    let (median, most) = (sorted[rounds / 2], sorted[rounds - 1]);
    println!("rescued after {median} ms (median) to {most} ms; the machine lost {} ms at once", seen.worst() / 1000);
    rescuer.kill(&folder);
    report(
        "a process is killed beside a runtime that lives",
        rounds,
        format!("rescued within a second ({most} ms at the most)"),
    );
}

/// Each process takes over from the one before it. The jobs outlive their windows in between: no crash is counted, so
/// nothing keeps them from running all at once.
#[test]
fn after_each_of_many_kills_all_jobs_run_again_within_a_second_and_at_full_width() {
    const WIDTH: usize = 4;
    let rounds: usize = if std::env::var_os("KILN_LONG").is_some_and(|long| long != "0") { 40 } else { 5 };
    let folder = Folder::new();
    let kiln = folder.kiln();
    let watch = Watch::start(&folder);
    let mut child = Child::start(&folder, Role::Poisoned(Manner::Brief));
    child.says("started");
    let ids: Vec<i64> = (0..WIDTH).map(|_| kiln.enqueue(Held::job(()).max_attempts(1000)).unwrap().id).collect();
    for _ in 0..rounds {
        let next = Child::start(&folder, Role::Poisoned(Manner::Brief));
        next.says("started");
        run_in(&folder, &child, &ids);
        let sidecar = folder.sidecar_of(child.pid());
        wait_for("the windows' end", || (outlived(&sidecar) == WIDTH).then_some(()));
        // At any moment between two looks.
        thread::sleep(Duration::from_millis(fastrand::u64(..600)));
        child.kill(&folder);
        // A process that starts looks for the dead at once. None does before they run again.
        run_in(&folder, &next, &ids);
        child = next;
    }
    folder.release();
    for &id in &ids {
        let job = finished(&kiln, id);
        let expected = (State::Completed, rounds as i64 + 1, rounds as u64, 0);
        assert_eq!((job.state, job.attempt, rescued(&job), job.crashes), expected);
    }
    let story = folder.log().read();
    story.assert_orderly();
    let seen = watch.end();
    let waits = seen.waits_to_run_again(&story);
    assert_eq!(waits.len(), WIDTH * rounds);
    let most = waits.iter().max().unwrap() / 1000;
    child.kill(&folder);
    report(
        "a process is killed with as many jobs as it has threads, beside one that lives",
        rounds,
        format!("all of them run again at the same time within a second ({most} ms at the most)"),
    );
}

/// Kills a process that holds a job on a queue of its own, and waits until somebody has rescued it: a proof that the
/// dead are looked for at this very time.
pub fn prove_that_the_dead_are_looked_for(folder: &Folder, kiln: &Kiln) {
    let loner = Child::start(folder, Role::Loner { threads: 1 });
    let id = kiln.enqueue(Deaf::job(()).queue(LONELY)).unwrap().id;
    wait_for("the bait", || folder.log().read().of(id).first().map(|_| ()));
    loner.kill(folder);
    wait_for("the rescue of the bait", || (rescued(&job(kiln, id)) == 1).then_some(()));
    assert_eq!(kiln.cancel(id).unwrap(), 1);
}

#[test]
#[cfg_attr(not(unix), ignore = "needs a signal that stops a process")]
fn a_job_is_never_rescued_while_its_process_lives_even_stopped() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let child = Child::worker(&folder, 1);
    let ids = hold(&folder, &kiln, &child, 1);
    let other = runtime(&kiln, &folder, 2).start().unwrap();
    prove_that_the_dead_are_looked_for(&folder, &kiln);

    child.signal("STOP");
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(3) {
        prove_that_the_dead_are_looked_for(&folder, &kiln);
        assert_eq!(job(&kiln, ids[0]).state, State::Executing);
    }
    child.signal("CONT");
    prove_that_the_dead_are_looked_for(&folder, &kiln);

    folder.release();
    let held = finished(&kiln, ids[0]);
    assert_eq!((held.state, held.attempt, held.errors.len()), (State::Completed, 1, 0));
    other.stop();
    let story = folder.log().read();
    assert_eq!(story.of(ids[0]).len(), 1);
    story.assert_orderly();
    report(
        "a process is stopped in the middle of a job",
        "3 s",
        "nobody took its job, which ended as if nothing had been",
    );
}

/// Where age is made to count, a job is taken from a process that lives: its late ack must be void.
#[test]
#[cfg_attr(not(unix), ignore = "needs a signal that stops a process")]
fn the_ack_of_a_process_taken_for_dead_changes_nothing() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let mut child = Child::worker(&folder, 1);
    let id = hold(&folder, &kiln, &child, 1)[0];
    child.signal("STOP");
    let hasty = runtime(&kiln, &folder, 1).rescue_after(Duration::ZERO).start().unwrap();
    started_here(&folder, &[id]);
    let second = job(&kiln, id);
    assert_eq!((second.state, second.attempt, second.errors.len()), (State::Executing, 2, 1));

    child.signal("CONT");
    folder.release_those_of(child.pid());
    child.order("stop");
    assert!(child.says("stopped").ends_with(" 0 0"), "it has written its acks");
    assert!(child.exit().success());
    assert!(folder.log().read().of(id)[0].ended.is_some(), "it came to its end there");
    assert_eq!(job(&kiln, id), second, "the row is as it was");

    folder.release();
    assert_eq!(finished(&kiln, id).attempt, 2);
    hasty.stop();
    folder.assert_nothing_left_behind();
    report(
        "a process is taken for dead, and acknowledges a job afterwards",
        1,
        "nothing changed, the job ran on elsewhere",
    );
}

#[test]
fn a_job_that_kills_its_process_at_every_attempt_ends_discarded() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let bomb = kiln.enqueue(Bomb::job(())).unwrap().id;
    let bystander = kiln.enqueue(Moody::job(Mood { millis: 10, ..Mood::default() })).unwrap().id;
    let mut nodes = Vec::new();
    for attempt in 1..=Bomb::MAX_ATTEMPTS {
        // With one thread: nothing else is executing.
        let mut child = Child::worker(&folder, 1);
        nodes.push(crate::folder::node(child.pid()));
        assert!(!child.exit().success());
        let job = job(&kiln, bomb);
        assert_eq!((job.state, job.attempt), (State::Executing, attempt), "the claim counts, whatever comes after it");
    }
    let last = runtime(&kiln, &folder, 2).start().unwrap();
    let job = finished(&kiln, bomb);
    assert_eq!((job.state, job.attempt), (State::Discarded, 3));
    assert!(job.discarded_at.is_some());
    for (n, error) in job.errors.iter().enumerate() {
        assert_eq!(error.attempt, n as i64 + 1);
        assert!(error.error.starts_with("abandoned: the process of runtime"), "{error:?}");
        assert!(error.error.contains(&nodes[n]), "{error:?} is about {}", nodes[n]);
    }
    assert_eq!(job.errors.len(), 3);
    assert_eq!(finished(&kiln, bystander).state, State::Completed);
    last.stop();
    assert_eq!(folder.log().read().of(bomb).len(), 3);
    folder.assert_nothing_left_behind();
    report(
        "a job kills its process at every attempt",
        Bomb::MAX_ATTEMPTS,
        "it ended discarded, its neighbour completed",
    );
}
