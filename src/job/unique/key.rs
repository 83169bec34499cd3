//! What unique jobs are found by: a text that is the same for all doubles.

use std::fmt::Write;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Check, Field};
use crate::job::{Job, Json};

/// Which parts of a job are compared; sorted, without doubles. And whether its period is by the due time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub fields: Vec<Field>,
    pub keys: Vec<String>,
    pub by_schedule: bool,
}

/// What the key of a job begins with whose period is by the due time; an index relies on it.
const BY_SCHEDULE: char = 's';

const LETTERS: [(Field, char); 4] = [(Field::Args, 'a'), (Field::Meta, 'm'), (Field::Queue, 'q'), (Field::Worker, 'w')];

impl Basis {
    /// The basis in short, then a digest of the values. From the first, a job can be given a new key.
    pub fn key(&self, job: &Job) -> String {
        let mut key = if self.by_schedule { String::from(BY_SCHEDULE) } else { String::new() };
        key.extend(LETTERS.iter().filter(|(field, _)| self.fields.contains(field)).map(|(_, letter)| letter));
        if !self.keys.is_empty() {
            key += &Value::from(self.keys.clone()).to_string();
        }
        let mut values = String::new();
        write_sorted(&Value::Object(self.values(job)), &mut values);
        key.push(':');
        for byte in &Sha256::digest(values)[..16] {
            let _ = write!(key, "{byte:02x}");
        }
        key
    }

    /// The basis of a key; `None` for one that something else wrote.
    fn of(key: &str) -> Option<Basis> {
        let (basis, _) = key.rsplit_once(':')?;
        let by_schedule = basis.starts_with(BY_SCHEDULE);
        let basis = basis.trim_start_matches(BY_SCHEDULE);
        let (letters, keys) = basis.split_at(basis.find('[').unwrap_or(basis.len()));
        let field = |letter| LETTERS.iter().find(|(_, other)| *other == letter).map(|(field, _)| *field);
        let fields = letters.chars().map(field).collect::<Option<Vec<Field>>>()?;
        let keys = if keys.is_empty() { Vec::new() } else { serde_json::from_str(keys).ok()? };
        Some(Basis { fields, keys, by_schedule })
    }

    fn values(&self, job: &Job) -> Map<String, Value> {
        let value = |field: &Field| match field {
            Field::Args => ("args", self.part(&job.args)),
            Field::Meta => ("meta", self.part(&job.meta)),
            Field::Queue => ("queue", job.queue.clone().into()),
            _ => ("worker", job.worker.clone().into()),
        };
        self.fields.iter().map(value).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn part(&self, json: &Json) -> Value {
        let mut map = json.map();
        if !self.keys.is_empty() {
            map.retain(|key, _| self.keys.contains(key));
        }
        Value::Object(map)
    }
}

/// A key must not depend on whether another crate made serde_json keep the order of entries.
fn write_sorted(value: &Value, text: &mut String) {
    let between = |text: &mut String, first: bool| {
        if !first {
            text.push(',')
        }
    };
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (n, (key, value)) in entries.into_iter().enumerate() {
                between(text, n == 0);
                let _ = write!(text, "{}:", Value::from(key.as_str()));
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (n, value) in list.iter().enumerate() {
                between(text, n == 0);
                write_sorted(value, text);
            }
            text.push(']');
        }
        other => drop(write!(text, "{other}")),
    }
}

impl Check {
    /// Whether two versions of a job may differ in anything that can be compared.
    pub fn may_differ(old: &Job, new: &Job) -> bool {
        (&old.args, &old.meta, &old.queue, &old.worker) != (&new.args, &new.meta, &new.queue, &new.worker)
    }

    /// The key of a job that was changed; `None` where it stays.
    pub fn rekey(key: &str, old: &Job, new: &Job) -> Option<String> {
        let basis = Basis::of(key)?;
        (basis.values(old) != basis.values(new)).then(|| basis.key(new))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{NewJob, Unique};

    fn built(job: NewJob) -> Job {
        job.build(Timestamp::UNIX_EPOCH, |_| {}).unwrap().job
    }

    #[test]
    fn the_key_depends_on_what_is_compared_and_on_nothing_else() {
        let key = |unique: &Unique, job: NewJob| unique.basis().key(&built(job));
        let job = |args: Value| NewJob::new("w").args(args);
        let (all, by_id) = (Unique::new(), Unique::new().keys(["id"]));
        assert_eq!(key(&all, job(json!({ "a": 1, "b": 2 }))), key(&all, job(json!({ "b": 2, "a": 1 })).priority(3)));
        assert_ne!(key(&all, job(json!({ "a": 1 }))), key(&all, job(json!({ "a": 2 }))));
        assert_eq!(key(&by_id, job(json!({ "id": 1, "x": 1 }))), key(&by_id, job(json!({ "id": 1, "x": 2 }))));
        assert_ne!(key(&all, job(json!({})).queue("q")), key(&all, job(json!({}))));
        let by_worker = Unique::new().by([Field::Worker]);
        assert_eq!(key(&by_worker, job(json!({})).queue("q")), key(&by_worker, job(json!({ "a": 1 }))));
    }

    #[test]
    fn a_key_tells_what_it_was_made_of() {
        let job = built(NewJob::new("w"));
        for unique in [
            Unique::new(),
            Unique::new().by([Field::Meta, Field::Args, Field::Meta]).keys(["b", "a:[\"", "b"]),
            Unique::new().by([Field::Worker]).by_schedule(),
        ] {
            let basis = unique.basis();
            assert_eq!(Basis::of(&basis.key(&job)), Some(basis));
        }
        for foreign in ["", "abc", "x:1", "a[:1"] {
            assert_eq!(Check::rekey(foreign, &job, &built(NewJob::new("v"))), None, "{foreign}");
        }
    }

    #[test]
    fn a_job_is_given_a_new_key_when_something_that_is_compared_changes() {
        let job = |args: Value| built(NewJob::new("w").args(args));
        let basis = Unique::new().keys(["id"]).basis();
        let (old, same, other) =
            (job(json!({ "id": 1, "n": 1 })), job(json!({ "id": 1, "n": 2 })), job(json!({ "id": 2, "n": 1 })));
        let key = basis.key(&old);
        assert_eq!(Check::rekey(&key, &old, &same), None);
        assert_eq!(Check::rekey(&key, &old, &other), Some(basis.key(&other)));
    }
}
