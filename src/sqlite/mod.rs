//! The default engine: one table of jobs in one SQLite file.

mod ack;
mod care;
mod claim;
mod copy;
mod cron;
mod doubt;
mod enqueue;
mod group;
mod holder;
mod join;
mod keep;
mod ledger;
mod line;
mod link;
mod live;
mod look;
mod open;
mod patience;
mod peers;
mod place;
mod queues;
mod read_only;
mod recorded;
mod rows;
mod schema;
mod solitude;
mod sql;
mod tally;
#[cfg(test)]
mod tests;
mod verbs;
pub(crate) mod within;
mod write;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, ErrorCode, ffi};

use crate::bell::Bell;
use crate::diagnosis::{Compacted, Diagnosis};
use crate::engine::{self, Crew, Cutoffs, Engine, Member, News, Pruned, Row, Staged, Told};
use crate::error::Kind;
use crate::health::Health;
use crate::job::{Changes, Counts, CronEntry, Fence, Filter, Job, Note, Notes, Ready, Shot, Which};
use crate::queues::{Control, QueueCheck, Queues, Rulings};
use crate::{Error, Result};
use enqueue::Enqueue;
use keep::{Prune, Rescue, Stage, Whose};
use live::Live;
pub(crate) use open::Options;
pub(crate) use read_only::ReadOnly;
use schema::Leave;
pub(crate) use schema::Migration;
use tally::Tally;
use verbs::{Cancel, Delete, OneRow, Replace, Retry, Sweep, Update};
use write::{Need, Writer};

pub(crate) struct Sqlite {
    writer: Arc<Writer>,
    file: Option<PathBuf>,
    /// None for a database in memory, which has one connection only.
    readers: Option<r2d2::Pool<SqliteConnectionManager>>,
    /// A file in WAL: no writer keeps a reader waiting.
    reads_at_once: bool,
    live: Live,
    leave_to_read: Leave,
    bells: Mutex<HashMap<String, Bell>>,
    patience: Duration,
    /// What was done to the file as it was opened.
    pub migration: Option<Migration>,
}

impl Sqlite {
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let path = open::prepare(path, options)?;
        let (writer, migration) = open::writer(&path, options)?;
        let patience = options.patience;
        let manager = SqliteConnectionManager::file(&path)
            .with_flags(open::WRITING)
            .with_init(move |conn| open::reader(conn, patience));
        let readers = r2d2::Pool::builder()
            .max_size(4)
            .min_idle(Some(0))
            .test_on_check_out(false)
            // Without these two, a thread would wake up twice a minute for nothing.
            .idle_timeout(None)
            .max_lifetime(None)
            // Opening one may take longer than somebody wants to wait for a lock.
            .connection_timeout(patience.max(Duration::from_secs(5)))
            .build_unchecked(manager);
        Ok(Self { migration, ..Self::new(writer, Some(readers), Live::new(Some(path)), options) })
    }

    pub fn exposures(&self) -> Vec<String> {
        self.file.as_deref().map_or_else(Vec::new, place::exposures)
    }

    pub fn in_memory(options: &Options) -> Result<Self> {
        Ok(Self::new(open::in_memory(options)?, None, Live::new(None), options))
    }

    fn new(
        conn: Connection,
        readers: Option<r2d2::Pool<SqliteConnectionManager>>,
        live: Live,
        options: &Options,
    ) -> Self {
        Self {
            writer: Arc::new(Writer::new(conn, options.durability, options.patience)),
            file: live.file().map(Path::to_owned),
            reads_at_once: readers.is_some() && !options.keep_journal_mode,
            readers,
            live,
            leave_to_read: Leave::to_read(),
            bells: Mutex::default(),
            patience: options.patience,
            migration: None,
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let Some(readers) = &self.readers else { return self.writer.with(look) };
        let lost = |error| Error::new(Kind::Storage, "no connection to read with").because(error);
        let conn = readers.get().map_err(lost)?;
        self.leave_to_read.ask(&conn)?;
        look(&conn)
    }

    fn sweep<V: OneRow + 'static>(&self, which: &Which, verb: V, mut told: Told<'_>) -> Result<u64> {
        let mut sweep = Sweep::new(which, verb, Tally::new(&told));
        loop {
            sweep = self.writer.write(Need::Durable, sweep)?;
            if let Some(count) = sweep.next(&mut told) {
                return Ok(count);
            }
        }
    }
}

impl Engine for Sqlite {
    fn enqueue(&self, jobs: Vec<Ready>) -> Result<Vec<Job>> {
        Ok(self.writer.write(Need::Durable, Enqueue::new(jobs))?.finish())
    }

    fn cancel(&self, which: &Which, now: Timestamp, told: Told<'_>) -> Result<u64> {
        self.sweep(which, Cancel { now }, told)
    }

    fn retry(&self, which: &Which, now: Timestamp, told: Told<'_>) -> Result<u64> {
        self.sweep(which, Retry { now }, told)
    }

    fn delete(&self, which: &Which, told: Told<'_>) -> Result<u64> {
        self.sweep(which, Delete, told)
    }

    fn update(&self, which: &Which, changes: &Changes, now: Timestamp, told: Told<'_>) -> Result<u64> {
        self.sweep(which, Update { changes: changes.clone(), now }, told)
    }

    fn replace(&self, old: Job, new: Job) -> Result<bool> {
        Ok(self.writer.write(Need::Durable, Replace { old, new, done: false })?.done)
    }

    fn get(&self, id: i64) -> Result<Option<Job>> {
        self.read(|conn| verbs::get(conn, id))
    }

    fn list(&self, filter: &Filter) -> Result<Vec<Job>> {
        self.read(|conn| look::list(conn, filter))
    }

    fn count(&self, filter: &Filter) -> Result<Counts> {
        self.read(|conn| look::count(conn, filter))
    }

    fn wait(&self, seen: u64, until: Instant) -> u64 {
        self.writer.wait(seen, until)
    }

    fn health(&self) -> Result<Health> {
        let (members, waiting) = self.read(|conn| Ok((look::members(conn)?, look::waiting(conn)?)))?;
        let mut health = look::alive(members, waiting, &self.live);
        let crews = self.writer.crews();
        for runtime in &mut health.runtimes {
            runtime.pulse = crews.iter().find(|(id, _)| *id == runtime.id).map(|(_, crew)| crew.pulse());
        }
        health.wal_bytes = self.file.as_deref().map_or(0, look::wal_bytes);
        Ok(health)
    }

    fn stage(&self, queues: &[String], now: Timestamp, batch: u32, mut told: Told<'_>) -> Result<Staged> {
        let next_due = self.read(|conn| keep::next_due(conn, queues))?;
        if next_due.is_none_or(|due| due > now) {
            return Ok(Staged { staged: 0, next_due });
        }
        let stage = Stage { queues: queues.to_vec(), now, batch, staged: Tally::new(&told) };
        let mut staged = self.writer.write(Need::Ride, stage)?.staged;
        staged.tell(&mut told);
        // They are staged; when to stage again is asked again where it cannot be told now.
        let next_due = self.read(|conn| keep::next_due(conn, queues)).unwrap_or(Some(now));
        Ok(Staged { staged: staged.count, next_due })
    }

    fn rescue(&self, now: Timestamp, batch: u32, mut told: Told<'_>) -> Result<u64> {
        self.live.refresh();
        let (executing, members, exhausted) =
            self.read(|conn| Ok((keep::executing(conn)?, look::members(conn)?, keep::any_exhausted(conn)?)))?;
        let owners = executing.into_iter().map(|attempt| attempt.runtime);
        let known: HashSet<String> = owners.chain(members.into_iter().map(|member| member.id)).collect();
        let dead = self.live.dead(&known);
        if dead.is_empty() && !exhausted {
            return Ok(0);
        }
        let mut rescue = Rescue::new(Whose::Dead(dead), now, batch, Tally::new(&told));
        let mut rescued = 0;
        // All that is found dead is rescued at once; the others on the file are let in between.
        loop {
            rescue = self.writer.write(Need::Ride, rescue)?;
            rescue.forgotten.iter().for_each(|id| self.live.bury(id));
            rescue.rescued.tell(&mut told);
            rescued += rescue.rescued.count;
            if !rescue.more {
                return Ok(rescued);
            }
        }
    }

    fn rescue_older(&self, before: Timestamp, now: Timestamp, batch: u32, mut told: Told<'_>) -> Result<u64> {
        let rescue = Rescue::new(Whose::Older(before, self.live.here()), now, batch, Tally::new(&told));
        let mut rescued = self.writer.write(Need::Ride, rescue)?.rescued;
        rescued.tell(&mut told);
        Ok(rescued.count)
    }

    fn prune(&self, cutoffs: &Cutoffs, batch: u32, mut told: Told<'_>) -> Result<Pruned> {
        let prune = Prune { cutoffs: *cutoffs, batch, pruned: Tally::new(&told) };
        let mut pruned = self.writer.write(Need::Ride, prune)?.pruned;
        pruned.tell(&mut told);
        // The jobs are gone either way; what space cannot be given back now is given back later.
        let more = self.writer.with(keep::shrink).unwrap_or(false) || pruned.count >= u64::from(batch);
        Ok(Pruned { pruned: pruned.count, more })
    }

    fn note(&self, fence: Fence, note: Note) -> Result<bool> {
        Ok(self.writer.write(Need::Ride, claim::Noted { fence, note, landed: false })?.landed)
    }

    fn notes(&self, id: i64) -> Result<Notes> {
        self.read(|conn| look::notes(conn, id))
    }

    fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    fn expect(&self, news: News) {
        let news = News { expected: true, ..news };
        self.writer.crews().iter().for_each(|(_, crew)| crew.hear(&news));
        if self.reads_at_once {
            // Not by the writer's connection: whoever has it may wait for the very commit that is expected. Where this
            // fails, others find the job with their next look.
            let _ = self.read(|conn| {
                self.writer.peers.tell(conn, &news);
                Ok(())
            });
        }
    }

    fn crons(&self) -> Result<Vec<CronEntry>> {
        self.read(cron::list)
    }

    fn add_crons(&self, entries: Vec<CronEntry>, now: Timestamp) -> Result<Vec<CronEntry>> {
        Ok(self.writer.write(Need::Durable, cron::Add { entries, now, added: Vec::new() })?.added)
    }

    fn pause_cron(&self, name: &str, paused: bool, now: Timestamp) -> Result<bool> {
        let pause = cron::Pause { name: name.to_owned(), paused, now, changed: false };
        Ok(self.writer.write(Need::Durable, pause)?.changed)
    }

    fn delete_cron(&self, name: &str) -> Result<bool> {
        Ok(self.writer.write(Need::Durable, cron::Delete { name: name.to_owned(), deleted: false })?.deleted)
    }

    fn fire(&self, shots: Vec<Shot>) -> Result<Vec<Option<Vec<Job>>>> {
        Ok(self.writer.write(Need::Durable, cron::Fire::new(shots))?.finish())
    }

    fn cancelling(&self) -> Result<Vec<i64>> {
        self.read(look::cancelling)
    }

    fn say(&self, queues: &Queues, control: Control, now: Timestamp) -> Result<()> {
        let say = queues::Say { queues: queues.clone(), control, now: now.as_microsecond() };
        self.writer.write(Need::Durable, say)?;
        // It is said, whether those here can be told now or look by themselves within a minute.
        let _ = self.tell_rulings().or_else(|_| self.tell_rulings());
        Ok(())
    }

    fn rulings(&self) -> Result<Rulings> {
        self.read(queues::rulings)
    }

    fn tell_rulings(&self) -> Result<()> {
        self.writer.tell_rulings()?;
        // What is given back, and what may be claimed again.
        self.writer.turn();
        Ok(())
    }

    fn announce(&self, runtime: &str, crew: Arc<dyn Crew>) -> Result<()> {
        self.writer.announce_changes(runtime, &crew)
    }

    fn check(&self, queues: &Queues) -> Result<Vec<QueueCheck>> {
        self.read(|conn| queues::check(conn, &self.live, queues))
    }

    fn may_write(&self) -> Result<()> {
        Ok(())
    }

    fn is_understood(&self) -> Result<()> {
        self.read(|conn| self.writer.leave.look(conn))
    }

    fn rows(&self, filter: &Filter, after: i64) -> Result<Vec<Row>> {
        self.read(|conn| care::rows(conn, filter, after))
    }

    fn diagnose(&self, full: bool, now: Timestamp) -> Result<Diagnosis> {
        let crews = self.writer.crews();
        let pulses: HashMap<_, _> = crews.iter().map(|(id, crew)| (id.clone(), crew.pulse())).collect();
        self.read(|conn| Ok(care::Look { conn, live: &self.live, full, now, pulses }.diagnose()))
    }

    fn backup(&self, to: &Path, over: bool) -> Result<u64> {
        let to = copy::destination(self.file(), to, over)?;
        let manner = |patience| copy::Manner { over, forget_runtimes: true, patience };
        match &self.file {
            Some(file) => copy::snapshot(&open::read_only(file, self.patience)?, &to, &manner(Some(self.patience))),
            None => self.writer.with(|conn| copy::snapshot(conn, &to, &manner(None))),
        }
    }

    fn compact(&self) -> Result<Compacted> {
        match &self.file {
            // On a connection of its own: those who write meanwhile wait as they do for another process.
            Some(file) => care::compact(&open::spare(file)?, &file.display().to_string(), self.patience),
            None => self.writer.with(|conn| care::compact(conn, "memory", self.patience)),
        }
    }

    fn version(&self) -> Result<i64> {
        if self.readers.is_none() {
            return Ok(0);
        }
        // Asked on the connection that writes, which does not count what it wrote itself.
        self.writer.with(|conn| conn.query_row("PRAGMA data_version", [], |row| row.get(0))).map_err(failed)
    }

    fn join(&self, member: &Member, crew: Arc<dyn Crew>) -> Result<()> {
        self.join_with_bell(member, crew)
    }

    fn ledger(&self, runtime: &str) -> Option<Arc<dyn engine::Ledger>> {
        self.live.ledger(runtime).map(|ledger| ledger as Arc<dyn engine::Ledger>)
    }

    fn retire(&self, runtime: &str) -> Result<()> {
        let bell = self.bells.lock().remove(runtime);
        drop(bell);
        self.writer.write(Need::Ride, join::Leave(runtime.to_owned())).map(|_| ())
    }

    fn leave(&self, runtime: &str) {
        self.writer.detach(runtime);
        self.writer.solitude.leave(runtime);
        self.live.leave(runtime);
    }

    fn stray(&self, begins: bool) {
        self.writer.solitude.stray(begins);
    }

    #[cfg(feature = "testing")]
    fn take_turn(&self, turn: crate::engine::Turn) -> Result<crate::engine::Done> {
        Ok(self.writer.write(Need::Ride, claim::Taken { turn, done: Default::default() })?.done)
    }

    fn turn(&self) {
        self.writer.turn();
    }
}

/// What an error of SQLite means to a caller; the one list of those that trying again may help.
fn failed(error: rusqlite::Error) -> Error {
    let snapshot = |error: &rusqlite::Error| {
        error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_BUSY_SNAPSHOT)
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) if snapshot(&error) => {
            let message = "the transaction has read what somebody else changed since, and can write nothing any more; \
                           roll it back, and begin it with IMMEDIATE";
            Error::new(Kind::Busy, message)
        }
        // The last: others held for ten seconds what a look at the file needs first.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            let message = "another process holds the database's write lock; nothing was written, try again";
            Error::new(Kind::Busy, message)
        }
        Some(ErrorCode::DiskFull) => Error::new(Kind::Full, "no space left for the database; nothing was written"),
        Some(ErrorCode::ReadOnly) => Error::new(Kind::Unusable, "the database became read-only"),
        _ => Error::new(Kind::Storage, "the database failed"),
    }
    .because(error)
}
