//! A worker and its jobs, tested without threads and without waiting: the manual clock stands where it is put.

use std::time::Duration;

use kiln::testing::{Drain, ManualClock};
use kiln::{Kiln, NewJob, Running, assert_enqueued, refute_enqueued};

fn main() -> kiln::Result<()> {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open()?;
    kiln.enqueue(NewJob::new("water").schedule_in(Duration::from_secs(3600)))?;
    let job = assert_enqueued!(kiln, worker: "water");
    println!("enqueued: {job}");

    let drain = Drain::new(&kiln).worker_fn("water", |_: &Running<()>| println!("the plants are watered"))?;
    println!("now: {} completed", drain.drain()?.completed);

    clock.advance(Duration::from_secs(3600));
    println!("an hour later: {} completed", drain.drain()?.completed);
    refute_enqueued!(kiln, worker: "water");
    Ok(())
}
