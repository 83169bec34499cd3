//! Every verb on a job in every state, on the real file, held to the transition table below.
//!
//! Each cell is run on a file with eight bystanders, one in each state, whose columns differ from the job's and from
//! each other's. All rows are compared as they are stored: what the table does not name must not change.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use kiln::testing::{Hand, ManualClock};
use kiln::{Changes, Durability, Filter, Job, Jobs, Kiln, NewJob, Outcome, State};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};

const STATES: [&str; 8] =
    ["available", "scheduled", "executing", "retryable", "completed", "discarded", "cancelled", "suspended"];
/// A state that something else wrote. Such a job can be seen and deleted, and no more.
const STRANGE: &str = "on holiday";

/// One line of the table: a verb, what it is done to, and what becomes of it. Where no line fits, nothing changes, and
/// the verb says so.
struct Line {
    verb: &'static str,
    from: &'static [&'static str],
    left: Option<bool>,
    asked: Option<bool>,
    to: &'static str,
    /// The columns that change besides the state.
    and: &'static [Change],
}

enum Change {
    Now(&'static str),
    /// So many seconds from now.
    In(&'static str, i64),
    Null(&'static str),
    By(&'static str, i64),
    Is(&'static str, &'static str),
    IsNumber(&'static str, i64),
    /// At least one more than the attempt.
    AboveAttempt(&'static str),
    /// The entry of meta is raised by one, is this JSON, is now.
    MetaCounts(&'static str),
    Meta(&'static str, &'static str),
    MetaNow(&'static str),
    /// The errors have one more entry, of now and of this attempt, with these words in it.
    Error(&'static str),
    /// The attempt belongs to a runtime of this node.
    Mine,
}

use Change::{AboveAttempt, By, Error, In, Is, IsNumber, Meta, MetaCounts, MetaNow, Mine, Now, Null};

const EXECUTING: &[&str] = &["executing"];
const GIVEN_BACK: Change = By("attempt", -1);
const COMPLETED: Change = Now("completed_at");
const CANCELLED: Change = Now("cancelled_at");
const DISCARDED: Change = Now("discarded_at");
const FORGOTTEN: Change = Null("checkpoint");
const RESCUED: Change = MetaCounts("rescued");
const DEAD: Change = Error("abandoned");
const ANY: Option<bool> = None;
/// Attempts are left; none are.
const LEFT: Option<bool> = Some(true);
const SPENT: Option<bool> = Some(false);
/// Somebody asked to cancel the job; nobody did.
const ASKED: Option<bool> = Some(true);
const UNASKED: Option<bool> = Some(false);
const GONE: &str = "gone";
const SAME: &str = "the same";

#[rustfmt::skip]
const NEWS: &[Change] =
    &[Is("args", r#"{"new":1}"#), Is("meta", r#"{"new":2}"#), Is("tags", r#"["a","b"]"#), Is("queue", "elsewhere"),
      Is("worker", "app.Other"), IsNumber("max_attempts", 77), IsNumber("priority", 9)];

#[rustfmt::skip]
const TABLE: &[Line] = &[
    line("stage", &["scheduled", "retryable"], ANY, ANY, "available", &[]),
    line("claim", &["available"], LEFT, ANY, "executing", &[By("attempt", 1), Now("attempted_at"), Mine]),
    line("expire", &["available"], LEFT, ANY, "cancelled", &[CANCELLED, Error("expired")]),

    line("complete", EXECUTING, ANY, ANY, "completed", &[COMPLETED, FORGOTTEN]),
    line("record", EXECUTING, ANY, ANY, "completed", &[COMPLETED, FORGOTTEN, Meta("recorded", "true"), Meta("return", "\"g2EH\"")]),
    line("snooze", EXECUTING, ANY, UNASKED, "scheduled",
        &[GIVEN_BACK, In("scheduled_at", 30), MetaCounts("snoozed"), Meta("why", "\"busy\"")]),
    line("snooze", EXECUTING, ANY, ASKED, "cancelled",
        &[GIVEN_BACK, CANCELLED, MetaCounts("snoozed"), Meta("why", "\"busy\"")]),
    line("end as cancelled", EXECUTING, ANY, ANY, "cancelled", &[CANCELLED, Error("no more")]),
    line("fail", EXECUTING, LEFT, UNASKED, "retryable", &[In("scheduled_at", 60), Error("boom")]),
    line("fail", EXECUTING, SPENT, UNASKED, "discarded", &[DISCARDED, Error("boom")]),
    line("fail", EXECUTING, ANY, ASKED, "cancelled", &[CANCELLED, Error("boom")]),
    line("discard", EXECUTING, ANY, UNASKED, "discarded", &[DISCARDED, Error("hopeless")]),
    line("discard", EXECUTING, ANY, ASKED, "cancelled", &[CANCELLED, Error("hopeless")]),
    line("release", EXECUTING, ANY, UNASKED, "available", &[GIVEN_BACK]),
    line("release", EXECUTING, ANY, ASKED, "cancelled", &[GIVEN_BACK, CANCELLED]),

    line("abandon", EXECUTING, LEFT, UNASKED, "available", &[RESCUED, DEAD]),
    line("abandon", EXECUTING, LEFT, ASKED, "cancelled", &[RESCUED, DEAD, CANCELLED]),
    line("abandon", EXECUTING, SPENT, UNASKED, "discarded", &[DEAD, DISCARDED]),
    line("abandon", EXECUTING, SPENT, ASKED, "cancelled", &[DEAD, CANCELLED]),
    line("rescue", EXECUTING, LEFT, UNASKED, "available", &[RESCUED, DEAD]),
    line("rescue", EXECUTING, LEFT, ASKED, "cancelled", &[RESCUED, DEAD, CANCELLED]),
    line("rescue", EXECUTING, SPENT, UNASKED, "discarded", &[DEAD, DISCARDED]),
    line("rescue", EXECUTING, SPENT, ASKED, "cancelled", &[DEAD, CANCELLED]),
    // It can never be claimed; a rescue takes it along, whoever else it finds.
    line("rescue", &["available"], SPENT, ANY, "discarded", &[DISCARDED]),
    line("rescue of the living", &["available"], SPENT, ANY, "discarded", &[DISCARDED]),

    line("cancel", &["available", "scheduled", "retryable", "suspended"], ANY, ANY, "cancelled",
        &[CANCELLED, MetaNow("cancel_attempted_at")]),
    line("cancel", EXECUTING, ANY, UNASKED, SAME, &[Now("cancel_requested_at")]),
    line("cancel", EXECUTING, ANY, ASKED, SAME, &[]),
    line("retry", &["scheduled", "retryable", "suspended", "completed", "discarded", "cancelled"], ANY, ANY, "available",
        &[Now("scheduled_at"), AboveAttempt("max_attempts"), Null("completed_at"), Null("cancelled_at"),
          Null("discarded_at"), Null("cancel_requested_at"), Null("expires_at")]),
    line("delete", &["available", "scheduled", "retryable", "completed", "discarded", "cancelled", "suspended", STRANGE],
        ANY, ANY, GONE, &[]),
    // Every row here is due: a change of anything makes a scheduled one available, as in the reference.
    line("update", &["scheduled"], ANY, ANY, "available", NEWS),
    line("update", &["available", "executing", "retryable", "completed", "discarded", "cancelled", "suspended"],
        ANY, ANY, SAME, NEWS),
    line("postpone", &["available"], ANY, ANY, "scheduled", &[In("scheduled_at", 900)]),
    line("postpone", &["scheduled", "executing", "retryable", "completed", "discarded", "cancelled", "suspended"],
        ANY, ANY, SAME, &[In("scheduled_at", 900)]),
    line("bring forward", &["scheduled"], ANY, ANY, "available", &[Now("scheduled_at")]),
    line("bring forward", &["available", "executing", "retryable", "completed", "discarded", "cancelled", "suspended"],
        ANY, ANY, SAME, &[Now("scheduled_at")]),
    line("prune", &["completed", "cancelled", "discarded"], ANY, ANY, GONE, &[]),
];

const fn line(
    verb: &'static str,
    from: &'static [&'static str],
    left: Option<bool>,
    asked: Option<bool>,
    to: &'static str,
    and: &'static [Change],
) -> Line {
    Line { verb, from, left, asked, to, and }
}

/// A verb without a line does nothing to any job.
const NOTHING: &str = "nothing";

/// The answer of a verb that does not say what it did.
const UNSAID: u64 = u64::MAX;

const AGE: Duration = Duration::from_secs(10_000);
const MICROS: i64 = 1_000_000;

macro_rules! verbs {
    ($($test:ident: $verb:expr, $prepare:expr, $act:expr;)*) => {
        $(#[test]
        fn $test() {
            cells($verb, $prepare, $act);
        })*

        #[test]
        fn every_line_of_the_table_is_run() {
            let run = [$($verb),*];
            for Line { verb, .. } in TABLE {
                assert!(run.contains(verb), "{verb}");
            }
        }
    };
}

verbs! {
    staging_takes_jobs_that_are_due_to_the_microsecond:
        "stage", |row, now| row.set("scheduled_at", now), |place, _| place.hand().stage(&["queue0"]).unwrap();
    staging_leaves_jobs_that_are_not_due:
        NOTHING, |row, now| row.set("scheduled_at", now + 1), |place, _| place.hand().stage(&["queue0"]).unwrap();
    staging_leaves_other_queues:
        NOTHING, as_it_is, |place, _| place.hand().stage(&["queue", "queue00"]).unwrap();

    claiming_takes_available_jobs_with_an_attempt_left:
        "claim", as_it_is, |place, _| place.claim("app.Worker0", "queue0", 5);
    claiming_cancels_jobs_that_expired:
        "expire", |row, now| row.set("expires_at", now), |place, _| {
            assert_eq!(place.claim("app.Worker0", "queue0", 5), 0);
            UNSAID
        };
    claiming_takes_jobs_that_expire_next:
        "claim", |row, now| row.set("expires_at", now + 1), |place, _| place.claim("app.Worker0", "queue0", 5);
    claiming_leaves_jobs_of_unknown_workers:
        NOTHING, as_it_is, |place, _| place.claim("app.Worker", "queue0", 5);
    claiming_leaves_other_queues:
        NOTHING, as_it_is, |place, _| place.claim("app.Worker0", "queue", 5);
    claiming_none_takes_none:
        NOTHING, as_it_is, |place, _| place.claim("app.Worker0", "queue0", 0);

    an_executing_job_can_complete: "complete", as_it_is, |place, job| place.end(job, "complete");
    an_executing_job_can_record: "record", as_it_is, |place, job| place.end(job, "record");
    an_executing_job_can_snooze: "snooze", as_it_is, |place, job| place.end(job, "snooze");
    an_executing_job_can_cancel_itself: "end as cancelled", as_it_is, |place, job| place.end(job, "end as cancelled");
    an_executing_job_can_fail: "fail", as_it_is, |place, job| place.end(job, "fail");
    an_executing_job_can_be_discarded: "discard", as_it_is, |place, job| place.end(job, "discard");
    an_executing_job_can_be_released: "release", as_it_is, |place, job| place.end(job, "release");
    an_executing_job_can_be_abandoned: "abandon", as_it_is, |place, job| place.end(job, "abandon");
    acks_of_an_earlier_attempt_change_nothing:
        NOTHING, as_it_is, |place, job| place.end_all(job, |job| job.attempt -= 1);
    acks_of_a_later_attempt_change_nothing:
        NOTHING, as_it_is, |place, job| place.end_all(job, |job| job.attempt += 1);
    acks_of_an_earlier_claim_change_nothing:
        NOTHING, as_it_is, |place, job| place.end_all(job, |job| claimed(job, -1));
    acks_of_a_later_claim_change_nothing:
        NOTHING, as_it_is, |place, job| place.end_all(job, |job| claimed(job, 1));
    acks_of_a_job_that_is_gone_change_nothing:
        NOTHING, as_it_is, |place, job| place.end_all(job, |job| job.id = 4711);

    rescue_takes_the_jobs_of_the_dead:
        "rescue", as_it_is, |place, _| place.dies("runtime0").rescue().unwrap();
    rescue_leaves_the_jobs_of_the_living:
        "rescue of the living",
        |row, _| row.set("attempted_by", r#"["node0", "living"]"#),
        |place, _| place.hand().rescue().unwrap();
    rescue_by_age_takes_old_attempts:
        "rescue", |row, now| row.set("attempted_at", now - 10_000 * MICROS - 1),
        |place, _| place.hand().rescue_older(AGE).unwrap();
    rescue_by_age_leaves_young_attempts:
        "rescue of the living", |row, now| row.set("attempted_at", now - 10_000 * MICROS),
        |place, _| place.hand().rescue_older(AGE).unwrap();

    cancelling_stops_what_waits_and_asks_what_executes:
        "cancel", as_it_is, |place, job| place.kiln.cancel(job).unwrap();
    cancelling_by_filter_is_the_same: "cancel", as_it_is, |place, _| place.kiln.cancel(the_job()).unwrap();
    retrying_revives_all_but_available_and_executing_jobs:
        "retry", as_it_is, |place, job| place.kiln.retry(job).unwrap();
    retrying_by_filter_is_the_same: "retry", as_it_is, |place, _| place.kiln.retry(the_job()).unwrap();
    deleting_takes_all_but_executing_jobs: "delete", as_it_is, |place, job| place.kiln.delete(job).unwrap();
    deleting_by_filter_is_the_same: "delete", as_it_is, |place, _| place.kiln.delete(the_job()).unwrap();

    updating_changes_a_job_in_any_state: "update", as_it_is, |place, job| place.kiln.update(job, news()).unwrap();
    updating_by_filter_is_the_same: "update", as_it_is, |place, _| place.kiln.update(the_job(), news()).unwrap();
    updating_by_closure_is_the_same:
        "update", as_it_is, |place, job| place.kiln.update(job, |_: &Job| news()).unwrap();
    updating_by_closure_and_filter_is_the_same:
        "update", as_it_is, |place, _| place.kiln.update(the_job(), |_: &Job| news()).unwrap();
    a_later_due_time_makes_an_available_job_wait:
        "postpone", as_it_is,
        |place, job| place.kiln.update(job, Changes::new().schedule_in(Duration::from_secs(900))).unwrap();
    a_due_time_that_has_come_makes_a_scheduled_job_available:
        "bring forward", as_it_is,
        |place, job| place.kiln.update(job, Changes::new().scheduled_at(place.clock.now())).unwrap();
    a_refused_update_changes_nothing: NOTHING, as_it_is, |place, job| {
        let refused = place.kiln.update(job, news().priority(10));
        refused.unwrap_or_else(|error| if error.field() == Some("priority") { 0 } else { panic!("{error}") })
    };

    pruning_takes_jobs_that_ended_long_ago: "prune", |row, now| row.ended(now, 0, 1), prune;
    pruning_leaves_jobs_that_ended_a_while_ago: NOTHING, |row, now| row.ended(now, 1, -1), prune;
}

#[test]
fn enqueuing_adds_one_row_and_changes_no_other() {
    let place = Place::new();
    place.reset(&bystanders(&place));
    for (job, state, scheduled_at) in [
        (new_job(), "available", 0),
        (new_job().schedule_in(Duration::from_secs(5)), "scheduled", 5),
        (new_job().scheduled_at(place.clock.now()), "scheduled", 0),
        (new_job().state(State::Suspended), "suspended", 0),
        (new_job().state(State::Suspended).schedule_in(Duration::from_secs(5)), "suspended", 5),
        (new_job().state(State::Retryable).schedule_in(Duration::from_secs(5)), "retryable", 5),
        (new_job().state(State::Completed), "completed", 0),
    ] {
        let before = place.rows();
        let id = place.kiln.enqueue(job).unwrap().id;
        let mut after = place.rows();
        let now = place.now();
        let columns = [
            ("id", id.into()),
            ("state", text(state)),
            ("queue", text("new")),
            ("worker", text("app.New")),
            ("args", text(r#"{"a":1}"#)),
            ("meta", text(r#"{"m":2}"#)),
            ("tags", text(r#"["t"]"#)),
            ("errors", text("[]")),
            ("attempt", 0.into()),
            ("max_attempts", 12.into()),
            ("priority", 3.into()),
            ("attempted_by", text("[]")),
            ("inserted_at", now.into()),
            ("scheduled_at", (now + scheduled_at * MICROS).into()),
            ("attempted_at", Sql::Null),
            ("completed_at", Sql::Null),
            ("cancelled_at", Sql::Null),
            ("discarded_at", Sql::Null),
            ("cancel_requested_at", Sql::Null),
            ("expires_at", Sql::Null),
            ("unique_key", Sql::Null),
            ("progress", Sql::Null),
            ("checkpoint", Sql::Null),
            ("crashes", 0.into()),
            ("resumes", 0.into()),
            ("checkpoint_of", Sql::Null),
        ];
        let expected: Row = columns.map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(after.remove(&id), Some(expected));
        assert_eq!(after, before);
    }
    for refused in [State::Executing, State::Unknown] {
        let before = place.rows();
        assert_eq!(place.kiln.enqueue(new_job().state(refused)).unwrap_err().field(), Some("state"));
        assert_eq!(place.rows(), before);
    }
}

#[test]
fn a_clock_set_back_does_not_make_two_claims_look_the_same() {
    let place = Place::new();
    let id = place.kiln.enqueue(NewJob::new("app.Worker0").queue("queue0")).unwrap().id;
    let hand = place.hand();
    let first = hand.claim("queue0", 1).unwrap().remove(0);
    assert!(hand.release(&first).unwrap());
    place.clock.set(place.clock.now() - Duration::from_secs(3600));
    let second = hand.claim("queue0", 1).unwrap().remove(0);

    assert_eq!((first.id, first.attempt), (second.id, second.attempt));
    assert!(second.attempted_at > first.attempted_at);
    assert!(!hand.ack(&first, Outcome::Complete).unwrap());
    assert_eq!(place.kiln.get(id).unwrap().unwrap(), second);
    assert!(hand.ack(&second, Outcome::Complete).unwrap());
}

fn new_job() -> NewJob {
    let (args, meta) = (json!({ "a": 1 }), json!({ "m": 2 }));
    NewJob::new("app.New").queue("new").args(args).meta(meta).tags(["t"]).max_attempts(12).priority(3)
}

fn news() -> Changes {
    let changes = Changes::new().args(json!({ "new": 1 })).meta(json!({ "new": 2 })).tags(["B", "a"]);
    changes.queue("elsewhere").worker("app.Other").max_attempts(77).priority(9)
}

fn the_job() -> Jobs {
    Filter::new().queue("queue0").into()
}

fn claimed(job: &mut Job, micros_later: i64) {
    job.attempted_at = job.attempted_at.map(|at| at + jiff::SignedDuration::from_micros(micros_later));
}

fn prune(place: &Place, _: &Job) -> u64 {
    place.hand().prune(AGE).unwrap()
}

fn as_it_is(_: &mut Row, _: i64) {}

fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}

/// A row as it is stored.
type Row = BTreeMap<String, Sql>;

trait Columns {
    fn set(&mut self, column: &str, value: impl Into<Column>);
    fn ended(&mut self, now: i64, own: i64, others: i64);
    fn number(&self, column: &str) -> i64;
    fn json(&self, column: &str) -> Value;
}

/// What a column may be set to.
struct Column(Sql);

impl From<i64> for Column {
    fn from(number: i64) -> Self {
        Column(Sql::Integer(number))
    }
}

impl From<&str> for Column {
    fn from(value: &str) -> Self {
        Column(text(value))
    }
}

impl From<Value> for Column {
    fn from(value: Value) -> Self {
        Column(Sql::Text(value.to_string()))
    }
}

impl Columns for Row {
    fn set(&mut self, column: &str, value: impl Into<Column>) {
        let Column(value) = value.into();
        *self.get_mut(column).unwrap_or_else(|| panic!("no column {column}")) = value;
    }

    /// Sets the stamp of the row's own state, and the two of other ends, so many microseconds from the age.
    fn ended(&mut self, now: i64, own: i64, others: i64) {
        let state = self["state"].clone();
        for end in ["completed", "cancelled", "discarded"] {
            let moved = if state == text(end) { own } else { others };
            self.set(&format!("{end}_at"), now - 10_000 * MICROS + moved);
        }
    }

    fn number(&self, column: &str) -> i64 {
        match self[column] {
            Sql::Integer(number) => number,
            ref other => panic!("{column} is {other:?}"),
        }
    }

    fn json(&self, column: &str) -> Value {
        match &self[column] {
            Sql::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
            other => panic!("{column} is {other:?}"),
        }
    }
}

/// A file with jobs, and a clock that stands still.
struct Place {
    clock: ManualClock,
    kiln: Kiln,
    conn: Connection,
    path: PathBuf,
    _living: Vec<File>,
    _folder: tempfile::TempDir,
}

/// The job in question, in every cell.
const THE_JOB: i64 = 11;

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        let clock = ManualClock::default();
        let kiln = Kiln::builder(&path).clock(&clock).node("here").durability(Durability::Normal).open().unwrap();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let mut place = Place { clock, kiln, conn, path, _living: Vec::new(), _folder: folder };
        // The owners of executing jobs live: who holds the lock of its sidecar does.
        let living = (1..=STATES.len()).map(|n| format!("runtime{n}")).chain(["living".to_owned()]);
        place._living = living.map(|id| place.sidecar(&id)).inspect(|file| file.lock().unwrap()).collect();
        place
    }

    fn sidecar(&self, runtime: &str) -> File {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("-kiln-{runtime}"));
        File::create(path).unwrap()
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }

    fn hand(&self) -> Hand {
        Hand::new(&self.kiln, ["app.Worker0"])
    }

    /// A runtime died, and left its sidecar.
    fn dies(&self, runtime: &str) -> Hand {
        drop(self.sidecar(runtime));
        self.hand()
    }

    fn claim(&self, worker: &str, queue: &str, limit: usize) -> u64 {
        let claimed = Hand::new(&self.kiln, [worker]).claim(queue, limit).unwrap();
        for job in &claimed {
            assert_eq!(self.kiln.get(job.id).unwrap().as_ref(), Some(job), "what is handed out is not what is stored");
        }
        claimed.len() as u64
    }

    fn end(&self, job: &Job, how: &str) -> u64 {
        let hand = self.hand();
        let landed = match how {
            "complete" => hand.ack(job, Outcome::Complete),
            "record" => hand.ack(job, Outcome::record(&7).unwrap()),
            "snooze" => hand.ack(job, Outcome::snooze(Duration::from_secs(30)).with_meta(json!({ "why": "busy" }))),
            "end as cancelled" => hand.ack(job, Outcome::cancel("no more")),
            "fail" => hand.fail(job, "boom", Duration::from_secs(60)),
            "discard" => hand.discard(job, "hopeless"),
            "release" => hand.release(job),
            "abandon" => hand.abandon(job),
            other => panic!("{other}"),
        };
        u64::from(landed.unwrap())
    }

    /// Ends the job in every way there is, with another fence.
    fn end_all(&self, job: &Job, change: impl Fn(&mut Job)) -> u64 {
        let mut other = job.clone();
        change(&mut other);
        let ends = ["complete", "record", "snooze", "end as cancelled", "fail", "discard", "release", "abandon"];
        ends.iter().map(|how| self.end(&other, how)).sum()
    }

    fn reset(&self, rows: &[Row]) {
        self.conn.execute_batch("BEGIN; DELETE FROM kiln_jobs").unwrap();
        for row in rows {
            let columns: Vec<&str> = row.keys().map(String::as_str).collect();
            let places = vec!["?"; columns.len()].join(", ");
            let sql = format!("INSERT INTO kiln_jobs ({}) VALUES ({places})", columns.join(", "));
            self.conn.prepare_cached(&sql).unwrap().execute(params_from_iter(row.values())).unwrap();
        }
        self.conn.execute_batch("COMMIT").unwrap();
    }

    fn rows(&self) -> BTreeMap<i64, Row> {
        let mut select = self.conn.prepare_cached("SELECT * FROM kiln_jobs").unwrap();
        let names: Vec<String> = select.column_names().into_iter().map(String::from).collect();
        let read = |row: &rusqlite::Row<'_>| {
            names.iter().map(|name| Ok((name.clone(), row.get(name.as_str())?))).collect::<rusqlite::Result<Row>>()
        };
        let rows = select.query_map([], read).unwrap().map(Result::unwrap);
        rows.map(|row| (row.number("id"), row)).collect()
    }
}

/// Row number `n`: no column has the value that it has in another one. Nothing of it is due to be rescued or pruned.
fn row(n: i64, state: &str, now: i64) -> Row {
    let ago = |seconds: i64| Sql::Integer(now - (seconds - n * 10) * MICROS - n);
    let columns = [
        ("id", (THE_JOB + n).into()),
        ("state", text(state)),
        ("queue", text(&format!("queue{n}"))),
        ("worker", text(&format!("app.Worker{n}"))),
        // As something else may write them: rewritten by us, they would look different.
        ("args", text(&format!(r#"{{ "arg" : {n} }}"#))),
        ("meta", text(&format!(r#"{{ "z" : {n}, "a" : 1 }}"#))),
        ("tags", text(&format!(r#"["tag{n}"]"#))),
        (
            "errors",
            text(&format!(r#"[ {{ "error": "earlier", "by": "hand", "at": "2025-12-0{}T00:00:00Z" }} ]"#, n + 1)),
        ),
        ("attempt", (20 + n).into()),
        ("max_attempts", (40 + n).into()),
        ("priority", n.into()),
        ("attempted_by", text(&format!(r#"[ "node{n}", "runtime{n}" ]"#))),
        ("inserted_at", ago(9000)),
        ("scheduled_at", ago(8000)),
        ("attempted_at", ago(7000)),
        ("completed_at", ago(6000)),
        ("cancelled_at", ago(5000)),
        ("discarded_at", ago(4000)),
        ("cancel_requested_at", ago(3000)),
        ("expires_at", ago(-2000)),
        ("unique_key", text(&format!("key{n}"))),
        ("progress", text(&format!(r#"{{ "done" : {n} }}"#))),
        ("checkpoint", text(&format!(r#"{{ "value" : {n} }}"#))),
    ];
    columns.map(|(name, value)| (name.to_owned(), value)).into()
}

fn bystanders(place: &Place) -> Vec<Row> {
    (1..).zip(STATES).map(|(n, state)| row(n, state, place.now())).collect()
}

/// Runs a verb on a job in every state, with attempts left and without, asked to be cancelled and not.
fn cells(verb: &str, prepare: fn(&mut Row, i64), act: fn(&Place, &Job) -> u64) {
    let place = Place::new();
    let now = place.now();
    let mut wrong = Vec::new();
    let mut used = vec![false; TABLE.len()];
    for state in STATES.into_iter().chain([STRANGE]) {
        for (attempt, max_attempts) in [(6, 7), (7, 7), (9, 7)] {
            for asked in [false, true] {
                let mut job = row(0, state, now);
                job.set("attempt", attempt);
                job.set("max_attempts", max_attempts);
                if !asked {
                    job.insert("cancel_requested_at".into(), Sql::Null);
                }
                prepare(&mut job, now);
                let mut rows = bystanders(&place);
                rows.push(job);
                place.reset(&rows);

                let before = place.rows();
                let job = place.kiln.get(THE_JOB).unwrap().unwrap();
                let answer = act(&place, &job);
                let mut after = place.rows();

                let fits = |line: &Line| {
                    line.verb == verb
                        && line.from.contains(&state)
                        && line.left.is_none_or(|left| left == (attempt < max_attempts))
                        && line.asked.is_none_or(|told| told == asked)
                };
                let lines: Vec<usize> = (0..TABLE.len()).filter(|&n| fits(&TABLE[n])).collect();
                let mut expected = before;
                match lines[..] {
                    [] => {}
                    [n] => {
                        used[n] = true;
                        apply(&TABLE[n], &mut expected, &mut after, now);
                    }
                    _ => panic!("{verb} on {state}: several lines fit"),
                }
                let cell = format!("{verb} on {state}, attempt {attempt} of {max_attempts}, asked: {asked}");
                if answer != lines.len() as u64 && answer != UNSAID {
                    wrong.push(format!("{cell}: says {answer}"));
                }
                if expected != after {
                    wrong.push(format!("{cell}:\n{}", difference(&expected, &after)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    for (line, used) in TABLE.iter().zip(used) {
        assert!(used || line.verb != verb, "{verb}: the line from {:?} to {} fits no cell", line.from, line.to);
    }
}

/// Makes of the rows what the line says. JSON that the line changes is compared as JSON, not as text.
fn apply(line: &Line, expected: &mut BTreeMap<i64, Row>, after: &mut BTreeMap<i64, Row>, now: i64) {
    if line.to == GONE {
        expected.remove(&THE_JOB);
        return;
    }
    let shown = jiff::Timestamp::from_microsecond(now).unwrap().to_string();
    let (Some(row), Some(got)) = (expected.get_mut(&THE_JOB), after.get_mut(&THE_JOB)) else { return };
    let attempt = row.number("attempt");
    if line.to != SAME {
        row.set("state", line.to);
    }
    let set_meta = |row: &mut Row, key: &str, value: Value| {
        let mut meta = row.json("meta");
        meta[key] = value;
        row.set("meta", meta);
    };
    for change in line.and {
        match *change {
            Now(column) => row.set(column, now),
            In(column, seconds) => row.set(column, now + seconds * MICROS),
            Null(column) => _ = row.insert(column.to_owned(), Sql::Null),
            By(column, difference) => row.set(column, row.number(column) + difference),
            Is(column, value) => row.set(column, value),
            IsNumber(column, value) => row.set(column, value),
            AboveAttempt(column) => row.set(column, row.number(column).max(attempt + 1)),
            Meta(key, value) => set_meta(row, key, serde_json::from_str(value).unwrap()),
            MetaNow(key) => set_meta(row, key, json!(shown)),
            MetaCounts(key) => {
                let count = row.json("meta")[key].as_i64().unwrap_or(0);
                set_meta(row, key, json!(count + 1));
            }
            Error(words) => {
                let mut errors = row.json("errors");
                let said =
                    got.json("errors").as_array().and_then(|errors| errors.last()?["error"].as_str().map(String::from));
                let said = said.filter(|said| said.contains(words)).unwrap_or_else(|| words.to_owned());
                errors.as_array_mut().unwrap().push(json!({ "at": shown, "attempt": attempt, "error": said }));
                row.set("errors", errors);
            }
            Mine => {
                let owner = got.json("attempted_by");
                let is_id = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                let mine = owner[0] == "here" && owner[1].as_str().is_some_and(is_id) && owner[2].is_null();
                row.set("attempted_by", if mine { owner } else { json!("a runtime of this node") });
            }
        }
    }
    for column in ["meta", "errors", "attempted_by"] {
        if row[column] != got[column] && row.json(column) == got.json(column) {
            row.insert(column.to_owned(), got[column].clone());
        }
    }
}

fn difference(expected: &BTreeMap<i64, Row>, got: &BTreeMap<i64, Row>) -> String {
    let mut shown = Vec::new();
    for id in expected.keys().chain(got.keys().filter(|id| !expected.contains_key(id))) {
        match (expected.get(id), got.get(id)) {
            (Some(expected), Some(got)) => {
                for (column, value) in expected.iter().filter(|(column, value)| got[*column] != **value) {
                    shown.push(format!("  job {id}, {column}: expected {value:?}, got {:?}", got[column]));
                }
            }
            (Some(_), None) => shown.push(format!("  job {id} is gone")),
            (None, _) => shown.push(format!("  job {id} is there")),
        }
    }
    shown.join("\n")
}
