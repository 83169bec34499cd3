//! Unique jobs: what is a double, for how long and in which states, what is answered and replaced, and that no race,
//! between threads or processes, stores two.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::io::BufRead;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use common::{DEADLINE, Folder, Gate, Other, get, other_process_for, reaches, say, stranger};
use jiff::Timestamp;
use kiln::testing::{Hand, ManualClock};
use kiln::{Changes, Durability, Failure, Field, Filter, Job, Kiln, NewJob, Outcome, Running, State, Unique};
use rusqlite::types::Value as Sql;
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A kiln in memory on a clock that stands, and a hand to run jobs with.
fn place() -> (ManualClock, Kiln, Hand) {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let hand = Hand::new(&kiln, ["w", "v"]);
    (clock, kiln, hand)
}

fn job(args: Value) -> NewJob {
    NewJob::new("w").args(args)
}

/// Whether the second is a double of the first, both unique in this way.
fn is_double(unique: &Unique, first: NewJob, second: NewJob) -> bool {
    let kiln = Kiln::in_memory().unwrap();
    let first = kiln.enqueue(first.unique(unique.clone())).unwrap();
    let second = kiln.enqueue(second.unique(unique.clone())).unwrap();
    assert!(!first.conflict);
    assert_eq!(second.conflict, second.id == first.id);
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), if second.conflict { 1 } else { 2 });
    second.conflict
}

#[test]
fn a_double_is_the_same_in_every_field_that_is_compared_and_in_no_other() {
    let plain = || job(json!({ "a": 1 })).meta(json!({ "m": 1 })).queue("q");
    let other = |field: Field| match field {
        Field::Worker => NewJob::new("v").args(json!({ "a": 1 })).meta(json!({ "m": 1 })).queue("q"),
        Field::Queue => plain().queue("p"),
        Field::Args => plain().args(json!({ "a": 2 })),
        _ => plain().meta(json!({ "m": 2 })),
    };
    let all = [Field::Worker, Field::Queue, Field::Args, Field::Meta];
    for field in all {
        let by_others = Unique::new().by(all.into_iter().filter(|other| *other != field));
        assert!(is_double(&by_others, plain(), other(field)), "{field:?} is not compared");
        assert!(!is_double(&Unique::new().by([field]), plain(), other(field)), "{field:?} is compared");
        let by_default = is_double(&Unique::new(), plain(), other(field));
        assert_eq!(by_default, field == Field::Meta, "by default: {field:?}");
    }
    let incidental = plain().priority(7).tags(["t"]).max_attempts(3).schedule_in(HOUR).expires_in(HOUR);
    assert!(is_double(&Unique::new(), plain(), incidental));
}

#[test]
fn of_args_and_meta_only_the_keys_are_compared_that_are_named() {
    let by_user = Unique::new().keys(["user", "team"]);
    let args = |args: Value| job(args);
    assert!(is_double(&by_user, args(json!({ "user": 1, "n": 1 })), args(json!({ "n": 2, "user": 1 }))));
    assert!(!is_double(&by_user, args(json!({ "user": 1, "n": 1 })), args(json!({ "user": 2, "n": 1 }))));
    assert!(!is_double(&by_user, args(json!({ "user": 1 })), args(json!({ "user": 1, "team": 1 }))), "one has it not");
    assert!(is_double(&by_user, args(json!({ "n": 1 })), args(json!({ "n": 2 }))), "both have it not");
    assert!(!is_double(&by_user, args(json!({ "user": 1 })), args(json!({ "user": "1" }))), "a text is no number");
    assert!(!is_double(&by_user, args(json!({ "user": null })), args(json!({}))), "null is a value");
    let nested = |a: i64, b: i64| args(json!({ "user": { "a": a, "b": [b, { "x": 1, "y": 2 }] } }));
    let turned = args(json!({ "user": { "b": [2, { "y": 2, "x": 1 }], "a": 1 } }));
    assert!(is_double(&by_user, nested(1, 2), turned), "the order of entries says nothing");
    assert!(!is_double(&by_user, nested(1, 2), nested(1, 3)));

    let by_meta = Unique::new().by([Field::Meta, Field::Args]).keys(["user"]);
    let both =
        |args: i64, meta: i64, n: i64| job(json!({ "user": args, "n": n })).meta(json!({ "user": meta, "n": n }));
    assert!(is_double(&by_meta, both(1, 2, 3), both(1, 2, 4)));
    assert!(!is_double(&by_meta, both(1, 2, 3), both(1, 3, 3)) && !is_double(&by_meta, both(1, 2, 3), both(2, 2, 3)));
}

#[test]
fn only_jobs_unique_in_the_same_way_are_compared() {
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(job(json!({ "a": 1 }))).unwrap();
    let ways = [
        Unique::new(),
        Unique::new().keys(["a"]),
        Unique::new().by([Field::Args]),
        Unique::new().by([Field::Args]).keys(["a"]),
        Unique::new().by_schedule(),
    ];
    for unique in &ways {
        assert!(!kiln.enqueue(job(json!({ "a": 1 })).unique(unique.clone())).unwrap().conflict);
    }
    for unique in ways {
        assert!(kiln.enqueue(job(json!({ "a": 1 })).unique(unique)).unwrap().conflict);
    }
    let keys = |keys: [&'static str; 3]| job(json!({ "a": 1 })).unique(Unique::new().keys(keys));
    kiln.enqueue(keys(["a", "b", "c"])).unwrap();
    assert!(kiln.enqueue(keys(["c", "a", "b"])).unwrap().conflict, "in whatever order");
}

#[test]
fn a_period_ends_and_without_one_a_job_is_unique_as_long_as_its_row() {
    for ended_by_hand in [true, false] {
        let (clock, kiln, hand) = place();
        let within = |period| job(json!({})).unique(Unique::new().within(period));
        let first = kiln.enqueue(within(HOUR)).unwrap();
        let claimed = hand.claim("default", 1).unwrap().remove(0);
        hand.ack(&claimed, Outcome::Complete).unwrap();
        clock.advance(HOUR);
        assert!(kiln.enqueue(within(HOUR)).unwrap().conflict);
        assert!(!kiln.enqueue(within(HOUR - Duration::from_micros(1))).unwrap().conflict);
        kiln.delete(2).unwrap();
        clock.advance(1000 * 24 * HOUR);
        for for_ever in [Duration::MAX, 1001 * 24 * HOUR] {
            assert_eq!(kiln.enqueue(within(for_ever)).unwrap().id, first.id);
        }
        let gone = if ended_by_hand { kiln.delete(first.id) } else { hand.prune(HOUR) };
        assert_eq!(gone.unwrap(), 1);
        assert!(!kiln.enqueue(within(Duration::MAX)).unwrap().conflict);
    }
}

#[test]
fn a_period_is_measured_by_the_time_of_the_enqueue_or_by_the_due_time() {
    let (clock, kiln, _) = place();
    let day = 24 * HOUR;
    let due_in_a_day = |unique: Unique| job(json!({})).unique(unique.within(HOUR)).schedule_in(day);
    let by_enqueue = || due_in_a_day(Unique::new());
    let by_schedule = || due_in_a_day(Unique::new().by_schedule());
    kiln.enqueue_many([by_enqueue(), by_schedule()]).unwrap();
    clock.advance(2 * HOUR);
    assert!(kiln.enqueue(by_schedule()).unwrap().conflict, "it is not even due");
    assert!(!kiln.enqueue(by_enqueue()).unwrap().conflict, "two hours ago");
    clock.advance(23 * HOUR);
    assert!(kiln.enqueue(by_schedule()).unwrap().conflict, "due an hour ago");
    clock.advance(MINUTE);
    assert!(!kiln.enqueue(by_schedule()).unwrap().conflict, "due longer ago than that");
}

/// Puts a row into a state, as a whole life would.
fn put(db: &rusqlite::Connection, id: i64, state: State) {
    let sql = "UPDATE kiln_jobs SET state = ?2, attempt = 1, attempted_at = 1 WHERE id = ?1";
    assert_eq!(db.execute(sql, (id, state.as_str())).unwrap(), 1);
}

#[test]
fn a_job_makes_others_doubles_in_just_the_states_that_are_named() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).durability(Durability::Normal).open().unwrap();
    let db = stranger(&folder.db());
    let groups = [
        State::ALL.to_vec(),
        State::INCOMPLETE.to_vec(),
        State::SUCCESSFUL.to_vec(),
        vec![State::Scheduled],
        vec![State::Available, State::Scheduled],
        vec![State::Suspended],
        vec![State::Available, State::Scheduled, State::Executing, State::Retryable],
    ];
    let named = [("all", 8), ("incomplete", 5), ("successful", 6)];
    assert!(named.iter().zip(&groups).all(|((_, count), group)| group.len() == *count));
    for group in groups {
        let unique = || Unique::new().states(group.clone());
        for state in State::ALL {
            let first = kiln.enqueue(job(json!({})).unique(unique())).unwrap();
            put(&db, first.id, state);
            let second = kiln.enqueue(job(json!({})).unique(unique())).unwrap();
            assert_eq!(second.conflict, group.contains(&state), "{group:?}, a job that is {state}");
            put(&db, first.id, State::Available);
            kiln.delete(Filter::new()).unwrap();
        }
    }
}

/// Without what only an answer has.
fn as_stored(mut job: Job) -> Job {
    job.conflict = false;
    job.extra.clear();
    job
}

#[test]
fn the_answer_is_the_job_that_is_there_and_the_event_says_so() {
    let (told, events) = mpsc::channel();
    let kiln = Kiln::memory_builder().observe(move |event| told.send(event.to_string()).unwrap()).open().unwrap();
    let unique = |n: i64| NewJob::new("w").queue("q").priority(n).tags([format!("t{n}")]).unique(Unique::new());
    let first = kiln.enqueue(unique(1)).unwrap();
    let second = kiln.enqueue(unique(2).extra("who", "Eve")).unwrap();
    assert_eq!((second.conflict, second.extra.get("who")), (true, Some(&json!("Eve"))));
    assert_eq!(as_stored(second), first, "untouched");
    assert_eq!(get(&kiln, first.id), first);
    assert!(!get(&kiln, first.id).conflict, "of the answer, not of the job");
    let told: Vec<String> = events.try_iter().collect();
    assert_eq!(told, ["enqueued job=1 queue=q worker=w", "conflicted job=1 queue=q worker=w"]);
}

#[test]
fn in_a_bulk_insert_doubles_are_found_in_the_table_and_among_themselves() {
    let kiln = Kiln::in_memory().unwrap();
    let there = kiln.enqueue(job(json!({ "n": 0 })).unique(Unique::new())).unwrap();
    let numbers = [1, 0, 2, 1, 3, 0, 3, 3];
    let new = numbers.map(|n| job(json!({ "n": n })).priority(numbers.len() as i64).unique(Unique::new()));
    let answers = kiln.enqueue_many(new).unwrap();
    let told: Vec<(i64, bool)> = answers.iter().map(|job| (job.id, job.conflict)).collect();
    let [a, b, c] = [told[0].0, told[2].0, told[4].0];
    let expected =
        [(a, false), (there.id, true), (b, false), (a, true), (c, false), (there.id, true), (c, true), (c, true)];
    assert_eq!(told, expected);
    for (job, n) in answers.iter().zip(numbers) {
        assert_eq!(job.args, json!({ "n": n }), "each has its own answer");
    }
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 4);

    // Unique jobs and others, mixed.
    let mixed =
        (0..6).map(|n| if n % 2 == 0 { job(json!({ "n": 9 })) } else { job(json!({ "n": 9 })).unique(Unique::new()) });
    let stored = kiln.enqueue_many(mixed).unwrap().iter().filter(|job| !job.conflict).count();
    assert_eq!(stored, 3 + 1);
}

#[test]
fn a_bulk_insert_with_a_uniqueness_that_cannot_be_stores_nothing() {
    let kiln = Kiln::in_memory().unwrap();
    let new = [job(json!({})), job(json!({})).unique(Unique::new().states([State::Completed]))];
    let error = kiln.enqueue_many(new).unwrap_err();
    assert_eq!(
        (error.field(), error.to_string().as_str()),
        (
            Some("unique"),
            "unique states [completed] has none that a new job starts in, so that no duplicate would ever be found"
        )
    );
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 0);
}

type Row = BTreeMap<String, Sql>;

fn rows(db: &rusqlite::Connection) -> BTreeMap<i64, Row> {
    let mut select = db.prepare("SELECT * FROM kiln_jobs").unwrap();
    let names: Vec<String> = select.column_names().into_iter().map(str::to_owned).collect();
    let row = |row: &rusqlite::Row<'_>| {
        let columns = names.iter().enumerate().map(|(n, name)| (name.clone(), row.get(n).unwrap()));
        Ok((row.get("id")?, columns.collect()))
    };
    select.query_map([], row).unwrap().map(Result::unwrap).collect()
}

const FIELDS: [(Field, &str); 8] = [
    (Field::Args, "args"),
    (Field::MaxAttempts, "max_attempts"),
    (Field::Meta, "meta"),
    (Field::Priority, "priority"),
    (Field::Queue, "queue"),
    (Field::ScheduledAt, "scheduled_at"),
    (Field::Tags, "tags"),
    (Field::Worker, "worker"),
];

#[test]
fn in_each_state_just_the_fields_are_replaced_that_are_named_for_it() {
    let folder = Folder::new();
    let clock = ManualClock::default();
    let kiln = Kiln::builder(folder.db()).durability(Durability::Normal).clock(&clock).open().unwrap();
    let db = stranger(&folder.db());
    let bystander = kiln.enqueue(job(json!({ "id": 2 })).unique(Unique::new().by([Field::Args]).keys(["id"]))).unwrap();
    let due = clock.now() + jiff::SignedDuration::from_hours(5);
    for state in State::ALL {
        for (field, column) in FIELDS {
            let other = if state == State::Available { State::Scheduled } else { State::Available };
            let unique = Unique::new().by([Field::Args]).keys(["id"]).states(State::ALL);
            let unique = unique.replace(state, [field]).replace(other, FIELDS.map(|(field, _)| field));
            let first = kiln.enqueue(job(json!({ "id": 1, "n": 1 })).unique(unique.clone())).unwrap();
            put(&db, first.id, state);
            let mut expected = rows(&db);
            let second = NewJob::new("v").args(json!({ "id": 1, "n": 2 })).meta(json!({ "m": 2 })).queue("p");
            let second = second.priority(4).max_attempts(9).tags(["B", "a"]).scheduled_at(due);
            let answer = kiln.enqueue(second.unique(unique)).unwrap();

            let row = expected.get_mut(&first.id).unwrap();
            let new: Sql = match field {
                Field::Args => r#"{"id":1,"n":2}"#.to_owned().into(),
                Field::MaxAttempts => 9.into(),
                Field::Meta => r#"{"m":2}"#.to_owned().into(),
                Field::Priority => 4.into(),
                Field::Queue => "p".to_owned().into(),
                Field::ScheduledAt => due.as_microsecond().into(),
                Field::Tags => r#"["a","b"]"#.to_owned().into(),
                _ => "v".to_owned().into(),
            };
            row.insert(column.to_owned(), new);
            if (state, field) == (State::Available, Field::ScheduledAt) {
                row.insert("state".to_owned(), "scheduled".to_owned().into());
            }
            // What is scheduled was due: it is not staged by the way.
            assert_eq!(rows(&db), expected, "{field:?} of a job that is {state}");
            assert!(answer.conflict);
            assert_eq!(as_stored(answer), get(&kiln, first.id), "the answer is what became of it");
            put(&db, first.id, State::Completed);
            kiln.delete(first.id).unwrap();
        }
    }
    assert_eq!(get(&kiln, bystander.id), bystander);
}

#[test]
fn a_due_time_that_is_replaced_moves_the_job() {
    let (clock, kiln, hand) = place();
    let both = |delay: Duration| {
        let unique = Unique::new().replace(State::Available, [Field::ScheduledAt]);
        let unique = unique.replace(State::Scheduled, [Field::ScheduledAt]);
        job(json!({})).schedule_in(delay).unique(unique.replace(State::Retryable, [Field::ScheduledAt]))
    };
    let id = kiln.enqueue(both(HOUR)).unwrap().id;
    assert_eq!(kiln.enqueue(both(2 * HOUR)).unwrap().state, State::Scheduled);
    clock.advance(HOUR);
    assert_eq!(hand.stage(&["default"]).unwrap(), 0, "put off");
    assert_eq!(kiln.enqueue(both(Duration::ZERO)).unwrap().state, State::Available);
    assert_eq!(kiln.enqueue(both(MINUTE)).unwrap().state, State::Scheduled);
    assert!(hand.claim("default", 1).unwrap().is_empty(), "taken back");
    clock.advance(MINUTE);
    assert_eq!(hand.stage(&["default"]).unwrap(), 1);
    let claimed = hand.claim("default", 1).unwrap().remove(0);
    assert_eq!(claimed.id, id);
    hand.fail(&claimed, "no luck", HOUR).unwrap();
    let sooner = kiln.enqueue(both(MINUTE)).unwrap();
    assert_eq!(sooner.state, State::Retryable, "a job that failed is retried, whenever that is");
    clock.advance(MINUTE);
    assert_eq!(hand.stage(&["default"]).unwrap(), 1);
}

#[test]
fn a_job_moved_to_another_queue_or_worker_is_begun_by_who_has_that() {
    let kiln = Kiln::in_memory().unwrap();
    let runtime = kiln.runtime().queue("run", 1).worker_fn("v", |_: &Running<Value>| ()).start().unwrap();
    let unique = Unique::new().by([Field::Args]);
    let unique = unique.replace(State::Available, [Field::Queue, Field::Worker]);
    let waits = kiln.enqueue(NewJob::new("w").queue("nobody's").unique(unique.clone())).unwrap();
    let moved = kiln.enqueue(NewJob::new("v").queue("run").unique(unique)).unwrap();
    assert_eq!(moved.id, waits.id);
    assert_eq!(reaches(&kiln, waits.id, State::Completed).queue, "run");
    runtime.stop();
}

#[test]
fn a_running_attempt_ends_as_always_whatever_is_replaced_and_the_next_has_the_new_values() {
    let kiln = Kiln::in_memory().unwrap();
    let (begun, begins) = mpsc::channel();
    let gate = Gate::default();
    let pass = gate.clone();
    let runtime = kiln.runtime().queue("q", 1).queue("p", 1).worker_fn("w", move |job: &Running<Value>| {
        begun.send((job.args.clone(), job.queue.clone(), job.attempt)).unwrap();
        pass.pass();
        if job.attempt == 1 { Err(Failure::from("once more")) } else { Ok(()) }
    });
    let runtime = runtime.start().unwrap();
    let unique = Unique::new().by([Field::Worker]).replace(State::Executing, FIELDS.map(|(field, _)| field));
    let new = |n: i64, queue: &str| job(json!({ "n": n })).queue(queue).max_attempts(5).unique(unique.clone());
    let id = kiln.enqueue(new(1, "q")).unwrap().id;
    assert_eq!(begins.recv_timeout(DEADLINE).unwrap(), (json!({ "n": 1 }), "q".to_owned(), 1));
    let before = get(&kiln, id);
    let replaced = kiln.enqueue(new(2, "p").priority(3)).unwrap();
    assert!(replaced.conflict);
    assert_eq!((replaced.state, replaced.attempt), (State::Executing, 1));
    assert_eq!((replaced.attempted_at, replaced.attempted_by), (before.attempted_at, before.attempted_by));
    gate.open();
    let failed = reaches(&kiln, id, State::Retryable);
    assert_eq!((failed.errors.len(), failed.priority), (1, 3));
    kiln.retry(id).unwrap();
    assert_eq!(begins.recv_timeout(DEADLINE).unwrap(), (json!({ "n": 2 }), "p".to_owned(), 2));
    reaches(&kiln, id, State::Completed);
    assert_eq!(runtime.stop().unwritten, 0);
}

#[test]
fn what_may_not_be_stored_replaces_nothing() {
    let kiln = Kiln::in_memory().unwrap();
    let unique = Unique::new().by([Field::Args]).replace(State::Available, [Field::Priority, Field::Queue]);
    let first = kiln.enqueue(job(json!({})).unique(unique.clone())).unwrap();
    for (field, new) in [("priority", job(json!({})).priority(10)), ("queue", job(json!({})).queue(" "))] {
        assert_eq!(kiln.enqueue(new.unique(unique.clone())).unwrap_err().field(), Some(field));
        assert_eq!(get(&kiln, first.id), first);
    }
}

#[test]
fn a_debounced_job_runs_once_things_have_been_quiet() {
    let (clock, kiln, hand) = place();
    let quiet = Duration::from_secs(10);
    let save =
        |text: &str| job(json!({ "file": 1, "text": text })).unique(Unique::new().keys(["file"]).debounce(quiet));
    let first = kiln.enqueue(save("a")).unwrap();
    assert_eq!((first.state, first.scheduled_at), (State::Scheduled, clock.now() + quiet));
    for text in ["b", "c", "d"] {
        clock.advance(quiet - Duration::from_secs(1));
        assert_eq!(hand.stage(&["default"]).unwrap(), 0);
        let again = kiln.enqueue(save(text)).unwrap();
        assert_eq!((again.id, again.conflict, again.scheduled_at), (first.id, true, clock.now() + quiet));
    }
    clock.advance(quiet);
    assert_eq!(hand.stage(&["default"]).unwrap(), 1);
    let claimed = hand.claim("default", 5).unwrap();
    assert_eq!((claimed.len(), claimed[0].args.get("text")), (1, Some(json!("d"))), "the last word");
    // While it runs, the next burst gets a job of its own.
    let next = kiln.enqueue(save("e")).unwrap();
    assert!(!next.conflict && next.id != first.id);
    hand.ack(&claimed[0], Outcome::Complete).unwrap();
    assert_eq!(kiln.enqueue(save("f")).unwrap().id, next.id);
}

#[test]
fn a_debounced_job_says_by_nothing_else_when_it_is_due() {
    let (clock, kiln, _) = place();
    let save = |delay| job(json!({})).unique(Unique::new().debounce(delay));
    for (new, said) in [
        (save(MINUTE).schedule_in(HOUR), "leave scheduled_at unsaid"),
        (save(MINUTE).scheduled_at(clock.now()), "leave scheduled_at unsaid"),
        (save(MINUTE).state(State::Suspended), "got state suspended"),
        (save(Duration::MAX), "unique debounce must end before the year 9999"),
    ] {
        let error = kiln.enqueue(new).unwrap_err();
        assert!(error.field() == Some("unique") && error.to_string().contains(said), "{error}");
    }
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 0);
    assert_eq!(kiln.enqueue(save(MINUTE).state(State::Scheduled)).unwrap().scheduled_at, clock.now() + MINUTE);
}

#[test]
fn a_throttled_job_runs_at_once_and_then_no_more_than_once_in_a_period_whatever_became_of_it() {
    let endings: [fn(&Hand, &Kiln, &Job); 4] = [
        |hand, _, job| assert!(hand.ack(job, Outcome::Complete).unwrap()),
        |hand, _, job| assert!(hand.discard(job, "no").unwrap()),
        |hand, _, job| assert!(hand.ack(job, Outcome::cancel("no")).unwrap()),
        |_, kiln, job| assert_eq!(kiln.cancel(job.id).unwrap(), 1),
    ];
    for end in endings {
        let (clock, kiln, hand) = place();
        let ping = || job(json!({})).unique(Unique::new().throttle(MINUTE));
        let mut stored = Vec::new();
        for second in 0..300 {
            let answer = kiln.enqueue(ping()).unwrap();
            if !answer.conflict {
                assert_eq!(answer.state, State::Available);
                stored.push(second);
                end(&hand, &kiln, &hand.claim("default", 1).unwrap()[0]);
            }
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(stored, [0, 61, 122, 183, 244], "a minute after is within a minute");
    }
}

#[test]
fn a_job_is_compared_as_it_is_enqueued_and_not_when_it_is_retried_or_rescued() {
    let (_, kiln, hand) = place();
    let incomplete = || job(json!({})).unique(Unique::new().states(State::INCOMPLETE));
    let first = kiln.enqueue(incomplete()).unwrap().id;
    hand.discard(&hand.claim("default", 1).unwrap()[0], "no").unwrap();
    let second = kiln.enqueue(incomplete()).unwrap().id;
    assert_ne!(second, first, "the first has ended");
    assert_eq!(kiln.retry(first).unwrap(), 1);
    let both = hand.claim("default", 5).unwrap();
    assert_eq!(both.len(), 2, "what somebody retries is run");
    assert!(hand.abandon(&both[0]).unwrap() && hand.abandon(&both[1]).unwrap());
    assert_eq!(hand.claim("default", 5).unwrap().len(), 2, "and what is rescued, again");
    assert!(kiln.enqueue(incomplete()).unwrap().conflict, "either makes a third one a double");
}

#[test]
fn an_update_changes_what_a_job_is_compared_by() {
    let (_, kiln, hand) = place();
    let by_user = |user: i64| job(json!({ "user": user, "n": 0 })).unique(Unique::new().keys(["user"]));
    let first = kiln.enqueue(by_user(1)).unwrap();
    kiln.update(first.id, Changes::new().args(json!({ "user": 1, "n": 5 }))).unwrap();
    assert!(kiln.enqueue(by_user(1)).unwrap().conflict, "that key is the same");
    kiln.update(first.id, Changes::new().args(json!({ "user": 2 }))).unwrap();
    assert_eq!(kiln.enqueue(by_user(2)).unwrap().id, first.id);
    assert!(!kiln.enqueue(by_user(1)).unwrap().conflict, "nobody is lost to a job that is another now");
    kiln.update(first.id, |_: &Job| Changes::new().queue("elsewhere")).unwrap();
    assert!(!kiln.enqueue(by_user(2)).unwrap().conflict);
    assert!(kiln.enqueue(by_user(2).queue("elsewhere")).unwrap().conflict);

    // What attempts add to the meta is nobody's doing.
    let by_meta = || NewJob::new("v").meta(json!({ "m": 1 })).unique(Unique::new().by([Field::Meta]));
    let noted = kiln.enqueue(by_meta()).unwrap();
    let claimed = hand.claim("default", 9).unwrap().into_iter().find(|job| job.id == noted.id).unwrap();
    hand.ack(&claimed, Outcome::snooze(MINUTE).with_meta(json!({ "more": true }))).unwrap();
    kiln.update(noted.id, Changes::new().priority(3)).unwrap();
    assert_eq!(get(&kiln, noted.id).meta.get("snoozed"), Some(json!(1)));
    assert!(kiln.enqueue(by_meta()).unwrap().conflict);
}

#[test]
fn threads_and_handles_that_enqueue_at_once_store_each_job_once() {
    const ROUNDS: usize = 40;
    const EACH: usize = 6;
    let folder = Folder::new();
    let open = || Kiln::builder(folder.db()).durability(Durability::Normal).open().unwrap();
    let handles = [open(), open()];
    let barrier = Barrier::new(6);
    let answers: Vec<Vec<(i64, Timestamp, bool)>> = thread::scope(|scope| {
        let racer = |n: usize| {
            let (kiln, barrier) = (&handles[n % 2], &barrier);
            scope.spawn(move || {
                let mut answers = Vec::new();
                for round in 0..ROUNDS {
                    barrier.wait();
                    let new = |n: usize| job(json!({ "round": round, "n": n })).unique(Unique::new());
                    let jobs = match n % 3 {
                        // With doubles of its own, and in another order.
                        0 => kiln.enqueue_many((0..EACH).chain(0..EACH).map(new)).unwrap(),
                        1 => (0..EACH).rev().map(|n| kiln.enqueue(new(n)).unwrap()).collect(),
                        _ => (0..EACH).map(|n| kiln.enqueue(new(n)).unwrap()).collect(),
                    };
                    answers.extend(jobs.iter().map(|job| (job.id, job.inserted_at, job.conflict)));
                }
                answers
            })
        };
        let racers: Vec<_> = (0..6).map(racer).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let stored: Vec<i64> = answers.iter().flatten().filter(|(_, _, conflict)| !conflict).map(|(id, ..)| *id).collect();
    assert_eq!(stored.len(), ROUNDS * EACH);
    let jobs = handles[0].list(Filter::new().limit(u32::MAX)).unwrap();
    let there: HashSet<i64> = jobs.iter().map(|job| job.id).collect();
    assert_eq!(stored.iter().copied().collect::<HashSet<i64>>(), there);
    let args: HashSet<String> = jobs.iter().map(|job| job.args.to_string()).collect();
    assert_eq!(args.len(), ROUNDS * EACH);
    assert!(answers.iter().flatten().all(|(id, ..)| there.contains(id)), "every answer is a job that is there");
}

#[test]
fn a_transaction_of_the_application_s_own_stores_no_double_either() {
    let folder = Folder::new();
    let kiln = folder.open();
    let unique = || job(json!({ "n": 1 })).unique(Unique::new());
    let mut app = stranger(&folder.db());
    // It looked before the other was stored, and would not see it.
    let tx = app.transaction().unwrap();
    tx.query_row("SELECT count(*) FROM kiln_jobs", [], |_| Ok(())).unwrap();
    let stored = kiln.enqueue(unique()).unwrap();
    assert!(kiln.enqueue_in(&tx, unique()).unwrap_err().is_busy());
    drop(tx);
    let tx = app.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let found = kiln.enqueue_in(&tx, unique()).unwrap();
    assert_eq!((found.id, found.conflict), (stored.id, true));
    tx.commit().unwrap();
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 1);
}

#[test]
fn processes_that_enqueue_at_once_store_each_job_once() {
    const ROUNDS: usize = 60;
    const EACH: usize = 5;
    let answers = |kiln: &Kiln, round: usize, bulk: bool| {
        let new = |n: usize| job(json!({ "round": round, "n": n })).unique(Unique::new().within(HOUR));
        let jobs = match bulk {
            true => kiln.enqueue_many((0..EACH).chain(0..2).map(new)).unwrap(),
            false => (0..EACH).rev().map(|n| kiln.enqueue(new(n)).unwrap()).collect(),
        };
        jobs.into_iter().filter(|job| !job.conflict).map(|job| job.id).collect::<Vec<i64>>()
    };
    let open = |folder: &std::path::Path| {
        Kiln::builder(folder.join("jobs.db")).durability(Durability::Normal).patience(DEADLINE).open().unwrap()
    };
    if let Some(folder) = other_process_for() {
        let mut lines = std::io::stdin().lock().lines();
        let bulk = lines.next().unwrap().unwrap() == "bulk";
        let kiln = open(&folder);
        say("ready");
        lines.next().unwrap().unwrap();
        let stored: Vec<i64> = (0..ROUNDS).flat_map(|round| answers(&kiln, round, bulk)).collect();
        return say(&serde_json::to_string(&stored).unwrap());
    }
    let folder = Folder::new();
    let kiln = open(folder.db().parent().unwrap());
    let name = "processes_that_enqueue_at_once_store_each_job_once";
    let mut others = [0; 3].map(|_| Other::start(name, &folder));
    for (other, role) in others.iter_mut().zip(["bulk", "single", "bulk"]) {
        other.tell(role);
        assert_eq!(other.hear(), "ready");
    }
    others.iter_mut().for_each(|other| other.tell("go"));
    let mut stored: Vec<Vec<i64>> = vec![(0..ROUNDS).flat_map(|round| answers(&kiln, round, false)).collect()];
    stored.extend(others.iter_mut().map(|other| serde_json::from_str(&other.hear()).unwrap()));
    println!("stored by each: {:?}", stored.iter().map(Vec::len).collect::<Vec<_>>());
    let mut stored: Vec<i64> = stored.concat();
    stored.sort_unstable();
    let jobs = kiln.list(Filter::new().limit(u32::MAX)).unwrap();
    assert_eq!(stored, jobs.iter().map(|job| job.id).collect::<Vec<i64>>());
    let args: HashSet<String> = jobs.iter().map(|job| job.args.to_string()).collect();
    assert_eq!((jobs.len(), args.len()), (ROUNDS * EACH, ROUNDS * EACH));
}
