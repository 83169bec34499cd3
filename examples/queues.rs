//! Queues under control: what is said for all on the file is a row, and holds for every runtime, now and later.
use kiln::{Kiln, NewJob, Queues, Running, State};

#[derive(serde::Serialize, serde::Deserialize)]
struct Said {
    text: String,
}

fn main() -> kiln::Result<()> {
    let kiln = Kiln::open("queues.db")?;
    let runtime = kiln
        .runtime()
        .queue("mail", 1)
        .queue("media", 4)
        .worker_fn("say", |job: &Running<Said>| println!("{}", job.args.text))
        .start()?;
    let show = |what: &str| -> kiln::Result<()> {
        let told = |q: kiln::QueueCheck| format!("{} {}{}", q.queue, q.limit, if q.paused() { " paused" } else { "" });
        let queues: Vec<String> = kiln.check(Queues::All)?.into_iter().map(told).collect();
        println!("{what}: {}", queues.join(", "));
        Ok(())
    };

    show("built")?;
    kiln.pause("mail")?;
    let letter = kiln.enqueue(NewJob::new("say").args(Said { text: "a letter".into() }).queue("mail"))?;
    let picture = kiln.enqueue(NewJob::new("say").args(Said { text: "a picture".into() }).queue("media"))?;
    kiln.wait(picture.id, std::time::Duration::MAX)?;
    assert_eq!(kiln.get(letter.id)?.map(|job| job.state), Some(State::Available));
    show("paused")?;

    runtime.scale("media", 1)?; // on battery: this runtime alone
    runtime.start_queue("backup", 2)?;
    show("scaled")?;

    kiln.resume(Queues::All)?;
    kiln.wait(letter.id, std::time::Duration::MAX)?;
    runtime.stop_queue("backup")?;
    show("resumed")?;

    kiln.start_queue("reports", 3)?; // every runtime on the file, now and later
    kiln.stop_queue("media")?; // and none of them this one
    show("for all")?;
    kiln.start_queue("media", None)?;
    show("as built")?;
    runtime.stop();
    Ok(())
}
