//! The files that say who lives: lost under the living, left by the dead.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use kiln::{State, Worker};

use crate::child::Child;
use crate::folder::{Folder, finished, job, wait_for};
use crate::report;
use crate::rescue::prove_that_the_dead_are_looked_for;
use crate::workers::{Held, runtime};

#[test]
fn a_sidecar_deleted_under_a_living_runtime_comes_back_and_its_job_runs_once() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let child = Child::worker(&folder, 1);
    let id = kiln.enqueue(Held::job(())).unwrap().id;
    wait_for("the start", || folder.log().read().of(id).first().map(|_| ()));
    let sidecar = folder.sidecar_of(child.pid());

    // Once while its owner is alone, and does not look, once while others are there.
    fs::remove_file(&sidecar).unwrap();
    let other = runtime(&kiln, &folder, 2).start().unwrap();
    prove_that_the_dead_are_looked_for(&folder, &kiln);
    wait_for("the sidecar", || sidecar.exists().then_some(()));
    prove_that_the_dead_are_looked_for(&folder, &kiln);
    fs::remove_file(&sidecar).unwrap();
    wait_for("the sidecar", || sidecar.exists().then_some(()));
    prove_that_the_dead_are_looked_for(&folder, &kiln);
    assert_eq!(job(&kiln, id).state, State::Executing);

    folder.release();
    let held = finished(&kiln, id);
    assert_eq!((held.state, held.attempt), (State::Completed, 1));
    other.stop();
    child.kill(&folder);
    let story = folder.log().read();
    assert_eq!(story.of(id).len(), 1);
    story.assert_orderly();
    report("the lock file of a living runtime is deleted", 2, "it came back, and the job ran once");
}

/// A look at a sidecar holds its lock for a moment. One that comes just when a lost sidecar is put back must neither
/// keep its owner from locking it nor find it unlocked.
#[test]
#[cfg_attr(not(unix), ignore = "needs a signal that stops a process")]
fn a_sidecar_that_comes_back_is_locked_however_often_others_look_at_it() {
    let folder = Folder::new();
    drop(folder.kiln());
    let child = Child::worker(&folder, 1);
    child.says("started");
    // Somebody is there who might look, but does not: this test does it instead.
    let other = Child::worker(&folder, 1);
    other.says("started");
    other.signal("STOP");
    let sidecar = folder.sidecar_of(child.pid());
    for _ in 0..3 {
        fs::remove_file(&sidecar).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let found = loop {
            match File::options().read(true).write(true).open(&sidecar) {
                // As a look of another runtime does.
                Ok(file) => break file.try_lock(),
                Err(_) => assert!(Instant::now() < until, "the sidecar does not come back"),
            }
        };
        assert!(found.is_err(), "who finds it unlocked takes its owner for dead");
    }
}

#[test]
fn what_a_killed_process_left_is_cleaned_up_by_the_next() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    for _ in 0..3 {
        let child = Child::worker(&folder, 1);
        child.says("started");
        child.kill(&folder);
    }
    assert_ne!((folder.runtimes(), folder.sidecars().len()), (0, 0));
    assert_eq!(kiln.health().unwrap().runtimes, [], "the dead are not shown");

    let next = runtime(&kiln, &folder, 1).start().unwrap();
    wait_for("the last of the dead", || (folder.runtimes() == 1).then_some(()));
    wait_for("the last of the sidecars", || (folder.sidecars().len() == 1).then_some(()));
    next.stop();
    folder.assert_nothing_left_behind();
}

/// A process may die between making its sidecar and naming it in the table.
#[test]
fn processes_killed_while_they_start_leave_nothing_that_the_next_does_not_clean_up() {
    let folder = Folder::new();
    drop(folder.kiln());
    for _ in 0..10 {
        let before = folder.sidecars();
        let mut child = Child::worker(&folder, 1);
        while folder.sidecars().iter().all(|sidecar| before.contains(sidecar)) && child.lives() {
            thread::yield_now();
        }
        child.kill(&folder);
    }
    let unnamed = folder.sidecars().len() as i64 - folder.runtimes();
    println!("{unnamed} of 10 died before the table knew of them");
    let kiln = folder.kiln();
    runtime(&kiln, &folder, 1).start().unwrap().stop();
    folder.assert_nothing_left_behind();
    report("a process is killed while it starts", 10, "nothing was left once the next had run");
}

#[test]
fn files_with_names_like_a_sidecar_are_left_alone() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let names = ["jobs.db-kiln-", "jobs.db-kiln-notes.txt", "jobs.db-kiln-0123.bak", "other.db-kiln-0123456789abcdef"];
    let strangers = names.map(|name| folder.path().join(name));
    strangers.iter().for_each(|path| fs::write(path, "mine").unwrap());
    let next = runtime(&kiln, &folder, 1).start().unwrap();
    prove_that_the_dead_are_looked_for(&folder, &kiln);
    next.stop();
    assert!(strangers.iter().all(|path| fs::read(path).unwrap() == b"mine"));
}
