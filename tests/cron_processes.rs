//! Several processes fire the cron entries of one file, and one of them is killed meanwhile.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Duration;

use common::{DEADLINE, Folder, Other, other_process_for, say, stranger, until};
use jiff::Timestamp;
use kiln::{Durability, Event, Filter, Job, Kiln, Missed, NewCron, NewJob, Running, State};
use serde_json::Value;

const DISTANCE: Duration = Duration::from_millis(20);

/// What one process fires, it notes in a file of its own, a line for each job.
fn noted(folder: &Path, process: u32) -> std::path::PathBuf {
    folder.join(format!("fired-{process}"))
}

fn open(folder: &Path) -> Kiln {
    let mut notes = OpenOptions::new().create(true).append(true).open(noted(folder, std::process::id())).unwrap();
    let notes = move |event: &Event| {
        if let Event::Enqueued { job, .. } = event {
            writeln!(notes, "{}", job.id).unwrap();
        }
    };
    let notes = std::sync::Mutex::new(notes);
    let observer = move |event: &Event| (notes.lock().unwrap())(event);
    let builder = Kiln::builder(folder.join("jobs.db")).durability(Durability::Normal).patience(DEADLINE);
    builder.observe(observer).open().unwrap()
}

/// One of the processes: fires and works until it hears nothing more.
fn be_the_other(folder: &Path) {
    let kiln = open(folder);
    let runtime = kiln.runtime().worker_fn("tick", |_: &Running<Value>| ()).start().unwrap();
    say("started");
    assert!(std::io::stdin().lock().lines().next().is_none());
    assert_eq!(runtime.stop().unwritten, 0);
}

fn start(folder: &Folder) -> Other {
    let mut other =
        Other::start("every_slot_is_fired_once_by_one_of_several_processes_also_when_one_is_killed", folder);
    assert_eq!(other.hear(), "started");
    other
}

fn slot(job: &Job) -> Timestamp {
    job.meta.get("cron_at").unwrap().as_str().unwrap().parse().unwrap()
}

/// In one look at the file: each entry's last slot, and the latest slot that has a job.
fn look(db: &mut rusqlite::Connection) -> Vec<(String, Option<i64>, Option<String>)> {
    let sql =
        "SELECT name, last_slot, (SELECT max(meta ->> 'cron_at') FROM kiln_jobs WHERE meta ->> 'cron_name' = name)
               FROM kiln_crons";
    let mut select = db.prepare_cached(sql).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A slot is settled in the transaction that stores its job: nobody ever sees the one without the other.
fn assert_together(db: &mut rusqlite::Connection) {
    for (name, last_slot, latest) in look(db) {
        let latest = latest.map(|slot| slot.parse::<Timestamp>().unwrap().as_microsecond());
        assert_eq!(last_slot, latest, "{name}");
    }
}

/// How many of the stored jobs each process noted as fired by it. No job was fired by two.
fn fired_by(pids: &[u32], here: &Path, kiln: &Kiln) -> BTreeMap<u32, usize> {
    let stored: HashSet<i64> = kiln.list(Filter::new().limit(u32::MAX)).unwrap().iter().map(|job| job.id).collect();
    let mut by: HashMap<i64, u32> = HashMap::new();
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for &pid in pids {
        for line in fs::read_to_string(noted(here, pid)).unwrap().lines() {
            // The last line of the one that was killed may be half a number.
            let Ok(id) = line.parse() else { continue };
            if stored.contains(&id) {
                assert_eq!(by.insert(id, pid), None, "job {id} was fired by two");
                *counts.entry(pid).or_default() += 1;
            }
        }
    }
    counts
}

/// Whatever was under way when a process was killed is done by now, or is by this runtime.
fn all_can_be_done(kiln: &Kiln) {
    let runtime = kiln.runtime().worker_fn("tick", |_: &Running<Value>| ()).start().unwrap();
    kiln.delete_cron("all").unwrap();
    kiln.delete_cron("once").unwrap();
    until("all is done", || {
        let counts = kiln.count(Filter::new()).unwrap();
        counts.state(State::Completed) == counts.total()
    });
    runtime.stop();
}

#[test]
fn every_slot_is_fired_once_by_one_of_several_processes_also_when_one_is_killed() {
    if let Some(folder) = other_process_for() {
        return be_the_other(&folder);
    }
    const SLOTS: u64 = 240;
    let folder = Folder::new();
    let here = folder.db().parent().unwrap().to_owned();
    let kiln = open(&here);
    let all = Missed::RunAll { max: 1000, within: Duration::from_secs(3600) };
    let every = || NewCron::every(DISTANCE, NewJob::new("tick"));
    let entry = kiln.cron(every().name("all").missed(all)).unwrap();
    kiln.cron(every().name("once")).unwrap();
    let jobs = |name: &str| {
        let mut jobs = kiln.list(Filter::new().limit(u32::MAX)).unwrap();
        jobs.retain(|job| job.meta.get("cron_name") == Some(name.into()));
        jobs
    };

    let mut db = stranger(&folder.db());
    let doomed = start(&folder);
    let others = [start(&folder)];
    let mut pids: Vec<u32> = [&doomed, &others[0]].map(Other::id).to_vec();
    // And each process some of them: one may be slower than the others for a while.
    let mut fired = |so_many: u64, by: &[u32]| {
        until("so many slots are fired", || {
            assert_together(&mut db);
            let each = by.iter().all(|pid| fs::metadata(noted(&here, *pid)).unwrap().len() > 0);
            each && kiln.count(Filter::new()).unwrap().total() >= 2 * so_many
        });
    };
    fired(SLOTS / 3, &pids);
    doomed.kill();
    fired(2 * SLOTS / 3, &pids);
    let late = start(&folder);
    pids.push(late.id());
    fired(SLOTS, &pids);
    drop((late, others));
    assert_together(&mut db);

    let last = kiln.crons().unwrap()[0].last_slot.unwrap();
    let first = entry.schedule().unwrap().next_after(entry.inserted_at).unwrap();
    let expected: Vec<Timestamp> =
        entry.schedule().unwrap().upcoming(entry.inserted_at).take_while(|slot| *slot <= last).collect();
    let found: Vec<Timestamp> = jobs("all").iter().map(slot).collect();
    assert_eq!(found, expected, "each slot from {first} to {last} once, in order");
    let once: Vec<Timestamp> = jobs("once").iter().map(slot).collect();
    assert!(once.is_sorted_by(|a, b| a < b), "none twice");
    assert!(once.iter().all(|slot| *slot > last || expected.contains(slot)));

    let counts = fired_by(&pids, &here, &kiln);
    println!("{} slots of one entry, {} of the other; fired by each process: {counts:?}", found.len(), once.len());
    assert_eq!(counts.len(), 3);
    all_can_be_done(&kiln);
}
