//! Style is a test too: who may know whom, how long a file may be, which words are not ours.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, from the ground up: a room knows itself and the rooms below it.
const FLOORS: [&[&str]; 9] = [
    &["error", "health", "durability"],
    &["job", "diagnosis"],
    &["engine", "clock", "dice", "bell", "event", "observing", "queues"],
    &["sqlite"],
    &["handle"],
    &["worker"],
    &["runtime", "transaction"],
    &["testing"],
    &["guide"],
];

/// Names that the crate's root gives to things of a room.
const HOMES: [(&str, &[&str]); 10] = [
    ("error", &["Error", "Result"]),
    ("health", &["Health", "Pulse", "RuntimeHealth"]),
    ("durability", &["Durability"]),
    ("diagnosis", &["Compacted", "Diagnosis", "Finding", "Holder", "Problem"]),
    ("event", &["Event", "Subject"]),
    ("queues", &["QueueCheck", "Queues"]),
    ("handle", &["Kiln", "KilnBuilder"]),
    ("runtime", &["Report", "Runtime", "RuntimeBuilder"]),
    ("worker", &["Worker", "Running", "Cancelled", "IntoOutcome"]),
    ("testing", &["Hand"]),
];

const LONGEST_FILE: usize = 430;

/// The sources, and the pages of the guide.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "md") {
            found.push(path);
        }
    }
}

fn library() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 30, "the sources are where they are looked for");
    found.sort();
    let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string().replace('\\', "/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn home(name: &str) -> Option<&'static str> {
    HOMES.iter().find(|(_, names)| names.contains(&name)).map(|(room, _)| *room)
}

/// The code without its comments and without what only tests see.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every `crate::name` of a file, those within `use crate::{...}` included.
fn known(text: &str) -> Vec<String> {
    let code = code(text);
    let mut names = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap(),
            None => rest,
        };
        let many = rest.starts_with('{');
        for item in list.split(',').take(if many { usize::MAX } else { 1 }) {
            let name: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            names.push(name);
        }
    }
    names
}

#[test]
fn a_room_knows_only_the_rooms_below_it() {
    for (file, text) in library() {
        let room = file.split(['/', '.']).next().unwrap();
        if room == "lib" {
            continue;
        }
        let here = floor(room).unwrap_or_else(|| panic!("{file}: no floor is given to this room"));
        for name in known(&text) {
            let there = home(&name).unwrap_or(&name);
            if let Some(there) = floor(there) {
                assert!(there <= here, "{file} is on floor {here} and knows {name} on floor {there}");
            }
        }
    }
}

#[test]
fn only_the_sqlite_room_and_those_who_hand_it_a_file_or_a_transaction_say_sqlite() {
    for (file, text) in library() {
        if !file.starts_with("sqlite/")
            && !["handle.rs", "handle/builder.rs", "lib.rs", "transaction.rs"].contains(&file.as_str())
            && !file.ends_with(".md")
        {
            let code = code(&text).to_lowercase();
            assert!(!code.contains("sqlite"), "{file} says sqlite");
        }
    }
}

#[test]
fn a_file_is_read_in_a_sitting() {
    for (file, text) in library() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE || file.ends_with("tests.rs"), "{file} has {lines} lines");
    }
}

#[test]
fn the_words_are_ours() {
    for (file, text) in library() {
        for word in ["status", "TODO", "FIXME", "todo!", "unimplemented!", "dbg!", "unsafe {", "#[ignore"] {
            // What others call so.
            let theirs = |line: &str| line.contains("ExitStatus") || line.contains("StatementStatus");
            let found = text.lines().find(|line| line.contains(word) && !theirs(line));
            let found =
                found.filter(|line| !(word == "status" && file == "worker/running.rs" && line.contains("status")));
            assert!(found.is_none(), "{file} says {word:?}: {}", found.unwrap_or_default().trim());
        }
    }
}

#[test]
fn every_statement_is_used() {
    let library = library();
    let (_, statements) = library.iter().find(|(file, _)| file == "sqlite/sql.rs").unwrap();
    let names = statements.lines().filter_map(|line| line.strip_prefix("pub(super) const ")?.split(':').next());
    for name in names {
        let user =
            library.iter().any(|(file, text)| file != "sqlite/tests.rs" && text.contains(&format!("sql::{name}")));
        assert!(user, "sql::{name} is dead");
    }
}
