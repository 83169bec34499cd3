//! Care for a file while others work with it: backup, diagnosis, compaction, export.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{DEADLINE, Ends, Folder, Gate, Other, count, get, ms, other_process_for, reaches, say, stranger, until};
use kiln::testing::ManualClock;
use kiln::{Diagnosis, Filter, Kiln, NewJob, Problem, Running, State};
use serde_json::{Value, json};

/// Runs `story` while a runtime works and this process enqueues: jobs go on all the time. Says how many jobs there were;
/// all of them have completed, each once.
fn at_work(kiln: &Kiln, story: impl FnOnce()) -> u64 {
    let (ran, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let ran = std::sync::Arc::new(ran);
    let counts = std::sync::Arc::clone(&ran);
    let count_one = move |_: &Running<Value>| {
        counts.fetch_add(1, Ordering::SeqCst);
    };
    let runtime = kiln.runtime().queue("work", 2).worker_fn("work", count_one).start().unwrap();
    let enqueued = thread::scope(|scope| {
        let enqueuer = scope.spawn(|| {
            let mut enqueued = 0;
            while !over.load(Ordering::Relaxed) {
                let job = || NewJob::new("work").queue("work").args(json!({ "text": "x".repeat(200) }));
                enqueued += kiln.enqueue_many([job(), job()]).unwrap().len() as u64;
            }
            enqueued
        });
        let ends = Ends(&over);
        let before = ran.load(Ordering::SeqCst);
        until("work is done", || ran.load(Ordering::SeqCst) > before + 20);
        story();
        let before = ran.load(Ordering::SeqCst);
        until("work is done again", || ran.load(Ordering::SeqCst) > before + 20);
        drop(ends);
        enqueuer.join().unwrap()
    });
    until("all is done", || kiln.count(Filter::new().queue("work")).unwrap().state(State::Completed) == enqueued);
    assert_eq!(runtime.stop().unwritten, 0);
    assert_eq!(ran.load(Ordering::SeqCst), enqueued, "each once");
    enqueued
}

fn is_whole(db: &Path) {
    let checked: String = stranger(db).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
}

// Backup.

#[test]
fn a_copy_made_while_jobs_run_has_all_that_was_there_when_it_was_asked_for() {
    let folder = Folder::new();
    let kiln = folder.open();
    let copies: Vec<_> = (0..5).map(|n| folder.path(&format!("copy{n}.db"))).collect();
    let mut enqueued = Vec::new();
    at_work(&kiln, || {
        for copy in &copies {
            let id = kiln.enqueue(NewJob::new("marked").queue("work")).unwrap().id;
            enqueued.push((id, kiln.count(Filter::new()).unwrap().total()));
            let bytes = kiln.backup(copy).unwrap();
            assert_eq!(bytes, fs::metadata(copy).unwrap().len());
            kiln.delete(id).unwrap();
        }
    });
    for (copy, (id, total)) in copies.iter().zip(enqueued) {
        is_whole(copy);
        let copy = Kiln::open(copy).unwrap();
        assert_eq!(get(&copy, id).worker, "marked");
        let there = copy.count(Filter::new()).unwrap();
        assert!(there.total() >= total && there.total() % 2 == 1, "transactions are there as a whole: {there:?}");
        assert!(copy.health().unwrap().runtimes.is_empty(), "its runtimes are not those of the original");
    }
}

#[test]
fn the_jobs_of_a_copy_run_in_the_copy() {
    let folder = Folder::new();
    let kiln = folder.open();
    let gate = Gate::default();
    let passes = gate.clone();
    let runtime =
        kiln.runtime().queue("default", 1).worker_fn("w", move |_: &Running<()>| passes.pass()).start().unwrap();
    let executing = kiln.enqueue(NewJob::new("w")).unwrap().id;
    let scheduled = kiln.enqueue(NewJob::new("w").schedule_in(Duration::from_millis(1))).unwrap().id;
    reaches(&kiln, executing, State::Executing);
    let path = folder.path("copy.db");
    kiln.backup(&path).unwrap();

    let copy = Kiln::open(&path).unwrap();
    assert_eq!(get(&copy, executing).state, State::Executing, "whose owner is not here");
    let orphans = copy.diagnose().unwrap();
    assert_eq!(orphans.of(Problem::Orphans).next().unwrap().jobs, [executing]);
    let there = copy.runtime().worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    assert_eq!(reaches(&copy, executing, State::Completed).attempt, 2);
    reaches(&copy, scheduled, State::Completed);
    there.stop();

    assert_eq!(get(&kiln, executing).state, State::Executing, "the original is none of its business");
    gate.open();
    assert_eq!(reaches(&kiln, executing, State::Completed).attempt, 1);
    runtime.stop();
}

#[cfg(unix)]
#[test]
fn a_copy_is_for_its_owner_s_eyes_only_and_nothing_else_is_left() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w")).unwrap();
    kiln.backup(folder.path("copy.db")).unwrap();
    drop(kiln);
    folder.closed();
    assert_eq!(folder.names(), ["copy.db", "jobs.db"]);
    let mode = fs::metadata(folder.path("copy.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_copy_is_never_written_over_what_is_there_unless_that_is_said() {
    let folder = Folder::new();
    let kiln = folder.open();
    let path = folder.path("there.db");
    fs::write(&path, "precious").unwrap();
    let error = kiln.backup(&path).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("it exists"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    kiln.enqueue(NewJob::new("w")).unwrap();
    kiln.backup_over(&path).unwrap();
    assert_eq!(Kiln::open(&path).unwrap().count(Filter::new()).unwrap().total(), 1);

    // One that is open stays as it is: what lies beside it would be taken for the new one's.
    let there = Kiln::open(&path).unwrap();
    there.enqueue(NewJob::new("w")).unwrap();
    let error = kiln.backup_over(&path).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("-wal"), "{error}");
    assert_eq!(there.count(Filter::new()).unwrap().total(), 2);
}

#[test]
fn the_file_itself_is_no_place_for_its_copy() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w")).unwrap();
    let db = folder.db();
    fs::create_dir(folder.path("inner")).unwrap();
    let mut paths = vec![db.clone(), folder.path("inner").join("..").join("jobs.db")];
    for end in ["-wal", "-shm", "-journal", "-kiln-0123"] {
        paths.push(folder.path(&format!("jobs.db{end}")));
    }
    #[cfg(unix)]
    {
        let (soft, hard) = (folder.path("soft.db"), folder.path("hard.db"));
        std::os::unix::fs::symlink(&db, &soft).unwrap();
        fs::hard_link(&db, &hard).unwrap();
        std::os::unix::fs::symlink(&soft, folder.path("softer.db")).unwrap();
        paths.extend([soft, hard, folder.path("softer.db")]);
    }
    let names = folder.names();
    for path in &paths {
        for error in [kiln.backup(path).unwrap_err(), kiln.backup_over(path).unwrap_err()] {
            assert!(error.is_invalid() && error.field() == Some("path"), "{}: {error}", path.display());
        }
    }
    assert_eq!(folder.names(), names);
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 1);
    is_whole(&db);
}

#[test]
fn a_copy_that_cannot_be_made_leaves_nothing() {
    let folder = Folder::new();
    let kiln = folder.open();
    for (path, why) in [
        (folder.path("missing").join("copy.db"), "does not exist"),
        (folder.path("."), "it exists"),
        (Path::new("/").to_owned(), "names no file"),
    ] {
        let error = kiln.backup(&path).unwrap_err();
        assert!(error.is_invalid(), "{}: {error}", path.display());
        assert!(error.to_string().contains(why) || cfg!(windows), "{error}");
    }
    fs::create_dir(folder.path("folder")).unwrap();
    assert!(kiln.backup_over(folder.path("folder")).unwrap_err().to_string().contains("no regular file"));
    assert!(!folder.names().iter().any(|name| name.contains("unfinished")), "{:?}", folder.names());
}

#[test]
fn a_database_in_another_journal_mode_is_copied_while_somebody_writes() {
    let folder = Folder::new();
    stranger(&folder.db()).execute_batch("PRAGMA journal_mode = DELETE; CREATE TABLE notes (text TEXT)").unwrap();
    let kiln = Kiln::builder(folder.db()).keep_journal_mode().open().unwrap();
    let large = |n: usize| NewJob::new("w").state(State::Suspended).args(json!({ "n": n, "text": "x".repeat(20_000) }));
    kiln.enqueue_many((0..500).map(large)).unwrap();
    let copy = folder.path("copy.db");
    at_work(&kiln, || {
        kiln.backup(&copy).unwrap();
    });
    is_whole(&copy);
    assert_eq!(Kiln::open(&copy).unwrap().count(Filter::new()).unwrap().state(State::Suspended), 500);
}

#[test]
fn jobs_in_memory_can_be_kept() {
    let folder = Folder::new();
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue(NewJob::new("w")).unwrap();
    kiln.backup(folder.db()).unwrap();
    assert_eq!(get(&folder.open(), 1).worker, "w");
}

#[test]
fn a_file_that_is_only_looked_at_can_be_copied() {
    let folder = Folder::new();
    folder.open().enqueue(NewJob::new("w")).unwrap();
    folder.closed();
    let kiln = Kiln::builder(folder.db()).read_only().open().unwrap();
    kiln.backup(folder.path("copy.db")).unwrap();
    assert!(kiln.backup_over(folder.db()).unwrap_err().is_invalid());
    assert_eq!(folder.names(), ["copy.db", "jobs.db"]);
    assert_eq!(get(&Kiln::open(folder.path("copy.db")).unwrap(), 1).worker, "w");
}

// Compaction.

/// Many large jobs that come and go.
fn bloated(folder: &Folder) -> Kiln {
    let kiln = folder.open();
    let large = |n: usize| NewJob::new("w").state(State::Suspended).args(json!({ "n": n, "text": "x".repeat(20_000) }));
    let jobs = kiln.enqueue_many((0..1000).map(large)).unwrap();
    kiln.delete(&jobs[..900]).unwrap();
    kiln
}

#[test]
fn a_file_that_was_large_becomes_small_while_jobs_run() {
    let folder = Folder::new();
    let kiln = bloated(&folder);
    let before = kiln.diagnose().unwrap();
    assert!(before.free_bytes > 15_000_000, "{before}");
    assert!(before.of(Problem::FreeSpace).next().unwrap().advice.contains("compact"), "{before}");
    let worked = at_work(&kiln, || {
        let compacted = kiln.compact().unwrap();
        assert!(compacted.before > 10_000_000 && compacted.after < compacted.before, "{compacted:?}");
    });
    let after = kiln.diagnose_fully().unwrap();
    assert_eq!(after.of(Problem::FreeSpace).count() + after.of(Problem::Damaged).count(), 0, "{after}");
    assert_eq!(count(&kiln, State::Suspended), 100);
    drop(kiln);
    folder.closed();
    // What is left are a hundred large jobs, and those of the work.
    assert!(fs::metadata(folder.db()).unwrap().len() < 5_000_000 + worked * 1000);
}

#[test]
fn a_file_that_somebody_reads_is_not_compacted() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(ms(100)).open().unwrap();
    kiln.enqueue(NewJob::new("w")).unwrap();
    let reader = stranger(&folder.db());
    reader.execute_batch("BEGIN; SELECT count(*) FROM kiln_jobs").unwrap();
    kiln.enqueue(NewJob::new("w")).unwrap();
    let error = kiln.compact().unwrap_err();
    assert!(error.is_busy() && error.to_string().contains("nothing was changed"), "{error}");
    reader.execute_batch("COMMIT").unwrap();
    kiln.compact().unwrap();

    let writer = stranger(&folder.db());
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(kiln.compact().unwrap_err().is_busy());
    writer.execute_batch("ROLLBACK").unwrap();
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 2);
}

#[test]
fn a_log_that_another_moves_into_the_file_at_the_same_moment_is_waited_for() {
    let folder = Folder::new();
    let kiln = folder.open();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = Ends(&over);
        scope.spawn(|| {
            let other = stranger(&folder.db());
            while !over.load(Ordering::Relaxed) {
                other.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
            }
        });
        for _ in 0..30 {
            kiln.enqueue(NewJob::new("w")).unwrap();
            kiln.compact().unwrap();
        }
    });
}

#[test]
fn jobs_in_memory_are_compacted_as_well() {
    let kiln = Kiln::in_memory().unwrap();
    let jobs = kiln.enqueue_many((0..100).map(|_| NewJob::new("w").args(json!({ "x": "x".repeat(5000) })))).unwrap();
    kiln.delete(&jobs).unwrap();
    let compacted = kiln.compact().unwrap();
    assert!(compacted.after < compacted.before / 2, "{compacted:?}");
}

/// A disk of 24 MiB, until it is dropped, where the machine lets one be made.
#[cfg(target_os = "linux")]
struct SmallDisk(Folder);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn new() -> Option<Self> {
        let folder = Folder::new();
        fs::create_dir(folder.path("disk")).unwrap();
        let mut mount = std::process::Command::new("mount");
        let made = mount.args(["-t", "tmpfs", "-o", "size=24m,mode=700", "none"]).arg(folder.path("disk")).output();
        made.is_ok_and(|made| made.status.success()).then(|| Self(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path("disk")).output();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn where_the_disk_has_no_room_for_it_nothing_is_copied_or_compacted_and_jobs_go_on() {
    let Some(disk) = SmallDisk::new() else {
        println!("no disk could be made here: there is nothing to see");
        return;
    };
    let db = disk.0.path("disk").join("jobs.db");
    let kiln = Kiln::open(&db).unwrap();
    let large = |n: usize| NewJob::new("w").state(State::Suspended).args(json!({ "n": n, "text": "x".repeat(20_000) }));
    let mut jobs = Vec::new();
    for _ in 0..14 {
        jobs.extend(kiln.enqueue_many((0..50).map(large)).unwrap());
    }
    kiln.delete(&jobs[..100]).unwrap();
    at_work(&kiln, || {
        let error = kiln.compact().unwrap_err();
        assert!(error.is_full() && error.to_string().contains("nothing was changed"), "{error}");
        let error = kiln.backup(disk.0.path("disk").join("copy.db")).unwrap_err();
        assert!(error.is_full() && error.to_string().contains("copy.db"), "{error}");
    });
    assert_eq!(count(&kiln, State::Suspended), 600);
    assert!(kiln.diagnose_fully().unwrap().of(Problem::Damaged).next().is_none());
    let names: Vec<_> = fs::read_dir(disk.0.path("disk")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("copy")), "{names:?}");
}

// Export.

fn exported(kiln: &Kiln, filter: Filter) -> Vec<Value> {
    let mut lines = Vec::new();
    let count = kiln.export(&mut lines, filter).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines.lines().count() as u64, count);
    assert!(lines.is_empty() || lines.ends_with('\n'));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_has_all_columns_by_stable_names_and_readable_times() {
    let clock = ManualClock::at("2026-02-03T04:05:06.123456Z".parse().unwrap());
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let job =
        NewJob::new("app.Mailer").queue("mail").tags(["a"]).args(json!({ "n": [1, 2.5] })).meta(json!({ "m": null }));
    kiln.enqueue(job.schedule_in(Duration::from_secs(1)).priority(3)).unwrap();
    let mut line = Vec::new();
    kiln.export(&mut line, Filter::new()).unwrap();
    let line = String::from_utf8(line).unwrap();
    let expected = r#"{"id":1,"state":"scheduled","queue":"mail","worker":"app.Mailer","args":{"n":[1,2.5]},"meta":{"m":null},"tags":["a"],"errors":[],"attempt":0,"max_attempts":20,"priority":3,"attempted_by":[],"inserted_at":"2026-02-03T04:05:06.123456Z","scheduled_at":"2026-02-03T04:05:07.123456Z","attempted_at":null,"completed_at":null,"cancelled_at":null,"discarded_at":null,"cancel_requested_at":null,"expires_at":null,"unique_key":null,"progress":null,"checkpoint":null,"#;
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn what_is_exported_can_be_read_back_as_it_was() {
    let folder = Folder::new();
    let kiln = folder.open();
    // As another program writes JSON: blanks, ends of lines, numbers of its own, keys in its own order, and twice.
    let texts = [
        "{\n  \"b\": 1,\r\n  \"a\": 12345678901234567890123, \"c\": 1.0e0, \"d\": \"\\n\\u00fc\" }",
        r#"{"a":1,"a":2}"#,
        r#"{"deep":[[[[{"x":-0.0}]]]]}"#,
    ];
    for text in texts {
        let insert = "INSERT INTO kiln_jobs (worker, args, state) VALUES ('w', ?1, 'suspended')";
        stranger(&folder.db()).execute(insert, [text]).unwrap();
    }
    let mut lines = Vec::new();
    kiln.export(&mut lines, Filter::new()).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    for (line, text) in lines.lines().zip(texts) {
        assert!(line.contains(&format!("\"args\":{}", text.replace(['\n', '\r'], " "))), "{line}");
        assert!(!line.contains("malformed"), "{line}");
    }
}

#[test]
fn the_filter_says_which_and_every_page_is_written() {
    let folder = Folder::new();
    let kiln = folder.open();
    let jobs =
        (0..2500).map(|n| NewJob::new("w").queue(if n % 5 == 0 { "fifth" } else { "q" }).args(json!({ "n": n })));
    kiln.enqueue_many(jobs).unwrap();
    let large = |_| NewJob::new("large").args(json!({ "x": "x".repeat(900_000) }));
    kiln.enqueue_many((0..12).map(large)).unwrap();
    let all = exported(&kiln, Filter::new().limit(3).newest_first().after(7));
    let ids: Vec<i64> = all.iter().map(|job| job["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (1..=2512).collect::<Vec<_>>());
    assert_eq!(exported(&kiln, Filter::new().queue("fifth")).len(), 500);
    assert_eq!(exported(&kiln, Filter::new().state(State::Completed)).len(), 0);
}

#[test]
fn an_export_while_jobs_run_has_every_job_once_and_whole() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue_many((0..3000).map(|_| NewJob::new("still").state(State::Suspended))).unwrap();
    at_work(&kiln, || {
        let jobs = exported(&kiln, Filter::new());
        let ids: BTreeSet<i64> = jobs.iter().map(|job| job["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), jobs.len());
        assert_eq!(jobs.iter().filter(|job| job["worker"] == "still").count(), 3000);
        assert!(jobs.iter().all(|job| (job["state"] == "completed") == job["completed_at"].is_string()));
    });
}

#[test]
fn whatever_a_row_holds_it_is_exported() {
    let folder = Folder::new();
    let kiln = folder.open();
    let hostile = [
        ("args", "'half a'", json!("half a")),
        ("args", "NULL", Value::Null),
        ("args", "x'ff00'", json!("\u{fffd}\u{0}")),
        ("args", "CAST(x'7bff7d' AS TEXT)", json!("{\u{fffd}}")),
        ("args", "'\"just text\"'", json!("just text")),
        ("meta", "17", json!(17)),
        ("tags", "'no list'", json!("no list")),
        ("errors", "'{'", json!("{")),
        ("state", "'frozen'", json!("frozen")),
        ("queue", "x'ff'", json!("\u{fffd}")),
        ("attempt", "'many'", json!("many")),
        ("attempt", "-3", json!(-3)),
        ("priority", "1.5", json!(1.5)),
        ("max_attempts", "9e999", Value::Null),
        ("scheduled_at", "9223372036854775807", json!(i64::MAX)),
        ("scheduled_at", "'tomorrow'", json!("tomorrow")),
        ("attempted_at", "-9223372036854775808", json!(i64::MIN)),
        ("progress", "'\u{1f}'", json!("\u{1f}")),
        ("args", "replace(hex(zeroblob(500)), '00', '[')", json!("[".repeat(500))),
    ];
    let conn = stranger(&folder.db());
    // The table as an application may have made it, without our constraints.
    conn.execute_batch(
        "CREATE TABLE loose AS SELECT * FROM kiln_jobs; DROP VIEW kiln_jobs_readable; DROP TABLE kiln_jobs;
         ALTER TABLE loose RENAME TO kiln_jobs;",
    )
    .unwrap();
    for (n, (column, value, _)) in hostile.iter().enumerate() {
        let mut columns =
            BTreeMap::from([("worker", "'w'"), ("args", "'{}'"), ("meta", "'{}'"), ("state", "'available'")]);
        columns.insert(column, value);
        let (names, values): (Vec<&str>, Vec<&str>) = columns.into_iter().unzip();
        let sql = format!("INSERT INTO kiln_jobs (id, {}) VALUES ({n}, {})", names.join(", "), values.join(", "));
        conn.execute_batch(&sql).unwrap();
    }
    let rows = exported(&kiln, Filter::new());
    assert_eq!(rows.len(), hostile.len());
    for (row, (column, value, expected)) in rows.iter().zip(&hostile) {
        assert_eq!(row[column], *expected, "{column} = {value}");
        let well = [json!(null), json!(17), json!("just text"), json!("frozen"), json!(-3)].contains(expected)
            && *value != "9e999";
        let named = row["malformed"].as_array().is_some_and(|names| names.contains(&json!(column)));
        assert_eq!(named, !well, "{column} = {value}: {row}");
    }
}

#[test]
fn a_writer_that_fails_ends_the_export_with_its_error() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let kiln = Kiln::in_memory().unwrap();
    kiln.enqueue_many((0..10).map(|_| NewJob::new("w"))).unwrap();
    let error = kiln.export(Full(2000), Filter::new()).unwrap_err();
    assert!(error.is_full() && error.to_string().contains("export"), "{error}");
}

// Diagnosis.

fn found(diagnosis: &Diagnosis, problem: Problem) -> String {
    let texts: Vec<String> = diagnosis.of(problem).map(|finding| finding.text.clone()).collect();
    assert!(diagnosis.of(problem).all(|finding| finding.advice.len() > 20), "each with advice: {diagnosis}");
    texts.join("\n")
}

#[test]
fn a_file_at_work_is_well_and_shows_who_holds_what() {
    let folder = Folder::new();
    let kiln = folder.open();
    let gate = Gate::default();
    let passes = gate.clone();
    let runtime = kiln.runtime().queue("slow", 2).worker_fn("w", move |_: &Running<()>| passes.pass()).start().unwrap();
    for _ in 0..3 {
        kiln.enqueue(NewJob::new("w").queue("slow")).unwrap();
    }
    until("two execute", || count(&kiln, State::Executing) == 2);
    let diagnosis = kiln.diagnose_fully().unwrap();
    assert!(diagnosis.is_well(), "{diagnosis}");
    let holder = &diagnosis.runtimes[0];
    assert_eq!((&holder.runtime.id, holder.executing), (&runtime.id().unwrap(), 2));
    assert_eq!(holder.runtime.pid, std::process::id());
    assert!(holder.oldest.is_some() && diagnosis.full);
    assert_eq!((diagnosis.jobs.total(), diagnosis.schema_version), (3, Some(1)));
    assert!(diagnosis.file_bytes > 0 && diagnosis.wal_bytes > 0);
    let shown = diagnosis.to_string();
    for line in ["jobs: available 1, executing 2", "executes 2 of slow", "findings: none (integrity checked, full)"] {
        assert!(shown.contains(line), "{shown}");
    }
    gate.open();
    runtime.stop();
    assert!(kiln.diagnose().unwrap().to_string().contains("runtimes: none"));
}

#[test]
fn what_is_wrong_with_jobs_is_found_with_advice() {
    let folder = Folder::new();
    let clock = ManualClock::default();
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    kiln.enqueue(NewJob::new("nobody")).unwrap();
    let exhausted = kiln.enqueue(NewJob::new("nobody")).unwrap().id;
    let broken = kiln.enqueue(NewJob::new("nobody")).unwrap().id;
    let large = kiln.enqueue(NewJob::new("nobody").args(json!({ "x": "x".repeat(70_000) }))).unwrap().id;
    let orphan = kiln.enqueue(NewJob::new("nobody")).unwrap().id;
    stranger(&folder.db())
        .execute_batch(&format!(
            "UPDATE kiln_jobs SET attempt = max_attempts WHERE id = {exhausted};
             UPDATE kiln_jobs SET args = '{{' WHERE id = {broken};
             UPDATE kiln_jobs SET state = 'executing', attempt = 1, attempted_at = 1,
               attempted_by = '[\"far\",\"0123456789abcdef0123456789abcdef\"]' WHERE id = {orphan}"
        ))
        .unwrap();
    let diagnosis = kiln.diagnose().unwrap();
    assert_eq!(
        found(&diagnosis, Problem::UnknownWorkers),
        "available jobs for worker \"nobody\", which no live runtime knows: 3"
    );
    for (problem, id) in [
        (Problem::Exhausted, exhausted),
        (Problem::Malformed, broken),
        (Problem::Large, large),
        (Problem::Orphans, orphan),
    ] {
        assert!(found(&diagnosis, problem).ends_with(&format!(": 1 ({id})")), "{diagnosis}");
        assert_eq!(diagnosis.of(problem).next().unwrap().jobs, [id]);
    }
    assert_eq!(diagnosis.findings.len(), 5, "{diagnosis}");
    let shown = diagnosis.to_string();
    assert!(shown.lines().filter(|line| line.trim_start().starts_with("-> ")).count() == 5, "{shown}");
}

#[test]
fn jobs_that_do_not_leave_are_found() {
    let folder = Folder::new();
    let clock = ManualClock::default();
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    let gate = Gate::default();
    let passes = gate.clone();
    let runtime = kiln.runtime().queue("q", 2).worker_fn("w", move |_: &Running<()>| passes.pass()).start().unwrap();
    let [asked, long] = [(); 2].map(|()| kiln.enqueue(NewJob::new("w").queue("q")).unwrap().id);
    until("both execute", || count(&kiln, State::Executing) == 2);
    kiln.cancel(asked).unwrap();
    clock.advance(Duration::from_secs(59));
    assert!(kiln.diagnose().unwrap().is_well());
    clock.advance(Duration::from_secs(2));
    assert_eq!(
        found(&kiln.diagnose().unwrap(), Problem::Stuck),
        format!("jobs that were asked to leave more than a minute ago, and execute: 1 ({asked})")
    );
    clock.advance(Duration::from_secs(24 * 60 * 60));
    assert!(found(&kiln.diagnose().unwrap(), Problem::Stuck).ends_with(&format!("more than a day: 1 ({long})")));
    gate.open();
    reaches(&kiln, long, State::Completed);
    runtime.stop();
}

#[test]
fn the_jobs_of_another_process_are_its_own_until_it_dies() {
    const NAME: &str = "the_jobs_of_another_process_are_its_own_until_it_dies";
    if let Some(folder) = other_process_for() {
        let kiln = Kiln::open(folder.join("jobs.db")).unwrap();
        let wait = |job: &Running<()>| job.sleep(DEADLINE).unwrap_or_default();
        let runtime = kiln.runtime().worker_fn("w", wait).start().unwrap();
        reaches(&kiln, 1, State::Executing);
        say(&runtime.id().unwrap());
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w")).unwrap();
    let mut other = Other::start(NAME, &folder);
    let id = other.hear();
    let diagnosis = kiln.diagnose().unwrap();
    assert!(diagnosis.is_well(), "{diagnosis}");
    let holder = &diagnosis.runtimes[0];
    assert_eq!((&holder.runtime.id, holder.runtime.pid, holder.executing), (&id, other.id(), 1));
    other.kill();
    let diagnosis = kiln.diagnose().unwrap();
    assert_eq!((diagnosis.runtimes.len(), &diagnosis.of(Problem::Orphans).next().unwrap().jobs), (0, &vec![1]));
}

#[test]
fn a_long_log_is_found() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue(NewJob::new("w")).unwrap();
    let reader = stranger(&folder.db());
    reader.execute_batch("BEGIN; SELECT count(*) FROM kiln_jobs").unwrap();
    let large = |_| NewJob::new("w").state(State::Suspended).args(json!({ "x": "x".repeat(1_000_000) }));
    for _ in 0..7 {
        kiln.enqueue_many((0..10).map(large)).unwrap();
    }
    let diagnosis = kiln.diagnose().unwrap();
    assert!(diagnosis.wal_bytes > 64 * 1024 * 1024, "{diagnosis}");
    assert!(found(&diagnosis, Problem::LongLog).contains(&diagnosis.wal_bytes.to_string()));
    reader.execute_batch("COMMIT").unwrap();
}

/// Every page of the file is spoilt in turn, its beginning and its whole.
#[test]
fn a_damaged_file_is_a_finding_and_never_a_panic() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue_many((0..200).map(|n| NewJob::new("w").args(json!({ "n": n, "x": "x".repeat(300) })))).unwrap();
    drop(kiln);
    folder.closed();
    let content = fs::read(folder.db()).unwrap();
    let page = 4096;
    let (mut spoilt, mut found) = (0, 0);
    for (n, length) in (1..content.len() / page).flat_map(|n| [(n, 40), (n, page)]) {
        let mut damaged = content.clone();
        damaged[n * page..n * page + length].fill(0xa5);
        let path = folder.path(&format!("{n}-{length}.db"));
        fs::write(&path, damaged).unwrap();
        // Where not even the schema can be read, it is not opened.
        let Ok(kiln) = Kiln::open(&path) else { continue };
        let diagnosis = kiln.diagnose_fully().unwrap();
        spoilt += 1;
        found += usize::from(diagnosis.of(Problem::Damaged).count() > 0);
        assert!(!diagnosis.to_string().is_empty());
        let _ = kiln.export(std::io::sink(), Filter::new());
        let _ = (kiln.list(Filter::new()), kiln.count(Filter::new()), kiln.health());
        drop(kiln);
        let _ = fs::remove_file(&path);
    }
    assert!(spoilt > 20, "{spoilt}");
    // A page that is free, or one of pointers that nobody follows, is nobody's loss.
    assert!(found + 4 >= spoilt, "{found} of {spoilt} were found");
}

#[test]
fn a_large_file_is_looked_over_while_jobs_run() {
    let folder = Folder::new();
    let kiln = folder.open();
    kiln.enqueue_many((0..20_000).map(|_| NewJob::new("w").state(State::Suspended))).unwrap();
    at_work(&kiln, || {
        let diagnosis = kiln.diagnose_fully().unwrap();
        assert_eq!((diagnosis.of(Problem::Damaged).count(), diagnosis.jobs.state(State::Suspended)), (0, 20_000));
        assert_eq!(diagnosis.runtimes.len(), 1);
    });
}
