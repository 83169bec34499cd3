//! Rows as they are: whatever a column holds, a job comes out of it.

use std::borrow::Cow;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Result, Row};
use serde::Serialize;
use serde_json::Map;

use crate::event::Subject;
use crate::job::{Job, JobError, Json, State};

/// Reads the columns of [`COLUMNS`](super::sql::COLUMNS), in their order.
pub(super) fn job(row: &Row<'_>) -> Result<Job> {
    let state = with_text(row.get_ref(18)?, State::from_name);
    let attempted_by = words(row.get_ref(20)?);
    Ok(Job { state, attempted_by, ..claimable(row, text(row.get_ref(19)?))? })
}

/// Reads the first of them, which are those of a claim from this queue.
pub(super) fn claimable(row: &Row<'_>, queue: String) -> Result<Job> {
    let inserted_at = time(row.get_ref(9)?).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(Job {
        id: row.get(0)?,
        state: State::Available,
        queue,
        worker: text(row.get_ref(1)?),
        args: json(row.get_ref(2)?),
        meta: json(row.get_ref(3)?),
        tags: words(row.get_ref(4)?),
        errors: with_text(row.get_ref(5)?, |text| if text == "[]" { Vec::new() } else { JobError::read_all(text) }),
        attempt: integer(row.get_ref(6)?),
        max_attempts: integer(row.get_ref(7)?),
        priority: integer(row.get_ref(8)?),
        attempted_by: Vec::new(),
        inserted_at,
        scheduled_at: time(row.get_ref(10)?).unwrap_or(inserted_at),
        attempted_at: time(row.get_ref(11)?),
        completed_at: time(row.get_ref(12)?),
        cancelled_at: time(row.get_ref(13)?),
        discarded_at: time(row.get_ref(14)?),
        cancel_requested_at: time(row.get_ref(15)?),
        expires_at: time(row.get_ref(16)?),
        crashes: integer(row.get_ref(17)?),
        conflict: false,
        extra: Map::new(),
    })
}

/// Reads what an event says of a job: id, queue, worker, attempt.
pub(super) fn subject(row: &Row<'_>) -> Result<Subject> {
    Ok(Subject {
        id: row.get(0)?,
        queue: text(row.get_ref(1)?),
        worker: text(row.get_ref(2)?),
        attempt: integer(row.get_ref(3)?),
    })
}

fn with_text<T>(value: ValueRef<'_>, read: impl FnOnce(&str) -> T) -> T {
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

pub(super) fn text(value: ValueRef<'_>) -> String {
    with_text(value, str::to_owned)
}

pub(super) fn json(value: ValueRef<'_>) -> Json {
    with_text(value, |text| if text == "{}" { Json::EMPTY } else { Json::raw(text.to_owned()) })
}

/// An array of strings; one that is none becomes a single word, so that it is seen.
pub(super) fn words(value: ValueRef<'_>) -> Vec<String> {
    with_text(value, |text| match text {
        "[]" | "" => Vec::new(),
        text => serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]),
    })
}

pub(super) fn integer(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(number) => number,
        ValueRef::Real(number) => number as i64,
        other => with_text(other, |text| text.trim().parse().unwrap_or(0)),
    }
}

pub(super) fn time(value: ValueRef<'_>) -> Option<Timestamp> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(micros) => Some(from_micros(micros)),
        ValueRef::Real(micros) => Some(from_micros(micros as i64)),
        other => with_text(other, |text| text.parse().ok()),
    }
}

/// A time outside of what can be shown is shown as the first or the last that can.
pub(super) fn from_micros(micros: i64) -> Timestamp {
    let bound = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(micros).unwrap_or(bound)
}

pub(super) fn words_json(words: &[impl Serialize]) -> Cow<'static, str> {
    if words.is_empty() {
        return "[]".into();
    }
    serde_json::to_string(words).expect("BUG: words are JSON").into()
}
