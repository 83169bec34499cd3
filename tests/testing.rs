//! The helpers for tests of programs that use kiln. Their own use is shown whole in `welcome.rs`.

use std::time::Duration;

use kiln::testing::{Drain, ManualClock};
use kiln::{Failure, Kiln, NewJob, Outcome, Running, State, Worker, assert_enqueued, refute_enqueued};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Serialize, Deserialize)]
struct Signup {
    email: String,
}

struct Welcome;

impl Worker for Welcome {
    const NAME: &'static str = "welcome";
    const QUEUE: &'static str = "mail";
    type Args = Signup;

    fn process(&self, job: &Running<Signup>) -> Result<Outcome, Failure> {
        if !job.args.email.contains('@') {
            return Ok(Outcome::cancel("no address"));
        }
        let remind = NewJob::new("remind").args(json!({ "email": job.args.email }));
        job.kiln().enqueue(remind.schedule_in(Duration::from_secs(86_400)))?;
        Ok(Outcome::record(&job.args.email.len())?)
    }
}

fn signup(email: &str) -> NewJob {
    Welcome::job(Signup { email: email.into() })
}

#[test]
fn a_worker_is_performed_without_a_row() {
    let kiln = Kiln::in_memory().unwrap();
    let drain = Drain::new(&kiln).worker(Welcome).unwrap();
    assert_eq!(drain.perform(signup("nobody")).unwrap(), Outcome::cancel("no address"));
    assert_eq!(drain.perform(signup("a@b.c")).unwrap(), Outcome::record(&5).unwrap());
    refute_enqueued!(kiln, worker: "welcome");
    assert_enqueued!(kiln, worker: "remind", args: json!({ "email": "a@b.c" }), state: State::Scheduled);
}

#[test]
fn performing_decodes_the_arguments_as_they_would_be_stored() {
    let kiln = Kiln::in_memory().unwrap();
    let drain = Drain::new(&kiln).worker(Welcome).unwrap();
    let failure = drain.perform(NewJob::new("welcome").args(json!({ "mail": 5 }))).unwrap_err();
    assert!(failure.to_string().contains("missing field `email`"), "{failure}");
    let unknown = drain.perform(NewJob::new("nobody")).unwrap_err();
    assert!(unknown.to_string().contains("\"nobody\" is not known"), "{unknown}");
}

#[test]
fn a_drain_executes_what_waits_and_what_that_enqueues() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    kiln.enqueue_many([signup("a@b.c"), signup("nobody"), signup("d@e.f")]).unwrap();
    assert_enqueued!(kiln, worker: "welcome", queue: "mail", priority: 0);
    let drain = Drain::new(&kiln).worker(Welcome).unwrap();
    let drain =
        drain.worker_fn("remind", |_: &Running<Signup>| -> Result<(), Failure> { Err("the post is shut".into()) });
    let drain = drain.unwrap();

    let drained = drain.drain().unwrap();
    assert_eq!((drained.completed, drained.cancelled, drained.retryable), (2, 1, 0));
    refute_enqueued!(kiln, worker: "welcome");
    assert_enqueued!(kiln, worker: "remind");

    // A day later they are due; here they are executed at once, until they have failed for good.
    let drained = drain.with_scheduled().drain().unwrap();
    assert_eq!((drained.retryable, drained.discarded), (38, 2));
}

#[test]
fn a_drain_passes_the_first_error_on_when_it_is_asked_to() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(NewJob::new("fail").max_attempts(1)).unwrap();
    let drain = Drain::new(&kiln).worker_fn("fail", |_: &Running<()>| -> Result<(), Failure> { Err("no ink".into()) });
    let error = drain.unwrap().reraising().drain().unwrap_err();
    assert!(error.to_string().contains("no ink") && error.to_string().contains("worker=fail"), "{error}");
    assert_eq!(kiln.get(1).unwrap().unwrap().state, State::Discarded);
}

#[test]
fn a_panic_in_a_drain_is_an_error_of_its_job() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(NewJob::new("panic")).unwrap();
    let drain = Drain::new(&kiln).worker_fn("panic", |_: &Running<()>| -> () { panic!("out of paper") }).unwrap();
    assert_eq!(drain.drain().unwrap().retryable, 1);
    assert!(kiln.get(1).unwrap().unwrap().errors[0].error.contains("out of paper"));
}

#[test]
#[should_panic(expected = "Job(id=1, worker=welcome, args={\"email\":\"a@b.c\"}, queue=mail, state=available)")]
fn a_failed_assertion_shows_what_was_there_instead() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(signup("a@b.c")).unwrap();
    assert_enqueued!(kiln, worker: "welcome", args: json!({ "email": "x@y.z" }));
}

#[test]
#[should_panic(expected = "state=available) fits")]
fn a_failed_refutation_shows_the_job() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(signup("a@b.c").tags(["New"])).unwrap();
    refute_enqueued!(kiln, tags: ["new"]);
}

#[test]
fn a_seed_makes_backoffs_repeatable() {
    let delays = |seed| {
        let clock = ManualClock::default();
        let kiln = Kiln::memory_builder().clock(&clock).seed(seed).open().unwrap();
        kiln.enqueue_many((0..5).map(|_| NewJob::new("fail"))).unwrap();
        let drain = Drain::new(&kiln).worker_fn("fail", |_: &Running<()>| -> Result<(), Failure> { Err("no".into()) });
        drain.unwrap().drain().unwrap();
        let due = |id| kiln.get(id).unwrap().unwrap().scheduled_at.duration_since(clock.now());
        (1..6).map(due).collect::<Vec<_>>()
    };
    assert_eq!(delays(7), delays(7));
    let many: std::collections::HashSet<_> = (0..20).map(delays).collect();
    assert!(many.len() > 1, "another seed, other delays");
}
