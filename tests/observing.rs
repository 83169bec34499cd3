//! Events, hooks, and what the features `tracing` and `metrics` tell.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use kiln::{Event, Failure, Kiln, NewJob, Outcome, Running, State};
use parking_lot::Mutex;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

/// Stages three jobs, updates the first, rescues the first two, of which the second has no attempt left, cancels, retries
/// and deletes the third, and prunes the second.
#[cfg(all(feature = "testing", any(feature = "tracing", feature = "metrics")))]
fn every_verb(queue: &str) {
    use kiln::testing::{Hand, ManualClock};
    let minute = Duration::from_secs(60);
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let job = |attempts| {
        let job = NewJob::new("w").queue(queue).max_attempts(attempts).schedule_in(minute);
        job.args(json!({ "note": "hunter2" }))
    };
    kiln.enqueue_many([job(9), job(1), job(9)]).unwrap();
    clock.advance(minute);
    let hand = Hand::new(&kiln, ["w"]);
    hand.stage(&[queue]).unwrap();
    kiln.update(1, kiln::Changes::new().priority(0)).unwrap();
    assert_eq!(hand.claim(queue, 2).unwrap().len(), 2);
    assert_eq!(Hand::new(&kiln, ["w"]).rescue().unwrap(), 2);
    kiln.cancel(3).unwrap();
    kiln.retry(3).unwrap();
    kiln.delete(3).unwrap();
    clock.advance(minute);
    assert_eq!(hand.prune(minute).unwrap(), 1);
}

#[test]
fn a_job_s_life_is_told_verb_by_verb() {
    let (told, events) = mpsc::channel();
    let kiln = Kiln::memory_builder().observe(move |event| told.send(event.clone()).unwrap()).open().unwrap();
    let runtime = kiln
        .runtime()
        .queue("mailers", 1)
        .worker_fn("mailer", |job: &Running<Value>| match job.attempt {
            1 => Err(Failure::from("no route\nto host")),
            _ => Ok(()),
        })
        .start()
        .unwrap();
    let id = kiln.enqueue(NewJob::new("mailer").queue("mailers").args(json!({ "secret": "hunter2" }))).unwrap().id;
    let mut lines = Vec::new();
    for event in events.iter() {
        let line = event.to_string();
        assert!(!line.contains("hunter2"), "arguments do not belong into logs: {line}");
        lines.push(line);
        match &event {
            Event::Acked { state: Some(State::Retryable), .. } => {
                kiln.retry(id).unwrap();
            }
            Event::Acked { state: Some(State::Completed), .. } => break,
            _ => {}
        }
    }
    runtime.stop();
    kiln.delete(id).unwrap();
    lines.extend(events.try_iter().map(|event| event.to_string()));
    let names: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let expected = ["enqueued", "claimed", "executed", "acked", "retried", "claimed", "executed", "acked", "deleted"];
    // The enqueue's own event may come after those of a thread that was faster, and so may the retry's.
    let sorted = |names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&names), sorted(&expected), "{lines:#?}");
    let failed = lines.iter().find(|line| line.contains("error=")).unwrap();
    assert!(failed.starts_with("executed job=1 queue=mailers worker=mailer attempt=1 queue_time="), "{failed}");
    assert!(failed.ends_with(r#"error="no route""#), "{failed}");
}

#[test]
fn an_observer_that_panics_harms_nothing_and_nobody() {
    let (told, events) = mpsc::channel();
    let kiln = Kiln::memory_builder()
        .observe(|_| panic!("this observer always panics"))
        .observe(move |event| told.send(event.name()).unwrap())
        .open()
        .unwrap();
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<Value>| ()).start().unwrap();
    let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
    assert_eq!(kiln.wait(id, LONG).unwrap().unwrap().state, State::Completed);
    runtime.stop();
    assert!(events.try_iter().any(|name| name == "acked"));
}

#[test]
fn hooks_see_and_change_every_job_in_the_order_they_were_given() {
    let kiln = Kiln::memory_builder()
        .after_new(|job| job.tags.push(format!("From {}", job.extra["who"].as_str().unwrap())))
        .after_new(|job| job.priority += job.tags.len() as i64)
        .open()
        .unwrap();
    let job = kiln.enqueue(NewJob::new("w").extra("who", "Ada").priority(3)).unwrap();
    assert_eq!((job.tags.as_slice(), job.priority), (["from ada".to_owned()].as_slice(), 4));
    let jobs = kiln.enqueue_many((0..3).map(|_| NewJob::new("w").extra("who", "Bob"))).unwrap();
    assert!(jobs.iter().all(|job| job.tags == ["from bob"]));
    let refused = kiln.enqueue(NewJob::new("w").extra("who", "Eve").priority(9)).unwrap_err();
    assert_eq!(refused.field(), Some("priority"), "what a hook makes of a job is validated");
}

#[test]
fn hooks_around_a_job_nest_and_may_replace_what_came_of_it() {
    let kiln = Kiln::in_memory().unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let steps = Arc::clone(&steps);
        move |what: &str| steps.lock().push(format!("{name} {what}"))
    };
    let (outer, inner, work) = (note("outer"), note("inner"), note("work"));
    let runtime = kiln
        .runtime()
        .around(move |job, run| {
            outer("in");
            let outcome = run();
            outer("out");
            if job.args == json!({ "fail": true }) { Ok(Outcome::cancel("the hook says so")) } else { outcome }
        })
        .around(move |_, run| {
            inner("in");
            let outcome = run();
            inner("out");
            outcome
        })
        .worker_fn("w", move |job: &Running<Value>| {
            work("done");
            if job.args["fail"] == true { Err(Failure::from("failed")) } else { Ok(()) }
        })
        .start()
        .unwrap();
    let done = kiln.enqueue(NewJob::new("w").args(json!({ "fail": false }))).unwrap().id;
    assert_eq!(kiln.wait(done, LONG).unwrap().unwrap().state, State::Completed);
    assert_eq!(*steps.lock(), ["outer in", "inner in", "work done", "inner out", "outer out"]);
    let failed = kiln.enqueue(NewJob::new("w").args(json!({ "fail": true }))).unwrap().id;
    assert_eq!(kiln.wait(failed, LONG).unwrap().unwrap().state, State::Cancelled);
    runtime.stop();
}

#[test]
fn a_hook_that_panics_is_an_error_of_the_job() {
    let kiln = Kiln::in_memory().unwrap();
    let runtime = kiln
        .runtime()
        .around(|_, _| panic!("the hook is broken"))
        .worker_fn("w", |_: &Running<Value>| ())
        .start()
        .unwrap();
    let id = kiln.enqueue(NewJob::new("w").max_attempts(1)).unwrap().id;
    let job = kiln.wait(id, LONG).unwrap().unwrap();
    assert_eq!(job.state, State::Discarded);
    assert!(job.errors[0].error.contains("the hook is broken"));
    runtime.stop();
}

#[cfg(feature = "tracing")]
mod traced {
    use std::sync::OnceLock;

    use std::fmt::{Debug, Write};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Metadata, Subscriber};

    use super::*;

    /// Writes every span and event down as a line.
    struct Scribe(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }

    impl Subscriber for Scribe {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "kiln"
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut line = Line("span".to_owned());
            span.record(&mut line);
            self.0.lock().push(line.0);
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().push(line.0);
        }

        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// What is written by this process: a subscriber is set once.
    fn subscribe() -> Arc<Mutex<Vec<String>>> {
        static LINES: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
        let set = || {
            let lines = Arc::default();
            tracing::subscriber::set_global_default(Scribe(Arc::clone(&lines))).unwrap();
            lines
        };
        Arc::clone(LINES.get_or_init(set))
    }

    #[test]
    fn spans_and_events_have_stable_fields_and_no_arguments() {
        let lines = subscribe();
        let kiln = Kiln::in_memory().unwrap();
        let runtime = kiln.runtime().queue("traced", 1).worker_fn("scribe", |_: &Running<Value>| ()).start().unwrap();
        let job = NewJob::new("scribe").queue("traced").args(json!({ "secret": "hunter2" }));
        let id = kiln.enqueue(job).unwrap().id;
        kiln.wait(id, LONG).unwrap().unwrap();
        runtime.stop();
        // What does not fit is told without its value.
        let runtime = kiln.runtime().queue("traced", 1).worker_fn("scribe", |_: &Running<u64>| ()).start().unwrap();
        let misfit = NewJob::new("scribe").queue("traced").args(json!({ "secret": "hunter2" })).max_attempts(1);
        let id = kiln.enqueue(misfit).unwrap().id;
        let misfit = kiln.wait(id, LONG).unwrap().unwrap();
        assert!(misfit.errors[0].error.contains("expected u64"));
        runtime.stop();
        let lines: Vec<String> = lines.lock().iter().filter(|line| line.contains("\"traced\"")).cloned().collect();
        assert!(lines.iter().any(|line| line.contains("args cannot be decoded for worker")), "{lines:#?}");
        assert!(lines.contains(&r#"span id=1 queue="traced" worker="scribe" attempt=1"#.to_owned()), "{lines:#?}");
        let acked = r#"INFO event="acked" id=1 queue="traced" worker="scribe" attempt=1 state="completed" queue_time="#;
        assert!(lines.iter().any(|line| line.starts_with(acked) && line.contains(" run_time=")), "{lines:#?}");
        let discarded = r#"ERROR event="acked" id=2 queue="traced" worker="scribe" attempt=1 state="discarded" "#;
        assert!(
            lines.iter().any(|line| line.starts_with(discarded) && line.contains(" error=\"args cannot")),
            "{lines:#?}"
        );
        assert!(!lines.iter().any(|line| line.contains("hunter2")));
    }

    /// The other verbs, in a queue of their own: both tests are told what either does.
    #[cfg(feature = "testing")]
    #[test]
    fn every_verb_is_told_with_the_job_s_fields_and_those_on_many_jobs_do_not_flood_the_log() {
        let lines = subscribe();
        every_verb("hands");
        let mut lines: Vec<String> =
            lines.lock().iter().filter(|line| line.contains("\"hands\"")).map(|line| without_error(line)).collect();
        lines.retain(|line| !line.contains("\"enqueued\"") && !line.contains("\"claimed\""));
        let job = |id: i64, attempt: i64| format!("id={id} queue=\"hands\" worker=\"w\" attempt={attempt}");
        let expected = [
            format!("TRACE event=\"staged\" {}", job(1, 0)),
            format!("TRACE event=\"staged\" {}", job(2, 0)),
            format!("TRACE event=\"staged\" {}", job(3, 0)),
            format!("DEBUG event=\"updated\" {}", job(1, 0)),
            format!("WARN event=\"rescued\" {} state=\"available\"", job(1, 1)),
            format!("ERROR event=\"rescued\" {} state=\"discarded\"", job(2, 1)),
            format!("DEBUG event=\"cancelled\" {} state=\"cancelled\"", job(3, 0)),
            format!("DEBUG event=\"retried\" {}", job(3, 0)),
            format!("DEBUG event=\"deleted\" {}", job(3, 0)),
            format!("TRACE event=\"pruned\" {} state=\"discarded\"", job(2, 1)),
        ];
        assert_eq!(lines, expected);
    }

    fn without_error(line: &str) -> String {
        assert!(!line.contains("hunter2"), "{line}");
        line.split(" error=").next().unwrap().to_owned()
    }
}

#[cfg(feature = "metrics")]
mod measured {
    use std::sync::OnceLock;

    use metrics::{
        Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;

    struct Sink(Arc<Mutex<Vec<String>>>);
    struct Cell(String, Arc<Mutex<Vec<String>>>);

    impl CounterFn for Cell {
        fn increment(&self, value: u64) {
            self.1.lock().push(format!("{} +{value}", self.0));
        }
        fn absolute(&self, _: u64) {}
    }

    impl HistogramFn for Cell {
        fn record(&self, _: f64) {
            self.1.lock().push(self.0.clone());
        }
    }

    impl Sink {
        fn cell(&self, key: &Key) -> Arc<Cell> {
            let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            Arc::new(Cell(format!("{}{{{}}}", key.name(), labels.join(",")), Arc::clone(&self.0)))
        }
    }

    impl Recorder for Sink {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.cell(key))
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.cell(key))
        }
    }

    /// What is counted in this process: a recorder is set once.
    fn record() -> Arc<Mutex<Vec<String>>> {
        static TOLD: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
        let set = || {
            let told = Arc::default();
            metrics::set_global_recorder(Sink(Arc::clone(&told))).map_err(|_| "a recorder is set").unwrap();
            told
        };
        Arc::clone(TOLD.get_or_init(set))
    }

    #[cfg(feature = "testing")]
    #[test]
    fn every_verb_counts_the_jobs_it_concerned_by_queue_and_worker() {
        let told = record();
        every_verb("counted");
        let mut counts = std::collections::BTreeMap::new();
        for line in told.lock().iter().filter(|line| line.contains("queue=counted") && line.ends_with(" +1")) {
            *counts.entry(line.clone()).or_insert(0) += 1;
        }
        let counted = |event: &str, more: &str| {
            counts.get(&format!("kiln_{event}_total{{queue=counted,worker=w{more}}} +1")).copied().unwrap_or(0)
        };
        assert_eq!((counted("staged", ""), counted("updated", ""), counted("claimed", "")), (3, 1, 2), "{counts:#?}");
        assert_eq!((counted("retried", ""), counted("deleted", "")), (1, 1), "{counts:#?}");
        assert_eq!(counted("cancelled", ",state=cancelled"), 1, "{counts:#?}");
        assert_eq!(counted("rescued", ",state=available"), 1, "{counts:#?}");
        assert_eq!(counted("rescued", ",state=discarded"), 1, "{counts:#?}");
        assert_eq!(counted("pruned", ",state=discarded"), 1, "{counts:#?}");
    }

    #[test]
    fn counters_and_histograms_come_by_queue_worker_and_state() {
        let told = record();
        let kiln = Kiln::in_memory().unwrap();
        let runtime = kiln.runtime().queue("measured", 1).worker_fn("m", |_: &Running<Value>| ()).start().unwrap();
        let id = kiln.enqueue(NewJob::new("m").queue("measured")).unwrap().id;
        kiln.wait(id, LONG).unwrap().unwrap();
        runtime.stop();
        let told = told.lock();
        for expected in [
            "kiln_enqueued_total{queue=measured,worker=m} +1",
            "kiln_acked_total{queue=measured,worker=m,state=completed} +1",
            "kiln_run_seconds{queue=measured,worker=m}",
            "kiln_queue_seconds{queue=measured,worker=m}",
        ] {
            assert!(told.iter().any(|line| line == expected), "{expected} in {told:#?}");
        }
    }
}
