//! Examine: how the runtimes and the file are doing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use super::life::Life;
use crate::error::Result;
use crate::file::{self, care};
use crate::job::{Counts, Filter};
use crate::report::{Diagnosis, Finding, Health, Holder, Problem, RuntimeHealth, age};
use crate::store::rescue::Executing;
use crate::store::runtimes::RuntimeRow;
use crate::store::{examine, query, rescue, runtimes};

/// An attempt that has been executing for so long is a finding.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// A job that was asked to end ends within this time.
const ASKED: Duration = Duration::from_secs(60);

/// A write-ahead log of more bytes is a finding.
const LONG_LOG: u64 = 64 * 1024 * 1024;

/// Free space of fewer bytes is no finding.
const WORTH: u64 = 1024 * 1024;

impl Life {
    /// The live runtimes, and what waits for workers that none of them knows.
    pub fn health(&self) -> Result<Health> {
        let (rows, waiting) = self.read(|conn| Ok((runtimes::list(conn)?, query::waiting(conn)?)))?;
        let runtimes = self.living(rows);
        let unknown_workers = unknown(waiting, runtimes.iter());
        Ok(Health { unknown_workers, runtimes, wal_bytes: self.file().map_or(0, care::wal_bytes) })
    }

    /// The live runtimes among these. The runtimes of this handle tell more of themselves.
    fn living(&self, rows: Vec<RuntimeRow>) -> Vec<RuntimeHealth> {
        let mailboxes = self.writer().map(|writer| writer.mailboxes()).unwrap_or_default();
        let health = |RuntimeRow { id, node, pid, queues, workers, started_at, .. }| {
            let pulse = mailboxes.iter().find(|mailbox| mailbox.runtime.id == id).map(|mailbox| mailbox.pulse());
            RuntimeHealth { id, node, pid, queues, workers, started_at, pulse }
        };
        rows.into_iter().filter(|row| !self.live.is_dead(&row.id)).map(health).collect()
    }

    /// Looks over the whole file. Whatever cannot be read is part of the answer.
    pub fn diagnose(&self, full: bool, now: Timestamp) -> Result<Diagnosis> {
        self.read(|conn| {
            let size = care::size(conn).unwrap_or_default();
            let (schema_version, written_by) = file::version(conn).ok().flatten().unzip();
            let report = Diagnosis {
                file: self.file().map(Path::to_owned),
                file_system: self.file().and_then(Path::parent).and_then(file::filesystem_of).map(|it| it.kind),
                schema_version,
                written_by,
                full,
                file_bytes: size.bytes,
                free_bytes: size.free,
                wal_bytes: self.file().map_or(0, care::wal_bytes),
                jobs: Counts::default(),
                runtimes: Vec::new(),
                findings: Vec::new(),
            };
            Ok(Examination { life: self, conn, now, report }.examine())
        })
    }
}

/// What waits for workers that none of the runtimes knows.
fn unknown<'r>(
    mut waiting: BTreeMap<String, u64>,
    runtimes: impl Iterator<Item = &'r RuntimeHealth> + Clone,
) -> BTreeMap<String, u64> {
    waiting.retain(|worker, _| !runtimes.clone().any(|runtime| runtime.workers.contains(worker)));
    waiting
}

/// A diagnosis as it is made.
struct Examination<'a> {
    life: &'a Life,
    conn: &'a Connection,
    now: Timestamp,
    report: Diagnosis,
}

/// The parts of the file that are examined, each with what it is called if it cannot be read.
type Part<'a> = (&'static str, fn(&mut Examination<'a>) -> Result<()>);

impl<'a> Examination<'a> {
    /// A part that cannot be read is a finding, and the other parts are examined all the same.
    fn examine(mut self) -> Diagnosis {
        let parts: [Part<'a>; 6] = [
            ("the file's pages", Self::pages),
            ("the file", Self::file),
            ("the jobs", Self::jobs),
            ("the runtimes", Self::runtimes),
            ("the executing jobs", Self::executing),
            ("the waiting jobs", Self::waiting),
        ];
        for (what, part) in parts {
            let result = part(&mut self);
            self.unreadable(what, result);
        }
        for (sql, problem, what, advice) in ROWS {
            let result = examine::ids(self.conn, sql).map(|ids| self.about(problem, &ids, what, advice));
            self.unreadable("the jobs", result);
        }
        self.report
    }

    fn unreadable(&mut self, what: &str, result: Result<()>) {
        result.unwrap_or_else(|error| self.damaged(format!("{what} cannot be read: {error}")));
    }

    fn damaged(&mut self, text: String) {
        let advice = "take a copy of the file, save what can be read with Kiln::export, and go back to a backup";
        self.find(Problem::Damaged, text, advice);
    }

    fn find(&mut self, problem: Problem, text: impl Into<String>, advice: impl Into<String>) {
        self.report.findings.push(Finding::new(problem, text, advice));
    }

    fn about(&mut self, problem: Problem, ids: &[i64], what: &str, advice: &str) {
        self.report.findings.extend(Finding::about(problem, ids, what, advice));
    }

    fn pages(&mut self) -> Result<()> {
        care::integrity(self.conn, self.report.full)?.into_iter().for_each(|fault| self.damaged(fault));
        Ok(())
    }

    fn file(&mut self) -> Result<()> {
        let Diagnosis { file_bytes: bytes, free_bytes: free, wal_bytes: wal, .. } = self.report;
        if wal > LONG_LOG {
            let text = format!("the write-ahead log has grown to {wal} bytes");
            let advice =
                "a reader keeps an old state of the file: find the program that holds a transaction open, and end it";
            self.find(Problem::LongLog, text, advice);
        }
        if free >= WORTH && free >= bytes / 4 {
            let needed = 2 * (bytes - free);
            let advice =
                format!("new jobs use them; to give them back, call Kiln::compact, which needs {needed} bytes");
            self.find(Problem::FreeSpace, format!("{free} of {bytes} bytes of the file are free"), advice);
        }
        for exposure in self.life.file().map_or_else(Vec::new, file::exposures) {
            let (text, advice) = exposure.split_once("; ").unwrap_or((&exposure, ""));
            self.find(Problem::Exposed, text, advice);
        }
        Ok(())
    }

    fn jobs(&mut self) -> Result<()> {
        self.report.jobs = query::count(self.conn, &Filter::new())?;
        Ok(())
    }

    fn runtimes(&mut self) -> Result<()> {
        let living = self.life.living(runtimes::list(self.conn)?).into_iter();
        for runtime in living.filter(|runtime| self.life.live.has_trace(&runtime.id)) {
            let pulse = runtime.pulse.as_ref();
            if let Some(pulse) = pulse.filter(|pulse| pulse.stuck > 0) {
                let text =
                    format!("threads of runtime {} whose jobs did not leave in time: {}", runtime.id, pulse.stuck);
                let advice =
                    "let the worker look at Running::cancelled, and restart the process to be rid of the threads";
                self.find(Problem::Stuck, text, advice);
            }
            if let Some(trouble) = pulse.and_then(|pulse| pulse.trouble.as_ref()) {
                let text = format!("runtime {} cannot write all it has to: {trouble}", runtime.id);
                let advice = "it keeps what it has to write, and goes on by itself once that can be written";
                self.find(Problem::Degraded, text, advice);
            }
            self.report.runtimes.push(Holder { runtime, executing: 0, oldest: None });
        }
        Ok(())
    }

    fn executing(&mut self) -> Result<()> {
        let (live, now) = (&self.life.live, self.now);
        let (mut orphans, mut long, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        let mut executing = rescue::executing(self.conn)?;
        executing.sort_unstable_by_key(|job| job.fence.id);
        for Executing { fence, runtime, since, cancel_requested_at, .. } in executing {
            let ago = |at: Option<Timestamp>| at.map(|at| age(at, now));
            if let Some(holder) = self.report.runtimes.iter_mut().find(|holder| holder.runtime.id == runtime) {
                holder.executing += 1;
                holder.oldest = holder.oldest.max(ago(since));
            } else if live.is_dead(&runtime) || !live.has_trace(&runtime) {
                orphans.push(fence.id);
                continue;
            }
            if ago(cancel_requested_at).is_some_and(|ago| ago >= ASKED) {
                asked.push(fence.id);
            } else if ago(since).is_some_and(|ago| ago >= LONG) {
                long.push(fence.id);
            }
        }
        self.about(
            Problem::Orphans,
            &orphans,
            "executing jobs of runtimes that are dead",
            "a runtime that runs on the file rescues them; start one",
        );
        self.about(
            Problem::Stuck,
            &asked,
            "jobs that were asked to leave more than a minute ago, and execute",
            "let the worker look at Running::cancelled, or end its process: the job is cancelled then",
        );
        self.about(
            Problem::Stuck,
            &long,
            "jobs that have been executing for more than a day",
            "if that is not what they are for, give the worker a timeout, or end its process: they run again then",
        );
        Ok(())
    }

    fn waiting(&mut self) -> Result<()> {
        let waiting = query::waiting(self.conn)?;
        for (worker, count) in unknown(waiting, self.report.runtimes.iter().map(|holder| &holder.runtime)) {
            let text = format!("available jobs for worker {worker:?}, which no live runtime knows: {count}");
            let advice = "start a runtime with this worker, or give the jobs to another with Kiln::update";
            self.find(Problem::UnknownWorkers, text, advice);
        }
        Ok(())
    }
}

/// A statement that finds rows, the problem that they are, what was found and what to do about it.
type RowSearch = (&'static str, Problem, &'static str, &'static str);

const ROWS: [RowSearch; 5] = [
    (
        examine::EXHAUSTED,
        Problem::Exhausted,
        "available jobs without an attempt left, which are not claimed",
        "a runtime that runs on the file discards them; to run them once more, raise max_attempts with Kiln::update",
    ),
    (
        examine::CRASHED,
        Problem::Crashed,
        "jobs whose process died soon after they had begun",
        "what happened is in their errors; a job that was discarded for it runs again after Kiln::retry",
    ),
    (
        examine::SUSPECTS,
        Problem::Crashed,
        "jobs that wait as suspects, since their process died twice in a row soon after they had begun",
        "a process executes one suspect at a time, and ordinary jobs first for up to a minute; the next suspect runs when the \
         one before it has ended or outlived its crash window; after Kiln::cancel and Kiln::retry it is an ordinary job",
    ),
    (
        examine::MALFORMED,
        Problem::Malformed,
        "rows that are not as kiln writes them",
        "look at them with Kiln::get, and mend them with Kiln::update or delete them with Kiln::delete",
    ),
    (
        examine::LARGE,
        Problem::Large,
        "jobs with more than 64 KiB of args and meta",
        "keep the data in a file or a table and hand over where it is",
    ),
];
