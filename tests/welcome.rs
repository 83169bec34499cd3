//! How a program tests its own jobs.

use std::time::Duration;

use kiln::testing::{Drain, Hand, ManualClock};
use kiln::{Failure, Filter, Kiln, NewCron, NewJob, Outcome, Running, State, Worker, assert_enqueued, refute_enqueued};
use serde::{Deserialize, Serialize};
use serde_json::json;

// The program: who signs up is welcomed, and reminded a day later.

#[derive(Serialize, Deserialize)]
struct Signup {
    email: String,
}

struct Welcome {
    post_is_open: bool,
}

impl Worker for Welcome {
    const NAME: &'static str = "welcome";
    const QUEUE: &'static str = "mail";
    const MAX_ATTEMPTS: i64 = 3;
    type Args = Signup;

    fn process(&self, job: &Running<Signup>) -> Result<Outcome, Failure> {
        if !job.args.email.contains('@') {
            return Ok(Outcome::cancel("no address"));
        }
        if !self.post_is_open {
            return Err("the post is shut".into());
        }
        job.kiln().enqueue(remind(&job.args.email))?;
        Ok(Outcome::record(&job.args.email.len())?)
    }
}

fn remind(email: &str) -> NewJob {
    NewJob::new("remind").args(json!({ "email": email })).schedule_in(DAY)
}

fn sign_up(kiln: &Kiln, email: &str) -> kiln::Result<()> {
    kiln.enqueue(Welcome::job(Signup { email: email.into() })).map(|_| ())
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// Its tests.

#[test]
fn who_signs_up_is_to_be_welcomed() -> kiln::Result<()> {
    let kiln = Kiln::in_memory()?;
    sign_up(&kiln, "ada@example.org")?;
    let job = assert_enqueued!(kiln, worker: "welcome", queue: "mail", args: json!({ "email": "ada@example.org" }));
    assert_eq!(job.max_attempts, 3);
    refute_enqueued!(kiln, worker: "remind");
    Ok(())
}

#[test]
fn a_welcome_without_an_address_is_cancelled() -> Result<(), Failure> {
    let kiln = Kiln::in_memory()?;
    let drain = Drain::new(&kiln).worker(Welcome { post_is_open: true })?;
    let outcome = drain.perform(Welcome::job(Signup { email: "nobody".into() }))?;
    assert_eq!(outcome, Outcome::cancel("no address"));
    assert_eq!(kiln.count(Filter::new())?.total(), 0, "performing stores nothing");
    Ok(())
}

#[test]
fn who_was_welcomed_is_reminded_a_day_later() -> kiln::Result<()> {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open()?;
    let drain = Drain::new(&kiln)
        .worker(Welcome { post_is_open: true })?
        .worker_fn("remind", |job: &Running<Signup>| assert_eq!(job.args.email, "ada@example.org"))?;
    sign_up(&kiln, "ada@example.org")?;
    assert_eq!(drain.drain()?.completed, 1);
    assert_enqueued!(kiln, worker: "remind", state: State::Scheduled);

    clock.advance(DAY);
    assert_eq!(drain.drain()?.completed, 1);
    refute_enqueued!(kiln, worker: "remind");
    Ok(())
}

#[test]
fn a_welcome_is_tried_three_times() -> kiln::Result<()> {
    let kiln = Kiln::in_memory()?;
    sign_up(&kiln, "ada@example.org")?;
    let drain = Drain::new(&kiln).worker(Welcome { post_is_open: false })?;
    let drained = drain.with_scheduled().drain()?;
    assert_eq!((drained.retryable, drained.discarded), (2, 1));
    let job = &kiln.list(Filter::new().state(State::Discarded))?[0];
    assert_eq!(job.errors[2].error, "the post is shut");
    Ok(())
}

#[test]
fn the_list_is_tidied_at_four_in_the_morning() -> Result<(), Box<dyn std::error::Error>> {
    let clock = ManualClock::at("2026-01-01T03:59:00Z".parse()?);
    let kiln = Kiln::memory_builder().clock(&clock).open()?;
    kiln.cron(NewCron::new("0 4 * * *", NewJob::new("tidy")))?;
    let hand = Hand::new(&kiln, ["tidy"]);
    assert!(hand.fire()?.is_empty());
    clock.advance(Duration::from_secs(60));
    assert_eq!(hand.fire()?[0].worker, "tidy");
    Ok(())
}
