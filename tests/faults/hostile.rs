//! Content that nobody of us wrote: any value in any column, damaged pages, a log cut short, sidecars of others. A healthy
//! job stands by, and has to be executed all the same.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kiln::{Changes, Filter, Job, Kiln, NewCron, NewJob, Outcome, Running, State};
use parking_lot::Mutex;
use rusqlite::Connection;

use crate::common::{Folder, get, reaches, stranger, until};
use crate::report;
use crate::story::whole;

/// What a column may be made to hold, as SQL.
fn values() -> Vec<String> {
    let deep = |open: &str, close: &str| format!("'{}{}'", open.repeat(5000), close.repeat(5000));
    let mut values: Vec<String> = [
        "NULL",
        "''",
        "'text'",
        "'{\"half\": '",
        "'[1, {\"error\": 5}, null]'",
        "'{\"queues\": [[]]}'",
        "'2020-02-02T02:02:02Z'",
        "'* * * * *'",
        "'Mars/Olympus'",
        "0",
        "1",
        "-3",
        "9223372036854775807",
        "-9223372036854775808",
        "1.5",
        "1e300",
        "-1e300",
        "x''",
        "x'5b22616263225d'",
        "x'fffe00'",
        "CAST(x'5bff22fe' AS TEXT)",
        "CAST(x'610062' AS TEXT)",
        "replace(hex(zeroblob(500000)), '00', 'ab')",
    ]
    .map(str::to_owned)
    .to_vec();
    values.extend([deep("[", "]"), deep("{\"a\":", "}")]);
    values
}

fn columns(conn: &Connection, table: &str) -> Vec<String> {
    let mut select = conn.prepare(&format!("PRAGMA table_info({table})")).unwrap();
    select.query_map([], |row| row.get(1)).unwrap().map(|name| name.unwrap()).collect()
}

/// Writes one odd row for each column and value; how many, the rest the table refuses.
fn write_odd_rows(conn: &Connection, table: &str, insert: impl Fn(&Connection, u64)) -> u64 {
    let mut written = 0;
    conn.execute_batch("BEGIN").unwrap();
    for column in columns(conn, table) {
        for value in values() {
            insert(conn, written);
            let update = format!("UPDATE {table} SET \"{column}\" = {value} WHERE {table}.{} = ?1", key(table));
            let id = odd_key(conn, table, written);
            match conn.execute(&update, [id.clone()]) {
                Ok(changed) => {
                    assert_eq!(changed, 1, "{update}");
                    written += 1;
                }
                Err(_) => {
                    conn.execute(&format!("DELETE FROM {table} WHERE {} = ?1", key(table)), [id]).unwrap();
                }
            }
        }
    }
    conn.execute_batch("COMMIT").unwrap();
    written
}

fn key(table: &str) -> &'static str {
    match table {
        "kiln_jobs" | "kiln_runtimes" => "id",
        "kiln_queues" => "queue",
        _ => "name",
    }
}

fn odd_key(conn: &Connection, table: &str, n: u64) -> rusqlite::types::Value {
    match table {
        "kiln_jobs" => conn.last_insert_rowid().into(),
        _ => format!("odd{n}").into(),
    }
}

type Log = Arc<Mutex<HashMap<String, u64>>>;

/// A runtime that knows the healthy and the odd ones, and what the rest of the handle makes of the file.
fn live_with(kiln: &Kiln, odd: u64, table: &str) {
    let log = Log::default();
    let worker = {
        let log = log.clone();
        move |job: &Running<serde_json::Value>| {
            *log.lock().entry(job.queue.clone()).or_default() += 1;
            job.progress(1, 2, "half");
            Ok::<_, kiln::Failure>(Outcome::Complete)
        }
    };
    let runtime = kiln.runtime().queue("default", 2).queue("healthy", 1).worker_fn("w", worker).start().unwrap();
    for queue in ["default", "healthy"] {
        let healthy = kiln.enqueue(NewJob::new("w").queue(queue).tags(["healthy"])).unwrap();
        let later = NewJob::new("w").queue(queue).schedule_in(std::time::Duration::from_millis(20));
        let later = kiln.enqueue(later).unwrap();
        reaches(kiln, healthy.id, State::Completed);
        reaches(kiln, later.id, State::Completed);
    }
    let fires =
        NewCron::every(std::time::Duration::from_millis(100), NewJob::new("w").queue("healthy")).name("healthy");
    kiln.cron(fires).unwrap();
    let before = log.lock()["healthy"];
    until("a cron entry beside odd ones fires", || log.lock()["healthy"] > before);
    kiln.delete_cron("healthy").unwrap();

    // Whatever is asked comes back, as a value or as an error.
    let jobs = kiln.list(Filter::new().limit(u32::MAX)).unwrap();
    let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
    for job in &jobs {
        let _ = (job.to_string(), format!("{job:?}"), job.recorded::<serde_json::Value>(), kiln.progress(job.id));
    }
    kiln.health().unwrap();
    kiln.count(Filter::new()).unwrap();
    assert!(kiln.check("healthy").unwrap().iter().any(|check| Some(&check.runtime) == runtime.id().as_ref()));
    let _ = kiln.crons().unwrap().iter().map(|entry| format!("{entry:?}")).count();
    if table == "kiln_jobs" {
        for id in ids {
            let _ = kiln.update(id, Changes::new().priority(1));
            let _ = kiln.update(id, |job: &Job| Changes::new().priority(9 - job.priority.clamp(0, 9)));
            kiln.cancel(id).unwrap();
            kiln.retry(id).unwrap();
        }
    }
    let last = kiln.enqueue(NewJob::new("w").queue("healthy").priority(0)).unwrap();
    reaches(kiln, last.id, State::Completed);
    assert_eq!(runtime.stop().unwritten, 0);
    assert!(odd > 20, "{odd} odd rows in {table}");
}

fn odd_rows(table: &'static str, insert: impl Fn(&Connection, u64)) {
    let folder = Folder::new();
    let kiln = folder.open();
    let odd = write_odd_rows(&stranger(&folder.db()), table, insert);
    live_with(&kiln, odd, table);
    whole(&folder.db());
    report(
        format!("rows of {table} edited by hand: every column, {} values each", values().len()),
        format!("{odd} rows"),
        "no panic, every healthy job and cron entry beside them ran, every verb returned",
    );
}

#[test]
fn odd_jobs_that_wait_stop_nobody() {
    odd_rows("kiln_jobs", |conn, _| {
        conn.execute_batch("INSERT INTO kiln_jobs (worker, queue) VALUES ('w', 'default')").unwrap();
    });
}

#[test]
fn odd_jobs_that_are_due_or_executing_stop_nobody() {
    odd_rows("kiln_jobs", |conn, n| {
        let state = ["scheduled", "retryable", "executing"][n as usize % 3];
        conn.execute(
            "INSERT INTO kiln_jobs (worker, state, attempt, attempted_at, attempted_by) VALUES ('w', ?1, 1, 5, '[\"far\",\"gone\"]')",
            [state],
        )
        .unwrap();
    });
}

#[test]
fn odd_jobs_that_have_ended_stop_nobody() {
    odd_rows("kiln_jobs", |conn, n| {
        let state = ["completed", "cancelled", "discarded", "suspended", "no state at all"][n as usize % 5];
        conn.execute("INSERT INTO kiln_jobs (worker, state, completed_at) VALUES ('w', ?1, 5)", [state]).unwrap();
    });
}

#[test]
fn odd_runtimes_stop_nobody() {
    odd_rows("kiln_runtimes", |conn, n| {
        conn.execute(
            "INSERT INTO kiln_runtimes (id, node, pid, port, queues, workers, started_at) VALUES (?1, 'far', 1, 9, '[]', '[]', 5)",
            [format!("odd{n}")],
        )
        .unwrap();
    });
}

#[test]
fn odd_rulings_stop_nobody() {
    odd_rows("kiln_queues", |conn, n| {
        conn.execute("INSERT INTO kiln_queues (queue, paused) VALUES (?1, 0)", [format!("odd{n}")]).unwrap();
        // Some values of the key are the word for all queues.
        conn.execute_batch("DELETE FROM kiln_queues WHERE queue = ''").unwrap();
    });
}

#[test]
fn odd_cron_entries_stop_nobody() {
    odd_rows("kiln_crons", |conn, n| {
        conn.execute(
            "INSERT INTO kiln_crons (name, expression, worker, queue) VALUES (?1, '* * * * * *', 'w', 'default')",
            [format!("odd{n}")],
        )
        .unwrap();
    });
}

/// Cuts the chain of pages that holds the arguments of a job, in a file that nobody has open.
fn damage(db: &Path, mark: &str) {
    let mut bytes = fs::read(db).unwrap();
    let at = bytes.windows(mark.len()).position(|window| window == mark.as_bytes()).unwrap();
    let page = at / 4096 * 4096;
    bytes[page..page + 4].copy_from_slice(&[0xff; 4]);
    fs::write(db, bytes).unwrap();
}

#[test]
fn a_damaged_page_of_one_job_stops_no_other() {
    let folder = Folder::new();
    let kiln = folder.open();
    let args = |mark: &str| serde_json::json!({ "text": format!("{}{mark}{}", "x".repeat(6000), "y".repeat(6000)) });
    let damaged = kiln.enqueue(NewJob::new("w").args(args("DAMAGED"))).unwrap();
    let healthy: Vec<i64> = (0..5).map(|_| kiln.enqueue(NewJob::new("w").args(args("HEALTHY"))).unwrap().id).collect();
    drop(kiln);
    folder.closed();
    damage(&folder.db(), "DAMAGED");

    let kiln = folder.open();
    let error = kiln.get(damaged.id).unwrap_err();
    assert!(error.to_string().contains("malformed"), "{error}");
    // The others are exported whole, it as what it is; and who cancels many is told which one cannot be.
    let mut lines = Vec::new();
    assert_eq!(kiln.export(&mut lines, Filter::new()).unwrap(), 6);
    let lines: Vec<serde_json::Value> =
        String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let why = "database disk image is malformed";
    assert_eq!(lines[0], serde_json::json!({ "id": damaged.id, "unreadable": why }));
    for (line, id) in lines[1..].iter().zip(&healthy) {
        assert_eq!((line["id"].as_i64(), line["args"]["text"].as_str().map(str::len)), (Some(*id), Some(12_007)));
    }
    let error = kiln.cancel(Filter::new()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("job {}: ", damaged.id)), "{error}");
    let runtime =
        kiln.runtime().queue("default", 2).worker_fn("w", |_: &Running<serde_json::Value>| ()).start().unwrap();
    // Not by `reaches`, whose message would show their arguments.
    until("the others are executed", || healthy.iter().all(|id| get(&kiln, *id).state == State::Completed));
    let later = kiln.enqueue(NewJob::new("w").args(serde_json::json!({}))).unwrap();
    reaches(&kiln, later.id, State::Completed);
    assert_eq!(runtime.stop().unwritten, 0);
    assert_eq!(kiln.delete(damaged.id).unwrap(), 1, "it can be deleted");
    report(
        "a page of one job's arguments is damaged",
        1,
        "that job stays where it is and says so, 6 others were executed, and exported whole",
    );
}

/// A log that ends in the middle of a transaction, and one that is no log at all.
#[test]
fn a_log_cut_short_anywhere_loses_whole_transactions_from_its_end_and_nothing_else() {
    let folder = Folder::new();
    let kiln = folder.open();
    let stored: Vec<i64> = (0..10).map(|_| kiln.enqueue(NewJob::new("w")).unwrap().id).collect();
    let (db, wal) = (fs::read(folder.db()).unwrap(), fs::read(folder.path("jobs.db-wal")).unwrap());
    let mut least = 10;
    let cuts: Vec<usize> = (0..wal.len()).step_by(1777).collect();
    for cut in &cuts {
        let left = Folder::new();
        fs::write(left.db(), &db).unwrap();
        fs::write(left.path("jobs.db-wal"), &wal[..*cut]).unwrap();
        let kiln = left.open();
        let found = kiln.list(Filter::new().limit(100)).unwrap();
        let ids: Vec<i64> = found.iter().map(|job| job.id).collect();
        assert_eq!(ids, stored[..ids.len()], "the first of them, without a gap");
        least = least.min(ids.len());
        kiln.enqueue(NewJob::new("w")).unwrap();
        whole(&left.db());
    }
    assert_eq!(least, 0);
    let left = Folder::new();
    fs::write(left.db(), &db).unwrap();
    fs::write(left.path("jobs.db-wal"), vec![0xab; 50_000]).unwrap();
    left.open().enqueue(NewJob::new("w")).unwrap();
    whole(&left.db());
    report(
        "the write-ahead log is cut short or is no log at all",
        format!("{} cuts", cuts.len() + 1),
        "each file opened and whole, with the transactions before the cut and no half of one",
    );
}

/// Whoever may write to the folder may put anything where a runtime expects its sidecar.
#[test]
#[cfg(unix)]
fn a_link_in_place_of_a_sidecar_is_neither_followed_nor_written_through() {
    let folder = Folder::new();
    let kiln = folder.open();
    let victim = folder.path("somebody else's");
    fs::write(&victim, "precious").unwrap();
    // A dead runtime's, as the table names it; and the one that a runtime is about to make cannot be guessed.
    let conn = stranger(&folder.db());
    let id = "0123456789abcdef0123456789abcdef";
    conn.execute(
        "INSERT INTO kiln_runtimes (id, node, pid, queues, workers, started_at) VALUES (?1, 'far', 1, '[]', '[]', 5)",
        [id],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO kiln_jobs (worker, state, attempt, attempted_at, attempted_by) VALUES ('w', 'executing', 1, 5, json_array('far', ?1))",
        [id],
    )
    .unwrap();
    std::os::unix::fs::symlink(&victim, folder.path(&format!("jobs.db-kiln-{id}"))).unwrap();
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    let own = folder.path(&format!("jobs.db-kiln-{}", runtime.id().unwrap()));
    let healthy = kiln.enqueue(NewJob::new("w")).unwrap();
    reaches(&kiln, healthy.id, State::Completed);

    // Under a runtime that lives: it puts its own back, and the target of the link is left alone.
    fs::remove_file(&own).unwrap();
    std::os::unix::fs::symlink(&victim, &own).unwrap();
    until("it is put back", || fs::symlink_metadata(&own).is_ok_and(|found| found.is_file()));
    reaches(&kiln, get(&kiln, 1).id, State::Completed);
    runtime.stop();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    report("a symbolic link in place of a sidecar", 2, "neither followed nor written through; jobs ran");
}

#[test]
fn strange_things_in_place_of_sidecars_stop_nobody() {
    let folder = Folder::new();
    let kiln = folder.open();
    let conn = stranger(&folder.db());
    for (n, id) in ["..", "../../etc/passwd", "", "a b", "0123456789abcdef0123456789abcdef"].into_iter().enumerate() {
        conn.execute(
            "INSERT INTO kiln_jobs (worker, state, attempt, attempted_at, attempted_by) VALUES ('w', 'executing', 1, ?1, json_array('far', ?2))",
            (n as i64, id),
        )
        .unwrap();
    }
    fs::create_dir(folder.path("jobs.db-kiln-0123456789abcdef0123456789abcdef")).unwrap();
    fs::write(folder.path("jobs.db-kiln-ffffffffffffffffffffffffffffffff"), "not ours").unwrap();
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    let healthy = kiln.enqueue(NewJob::new("w")).unwrap();
    reaches(&kiln, healthy.id, State::Completed);
    runtime.stop();
    assert_eq!(fs::read_to_string(folder.path("jobs.db-kiln-ffffffffffffffffffffffffffffffff")).unwrap(), "not ours");
    report("a directory, a stranger's file and impossible names in place of sidecars", 5, "left alone; jobs ran");
}

/// Texts that one reader of JSON takes and another does not.
#[test]
fn arguments_that_readers_of_json_disagree_about_run_or_say_why_not() {
    let texts = [
        (r#"{"a":1e400}"#, false),
        (r#"{"a":-0}"#, true),
        (r#"{"a":1e-400}"#, true),
        (r#"{"a":9223372036854775808}"#, true),
        (r#"{"a":18446744073709551616}"#, true),
        (r#"{"a":1,"a":2}"#, true),
        (r#"{"a":"\ud800"}"#, false),
        (r#"{"\ud800":1}"#, false),
        (r#"{"a":"\u0000"}"#, true),
        (" \n{}\r\n ", true),
        ("\u{feff}{}", false),
        (r#"{"a":NaN}"#, false),
        ("{a:1}", false),
        (r#"{"a":0x10}"#, false),
        (r#"{"a":1,}"#, false),
        ("nul", false),
        (r#"{"password":"hunter2","b":"\ud800"}"#, false),
    ];
    let folder = Folder::new();
    let kiln = folder.open();
    let runtime =
        kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<serde_json::Value>| ()).start().unwrap();
    let conn = stranger(&folder.db());
    for (text, runs) in texts {
        conn.execute("INSERT INTO kiln_jobs (worker, args, max_attempts) VALUES ('w', ?1, 1)", [text]).unwrap();
        let id = conn.last_insert_rowid();
        // So that nobody has to wait for a look.
        kiln.update(id, Changes::new().priority(1)).unwrap();
        let job = reaches(&kiln, id, if runs { State::Completed } else { State::Discarded });
        assert!(runs || job.errors[0].error.contains("not the JSON that was expected"), "{text}: {:?}", job.errors);
        assert_eq!(job.args.as_str(), text);
        let shown = format!("{job} {job:?}");
        let mut exported = Vec::new();
        kiln.export(&mut exported, Filter::new()).unwrap();
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&exported).is_ok(), "{text}: its line is JSON");
        let exported = String::from_utf8(exported).unwrap();
        assert!(!shown.contains("hunter2") && !exported.contains("hunter2"), "{text}: {exported}");
        // It is the double of one with the same arguments, and can be changed and run again.
        let double = || kiln.enqueue(NewJob::new("w").args(&job.args).unique(kiln::Unique::new()).max_attempts(1));
        match double() {
            Ok(first) => {
                assert_eq!(double().unwrap().id, first.id, "{text}");
                until("it ends", || ![State::Available, State::Executing].contains(&get(&kiln, first.id).state));
            }
            Err(error) => assert!(error.is_invalid(), "{text}: {error}"),
        }
        kiln.update(id, |_: &Job| Changes::new().args(serde_json::json!({ "a": 1 }))).unwrap();
        kiln.retry(id).unwrap();
        reaches(&kiln, id, State::Completed);
        kiln.delete(Filter::new().states(State::ALL)).unwrap();
    }
    runtime.stop();
    report(
        "arguments that readers of JSON disagree about, written by hand",
        texts.len(),
        "each ran, or its attempt failed and said why; each was shown without secrets, exported as JSON, and mended",
    );
}
