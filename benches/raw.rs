//! What SQLite allows: the work of the rows, by hand-written statements, without any queue library.
//!
//! It has what makes such code quick and nothing else: prepared statements kept, a partial index for each question
//! asked, times as integers, group commit, acks written in the transaction that fetches the next jobs by primary key.
//! There are no fences, no second runtime, no retries, no events; the finished row is kept. Nothing is rescued or pruned
//! here, but the two indexes that a queue needs for both are kept: one finds what a dead process was executing, the
//! other what is done by its time.

// For those who take this file from elsewhere.
#[path = "raw/engine.rs"]
mod engine;

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, Thread};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::measure::{Run, Watch, micros};
use crate::ours::Mail;

pub use engine::{Engine, enqueue_for_another, steady, steady_direct, work_for_another};

#[derive(Clone, Copy, Debug)]
pub enum Sync {
    Full,
    Normal,
}

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY, state TEXT NOT NULL, queue TEXT NOT NULL DEFAULT 'default', worker TEXT NOT NULL,
  args TEXT NOT NULL DEFAULT '{}', meta TEXT NOT NULL DEFAULT '{}', tags TEXT NOT NULL DEFAULT '[]',
  errors TEXT NOT NULL DEFAULT '[]', attempt INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 20,
  priority INTEGER NOT NULL DEFAULT 0, inserted_at INTEGER NOT NULL, scheduled_at INTEGER NOT NULL,
  attempted_at INTEGER, attempted_by TEXT, cancelled_at INTEGER, completed_at INTEGER, discarded_at INTEGER);
CREATE INDEX IF NOT EXISTS jobs_ready ON jobs (queue, priority, scheduled_at, id) WHERE state = 'available';
CREATE INDEX IF NOT EXISTS jobs_due ON jobs (scheduled_at, id) WHERE state = 'scheduled';
CREATE INDEX IF NOT EXISTS jobs_running ON jobs (attempted_at) WHERE state = 'executing';
CREATE INDEX IF NOT EXISTS jobs_done ON jobs (completed_at) WHERE state = 'completed'";

const INSERT: &str = "
INSERT INTO jobs (state, queue, worker, args, meta, tags, max_attempts, priority, inserted_at, scheduled_at)
VALUES ('available', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)";

const INSERT_MANY: &str = "
INSERT INTO jobs (state, queue, worker, args, meta, tags, max_attempts, priority, inserted_at, scheduled_at)
SELECT 'available', ?2, ?3, value, ?4, ?5, ?6, ?7, ?8, ?8 FROM rarray(?1)";

const FETCH: &str = "
SELECT id, args, worker, meta, tags, attempt, max_attempts, priority, scheduled_at FROM jobs
WHERE state = 'available' AND queue = ?1 ORDER BY priority, scheduled_at, id LIMIT ?2";

const CLAIM: &str = "
UPDATE jobs SET state = 'executing', attempt = attempt + 1, attempted_at = ?2, attempted_by = ?3 WHERE id = ?1";

const ACK: &str = "UPDATE jobs SET state = 'completed', completed_at = ?2 WHERE id = ?1";

const WHO: &str = "[\"node\",\"runtime\"]";

/// A job as it is fetched.
struct Fetched {
    id: i64,
    args: String,
}

impl Fetched {
    /// What a handler does that does nothing.
    fn handle(&self) -> Mail {
        serde_json::from_str(&self.args).expect("args")
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no handle to ask here")]
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_micros() as i64
}

fn open(path: &Path, sync: Sync) -> Connection {
    let conn = Connection::open(path).expect("a database");
    let level = match sync {
        Sync::Full => "FULL",
        Sync::Normal => "NORMAL",
    };
    conn.set_prepared_statement_cache_capacity(64);
    // As kiln does: otherwise some statements are compiled anew whenever a parameter is bound.
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).expect("plans are kept");
    conn.busy_timeout(std::time::Duration::from_secs(10)).expect("a timeout");
    conn.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = {level}")).expect("pragmas");
    conn.execute_batch(TABLE).expect("the table");
    rusqlite::vtab::array::load_module(&conn).expect("rarray");
    conn
}

fn begin(conn: &mut Connection) -> Transaction<'_> {
    conn.transaction_with_behavior(TransactionBehavior::Immediate).expect("a transaction")
}

fn args(n: u64) -> String {
    serde_json::to_string(&Mail::new(n)).expect("args")
}

fn insert(conn: &Connection, args: &str) -> i64 {
    let mut insert = conn.prepare_cached(INSERT).expect("a statement");
    insert.execute(params!["default", "Mailer", args, "{}", "[]", 20, 0, now()]).expect("an insert");
    conn.last_insert_rowid()
}

fn fetch(conn: &Connection, limit: usize) -> Vec<Fetched> {
    if limit == 0 {
        return Vec::new();
    }
    let mut fetch = conn.prepare_cached(FETCH).expect("a statement");
    let rows =
        fetch.query_map(params!["default", limit as i64], |row| Ok(Fetched { id: row.get(0)?, args: row.get(1)? }));
    let jobs: Vec<Fetched> = rows.and_then(Iterator::collect).expect("a fetch");
    let (mut claim, now) = (conn.prepare_cached(CLAIM).expect("a statement"), now());
    for job in &jobs {
        claim.execute(params![job.id, now, WHO]).expect("a claim");
    }
    jobs
}

fn ack(conn: &Connection, ids: &[i64]) {
    if ids.is_empty() {
        return;
    }
    let (mut ack, now) = (conn.prepare_cached(ACK).expect("a statement"), now());
    for id in ids {
        ack.execute(params![id, now]).expect("an ack");
    }
}

// ---- enqueue

/// One thread, one connection, each insert its own transaction.
pub fn enqueue(path: &Path, sync: Sync, jobs: u64) -> Run {
    let conn = open(path, sync);
    let watch = Watch::start();
    let call = |n| {
        let begun = Instant::now();
        insert(&conn, &args(n));
        micros(begun.elapsed())
    };
    let micros = (0..jobs).map(call).collect();
    watch.stop(jobs, micros)
}

/// Who waits for a commit.
struct Slot {
    committed: AtomicBool,
    thread: Thread,
}

impl Slot {
    fn new() -> Arc<Slot> {
        Arc::new(Slot { committed: AtomicBool::new(false), thread: thread::current() })
    }

    fn answer(&self) {
        self.committed.store(true, Ordering::Release);
        self.thread.unpark();
    }

    fn wait(&self) {
        while !self.committed.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

type Request = (String, Arc<Slot>);

/// A writer thread that commits for all who wait.
fn group_writer(mut conn: Connection, requests: &Receiver<Request>) {
    let mut group = Vec::new();
    while let Ok(first) = requests.recv() {
        group.push(first);
        group.extend(requests.try_iter().take(511));
        let tx = begin(&mut conn);
        for (args, _) in &group {
            insert(&tx, args);
        }
        tx.commit().expect("a commit");
        group.drain(..).for_each(|(_, slot)| slot.answer());
    }
}

/// Whoever finds nobody committing commits for all who wait.
struct Leader {
    line: Mutex<Line>,
    changed: Condvar,
    conn: Mutex<Connection>,
}

#[derive(Default)]
struct Line {
    led: bool,
    waiting: Vec<Request>,
}

impl Leader {
    fn enqueue(&self, args: String, slot: &Arc<Slot>) {
        let mut line = self.line.lock().expect("a lock");
        line.waiting.push((args, Arc::clone(slot)));
        while line.led {
            line = self.changed.wait(line).expect("a lock");
            if slot.committed.swap(false, Ordering::Acquire) {
                return;
            }
        }
        if slot.committed.swap(false, Ordering::Acquire) {
            return;
        }
        line.led = true;
        let group = std::mem::take(&mut line.waiting);
        drop(line);
        let mut conn = self.conn.lock().expect("a lock");
        let tx = begin(&mut conn);
        for (args, _) in &group {
            insert(&tx, args);
        }
        tx.commit().expect("a commit");
        drop(conn);
        let mut line = self.line.lock().expect("a lock");
        for (_, slot) in &group {
            slot.committed.store(true, Ordering::Release);
        }
        line.led = false;
        drop(line);
        slot.committed.store(false, Ordering::Release);
        self.changed.notify_all();
    }
}

/// How many threads share one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    WriterThread,
    LeaderAndFollowers,
}

pub fn enqueue_shared(path: &Path, sync: Sync, how: Group, threads: u64, jobs: u64) -> Run {
    let each = jobs / threads;
    let (to_writer, requests) = channel::<Request>();
    let leader = Leader { line: Mutex::default(), changed: Condvar::new(), conn: Mutex::new(open(path, sync)) };
    let conn = open(path, sync);
    let work = |thread: u64, to_writer: Sender<Request>| {
        let slot = Slot::new();
        let call = |n| {
            let begun = Instant::now();
            match how {
                Group::WriterThread => {
                    to_writer.send((args(n), Arc::clone(&slot))).expect("the writer");
                    slot.wait();
                }
                Group::LeaderAndFollowers => leader.enqueue(args(n), &slot),
            }
            micros(begun.elapsed())
        };
        (thread * each..(thread + 1) * each).map(call).collect::<Vec<f64>>()
    };
    thread::scope(|scope| {
        scope.spawn(move || group_writer(conn, &requests));
        let watch = Watch::start();
        let work = &work;
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let to_writer = to_writer.clone();
                scope.spawn(move || work(thread, to_writer))
            })
            .collect();
        drop(to_writer);
        let count = threads.len() as u64;
        let micros = threads.into_iter().flat_map(|thread| thread.join().expect("a producer")).collect();
        watch.stop(each * count, micros)
    })
}

/// How a thousand are inserted in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    /// The prepared insert, again and again.
    Loop,
    /// One statement for all, which only differ in args.
    Array,
}

pub fn enqueue_many(path: &Path, sync: Sync, how: Many, jobs: u64) -> Run {
    let mut conn = open(path, sync);
    let watch = Watch::start();
    insert_many(&mut conn, how, jobs);
    watch.stop(jobs, Vec::new())
}

fn insert_many(conn: &mut Connection, how: Many, jobs: u64) {
    for from in (0..jobs).step_by(1000) {
        let numbers = from..jobs.min(from + 1000);
        let tx = begin(conn);
        match how {
            Many::Loop => numbers.for_each(|n| _ = insert(&tx, &args(n))),
            Many::Array => {
                let all: Rc<Vec<Value>> = Rc::new(numbers.map(|n| args(n).into()).collect());
                let mut insert = tx.prepare_cached(INSERT_MANY).expect("a statement");
                insert.execute(params![all, "default", "Mailer", "{}", "[]", 20, 0, now()]).expect("an insert");
            }
        }
        tx.commit().expect("a commit");
    }
}

/// Fills a file and closes it, so that what follows begins with no log to check in.
pub fn filled(path: &Path, jobs: u64) {
    insert_many(&mut open(path, Sync::Normal), Many::Array, jobs);
}

// ---- drain

/// What the writer has for the threads, and what they have for it.
struct Shelf {
    todo: Mutex<(VecDeque<Fetched>, bool)>,
    more: Condvar,
    done: Mutex<Vec<i64>>,
    enough: Condvar,
    /// The writer wants to hear of so many finished jobs, not of each.
    wake_at: AtomicUsize,
}

impl Shelf {
    fn new() -> Shelf {
        Shelf {
            todo: Mutex::default(),
            more: Condvar::new(),
            done: Mutex::default(),
            enough: Condvar::new(),
            wake_at: AtomicUsize::new(1),
        }
    }

    fn work(&self) {
        loop {
            let mut todo = self.todo.lock().expect("a lock");
            let job = loop {
                match todo.0.pop_front() {
                    Some(job) => break job,
                    None if todo.1 => return,
                    None => todo = self.more.wait(todo).expect("a lock"),
                }
            };
            drop(todo);
            std::hint::black_box(job.handle());
            let mut done = self.done.lock().expect("a lock");
            done.push(job.id);
            let enough = done.len() >= self.wake_at.load(Ordering::Relaxed);
            drop(done);
            if enough {
                self.enough.notify_one();
            }
        }
    }
}

/// How a drain by eight threads is run.
#[derive(Clone, Copy)]
pub struct Drain {
    pub sync: Sync,
    /// The most to fetch at once.
    pub batch: usize,
    /// The most to have claimed.
    pub cap: usize,
    /// The writer comes back for more when so many are left.
    pub low: usize,
}

impl Drain {
    pub fn prefetching(sync: Sync) -> Drain {
        Drain { sync, batch: 100, cap: 150, low: 50 }
    }

    pub fn at_most_eight(sync: Sync) -> Drain {
        Drain { sync, batch: 8, cap: 8, low: 7 }
    }
}

pub fn drain(path: &Path, how: Drain, jobs: u64) -> Run {
    let Drain { sync, batch, cap, low } = how;
    let mut conn = open(path, sync);
    let shelf = Shelf::new();
    let watch = Watch::start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| shelf.work());
        }
        let (mut claimed, mut fetched, mut acked) = (0_usize, 0, 0);
        let mut ids = Vec::new();
        while acked < jobs {
            let all = fetched >= jobs;
            let wanted = if all { claimed } else { claimed.saturating_sub(low).max(usize::from(claimed > 0)) };
            let mut done = shelf.done.lock().expect("a lock");
            shelf.wake_at.store(wanted, Ordering::Relaxed);
            while done.len() < wanted {
                done = shelf.enough.wait(done).expect("a lock");
            }
            std::mem::swap(&mut *done, &mut ids);
            drop(done);
            let tx = begin(&mut conn);
            ack(&tx, &ids);
            claimed -= ids.len();
            let found = fetch(&tx, batch.min(cap - claimed));
            tx.commit().expect("a commit");
            acked += ids.len() as u64;
            ids.clear();
            claimed += found.len();
            fetched += found.len() as u64;
            match found.len() {
                0 => {}
                one_or_more => {
                    shelf.todo.lock().expect("a lock").0.extend(found);
                    if one_or_more == 1 { shelf.more.notify_one() } else { shelf.more.notify_all() }
                }
            }
        }
        let run = watch.stop(jobs, Vec::new());
        shelf.todo.lock().expect("a lock").1 = true;
        shelf.more.notify_all();
        run
    })
}

/// One thread that fetches, works, and acks in the transaction of the next fetch: one job a commit.
pub fn drain_one_by_one(path: &Path, sync: Sync, jobs: u64) -> Run {
    let mut conn = open(path, sync);
    let watch = Watch::start();
    let mut done = Vec::new();
    for n in 0..=jobs {
        let tx = begin(&mut conn);
        ack(&tx, &done);
        done.clear();
        let found = fetch(&tx, usize::from(n < jobs));
        tx.commit().expect("a commit");
        for job in found {
            std::hint::black_box(job.handle());
            done.push(job.id);
        }
    }
    watch.stop(jobs, Vec::new())
}
