//! A stop that another process asks for.

use kiln::{Filter, State, Worker};

use crate::child::Child;
use crate::folder::{Folder, wait_for};
use crate::workers::{Mood, Moody};

#[test]
fn after_a_stop_every_finished_job_is_acknowledged() {
    let folder = Folder::new();
    let kiln = folder.kiln();
    let mood = |n: u64| Mood { millis: n % 20, ..Mood::default() };
    let ids: Vec<i64> =
        kiln.enqueue_many((0..500).map(|n| Moody::job(mood(n)))).unwrap().iter().map(|job| job.id).collect();
    let mut child = Child::worker(&folder, 4);
    wait_for("some work", || (folder.log().read().executions.len() >= 50).then_some(()));
    child.order("stop");
    let report = child.says("stopped");
    assert!(child.exit().success());
    println!("finished, returned, cut, unwritten: {report}");
    assert!(report.ends_with(" 0 0"), "nothing cut, nothing unwritten: {report}");

    let story = folder.log().read();
    story.assert_orderly();
    let executed = story.by_job();
    assert!(executed.len() >= 50);
    assert!(executed.len() < ids.len(), "it was stopped before the end");
    for job in kiln.list(Filter::new().limit(u32::MAX)).unwrap() {
        match executed.get(&job.id).map(Vec::as_slice) {
            Some([execution]) => {
                assert!(execution.ended.is_some(), "what was running came to its end: {execution:?}");
                assert_eq!((job.state, job.attempt), (State::Completed, 1));
            }
            Some(more) => panic!("it ran more than once: {more:?}"),
            None => assert_eq!((job.state, job.attempt), (State::Available, 0), "it was given back whole"),
        }
    }
    folder.assert_nothing_left_behind();
}
