//! The columns of a job: one table, from which the select list, the INSERT, the UPDATE and the reader of a row follow.
//!
//! A new column is added to the schema, to [`Job`] with its value in [`Job::blank`], and here.

use std::sync::LazyLock;

use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Row, ToSql};

use super::value::{integer, json, text, time, with_text, words, words_json};
use crate::error::Result;
use crate::file::failed;
use crate::job::{Job, JobError, State};

/// A column of `kiln_jobs` that is a field of [`Job`].
struct Column {
    name: &'static str,
    /// What an INSERT or an UPDATE writes into the column.
    bind: for<'j> fn(&'j Job) -> ToSqlOutput<'j>,
    /// Sets the field of a job that is being read.
    read: fn(&mut Job, ValueRef<'_>),
    written: Written,
}

/// Which statements write a column from the field of a job. The statements of a job's life write the other columns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// An enqueue and an update.
    Always,
    /// An enqueue only.
    Once,
    /// Neither: a new job has the default of the schema.
    Never,
}

use Written::{Always, Never, Once};

/// In the order in which a row is read: a column may use what the columns before it have set.
static COLUMNS: [Column; 21] = [
    kept("id", |job, value| job.id = integer(value)),
    column("state", Always, |job| job.state.as_str().into(), |job, value| job.state = state(value)),
    column("queue", Always, |job| job.queue.as_str().into(), |job, value| job.queue = text(value)),
    column("worker", Always, |job| job.worker.as_str().into(), |job, value| job.worker = text(value)),
    column("args", Always, |job| job.args.as_str().into(), |job, value| job.args = json(value)),
    column("meta", Always, |job| job.meta.as_str().into(), |job, value| job.meta = json(value)),
    column("tags", Always, |job| array(&job.tags), |job, value| job.tags = words(value)),
    kept("errors", |job, value| job.errors = errors(value)),
    kept("attempt", |job, value| job.attempt = integer(value)),
    column("max_attempts", Always, |job| job.max_attempts.into(), |job, value| job.max_attempts = integer(value)),
    kept("crashes", |job, value| job.crashes = integer(value)),
    column("priority", Always, |job| job.priority.into(), |job, value| job.priority = integer(value)),
    kept("attempted_by", |job, value| job.attempted_by = words(value)),
    column("inserted_at", Once, |job| at(job.inserted_at), read_inserted_at),
    column("scheduled_at", Always, |job| at(job.scheduled_at), read_scheduled_at),
    kept("attempted_at", |job, value| job.attempted_at = time(value)),
    kept("completed_at", |job, value| job.completed_at = time(value)),
    kept("cancelled_at", |job, value| job.cancelled_at = time(value)),
    kept("discarded_at", |job, value| job.discarded_at = time(value)),
    kept("cancel_requested_at", |job, value| job.cancel_requested_at = time(value)),
    column("expires_at", Always, |job| maybe(job.expires_at), |job, value| job.expires_at = time(value)),
];

const fn column(
    name: &'static str,
    written: Written,
    bind: for<'j> fn(&'j Job) -> ToSqlOutput<'j>,
    read: fn(&mut Job, ValueRef<'_>),
) -> Column {
    Column { name, bind, read, written }
}

/// A column that is not written from a job.
const fn kept(name: &'static str, read: fn(&mut Job, ValueRef<'_>)) -> Column {
    column(name, Never, |_| ToSqlOutput::Owned(Value::Null), read)
}

fn read_inserted_at(job: &mut Job, value: ValueRef<'_>) {
    job.inserted_at = time(value).unwrap_or_default();
}

fn read_scheduled_at(job: &mut Job, value: ValueRef<'_>) {
    job.scheduled_at = time(value).unwrap_or(job.inserted_at);
}

fn state(value: ValueRef<'_>) -> State {
    with_text(value, State::from_name)
}

fn at(time: Timestamp) -> ToSqlOutput<'static> {
    time.as_microsecond().into()
}

fn maybe(time: Option<Timestamp>) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(time.map_or(Value::Null, |time| Value::Integer(time.as_microsecond())))
}

fn array(words: &[String]) -> ToSqlOutput<'static> {
    if words.is_empty() { "[]".into() } else { ToSqlOutput::Owned(Value::Text(words_json(words).into_owned())) }
}

fn errors(value: ValueRef<'_>) -> Vec<JobError> {
    with_text(value, |text| if text == "[]" { Vec::new() } else { JobError::read_all(text) })
}

/// The columns that are written, each with its parameter. A statement has ?1 and ?2 for itself.
fn written() -> impl Iterator<Item = (usize, &'static Column)> {
    (3..).zip(COLUMNS.iter().filter(|column| column.written != Never))
}

fn list<'c>(columns: impl Iterator<Item = (usize, &'c Column)>, each: impl Fn(usize, &str) -> String) -> String {
    columns.map(|(n, column)| each(n, column.name)).collect::<Vec<_>>().join(", ")
}

/// The select list that [`read`] reads.
pub(crate) static NAMES: LazyLock<String> =
    LazyLock::new(|| list(COLUMNS.iter().enumerate(), |_, name| name.to_owned()));

/// Reads a row of [`NAMES`].
pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let mut job = Job::blank();
    for (n, column) in COLUMNS.iter().enumerate() {
        (column.read)(&mut job, row.get_ref(n)?);
    }
    Ok(job)
}

/// Stores one job: ?1 is its id or NULL, ?2 its unique key.
pub(crate) static INSERT: LazyLock<String> = LazyLock::new(|| {
    let (names, values) = (list(written(), |_, name| name.to_owned()), list(written(), |n, _| format!("?{n}")));
    format!("INSERT INTO kiln_jobs (id, unique_key, {names}) VALUES (?1, ?2, {values})")
});

/// Stores jobs that differ in nothing but their arguments: ?1 is a table of them.
pub(crate) static INSERT_ALIKE: LazyLock<String> = LazyLock::new(|| {
    let value = |n, name: &str| if name == "args" { "value".to_owned() } else { format!("?{n}") };
    let (names, values) = (list(written(), |_, name| name.to_owned()), list(written(), value));
    format!("INSERT INTO kiln_jobs ({names}) SELECT {values} FROM rarray(?1)")
});

/// Writes what an operator may change: ?1 is the id, ?2 a new unique key or NULL.
pub(crate) static UPDATE: LazyLock<String> = LazyLock::new(|| {
    let changed = written().filter(|(_, column)| column.written == Always);
    let sets = list(changed, |n, name| format!("{name} = ?{n}"));
    format!("UPDATE kiln_jobs SET unique_key = coalesce(?2, unique_key), {sets} WHERE id = ?1")
});

/// Runs [`INSERT`], [`INSERT_ALIKE`] or [`UPDATE`] with its own parameters and the fields of a job.
pub(crate) fn write(conn: &Connection, sql: &str, first: impl ToSql, second: Option<&str>, job: &Job) -> Result<()> {
    let write = || {
        let mut statement = conn.prepare_cached(sql)?;
        statement.raw_bind_parameter(1, first)?;
        statement.raw_bind_parameter(2, second)?;
        for (n, column) in written() {
            statement.raw_bind_parameter(n, (column.bind)(job))?;
        }
        statement.raw_execute()
    };
    write().map(|_| ()).map_err(failed)
}
