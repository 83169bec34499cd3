//! Care for the file: what is in it, whether it is whole, and how small it can be.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};

use super::claim::is_damaged;
use super::live::Live;
use super::patience::{be_patient, empty_log};
use super::{failed, look, open, place, rows, schema, sql};
use crate::diagnosis::{Compacted, Diagnosis, Finding, Holder, Problem, age};
use crate::engine::{Cell, Row};
use crate::error::Kind;
use crate::health::RuntimeHealth;
use crate::job::Filter;
use crate::{Error, Result};

/// A page of an export ends with the row that fills it, so that a few huge rows do not fill the memory.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
const PAGE_ROWS: usize = 1000;

/// The rows that match, as they lie in the table, after this id: the next page.
pub(super) fn rows(conn: &Connection, filter: &Filter, after: i64) -> Result<Vec<Row>> {
    let (condition, parameters) = look::condition(filter);
    let text = format!("{} WHERE id > {after} AND {condition} ORDER BY id", sql::ROWS);
    let mut select = conn.prepare(&text).map_err(failed)?;
    let mut found = select.query(params_from_iter(&parameters)).map_err(failed)?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES && page.len() < PAGE_ROWS {
        match found.next().and_then(|row| row.map(read_row).transpose()) {
            Ok(Some(row)) => {
                bytes += row.bytes();
                page.push(row);
            }
            Ok(None) => break,
            // One that cannot be read ends the page, or is one for itself.
            Err(error) if is_damaged(&error) => {
                if page.is_empty() {
                    let text =
                        format!("SELECT id FROM kiln_jobs WHERE id > {after} AND {condition} ORDER BY id LIMIT 1");
                    let next = conn.query_one(&text, params_from_iter(&parameters), |row| row.get(0));
                    page.push(Row::unreadable(next.map_err(failed)?, &error.to_string()));
                }
                break;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(page)
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let names = row.as_ref().column_names();
    let cell = |value| match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    };
    let columns = names.iter().enumerate().map(|(n, name)| Ok(((*name).to_owned(), cell(row.get_ref(n)?))));
    Ok(Row { columns: columns.collect::<rusqlite::Result<_>>()?, id: row.get("id")? })
}

/// The size of the database, and how much of it is free, in bytes.
fn size(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    let number = |name| open::pragma::<i64>(conn, name).map(i64::unsigned_abs);
    let page = number("page_size")?;
    Ok((number("page_count")? * page, number("freelist_count")? * page))
}

/// Writes the database anew without what is free in it.
pub(super) fn compact(conn: &Connection, place: &str, patience: Duration) -> Result<Compacted> {
    be_patient(patience);
    let wal = open::pragma::<String>(conn, "journal_mode").map_err(failed)? == "wal";
    let (before, free) = size(conn).map_err(failed)?;
    let needed = (before - free) * if wal { 2 } else { 1 };
    let cannot = |error: Error| {
        let kind = error.kind();
        let message = match kind {
            Kind::Full => format!(
                "cannot compact {place}: there is no room for it; about {needed} bytes are needed for a while, half of them \
                 where temporary files go; nothing was changed"
            ),
            Kind::Busy => format!(
                "cannot compact {place}: another process reads or writes it all the time; nothing was changed; try again \
                 when it rests"
            ),
            _ => format!("cannot compact {place}; nothing was changed"),
        };
        Error::new(kind, message).because(error)
    };
    // Who reads an old state keeps the log from being emptied, and with it the file from becoming smaller.
    if wal && !empty_log(conn).map_err(failed).map_err(cannot)? {
        return Err(cannot(Error::new(Kind::Busy, "a reader keeps an old state")));
    }
    be_patient(patience);
    conn.execute_batch("VACUUM").map_err(failed).map_err(cannot)?;
    be_patient(patience);
    // It is compact now; where somebody came to read meanwhile, the file becomes smaller a little later.
    let _ = wal.then(|| empty_log(conn));
    let (after, _) = size(conn).map_err(failed)?;
    Ok(Compacted::new(before, after))
}

/// What a diagnosis looks at.
pub(super) struct Look<'a> {
    pub conn: &'a Connection,
    pub live: &'a Live,
    pub full: bool,
    pub now: Timestamp,
    /// The runtimes of this process, with what they tell of themselves.
    pub pulses: HashMap<String, crate::Pulse>,
}

/// An attempt that has been going for so long is looked at by somebody.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// One that was asked to leave leaves within this time.
const ASKED: Duration = Duration::from_secs(60);
const LONG_LOG: u64 = 64 * 1024 * 1024;

impl Look<'_> {
    /// Whatever cannot be read is a finding, and the rest is looked at all the same.
    pub fn diagnose(&self) -> Diagnosis {
        let file = self.live.file();
        let mut findings = Vec::new();
        let mut part = |what: &str, result: Result<Vec<Finding>>| match result {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(damaged(format!("{what} cannot be read: {error}"))),
        };
        part("the file's pages", self.integrity());
        let (file_bytes, free_bytes) = size(self.conn).unwrap_or_default();
        let wal_bytes = file.map_or(0, look::wal_bytes);
        part("the sizes", Ok(sizes(file_bytes, free_bytes, wal_bytes)));
        part("the place", Ok(file.map_or_else(Vec::new, exposed)));
        let mut jobs = crate::Counts::default();
        part(
            "the jobs",
            look::count(self.conn, &Filter::new()).map(|counts| {
                jobs = counts;
                Vec::new()
            }),
        );
        let mut runtimes = Vec::new();
        part("the runtimes", self.runtimes(&mut runtimes));
        part("the executing jobs", self.executing(&mut runtimes));
        part("the waiting jobs", self.unknown_workers(&runtimes));
        for (statement, problem, what, advice) in [
            (
                sql::ALL_EXHAUSTED,
                Problem::Exhausted,
                "available jobs without an attempt left, which are not claimed",
                "a runtime that runs on the file discards them; to run them once more, raise max_attempts with Kiln::update",
            ),
            (
                sql::CRASHED,
                Problem::Crashed,
                "jobs whose process died while they were executing",
                "those that wait run alone now, and end discarded if they took it down; what happened is in their errors",
            ),
            (
                sql::MALFORMED,
                Problem::Malformed,
                "rows that are not as kiln writes them",
                "look at them with Kiln::get, and mend them with Kiln::update or delete them with Kiln::delete",
            ),
            (
                sql::LARGE,
                Problem::Large,
                "jobs with more than 64 KiB of args and meta",
                "keep the data in a file or a table and hand over where it is",
            ),
        ] {
            part(
                "the jobs",
                self.ids(statement).map(|ids| Vec::from_iter(Finding::about(problem, &ids, what, advice))),
            );
        }
        let version = schema::version(self.conn).ok().flatten();
        Diagnosis {
            file: file.map(Path::to_owned),
            file_system: file.and_then(Path::parent).and_then(place::place_of).map(|place| place.kind),
            schema_version: version.as_ref().map(|(version, _)| *version),
            written_by: version.map(|(_, by)| by),
            full: self.full,
            file_bytes,
            free_bytes,
            wal_bytes,
            jobs,
            runtimes,
            findings,
        }
    }

    fn integrity(&self) -> Result<Vec<Finding>> {
        let text = if self.full { "PRAGMA integrity_check(20)" } else { "PRAGMA quick_check(20)" };
        let mut select = self.conn.prepare(text).map_err(failed)?;
        let mut found = select.query([]).map_err(failed)?;
        let mut findings = Vec::new();
        while let Some(row) = found.next().map_err(failed)? {
            let line = rows::text(row.get_ref(0).map_err(failed)?);
            if line != "ok" {
                findings.push(damaged(line));
            }
        }
        Ok(findings)
    }

    fn runtimes(&self, runtimes: &mut Vec<Holder>) -> Result<Vec<Finding>> {
        let members = look::members(self.conn)?;
        let living =
            members.into_iter().filter(|member| !self.live.is_dead(&member.id) && self.live.has_trace(&member.id));
        let mut findings = Vec::new();
        for mut runtime in living {
            runtime.pulse = self.pulses.get(&runtime.id).cloned();
            if let Some(pulse) = runtime.pulse.as_ref().filter(|pulse| pulse.stuck > 0) {
                let text =
                    format!("threads of runtime {} whose jobs did not leave in time: {}", runtime.id, pulse.stuck);
                let advice =
                    "let the worker look at Running::cancelled, and restart the process to be rid of the threads";
                findings.push(Finding::new(Problem::Stuck, text, advice));
            }
            if let Some(trouble) = runtime.pulse.as_ref().and_then(|pulse| pulse.trouble.as_ref()) {
                let text = format!("runtime {} cannot write all it has to: {trouble}", runtime.id);
                let advice = "it keeps what it has to write, and goes on by itself once that can be written";
                findings.push(Finding::new(Problem::Degraded, text, advice));
            }
            runtimes.push(Holder { runtime, executing: 0, oldest: None });
        }
        Ok(findings)
    }

    fn executing(&self, runtimes: &mut [Holder]) -> Result<Vec<Finding>> {
        let mut select = self.conn.prepare(sql::EXECUTING_SINCE).map_err(failed)?;
        let mut found = select.query([]).map_err(failed)?;
        let (mut orphans, mut long, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(row) = found.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            let ago = |column| Ok(rows::time(row.get_ref(column).map_err(failed)?).map(|at| age(at, self.now)));
            let (since, asked_since) = (ago(1)?, ago(3)?);
            let owner = rows::words(row.get_ref(2).map_err(failed)?).into_iter().nth(1).unwrap_or_default();
            if let Some(holder) = runtimes.iter_mut().find(|holder| holder.runtime.id == owner) {
                holder.executing += 1;
                holder.oldest = holder.oldest.max(since);
            } else if self.live.is_dead(&owner) || !self.live.has_trace(&owner) {
                orphans.push(id);
                continue;
            }
            if asked_since.is_some_and(|ago| ago >= ASKED) {
                asked.push(id);
            } else if since.is_some_and(|ago| ago >= LONG) {
                long.push(id);
            }
        }
        let orphans = Finding::about(
            Problem::Orphans,
            &orphans,
            "executing jobs of runtimes that are dead",
            "a runtime that runs on the file rescues them; start one",
        );
        let asked = Finding::about(
            Problem::Stuck,
            &asked,
            "jobs that were asked to leave more than a minute ago, and execute",
            "let the worker look at Running::cancelled, or end its process: the job is cancelled then",
        );
        let long = Finding::about(
            Problem::Stuck,
            &long,
            "jobs that have been executing for more than a day",
            "if that is not what they are for, give the worker a timeout, or end its process: they run again then",
        );
        Ok(orphans.into_iter().chain(asked).chain(long).collect())
    }

    fn unknown_workers(&self, runtimes: &[Holder]) -> Result<Vec<Finding>> {
        let mut waiting: BTreeMap<String, u64> = look::waiting(self.conn)?;
        let knows = |runtime: &RuntimeHealth, worker: &String| runtime.workers.contains(worker);
        waiting.retain(|worker, _| !runtimes.iter().any(|holder| knows(&holder.runtime, worker)));
        let found = waiting.into_iter().map(|(worker, count)| {
            let text = format!("available jobs for worker {worker:?}, which no live runtime knows: {count}");
            let advice = "start a runtime with this worker, or give the jobs to another with Kiln::update";
            Finding::new(Problem::UnknownWorkers, text, advice)
        });
        Ok(found.collect())
    }

    fn ids(&self, statement: &str) -> Result<Vec<i64>> {
        let mut select = self.conn.prepare(statement).map_err(failed)?;
        let ids = select.query_map([], |row| row.get(0)).map_err(failed)?;
        ids.collect::<rusqlite::Result<_>>().map_err(failed)
    }
}

fn damaged(text: String) -> Finding {
    let advice = "take a copy of the file, save what can be read with Kiln::export, and go back to a backup";
    Finding::new(Problem::Damaged, text, advice)
}

fn sizes(file: u64, free: u64, wal: u64) -> Vec<Finding> {
    const WORTH: u64 = 1024 * 1024;
    let mut found = Vec::new();
    if wal > LONG_LOG {
        let text = format!("the write-ahead log has grown to {wal} bytes");
        let advice =
            "a reader keeps an old state of the file: find the program that holds a transaction open, and end it";
        found.push(Finding::new(Problem::LongLog, text, advice));
    }
    if free >= WORTH && free >= file / 4 {
        let text = format!("{free} of {file} bytes of the file are free");
        let advice = format!(
            "new jobs use them; to give them back, call Kiln::compact, which needs {} bytes",
            2 * (file - free)
        );
        found.push(Finding::new(Problem::FreeSpace, text, advice));
    }
    found
}

fn exposed(file: &Path) -> Vec<Finding> {
    let found = place::exposures(file).into_iter().map(|exposure| {
        let (text, advice) = exposure.split_once("; ").unwrap_or((&exposure, ""));
        Finding::new(Problem::Exposed, text, advice)
    });
    found.collect()
}
