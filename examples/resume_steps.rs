//! A job of several steps that fails in the middle does not do the first ones again.

use std::time::Duration;

use kiln::{Failure, Job, Kiln, Outcome, Running, Worker};

struct Release;

impl Worker for Release {
    const NAME: &'static str = "release";
    type Args = ();

    fn process(&self, job: &Running<()>) -> Result<Outcome, Failure> {
        let built: String = job.step("build", || -> Result<_, Failure> {
            println!("attempt {}: building", job.attempt);
            Ok("app-1.0.tar".to_owned())
        })?;
        let uploaded: usize = job.step("upload", || -> Result<_, Failure> {
            println!("attempt {}: uploading {built}", job.attempt);
            if job.attempt == 1 { Err("the line went dead".into()) } else { Ok(built.len()) }
        })?;
        println!("attempt {}: {uploaded} bytes are up", job.attempt);
        Ok(Outcome::Complete)
    }

    fn backoff(&self, _: &Job) -> Option<Duration> {
        Some(Duration::from_millis(10))
    }
}

fn main() -> kiln::Result<()> {
    let kiln = Kiln::in_memory()?;
    let runtime = kiln.runtime().worker(Release).start()?;
    let job = kiln.enqueue(Release::job(()))?;
    kiln.wait(job.id, Duration::from_secs(30))?;
    runtime.stop();
    Ok(())
}
