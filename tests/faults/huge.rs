//! Rows far larger than any that kiln writes. By itself each takes time and memory, and harms nobody.
//!
//! They have 5 MB; with `KILN_LONG=1` they have 100 MB each.

use std::io::Write;
use std::time::Duration;

use kiln::{Changes, Failure, Filter, Job, Kiln, NewJob, Outcome, Running, State};
use rusqlite::Connection;

use crate::common::{Folder, Gate, Meter, Other, count, other_process_for, reaches, say, stranger, until};
use crate::story::whole;
use crate::{long, report};

fn bytes() -> usize {
    if long() { 100_000_000 } else { 5_000_000 }
}

/// A text of so many bytes as SQL: the part again and again.
fn repeated(part: &str, bytes: usize) -> String {
    format!("replace(hex(zeroblob({})), '00', '{part}')", bytes / part.len())
}

/// What a column is given, and which.
fn columns() -> Vec<(&'static str, &'static str, String)> {
    let text = repeated("ab", bytes());
    let record = |text: &str| format!("'{{\"recorded\":true,\"return\":\"' || {text} || '\"}}'");
    vec![
        ("args", "args", format!("'{{\"text\":\"' || {text} || '\"}}'")),
        ("args of many numbers", "args", format!("'{{\"n\":[' || {} || '0]}}'", repeated("1,", bytes() / 10))),
        ("args that are half a text", "args", format!("'{{\"text\":\"' || {text}")),
        ("meta", "meta", format!("'{{\"text\":\"' || {text} || '\"}}'")),
        ("a recorded value", "meta", record(&text)),
        ("tags", "tags", format!("'[\"' || {text} || '\"]'")),
        ("many tags", "tags", format!("'[' || {} || '\"a\"]'", repeated("\"b\",", bytes() / 10))),
        ("an error", "errors", format!("'[{{\"attempt\":1,\"error\":\"' || {text} || '\"}}]'")),
        ("many errors", "errors", format!("'[' || {} || '{{}}]'", repeated("{},", bytes()))),
        ("a checkpoint", "checkpoint", text.clone()),
        ("a blob as a worker", "worker", format!("zeroblob({})", bytes())),
        ("a queue", "queue", text),
    ]
}

fn insert(conn: &Connection, column: &str, value: &str) -> i64 {
    let names = if column == "worker" { "worker".to_owned() } else { format!("worker, {column}") };
    let values = if column == "worker" { value.to_owned() } else { format!("'w', {value}") };
    conn.execute_batch(&format!("INSERT INTO kiln_jobs ({names}) VALUES ({values})")).unwrap();
    conn.last_insert_rowid()
}

/// Counts what is written to it.
#[derive(Default)]
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// It is listed, exported, diagnosed, and updated as far as it may be.
fn is_shown_and_updated(kiln: &Kiln, id: i64, what: &str) {
    assert_eq!(kiln.list(Filter::new().limit(10)).unwrap().len(), 1);
    let mut exported = Counter::default();
    assert_eq!(kiln.export_with_secrets(&mut exported, Filter::new()).unwrap(), 1);
    // Of many errors a failure keeps a few.
    assert!(exported.0 > bytes() / 20 || what == "many errors", "{what}: {} bytes", exported.0);
    let diagnosis = kiln.diagnose().unwrap();
    assert_eq!(diagnosis.of(kiln::Problem::Damaged).count(), 0, "{what}: {diagnosis}");
    assert_eq!(kiln.health().unwrap().runtimes.len(), 1);
    // Within its limit of args and meta an update goes on, beyond it says so.
    let sound = kiln.update(id, Changes::new().priority(2));
    let too_large = |error: kiln::Error| error.is_invalid() && error.to_string().contains("max_payload");
    assert!(sound.is_ok_and(|count| count == 1), "{what}");
    let updated = kiln.update(id, |_: &Job| Changes::new().priority(3));
    assert!(updated.map_or_else(too_large, |count| count == 1), "{what}");
}

#[test]
fn a_huge_row_does_what_others_do_or_says_why_not_and_stops_nobody() {
    let folder = Folder::new();
    let kiln = folder.open();
    // Fails at first, and completes when it is retried.
    let worker = |job: &Running<serde_json::Value>| match job.attempt {
        1 => Err(Failure::from("the first time")),
        _ => Ok(Outcome::Complete),
    };
    let runtime = kiln.runtime().queue("default", 2).worker_fn("w", worker).start().unwrap();
    let healthy = |kiln: &Kiln| {
        let job = kiln.enqueue(NewJob::new("w").max_attempts(1)).unwrap();
        reaches(kiln, job.id, State::Discarded);
        kiln.delete(job.id).unwrap();
    };
    let mut seen = 0;
    for (what, column, value) in columns() {
        println!("{what}");
        let id = insert(&stranger(&folder.db()), column, &value);
        healthy(&kiln);
        let state = || kiln.count(Filter::new()).unwrap();
        let runs = !["queue", "worker"].contains(&column);
        if runs {
            until("its first attempt fails", || state().state(State::Retryable) == 1);
        }
        let job = kiln.get(id).unwrap().unwrap();
        // Arguments that are no JSON, and no others, are an error of the attempt.
        let last = job.errors.last().map_or("", |last| &last.error);
        let odd = what == "args that are half a text";
        assert!(!runs || last.contains(if odd { "JSON" } else { "the first time" }), "{what}: {last:.100}");
        assert_eq!(job.recorded::<serde_json::Value>().is_err(), what == "a recorded value", "{what}");
        assert!(job.to_string().len() + format!("{job:?}").len() > 100);
        drop(job);
        is_shown_and_updated(&kiln, id, what);
        assert_eq!(kiln.cancel(id).unwrap(), 1, "{what}");
        assert_eq!(kiln.retry(id).unwrap(), 1, "{what}");
        if runs {
            let end = if odd { State::Retryable } else { State::Completed };
            until("it runs once more", || state().state(end) == 1);
        }
        assert_eq!(kiln.delete(Filter::new().states(State::ALL)).unwrap(), 1, "{what}");
        healthy(&kiln);
        seen += 1;
    }
    assert_eq!(runtime.stop().unwritten, 0);
    whole(&folder.db());
    report(
        format!("rows of {} MB: in args, meta, tags, errors, a recorded value and others", bytes() / 1_000_000),
        seen,
        "each ran, was shown, exported, updated, cancelled, retried and deleted; where it could not run, that was its error",
    );
}

/// Jobs that take no time are claimed by the hundred, ahead of the thread that does them, until they become huge.
#[test]
fn of_huge_jobs_only_a_few_are_claimed_ahead() {
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, meter) = (Gate::default(), Meter::default());
    let worker = {
        let (gate, meter) = (gate.clone(), meter.clone());
        move |job: &Running<serde_json::Value>| {
            if job.args.get("text").is_some() {
                let _inside = meter.enter();
                gate.pass();
            }
        }
    };
    let quick = kiln.enqueue_many((0..300).map(|_| NewJob::new("w"))).unwrap();
    let conn = stranger(&folder.db());
    conn.execute_batch("BEGIN").unwrap();
    let value = format!("'{{\"text\":\"' || {} || '\"}}'", repeated("ab", 3_000_000));
    let huge: Vec<i64> = (0..30).map(|_| insert(&conn, "args", &value)).collect();
    conn.execute_batch("COMMIT").unwrap();
    // What waits for the thread is given back after a while: not before it was seen.
    let builder = kiln.runtime().queue("default", 1).claim_ahead(Duration::from_secs(3600)).worker_fn("w", worker);
    let runtime = builder.start().unwrap();
    quick.iter().for_each(|job| drop(reaches(&kiln, job.id, State::Completed)));
    until("a huge one runs", || meter.inside() == 1);
    // It has a thread. 8 MiB came with the last of the quick ones, and as much before that was noticed.
    let executing = count(&kiln, State::Executing);
    assert!((1..=8).contains(&executing), "{executing} of 3 MB are in memory");
    gate.open();
    until("all have run", || count(&kiln, State::Completed) == (quick.len() + huge.len()) as u64);
    runtime.stop();
    report(
        "30 jobs of 3 MB wait behind 300 that take no time",
        1,
        "one ran and no more than seven were in memory beside it",
    );
}

/// The library that reads them may have less memory than a row needs.
#[test]
fn a_row_that_does_not_fit_into_the_memory_there_is_stops_no_other() {
    const NAME: &str = "huge::a_row_that_does_not_fit_into_the_memory_there_is_stops_no_other";
    if let Some(folder) = other_process_for() {
        let kiln = Kiln::open(folder.join("jobs.db")).unwrap();
        stranger(&folder.join("jobs.db")).query_row("PRAGMA hard_heap_limit = 20000000", [], |_| Ok(())).unwrap();
        let error = kiln.get(1).unwrap_err().to_string();
        assert!(error.contains("out of memory"), "{error}");
        let runtime =
            kiln.runtime().queue("default", 2).worker_fn("w", |_: &Running<serde_json::Value>| ()).start().unwrap();
        until("the others have run", || count(&kiln, State::Completed) == 5);
        let later = kiln.enqueue(NewJob::new("w")).unwrap();
        reaches(&kiln, later.id, State::Completed);
        assert_eq!(count(&kiln, State::Available), 1, "it stays where it is");
        assert_eq!(runtime.stop().unwritten, 0);
        return say("done");
    }
    let folder = Folder::new();
    let kiln = folder.open();
    let conn = stranger(&folder.db());
    let huge = insert(&conn, "args", &format!("'{{\"text\":\"' || {} || '\"}}'", repeated("ab", 30_000_000)));
    for _ in 0..5 {
        kiln.enqueue(NewJob::new("w")).unwrap();
    }
    drop(conn);
    assert_eq!(Other::start(NAME, &folder).hear(), "done");
    // Where there is more memory it is a job like any other.
    let runtime =
        kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<serde_json::Value>| ()).start().unwrap();
    until("it has run", || count(&kiln, State::Completed) == 7);
    assert_eq!(kiln.get(huge).unwrap().unwrap().attempt, 1);
    runtime.stop();
    whole(&folder.db());
    report(
        "a row of 30 MB where SQLite may have 20 MB of memory",
        1,
        "reading it is an error that says so, 6 others ran; with more memory it ran as well",
    );
}
