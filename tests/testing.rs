//! The helpers for tests of programs that use kiln. Their own use is shown whole in `welcome.rs`.

use std::time::Duration;

use kiln::testing::{Drain, Hand, ManualClock, Scratch};
use kiln::{Failure, Filter, Kiln, NewJob, Outcome, Running, State, Worker, assert_enqueued, refute_enqueued};
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

/// What a worker notes for its next attempt is there for it, and nowhere else.
#[test]
fn a_worker_that_checkpoints_and_completes_in_a_transaction_is_performed_like_any_other() {
    let scratch = Scratch::new().unwrap();
    let kiln = scratch.open().unwrap();
    let path = scratch.path();
    let work = move |job: &Running<()>| -> Result<Outcome, Failure> {
        let first: u32 = job.step("count", || Ok::<_, Failure>(7))?;
        let again: u32 = job.step("count", || Err(Failure::from("done twice")))?;
        job.checkpoint(&(first + again))?;
        job.progress(1, 2, "half way");
        let mut app = rusqlite::Connection::open(&path)?;
        app.execute_batch("CREATE TABLE IF NOT EXISTS sums (sum)")?;
        let tx = app.transaction()?;
        tx.execute("INSERT INTO sums VALUES (?1)", [job.last_checkpoint::<u32>()?])?;
        let done = job.complete_in(&tx)?;
        tx.commit()?;
        Ok(done)
    };
    let drain = Drain::new(&kiln).worker_fn("sum", work).unwrap();
    for _ in 0..2 {
        assert_eq!(drain.perform(NewJob::new("sum")).unwrap(), Outcome::Committed);
    }
    let sums = "SELECT group_concat(sum) FROM sums";
    let app = rusqlite::Connection::open(scratch.path()).unwrap();
    assert_eq!(app.query_one(sums, [], |row| row.get::<_, String>(0)).unwrap(), "14,14");
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 0);

    // And drained, it is completed by its transaction.
    let id = kiln.enqueue(NewJob::new("sum")).unwrap().id;
    assert_eq!(drain.drain().unwrap().completed, 1);
    assert_eq!(kiln.get(id).unwrap().unwrap().state, State::Completed);
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
fn a_panic_is_passed_on_by_a_drain_that_is_to_pass_errors_on() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(NewJob::new("panic")).unwrap();
    let drain = Drain::new(&kiln).worker_fn("panic", |_: &Running<()>| -> () { panic!("dropped the tray") }).unwrap();
    let drain = drain.reraising();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drain.drain())).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"dropped the tray"));
}

#[test]
fn a_drain_leaves_what_is_due_later_and_gets_past_what_has_expired() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let hour = Duration::from_secs(3600);
    kiln.enqueue_many((0..50).map(|_| NewJob::new("w").expires_in(Duration::ZERO))).unwrap();
    let [now, later] = [NewJob::new("w"), NewJob::new("w").schedule_in(hour)].map(|job| kiln.enqueue(job).unwrap().id);
    let drain = Drain::new(&kiln).worker_fn("w", |_: &Running<()>| ()).unwrap();
    assert_eq!(drain.drain().unwrap().completed, 1);
    let states = || [1, now, later].map(|id| kiln.get(id).unwrap().unwrap().state);
    assert_eq!(states(), [State::Cancelled, State::Completed, State::Scheduled]);
    assert_eq!(drain.with_scheduled().drain().unwrap().completed, 1);
    assert_eq!(states()[2], State::Completed);
}

/// As a runtime would, whose clock has come so far.
#[test]
fn a_drain_executes_what_has_become_due_by_its_clock() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let minute = Duration::from_secs(60);
    let drain = Drain::new(&kiln)
        .worker_fn("snooze", move |job: &Running<()>| match job.meta.get("snoozed") {
            None => Outcome::snooze(minute),
            Some(_) => Outcome::Complete,
        })
        .unwrap()
        .worker_fn("fail", |_: &Running<()>| -> Result<(), Failure> { Err("no".into()) })
        .unwrap();
    kiln.enqueue(NewJob::new("snooze").queue("slow").schedule_in(minute)).unwrap();
    kiln.enqueue(NewJob::new("fail").max_attempts(2)).unwrap();
    let drained = || {
        let drained = drain.drain().unwrap();
        (drained.completed, drained.scheduled, drained.retryable, drained.discarded)
    };
    assert_eq!(drained(), (0, 0, 1, 0), "the one is scheduled");
    assert_eq!(drained(), (0, 0, 0, 0), "nothing is due");
    clock.advance(minute);
    assert_eq!(drained(), (0, 1, 0, 1), "it was due, and the other is tried again");
    clock.advance(minute - Duration::from_micros(1));
    assert_eq!(drained(), (0, 0, 0, 0));
    clock.advance(Duration::from_micros(1));
    assert_eq!(drained(), (1, 0, 0, 0));
}

#[test]
fn a_file_for_one_test_is_there_for_several_handles_and_gone_with_it() {
    let scratch = Scratch::new().unwrap();
    let clock = ManualClock::default();
    let id = scratch.builder().clock(&clock).open().unwrap().enqueue(NewJob::new("w")).unwrap().id;
    assert_eq!(scratch.open().unwrap().get(id).unwrap().unwrap().inserted_at, clock.now());
    let path = scratch.path();
    assert!(path.exists());
    assert_ne!(path, Scratch::new().unwrap().path());
    drop(scratch);
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn what_is_refuted_is_what_fits_every_word() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(signup("a@b.c").tags(["new"]).priority(3)).unwrap();
    assert_enqueued!(kiln);
    assert_enqueued!(kiln, worker: "welcome", queue: "mail", tags: ["new"], priority: 3, args: json!({}));
    refute_enqueued!(kiln, worker: "remind");
    refute_enqueued!(kiln, worker: "welcome", queue: "default");
    refute_enqueued!(kiln, args: json!({ "email": "a@b.c", "name": "Ada" }));
    refute_enqueued!(kiln, tags: ["new", "old"]);
    refute_enqueued!(kiln, priority: 0);
    refute_enqueued!(kiln, state: State::Scheduled);
    kiln.cancel(1).unwrap();
    refute_enqueued!(kiln);
    assert_enqueued!(kiln, state: State::Cancelled);
}

#[test]
fn a_failed_assertion_says_what_it_wanted_and_shows_what_was_there_instead() {
    let kiln = Kiln::in_memory().unwrap();
    let fails = |assertion: &dyn Fn(&Kiln)| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| assertion(&kiln))).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let nothing = fails(&|kiln| drop(assert_enqueued!(kiln)));
    assert_eq!(nothing, "no job has a state that waits; there were:\n  no jobs at all");
    kiln.enqueue(signup("a@b.c").tags(["new"])).unwrap();
    kiln.enqueue(NewJob::new("app.Mailer").priority(3)).unwrap();
    let said = fails(&|kiln| {
        drop(assert_enqueued!(kiln, worker: "Mailer", queue: "mail", priority: 1, args: json!({ "email": "x@y.z" })));
    });
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "no job has a state that waits, worker=Mailer, queue=mail, priority=1, args={\"email\":\"x@y.z\"}; there were:",
            "  Job(id=1, worker=welcome, args={\"email\":\"a@b.c\"}, queue=mail, state=available) of welcome, priority=0, \
             tags=[\"new\"]",
            "  Job(id=2, worker=Mailer, args={}, queue=default, state=available) of app.Mailer, priority=3, tags=[]",
        ]
    );
    let said = fails(&|kiln| drop(assert_enqueued!(kiln, tags: ["old"], state: State::Scheduled)));
    assert!(said.starts_with("no job has state=scheduled, tags=[\"old\"]; there were:"), "{said}");
}

#[test]
#[should_panic(expected = "state=available) has a state that waits, tags=[\"new\"]")]
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

#[test]
fn a_hand_that_is_told_a_worker_twice_claims_its_jobs_once() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(signup("a@b.c")).unwrap();
    let hand = Hand::new(&kiln, ["welcome", "welcome"]);
    assert_eq!(hand.claim("mail", 5).unwrap().len(), 1);
}
