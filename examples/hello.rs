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

fn main() -> kiln::Result<()> {
    let kiln = Kiln::open("hello.db")?; // can enqueue, cancel, inspect
    let runtime = kiln.runtime().worker(Greeter).start()?; // claims and executes
    let job = kiln.enqueue(Greeter::job(Greeting { name: "world".into() }))?; // on the disk when it returns
    kiln.wait(job.id, std::time::Duration::MAX)?;
    runtime.stop();
    Ok(())
}
