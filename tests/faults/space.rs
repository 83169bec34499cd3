//! A full disk, and a file that takes no more space than it needs.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kiln::testing::{Hand, ManualClock};
use kiln::{Event, Filter, Kiln, KilnBuilder, NewJob, Outcome, Running, Runtime, State};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::{Folder, Gate, Meter, count, get, ms, pulse, reaches, stranger, until};
use crate::disk::{Act, Disk, FULL, Fault};
use crate::story::whole;
use crate::{repeat_report, report};

/// What was told of trouble.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub fn open(&self, folder: &Folder) -> Kiln {
        self.observe(Kiln::builder(folder.db()).patience(ms(100))).open().unwrap()
    }

    pub fn observe(&self, builder: KilnBuilder) -> KilnBuilder {
        let told = Arc::clone(&self.0);
        builder.observe(move |event| {
            if matches!(event, Event::Degraded { .. } | Event::Recovered { .. }) {
                told.lock().push(event.name().to_owned());
            }
        })
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// How often each job was executed.
pub type Executions = Arc<Mutex<HashMap<i64, u64>>>;

/// A runtime whose jobs wait at a gate.
pub fn gated(kiln: &Kiln, gate: &Gate, meter: &Meter, executions: &Executions) -> Runtime {
    let (gate, meter, executions) = (gate.clone(), meter.clone(), Arc::clone(executions));
    let worker = move |job: &Running<()>| {
        let _inside = meter.enter();
        *executions.lock().entry(job.id).or_default() += 1;
        gate.pass();
    };
    kiln.runtime().queue("default", 2).worker_fn("w", worker).start().unwrap()
}

#[test]
fn on_a_full_disk_acks_are_held_claims_stop_and_all_goes_on_by_itself() {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let (told, gate, meter, executions) = (Told::default(), Gate::default(), Meter::default(), Executions::default());
    let kiln = told.open(&folder);
    let runtime = gated(&kiln, &gate, &meter, &executions);
    let ids: Vec<i64> = (0..8).map(|_| kiln.enqueue(NewJob::new("w")).unwrap().id).collect();
    until("two jobs run", || meter.inside() == 2);

    disk.fail(Fault { act: Act::Write, nth: 1, code: FULL, lasts: true });
    gate.open();
    until("their ends are held", || pulse(&kiln, &runtime).unwritten == 2);
    until("it is told", || told.names() == ["degraded"]);
    let now = pulse(&kiln, &runtime);
    assert!(!now.claiming && now.trouble.as_ref().unwrap().contains("no space left"), "{now:?}");
    let error = kiln.enqueue(NewJob::new("w")).unwrap_err();
    assert!(error.is_full() && error.to_string().contains("no space left"), "{error}");
    assert!(kiln.enqueue_many((0..100).map(|_| NewJob::new("w"))).unwrap_err().is_full());
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 8, "no half of an enqueue");
    let tries = disk.injected();
    until("it tries again", || disk.injected() > tries + 2);
    assert_eq!((told.names().as_slice(), meter.inside()), (["degraded".to_owned()].as_slice(), 0), "told once");
    assert_eq!(executions.lock().len(), 2, "nothing was claimed meanwhile");

    disk.heal();
    for id in &ids {
        assert_eq!(reaches(&kiln, *id, State::Completed).attempt, 1);
    }
    until("it is told", || told.names() == ["degraded", "recovered"]);
    assert!(executions.lock().values().all(|times| *times == 1));
    assert_eq!(pulse(&kiln, &runtime).trouble, None);
    assert_eq!(runtime.stop().unwritten, 0);
    whole(&folder.db());
    report(
        "the disk is full while two jobs run",
        format!("{} writes refused", disk.injected()),
        "enqueue refused with is_full, nothing half written, 2 acks held and written later, no claim meanwhile, told once, \
         recovered by itself, each of 8 jobs executed once",
    );
}

#[test]
fn a_disk_that_fills_up_bit_by_bit_stops_at_a_clear_error_and_loses_nothing() {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let (told, gate, meter, executions) = (Told::default(), Gate::default(), Meter::default(), Executions::default());
    let kiln = told.open(&folder);
    gate.open();
    disk.room(Some(300_000));
    let mut stored = Vec::new();
    let error = loop {
        match kiln.enqueue(NewJob::new("w").meta(json!({ "ballast": "b".repeat(10_000) }))) {
            Ok(job) => stored.push(job.id),
            Err(error) => break error,
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(stored.len() > 10);
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), stored.len() as u64);
    let starting = kiln.runtime().queue("default", 1).start();
    assert!(
        starting.err().is_some_and(|error| error.is_full()),
        "a runtime that cannot make itself known does not start"
    );
    assert!(folder.names().iter().all(|name| !name.contains("-kiln-")), "and leaves nothing: {:?}", folder.names());
    disk.room(None);
    let runtime = gated(&kiln, &gate, &meter, &executions);
    stored.iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
    assert!(executions.lock().values().all(|times| *times == 1));
    runtime.stop();
    whole(&folder.db());
    report(
        "the disk fills up bit by bit",
        format!("{} enqueues until it is full", stored.len()),
        "the next returned is_full, no half row; with space again all were executed once",
    );
}

#[test]
fn a_stop_on_a_full_disk_waits_for_room_to_write_the_last_acks() {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let (told, gate, meter, executions) = (Told::default(), Gate::default(), Meter::default(), Executions::default());
    let kiln = told.open(&folder);
    let runtime = gated(&kiln, &gate, &meter, &executions);
    let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
    until("it runs", || meter.inside() == 1);
    disk.fail(Fault { act: Act::Write, nth: 1, code: FULL, lasts: true });
    gate.open();
    until("its end is held", || pulse(&kiln, &runtime).unwritten == 1);
    let stopping = std::thread::spawn(move || runtime.stop());
    until("the stop tries to write it", || disk.injected() > 30);
    disk.heal();
    assert_eq!(stopping.join().unwrap().unwritten, 0, "a stop writes what it can while it waits");
    assert_eq!(get(&kiln, id).state, State::Completed);
}

#[test]
fn pruning_gives_space_back_in_small_bites() {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let clock = ManualClock::default();
    let kiln = Kiln::builder(folder.db()).clock(&clock).open().unwrap();
    let hand = Hand::new(&kiln, ["old"]);
    for _ in 0..30 {
        kiln.enqueue_many((0..50).map(|_| NewJob::new("old").meta(json!({ "ballast": "b".repeat(12_000) })))).unwrap();
        for job in hand.claim("default", 50).unwrap() {
            hand.ack(&job, Outcome::Complete).unwrap();
        }
    }
    let checkpoint = || {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        until("a checkpoint", || stranger(&folder.db()).query_row(sql, [], |row| row.get(0)) == Ok(0));
        fs::metadata(folder.db()).unwrap().len()
    };
    let before = checkpoint();
    clock.advance(Duration::from_secs(90_000));
    disk.most_pages();
    let commits = disk.count(Act::Commit, crate::disk::Which::Wal);
    let runtime = kiln.runtime().queue("default", 1).start().unwrap();
    let free = || -> i64 { stranger(&folder.db()).query_row("PRAGMA freelist_count", [], |row| row.get(0)).unwrap() };
    until("all are pruned", || kiln.count(Filter::new()).unwrap().total() == 0);
    until("space is given back", || free() <= 256);
    runtime.stop();
    let (after, most) = (checkpoint(), disk.most_pages());
    let commits = disk.count(Act::Commit, crate::disk::Which::Wal) - commits;
    assert!(before > 18_000_000 && after < 2_000_000, "{before} bytes before, {after} after");
    assert!(most < 3000, "a transaction wrote {most} pages");
    report(
        "1500 jobs of 12 kB are pruned",
        format!("{commits} transactions"),
        format!("from {before} to {after} bytes; the largest transaction wrote {most} pages of 4 kB"),
    );
}

/// Without a reader the WAL is begun anew each 1000 pages; a reader that does not end keeps all that is written since.
#[test]
fn the_wal_is_bounded_and_grows_only_under_a_reader_that_does_not_end() {
    let folder = Folder::new();
    let disk = Disk::at(folder.db().parent().unwrap());
    let kiln = folder.open();
    let fill = |jobs: u64| {
        let mut most = 0;
        for _ in 0..jobs {
            kiln.enqueue(NewJob::new("w").meta(json!({ "ballast": "b".repeat(4_000) }))).unwrap();
            most = most.max(kiln.health().unwrap().wal_bytes);
        }
        most
    };
    let alone = fill(1500);
    assert!(alone < 4_300_000, "{alone} bytes of WAL without any reader");
    assert_eq!(kiln.health().unwrap().wal_bytes, fs::metadata(folder.path("jobs.db-wal")).unwrap().len());

    let reader = stranger(&folder.db());
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM kiln_jobs", [], |row| row.get(0)).unwrap();
    let stuck = fill(1500);
    assert!(stuck > 2 * alone, "{stuck} bytes of WAL under a reader");
    assert!(fill(10) > 0, "jobs are enqueued all the same");
    reader.execute_batch("COMMIT").unwrap();
    // Begun anew, it is used again from its beginning and grows no more.
    fill(20);
    let after = fill(1500);
    assert!(after <= stuck + 1_000_000, "{after} bytes of WAL after the reader has gone, {stuck} before");
    assert_eq!(count(&kiln, State::Available), 4530);
    drop(disk);
    report(
        "a reader keeps its transaction open",
        "1500 enqueues of 4 kB",
        format!("the WAL grew to {stuck} bytes, {alone} without the reader; health says so, and no call waited for it"),
    );
}

const SMALL: &str = "KILN_TEST_SMALL_DISK";

/// The same on a real file system that is too small: one in memory, which only this test sees, where the machine lets it
/// have one.
#[test]
fn a_real_file_system_that_is_full_is_told_and_survived() {
    if let Some(folder) = std::env::var_os(SMALL) {
        return on_a_small_disk(folder.as_ref());
    }
    let folder = Folder::new();
    let mount = folder.path("small");
    fs::create_dir(&mount).unwrap();
    // The mount goes with the process.
    let script = "mount -t tmpfs -o size=3m tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let test = "space::a_real_file_system_that_is_full_is_told_and_survived";
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(&mount)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(SMALL, &mount)
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output)
            if output.status.code() != Some(77) && String::from_utf8_lossy(&output.stdout).contains("running") =>
        {
            panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
        _ => return report("a real file system of 3 MB fills up", 0, "not run: this machine lets nobody mount one"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    repeat_report(&said);
}

fn on_a_small_disk(folder: &std::path::Path) {
    let (db, ballast) = (folder.join("jobs.db"), folder.join("somebody else's"));
    fs::write(&ballast, vec![0; 2_000_000]).unwrap();
    let told = Told::default();
    let kiln = told.observe(Kiln::builder(&db)).open().unwrap();
    let (gate, meter, executions) = (Gate::default(), Meter::default(), Executions::default());
    let runtime = gated(&kiln, &gate, &meter, &executions);
    let mut stored: Vec<i64> = (0..2).map(|_| kiln.enqueue(NewJob::new("w")).unwrap().id).collect();
    until("two jobs run", || meter.inside() == 2);
    for n in 0.. {
        let large = "l".repeat(if n < 10 { 20_000 } else { 3000 });
        match kiln.enqueue(NewJob::new("w").meta(json!({ "large": large }))) {
            Ok(job) => stored.push(job.id),
            Err(error) => {
                assert!(error.is_full(), "{error:?}");
                break;
            }
        }
    }
    fs::write(folder.join("the rest"), vec![0; 3_000_000]).unwrap_err();
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), stored.len() as u64, "no half of an enqueue");
    gate.open();
    // What the log holds already may take some small ones still.
    until("it is told", || told.names().first().is_some_and(|name| name == "degraded"));

    fs::remove_file(folder.join("the rest")).unwrap();
    fs::remove_file(ballast).unwrap();
    stored.iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
    until("it is told", || told.names().last().is_some_and(|name| name == "recovered"));
    assert!(executions.lock().values().all(|times| *times == 1));
    assert_eq!(executions.lock().len(), stored.len());
    runtime.stop();
    whole(&db);
    report(
        "a real file system of 3 MB fills up",
        format!("{} enqueues until it is full", stored.len()),
        "the next returned is_full, no half row; it is told; with room again each was executed once",
    );
}
