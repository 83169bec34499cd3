use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::key::{Basis, Field, shown};
use super::rule::{Check, Unique};
use crate::job::new::NewJob;
use crate::job::row::Job;
use crate::job::state::State;

fn refusal(unique: Unique) -> String {
    let job = NewJob::new("w").build(Timestamp::UNIX_EPOCH, |_| {}).unwrap().job;
    let error = unique.check(&job, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(error.field(), Some("unique"));
    error.to_string()
}

#[test]
fn states_that_cannot_work_are_refused_with_the_reason() {
    assert!(refusal(Unique::new().states([])).contains("no duplicate would ever be found"));
    assert!(refusal(Unique::new().states([State::Executing])).contains("no duplicate would ever be found"));
    let gap = Unique::new().states([State::Available, State::Scheduled, State::Executing]);
    assert!(refusal(gap).contains("leave out retryable"));
}

#[test]
fn fields_that_cannot_work_are_refused_with_the_reason() {
    assert!(refusal(Unique::new().by([])).contains("needs a field"));
    assert!(refusal(Unique::new().by([Field::Priority])).contains("cannot compare Priority"));
    assert!(refusal(Unique::new().by([Field::Worker]).keys(["id"])).contains("neither by Args nor by Meta"));
}

#[test]
fn the_groups_and_the_waiting_states_work() {
    let job = NewJob::new("w").build(Timestamp::UNIX_EPOCH, |_| {}).unwrap().job;
    let waiting = vec![State::Available, State::Scheduled];
    let groups = [State::ALL.to_vec(), State::INCOMPLETE.to_vec(), State::SUCCESSFUL.to_vec()];
    for states in groups.into_iter().chain([vec![State::Scheduled], waiting]) {
        Unique::new().states(states).check(&job, Timestamp::UNIX_EPOCH).unwrap();
    }
}

fn built(job: NewJob) -> Job {
    job.build(Timestamp::UNIX_EPOCH, |_| {}).unwrap().job
}

#[test]
fn the_key_depends_on_what_is_compared_and_on_nothing_else() {
    let key = |unique: &Unique, job: NewJob| unique.basis().key(&built(job));
    let job = |args: Value| NewJob::new("w").args(args);
    let (all, by_id) = (Unique::new(), Unique::new().keys(["id"]));
    assert_eq!(key(&all, job(json!({ "a": 1, "b": 2 }))), key(&all, job(json!({ "b": 2, "a": 1 })).priority(3)));
    assert_ne!(key(&all, job(json!({ "a": 1 }))), key(&all, job(json!({ "a": 2 }))));
    assert_eq!(key(&by_id, job(json!({ "id": 1, "x": 1 }))), key(&by_id, job(json!({ "id": 1, "x": 2 }))));
    assert_ne!(key(&all, job(json!({})).queue("q")), key(&all, job(json!({}))));
    let by_worker = Unique::new().by([Field::Worker]);
    assert_eq!(key(&by_worker, job(json!({})).queue("q")), key(&by_worker, job(json!({ "a": 1 }))));
}

#[test]
fn the_key_is_the_values_themselves_or_a_digest_where_they_are_long() {
    let key = |unique: Unique, args: Value| unique.basis().key(&built(NewJob::new("app.Mailer").args(args)));
    assert_eq!(key(Unique::new(), json!({ "n": 2, "a": "é" })), r#"iaqw:{"a":"é","n":2}"default""app.Mailer""#);
    assert_eq!(
        key(Unique::new().by_schedule().keys(["n"]), json!({ "n": 2, "a": "é" })),
        r#"saqw["n"]:{"n":2}"default""app.Mailer""#
    );
    let long =
        |last: char| key(Unique::new().by([Field::Args]), json!({ "text": format!("{}{last}", "x".repeat(200)) }));
    assert_eq!(long('a').len(), "ia:".len() + 32);
    assert_ne!(long('a'), long('b'));
    let words = |queue: &str, worker: &str| Unique::new().basis().key(&built(NewJob::new(worker).queue(queue)));
    assert_ne!(words("a\"\"b", "c"), words("a", "b\"\"c"), "one word does not end as two");
}

#[test]
fn a_key_that_is_shown_tells_nothing_of_the_arguments() {
    let key = |args: Value| Unique::new().keys(["a:[\""]).basis().key(&built(NewJob::new("w").args(args)));
    let secret = key(json!({ "a:[\"": "s3cret" }));
    assert!(secret.contains("s3cret") && !shown(&secret).contains("s3cret"), "{}", shown(&secret));
    assert!(shown(&secret).starts_with(r#"iaqw["a:[\""]:"#));
    assert_ne!(shown(&secret), shown(&key(json!({ "a:[\"": "other" }))));
    for key in ["", "abc", "90ec241a2594812aa1acf97abd8f9b55", "ia:90ec241a2594812aa1acf97abd8f9b55"] {
        assert_eq!(shown(key), key);
    }
}

#[test]
fn a_key_tells_what_it_was_made_of() {
    let job = built(NewJob::new("w"));
    for unique in [
        Unique::new(),
        Unique::new().by([Field::Meta, Field::Args, Field::Meta]).keys(["b", "a:[\"", "b"]),
        Unique::new().by([Field::Worker]).by_schedule(),
    ] {
        let basis = unique.basis();
        assert_eq!(Basis::of(&basis.key(&job)).map(|(found, _)| found), Some(basis));
    }
    for foreign in ["", "abc", "x:1", "a:1", "ix:1", "ia[:1", "ia[\"k\"]1"] {
        assert_eq!(Check::rekey(foreign, &job, &built(NewJob::new("v"))), None, "{foreign}");
    }
}

#[test]
fn a_job_is_given_a_new_key_when_something_that_is_compared_changes() {
    let job = |args: Value| built(NewJob::new("w").args(args));
    let basis = Unique::new().keys(["id"]).basis();
    let (old, same, other) =
        (job(json!({ "id": 1, "n": 1 })), job(json!({ "id": 1, "n": 2 })), job(json!({ "id": 2, "n": 1 })));
    let key = basis.key(&old);
    assert_eq!(Check::rekey(&key, &old, &same), None);
    assert_eq!(Check::rekey(&key, &old, &other), Some(basis.key(&other)));
}

#[test]
fn it_is_read_as_it_was_written() {
    let minute = Duration::from_secs(60);
    let uniques = [
        Unique::new(),
        Unique::new().by([Field::Meta, Field::Args]).keys(["id"]).within(minute).by_schedule(),
        Unique::new().states(State::ALL).replace(State::Executing, [Field::Tags, Field::MaxAttempts]),
        Unique::new().debounce(minute),
        Unique::new().throttle(minute),
    ];
    for unique in uniques {
        assert_eq!(Unique::read(&unique.write()).unwrap(), unique);
    }
    assert_eq!(Unique::read("{}").unwrap(), Unique::new(), "what is left out is the default");
}

#[test]
fn what_cannot_be_is_refused() {
    for text in ["", "5", r#"{"fields":["id"]}"#, r#"{"states":["done"]}"#, r#"{"states":["executing"]}"#, r#"{"x":1}"#]
    {
        assert_eq!(Unique::read(text).unwrap_err().field(), Some("unique"), "{text}");
    }
}
