//! A cancel from another process.

use std::time::{Duration, Instant};

use kiln::{State, Worker};

use crate::child::Child;
use crate::folder::{Folder, finished, job, wait_for};
use crate::log::micros;
use crate::report;
use crate::workers::{Deaf, Held, runtime};

#[test]
fn a_cancel_from_another_process_reaches_a_running_job_within_a_second() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let ids = [0; 6].map(|_| kiln.enqueue(Held::job(())).unwrap().id);
    let child = Child::worker(&folder, 6);
    wait_for("the start", || (folder.log().read().executions.len() == 6).then_some(()));

    let (bystander, cancelled) = ids.split_last().unwrap();
    let mut waits = Vec::new();
    for &id in cancelled {
        let asked = micros();
        assert_eq!(kiln.cancel(id).unwrap(), 1);
        let (left, how) = wait_for("the job to leave", || folder.log().read().of(id)[0].ended.clone());
        assert_eq!(how, "asked-to-leave");
        assert_eq!(finished(&kiln, id).state, State::Cancelled);
        waits.push(Duration::from_micros(left.micros.saturating_sub(asked)));
    }
    println!("asked to leave so long after the cancel: {waits:?}");
    assert!(waits.iter().all(|wait| *wait < Duration::from_secs(5)), "{waits:?}");

    assert_eq!(job(&kiln, *bystander).state, State::Executing);
    folder.release();
    assert_eq!(finished(&kiln, *bystander).state, State::Completed);
    assert_eq!(folder.log().read().executions.len(), 6, "none ran twice");
    child.kill(&folder);
}

#[test]
fn a_cancel_outlives_the_process_that_was_asked() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let child = Child::worker(&folder, 2);
    let id = kiln.enqueue(Deaf::job(())).unwrap().id;
    let bystander = kiln.enqueue(Held::job(())).unwrap().id;
    wait_for("the start", || (folder.log().read().executions.len() == 2).then_some(()));
    assert_eq!(kiln.cancel(id).unwrap(), 1);
    let asked = job(&kiln, id);
    assert_eq!(asked.state, State::Executing);
    assert!(asked.cancel_requested_at.is_some());
    child.kill(&folder);

    let start = Instant::now();
    let next = runtime(&kiln, &folder, 2).start().unwrap();
    let cancelled = finished(&kiln, id);
    println!("cancelled {:?} after the next start", start.elapsed());
    assert_eq!((cancelled.state, cancelled.attempt, cancelled.errors.len()), (State::Cancelled, 1, 1));
    folder.release();
    let ran_again = finished(&kiln, bystander);
    assert_eq!((ran_again.attempt, ran_again.errors.len()), (2, 1), "the other one ran again");
    next.stop();
    assert_eq!(folder.log().read().of(id).len(), 1, "the cancelled one did not");
    report("a process is killed with a job that was asked to leave", 1, "cancelled by the next, and not run again");
}
