//! What holds the structure: the floors, the order of files in each folder, the sizes, the words, and the reading tour.
//!
//! Each check is a function over sources that is proven on small made-up ones beside it; here they look at the real ones.
//! Dead SQL needs no check: a statement is a constant beside its function, and the compiler warns of one that is unused.

mod functions;
mod measures;
mod names;
mod rooms;
mod source;
mod tour;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use names::Names;
use source::{Source, read_folder, without_tests};

/// The rooms from the ground up. A room uses its own floor and those below; on one floor there is no circle.
const FLOORS: [&[&str]; 9] = [
    &["error", "clock", "dice", "guard", "setters"],
    &["job", "file"],
    &["event", "report", "store", "presence"],
    &["life"],
    &["kiln"],
    &["worker"],
    &["runtime"],
    &["testing"],
    &["guide"],
];

/// On one floor, and strangers all the same: the file holds no job words, and the job's rules no SQL.
const STRANGERS: [(&str, &str); 2] = [("file", "job"), ("job", "file")];

/// The files of each folder, in the order in which they build on each other: a file uses only those before it. `mod` is
/// the last, unless it is listed. A failure says which order would hold.
const FOLDERS: [(&str, &[&str]); 14] = [
    (
        "job",
        &[
            "backoff", "cron", "errors", "progress", "queue", "recorded", "redact", "json", "outcome", "state", "row",
            "filter", "notice", "unique", "ack", "crash", "update", "new", "entry", "new_cron",
        ],
    ),
    ("job/cron", &["fields", "parse", "expression", "schedule"]),
    ("job/recorded", &["term", "encode", "reader", "decode"]),
    ("job/unique", &["key", "rule"]),
    (
        "file",
        &[
            "busy",
            "error",
            "connection",
            "filesystem",
            "care",
            "copy",
            "holder",
            "options",
            "schema",
            "commit",
            "open",
            "reader",
        ],
    ),
    ("event", &["event", "line", "telemetry", "subscription", "observers"]),
    ("report", &["health", "diagnosis"]),
    (
        "store",
        &[
            "value", "ack", "columns", "claim", "crons", "examine", "insert", "query", "queues", "runtimes", "sweep",
            "operate", "rescue",
        ],
    ),
    ("presence", &["bell", "peers", "sidecar", "remains", "live", "suspects", "window"]),
    (
        "life",
        &[
            "alarm", "outbox", "pace", "runtimes", "tx", "ack", "claim", "enqueue", "crons", "inbox", "mailbox",
            "operate", "rescue", "sweep", "waiter", "group", "turn", "life", "examine",
        ],
    ),
    ("kiln", &["export", "handle", "builder", "care", "cron", "operate", "queues", "transaction", "upkeep"]),
    ("worker", &["flag", "notes", "running", "worker", "registry"]),
    (
        "runtime",
        &["attempts", "due", "cron", "settings", "shared", "execute", "scheduler", "lifecycle", "builder", "control"],
    ),
    ("testing", &["mod", "assertions", "drain", "scratch"]),
];

/// What the rules of a job may not name: they get the time and the chance as arguments.
const NOT_IN_JOB: [&str; 8] = ["rusqlite", "r2d2", "thread", "Instant", "SystemTime", "fastrand", "Mutex", "RwLock"];

const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 60;

/// Lines of code in `src` without tests, the guide and `testing/`. Before the redesign there were 12,762; the aim is 10,762.
const MOST_CODE: usize = 12_042;

const TOUR: tour::Limits = tour::Limits { least_stops: 10, most_files: 12, most_lines: 1100 };

/// Words for which there is a plain one, in names and comments.
const METAPHORS: [&str; 8] = ["house", "crew", "lane", "ledger", "solitude", "desk", "ruling", "shot"];

/// Words that are plain in a sentence ("observers are told") and riddles as names.
const NO_NAMES: [&str; 1] = ["told"];

/// What stands nowhere in `src`, and what others call so.
const NOWHERE: [&str; 7] = ["status", "TODO", "FIXME", "todo!", "unimplemented!", "dbg!", "#[ignore"];
const THEIRS: [&str; 3] = ["ExitStatus", "StatementStatus", ".status("];

/// The tree that cargo runs this in; set by hand, another one.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

fn files() -> Vec<(String, String)> {
    let files = read_folder(&root().join("src"), "rs");
    assert!(files.len() > 40, "the sources are where they are looked for");
    files
}

fn library() -> &'static [Source] {
    static LIBRARY: OnceLock<Vec<Source>> = OnceLock::new();
    LIBRARY.get_or_init(|| without_tests(&files()))
}

fn arrows() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    let names = NAMES.get_or_init(|| names::read(library()));
    assert!(names.arrows.len() > 300, "the uses of names are seen: {}", names.arrows.len());
    names
}

#[track_caller]
fn nothing(what: &str, found: &[String]) {
    const SHOWN: usize = 60;
    let shown = found.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(
        "
  ",
    );
    let more = if found.len() > SHOWN {
        format!(
            "
  and {} more",
            found.len() - SHOWN
        )
    } else {
        String::new()
    };
    assert!(
        found.is_empty(),
        "{} {what}:
  {shown}{more}
",
        found.len()
    );
}

#[test]
fn every_path_is_followed_to_the_file_that_defines_its_name() {
    nothing("paths that the reader of sources cannot follow", &arrows().unknown);
}

#[test]
fn a_room_uses_only_its_floor_and_those_below() {
    let names = arrows();
    let mut found = rooms::upward(names, &FLOORS);
    found.extend(rooms::forbidden(names, &STRANGERS));
    nothing("against the floors", &found);
}

#[test]
fn a_file_uses_only_files_before_it_in_its_folder() {
    let names = arrows();
    let mut found = rooms::unused_lists(names, FOLDERS.iter().map(|(folder, _)| *folder));
    for folder in rooms::folders(&names.files) {
        if names.files.iter().all(|file| rooms::entry(file, &folder).is_none_or(|entry| entry == "mod")) {
            continue;
        }
        match FOLDERS.iter().find(|(listed, _)| **listed == folder) {
            Some((_, list)) => found.extend(rooms::against_order(names, &folder, list)),
            None => found.push(format!("{folder}/ has no list; {}", rooms::suggested(names, &folder))),
        }
    }
    nothing("against the order of the files", &found);
}

#[test]
fn no_rooms_and_no_files_stand_in_a_circle() {
    let names = arrows();
    let folders = rooms::folders(&names.files).into_iter().chain([String::new()]);
    nothing("circles", &folders.flat_map(|folder| rooms::circles(names, &folder)).collect::<Vec<_>>());
}

#[test]
fn the_benchmark_has_no_circle() {
    let mut files = read_folder(&root().join("benches"), "rs");
    files.retain(|(path, _)| !path.starts_with("peers/"));
    assert!(files.len() > 10, "the benchmark is where it is looked for");
    let sources: Vec<Source> =
        files.iter().map(|(path, text)| Source::new(if path == "kiln.rs" { "lib.rs" } else { path }, text)).collect();
    let names = names::read(&sources);
    assert!(names.arrows.len() > 20, "the uses of names are seen: {}", names.arrows.len());
    nothing("paths that the reader of sources cannot follow", &names.unknown);
    nothing("circles", &rooms::circles(&names, ""));
}

#[test]
fn the_root_is_a_map() {
    assert!(arrows().faces.contains("lib.rs"), "lib.rs holds nothing but `mod` and `use` lines");
}

#[test]
fn the_rules_of_a_job_know_no_sql_no_thread_no_clock_and_no_dice() {
    let library = library();
    let job = library.iter().filter(|source| source.path.starts_with("job/")).collect::<Vec<_>>();
    assert!(job.len() > 10, "the rules are where they are looked for");
    let found: Vec<String> = job.iter().flat_map(|source| measures::names_in(source, &NOT_IN_JOB)).collect();
    nothing("names that job/ may not know", &found);
}

#[test]
fn a_file_is_read_in_a_sitting() {
    nothing("files that are too long", &measures::long_files(&files(), LONGEST_FILE));
}

#[test]
fn a_function_is_seen_at_once() {
    let mut found = Vec::new();
    for folder in ["src", "tests", "examples"] {
        let sources: Vec<Source> = read_folder(&root().join(folder), "rs")
            .iter()
            .map(|(path, text)| Source::new(&format!("{folder}/{path}"), text))
            .collect();
        let functions: usize = sources.iter().map(|source| functions::functions(source).len()).sum();
        assert!(functions >= sources.len(), "the functions of {folder} are seen: {functions}");
        found.extend(functions::too_long(&sources, LONGEST_FUNCTION));
    }
    nothing("functions that are too long", &found);
}

#[test]
fn nothing_ends_a_thread_but_a_bug() {
    // What `testing/` offers to the tests of programs ends them with a panic.
    let core = library().iter().filter(|source| !source.path.starts_with("testing/"));
    let found: Vec<String> = core.flat_map(measures::unproven).collect();
    nothing("calls of unwrap, or of expect without BUG", &found);
}

#[test]
fn nothing_is_unsafe() {
    let library = library();
    let lib = library.iter().find(|source| source.path == "lib.rs").unwrap();
    assert!(lib.bare.contains("#![forbid(unsafe_code)]"));
    let found: Vec<String> = library.iter().flat_map(|source| measures::names_in(source, &["unsafe"])).collect();
    nothing("unsafe", &found);
}

#[test]
fn the_core_stays_small() {
    let library = library();
    let core =
        library.iter().filter(|source| !source.path.starts_with("guide/") && !source.path.starts_with("testing/"));
    let mut rooms: BTreeMap<&str, usize> = BTreeMap::new();
    for source in core {
        *rooms.entry(rooms::entry(&source.path, "").unwrap()).or_default() += measures::code_lines(source);
    }
    let lines: usize = rooms.values().sum();
    println!("the core has {lines} lines of code: {rooms:?}");
    assert!(lines <= MOST_CODE, "the core has {lines} lines of code, {MOST_CODE} at most");
    assert!(lines > MOST_CODE / 2, "the core is where it is looked for: {lines} lines of code");
}

#[test]
fn the_words_are_ours() {
    let (sources, pages) = (files(), read_folder(&root().join("src"), "md"));
    assert!(pages.len() > 10, "the pages of the guide are where they are looked for");
    let texts = sources.iter().chain(&pages);
    let mut found: Vec<String> =
        texts.flat_map(|(path, text)| measures::texts_in(path, text, &NOWHERE, &THEIRS)).collect();
    for (path, text) in &sources {
        found.extend(measures::words_in(&Source::new(path, text), &METAPHORS));
    }
    found.extend(library().iter().flat_map(|source| measures::names_with(source, &NO_NAMES)));
    nothing("words that are not ours", &found);
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_reading_tour_leads_through_a_jobs_life() {
    let stops = tour::stops(&page("ARCHITECTURE.md")).unwrap();
    println!("{}", tour::size(&stops, library()));
    nothing("errors in the reading tour of ARCHITECTURE.md", &tour::wrong(&stops, library(), &TOUR));
}

#[test]
fn the_architecture_names_each_room() {
    let page = page("ARCHITECTURE.md");
    let missing = FLOORS.iter().flat_map(|rooms| rooms.iter()).filter(|room| !page.contains(&format!("`{room}")));
    nothing("rooms that ARCHITECTURE.md does not name", &missing.map(|room| (*room).to_owned()).collect::<Vec<_>>());
}

#[test]
fn the_glossary_is_short() {
    let words = tour::rows(&page("ARCHITECTURE.md"), "<!-- glossary");
    assert!((10..=30).contains(&words), "the glossary has {words} words, 30 at most");
}
