//! What unique jobs are found by: a text that is the same for all duplicates.

use std::borrow::Cow;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::job::json::Json;
use crate::job::row::Job;

/// A part of a job that [`Unique`](crate::Unique) compares or replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Field {
    /// `args`
    Args,
    /// `max_attempts`; cannot be compared.
    MaxAttempts,
    /// `meta`
    Meta,
    /// `priority`; cannot be compared.
    Priority,
    /// `queue`
    Queue,
    /// `scheduled_at`; cannot be compared.
    ScheduledAt,
    /// `tags`; cannot be compared.
    Tags,
    /// `worker`
    Worker,
}

/// The time of a stored job that a period is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stamp {
    #[default]
    InsertedAt,
    ScheduledAt,
}

/// Which parts of a job are compared; sorted, without duplicates. And which time its period is measured by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub fields: Vec<Field>,
    pub keys: Vec<String>,
    pub timestamp: Stamp,
}

/// What a key begins with: which time a period is measured by. An index relies on it.
const STAMPS: [(Stamp, char); 2] = [(Stamp::InsertedAt, 'i'), (Stamp::ScheduledAt, 's')];

/// The fields that can be compared: the letter of each in a key, and its name in a digest.
pub(super) const COMPARABLE: [(Field, char, &str); 4] = [
    (Field::Args, 'a', "args"),
    (Field::Meta, 'm', "meta"),
    (Field::Queue, 'q', "queue"),
    (Field::Worker, 'w', "worker"),
];

/// Values of more bytes are compared by their digest.
const LONGEST: usize = 160;

impl Basis {
    /// The basis in short, then the values: those that follow each other lie beside each other in the index, so that few
    /// pages are written. From the basis, a job can be given a new key.
    pub fn key(&self, job: &Job) -> String {
        let mut key = String::with_capacity(96);
        key.extend(STAMPS.iter().filter(|(stamp, _)| *stamp == self.timestamp).map(|(_, letter)| letter));
        key.extend(self.compared().map(|(_, letter, _)| letter));
        if !self.keys.is_empty() {
            key += &Value::from(self.keys.clone()).to_string();
        }
        key.push(':');
        let begun = key.len();
        self.compared().for_each(|(field, ..)| self.write(*field, job, &mut key));
        if key.len() - begun > LONGEST {
            key.truncate(begun);
            key += &self.digest(job);
        }
        key
    }

    fn compared(&self) -> impl Iterator<Item = &'static (Field, char, &'static str)> {
        COMPARABLE.iter().filter(|(field, ..)| self.fields.contains(field))
    }

    /// Writes the value of a field as JSON in its canonical form.
    fn write(&self, field: Field, job: &Job, text: &mut String) {
        let value = match field {
            Field::Args => canonical(&job.args, &self.keys),
            Field::Meta => canonical(&job.meta, &self.keys),
            Field::Queue => job.queue.as_str().into(),
            _ => job.worker.as_str().into(),
        };
        let _ = write!(text, "{value}");
    }

    /// A digest of the values by name.
    fn digest(&self, job: &Job) -> String {
        let mut values = String::new();
        for (field, _, name) in self.compared() {
            let _ = write!(values, "{}\"{name}\":", if values.is_empty() { '{' } else { ',' });
            self.write(*field, job, &mut values);
        }
        hex(&(values + "}"))
    }

    /// The basis of a key, and what stands for the values; `None` for a key that something else wrote.
    pub fn of(key: &str) -> Option<(Basis, &str)> {
        let (timestamp, letter) = *STAMPS.iter().find(|(_, letter)| key.starts_with(*letter))?;
        let basis = key.strip_prefix(letter)?;
        let (letters, rest) = basis.split_at(basis.find(['[', ':'])?);
        let field = |letter| COMPARABLE.iter().find(|(_, other, _)| *other == letter).map(|(field, ..)| *field);
        let fields = letters.chars().map(field).collect::<Option<Vec<Field>>>()?;
        let mut list = serde_json::Deserializer::from_str(rest).into_iter::<Vec<String>>();
        let keys = if rest.starts_with('[') { list.next()?.ok()? } else { Vec::new() };
        let values = rest[list.byte_offset()..].strip_prefix(':')?;
        Some((Basis { fields, keys, timestamp }, values))
    }
}

/// The object with its entries sorted by their keys; if there are keys, only these entries of it. Any other value is an
/// empty object.
fn canonical(json: &Json, keys: &[String]) -> Value {
    let mut map = json.map();
    if !keys.is_empty() {
        map.retain(|key, _| keys.contains(key));
    }
    let mut value = Value::Object(map);
    // Another crate may have switched serde_json's `preserve_order` on.
    value.sort_all_objects();
    value
}

fn hex(text: &str) -> String {
    Sha256::digest(text)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key for others to see: what it holds of arguments is a digest.
pub(crate) fn shown(key: &str) -> Cow<'_, str> {
    match Basis::of(key) {
        Some((_, values)) if values.starts_with(['{', '"']) => {
            format!("{}{}", &key[..key.len() - values.len()], hex(values)).into()
        }
        _ => key.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_written_in_one_form() {
        let written = |json: &str, keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            format!("x{}", canonical(&Json::raw(json.to_owned()), &keys))
        };
        let json = r#"{"to":"x","n":-12,"deep":{"z":[1,{"y":null,"b":true}],"a":{}},"none":[]}"#;
        let expected = r#"x{"deep":{"a":{},"z":[1,{"b":true,"y":null}]},"n":-12,"none":[],"to":"x"}"#;
        assert_eq!(written(json, &[]), expected);
        assert_eq!(written(&expected[1..], &[]), expected, "it is its own form");
        assert_eq!(written(json, &["n", "to", "x"]), r#"x{"n":-12,"to":"x"}"#);
        assert_eq!(written(r#"{ "b":2.50, "a":[ 1 ], "b":"\u0041"}"#, &[]), r#"x{"a":[1],"b":"A"}"#);
        assert_eq!(written("[1]", &[]), "x{}", "what is no object is an empty one");
    }
}
