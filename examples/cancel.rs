//! A waiting job is cancelled at once; a running one is asked to leave, and its helpers return early.

use std::sync::mpsc;
use std::time::Duration;

use kiln::{Cancelled, Kiln, NewJob, Running};

const LONG: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kiln = Kiln::in_memory()?;
    let (told, begun) = mpsc::channel();
    let runtime = kiln
        .runtime()
        .worker_fn("sleeper", move |job: &Running<()>| -> Result<(), Cancelled> {
            let _ = told.send(());
            job.sleep(Duration::from_secs(3600))
        })
        .start()?;

    let later = kiln.enqueue(NewJob::new("sleeper").schedule_in(Duration::from_secs(3600)))?;
    println!("cancelled {} waiting job", kiln.cancel(later.id)?);

    let now = kiln.enqueue(NewJob::new("sleeper"))?;
    begun.recv_timeout(LONG)?;
    println!("asked {} running job to leave", kiln.cancel(now.id)?);
    if let Some(job) = kiln.wait(now.id, LONG)? {
        println!("it is {}: {}", job.state, job.errors[0].error);
    }
    runtime.stop();
    Ok(())
}
