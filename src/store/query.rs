//! Looking at jobs: get, list, count, and the rows as they are.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::columns::{self, NAMES};
use super::value::{all, integer, is_damaged, one, optional_text, text};
use crate::error::Result;
use crate::file::failed;
use crate::job::{Counts, Fence, Filter, Job, Notes, Order, State};

static GET: LazyLock<String> = LazyLock::new(|| format!("SELECT {} FROM kiln_jobs WHERE id = ?1", &*NAMES));

pub(crate) fn get(conn: &Connection, id: i64) -> Result<Option<Job>> {
    try_get(conn, id).map_err(failed)
}

/// The same with SQLite's own error, so that the caller can tell a damaged row.
pub(crate) fn try_get(conn: &Connection, id: i64) -> rusqlite::Result<Option<Job>> {
    conn.prepare_cached(&GET)?.query_one([id], columns::read).optional()
}

/// The filter as a condition, and its parameters.
pub(crate) fn condition(filter: &Filter) -> (String, Vec<Value>) {
    let mut terms = vec!["true".to_owned()];
    let mut parameters = Vec::new();
    let mut place = |value: &str| {
        parameters.push(Value::Text(value.to_owned()));
        format!("?{}", parameters.len())
    };
    if !filter.states.is_empty() {
        let places: Vec<String> = filter.states.iter().map(|state| place(state.as_str())).collect();
        terms.push(format!("state IN ({})", places.join(", ")));
    }
    if let Some(queue) = &filter.queue {
        terms.push(format!("queue = {}", place(queue)));
    }
    if let Some(worker) = &filter.worker {
        terms.push(format!("worker = {}", place(worker)));
    }
    for tag in &filter.tags {
        // With CASE, a row whose tags are damaged does not end the list of the others.
        terms.push(format!(
            "CASE WHEN json_valid(tags) THEN EXISTS (SELECT 1 FROM json_each(tags) WHERE value = {}) ELSE false END",
            place(tag)
        ));
    }
    (terms.join(" AND "), parameters)
}

pub(crate) fn list(conn: &Connection, filter: &Filter) -> Result<Vec<Job>> {
    let (condition, parameters) = condition(filter);
    let (beyond, direction) = match filter.order {
        Order::OldestFirst => (">", "ASC"),
        Order::NewestFirst => ("<", "DESC"),
    };
    let from = filter.from.map_or(String::new(), |id| format!("id {beyond} {id} AND "));
    let (names, limit) = (&*NAMES, filter.limit);
    let sql = format!("SELECT {names} FROM kiln_jobs WHERE {from}{condition} ORDER BY id {direction} LIMIT {limit}");
    all(conn, &sql, params_from_iter(parameters), columns::read)
}

pub(crate) fn count(conn: &Connection, filter: &Filter) -> Result<Counts> {
    let (condition, parameters) = condition(filter);
    let sql = format!("SELECT queue, state, count(*) FROM kiln_jobs WHERE {condition} GROUP BY queue, state");
    let mut counts = BTreeMap::new();
    let read = |row: &Row<'_>| {
        let state = State::from_name(&text(row.get_ref(1)?));
        Ok((text(row.get_ref(0)?), state, integer(row.get_ref(2)?).unsigned_abs()))
    };
    for (queue, state, count) in all(conn, &sql, params_from_iter(parameters), read)? {
        *counts.entry((queue, state)).or_default() += count;
    }
    Ok(Counts(counts))
}

const WAITING: &str = "
SELECT worker, count(*) FROM kiln_jobs INDEXED BY kiln_jobs_available
WHERE state = 'available' AND attempt < max_attempts AND crashes < 2 GROUP BY worker";

/// How many available jobs there are, by worker.
pub(crate) fn waiting(conn: &Connection) -> Result<BTreeMap<String, u64>> {
    let read = |row: &Row<'_>| Ok((text(row.get_ref(0)?), integer(row.get_ref(1)?).unsigned_abs()));
    Ok(all(conn, WAITING, [], read)?.into_iter().collect())
}

pub(crate) const CANCELLING: &str = "
SELECT id, attempt, attempted_at FROM kiln_jobs INDEXED BY kiln_jobs_executing
WHERE state = 'executing' AND cancel_requested_at > 0";

/// The executing attempts that somebody asked to cancel.
pub(crate) fn cancelling(conn: &Connection) -> Result<Vec<Fence>> {
    all(conn, CANCELLING, [], |row| {
        Ok(Fence { id: row.get(0)?, attempt: integer(row.get_ref(1)?), attempted_at: integer(row.get_ref(2)?) })
    })
}

const NOTES: &str = "SELECT progress, checkpoint FROM kiln_jobs WHERE id = ?1";

/// What the job wrote about itself.
pub(crate) fn notes(conn: &Connection, id: i64) -> Result<Notes> {
    let read = |row: &Row<'_>| {
        Ok(Notes { progress: optional_text(row.get_ref(0)?), checkpoint: optional_text(row.get_ref(1)?) })
    };
    Ok(one(conn, NOTES, [id], read)?.unwrap_or_default())
}

const MATCHING: &str = "SELECT id FROM kiln_jobs WHERE id > ";

/// The ids of the jobs that match, after this one; the first `limit` of them.
pub(crate) fn matching(conn: &Connection, filter: &Filter, after: i64, limit: u32) -> Result<Vec<i64>> {
    let (condition, parameters) = condition(filter);
    let sql = format!("{MATCHING}{after} AND {condition} ORDER BY id LIMIT {limit}");
    all(conn, &sql, params_from_iter(parameters), |row| row.get(0))
}

/// A row as it is stored: the names of its columns, and what they hold.
#[derive(Clone, Debug)]
pub(crate) struct StoredRow {
    pub id: i64,
    pub columns: Vec<(String, Value)>,
}

impl StoredRow {
    /// A row of which only the id is known, and why.
    fn unreadable(id: i64, why: &str) -> Self {
        let columns = [("id", Value::Integer(id)), ("unreadable", Value::Text(why.to_owned()))];
        Self { id, columns: columns.map(|(name, cell)| (name.to_owned(), cell)).into() }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let names = row.as_ref().column_names();
        let cell = |value| match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        };
        let columns = names.iter().enumerate().map(|(n, name)| Ok(((*name).to_owned(), cell(row.get_ref(n)?))));
        Ok(Self { columns: columns.collect::<rusqlite::Result<_>>()?, id: row.get("id")? })
    }

    fn bytes(&self) -> usize {
        let bytes = |(_, cell): &(String, Value)| match cell {
            Value::Text(text) => text.len(),
            Value::Blob(blob) => blob.len(),
            _ => 8,
        };
        self.columns.iter().map(bytes).sum()
    }
}

/// A page of an export ends with the row that fills it, so that a few huge rows do not fill the memory.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
const PAGE_ROWS: usize = 1000;

/// The rows that match, with all columns there are, after this id: the next page.
pub(crate) fn rows(conn: &Connection, filter: &Filter, after: i64) -> Result<Vec<StoredRow>> {
    let (condition, parameters) = condition(filter);
    let sql = format!("SELECT * FROM kiln_jobs WHERE id > {after} AND {condition} ORDER BY id");
    let mut select = conn.prepare(&sql).map_err(failed)?;
    let mut found = select.query(params_from_iter(&parameters)).map_err(failed)?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES && page.len() < PAGE_ROWS {
        match found.next().and_then(|row| row.map(StoredRow::read).transpose()) {
            Ok(Some(row)) => {
                bytes += row.bytes();
                page.push(row);
            }
            Ok(None) => break,
            // A row that cannot be read ends the page, or is a page by itself.
            Err(error) if is_damaged(&error) => {
                if page.is_empty() {
                    let next = matching(conn, filter, after, 1)?;
                    page.extend(next.first().map(|id| StoredRow::unreadable(*id, &error.to_string())));
                }
                break;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(page)
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    vec![GET.clone(), CANCELLING.to_owned(), NOTES.to_owned()]
}
