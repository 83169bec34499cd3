//! What is hidden never shows, wherever a job is shown; and what is too large is refused at the door.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Folder, get, reaches};
use kiln::{Changes, Event, Failure, Field, Filter, Kiln, NewCron, NewJob, Outcome, Running, Runtime, State, Unique};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

/// Each is a value of its own, so that a leak names its source.
const SECRETS: [&str; 7] = [
    "in-args-Kx1",
    "in-deep-args-Kx2",
    "in-meta-Kx3",
    "of-own-word-Kx4",
    "in-result-Kx5",
    "in-checkpoint-Kx6",
    "in-extra-Kx7",
];

fn args() -> Value {
    json!({ "to": "a@b.c", "password": SECRETS[0], "smtp": [{ "API-Key": SECRETS[1] }], "Account.IBAN": SECRETS[3] })
}

fn job() -> NewJob {
    NewJob::new("w").args(args()).meta(json!({ "session_token": SECRETS[2] })).extra("secret", SECRETS[6])
}

#[track_caller]
fn hides(what: &str, shown: &str) {
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{what} shows {secret}: {shown}");
    }
}

/// Everything that observers are told, as they may write it down.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<String>>);

impl Told {
    fn open(&self, folder: &Folder) -> Kiln {
        let told = self.clone();
        let note = move |event: &Event| *told.0.lock() += &format!("{event}\n{event:?}\n");
        Kiln::builder(folder.db()).redact(["iban"]).observe(note).open().unwrap()
    }

    fn all(&self) -> String {
        self.0.lock().clone()
    }
}

/// A worker that says its secrets in every way there is, and a hook that notes what it sees of each job.
fn runtime(kiln: &Kiln, saw: Told) -> Runtime {
    kiln.runtime()
        .around(move |job, run| {
            *saw.0.lock() += &format!("{job} {job:?}");
            run()
        })
        .worker_fn("w", |job: &Running<Value>| {
            job.checkpoint(&json!({ "cookie": SECRETS[5] }))?;
            job.progress(1, 2, format!("logging in with {}", job.args["password"]));
            let said = format!("cannot log in as {} with {}", job.args["password"], job.args["Account.IBAN"]);
            match job.attempt {
                1 => Err(Failure::from(said)),
                2 => panic!("{said} and {}", job.meta.get("session_token").unwrap()),
                _ => Ok(Outcome::record(&json!({ "token": SECRETS[4] }))?),
            }
        })
        .worker_fn("typed", |_: &Running<Typed>| ())
        .start()
        .unwrap()
}

#[test]
fn a_secret_of_a_job_never_shows_in_what_is_shown_of_it() {
    let folder = Folder::new();
    let told = Told::default();
    let kiln = told.open(&folder);
    let seen = Told::default();
    let runtime = runtime(&kiln, seen.clone());

    let new = job().max_attempts(3);
    hides("a new job", &format!("{new:?}").replace(SECRETS[3], "known to the handle only"));
    let stored = kiln.enqueue(new).unwrap();
    hides("a job just enqueued", &format!("{stored} {stored:?}"));
    for _ in 0..2 {
        reaches(&kiln, stored.id, State::Retryable);
        kiln.retry(stored.id).unwrap();
    }
    let done = reaches(&kiln, stored.id, State::Completed);
    assert_eq!((done.errors.len(), done.recorded::<Value>().unwrap()), (2, Some(json!({ "token": SECRETS[4] }))));
    let typed = kiln.enqueue(NewJob::new("typed").args(json!({ "token": SECRETS[0] })).max_attempts(1)).unwrap();
    let typed = reaches(&kiln, typed.id, State::Discarded);
    assert!(typed.errors[0].error.contains(SECRETS[0]), "serde quotes what it did not expect");

    let listed = kiln.list(Filter::new()).unwrap();
    hides("a job that was read", &format!("{done} {done:?} {typed:?} {listed:?} {:?}", kiln.diagnose().unwrap()));
    hides("a hook's job", &seen.all());
    runtime.stop();
    kiln.update(stored.id, |job: &kiln::Job| {
        hides("a job to be changed", &format!("{job} {job:?}"));
        Changes::new().priority(1)
    })
    .unwrap();
    let entry = kiln.cron(NewCron::new("@daily", NewJob::new("w").args(args())).name("e")).unwrap();
    hides("a cron entry", &format!("{entry:?} {:?}", kiln.crons().unwrap()));

    let mut lines = Vec::new();
    kiln.export(&mut lines, Filter::new()).unwrap();
    hides("an export", &String::from_utf8(lines).unwrap());
    hides("an event", &told.all());
    assert!(told.all().contains("logging in with \\\"[redacted]"), "{}", told.all());
    assert!(told.all().contains("cannot log in as \\\"[redacted]\\\" with \\\"[redacted]\\\""), "{}", told.all());

    // What a program asks for, it gets.
    assert_eq!(get(&kiln, stored.id).args, args());
    assert_eq!(done.errors[0].error, format!("cannot log in as {:?} with {:?}", SECRETS[0], SECRETS[3]));
    let mut lines = Vec::new();
    kiln.export_with_secrets(&mut lines, Filter::new()).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    SECRETS[..4].iter().for_each(|secret| assert!(lines.contains(secret), "{secret} is to be exported: {lines}"));
}

#[test]
fn the_key_of_a_unique_job_shows_no_more_than_its_arguments_do() {
    let kiln = Kiln::memory_builder().redact(["iban"]).open().unwrap();
    for unique in [Unique::new(), Unique::new().keys(["password"]), Unique::new().by([Field::Meta])] {
        kiln.enqueue(NewJob::new("w").args(args()).meta(args()).unique(unique)).unwrap();
    }
    let mut lines = Vec::new();
    assert_eq!(kiln.export(&mut lines, Filter::new()).unwrap(), 3);
    let lines = String::from_utf8(lines).unwrap();
    hides("a key", &lines);
    assert!(lines.contains("\"unique_key\":\"iaqw[\\\"password\\\"]:"), "{lines}");
}

#[derive(Deserialize)]
struct Typed {
    #[expect(dead_code, reason = "it is never decoded")]
    token: u32,
}

#[test]
fn an_error_at_the_door_does_not_quote_arguments() {
    let kiln = Kiln::in_memory().unwrap();
    for (args, kind) in [
        (json!(SECRETS[0]), "a string"),
        (json!([SECRETS[0]]), "an array"),
        (json!(4711), "a number"),
        (json!(true), "a boolean"),
    ] {
        let error = kiln.enqueue(NewJob::new("w").args(args)).unwrap_err();
        assert_eq!(error.to_string(), format!("args must be a JSON object (a struct or a map), got {kind}"));
        assert_eq!(error.field(), Some("args"));
    }
}

#[cfg(feature = "tracing")]
#[test]
fn a_secret_never_shows_in_a_trace() {
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    struct Writes(Told);
    struct Fields<'a>(&'a mut String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            *self.0 += &format!("{}={value:?} ", field.name());
        }
    }

    impl Subscriber for Writes {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut Fields(&mut self.0.0.lock()));
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut Fields(&mut self.0.0.lock()));
        }
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut Fields(&mut self.0.0.lock()));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    let written = Told::default();
    // For this process: it is the only test of this file that sets one.
    tracing::subscriber::set_global_default(Writes(written.clone())).unwrap();
    let kiln = Kiln::memory_builder().redact(["iban"]).open().unwrap();
    let fails = |job: &Running<Value>| Err::<(), _>(Failure::from(format!("no: {}", job.args)));
    let runtime = kiln.runtime().worker_fn("w", fails).start().unwrap();
    let id = kiln.enqueue(job().max_attempts(1)).unwrap().id;
    reaches(&kiln, id, State::Discarded);
    runtime.stop();
    assert!(written.all().contains("no: ") && written.all().contains("[redacted]"), "{}", written.all());
    hides("a trace", &written.all());
}

// Payloads.

/// `{"x":"aa...a"}` of so many bytes.
fn of_bytes(bytes: usize) -> Value {
    json!({ "x": "a".repeat(bytes - 8) })
}

#[track_caller]
fn too_large(result: kiln::Result<impl std::fmt::Debug>, field: &str, bytes: usize, limit: usize) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!((error.is_invalid(), error.field()), (true, Some(field)), "{text}");
    assert!(text.contains(&format!(" {limit} bytes")) && text.contains(&format!("got {bytes} bytes")), "{text}");
    assert!(text.contains("max_payload"), "{text}");
}

#[test]
fn a_payload_of_a_mebibyte_is_stored_and_one_byte_more_is_not() {
    const MIB: usize = 1024 * 1024;
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w").args(of_bytes(MIB - 2))).unwrap();
    too_large(kiln.enqueue(NewJob::new("w").args(of_bytes(MIB - 1))), "args", MIB + 1, MIB);
    let small_and_large = [NewJob::new("w"), NewJob::new("w").meta(of_bytes(MIB))];
    too_large(kiln.enqueue_many(small_and_large), "meta", MIB + 2, MIB);
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 1, "of many, none is stored");
}

#[test]
fn the_limit_holds_at_every_door() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).max_payload(100).open().unwrap();
    let large = || NewJob::new("w").args(of_bytes(99));
    let fits = kiln.enqueue(NewJob::new("w").args(of_bytes(60)).meta(of_bytes(40))).unwrap();
    too_large(kiln.enqueue(large()), "args", 101, 100);
    too_large(kiln.enqueue(large().unique(Unique::new())), "args", 101, 100);
    too_large(kiln.cron(NewCron::new("@daily", large())), "args", 101, 100);
    too_large(kiln.runtime().cron(NewCron::new("@daily", large())).start().map(drop), "args", 101, 100);
    let mut app = rusqlite::Connection::open(folder.db()).unwrap();
    let tx = app.transaction().unwrap();
    too_large(kiln.enqueue_in(&tx, large()), "args", 101, 100);
    drop(tx);
    too_large(kiln.update(fits.id, Changes::new().args(of_bytes(61))), "args", 101, 100);
    too_large(kiln.update(fits.id, |_: &kiln::Job| Changes::new().meta(of_bytes(80))), "meta", 140, 100);
    assert_eq!(get(&kiln, fits.id), fits);
    let hooked =
        Kiln::memory_builder().max_payload(100).after_new(|job| job.args = of_bytes(99).into()).open().unwrap();
    too_large(hooked.enqueue(NewJob::new("w")), "args", 101, 100);
}

#[test]
fn a_job_that_is_larger_than_the_limit_already_can_be_worked_with() {
    let folder = Folder::new();
    folder.open().enqueue(NewJob::new("w").args(of_bytes(1000))).unwrap();
    let kiln = Kiln::builder(folder.db()).max_payload(100).open().unwrap();
    kiln.update(1, Changes::new().priority(3)).unwrap();
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<Value>| Outcome::snooze(Duration::MAX)).start().unwrap();
    let job = reaches(&kiln, 1, State::Scheduled);
    assert_eq!((job.priority, job.args), (3, of_bytes(1000).into()));
    runtime.stop();
}

#[test]
fn there_need_not_be_a_limit() {
    let kiln = Kiln::memory_builder().max_payload(usize::MAX).open().unwrap();
    kiln.enqueue(NewJob::new("w").args(of_bytes(5_000_000))).unwrap();
}
