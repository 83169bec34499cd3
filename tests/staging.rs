//! What is due is staged in time, also when it becomes due while the scheduler looks elsewhere.

use std::time::Duration;

use kiln::{Durability, Failure, Job, Kiln, Outcome, Running, State, Worker};

struct FailsOften;

impl Worker for FailsOften {
    const NAME: &'static str = "fails often";
    const MAX_ATTEMPTS: i64 = 500;
    type Args = ();

    fn process(&self, _: &Running<()>) -> Result<Outcome, Failure> {
        Err("once more".into())
    }

    fn backoff(&self, _: &Job) -> Option<Duration> {
        Some(Duration::from_millis(1))
    }
}

#[test]
fn a_job_that_fails_at_once_is_due_again_in_time_however_often() {
    let folder = tempfile::tempdir().unwrap();
    // However long the disk takes for a sync.
    let kiln = Kiln::builder(folder.path().join("jobs.db")).durability(Durability::Normal).open().unwrap();
    let runtime = kiln.runtime().worker(FailsOften).start().unwrap();
    let job = kiln.enqueue(FailsOften::job(())).unwrap();
    let job = kiln.wait(job.id, Duration::from_secs(30)).unwrap();
    assert_eq!(
        job.map(|job| job.state),
        Some(State::Discarded),
        "its attempts went on: {:?}",
        kiln.list(kiln::Filter::new())
    );
    runtime.stop();
}
