use kiln::{Failure, Kiln, Outcome, Running, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greeting {
    name: String,
}

struct Greeter;

impl Worker for Greeter {
    const NAME: &'static str = "greeter";
    type Args = Greeting;

    fn process(&self, job: &Running<Greeting>) -> Result<Outcome, Failure> {
        println!("Hello, {}!", job.args.name);
        Ok(Outcome::Complete)
    }
}

fn main() -> Result<(), kiln::Error> {
    let kiln = Kiln::open("hello.db")?;
    let runtime = kiln.runtime().worker(Greeter).start()?;
    let job = kiln.enqueue(Greeter::job(Greeting { name: "world".into() }))?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    println!("{:?}", kiln.get(job.id)?);
    println!("{:?}", runtime.stop());
    println!("{:?}", kiln.health()?);
    Ok(())
}
