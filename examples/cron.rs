//! Jobs that recur, by the wall clock of a time zone and by a fixed distance. Instead of waiting for a day, it asks
//! when they are due.
use std::sync::mpsc;
use std::time::Duration;

use kiln::{Kiln, Missed, NewCron, NewJob, Running};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Report {
    of: String,
}

fn report(of: &str) -> NewJob {
    NewJob::new("report").args(Report { of: of.to_owned() })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (told, runs) = mpsc::channel();
    let kiln = Kiln::in_memory()?;
    let runtime = kiln
        .runtime()
        .worker_fn("report", move |job: &Running<Report>| told.send(job.args.of.clone()))
        .cron(NewCron::new("@reboot", report("start")).name("hello"))
        .cron(NewCron::new("30 2 * * *", report("night")).name("nightly").zone("Europe/Berlin"))
        .start()?;

    // The program has started: that is a slot of its own.
    println!("ran: {}", runs.recv_timeout(Duration::from_secs(10))?);

    // At run time, from any process on the file.
    kiln.cron(NewCron::every(Duration::from_millis(50), report("pulse")).name("pulse").missed(Missed::Skip))?;
    println!("ran: {}", runs.recv_timeout(Duration::from_secs(10))?);
    kiln.pause_cron("pulse")?;

    for entry in kiln.crons()? {
        println!(
            "{}: {} in {}{}",
            entry.name,
            entry.expression,
            entry.zone,
            if entry.paused { ", paused" } else { "" }
        );
    }

    // On 29 March 2026, Berlin's clock goes from 02:00 to 03:00.
    let nightly = kiln.crons()?.into_iter().find(|entry| entry.name == "nightly").ok_or("it was added above")?;
    for slot in nightly.schedule()?.upcoming("2026-03-27T12:00:00Z".parse()?).take(3) {
        println!("nightly at {slot}");
    }

    kiln.delete_cron("pulse")?;
    runtime.stop();
    Ok(())
}
