//! A row as a line of JSON, whatever is in it.

use std::borrow::Cow;

use jiff::Timestamp;
use rusqlite::types::Value as Cell;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::error::{Error, Kind};
use crate::job::{Redaction, shown_key};
use crate::store::query::StoredRow;

/// Columns that hold JSON, and whether what they hold may have to be hidden.
const JSON: [(&str, bool); 7] = [
    ("args", true),
    ("meta", true),
    ("tags", false),
    ("errors", true),
    ("attempted_by", false),
    ("progress", true),
    ("checkpoint", true),
];

const TEXT: [&str; 5] = ["state", "queue", "worker", "unique_key", "unreadable"];

/// The row as a line, with its end; `hide` says what is not to be seen of it.
pub(super) fn line(row: &StoredRow, hide: Option<&Redaction>) -> String {
    let args_and_meta: Vec<&str> = ["args", "meta"].into_iter().filter_map(|name| text_of(row, name)).collect();
    let mut malformed = Vec::new();
    let mut entries = Vec::new();
    for (name, cell) in &row.columns {
        let (value, well) = match JSON.iter().find(|(json, _)| json == name) {
            Some((_, secret)) => json(cell, hide.filter(|_| *secret), &args_and_meta),
            None if name.ends_with("_at") => time(cell),
            None if name == "unique_key" && hide.is_some() => match cell {
                Cell::Text(key) => (quoted(&shown_key(key)), true),
                other => plain(other, true),
            },
            None => plain(cell, TEXT.contains(&name.as_str())),
        };
        if !well {
            malformed.push(name.as_str());
        }
        entries.push(format!("{}:{value}", quoted(name)));
    }
    if !malformed.is_empty() {
        entries.push(format!("\"malformed\":{}", Value::from(malformed)));
    }
    format!("{{{}}}\n", entries.join(","))
}

pub(super) fn unwritten(error: std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Storage };
    Error::new(kind, "the export cannot be written").because(error)
}

fn text_of<'r>(row: &'r StoredRow, name: &str) -> Option<&'r str> {
    row.columns.iter().find_map(|(column, cell)| match cell {
        Cell::Text(text) if column == name => Some(text.as_str()),
        _ => None,
    })
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// What is JSON stands as it is, on one line; `false` where it is none.
fn json(cell: &Cell, hide: Option<&Redaction>, args_and_meta: &[&str]) -> (String, bool) {
    let Cell::Text(text) = cell else {
        let (value, _) = plain(cell, false);
        return (value, matches!(cell, Cell::Null));
    };
    let shown = hide.map_or(Cow::Borrowed(text.as_str()), |hide| {
        let text = hide.json(text);
        // Errors quote arguments, notes may.
        match hide.text(&text, args_and_meta) {
            Cow::Borrowed(_) => text,
            Cow::Owned(text) => text.into(),
        }
    });
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return (quoted(&shown), false);
    }
    // Hiding may have cut into more than strings.
    if serde_json::from_str::<IgnoredAny>(&shown).is_err() {
        return (quoted(&shown), true);
    }
    // Outside of strings an end of line is a blank, and within strings there is none.
    (shown.replace(['\n', '\r'], " "), true)
}

fn time(cell: &Cell) -> (String, bool) {
    match cell {
        Cell::Integer(micros) => match Timestamp::from_microsecond(*micros) {
            Ok(at) => (format!("\"{at:.6}\""), true),
            Err(_) => (micros.to_string(), false),
        },
        other => (plain(other, false).0, matches!(other, Cell::Null)),
    }
}

fn plain(cell: &Cell, is_text: bool) -> (String, bool) {
    match cell {
        Cell::Null => ("null".to_owned(), true),
        Cell::Integer(number) => (number.to_string(), !is_text),
        Cell::Real(number) => (Value::from(*number).to_string(), false),
        Cell::Text(text) => (quoted(text), is_text),
        Cell::Blob(bytes) => (quoted(&String::from_utf8_lossy(bytes)), false),
    }
}
