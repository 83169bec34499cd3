//! New jobs: refused with a field, or stored as they were given, found by every filter, and told from doubles.

use std::sync::LazyLock;

use kiln::{Field, Filter, Kiln, NewJob, Unique};
use serde_json::{Map, Value};

static KILN: LazyLock<Kiln> = LazyLock::new(|| Kiln::in_memory().unwrap());

/// Lines: the worker, the queue, a tag, the keys between commas; what follows is the arguments.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(5, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (worker, queue, tag, keys, args) = (line(), line(), line(), line(), line());
    let args: Value = serde_json::from_str(args).unwrap_or_default();
    let keys: Vec<&str> = keys.split(',').filter(|key| !key.is_empty()).collect();
    let job = |args: &Value| {
        let unique = Unique::new().by([Field::Worker, Field::Args]).keys(keys.clone());
        NewJob::new(worker).queue(queue).tags([tag]).args(args).unique(unique)
    };
    let stored = match KILN.enqueue(job(&args)) {
        Ok(stored) => stored,
        Err(error) => {
            assert!(error.is_invalid() && error.field().is_some(), "{error}");
            return;
        }
    };
    let read = KILN.get(stored.id).unwrap().unwrap();
    assert!(!stored.conflict, "nothing else is there");
    let given = if args.is_null() { Value::Object(Map::new()) } else { args.clone() };
    assert_eq!(read.args, given, "arguments come back as they were given");
    assert_eq!((read.worker.as_str(), read.queue.as_str()), (worker, queue));
    let _ = (format!("{read}"), format!("{read:?}"));

    let same = KILN.enqueue(job(&turned_around(&args))).unwrap();
    assert_eq!((same.conflict, same.id), (true, stored.id), "the order of entries makes no other job");

    let mut filters = vec![Filter::new().worker(worker), Filter::new().queue(queue), Filter::new().state(read.state)];
    filters.extend(read.tags.iter().map(|tag| Filter::new().tag(tag)));
    for filter in filters {
        let found = KILN.list(filter.clone()).unwrap();
        assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [stored.id], "{filter:?}");
    }
    let mut line = Vec::new();
    assert_eq!(KILN.export_with_secrets(&mut line, Filter::new()).unwrap(), 1);
    let line: Value = serde_json::from_slice(&line).expect("a line of JSON");
    assert_eq!(line["args"], given);
    assert_eq!(KILN.delete(Filter::new()).unwrap(), 1);
}

/// The same with the entries of all objects in another order, as far as a map tells.
fn turned_around(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().rev().map(|(key, value)| (key.clone(), turned_around(value))).collect(),
        Value::Array(list) => list.iter().map(turned_around).collect(),
        other => other.clone(),
    }
}
