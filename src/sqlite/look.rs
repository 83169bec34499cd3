//! Looking at jobs: list, count, health.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::live::Live;
use super::{failed, rows, sql};
use crate::Result;
use crate::health::{Health, RuntimeHealth};
use crate::job::{Counts, Filter, Job, Notes, Order, State};

/// How many rows a transaction that sweeps over many jobs touches at the most.
pub(super) const BATCH: u32 = 1000;

/// The filter as a condition, and its parameters.
pub(super) fn condition(filter: &Filter) -> (String, Vec<Sql>) {
    let mut terms = vec!["true".to_owned()];
    let mut parameters = Vec::new();
    let mut place = |value: String| {
        parameters.push(Sql::Text(value));
        format!("?{}", parameters.len())
    };
    if !filter.states.is_empty() {
        let places: Vec<String> = filter.states.iter().map(|state| place(state.to_string())).collect();
        terms.push(format!("state IN ({})", places.join(", ")));
    }
    if let Some(queue) = &filter.queue {
        terms.push(format!("queue = {}", place(queue.clone())));
    }
    if let Some(worker) = &filter.worker {
        terms.push(format!("worker = {}", place(worker.clone())));
    }
    for tag in &filter.tags {
        // CASE, since a damaged row must not end the listing of the others.
        terms.push(format!(
            "CASE WHEN json_valid(tags) THEN EXISTS (SELECT 1 FROM json_each(tags) WHERE value = {}) ELSE false END",
            place(tag.clone())
        ));
    }
    (terms.join(" AND "), parameters)
}

pub(super) fn list(conn: &Connection, filter: &Filter) -> Result<Vec<Job>> {
    let (condition, parameters) = condition(filter);
    let (beyond, direction) = match filter.order {
        Order::OldestFirst => (">", "ASC"),
        Order::NewestFirst => ("<", "DESC"),
    };
    let from = filter.from.map_or(String::new(), |id| format!("id {beyond} {id} AND "));
    let text = format!(
        "SELECT {} FROM kiln_jobs WHERE {from}{condition} ORDER BY id {direction} LIMIT {}",
        sql::COLUMNS,
        filter.limit
    );
    let mut select = conn.prepare_cached(&text).map_err(failed)?;
    let jobs = select.query_map(params_from_iter(parameters), rows::job).map_err(failed)?;
    jobs.collect::<rusqlite::Result<_>>().map_err(failed)
}

pub(super) fn count(conn: &Connection, filter: &Filter) -> Result<Counts> {
    let (condition, parameters) = condition(filter);
    let text = format!("SELECT queue, state, count(*) FROM kiln_jobs WHERE {condition} GROUP BY queue, state");
    let mut select = conn.prepare_cached(&text).map_err(failed)?;
    let mut found = select.query(params_from_iter(parameters)).map_err(failed)?;
    let mut counts = BTreeMap::new();
    while let Some(row) = found.next().map_err(failed)? {
        let queue = rows::text(row.get_ref(0).map_err(failed)?);
        let state = State::from_name(&rows::text(row.get_ref(1).map_err(failed)?));
        *counts.entry((queue, state)).or_default() += rows::integer(row.get_ref(2).map_err(failed)?).unsigned_abs();
    }
    Ok(Counts(counts))
}

/// Available jobs by worker.
pub(super) fn waiting(conn: &Connection) -> Result<BTreeMap<String, u64>> {
    let text = "SELECT worker, count(*) FROM kiln_jobs INDEXED BY kiln_jobs_available
                WHERE state = 'available' AND attempt < max_attempts GROUP BY worker";
    let mut select = conn.prepare_cached(text).map_err(failed)?;
    let counts = select
        .query_map([], |row| Ok((rows::text(row.get_ref(0)?), rows::integer(row.get_ref(1)?).unsigned_abs())))
        .map_err(failed)?;
    counts.collect::<rusqlite::Result<_>>().map_err(failed)
}

pub(super) fn members(conn: &Connection) -> Result<Vec<RuntimeHealth>> {
    let mut select = conn.prepare_cached(sql::MEMBERS).map_err(failed)?;
    let members = select.query_map([], member).map_err(failed)?;
    members.collect::<rusqlite::Result<_>>().map_err(failed)
}

pub(super) fn member(row: &rusqlite::Row<'_>) -> rusqlite::Result<RuntimeHealth> {
    Ok(RuntimeHealth {
        id: rows::text(row.get_ref(0)?),
        node: rows::text(row.get_ref(1)?),
        pid: u32::try_from(rows::integer(row.get_ref(2)?)).unwrap_or(0),
        queues: rows::words(row.get_ref(4)?),
        workers: rows::words(row.get_ref(5)?),
        started_at: rows::time(row.get_ref(6)?).unwrap_or_default(),
        pulse: None,
    })
}

/// Asked of the folder: opening the file, and closing it again, would drop the locks that this process has on it.
pub(super) fn wal_bytes(file: &Path) -> u64 {
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).map_or(0, |found| found.len())
}

/// Executing jobs that somebody asked to cancel.
pub(super) fn cancelling(conn: &Connection) -> Result<Vec<i64>> {
    let mut select = conn.prepare_cached(sql::CANCELLING).map_err(failed)?;
    let ids = select.query_map([], |row| row.get(0)).map_err(failed)?;
    ids.collect::<rusqlite::Result<_>>().map_err(failed)
}

pub(super) fn notes(conn: &Connection, id: i64) -> Result<Notes> {
    let text = |value: ValueRef<'_>| (value != ValueRef::Null).then(|| rows::text(value));
    let read =
        |row: &rusqlite::Row<'_>| Ok(Notes { progress: text(row.get_ref(0)?), checkpoint: text(row.get_ref(1)?) });
    let mut select = conn.prepare_cached(sql::NOTES).map_err(failed)?;
    Ok(select.query_one([id], read).optional().map_err(failed)?.unwrap_or_default())
}

/// Those of the runtimes that live, and what waits for workers that none of them knows.
pub(super) fn alive(members: Vec<RuntimeHealth>, mut waiting: BTreeMap<String, u64>, live: &Live) -> Health {
    let runtimes: Vec<RuntimeHealth> = members.into_iter().filter(|member| !live.is_dead(&member.id)).collect();
    waiting.retain(|worker, _| !runtimes.iter().any(|runtime| runtime.workers.contains(worker)));
    Health { unknown_workers: waiting, runtimes, wal_bytes: 0 }
}
