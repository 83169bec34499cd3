//! Values as they are stored, and the four ways to run a statement.
//!
//! The readers accept whatever a column holds: a row that another program wrote or damaged can still be shown.

use std::borrow::Cow;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row};
use serde::Serialize;

use crate::error::Result;
use crate::file::failed;
use crate::job::Json;

/// Executes a statement, and returns how many rows it changed.
pub(crate) fn run(conn: &Connection, sql: &str, parameters: impl Params) -> Result<usize> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters)).map_err(failed)
}

/// Whether the query finds a row.
pub(crate) fn exists(conn: &Connection, sql: &str, parameters: impl Params) -> Result<bool> {
    conn.prepare_cached(sql).and_then(|mut select| select.exists(parameters)).map_err(failed)
}

/// The only row that the query finds, if any.
pub(crate) fn one<T>(
    conn: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    conn.prepare_cached(sql).and_then(|mut select| select.query_one(parameters, read).optional()).map_err(failed)
}

/// All rows that the query finds.
pub(crate) fn all<T>(
    conn: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut select = conn.prepare_cached(sql).map_err(failed)?;
    let rows = select.query_map(parameters, read).map_err(failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed)
}

/// Whether the error is about one row: its pages are damaged, or it does not fit into memory.
pub(crate) fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::OutOfMemory | ErrorCode::TooBig))
}

/// Hands the value to `read` as text, whatever its type is.
pub(crate) fn with_text<T>(value: ValueRef<'_>, read: impl FnOnce(&str) -> T) -> T {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => match str::from_utf8(bytes) {
            Ok(text) => read(text),
            Err(_) => read(&String::from_utf8_lossy(bytes)),
        },
        ValueRef::Integer(number) => read(&number.to_string()),
        ValueRef::Real(number) => read(&number.to_string()),
        ValueRef::Null => read(""),
    }
}

pub(crate) fn text(value: ValueRef<'_>) -> String {
    with_text(value, str::to_owned)
}

/// `None` for NULL.
pub(crate) fn optional_text(value: ValueRef<'_>) -> Option<String> {
    (value != ValueRef::Null).then(|| text(value))
}

pub(crate) fn json(value: ValueRef<'_>) -> Json {
    with_text(value, |text| if text == "{}" { Json::EMPTY } else { Json::raw(text.to_owned()) })
}

/// An array of strings. A value that is no such array becomes a single word, so that a person sees it.
pub(crate) fn words(value: ValueRef<'_>) -> Vec<String> {
    with_text(value, |text| match text {
        "[]" | "" => Vec::new(),
        text => serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]),
    })
}

pub(crate) fn integer(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(number) => number,
        ValueRef::Real(number) => number as i64,
        other => with_text(other, |text| text.trim().parse().unwrap_or(0)),
    }
}

pub(crate) fn time(value: ValueRef<'_>) -> Option<Timestamp> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(micros) => Some(from_micros(micros)),
        ValueRef::Real(micros) => Some(from_micros(micros as i64)),
        other => with_text(other, |text| text.parse().ok()),
    }
}

/// A time out of the range of timestamps becomes the first or the last timestamp.
pub(crate) fn from_micros(micros: i64) -> Timestamp {
    let bound = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(micros).unwrap_or(bound)
}

/// An array of strings as it is stored.
pub(crate) fn words_json(words: &[impl Serialize]) -> Cow<'static, str> {
    if words.is_empty() {
        return "[]".into();
    }
    serde_json::to_string(words).expect("BUG: words are JSON").into()
}
