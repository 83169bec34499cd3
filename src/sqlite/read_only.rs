//! A file that is only looked at: nothing is written, and nothing is left beside it.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use rusqlite::Connection;

use super::live::Live;
use super::schema::Leave;
use super::{Options, care, copy, cron, look, open, place, queues, schema, verbs};
use crate::diagnosis::{Compacted, Diagnosis};
use crate::engine::{self, Crew, Cutoffs, Engine, Member, News, Pruned, Row, Staged, Told};
use crate::error::Kind;
use crate::health::Health;
use crate::job::{Changes, Counts, CronEntry, Fence, Filter, Job, Note, Notes, Ready, Shot, Which};
use crate::queues::{Control, QueueCheck, Queues, Rulings};
use crate::{Error, Result};

pub(crate) struct ReadOnly {
    file: PathBuf,
    patience: Duration,
    live: Live,
}

/// The time of a change is told in steps: a file changed more recently may change once more without a sign.
const STEP: Duration = Duration::from_millis(100);

/// So often it is tried to read without leaving a trace before it is read with one.
const TRIES: u32 = 5;

/// What tells whether a file was written meanwhile.
#[derive(PartialEq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Somebody has it open, or left something to recover.
    in_use: bool,
}

impl Stamp {
    fn of(file: &Path) -> Result<Self> {
        let beside = |end: &str| {
            let mut name = file.as_os_str().to_owned();
            name.push(end);
            fs::metadata(PathBuf::from(name)).ok()
        };
        let found = fs::metadata(file)
            .map_err(|error| Error::new(Kind::Unusable, format!("{} is gone", file.display())).because(error))?;
        let wal = beside("-wal").is_some_and(|wal: Metadata| wal.len() > 0 || beside("-shm").is_some());
        let in_use = wal || beside("-journal").is_some();
        Ok(Self { bytes: found.len(), modified: found.modified().ok(), in_use })
    }

    fn is_fresh(&self) -> bool {
        self.modified.is_none_or(|modified| modified.elapsed().is_ok_and(|age| age < STEP))
    }
}

impl ReadOnly {
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let file = open::prepare(path, options)?;
        let live = Live::new(Some(file.clone()));
        let this = Self { file, patience: options.patience, live };
        this.see(|conn| schema::check_to_read(conn, path))?;
        Ok(this)
    }

    pub fn exposures(&self) -> Vec<String> {
        place::exposures(&self.file)
    }

    fn read<T>(&self, look: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        self.see(|conn| Leave::to_read().ask(conn).and_then(|()| look(conn)))
    }

    /// Reads with locks where somebody has the file open. Otherwise SQLite would make side files for these, and leave
    /// them: then it is read without, and once more should somebody have written meanwhile.
    fn see<T>(&self, look: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        for _ in 0..TRIES {
            let before = Stamp::of(&self.file)?;
            if before.in_use {
                break;
            }
            if before.is_fresh() {
                thread::sleep(STEP);
                continue;
            }
            let result = open::immutable(&self.file).and_then(|conn| look(&conn));
            if Stamp::of(&self.file)? == before {
                return result;
            }
        }
        look(&open::read_only(&self.file, self.patience)?)
    }
}

fn refused<T>() -> Result<T> {
    let message = "nothing was written: the file was opened with KilnBuilder::read_only; open it without";
    Err(Error::new(Kind::Unusable, message))
}

impl Engine for ReadOnly {
    fn may_write(&self) -> Result<()> {
        refused()
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
        thread::sleep(until.saturating_duration_since(Instant::now()));
        seen
    }

    fn health(&self) -> Result<Health> {
        let (members, waiting) = self.read(|conn| Ok((look::members(conn)?, look::waiting(conn)?)))?;
        let health = look::alive(members, waiting, &self.live);
        Ok(Health { wal_bytes: look::wal_bytes(&self.file), ..health })
    }

    fn notes(&self, id: i64) -> Result<Notes> {
        self.read(|conn| look::notes(conn, id))
    }

    fn crons(&self) -> Result<Vec<CronEntry>> {
        self.read(cron::list)
    }

    fn cancelling(&self) -> Result<Vec<i64>> {
        self.read(look::cancelling)
    }

    fn rulings(&self) -> Result<Rulings> {
        self.read(queues::rulings)
    }

    fn check(&self, queues: &Queues) -> Result<Vec<QueueCheck>> {
        self.read(|conn| queues::check(conn, &self.live, queues))
    }

    fn rows(&self, filter: &Filter, after: i64) -> Result<Vec<Row>> {
        self.read(|conn| care::rows(conn, filter, after))
    }

    fn diagnose(&self, full: bool, now: Timestamp) -> Result<Diagnosis> {
        self.read(|conn| {
            let look = care::Look { conn, live: &self.live, full, now, pulses: Default::default() };
            Ok(look.diagnose())
        })
    }

    fn backup(&self, to: &Path, over: bool) -> Result<u64> {
        let to = copy::destination(Some(&self.file), to, over)?;
        self.read(|conn| copy::snapshot(conn, &to, &copy::Manner { over, forget_runtimes: true, patience: None }))
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.file)
    }

    // What there is nobody for: no runtime joins.

    fn is_understood(&self) -> Result<()> {
        Ok(())
    }

    fn version(&self) -> Result<i64> {
        Ok(0)
    }

    fn tell_rulings(&self) -> Result<()> {
        Ok(())
    }

    fn expect(&self, _: News) {}

    fn leave(&self, _: &str) {}

    fn turn(&self) {}

    // What would write.

    fn enqueue(&self, _: Vec<Ready>) -> Result<Vec<Job>> {
        refused()
    }

    fn cancel(&self, _: &Which, _: Timestamp, _: Told<'_>) -> Result<u64> {
        refused()
    }

    fn retry(&self, _: &Which, _: Timestamp, _: Told<'_>) -> Result<u64> {
        refused()
    }

    fn delete(&self, _: &Which, _: Told<'_>) -> Result<u64> {
        refused()
    }

    fn update(&self, _: &Which, _: &Changes, _: Timestamp, _: Told<'_>) -> Result<u64> {
        refused()
    }

    fn replace(&self, _: Job, _: Job) -> Result<bool> {
        refused()
    }

    fn stage(&self, _: &[String], _: Timestamp, _: u32, _: Told<'_>) -> Result<Staged> {
        refused()
    }

    fn rescue(&self, _: Timestamp, _: u32, _: Told<'_>) -> Result<u64> {
        refused()
    }

    fn rescue_older(&self, _: Timestamp, _: Timestamp, _: u32, _: Told<'_>) -> Result<u64> {
        refused()
    }

    fn prune(&self, _: &Cutoffs, _: u32, _: Told<'_>) -> Result<Pruned> {
        refused()
    }

    fn note(&self, _: Fence, _: Note) -> Result<bool> {
        refused()
    }

    fn add_crons(&self, _: Vec<CronEntry>, _: Timestamp) -> Result<Vec<CronEntry>> {
        refused()
    }

    fn pause_cron(&self, _: &str, _: bool, _: Timestamp) -> Result<bool> {
        refused()
    }

    fn delete_cron(&self, _: &str) -> Result<bool> {
        refused()
    }

    fn fire(&self, _: Vec<Shot>) -> Result<Vec<Option<Vec<Job>>>> {
        refused()
    }

    fn say(&self, _: &Queues, _: Control, _: Timestamp) -> Result<()> {
        refused()
    }

    fn announce(&self, _: &str, _: Arc<dyn Crew>) -> Result<()> {
        refused()
    }

    fn stray(&self, _: bool) {}

    fn compact(&self) -> Result<Compacted> {
        refused()
    }

    fn join(&self, _: &Member, _: Arc<dyn Crew>) -> Result<()> {
        refused()
    }

    fn ledger(&self, _: &str) -> Option<Arc<dyn engine::Ledger>> {
        None
    }

    fn retire(&self, _: &str) -> Result<()> {
        refused()
    }

    #[cfg(feature = "testing")]
    fn take_turn(&self, _: crate::engine::Turn) -> Result<crate::engine::Done> {
        refused()
    }
}
