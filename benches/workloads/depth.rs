//! W7 and W9: what a million rows cost that are not concerned.

use std::fs::File;
use std::path::Path;

use kiln::{Durability, Unique};
use rusqlite::Connection;

use super::child::Other;
use crate::measure::{Bench, Place, Target, Unit, parts, rates, turns};
use crate::ours::{self, Drain, Tally};

const MILLION: u64 = 1_000_000;

/// What is in the file already.
#[derive(Clone, Copy, Debug)]
enum Rows {
    Finished,
    Scheduled,
    Waiting,
    WaitingUnique,
}

/// A file with so many rows, written past kiln: as quickly as can be, and closed.
fn deep(bench: &Bench, rows: Rows, count: u64) -> Place {
    let place = bench.fresh();
    drop(ours::builder(&place.file(), Durability::Normal).open().expect("a new file"));
    let conn = Connection::open(place.file()).expect("a database");
    // The handle's connections are closed by threads of their own.
    while let Err(error) = conn.execute_batch("PRAGMA journal_mode = OFF") {
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{error}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -64000").expect("pragmas");
    let (state, due, done, attempt, key) = match rows {
        Rows::Finished => ("completed", "0", "at", 1, "NULL"),
        Rows::Scheduled => ("scheduled", "365 * 86400000000", "NULL", 0, "NULL"),
        Rows::Waiting => ("available", "0", "NULL", 0, "NULL"),
        // As kiln's own keys are.
        Rows::WaitingUnique => {
            let key = r#"printf('iaqw:{"n":%d,"to":"user@example.com"}"default""Mailer"', n)"#;
            ("available", "0", "NULL", 0, key)
        }
    };
    let insert = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1 - 1),
         now (at) AS (SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER))
         INSERT INTO kiln_jobs (state, worker, args, attempt, inserted_at, scheduled_at, completed_at, unique_key)
         SELECT '{state}', 'Mailer', json_object('to', 'user@example.com', 'n', n), {attempt}, at, at + {due}, {done}, {key}
         FROM now, numbers"
    );
    conn.execute(&insert, [count as i64]).expect("rows");
    conn.execute_batch("PRAGMA journal_mode = WAL").expect("a pragma");
    drop(conn);
    // What follows is not to be charged with writing this to the disk.
    File::open(place.file()).and_then(|file| file.sync_all()).expect("a sync");
    place
}

pub fn beside_a_million(bench: &mut Bench) {
    const DRAINED: u64 = 10_000;
    let rounds = bench.turns();
    let how = Drain::new(Durability::Normal, 8);
    let drain = |path: &Path| {
        ours::filled(path, DRAINED);
        ours::drain(path, how, DRAINED)
    };
    for rows in [Rows::Finished, Rows::Scheduled] {
        let deep = deep(bench, rows, MILLION);
        let ways: &[bool] = if bench.full { &[false, true] } else { &[false] };
        for analyzed in ways {
            if *analyzed {
                Connection::open(deep.file()).and_then(|conn| conn.execute_batch("ANALYZE")).expect("statistics");
            }
            let (behind, empty) = turns(rounds, || drain(&deep.file()), || drain(&bench.fresh().file()));
            let with = if *analyzed { ", with statistics" } else { "" };
            let what = format!("drain of 10k behind 1M {}{with}, NORMAL", format!("{rows:?}").to_lowercase());
            bench.row("W7", &what, Unit::Rate, &rates(&behind), &rates(&empty), Target::AtLeast(0.95));
        }
    }
    for (rows, unique) in [(Rows::Waiting, false), (Rows::WaitingUnique, true)] {
        let deep = deep(bench, rows, MILLION);
        // A program's numbers go on: nothing is enqueued twice into one file.
        let mut next = 2 * MILLION;
        let jobs = bench.jobs(10_000);
        let enqueue = |path: &Path| {
            let kiln = ours::open(path, Durability::Normal, &Tally::new(0));
            let from = next;
            next += jobs;
            let job = |n| ours::mail(from + n);
            ours::enqueue_by(&kiln, 1, jobs, |n| if unique { job(n).unique(Unique::new()) } else { job(n) })
        };
        let enqueue = std::cell::RefCell::new(enqueue);
        let (into, empty) =
            turns(rounds, || enqueue.borrow_mut()(&deep.file()), || enqueue.borrow_mut()(&bench.fresh().file()));
        let what = format!("{}enqueue into 1M waiting, NORMAL", if unique { "unique " } else { "" });
        bench.row("W7", &what, Unit::Rate, &rates(&into), &rates(&empty), Target::AtLeast(0.95));
        bench.row("", "  50 % within", Unit::Micros, &parts(&into, 0.5), &parts(&empty, 0.5), Target::None);
    }
}

pub fn growth(bench: &mut Bench) {
    const FIRST: u64 = 10_000;
    let rounds = bench.turns();
    let how = Drain::new(Durability::Normal, 8);
    let mut enough = Vec::new();
    for count in [100_000, MILLION] {
        let deep = deep(bench, Rows::Waiting, count + FIRST * 20);
        let small = |path: &Path| {
            ours::filled(path, FIRST);
            ours::drain(path, how, FIRST)
        };
        let (many, few) = turns(rounds, || ours::drain(&deep.file(), how, FIRST), || small(&bench.fresh().file()));
        let what = format!("drain of 10k of {}, against 10k, NORMAL", if count == MILLION { "1M" } else { "100k" });
        bench.row("W9", &what, Unit::Rate, &rates(&many), &rates(&few), Target::AtLeast(0.9));
        enough.push(deep);
    }
    let resident = |path: &Path| Other::start("kiln drains", path, FIRST / 2, true).used().highest_mb;
    let million = enough.pop().expect("the last file");
    let few = bench.fresh();
    ours::filled(&few.file(), FIRST);
    let (many, few) = (resident(&million.file()), resident(&few.file()));
    bench.row("W9", "memory at 1M waiting, more than at 10k", Unit::Megabytes, &[many - few], &[], Target::Within(2.0));
    bench.row("", "  highest", Unit::Megabytes, &[many], &[few], Target::None);
}
