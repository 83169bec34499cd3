//! The model, through the handle: what is stored, what is refused, what an operator's verbs do.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Ends, Folder, count, everywhere, get, ms, reaches, stranger};
use jiff::{SignedDuration, Timestamp};
use kiln::testing::{Hand, ManualClock};
use kiln::{Changes, Durability, Failure, Filter, Job, Kiln, NewJob, Outcome, Running, State, Unique, Worker};
use rusqlite::types::Value as Sql;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn ids(jobs: &[Job]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

fn on_a_manual_clock(story: impl Fn(Kiln, ManualClock)) {
    let folder = Folder::new();
    let clock = ManualClock::default();
    story(Kiln::builder(folder.db()).clock(&clock).open().unwrap(), clock);
    let clock = ManualClock::default();
    story(Kiln::memory_builder().clock(&clock).open().unwrap(), clock);
}

// What is stored.

#[test]
fn a_new_job_has_the_defaults_and_is_read_back_as_it_was_given() {
    on_a_manual_clock(|kiln, clock| {
        let job = kiln.enqueue(NewJob::new("app.Mailer")).unwrap();
        assert_eq!(kiln.get(job.id).unwrap().unwrap(), job);

        assert_eq!(job.state, State::Available);
        assert_eq!((job.queue.as_str(), job.worker.as_str()), ("default", "app.Mailer"));
        assert_eq!((job.max_attempts, job.priority, job.attempt), (20, 0, 0));
        assert_eq!((job.args.as_str(), job.meta.as_str()), ("{}", "{}"));
        assert!(job.tags.is_empty() && job.errors.is_empty() && job.attempted_by.is_empty() && job.extra.is_empty());
        assert_eq!((job.inserted_at, job.scheduled_at), (clock.now(), clock.now()));
        let ends = [job.attempted_at, job.completed_at, job.cancelled_at, job.discarded_at, job.cancel_requested_at];
        assert_eq!(ends, [None; 5]);
    });
}

#[test]
fn every_override_is_stored() {
    on_a_manual_clock(|kiln, clock| {
        let due = clock.now() + SignedDuration::from_secs(3600);
        let job = NewJob::new("app.Mailer")
            .args(json!({ "to": "a@b.c", "nested": { "n": [1, 2.5, null, "ü\u{1F600}"] } }))
            .meta(json!({ "source": "import" }))
            .queue("mailers")
            .tags(["b", "a"])
            .max_attempts(3)
            .priority(9)
            .scheduled_at(due)
            .state(State::Suspended);
        let job = kiln.enqueue(job).unwrap();
        let read = get(&kiln, job.id);
        assert_eq!(read, job);
        assert_eq!(read.args, json!({ "to": "a@b.c", "nested": { "n": [1, 2.5, null, "ü\u{1F600}"] } }));
        assert_eq!(read.meta, json!({ "source": "import" }));
        assert_eq!((read.queue.as_str(), read.max_attempts, read.priority), ("mailers", 3, 9));
        assert_eq!(read.tags, ["a", "b"]);
        assert_eq!((read.state, read.scheduled_at), (State::Suspended, due));
    });
}

#[test]
fn a_job_due_later_is_scheduled_and_one_held_back_is_suspended() {
    on_a_manual_clock(|kiln, clock| {
        let now = clock.now();
        let enqueue = |job: NewJob| {
            let job = kiln.enqueue(job).unwrap();
            (job.state, job.scheduled_at)
        };
        let new = || NewJob::new("w");
        let hour = SignedDuration::from_hours(1);
        assert_eq!(enqueue(new().schedule_in(Duration::from_secs(3600))), (State::Scheduled, now + hour));
        assert_eq!(enqueue(new().scheduled_at(now + hour)), (State::Scheduled, now + hour));
        assert_eq!(enqueue(new().scheduled_at(now - hour)), (State::Scheduled, now - hour));
        assert_eq!(enqueue(new().schedule_in(Duration::ZERO)), (State::Scheduled, now));
        assert_eq!(enqueue(new().state(State::Suspended)), (State::Suspended, now));
        assert_eq!(enqueue(new().scheduled_at(now + hour).state(State::Suspended)), (State::Suspended, now + hour));
    });
}

#[test]
fn a_time_is_kept_to_the_microsecond() {
    everywhere(|kiln| {
        let at: Timestamp = "2031-02-03T04:05:06.123456789Z".parse().unwrap();
        let job = kiln.enqueue(NewJob::new("w").scheduled_at(at)).unwrap();
        assert_eq!(job.scheduled_at.to_string(), "2031-02-03T04:05:06.123456Z");
        assert_eq!(get(&kiln, job.id).scheduled_at, job.scheduled_at);
    });
}

#[test]
fn tags_are_trimmed_lowered_made_unique_and_sorted() {
    everywhere(|kiln| {
        let tags = [" Welcome ", "NEW", "new", "a b", "", "   ", "Äpfel", "10"];
        let job = kiln.enqueue(NewJob::new("w").tags(tags)).unwrap();
        let expected = ["10", "a b", "new", "welcome", "äpfel"];
        assert_eq!(job.tags, expected);
        assert_eq!(get(&kiln, job.id).tags, expected);

        kiln.update(job.id, Changes::new().tags(["Z", " y", "z "])).unwrap();
        assert_eq!(get(&kiln, job.id).tags, ["y", "z"]);
        kiln.update(job.id, Changes::new().tags([""; 0])).unwrap();
        assert!(get(&kiln, job.id).tags.is_empty());
    });
}

#[test]
fn nothing_to_say_is_stored_as_an_empty_object() {
    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Fields {}
    everywhere(|kiln| {
        let new = || NewJob::new("w");
        let jobs = [new().args(()), new().args(Unit), new().args(Fields {}), new().args(None::<u8>), new().meta(())];
        for job in kiln.enqueue_many(jobs).unwrap() {
            assert_eq!((job.args.as_str(), job.meta.as_str()), ("{}", "{}"));
            assert_eq!(get(&kiln, job.id), job);
        }
    });
}

#[test]
fn a_worker_that_asks_for_nothing_is_given_nothing() {
    #[derive(Serialize, Deserialize)]
    struct Unit;
    everywhere(|kiln| {
        let runtime = kiln
            .runtime()
            .queue("default", 2)
            .worker_fn("empty", |_: &Running<()>| ())
            .worker_fn("unit", |_: &Running<Unit>| ())
            .start()
            .unwrap();
        let jobs = [NewJob::new("empty"), NewJob::new("empty").args(()), NewJob::new("unit").args(Unit)];
        for job in kiln.enqueue_many(jobs).unwrap() {
            assert_eq!(reaches(&kiln, job.id, State::Completed).errors, []);
        }
        runtime.stop();
    });
}

#[test]
fn extra_is_given_back_and_never_stored() {
    everywhere(|kiln| {
        let new = || NewJob::new("w").extra("trace", "t-17").extra("n", 3);
        let given = kiln.enqueue(new()).unwrap();
        assert_eq!(Value::from(given.extra.clone()), json!({ "trace": "t-17", "n": 3 }));
        let stored = get(&kiln, given.id);
        assert!(stored.extra.is_empty());
        assert!(!format!("{stored:?}").contains("t-17"));

        let many = kiln.enqueue_many([new(), NewJob::new("w")]).unwrap();
        assert_eq!((many[0].extra.len(), many[1].extra.len()), (2, 0));
        assert!(kiln.list(Filter::new()).unwrap().iter().all(|job| job.extra.is_empty()));
    });
}

struct Mailer;

#[derive(Serialize, Deserialize)]
struct Mail {
    to: String,
}

impl Worker for Mailer {
    const NAME: &'static str = "app.Mailer";
    const QUEUE: &'static str = "mailers";
    const PRIORITY: i64 = 4;
    const MAX_ATTEMPTS: i64 = 7;
    const TAGS: &'static [&'static str] = &["Mail", "app"];
    type Args = Mail;

    fn process(&self, _: &Running<Mail>) -> Result<Outcome, Failure> {
        Ok(Outcome::Complete)
    }
}

#[test]
fn a_worker_brings_its_defaults_and_overrides_replace_them() {
    everywhere(|kiln| {
        let mail = || Mail { to: "a@b.c".into() };
        let job = kiln.enqueue(Mailer::job(mail())).unwrap();
        assert_eq!((job.worker.as_str(), job.queue.as_str()), ("app.Mailer", "mailers"));
        assert_eq!((job.priority, job.max_attempts), (4, 7));
        assert_eq!((job.args.as_str(), job.tags.join(" ")), (r#"{"to":"a@b.c"}"#, "app mail".into()));

        let job = Mailer::job(mail()).queue("urgent").priority(0).max_attempts(1).tags(["vip"]);
        let job = kiln.enqueue(job).unwrap();
        assert_eq!((job.queue.as_str(), job.priority, job.max_attempts), ("urgent", 0, 1));
        assert_eq!(job.tags, ["vip"]);
    });
}

#[test]
fn a_job_is_shown_in_one_line_with_the_last_segment_of_its_worker() {
    everywhere(|kiln| {
        let shown = |worker: &str| {
            let job = NewJob::new(worker).queue("mailers").args(json!({ "to": "a@b.c" }));
            let job = kiln.enqueue(job).unwrap();
            assert_eq!(get(&kiln, job.id).to_string(), job.to_string());
            job.to_string().split_once(", ").unwrap().1.to_owned()
        };
        let line = r#"worker=Mailer, args={"to":"a@b.c"}, queue=mailers, state=available)"#;
        for worker in ["Mailer", "app.Mailer", "crate::app::Mailer", "workers/app/Mailer", "MyApp.Workers.Mailer"] {
            assert_eq!(shown(worker), line, "{worker}");
        }
        let first = get(&kiln, 1).to_string();
        assert_eq!(first, format!("Job(id=1, {line}"));
    });
}

#[test]
fn no_id_is_used_twice() {
    everywhere(|kiln| {
        let first = kiln.enqueue(NewJob::new("w")).unwrap().id;
        assert_eq!(kiln.delete(first).unwrap(), 1);
        assert!(kiln.enqueue(NewJob::new("w")).unwrap().id > first);
    });
}

#[test]
fn there_are_eight_states_and_their_names_are_the_reference_s() {
    let names: Vec<String> = State::ALL.iter().map(State::to_string).collect();
    let expected =
        ["available", "scheduled", "executing", "retryable", "completed", "discarded", "cancelled", "suspended"];
    assert_eq!(names, expected);
}

// What is refused.

/// Values that may not be stored: the field that is named, the value that is shown, and the job. Of arguments, which may be
/// secret, only the kind is shown.
fn refused() -> Vec<(&'static str, &'static str, NewJob)> {
    let new = || NewJob::new("w");
    let keys: HashMap<Vec<u8>, u8> = HashMap::from([(vec![1], 2)]);
    vec![
        ("queue", r#""""#, new().queue("")),
        ("queue", r#"" \t\n""#, new().queue(" \t\n")),
        ("worker", r#""""#, NewJob::new("")),
        ("worker", r#""  ""#, NewJob::new("  ")),
        ("max_attempts", "got 0", new().max_attempts(0)),
        ("max_attempts", "got -1", new().max_attempts(-1)),
        ("max_attempts", "-9223372036854775808", new().max_attempts(i64::MIN)),
        ("priority", "got -1", new().priority(-1)),
        ("priority", "got 10", new().priority(10)),
        ("priority", "9223372036854775807", new().priority(i64::MAX)),
        ("args", "got an array", new().args([1, 2])),
        ("args", "got a string", new().args("text")),
        ("args", "got a number", new().args(7)),
        ("args", "key", new().args(keys)),
        ("meta", "got an array", new().meta([true])),
        ("schedule_in", "18446744073709551615", new().schedule_in(Duration::MAX)),
        ("state", "executing", new().state(State::Executing)),
        ("state", "unknown", new().state(State::Unknown)),
    ]
}

#[test]
fn a_refused_job_is_an_error_that_names_field_and_value_and_writes_nothing() {
    everywhere(|kiln| {
        for (field, value, job) in refused() {
            let error = kiln.enqueue(job).unwrap_err();
            assert!(error.is_invalid(), "{error}");
            assert_eq!(error.field(), Some(field), "{error}");
            let text = error.to_string();
            assert!(text.contains(field) && text.contains(value), "{text:?} does not name {field} and {value}");
        }
        assert_eq!(kiln.count(Filter::new()).unwrap().total(), 0);
    });
}

#[test]
fn one_refused_job_among_many_stores_none() {
    everywhere(|kiln| {
        for (field, value, job) in refused() {
            let jobs = [NewJob::new("good"), NewJob::new("good"), job, NewJob::new("good")];
            let error = kiln.enqueue_many(jobs).unwrap_err();
            assert_eq!(error.field(), Some(field));
            assert!(error.to_string().contains(value), "{error}");
        }
        assert_eq!(kiln.count(Filter::new()).unwrap().total(), 0);
    });
}

#[test]
fn the_last_values_that_are_allowed_are_allowed() {
    everywhere(|kiln| {
        let new = || NewJob::new("w");
        let jobs = [
            new().priority(0),
            new().priority(9),
            new().max_attempts(1),
            new().max_attempts(i64::MAX),
            new().queue("q"),
        ];
        assert_eq!(kiln.enqueue_many(jobs).unwrap().len(), 5);
    });
}

#[test]
fn a_refused_update_names_field_and_value_and_leaves_the_job_as_it_was() {
    everywhere(|kiln| {
        let job = kiln.enqueue(NewJob::new("w").args(json!({ "n": 1 })).priority(5)).unwrap();
        let changes = [
            ("queue", "\" \"", Changes::new().queue(" ")),
            ("worker", "\"\"", Changes::new().worker("")),
            ("max_attempts", "got 0", Changes::new().max_attempts(0)),
            ("priority", "got 10", Changes::new().priority(10)),
            ("priority", "got -3", Changes::new().priority(-3)),
            ("args", "got an array", Changes::new().args([1])),
            ("meta", "got a string", Changes::new().meta("m")),
            ("schedule_in", "18446744073709551615", Changes::new().schedule_in(Duration::MAX)),
        ];
        for (field, value, change) in changes {
            // A good change beside the bad one must not be made alone.
            let change = change.tags(["half"]);
            let by_value = kiln.update(job.id, change.clone()).unwrap_err();
            let by_closure = kiln.update(job.id, |_: &Job| change.clone()).unwrap_err();
            let by_filter = kiln.update(Filter::new(), change.clone()).unwrap_err();
            for error in [by_value, by_closure, by_filter] {
                assert!(error.is_invalid(), "{error}");
                assert_eq!(error.field(), Some(field));
                assert!(error.to_string().contains(field) && error.to_string().contains(value), "{error}");
            }
            assert_eq!(get(&kiln, job.id), job);
        }
    });
}

#[test]
fn a_refused_update_takes_no_other_call_with_it() {
    everywhere(|kiln| {
        let victim = kiln.enqueue(NewJob::new("w")).unwrap();
        let jobs = kiln.enqueue_many((0..300).map(|_| NewJob::new("w"))).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let ends = Ends(&done);
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        kiln.update(victim.id, Changes::new().priority(99)).unwrap_err();
                    }
                });
            }
            let cancelled: Vec<(i64, u64)> = jobs.iter().map(|job| (job.id, kiln.cancel(job.id).unwrap())).collect();
            drop(ends);
            for (id, counted) in cancelled {
                assert_eq!((counted, get(&kiln, id).state), (1, State::Cancelled), "job {id}");
            }
        });
        assert_eq!(get(&kiln, victim.id), victim);
    });
}

// Many at once.

#[test]
fn many_jobs_are_enqueued_in_the_order_they_are_given() {
    everywhere(|kiln| {
        assert_eq!(kiln.enqueue_many([]).unwrap(), []);
        let jobs = kiln.enqueue_many((0..50).map(|n| NewJob::new("w").args(json!({ "n": n })))).unwrap();
        assert!(ids(&jobs).is_sorted());
        for (n, job) in jobs.iter().enumerate() {
            assert_eq!(get(&kiln, job.id).args, json!({ "n": n }));
        }
    });
}

#[test]
fn threads_that_enqueue_at_once_are_each_given_their_own_jobs_whatever_they_wait_for() {
    const THREADS: u64 = 8;
    const EACH: u64 = 60;
    for durability in [Durability::Normal, Durability::Full, Durability::Strict] {
        let folder = Folder::new();
        let kiln = Kiln::builder(folder.db()).durability(durability).open().unwrap();
        let enqueue = |n: u64| {
            // Every seventh is refused by the database, and takes no other along.
            let queue = if n.is_multiple_of(7) { "broken" } else { "whole" };
            (n, kiln.enqueue(NewJob::new("w").queue(queue).args(json!({ "n": n }))))
        };
        let breaks = "CREATE TRIGGER breaks BEFORE INSERT ON kiln_jobs WHEN new.queue = 'broken'
            BEGIN SELECT RAISE(ABORT, 'broken'); END";
        stranger(&folder.db()).execute_batch(breaks).unwrap();
        let told: Vec<_> = thread::scope(|scope| {
            let threads = (0..THREADS).map(|thread| {
                let enqueue = &enqueue;
                scope.spawn(move || (thread * EACH..(thread + 1) * EACH).map(enqueue).collect::<Vec<_>>())
            });
            threads.collect::<Vec<_>>().into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut given = HashSet::new();
        for (n, job) in told {
            assert_eq!(job.is_ok(), !n.is_multiple_of(7), "{durability:?} {n}");
            if let Ok(job) = job {
                assert!(given.insert(job.id), "{durability:?} {n}");
                assert_eq!(get(&kiln, job.id).args, json!({ "n": n }), "{durability:?}");
            }
        }
        assert_eq!(kiln.count(Filter::new()).unwrap().total(), given.len() as u64, "{durability:?}");
    }
}

#[test]
fn others_see_all_of_an_enqueue_of_many_or_nothing() {
    const MANY: u64 = 2_500;
    let folder = Folder::new();
    let kiln = folder.open();
    let onlooker = folder.open();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let ends = Ends(&done);
        let looks = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                seen.insert(onlooker.count(Filter::new()).unwrap().total());
            }
            seen
        });
        for _ in 0..3 {
            kiln.enqueue_many((0..MANY).map(|_| NewJob::new("w"))).unwrap();
        }
        drop(ends);
        let seen = looks.join().unwrap();
        assert!(seen.iter().all(|total| total % MANY == 0), "{seen:?}");
    });
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 3 * MANY);
}

#[test]
fn eight_threads_enqueue_side_by_side_and_every_job_is_there_once() {
    everywhere(|kiln| {
        let given: Vec<(i64, u64)> = thread::scope(|scope| {
            let threads: Vec<_> = (0_u64..8)
                .map(|thread| {
                    let kiln = kiln.clone();
                    scope.spawn(move || {
                        let enqueue = |n| {
                            let key = thread * 1000 + n;
                            (kiln.enqueue(NewJob::new("w").args(json!({ "key": key }))).unwrap().id, key)
                        };
                        (0..200).map(enqueue).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let given: BTreeMap<i64, u64> = given.into_iter().collect();
        assert_eq!(given.len(), 1600, "every id is given once");
        let stored = kiln.list(Filter::new().limit(10_000)).unwrap();
        let stored: BTreeMap<i64, u64> =
            stored.iter().map(|job| (job.id, job.args.get("key").unwrap().as_u64().unwrap())).collect();
        assert_eq!(stored, given);
    });
}

// Looking.

#[test]
fn a_listing_is_filtered_by_states_queue_worker_and_tags() {
    everywhere(|kiln| {
        let mut all = Vec::new();
        for (n, queue) in ["a", "b"].into_iter().cycle().take(12).enumerate() {
            let worker = ["w.One", "w.Two", "w.Three"][n % 3];
            let tags = [if n % 2 == 0 { "even" } else { "odd" }, if n < 6 { "low" } else { "high" }];
            let state = [State::Available, State::Suspended, State::Completed, State::Discarded][n % 4];
            let job = NewJob::new(worker).queue(queue).tags(tags).state(state);
            all.push(kiln.enqueue(job).unwrap());
        }
        let expect = |filter: Filter, wanted: &dyn Fn(&Job) -> bool| {
            let expected: Vec<i64> = all.iter().filter(|job| wanted(job)).map(|job| job.id).collect();
            assert!(!expected.is_empty());
            assert_eq!(ids(&kiln.list(filter.clone()).unwrap()), expected, "{filter:?}");
            assert_eq!(kiln.count(filter.clone()).unwrap().total(), expected.len() as u64, "{filter:?}");
        };
        let has = |job: &Job, tag: &str| job.tags.iter().any(|own| own == tag);
        expect(Filter::new(), &|_| true);
        expect(Filter::new().state(State::Suspended), &|job| job.state == State::Suspended);
        let ended = [State::Completed, State::Discarded];
        expect(Filter::new().states(ended), &|job| ended.contains(&job.state));
        expect(Filter::new().state(State::Completed).state(State::Discarded), &|job| ended.contains(&job.state));
        expect(Filter::new().queue("b"), &|job| job.queue == "b");
        expect(Filter::new().worker("w.Two"), &|job| job.worker == "w.Two");
        expect(Filter::new().tag("odd"), &|job| has(job, "odd"));
        expect(Filter::new().tag(" ODD ").tag("high"), &|job| has(job, "odd") && has(job, "high"));
        let narrow = Filter::new().state(State::Available).queue("a").worker("w.Two").tag("low");
        expect(narrow, &|job| {
            job.state == State::Available && job.queue == "a" && job.worker == "w.Two" && has(job, "low")
        });

        for nothing in [Filter::new().queue("c"), Filter::new().worker("One"), Filter::new().tag("od")] {
            assert_eq!(kiln.list(nothing).unwrap(), []);
        }
        assert_eq!(kiln.list(Filter::new().state(State::Retryable)).unwrap(), []);
    });
}

#[test]
fn a_listing_is_paged_in_both_directions() {
    everywhere(|kiln| {
        let jobs = kiln.enqueue_many((0..50).map(|n| NewJob::new("w").queue(["a", "b"][n % 2]))).unwrap();
        let wanted = Filter::new().queue("a").limit(7);
        let mut forwards = ids(&jobs);
        forwards.retain(|id| id % 2 == jobs[0].id % 2);

        for (filter, expected) in [
            (wanted.clone(), forwards.clone()),
            (wanted.newest_first(), forwards.iter().rev().copied().collect::<Vec<_>>()),
        ] {
            let mut pages = vec![kiln.list(filter.clone()).unwrap()];
            while let Some(last) = pages.last().and_then(|page| page.last()) {
                pages.push(kiln.list(filter.clone().after(last.id)).unwrap());
            }
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 7, 4, 0]);
            assert_eq!(ids(&pages.concat()), expected);
        }
        assert_eq!(kiln.list(Filter::new().limit(0)).unwrap(), []);
        assert_eq!(kiln.list(Filter::new()).unwrap().len(), 50, "a page holds 100 unless said otherwise");
    });
}

#[test]
fn a_page_is_not_upset_by_what_comes_and_goes() {
    everywhere(|kiln| {
        let jobs = kiln.enqueue_many((0..10).map(|_| NewJob::new("w"))).unwrap();
        let page = kiln.list(Filter::new().limit(5)).unwrap();
        kiln.delete(page[4].id).unwrap();
        kiln.delete(page[0].id).unwrap();
        let new = kiln.enqueue(NewJob::new("w")).unwrap();
        let rest = kiln.list(Filter::new().after(page[4].id)).unwrap();
        assert_eq!(ids(&rest), [&ids(&jobs)[5..], &[new.id]].concat());
    });
}

#[test]
fn jobs_are_counted_per_state_and_queue() {
    everywhere(|kiln| {
        for (queue, state, times) in [
            ("a", State::Available, 3),
            ("a", State::Suspended, 2),
            ("b", State::Available, 4),
            ("b", State::Discarded, 1),
        ] {
            kiln.enqueue_many((0..times).map(|_| NewJob::new("w").queue(queue).state(state))).unwrap();
        }
        let counts = kiln.count(Filter::new()).unwrap();
        assert_eq!(counts.total(), 10);
        assert_eq!((counts.queue("a"), counts.queue("b"), counts.queue("c")), (5, 5, 0));
        assert_eq!((counts.state(State::Available), counts.state(State::Completed)), (7, 0));
        assert_eq!((counts.get("a", State::Suspended), counts.get("b", State::Suspended)), (2, 0));
        let all: Vec<_> = counts.iter().collect();
        let expected = [
            ("a", State::Available, 3),
            ("a", State::Suspended, 2),
            ("b", State::Available, 4),
            ("b", State::Discarded, 1),
        ];
        assert_eq!(all, expected);
    });
}

#[test]
fn a_job_that_is_not_there_is_no_error() {
    everywhere(|kiln| {
        assert_eq!(kiln.get(1).unwrap(), None);
        for id in [0, -1, 1, i64::MAX, i64::MIN] {
            assert_eq!(kiln.get(id).unwrap(), None);
            assert_eq!(kiln.cancel(id).unwrap(), 0);
            assert_eq!(kiln.retry(id).unwrap(), 0);
            assert_eq!(kiln.delete(id).unwrap(), 0);
            assert_eq!(kiln.update(id, Changes::new().priority(1)).unwrap(), 0);
            assert_eq!(kiln.update(id, |_: &Job| Changes::new().priority(1)).unwrap(), 0);
        }
        assert_eq!(kiln.delete(Vec::new()).unwrap(), 0);
        assert_eq!(kiln.delete(Filter::new()).unwrap(), 0);
    });
}

// An operator's verbs.

#[test]
fn jobs_are_meant_by_id_by_row_by_several_and_by_filter() {
    everywhere(|kiln| {
        let jobs = kiln.enqueue_many((0..12).map(|n| NewJob::new("w").queue(["x", "y"][n / 10]))).unwrap();
        let all = ids(&jobs);
        assert_eq!(kiln.cancel(all[0]).unwrap(), 1);
        assert_eq!(kiln.cancel(&jobs[1]).unwrap(), 1);
        assert_eq!(kiln.cancel(vec![all[2], all[3]]).unwrap(), 2);
        assert_eq!(kiln.cancel([all[4]]).unwrap(), 1);
        assert_eq!(kiln.cancel(&all[5..7]).unwrap(), 2);
        assert_eq!(kiln.cancel(&jobs[7..10]).unwrap(), 3);
        assert_eq!(kiln.cancel(Filter::new().queue("y")).unwrap(), 2);
        assert_eq!(kiln.cancel(&jobs).unwrap(), 0, "all of them are cancelled already");
        assert_eq!(count(&kiln, State::Cancelled), 12);

        // A job named twice is changed and counted once.
        assert_eq!(kiln.retry(vec![all[0], all[0], 999, all[1]]).unwrap(), 2);
        assert_eq!(kiln.delete(vec![all[0], all[0], 999]).unwrap(), 1);
        assert_eq!(kiln.count(Filter::new()).unwrap().total(), 11);
    });
}

#[test]
fn cancel_stamps_what_waits_and_leaves_what_has_ended() {
    on_a_manual_clock(|kiln, clock| {
        let waiting = [State::Available, State::Scheduled, State::Retryable, State::Suspended];
        let ended = [State::Completed, State::Discarded, State::Cancelled];
        let new = |state| kiln.enqueue(NewJob::new("w").meta(json!({ "m": 1 })).state(state)).unwrap();
        let (waiting, ended) = (waiting.map(new), ended.map(new));
        clock.advance(Duration::from_secs(60));
        assert_eq!(kiln.cancel(Filter::new()).unwrap(), 4);
        for job in waiting {
            let job = get(&kiln, job.id);
            assert_eq!((job.state, job.cancelled_at), (State::Cancelled, Some(clock.now())));
            assert_eq!(job.meta.get("m"), Some(json!(1)), "the rest of meta stays");
        }
        for job in ended {
            assert_eq!(get(&kiln, job.id), job);
        }
    });
}

#[test]
fn a_cancel_of_an_executing_job_is_written_down_and_kept_however_it_ends() {
    on_a_manual_clock(|kiln, clock| {
        let hand = Hand::new(&kiln, ["w"]);
        let claim = || {
            kiln.enqueue(NewJob::new("w")).unwrap();
            let job = hand.claim("default", 1).unwrap().remove(0);
            clock.advance(Duration::from_secs(1));
            assert_eq!(kiln.cancel(job.id).unwrap(), 1);
            let asked = get(&kiln, job.id);
            assert_eq!((asked.state, asked.cancel_requested_at), (State::Executing, Some(clock.now())));
            job
        };
        let failed = claim();
        assert!(hand.fail(&failed, "broken", ms(0)).unwrap());
        let snoozed = claim();
        assert!(hand.ack(&snoozed, Outcome::snooze(ms(1))).unwrap());
        let released = claim();
        assert!(hand.release(&released).unwrap());
        let abandoned = claim();
        assert!(hand.abandon(&abandoned).unwrap());
        for job in [failed, snoozed, released, abandoned] {
            let job = get(&kiln, job.id);
            assert_eq!(job.state, State::Cancelled, "{job}");
            assert!(job.cancelled_at.is_some());
        }
        let completed = claim();
        assert!(hand.ack(&completed, Outcome::Complete).unwrap());
        assert_eq!(get(&kiln, completed.id).state, State::Completed);
    });
}

#[test]
fn retry_makes_a_job_available_with_an_attempt_left_and_its_stamps_cleared() {
    on_a_manual_clock(|kiln, clock| {
        let hand = Hand::new(&kiln, ["w"]);
        kiln.enqueue(NewJob::new("w").max_attempts(1)).unwrap();
        let job = hand.claim("default", 1).unwrap().remove(0);
        hand.fail(&job, "broken", ms(0)).unwrap();
        let discarded = get(&kiln, job.id);
        assert_eq!((discarded.state, discarded.attempt, discarded.max_attempts), (State::Discarded, 1, 1));
        assert!(discarded.discarded_at.is_some());

        clock.advance(Duration::from_secs(60));
        assert_eq!(kiln.retry(job.id).unwrap(), 1);
        let retried = get(&kiln, job.id);
        assert_eq!((retried.state, retried.attempt, retried.max_attempts), (State::Available, 1, 2));
        assert_eq!((retried.discarded_at, retried.scheduled_at), (None, clock.now()));
        assert_eq!(retried.errors.len(), 1, "what went wrong stays known");

        assert_eq!(kiln.retry(job.id).unwrap(), 0, "it is available already");
        let again = hand.claim("default", 1).unwrap().remove(0);
        assert_eq!(kiln.retry(job.id).unwrap(), 0, "it executes");
        assert_eq!(again.attempt, 2);
        hand.ack(&again, Outcome::cancel("enough")).unwrap();
        assert_eq!(kiln.retry(job.id).unwrap(), 1);
        assert_eq!(get(&kiln, job.id).cancelled_at, None);
    });
}

#[test]
fn delete_leaves_what_executes() {
    everywhere(|kiln| {
        let hand = Hand::new(&kiln, ["w"]);
        let jobs = kiln.enqueue_many([NewJob::new("w"), NewJob::new("w")]).unwrap();
        let running = hand.claim("default", 1).unwrap().remove(0);
        assert_eq!(kiln.delete(&jobs).unwrap(), 1);
        assert_eq!(get(&kiln, running.id), running);
        hand.ack(&running, Outcome::Complete).unwrap();
        assert_eq!(kiln.delete(running.id).unwrap(), 1);
    });
}

#[test]
fn verbs_by_filter_reach_more_rows_than_one_batch_holds() {
    const MANY: u64 = 2_345;
    everywhere(|kiln| {
        let bystander = kiln.enqueue(NewJob::new("w").queue("other")).unwrap();
        kiln.enqueue_many((0..MANY).map(|_| NewJob::new("w").queue("q"))).unwrap();
        let ours = || Filter::new().queue("q");

        assert_eq!(kiln.update(ours(), Changes::new().priority(3)).unwrap(), MANY);
        let raised = kiln.update(ours(), |job: &Job| Changes::new().priority(job.priority + 1)).unwrap();
        assert_eq!(raised, MANY);
        // A page's size and place are no part of what is meant.
        assert_eq!(kiln.cancel(ours().limit(1).after(50).newest_first()).unwrap(), MANY);
        assert_eq!(kiln.retry(ours().state(State::Cancelled)).unwrap(), MANY);
        let jobs = kiln.list(ours().limit(10_000)).unwrap();
        assert_eq!(jobs.len() as u64, MANY);
        assert!(jobs.iter().all(|job| job.priority == 4 && job.state == State::Available));
        assert_eq!(kiln.cancel(&jobs).unwrap(), MANY, "by as many ids");
        assert_eq!(kiln.delete(ours()).unwrap(), MANY);
        assert_eq!(kiln.list(Filter::new()).unwrap(), [bystander]);
    });
}

// Updates.

#[test]
fn update_changes_what_it_is_given_and_nothing_else() {
    on_a_manual_clock(|kiln, clock| {
        let mut expected = kiln
            .enqueue(NewJob::new("w").args(json!({ "a": 1 })).meta(json!({ "m": 1 })).tags(["t"]).priority(5))
            .unwrap();
        let bystander = kiln.enqueue(NewJob::new("w")).unwrap();
        let id = expected.id;
        let mut check = |changes: Changes, expect: &dyn Fn(&mut Job)| {
            assert_eq!(kiln.update(id, changes).unwrap(), 1);
            expect(&mut expected);
            assert_eq!(get(&kiln, id), expected);
        };
        let json = |value: Value| kiln::Json::from(value);
        check(Changes::new().args(json!({ "a": 2 })), &|job| job.args = json(json!({ "a": 2 })));
        check(Changes::new().meta(json!({ "x": 2 })), &|job| job.meta = json(json!({ "x": 2 })));
        check(Changes::new().max_attempts(2), &|job| job.max_attempts = 2);
        check(Changes::new().priority(0), &|job| job.priority = 0);
        check(Changes::new().queue("urgent"), &|job| job.queue = "urgent".into());
        check(Changes::new().tags(["B", "a"]), &|job| job.tags = vec!["a".into(), "b".into()]);
        check(Changes::new().worker("other"), &|job| job.worker = "other".into());
        let later = clock.now() + SignedDuration::from_hours(2);
        check(Changes::new().scheduled_at(later), &|job| (job.state, job.scheduled_at) = (State::Scheduled, later));
        let sooner = clock.now() + SignedDuration::from_secs(5);
        check(Changes::new().schedule_in(Duration::from_secs(5)), &|job| job.scheduled_at = sooner);
        let now = clock.now();
        check(Changes::new().scheduled_at(now), &|job| (job.state, job.scheduled_at) = (State::Available, now));
        check(Changes::new(), &|_| ());
        check(Changes::new().args(()).priority(9).queue("q"), &|job| {
            (job.args, job.priority, job.queue) = (json(json!({})), 9, "q".into());
        });
        assert_eq!(get(&kiln, bystander.id), bystander);
    });
}

#[test]
fn update_by_closure_sees_the_row_as_it_is() {
    everywhere(|kiln| {
        let jobs = kiln.enqueue_many((0..5).map(|n| NewJob::new("w").priority(n))).unwrap();
        let mut seen = Vec::new();
        let count = kiln
            .update(&jobs[1..4], |job: &Job| {
                seen.push(job.clone());
                Changes::new().priority(job.priority * 2).meta(json!({ "was": job.priority }))
            })
            .unwrap();
        assert_eq!(count, 3);
        assert_eq!(seen, jobs[1..4]);
        let priorities: Vec<i64> = kiln.list(Filter::new()).unwrap().iter().map(|job| job.priority).collect();
        assert_eq!(priorities, [0, 2, 4, 6, 4]);
    });
}

#[test]
fn updates_by_closure_from_several_threads_lose_nothing() {
    let folder = Folder::new();
    // Half of the threads share a handle, the others have their own.
    let shared = folder.open();
    let own = folder.open();
    let memory = Kiln::in_memory().unwrap();
    for handles in [[&shared, &own], [&memory, &memory]] {
        let id = handles[0].enqueue(NewJob::new("w").meta(json!({ "n": 0 }))).unwrap().id;
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for _ in 0..50 {
                        let add = |job: &Job| {
                            let n = job.meta.get("n").unwrap().as_i64().unwrap();
                            Changes::new().meta(json!({ "n": n + 1 }))
                        };
                        assert_eq!(handles[thread % 2].update(id, add).unwrap(), 1);
                    }
                });
            }
        });
        assert_eq!(get(handles[1], id).meta, json!({ "n": 200 }));
    }
}

#[test]
fn a_change_of_many_stops_at_the_first_refusal_and_says_so() {
    everywhere(|kiln| {
        let jobs = kiln.enqueue_many((0..3).map(|n| NewJob::new("w").priority(7 + n))).unwrap();
        let error = kiln.update(Filter::new(), |job: &Job| Changes::new().priority(job.priority + 1)).unwrap_err();
        assert_eq!(error.to_string(), "priority must be between 0 and 9, got 10");
        assert_eq!(get(&kiln, jobs[2].id), jobs[2]);
    });
}

// Recorded values.

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Thumbnail {
    path: String,
    size: (u32, u32),
    bytes: Vec<u8>,
    note: Option<String>,
    ratio: f64,
}

#[test]
fn a_recorded_value_is_read_back_as_what_it_was() {
    everywhere(|kiln| {
        let hand = Hand::new(&kiln, ["w"]);
        let record = |outcome: Outcome| {
            let id = kiln.enqueue(NewJob::new("w").meta(json!({ "kept": 1 }))).unwrap().id;
            let job = hand.claim("default", 1).unwrap().remove(0);
            assert!(hand.ack(&job, outcome).unwrap());
            get(&kiln, id)
        };
        let value =
            Thumbnail { path: "a/ü.png".into(), size: (320, 200), bytes: vec![0, 127, 255], note: None, ratio: 1.6 };
        let job = record(Outcome::record(&value).unwrap());
        assert_eq!(job.state, State::Completed);
        assert_eq!(job.recorded::<Thumbnail>().unwrap(), Some(value));
        assert_eq!(job.meta.get("recorded"), Some(json!(true)));
        assert_eq!(job.meta.get("kept"), Some(json!(1)));
        let stored = job.meta.get("return").unwrap();
        assert!(!stored.as_str().unwrap().contains('='), "unpadded: {stored}");

        assert_eq!(record(Outcome::record(&42).unwrap()).recorded::<u8>().unwrap(), Some(42));
        assert_eq!(record(Outcome::record("text").unwrap()).recorded::<String>().unwrap().unwrap(), "text");
        assert_eq!(record(Outcome::record(&()).unwrap()).recorded::<()>().unwrap(), Some(()));
        assert_eq!(record(Outcome::Complete).recorded::<Value>().unwrap(), None);

        let error = record(Outcome::record(&300).unwrap()).recorded::<u8>().unwrap_err();
        assert!(error.is_malformed(), "300 is no u8: {error}");
    });
}

#[test]
fn a_value_over_the_limit_is_an_error_that_names_both_sizes() {
    let encoded = |value: &str| kiln::testing::encode_recorded(&json!(value)).unwrap().len();
    let long = "x".repeat(1000);
    let size = encoded(&long);
    let error = Outcome::record_within(&long, size - 1).unwrap_err();
    assert_eq!(error.field(), Some("record"));
    let text = error.to_string();
    assert!(text.contains(&format!("{size} bytes")) && text.contains(&format!("{} bytes", size - 1)), "{text}");
    Outcome::record_within(&long, size).unwrap();

    // Three bytes become four, so that this is beyond 64 MB but not by much.
    let error = Outcome::record(&"x".repeat(48_000_001)).unwrap_err();
    assert!(error.to_string().contains("64000000 bytes"), "{error}");
}

#[test]
fn a_damaged_recorded_value_is_an_error_and_the_job_can_still_be_shown() {
    everywhere(|kiln| {
        for value in [json!("!!!"), json!(""), json!("g2wAAAABYQ")] {
            let meta = json!({ "recorded": true, "return": value });
            let job = kiln.enqueue(NewJob::new("w").meta(meta).state(State::Completed)).unwrap();
            let job = get(&kiln, job.id);
            assert!(job.recorded::<Value>().unwrap_err().is_malformed());
            assert!(job.to_string().contains("state=completed"));
        }
        // Without the mark, it is the application's own entry.
        let job = kiln.enqueue(NewJob::new("w").meta(json!({ "return": "g2EF" }))).unwrap();
        assert_eq!(job.recorded::<Value>().unwrap(), None);
    });
}

// Odd rows.

/// A column and what somebody wrote to it.
fn odd_cells() -> Vec<(&'static str, Sql)> {
    let text = |text: &str| Sql::Text(text.to_owned());
    let mut cells: Vec<(&'static str, Sql)> = Vec::new();
    for column in ["args", "meta", "tags", "errors", "attempted_by"] {
        for broken in ["{\"half\": ", "", "null", "[1, {\"error\": 5}, null, \"x\"]", "{\"a\": 1}", "17", "not json"] {
            cells.push((column, text(broken)));
        }
        cells.push((column, Sql::Blob(b"[\"a\"]".to_vec())));
        cells.push((column, Sql::Blob(vec![0xff, 0xfe, 0x00])));
        cells.push((column, Sql::Integer(5)));
    }
    for column in ["state", "queue", "worker"] {
        cells.push((column, text("strange")));
        cells.push((column, text("")));
        cells.push((column, Sql::Blob(b"available".to_vec())));
        cells.push((column, Sql::Blob(vec![0xff, 0xfe])));
        cells.push((column, Sql::Integer(7)));
    }
    for column in ["attempt", "max_attempts", "priority", "inserted_at", "scheduled_at", "attempted_at"] {
        cells.push((column, text("many")));
        cells.push((column, text("2020-02-02T02:02:02Z")));
        cells.push((column, Sql::Integer(-3)));
        cells.push((column, Sql::Integer(i64::MAX)));
        cells.push((column, Sql::Integer(i64::MIN)));
        cells.push((column, Sql::Real(1.5)));
        cells.push((column, Sql::Real(1e300)));
        cells.push((column, Sql::Blob(vec![0xff])));
    }
    for column in ["completed_at", "cancelled_at", "discarded_at", "cancel_requested_at", "expires_at"] {
        cells.push((column, text("yesterday")));
        cells.push((column, text("2020-02-02T02:02:02Z")));
        cells.push((column, Sql::Integer(i64::MAX)));
        cells.push((column, Sql::Integer(i64::MIN)));
        cells.push((column, Sql::Blob(vec![0xff])));
    }
    cells
}

/// Rows as only somebody else can write them; their ids.
fn write_odd_rows(conn: &rusqlite::Connection, state: &str) -> Vec<i64> {
    let write = |set: &str, value: Option<&Sql>| {
        conn.execute(
            "INSERT INTO kiln_jobs (worker, queue, state, attempt, attempted_at, attempted_by)
             VALUES ('w', 'odd', ?1, iif(?1 = 'executing', 1, 0), iif(?1 = 'executing', 5, NULL),
                     iif(?1 = 'executing', '[\"far\",\"gone\"]', '[]'))",
            [state],
        )
        .unwrap();
        let id = conn.last_insert_rowid();
        conn.execute(&format!("UPDATE kiln_jobs SET {set} WHERE id = ?1 AND ?2 IS ?2"), (id, value)).unwrap();
        id
    };
    let odd = odd_cells();
    let bound = odd.iter().map(|(column, value)| write(&format!("{column} = ?2"), Some(value)));
    // Text that is no UTF-8 cannot be bound from Rust.
    let columns = ["args", "meta", "tags", "errors", "queue", "worker", "state"];
    let no_text = columns.iter().map(|column| write(&format!("{column} = CAST(x'5bff22fe' AS TEXT)"), None));
    bound.chain(no_text).collect()
}

#[test]
fn an_odd_row_can_be_got_listed_counted_and_shown() {
    let folder = Folder::new();
    let kiln = folder.open();
    let good = kiln.enqueue(NewJob::new("w").queue("odd").tags(["good"])).unwrap();
    let conn = stranger(&folder.db());
    let odd: Vec<i64> = ["available", "scheduled", "completed", "executing"]
        .iter()
        .flat_map(|state| write_odd_rows(&conn, state))
        .collect();

    for id in &odd {
        let job = get(&kiln, *id);
        assert!(job.to_string().starts_with(&format!("Job(id={id}, worker=")), "{job}");
        assert!(!format!("{job:?}").is_empty());
        let _ = job.recorded::<Value>();
    }
    let all = kiln.list(Filter::new().limit(10_000)).unwrap();
    assert_eq!(ids(&all), [&[good.id], odd.as_slice()].concat());
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 1 + odd.len() as u64);
    assert_eq!(kiln.list(Filter::new().tag("good")).unwrap(), [good]);
    assert!(kiln.count(Filter::new()).unwrap().state(State::Unknown) > 0);
    kiln.health().unwrap();
}

#[test]
fn what_an_odd_row_holds_is_shown_and_not_made_up() {
    let folder = Folder::new();
    let kiln = folder.open();
    let conn = stranger(&folder.db());
    conn.execute_batch(
        "INSERT INTO kiln_jobs (worker, state, args, tags, errors, attempt, priority)
         VALUES ('w', 'strange', '{\"half', 'vip', 'half a', -3, 'high')",
    )
    .unwrap();
    let job = get(&kiln, 1);
    assert_eq!(job.state, State::Unknown);
    assert_eq!(job.to_string(), "Job(id=1, worker=w, args={\"half, queue=default, state=unknown)");
    assert_eq!(job.tags, ["vip"]);
    assert_eq!(job.errors[0].error, "half a");
    assert_eq!((job.attempt, job.priority), (-3, 0));
    assert!(job.args.decode::<Value>().unwrap_err().is_malformed());
}

#[test]
fn a_row_of_unknown_state_is_left_alone_by_all_but_delete() {
    let folder = Folder::new();
    let kiln = folder.open();
    let conn = stranger(&folder.db());
    conn.execute_batch("INSERT INTO kiln_jobs (worker, state) VALUES ('w', 'strange')").unwrap();
    assert_eq!(kiln.cancel(1).unwrap(), 0);
    assert_eq!(kiln.retry(1).unwrap(), 0);
    assert_eq!(kiln.update(1, Changes::new().priority(1)).unwrap(), 0);
    assert_eq!(kiln.update(1, |_: &Job| Changes::new().priority(1)).unwrap(), 0);
    let row: (String, i64) =
        conn.query_row("SELECT state, priority FROM kiln_jobs", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(row, ("strange".into(), 0));
    assert_eq!(kiln.delete(1).unwrap(), 1);
}

#[test]
fn odd_rows_do_not_stop_other_jobs() {
    let folder = Folder::new();
    let kiln = folder.open();
    let conn = stranger(&folder.db());
    let odd: Vec<i64> = ["available", "scheduled", "retryable", "executing"]
        .iter()
        .flat_map(|state| write_odd_rows(&conn, state))
        .collect();
    let ran = AtomicU64::new(0);
    let ran: &'static AtomicU64 = Box::leak(Box::new(ran));
    let runtime = kiln
        .runtime()
        .queue("odd", 2)
        .queue("default", 1)
        .worker_fn("w", |job: &Running<Value>| match job.args.get("good") {
            Some(_) => {
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            None => Err("odd"),
        })
        .start()
        .unwrap();
    let new = |n: u32| NewJob::new("w").queue(["odd", "default"][n as usize % 2]).args(json!({ "good": n }));
    let mut good = ids(&kiln.enqueue_many((0..20).map(new)).unwrap());
    good.extend(ids(&kiln.enqueue_many((0..4).map(|n| new(n).schedule_in(ms(20)))).unwrap()));
    for id in &good {
        reaches(&kiln, *id, State::Completed);
    }
    assert_eq!(ran.load(Ordering::SeqCst), 24);

    runtime.stop();
    // They can be operated on, and got rid of.
    kiln.cancel(odd.clone()).unwrap();
    kiln.retry(odd.clone()).unwrap();
    kiln.cancel(odd.clone()).unwrap();
    kiln.delete(odd).unwrap();
    let rest = kiln.list(Filter::new().limit(10_000)).unwrap();
    assert!(rest.iter().all(|job| good.contains(&job.id) || job.state == State::Executing), "{rest:?}");
}

#[test]
fn an_executing_row_is_rescued_however_odd_it_is() {
    let folder = Folder::new();
    let kiln = folder.open();
    let conn = stranger(&folder.db());
    let odd = write_odd_rows(&conn, "executing");
    // One that was never claimed at all.
    conn.execute_batch("INSERT INTO kiln_jobs (worker, state) VALUES ('w', 'executing')").unwrap();
    let hand = Hand::new(&kiln, ["w"]);
    let until = Instant::now() + DEADLINE;
    let stuck = loop {
        hand.rescue().unwrap();
        let stuck = kiln.list(Filter::new().state(State::Executing).limit(1000)).unwrap();
        if stuck.is_empty() || Instant::now() > until {
            break stuck;
        }
        thread::sleep(ms(50));
    };
    let stuck: Vec<_> = stuck.iter().map(|job| (job.id, job.attempt, job.attempted_at)).collect();
    assert!(stuck.is_empty(), "{} of {} rows are stuck: {stuck:?}", stuck.len(), odd.len() + 1);
}

// The handle itself.

#[test]
fn a_handle_is_cheap_to_clone_and_shared_by_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Kiln>();
    everywhere(|kiln| {
        let clones: Vec<Kiln> = (0..1000).map(|_| kiln.clone()).collect();
        let id = clones[999].enqueue(NewJob::new("w")).unwrap().id;
        drop(clones);
        assert_eq!(get(&kiln, id).id, id);
        assert_eq!(kiln.health().unwrap().runtimes, []);
    });
}

#[test]
fn two_handles_in_memory_share_nothing() {
    let (one, other) = (Kiln::in_memory().unwrap(), Kiln::in_memory().unwrap());
    one.enqueue(NewJob::new("w")).unwrap();
    assert_eq!((one.count(Filter::new()).unwrap().total(), other.count(Filter::new()).unwrap().total()), (1, 0));
}

#[test]
fn jobs_for_unknown_workers_are_counted_in_health() {
    everywhere(|kiln| {
        kiln.enqueue_many((0..3).map(|_| NewJob::new("ghost"))).unwrap();
        kiln.enqueue(NewJob::new("spook").queue("q")).unwrap();
        kiln.enqueue(NewJob::new("spook").state(State::Suspended)).unwrap();
        let expected = BTreeMap::from([("ghost".to_owned(), 3), ("spook".to_owned(), 1)]);
        assert_eq!(kiln.health().unwrap().unknown_workers, expected);
    });
}

#[test]
fn no_id_is_given_twice_by_two_who_store_and_delete_on_the_same_file() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    let kilns = [(); 2].map(|()| folder.open());
    let (mut given, mut newest) = (HashSet::new(), 0);
    for step in 0..400 {
        let kiln = &kilns[dice.usize(..2)];
        let job = || NewJob::new("app.Worker");
        let stored = match dice.u8(..8) {
            0..2 => vec![kiln.enqueue(job()).unwrap()],
            2 => vec![kiln.enqueue(job().args(json!({ "n": step })).unique(Unique::new())).unwrap()],
            3 => kiln.enqueue_many((0..dice.u32(1..7)).map(|n| job().priority(n.into()))).unwrap(),
            4 => vec![kiln.enqueue(job().schedule_in(Duration::from_secs(3600))).unwrap()],
            // Of the newest some, or all there are.
            5 if dice.bool() => {
                kiln.delete(Filter::new()).unwrap();
                vec![]
            }
            _ => {
                kiln.delete((newest - dice.i64(0..4)..=newest).collect::<Vec<i64>>()).unwrap();
                vec![]
            }
        };
        for job in stored {
            assert!(given.insert(job.id), "{} was given twice, the second time in step {step}", job.id);
            assert!(job.id > newest, "{} was given after {newest}", job.id);
            newest = job.id;
        }
    }
    assert!(given.len() > 200, "{} jobs were stored", given.len());
}
