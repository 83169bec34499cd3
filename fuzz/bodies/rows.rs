//! Rows with anything in their columns: no panic, clear errors, and an innocent job beside them that runs.

use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use kiln::testing::{Hand, ManualClock, Scratch};
use kiln::{Changes, Durability, Filter, Job, Kiln, NewJob, Outcome, Queues, State, Unique};
use rusqlite::Connection;
use rusqlite::types::Value;

struct World {
    // First, so that nobody has the file open when its folder goes.
    kiln: Kiln,
    conn: Connection,
    clock: ManualClock,
    tables: Vec<Table>,
    _scratch: Scratch,
}

struct Table {
    name: &'static str,
    columns: Vec<String>,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::new()));

/// The first byte tells the table; then each column has what follows: a byte for its kind, and its content.
pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    // One that panicked before says nothing of this one.
    let world = WORLD.lock().unwrap_or_else(|broken| broken.into_inner());
    let table = &world.tables[usize::from(data.byte()) % world.tables.len()];
    let odd = world.insert(table, &mut data);
    let innocent = world.kiln.enqueue(NewJob::new("innocent").queue("innocents")).unwrap().id;
    world.look();
    if odd && table.name == "kiln_jobs" {
        world.handle_odd_job(innocent);
    }
    world.live();
    let after = world.kiln.get(innocent).unwrap().unwrap();
    assert_eq!((after.state, after.attempt), (State::Completed, 1), "the innocent job has run");
    world.clear();
}

const ODD: i64 = 1;

impl World {
    fn new() -> World {
        let scratch = Scratch::new().unwrap();
        let clock = ManualClock::default();
        let kiln = scratch.builder().clock(&clock).durability(Durability::Normal).open().unwrap();
        let conn = Connection::open(scratch.path()).unwrap();
        conn.busy_timeout(Duration::from_secs(30)).unwrap();
        conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
        // No table has a job's first id but the odd one.
        kiln.enqueue(NewJob::new("nobody")).unwrap();
        let names = ["kiln_jobs", "kiln_jobs", "kiln_crons", "kiln_queues", "kiln_runtimes"];
        let tables = names.map(|name| Table { name, columns: columns(&conn, name) }).into();
        World { kiln, conn, clock, tables, _scratch: scratch }
    }

    /// Writes a row of what the bytes say, where the table takes it.
    fn insert(&self, table: &Table, data: &mut Bytes) -> bool {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for column in &table.columns {
            let value = match column.as_str() {
                "id" if table.name == "kiln_jobs" => Some(Cell::Value(Value::Integer(ODD))),
                column => data.cell(column),
            };
            if let Some(value) = value {
                names.push(format!("\"{column}\""));
                values.push(value);
            }
        }
        if names.is_empty() {
            return false;
        }
        let place = |(n, cell): (usize, &Cell)| match cell {
            // A text need not be UTF-8.
            Cell::Text(_) => format!("CAST(?{} AS TEXT)", n + 1),
            Cell::Value(_) => format!("?{}", n + 1),
        };
        let places: Vec<String> = values.iter().enumerate().map(place).collect();
        let text =
            format!("INSERT OR REPLACE INTO {} ({}) VALUES ({})", table.name, names.join(", "), places.join(", "));
        let values = values.into_iter().map(|cell| match cell {
            Cell::Text(bytes) => Value::Blob(bytes),
            Cell::Value(value) => value,
        });
        self.conn.execute(&text, rusqlite::params_from_iter(values)).is_ok()
    }

    /// All that only reads.
    fn look(&self) {
        let kiln = &self.kiln;
        kiln.list(Filter::new()).unwrap().iter().for_each(show);
        kiln.list(Filter::new().tag("a").newest_first()).unwrap();
        kiln.count(Filter::new()).unwrap();
        kiln.get(ODD).unwrap().iter().for_each(show);
        let _ = kiln.progress(ODD);
        kiln.health().unwrap();
        kiln.check(Queues::All).unwrap();
        kiln.diagnose_fully().unwrap();
        for entry in kiln.crons().unwrap() {
            let _ = (entry.schedule(), entry.unique(), entry.next_slot(), format!("{entry:?}"));
        }
        for line in self.exported().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            serde_json::from_slice::<serde::de::IgnoredAny>(line).expect("an exported line is JSON");
        }
    }

    fn exported(&self) -> Vec<u8> {
        let (mut hidden, mut whole) = (Vec::new(), Vec::new());
        let counts = [
            self.kiln.export(&mut hidden, Filter::new()).unwrap(),
            self.kiln.export_with_secrets(&mut whole, Filter::new()).unwrap(),
        ];
        assert_eq!(counts[0], counts[1]);
        hidden.extend(whole);
        hidden
    }

    /// An operator's hand, and a runtime's, on the odd job itself. What it cannot do it says.
    fn handle_odd_job(&self, innocent: i64) {
        let kiln = &self.kiln;
        let Some(job) = kiln.get(ODD).unwrap() else { return };
        let hand = Hand::new(kiln, [job.worker.clone(), "innocent".to_owned()]);
        let claimed = hand.claim(&job.queue, 1).unwrap();
        let set_free = |job: &Job| assert!(job.id != innocent || hand.release(job).unwrap());
        for job in &claimed {
            show(job);
            set_free(job);
            let _ = hand.ack(job, Outcome::snooze(Duration::ZERO));
        }
        let _ = hand.ack(&job, Outcome::record(&1).unwrap());
        let _ = kiln.update(ODD, Changes::new().priority(3));
        let _ = kiln.update(ODD, |_: &Job| Changes::new().args(serde_json::json!({ "a": 1 })));
        let _ = kiln.cancel(ODD);
        let _ = kiln.retry(ODD);
        let double = NewJob::new(job.worker.as_str()).queue(job.queue.as_str()).args(&job.args).unique(Unique::new());
        let _ = kiln.enqueue(double);
        for job in hand.claim(&job.queue, 5).unwrap() {
            set_free(&job);
            let _ = hand.fail(&job, "failed", Duration::ZERO);
        }
        kiln.list(Filter::new()).unwrap().iter().for_each(show);
    }

    /// What a runtime does by itself.
    fn live(&self) {
        let hand = Hand::new(&self.kiln, ["innocent"]);
        self.clock.advance(Duration::from_secs(60));
        let _ = hand.fire();
        hand.stage(&["innocents", "default"]).unwrap();
        for job in hand.claim("innocents", 10).unwrap() {
            assert!(hand.ack(&job, Outcome::Complete).unwrap());
        }
        hand.rescue().unwrap();
        hand.rescue_older(Duration::from_secs(1)).unwrap();
        hand.prune(Duration::from_secs(3600)).unwrap();
    }

    fn clear(&self) {
        let text = "DELETE FROM kiln_jobs; DELETE FROM kiln_crons; DELETE FROM kiln_queues; DELETE FROM kiln_runtimes";
        self.conn.execute_batch(text).unwrap();
        self.clock.set(ManualClock::default().now());
    }
}

fn columns(conn: &Connection, table: &str) -> Vec<String> {
    let mut select = conn.prepare(&format!("SELECT name FROM pragma_table_info('{table}')")).unwrap();
    let names = select.query_map([], |row| row.get(0)).unwrap();
    names.collect::<rusqlite::Result<_>>().unwrap()
}

fn show(job: &Job) {
    let _ = (format!("{job}"), format!("{job:?}"), job.recorded::<serde_json::Value>().is_ok());
    let _ = (job.args.get("a"), job.args.value(), job.args.decode::<()>().is_ok(), job.meta.value());
}

enum Cell {
    Value(Value),
    Text(Vec<u8>),
}

struct Bytes<'d>(&'d [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> [u8; 8] {
        let mut number = [0; 8];
        let taken = self.take(8);
        number[..taken.len()].copy_from_slice(&taken);
        number
    }

    /// What a column holds; nothing leaves it to the table's default.
    fn cell(&mut self, column: &str) -> Option<Cell> {
        let kind = self.byte();
        Some(match kind % 12 {
            1 => Cell::Value(Value::Null),
            2 => Cell::Value(Value::Integer(i64::from_le_bytes(self.number()))),
            3 => Cell::Value(Value::Integer(i64::from(self.byte().cast_signed()))),
            4 => Cell::Value(Value::Real(f64::from_le_bytes(self.number()))),
            5 => {
                let length = self.byte();
                Cell::Value(Value::Blob(self.take(length.into())))
            }
            // Long enough that a page does not hold it.
            6 => {
                let byte = self.byte();
                Cell::Text(vec![byte; 6000])
            }
            7 => Cell::Text("[".repeat(usize::from(self.byte()) * 40).into()),
            // What is usual, so that other columns come to be looked at.
            8 => Cell::Text(usual(column, self.byte()).into()),
            9..=11 => {
                let length = self.byte();
                Cell::Text(self.take(length.into()))
            }
            _ => return None,
        })
    }
}

fn usual(column: &str, n: u8) -> &'static str {
    let words: &[&str] = match column {
        "state" => {
            &["available", "scheduled", "executing", "retryable", "completed", "discarded", "cancelled", "suspended"]
        }
        "queue" | "queues" => &["innocents", "default", "[\"innocents\"]"],
        "worker" | "workers" => &["innocent", "other", "[\"innocent\"]"],
        "expression" => &["* * * * *", "@every 1s", "@reboot", "0 0 29 2 *", "@every 1ms"],
        "zone" => &["UTC", "Europe/Berlin", "nowhere"],
        "missed" => &["skip", "run_once", "run_all"],
        "attempted_by" => &["[\"node\",\"runtime\"]", "[\"a\"]"],
        "errors" => &["[{\"at\":\"2026-01-01T00:00:00Z\",\"attempt\":1,\"error\":\"e\"}]", "[1,null]"],
        "unique_key" => &["qwa:00", "saw[\"a\"]:1", "x"],
        "uniqueness" => &["{}", "{\"states\":[\"available\"]}", "{\"period\":18446744073709551615}"],
        "plans" => {
            &["[{\"queue\":\"innocents\",\"limit\":1,\"scaled\":null,\"paused\":false,\"started_at\":0}]", "[{}]"]
        }
        _ => &[
            "{}",
            "[]",
            "{\"return\":\"g2EB\",\"recorded\":true}",
            "{\"a\":{\"a\":[1,2.5e300,\"\\u0000\"]}}",
            "[\"a\"]",
        ],
    };
    words[usize::from(n) % words.len()]
}
