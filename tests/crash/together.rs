//! Several processes at work on one file.

use std::sync::Barrier;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use kiln::{Filter, State, Worker};
use rusqlite::Connection;

use crate::child::{Child, Role, say};
use crate::folder::{Folder, drained, finished};
use crate::log::micros;
use crate::workers::{Mood, Moody, runtime, runtime_of};

#[test]
fn a_new_file_may_be_opened_by_many_at_once() {
    for _ in 0..20 {
        let folder = Folder::new();
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    folder.kiln().enqueue(Moody::job(Mood::default())).unwrap();
                });
            }
        });
        assert_eq!(folder.kiln().count(Filter::new()).unwrap().total(), 4);
    }
}

#[test]
fn two_processes_hammering_one_file_execute_every_job_once() {
    const EACH: usize = 1500;
    let folder = Folder::new();
    let started = Instant::now();
    // Neither finds a file: both make it at once.
    let mut children = [0; 2].map(|_| Child::start(&folder, Role::Both { jobs: EACH }));
    for child in &children {
        child.says("enqueued");
    }
    let enqueued = started.elapsed();
    let kiln = folder.kiln();
    drained(&kiln);
    println!("{} jobs enqueued by two processes in {enqueued:?}, done in {:?}", 2 * EACH, started.elapsed());
    for child in &mut children {
        child.order("stop");
        assert!(child.exit().success());
    }

    let jobs = kiln.list(Filter::new().limit(u32::MAX)).unwrap();
    assert_eq!(jobs.len(), 2 * EACH);
    let story = folder.log().read();
    assert_eq!(story.executions.len(), 2 * EACH);
    let executed = story.by_job();
    for job in &jobs {
        assert_eq!((job.state, job.attempt, job.errors.len()), (State::Completed, 1, 0), "{job:?}");
        assert_eq!(executed[&job.id].len(), 1, "{job:?}");
    }
    for child in &children {
        let here = story.executions.iter().filter(|execution| execution.pid == child.pid()).count();
        assert_ne!(here, 0, "both of them worked");
    }
    drop(kiln);
    folder.assert_whole();
    folder.assert_nothing_left_behind();
}

/// The life of one of the two. An error of any call ends it, and with it the test.
pub fn both(folder: &Folder, orders: &Receiver<String>, jobs: usize) {
    const THREADS: usize = 2;
    let kiln = folder.kiln();
    let runtime = runtime(&kiln, folder, 4).start().unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let kiln = &kiln;
            scope.spawn(move || {
                for _ in (thread..jobs).step_by(THREADS) {
                    kiln.enqueue(Moody::job(Mood::default())).unwrap();
                }
            });
        }
    });
    say("enqueued");
    assert_eq!(orders.recv().unwrap(), "stop");
    let report = runtime.stop();
    assert_eq!((report.cut, report.unwritten), (0, 0));
}

#[test]
fn a_job_enqueued_here_starts_at_once_in_another_process() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let child = Child::worker(&folder, 4);
    child.says("started");
    let enqueued: Vec<(i64, u64)> = (0..200)
        .map(|_| {
            thread::sleep(Duration::from_micros(fastrand::u64(5_000..10_000)));
            (kiln.enqueue(Moody::job(Mood::default())).unwrap().id, micros())
        })
        .collect();
    drained(&kiln);
    let story = folder.log().read();
    let mut waits: Vec<u64> = enqueued
        .iter()
        .map(|(id, returned)| {
            // A start before the call has returned is no wait.
            story.of(*id)[0].started.micros.saturating_sub(*returned)
        })
        .collect();
    waits.sort_unstable();
    let [median, p99, most] = [waits[100], waits[197], waits[199]];
    println!("from the enqueue's return to the start elsewhere: median {median} µs, p99 {p99} µs, most {most} µs");
    assert!(median < 1_000_000);
    child.kill(&folder);
}

#[test]
fn an_insert_by_another_program_is_noticed_by_every_runtime_of_a_handle() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let queues = ["first", "second", "third"];
    let runtimes = queues.map(|queue| runtime_of(&kiln, &folder, queue, 1).start().unwrap());
    let other = Connection::open(folder.database()).unwrap();
    for queue in queues {
        let sql = "INSERT INTO kiln_jobs (queue, worker, args) VALUES (?1, ?2, ?3)";
        let args = serde_json::to_string(&Mood::default()).unwrap();
        other.execute(sql, (queue, Moody::NAME, args)).unwrap();
        assert_eq!(finished(&kiln, other.last_insert_rowid()).state, State::Completed, "{queue}");
    }
    runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
}
