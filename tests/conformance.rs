//! The reference's recorded behaviour, case by case: see `tests/conformance/README.md`.
//!
//! `KILN_CONFORMANCE_DIR` names another folder of the same shape to run instead. Whatever is not understood there - a
//! file, a key, a field, an operation - fails, so that nothing is left out in silence.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kiln::backoff::{self, Exponential, Jitter};
use kiln::testing::{Hand, ManualClock, decode_recorded, encode_recorded, settle};
use kiln::{Changes, Cron, Durability, Job, Kiln, NewJob, Outcome, State};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

/// Where kiln differs from the reference on purpose: `rule -> ours, and why`. Nowhere else does it.
const DIFFERENCES: &[Difference] = &[
    Difference {
        rule: "a retry sets meta.uniq_bmp to []",
        ours: "a retry leaves meta as it is",
        why: "uniq_bmp is a key of the reference's own uniqueness index",
        apply: |case, expected| {
            if case["op"]["name"] != "retry" || case["to"]["meta"]["uniq_bmp"] != json!([]) {
                return false;
            }
            match &case["from"]["meta"]["uniq_bmp"] {
                Value::Null => expected["to"]["meta"].as_object_mut().map(|meta| meta.remove("uniq_bmp")),
                before => {
                    expected["to"]["meta"].as_object_mut().map(|meta| meta.insert("uniq_bmp".into(), before.clone()))
                }
            }
            .is_some()
        },
    },
    Difference {
        rule: "a rescue leaves no trace in errors",
        ours: "the rescue of an executing job adds an entry to errors",
        why: "an attempt that took its process down belongs into the job's history like any other that failed",
        apply: |case, expected| {
            let rescued = case["op"]["name"] == "rescue" && case["from"]["state"] == "executing";
            let touched = rescued && expected["to"]["state"] != "executing";
            if touched {
                expected["to"]["errors"] = json!(expected["to"]["errors"].as_i64().unwrap_or_default() + 1);
            }
            touched
        },
    },
    Difference {
        rule: "the cancelling of an executing job is a message, and nothing in its row",
        ours: "the request is stored, in a column of our own",
        why: "it must outlive the process, and reach others on the file",
        apply: |case, expected| {
            let touched = case["op"]["name"] == "cancel" && case["from"]["state"] == "executing";
            if touched {
                expected["to"]["cancel_requested_at"] = json!(0.0);
            }
            touched
        },
    },
    Difference {
        rule: "@reboot is no expression",
        ours: "it is one: once when a runtime starts, and never by the clock",
        why: "Oban has it; a documented superset",
        apply: |case, expected| {
            let touched = case["expr"] == "@reboot" && case["valid"] == false;
            if touched {
                *expected = json!({ "valid": true });
            }
            touched
        },
    },
    Difference {
        rule: "an error has a text",
        ours: "another text, which names the same field",
        why: "ours gives the value as well, and has no Python in it",
        apply: |case, expected| {
            let Some(text) = case["error"].as_str() else { return false };
            let field = text.split(' ').next().filter(|&word| VALIDATED.contains(&word));
            // No field: any refusal will do.
            *expected = field.map_or(json!({ "error": true }), |field| json!({ "error": field }));
            true
        },
    },
    Difference {
        rule: "a new job may start as executing",
        ours: "it is refused",
        why: "nobody would own the attempt; it would wait for a rescue",
        apply: |case, expected| {
            let touched = case["job"]["state"] == "executing" || case["args"]["state"] == "executing";
            if touched {
                *expected = json!({ "error": "state" });
            }
            touched
        },
    },
];

/// A text of the reference's that begins with one of these is about that field.
const VALIDATED: [&str; 4] = ["queue", "worker", "max_attempts", "priority"];

struct Difference {
    rule: &'static str,
    ours: &'static str,
    why: &'static str,
    /// Changes what is expected of the case; says whether it is one of these.
    apply: fn(&Value, &mut Value) -> bool,
}

#[test]
fn every_file_is_known_and_there() {
    let files: BTreeSet<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let known = "backoff cron_match cron_name cron_parse executor fetch_order insert job_validate recorded_decode \
                 recorded_encode tags transitions";
    let mut known: BTreeSet<String> = known.split_whitespace().map(|name| format!("{name}.json")).collect();
    if files.contains("README.md") {
        known.insert("README.md".into());
    }
    assert_eq!(files, known);
}

#[test]
fn cron_expressions_are_read_and_refused_as_the_reference_does() {
    const FIELDS: [&str; 5] = ["minutes", "hours", "days", "months", "weekdays"];
    run("cron_parse.json", &[&["expr", "valid"], FIELDS.as_slice()].concat(), |case| {
        let got = match text(case, "expr")?.parse::<Cron>() {
            Ok(cron) => {
                let mut got = json!({ "valid": true });
                for (name, values) in FIELDS.into_iter().zip(cron.fields().into_iter().flatten()) {
                    got[name] = json!(values);
                }
                got
            }
            Err(error) => {
                let said = error.to_string();
                let parts = ["minute", "hour", "day of month", "month", "day of week", "nickname"];
                check(error.field() == Some("cron"), || format!("not about cron: {said}"))?;
                check(parts.iter().any(|part| said.contains(part)), || format!("no field is named: {said}"))?;
                json!({ "valid": false })
            }
        };
        Ok((without(case, &["expr"]), got))
    });
}

#[test]
fn cron_expressions_match_when_day_of_month_and_day_of_week_both_do() {
    run("cron_match.json", &["expr", "timezone", "utc", "matches"], |case| {
        let cron: Cron = text(case, "expr")?.parse()?;
        let zone = TimeZone::get(text(case, "timezone")?).map_err(unclear)?;
        let utc: Timestamp = text(case, "utc")?.parse().map_err(unclear)?;
        Ok((case["matches"].clone(), json!(cron.matches(zone.to_datetime(utc)))))
    });
}

#[test]
fn cron_entries_have_the_name_that_the_reference_gives_them() {
    run("cron_name.json", &["expr", "worker", "timezone", "name"], |case| {
        let cron: Cron = text(case, "expr")?.parse()?;
        let zone = optional(case, "timezone", text)?;
        Ok((case["name"].clone(), json!(cron.name(text(case, "worker")?, zone))))
    });
}

#[test]
fn delays_between_attempts_are_the_reference_s_to_the_second() {
    run("backoff.json", &["fn", "args", "rand", "result"], |case| {
        let args = &case["args"];
        let draw = || number(case, "rand");
        let shape = || -> Case<Exponential> {
            only(args, &["attempt", "max_pow", "min_pad", "mult"])?;
            let usual = Exponential::default();
            Ok(Exponential {
                max_pow: optional(args, "max_pow", whole)?.unwrap_or(usual.max_pow),
                min_pad: optional(args, "min_pad", whole)?.unwrap_or(usual.min_pad),
                mult: optional(args, "mult", whole)?.unwrap_or(usual.mult),
            })
        };
        let delay = match text(case, "fn")? {
            "exponential" => backoff::exponential(whole(args, "attempt")?, shape()?),
            "jittery_exponential" => backoff::jittery_exponential(whole(args, "attempt")?, shape()?, draw()?),
            "jitter" => {
                only(args, &["time", "mode", "mult"])?;
                let share = optional(args, "mult", number)?.unwrap_or(0.1);
                let jitter = match optional(args, "mode", text)? {
                    Some("inc") => Jitter::Inc(share),
                    Some("dec") => Jitter::Dec(share),
                    Some("both") | None => Jitter::Both(share),
                    Some(other) => return Err(unclear(format!("mode {other:?}"))),
                };
                backoff::jitter(whole(args, "time")?, jitter, draw()?)
            }
            "jittery_clamped" => {
                only(args, &["attempt", "max_attempts", "clamped_max"])?;
                let clamped_max = optional(args, "clamped_max", whole)?.unwrap_or(backoff::CLAMPED_MAX);
                backoff::jittery_clamped(whole(args, "attempt")?, whole(args, "max_attempts")?, clamped_max, draw()?)
            }
            other => return Err(unclear(format!("function {other:?}"))),
        };
        Ok((case["result"].clone(), json!(delay)))
    });
}

#[test]
fn tags_are_stored_as_the_reference_stores_them() {
    let kiln = Kiln::in_memory().unwrap();
    run("tags.json", &["input", "output"], |case| {
        let job = kiln.enqueue(NewJob::new("app.Worker").tags(tags(&case["input"])?))?;
        let read = kiln.get(job.id)?.unwrap();
        check(read.tags == job.tags, || format!("handed back {:?}, stored {:?}", job.tags, read.tags))?;
        Ok((case["output"].clone(), json!(job.tags)))
    });
}

#[test]
fn new_jobs_are_completed_and_refused_as_the_reference_does() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    run("job_validate.json", &["args", "ok", "job", "error"], |case| {
        let args = &case["args"];
        let expected = if case["ok"] == true { case["job"].clone() } else { json!({ "error": true }) };
        let job = match new_job(text(args, "worker")?, args, clock.now()).and_then(|job| Ok(kiln.enqueue(job)?)) {
            Ok(job) => kiln.get(job.id)?.unwrap(),
            Err(Stop::Refused(field)) => return Ok((expected, json!({ "error": field }))),
            Err(unclear) => return Err(unclear),
        };
        // The reference's job is not stored yet: only then does one with a due time become `scheduled`.
        let scheduled = job.state == State::Scheduled && args["state"] != "scheduled";
        // In another state, a due time that is now cannot be told from none.
        let later = scheduled || job.scheduled_at != job.inserted_at;
        let at_once = !later && job.state != State::Available;
        let got = json!({
            "worker": job.worker, "queue": job.queue, "priority": job.priority, "max_attempts": job.max_attempts,
            "attempt": job.attempt, "state": if scheduled { "available" } else { job.state.as_str() },
            "tags": job.tags, "args": job.args, "meta": job.meta,
            "errors": job.errors.iter().map(|entry| &entry.error).collect::<Vec<_>>(),
            "attempted_by": job.attempted_by,
            "scheduled_at_set": if at_once { expected["scheduled_at_set"].clone() } else { json!(later) },
        });
        Ok((expected, got))
    });
}

#[test]
fn recorded_values_are_encoded_byte_for_byte_and_read_back() {
    run("recorded_encode.json", &["name", "value", "encoded", "decodes_to"], |case| {
        let value = &case["value"];
        let reads = case.get("decodes_to").unwrap_or(value);
        let decoded = decode_recorded(text(case, "encoded")?)?;
        // As texts, since 0.0 equals -0.0.
        Ok((json!([case["encoded"], reads.to_string()]), json!([encode_recorded(value)?, decoded.to_string()])))
    });
}

#[test]
fn damaged_and_hostile_terms_are_errors_at_once_and_in_little_memory() {
    run("recorded_decode.json", &["name", "encoded", "value", "error"], |case| {
        let encoded = text(case, "encoded")?;
        let began = Instant::now();
        LARGEST.set(0);
        let decoded = decode_recorded(encoded);
        let (largest, took) = (LARGEST.get(), began.elapsed());
        if case["error"] != true {
            return Ok((json!(case["value"].to_string()), json!(decoded?.to_string())));
        }
        // A busy machine is no reason to fail, but a small term that takes this long is.
        check(took < Duration::from_secs(20), || format!("took {took:?}"))?;
        // The best that zlib can do is 1 to 1032.
        check(largest <= (1 << 20) + 1032 * encoded.len(), || format!("allocated {largest} bytes at once"))?;
        let refused = decoded.is_err_and(|error| error.is_malformed());
        Ok((json!({ "error": true }), json!({ "error": refused })))
    });
}

#[test]
fn an_outcome_makes_of_its_job_what_the_reference_makes_of_it() {
    let fields =
        ["name", "attempt", "max_attempts", "meta", "state", "attempt_change", "schedule_in", "error", "meta_change"];
    run("executor.json", &fields, |case| {
        let (attempt, max_attempts): (u32, u32) = (whole(case, "attempt")?, whole(case, "max_attempts")?);
        let change = &case["meta_change"];
        // The name tells what the worker returned; where it does not, what came of it does.
        let returned = match (text(case, "name")?.split(' ').next(), text(case, "state")?) {
            (Some(word @ ("complete" | "value" | "record" | "snooze" | "cancel" | "error")), _) => word,
            (_, "completed") if change["recorded"] == true => "record",
            (_, "completed") => "complete",
            (_, "scheduled") => "snooze",
            (_, "cancelled") => "cancel",
            _ => "error",
        };
        let mut expected = without(case, &["name", "attempt", "max_attempts", "meta"]);
        let usual = backoff::jittery_clamped(attempt, max_attempts, backoff::CLAMPED_MAX, 0.5);
        let delay = match optional(case, "schedule_in", number)? {
            Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(unclear)?,
            None => Duration::from_secs(usual),
        };
        if case["state"] == "retryable" && case["schedule_in"].is_null() {
            expected["schedule_in"] = json!(usual);
        }
        if let (Some(meta), Some(change)) = (case["meta"].as_object(), change.as_object()) {
            let whole: Map<String, Value> = meta.clone().into_iter().chain(change.clone()).collect();
            expected["meta_change"] = Value::Object(whole);
        }
        let end = match returned {
            "complete" | "value" => Ok(Outcome::Complete),
            "cancel" => Ok(Outcome::cancel("no more")),
            "snooze" => Ok(snooze(delay, change)),
            "record" => Ok(record(change)?),
            _ => Err(("boom", delay)),
        };
        let rule = settle(attempt.into(), max_attempts.into(), &case["meta"], end);
        let error = rule.errors.as_ref().map(|errors| {
            let keys: Vec<&String> = errors[0].as_object().into_iter().flat_map(Map::keys).collect();
            json!({ "keys": keys, "attempt": errors[0]["attempt"] })
        });
        let moved = rule.attempt - i64::from(attempt);
        let got = json!({
            "state": rule.state.as_str(),
            "attempt_change": if moved == 0 { Value::Null } else { json!(moved) },
            "schedule_in": rule.delay,
            "error": error,
            "meta_change": rule.meta,
        });
        Ok((expected, got))
    });
}

#[test]
fn a_new_job_is_stored_as_the_reference_stores_it() {
    let place = Place::new();
    run("insert.json", &["op", "job", "to", "count", "error"], |case| place.operate(case));
}

#[test]
fn every_operation_makes_of_every_state_what_the_reference_makes_of_it() {
    let place = Place::new();
    run("transitions.json", &["op", "from", "job", "to", "count", "error"], |case| place.operate(case));
}

#[test]
fn jobs_are_claimed_in_the_reference_s_order() {
    let place = Place::new();
    run("fetch_order.json", &["jobs", "queue", "demand", "fetched"], |case| {
        place.clear();
        let jobs = case["jobs"].as_array().ok_or_else(|| unclear("jobs is no array"))?;
        for job in jobs {
            place.insert(job)?;
        }
        let before = place.rows();
        let claimed = place.hand(jobs).claim(text(case, "queue")?, whole(case, "demand")?)?;
        let ids: Vec<i64> = claimed.iter().map(|job| job.id).collect();
        let left = |rows: Vec<Row>| -> Vec<Row> { rows.into_iter().filter(|(id, _)| !ids.contains(id)).collect() };
        check(left(before) == left(place.rows()), || "a job that was not claimed changed".into())?;
        Ok((case["fetched"].clone(), json!(ids)))
    });
}

const COLUMNS: [&str; 17] = [
    "state",
    "queue",
    "worker",
    "priority",
    "attempt",
    "max_attempts",
    "args",
    "meta",
    "tags",
    "errors",
    "attempted_by",
    "inserted_at",
    "scheduled_at",
    "attempted_at",
    "completed_at",
    "discarded_at",
    "cancelled_at",
];

/// A file with jobs, and a clock that stands still.
struct Place {
    clock: ManualClock,
    kiln: Kiln,
    conn: Connection,
    _folder: tempfile::TempDir,
}

/// A row as it is stored: its id, and every column.
type Row = (i64, Vec<Sql>);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        let clock = ManualClock::default();
        let kiln = Kiln::builder(&path).clock(&clock).node("node").durability(Durability::Normal).open().unwrap();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
        Place { clock, kiln, conn, _folder: folder }
    }

    /// Runs one operation on the row `from`, or inserts `job`. A row that nobody speaks of must not change.
    fn operate(&self, case: &Value) -> Case<(Value, Value)> {
        let (op, to) = (&case["op"], &case["to"]);
        self.clear();
        let bystander = self.insert(&json!({
            "state": "suspended", "queue": "bystander", "worker": "app.Bystander", "priority": 8, "attempt": 6,
            "max_attempts": 7, "args": { "by": 1 }, "meta": { "stands": 2 }, "tags": ["by"], "errors": 2,
            "attempted_by": ["other"], "inserted_at": -9001, "scheduled_at": -9002, "attempted_at": -9003,
            "completed_at": -9004, "discarded_at": -9005, "cancelled_at": -9006,
        }))?;
        let inserts = op["name"] == "insert";
        let from = if inserts { 0 } else { self.insert(&case["from"])? };
        let before = self.rows();
        let answer = if inserts { self.enqueue(case) } else { self.verb(op, from, &case["from"]) };
        let after = self.rows();

        let mut expected = without(case, &["op", "from", "job"]);
        let mut got = json!({});
        match answer {
            Ok((id, count)) => {
                got["to"] = self.kiln.get(id)?.map_or(json!("deleted"), |job| self.shown(&job, to));
                if case.get("count").is_some() {
                    got["count"] = json!(count);
                }
            }
            Err(Stop::Refused(field)) => {
                check(before == after, || "refused, but something changed".into())?;
                got["error"] = json!(field);
            }
            Err(unclear) => return Err(unclear),
        }
        if to.is_object() {
            only(to, &COLUMNS)?;
            expected["to"]["cancel_requested_at"] = Value::Null;
        }
        let stands = before.iter().find(|(id, _)| *id == bystander);
        check(stands == after.iter().find(|(id, _)| *id == bystander), || format!("the bystander: {after:?}"))?;
        Ok((expected, got))
    }

    fn enqueue(&self, case: &Value) -> Case<(i64, u64)> {
        only(&case["op"], &["name"])?;
        let job = &case["job"];
        let mut args = json!({ "args": { "n": 1 } });
        for (key, value) in job.as_object().into_iter().flatten() {
            args[key] = value.clone();
        }
        let worker = optional(job, "worker", text)?.unwrap_or("app.Worker");
        Ok((self.kiln.enqueue(new_job(worker, &args, self.clock.now())?)?.id, 1))
    }

    /// The job, and the number of jobs that the verb said it changed.
    fn verb(&self, op: &Value, id: i64, from: &Value) -> Case<(i64, u64)> {
        let fields = |known: &[&str]| only(op, &[&["name"], known].concat());
        let hand = self.hand(std::slice::from_ref(from));
        let count = match text(op, "name")? {
            "retry" => fields(&[]).map(|()| self.kiln.retry(id))?,
            "cancel" => fields(&[]).map(|()| self.kiln.cancel(id))?,
            "delete" => fields(&[]).map(|()| self.kiln.delete(id))?,
            "update" => {
                fields(&["changes"])?;
                self.kiln.update(id, changes(&op["changes"], self.clock.now())?)
            }
            "stage" => {
                fields(&["queues"])?;
                let all = vec![text(from, "queue")?];
                hand.stage(&optional(op, "queues", words)?.unwrap_or(all))
            }
            "rescue" => {
                fields(&["rescue_after"])?;
                hand.rescue_older(seconds(op, "rescue_after")?)
            }
            "prune" => {
                fields(&["max_age"])?;
                hand.prune(seconds(op, "max_age")?)
            }
            "fetch" => {
                fields(&["queue", "demand"])?;
                hand.claim(text(op, "queue")?, whole(op, "demand")?).map(|jobs| jobs.len() as u64)
            }
            "ack" => {
                fields(&["ack", "state", "attempt_change", "schedule_in", "meta", "stale_attempt"])?;
                let mut job = self.kiln.get(id)?.unwrap();
                if op["stale_attempt"] == true {
                    job.attempt += 1;
                    check(!ack(&hand, &job, op)?, || "the ack of an attempt to come landed".into())?;
                    job.attempt -= 2;
                }
                Ok(u64::from(ack(&hand, &job, op)?))
            }
            other => return Err(unclear(format!("operation {other:?}"))),
        };
        Ok((id, count?))
    }

    /// A runtime that knows the workers of these rows.
    fn hand(&self, rows: &[Value]) -> Hand {
        let workers: BTreeSet<&str> = rows.iter().map(|row| row["worker"].as_str().unwrap_or("app.Worker")).collect();
        Hand::new(&self.kiln, workers)
    }

    fn clear(&self) {
        self.conn.execute("DELETE FROM kiln_jobs", []).unwrap();
    }

    /// Inserts a row as the case has it; what it does not tell is as usual.
    fn insert(&self, row: &Value) -> Case<i64> {
        only(row, &[&["id"], COLUMNS.as_slice()].concat())?;
        let now = self.clock.now();
        let time = |name| Ok::<_, Stop>(optional(row, name, number)?.map(|s| from_now(now, s).as_microsecond()));
        let stored = |name: &str, usual: &str| row.get(name).map_or(usual.to_owned(), Value::to_string);
        let errors = optional(row, "errors", whole::<usize>)?.unwrap_or(0);
        let errors = vec![json!({ "at": "2025-12-31T00:00:00Z", "attempt": 1, "error": "earlier" }); errors];
        let columns = params![
            optional(row, "id", whole::<i64>)?,
            optional(row, "state", text)?.unwrap_or("available"),
            optional(row, "queue", text)?.unwrap_or("default"),
            optional(row, "worker", text)?.unwrap_or("app.Worker"),
            optional(row, "priority", whole::<i64>)?.unwrap_or(0),
            optional(row, "attempt", whole::<i64>)?.unwrap_or(0),
            optional(row, "max_attempts", whole::<i64>)?.unwrap_or(20),
            stored("args", "{}"),
            stored("meta", "{}"),
            stored("tags", "[]"),
            json!(errors).to_string(),
            stored("attempted_by", "[]"),
            time("inserted_at")?.unwrap_or(now.as_microsecond()),
            time("scheduled_at")?.unwrap_or(now.as_microsecond()),
            time("attempted_at")?,
            time("completed_at")?,
            time("discarded_at")?,
            time("cancelled_at")?,
        ];
        let sql =
            format!("INSERT INTO kiln_jobs (id, {}) VALUES (?{})", COLUMNS.join(", "), ", ?".repeat(COLUMNS.len()));
        self.conn.prepare_cached(&sql).and_then(|mut insert| insert.execute(columns)).map_err(unclear)?;
        Ok(self.conn.last_insert_rowid())
    }

    fn rows(&self) -> Vec<Row> {
        let mut select = self.conn.prepare_cached("SELECT * FROM kiln_jobs ORDER BY id").unwrap();
        let width = select.column_count();
        let row =
            |row: &rusqlite::Row<'_>| Ok((row.get("id")?, (0..width).map(|n| row.get(n)).collect::<Result<_, _>>()?));
        select.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    /// The job in the words of a case. A time that is the expected one but for the rounding is shown as expected.
    fn shown(&self, job: &Job, expected: &Value) -> Value {
        let now = self.clock.now();
        let since = |at: Timestamp| (at.as_microsecond() - now.as_microsecond()) as f64 / 1e6;
        let time = |name: &str, at: Option<Timestamp>| match (&expected[name], at.map(since)) {
            (Value::Number(told), Some(at)) if told.as_f64().is_some_and(|told| (at - told).abs() <= 2.5) => {
                json!(told)
            }
            (_, at) => json!(at),
        };
        let mut meta = job.meta.value();
        if meta["cancel_attempted_at"].as_str().is_some_and(|at| at == now.to_string()) {
            meta["cancel_attempted_at"] = json!("<now>");
        }
        let mut attempted_by = json!(job.attempted_by);
        let is_id = |word: &String| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if expected["attempted_by"][1] == "uuid" && job.attempted_by.get(1).is_some_and(is_id) {
            attempted_by[1] = json!("uuid");
        }
        json!({
            "state": job.state.as_str(), "queue": job.queue, "worker": job.worker, "priority": job.priority,
            "attempt": job.attempt, "max_attempts": job.max_attempts, "args": job.args, "meta": meta, "tags": job.tags,
            "errors": job.errors.len(), "attempted_by": attempted_by,
            "inserted_at": time("inserted_at", Some(job.inserted_at)),
            "scheduled_at": time("scheduled_at", Some(job.scheduled_at)),
            "attempted_at": time("attempted_at", job.attempted_at),
            "completed_at": time("completed_at", job.completed_at),
            "discarded_at": time("discarded_at", job.discarded_at),
            "cancelled_at": time("cancelled_at", job.cancelled_at),
            "cancel_requested_at": job.cancel_requested_at.map(since),
        })
    }
}

fn ack(hand: &Hand, job: &Job, op: &Value) -> Case<bool> {
    let delay = || seconds(op, "schedule_in");
    let landed = match text(op, "ack")? {
        "complete" => hand.ack(job, Outcome::Complete),
        "record" => hand.ack(job, record(&op["meta"])?),
        "cancel" => hand.ack(job, Outcome::cancel("no more")),
        "snooze" => hand.ack(job, snooze(delay()?, &op["meta"])),
        "error" => hand.fail(job, "boom", delay()?),
        "discard" => hand.discard(job, "boom"),
        other => return Err(unclear(format!("ack {other:?}"))),
    };
    Ok(landed?)
}

/// The snooze that leads to these entries in meta.
fn snooze(delay: Duration, meta: &Value) -> Outcome {
    Outcome::snooze(delay).with_meta(without(meta, &["snoozed"]))
}

/// The record that leads to these entries in meta.
fn record(meta: &Value) -> Case<Outcome> {
    Ok(Outcome::record(&decode_recorded(text(meta, "return")?)?)?)
}

/// A job built from the arguments of the reference's constructor. What our types rule out is refused.
fn new_job(worker: &str, args: &Value, now: Timestamp) -> Case<NewJob> {
    let mut job = NewJob::new(worker);
    for (key, value) in args.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        job = match key.as_str() {
            "worker" => job,
            "queue" => job.queue(typed(text(args, key), key)?),
            "priority" => job.priority(typed(whole(args, key), key)?),
            "max_attempts" => job.max_attempts(typed(whole(args, key), key)?),
            "tags" => job.tags(tags(value)?),
            "args" => job.args(value),
            "meta" => job.meta(value),
            "schedule_in" => match typed(number(args, key), key)? {
                delay if delay < 0.0 => job.scheduled_at(from_now(now, delay)),
                delay => job.schedule_in(typed(seconds(args, key), &format!("{key} of {delay}"))?),
            },
            "scheduled_at" => job.scheduled_at(time(value, now)?),
            "state" => job.state(typed(state(value), key)?),
            other => return Err(unclear(format!("argument {other:?}"))),
        };
    }
    Ok(job)
}

fn changes(changes: &Value, now: Timestamp) -> Case<Changes> {
    let mut made = Changes::new();
    for (key, value) in changes.as_object().ok_or_else(|| unclear("changes is no object"))? {
        made = match key.as_str() {
            "worker" => made.worker(typed(text(changes, key), key)?),
            "queue" => made.queue(typed(text(changes, key), key)?),
            "priority" => made.priority(typed(whole(changes, key), key)?),
            "max_attempts" => made.max_attempts(typed(whole(changes, key), key)?),
            "tags" => made.tags(tags(value)?),
            "args" => made.args(value),
            "meta" => made.meta(value),
            "schedule_in" => match typed(number(changes, key), key)? {
                delay if delay < 0.0 => made.scheduled_at(from_now(now, delay)),
                _ => made.schedule_in(typed(seconds(changes, key), key)?),
            },
            "scheduled_at" => made.scheduled_at(time(value, now)?),
            other => return Err(unclear(format!("change {other:?}"))),
        };
    }
    Ok(made)
}

/// Where a value's type is the mistake, it is the compiler that refuses it.
fn typed<T>(value: Case<T>, field: &str) -> Case<T> {
    value.map_err(|_| Stop::Refused(field.to_owned()))
}

fn state(value: &Value) -> Case<State> {
    State::ALL.into_iter().find(|state| *value == state.as_str()).ok_or_else(|| unclear("no state"))
}

/// A point in time: a text, or seconds from now.
fn time(value: &Value, now: Timestamp) -> Case<Timestamp> {
    match value {
        Value::Number(seconds) => Ok(from_now(now, seconds.as_f64().unwrap_or_default())),
        Value::String(text) => text.parse().map_err(unclear),
        other => Err(unclear(format!("time {other}"))),
    }
}

fn from_now(now: Timestamp, seconds: f64) -> Timestamp {
    Timestamp::from_microsecond(now.as_microsecond() + (seconds * 1e6).round() as i64).unwrap()
}

/// The tags of a language without types: the text of whatever is true in it.
fn tags(tags: &Value) -> Case<Vec<String>> {
    let tags = tags.as_array().ok_or_else(|| unclear("tags is no array"))?;
    Ok(tags
        .iter()
        .filter(|tag| is_true(tag))
        .map(|tag| tag.as_str().map_or_else(|| python(tag), String::from))
        .collect())
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

/// A value as Python's `repr` writes it.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap();
            let short = format!("{number:e}");
            let (digits, power) = short.split_once('e').unwrap();
            match power.parse::<i32>().unwrap() {
                -4..16 if number.fract() == 0.0 => format!("{number:.1}"),
                -4..16 => number.to_string(),
                power => format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs()),
            }
        }
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(values) => format!("[{}]", values.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", python(&json!(key)), python(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Why a case came to no end.
#[derive(Debug)]
enum Stop {
    /// kiln refused the value of this field.
    Refused(String),
    /// The case was not understood, or something failed that should not.
    Unclear(String),
}

type Case<T> = Result<T, Stop>;

impl From<kiln::Error> for Stop {
    fn from(error: kiln::Error) -> Self {
        error.field().map_or_else(|| unclear(&error), |field| Stop::Refused(field.to_owned()))
    }
}

fn unclear(what: impl ToString) -> Stop {
    Stop::Unclear(what.to_string())
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Case<()> {
    if holds { Ok(()) } else { Err(unclear(otherwise())) }
}

fn field<'a, T>(case: &'a Value, name: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Case<T> {
    let value = case.get(name).ok_or_else(|| unclear(format!("{name} is missing")))?;
    read(value).ok_or_else(|| unclear(format!("{name} is {value}")))
}

fn text<'a>(case: &'a Value, name: &str) -> Case<&'a str> {
    field(case, name, Value::as_str)
}

fn number(case: &Value, name: &str) -> Case<f64> {
    field(case, name, Value::as_f64)
}

fn whole<T: TryFrom<i128>>(case: &Value, name: &str) -> Case<T> {
    field(case, name, |value| T::try_from(value.as_i64().map(i128::from).or(value.as_u64().map(i128::from))?).ok())
}

fn words<'a>(case: &'a Value, name: &str) -> Case<Vec<&'a str>> {
    field(case, name, |value| value.as_array()?.iter().map(Value::as_str).collect())
}

fn seconds(case: &Value, name: &str) -> Case<Duration> {
    field(case, name, |value| Duration::try_from_secs_f64(value.as_f64()?).ok())
}

fn optional<'a, T>(case: &'a Value, name: &str, read: impl FnOnce(&'a Value, &str) -> Case<T>) -> Case<Option<T>> {
    if case[name].is_null() { Ok(None) } else { read(case, name).map(Some) }
}

fn without(value: &Value, names: &[&str]) -> Value {
    let kept = value.as_object().into_iter().flatten().filter(|(name, _)| !names.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn only(value: &Value, known: &[&str]) -> Case<()> {
    let object = value.as_object().ok_or_else(|| unclear(format!("no object: {value}")))?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unclear(format!("unknown field {key:?}"))),
        None => Ok(()),
    }
}

fn folder() -> PathBuf {
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    std::env::var_os("KILN_CONFORMANCE_DIR").map_or_else(own, PathBuf::from)
}

/// Runs every case of a file: it gives what is expected and what kiln made of it.
fn run(file: &str, fields: &[&str], case: impl Fn(&Value) -> Case<(Value, Value)>) {
    let path = folder().join(file);
    let data: Value = serde_json::from_slice(&fs::read(&path).expect(file)).expect(file);
    only(&data, &["source", "notes", "cases"]).expect(file);
    let cases = data["cases"].as_array().filter(|cases| !cases.is_empty()).expect(file);
    let mut applied: Vec<(&Difference, usize)> = DIFFERENCES.iter().map(|difference| (difference, 0)).collect();
    let mut failures = Vec::new();
    for each in cases {
        let result = only(each, fields).and_then(|()| {
            let made = catch_unwind(AssertUnwindSafe(|| case(each)));
            made.unwrap_or_else(|_| Err(unclear("it panicked, see above")))
        });
        let wrong = match result {
            Ok((mut expected, mut got)) => {
                for (difference, times) in &mut applied {
                    *times += usize::from((difference.apply)(each, &mut expected));
                }
                if expected["error"] == true && got["error"].is_string() {
                    got["error"] = json!(true);
                }
                (expected != got).then(|| format!("expected: {expected}\n  got:      {got}"))
            }
            Err(Stop::Refused(field)) => Some(format!("kiln refused {field}")),
            Err(Stop::Unclear(why)) => Some(why),
        };
        failures.extend(wrong.map(|wrong| format!("  case:     {each}\n  {wrong}")));
    }
    // Not println!, which shows itself only when a test fails.
    let mut out = std::io::stdout();
    writeln!(out, "{file}: {} cases run, {} failed", cases.len(), failures.len()).unwrap();
    for (Difference { rule, ours, why, .. }, times) in applied.iter().filter(|(_, times)| *times > 0) {
        writeln!(out, "{file}: {times} where we differ: {rule} -> {ours}: {why}").unwrap();
    }
    assert!(failures.is_empty(), "{file}: {} of {} failed\n{}", failures.len(), cases.len(), failures.join("\n\n"));
}

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Remembers the largest piece of memory that a thread asked for.
struct Watched;

// SAFETY: the system's allocator, unchanged; what it is asked for is only noted.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(size));
        // SAFETY: as the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;
