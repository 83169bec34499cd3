//! What unique jobs are found by: a text that is the same for all doubles.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Check, Field, canon};
use crate::job::Job;

/// Which parts of a job are compared; sorted, without doubles. And whether its period is by the due time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub fields: Vec<Field>,
    pub keys: Vec<String>,
    pub by_schedule: bool,
}

/// What a key begins with: which time a period is measured by. An index relies on it; and keys of schema version 1, which
/// are a digest alone, are all below.
const BY_INSERT: char = 'i';
const BY_SCHEDULE: char = 's';

const LETTERS: [(Field, char); 4] = [(Field::Args, 'a'), (Field::Meta, 'm'), (Field::Queue, 'q'), (Field::Worker, 'w')];

/// Values of more bytes are compared by their digest.
const LONGEST: usize = 160;

impl Basis {
    /// The basis in short, then the values: those that follow each other lie beside each other in the index, so that few
    /// pages are written. From the basis, a job can be given a new key.
    pub fn key(&self, job: &Job) -> String {
        let mut key = String::with_capacity(96);
        key.push(if self.by_schedule { BY_SCHEDULE } else { BY_INSERT });
        key.extend(self.letters().map(|(_, letter)| letter));
        if !self.keys.is_empty() {
            key += &Value::from(self.keys.clone()).to_string();
        }
        key.push(':');
        let begun = key.len();
        self.letters().for_each(|(field, _)| self.write(*field, job, &mut key));
        if key.len() - begun > LONGEST {
            key.truncate(begun);
            key += &self.digest(job);
        }
        key
    }

    fn letters(&self) -> impl Iterator<Item = &'static (Field, char)> {
        LETTERS.iter().filter(|(field, _)| self.fields.contains(field))
    }

    fn write(&self, field: Field, job: &Job, text: &mut String) {
        match field {
            Field::Args => canon::write(&job.args, &self.keys, text),
            Field::Meta => canon::write(&job.meta, &self.keys, text),
            Field::Queue => canon::write_word(&job.queue, text),
            _ => canon::write_word(&job.worker, text),
        }
    }

    /// The whole key of schema version 1: a digest of the values by name.
    fn digest(&self, job: &Job) -> String {
        let mut values = String::from('{');
        for (field, _) in self.letters() {
            let name = match field {
                Field::Args => "\"args\":",
                Field::Meta => ",\"meta\":",
                Field::Queue => ",\"queue\":",
                _ => ",\"worker\":",
            };
            values += if values.len() == 1 { name.trim_start_matches(',') } else { name };
            self.write(*field, job, &mut values);
        }
        values.push('}');
        hex(&values)
    }

    /// The basis of a key, and what stands for the values; `None` for one that something else wrote.
    fn of(key: &str) -> Option<(Basis, &str)> {
        let by_schedule = key.starts_with(BY_SCHEDULE);
        let basis = key.strip_prefix([BY_INSERT, BY_SCHEDULE])?;
        let (letters, rest) = basis.split_at(basis.find(['[', ':'])?);
        let field = |letter| LETTERS.iter().find(|(_, other)| *other == letter).map(|(field, _)| *field);
        let fields = letters.chars().map(field).collect::<Option<Vec<Field>>>()?;
        let (keys, rest) = match rest.starts_with('[') {
            true => {
                let mut list = serde_json::Deserializer::from_str(rest).into_iter::<Vec<String>>();
                let keys = list.next()?.ok()?;
                (keys, &rest[list.byte_offset()..])
            }
            false => (Vec::new(), rest),
        };
        Some((Basis { fields, keys, by_schedule }, rest.strip_prefix(':')?))
    }
}

fn hex(text: &str) -> String {
    let mut hex = String::with_capacity(32);
    for byte in &Sha256::digest(text)[..16] {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
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

impl Check {
    /// Whether two versions of a job may differ in anything that can be compared.
    pub fn may_differ(old: &Job, new: &Job) -> bool {
        (&old.args, &old.meta, &old.queue, &old.worker) != (&new.args, &new.meta, &new.queue, &new.worker)
    }

    /// The key of a job that was changed; `None` where it stays.
    pub fn rekey(key: &str, old: &Job, new: &Job) -> Option<String> {
        let (basis, _) = Basis::of(key)?;
        let new = basis.key(new);
        (basis.key(old) != new).then_some(new)
    }

    /// The key that schema version 1 has for the same.
    pub fn elder_key(&self, job: &Job) -> Option<String> {
        Basis::of(&self.key).map(|(basis, _)| basis.digest(job))
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
    fn the_key_is_the_values_themselves_or_a_digest_where_they_are_long() {
        let key = |unique: Unique, args: Value| unique.basis().key(&built(NewJob::new("app.Mailer").args(args)));
        assert_eq!(key(Unique::new(), json!({ "n": 2, "a": "é" })), r#"iaqw:{"a":"é","n":2}"default""app.Mailer""#);
        assert_eq!(
            key(Unique::new().by_schedule().keys(["n"]), json!({ "n": 2, "a": "é" })),
            r#"saqw["n"]:{"n":2}"default""app.Mailer""#
        );
        let long =
            |last: char| key(Unique::new().by([Field::Args]), json!({ "text": format!("{}{last}", "x".repeat(200)) }));
        assert_eq!(long('a').len(), "ia:".len() + 32);
        assert_ne!(long('a'), long('b'));
        let words = |queue: &str, worker: &str| Unique::new().basis().key(&built(NewJob::new(worker).queue(queue)));
        assert_ne!(words("a\"\"b", "c"), words("a", "b\"\"c"), "one word does not end as two");
    }

    #[test]
    fn an_elder_kiln_s_key_is_known() {
        let new = NewJob::new("app.Mailer").queue("todo").args(json!({ "n": 12 })).unique(Unique::new());
        let ready = new.build(Timestamp::UNIX_EPOCH, |_| {}).unwrap();
        // As in the fixture of version 1.
        let elder = ready.check.unwrap().elder_key(&ready.job);
        assert_eq!(elder.as_deref(), Some("90ec241a2594812aa1acf97abd8f9b55"));
        assert!(elder.unwrap().starts_with(|first| first < BY_INSERT));
    }

    #[test]
    fn a_key_that_is_shown_tells_nothing_of_the_arguments() {
        let key = |args: Value| Unique::new().keys(["a:[\""]).basis().key(&built(NewJob::new("w").args(args)));
        let secret = key(json!({ "a:[\"": "s3cret" }));
        assert!(secret.contains("s3cret") && !shown(&secret).contains("s3cret"), "{}", shown(&secret));
        assert!(shown(&secret).starts_with(r#"iaqw["a:[\""]:"#));
        assert_ne!(shown(&secret), shown(&key(json!({ "a:[\"": "other" }))));
        for key in ["", "abc", "90ec241a2594812aa1acf97abd8f9b55", "ia:90ec241a2594812aa1acf97abd8f9b55"] {
            assert_eq!(shown(key), key);
        }
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
            assert_eq!(Basis::of(&basis.key(&job)).map(|(found, _)| found), Some(basis));
        }
        for foreign in ["", "abc", "x:1", "a:1", "ix:1", "ia[:1", "ia[\"k\"]1"] {
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
