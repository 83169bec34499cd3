//! A job that cannot run yet goes back to sleep. That costs no attempt.

use std::time::Duration;

use kiln::{Kiln, NewJob, Outcome, Running};
use serde_json::json;

fn main() -> kiln::Result<()> {
    let kiln = Kiln::in_memory()?;
    let runtime = kiln
        .runtime()
        .worker_fn("poll", |job: &Running<()>| {
            let asked = job.meta.get("asked").and_then(|asked| asked.as_i64()).unwrap_or(0) + 1;
            if asked < 4 {
                return Outcome::snooze(Duration::from_millis(10)).with_meta(json!({ "asked": asked }));
            }
            Outcome::Complete
        })
        .start()?;
    let job = kiln.enqueue(NewJob::new("poll").max_attempts(1))?;
    if let Some(job) = kiln.wait(job.id, Duration::from_secs(30))? {
        println!("{} at attempt {}, after {} snoozes", job.state, job.attempt, job.meta.value()["snoozed"]);
    }
    runtime.stop();
    Ok(())
}
