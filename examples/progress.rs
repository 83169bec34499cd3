//! How far a job is, for whoever looks from outside.

use std::sync::mpsc;
use std::time::Duration;

use kiln::{Event, Kiln, NewJob, Running};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (told, events) = mpsc::channel();
    let kiln = Kiln::memory_builder()
        .observe(move |event| {
            if let Event::Progressed { progress, .. } = event {
                let _ = told.send(progress.to_string());
            }
        })
        .open()?;
    let runtime = kiln
        .runtime()
        .worker_fn("copy", |job: &Running<()>| {
            job.progress(0, 1000, "begins");
            for page in 1..=1000 {
                job.progress(page, 1000, format!("page {page}"));
            }
        })
        .start()?;
    let job = kiln.enqueue(NewJob::new("copy"))?;
    kiln.wait(job.id, Duration::from_secs(30))?;
    runtime.stop();
    println!("first told: {}", events.recv()?);
    println!("last known: {}", kiln.progress(job.id)?.map(|progress| progress.to_string()).unwrap_or_default());
    println!("a thousand reports, written less than a hundred times: {}", events.try_iter().count() < 100);
    Ok(())
}
