//! An error is retried after a backoff; the attempts and their errors stay with the job.

use std::time::Duration;

use kiln::{Failure, Job, Kiln, Outcome, Running, Worker};

struct Flaky;

impl Worker for Flaky {
    const NAME: &'static str = "flaky";
    const MAX_ATTEMPTS: i64 = 5;
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        if job.attempt < 3 {
            return Err(format!("attempt {} failed", job.attempt).into());
        }
        Ok(Outcome::Complete)
    }

    fn backoff(&self, job: &Job) -> Option<Duration> {
        Some(Duration::from_millis(10 * job.attempt as u64))
    }
}

fn main() -> kiln::Result<()> {
    let kiln = Kiln::in_memory()?;
    let runtime = kiln.runtime().worker(Flaky).start()?;
    let job = kiln.enqueue(Flaky::job(()))?;
    if let Some(job) = kiln.wait(job.id, Duration::from_secs(30))? {
        println!("{} at attempt {} of {}", job.state, job.attempt, job.max_attempts);
        for error in &job.errors {
            println!("{}: {}", error.attempt, error.error);
        }
    }
    runtime.stop();
    Ok(())
}
