//! A stop claims nothing more, lets running jobs end, asks the rest to leave, and gives them back.

use std::sync::mpsc;
use std::time::Duration;

use kiln::{Cancelled, Filter, Kiln, NewJob, Running, State};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kiln = Kiln::in_memory()?;
    let (told, begun) = mpsc::channel();
    let tell = told.clone();
    let runtime = kiln
        .runtime()
        .queue("default", 2)
        .worker_fn("short", move |_: &Running<()>| {
            let _ = told.send(());
            std::thread::sleep(Duration::from_millis(50));
        })
        .worker_fn("long", move |job: &Running<()>| -> Result<(), Cancelled> {
            let _ = tell.send(());
            job.sleep(Duration::from_secs(3600))
        })
        .start()?;
    for worker in ["short", "long", "short", "long"] {
        kiln.enqueue(NewJob::new(worker))?;
    }
    begun.recv()?;
    begun.recv()?;

    let report = runtime.stop_within(Duration::from_millis(500));
    println!("ended by themselves: {}, cut: {}", report.finished, report.cut);
    let counts = kiln.count(Filter::new())?;
    println!("completed: {}", counts.state(State::Completed));
    println!("available, to run with the next start: {}", counts.state(State::Available));
    Ok(())
}
