//! What a job found out is kept with it, and read back with its type.

use std::time::Duration;

use kiln::{Failure, Kiln, Outcome, Running, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Text {
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Count {
    words: usize,
    longest: Option<String>,
}

struct Counter;

impl Worker for Counter {
    const NAME: &'static str = "counter";
    type Args = Text;

    fn process(&self, job: &Running<Text>) -> Result<Outcome, Failure> {
        let words: Vec<&str> = job.args.text.split_whitespace().collect();
        let longest = words.iter().max_by_key(|word| word.len()).map(|word| word.to_string());
        Ok(Outcome::record(&Count { words: words.len(), longest })?)
    }
}

fn main() -> kiln::Result<()> {
    let kiln = Kiln::in_memory()?;
    let runtime = kiln.runtime().worker(Counter).start()?;
    let job = kiln.enqueue(Counter::job(Text { text: "nothing is lost".into() }))?;
    let count: Option<Count> = kiln.wait_result(job.id, Duration::from_secs(30))?;
    println!("{count:?}");
    runtime.stop();
    Ok(())
}
