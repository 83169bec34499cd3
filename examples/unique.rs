//! One job for many requests: unique, debounced, throttled.

use std::time::Duration;

use kiln::{Field, Filter, Kiln, NewJob, State, Unique};
use serde_json::json;

fn main() -> kiln::Result<()> {
    let kiln = Kiln::in_memory()?;

    let sync = |user: i64| NewJob::new("sync").args(json!({ "user": user })).unique(Unique::new().keys(["user"]));
    let first = kiln.enqueue(sync(7))?;
    let second = kiln.enqueue(sync(7))?;
    println!("unique: the second is the first: {}, conflict: {}", first.id == second.id, second.conflict);

    let urgent = Unique::new().by([Field::Worker]).replace(State::Available, [Field::Priority]);
    kiln.enqueue(NewJob::new("report").priority(5).unique(urgent.clone()))?;
    let report = kiln.enqueue(NewJob::new("report").priority(1).unique(urgent))?;
    println!("replace: priority is now {}", report.priority);

    let save = || NewJob::new("save").unique(Unique::new().debounce(Duration::from_secs(2)));
    let first = kiln.enqueue(save())?;
    let last = kiln.enqueue(save())?;
    println!("debounce: put off: {}", last.scheduled_at > first.scheduled_at);

    let ping = || NewJob::new("ping").unique(Unique::new().throttle(Duration::from_secs(60)));
    let jobs = kiln.enqueue_many((0..100).map(|_| ping()))?;
    println!("throttle: {} of {} stored", kiln.count(Filter::new().worker("ping"))?.total(), jobs.len());
    Ok(())
}
