//! Where a file lies, who else may get at it, and a file that is only looked at.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Folder, Other, get, ms, other_process_for, reaches, say, stranger};
use kiln::{Changes, Error, Event, Filter, Kiln, NewCron, NewJob, Problem, Queues, Running, State};
use parking_lot::Mutex;
use serde_json::{Value, json};

type Told = Arc<Mutex<Vec<String>>>;

/// Opens the file, and gives back what was told meanwhile.
fn warnings(path: &Path) -> Vec<String> {
    let told = Told::default();
    let tell = Arc::clone(&told);
    let observe = move |event: &Event| {
        if let Event::Warned { warning, .. } = event {
            tell.lock().push(warning.clone());
        }
    };
    let kiln = Kiln::builder(path).observe(observe).open().unwrap();
    let found: Vec<String> =
        kiln.diagnose().unwrap().of(Problem::Exposed).map(|f| format!("{}; {}", f.text, f.advice)).collect();
    assert_eq!(*told.lock(), found, "a diagnosis says the same");
    found
}

#[cfg(unix)]
fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[test]
fn others_who_may_get_at_the_file_are_warned_of_as_it_is_opened() {
    let folder = Folder::new();
    let root = folder.db().parent().unwrap().to_owned();
    assert_eq!(warnings(&folder.db()), [""; 0], "a file of one's own in a folder of one's own");
    for (file, of_folder, expected) in [
        (0o600, 0o755, vec![]),
        (0o640, 0o700, vec!["others may read the file"]),
        (0o606, 0o700, vec!["others may read or write the file"]),
        (0o600, 0o777, vec!["others may create files in the folder"]),
        (0o600, 0o1777, vec!["others may create files in the folder"]),
        (0o644, 0o770, vec!["others may read the file", "others may create files in the folder"]),
    ] {
        mode(&folder.db(), file);
        mode(&root, of_folder);
        let found = warnings(&folder.db());
        assert_eq!(found.len(), expected.len(), "{file:o} in {of_folder:o}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected) && found.contains("mode"), "{found}");
        }
    }
    mode(&root, 0o700);
}

#[test]
fn a_warning_is_told_to_those_who_observe() {
    let event_shown = |event: &Event| event.to_string();
    let told = Told::default();
    let tell = Arc::clone(&told);
    let folder = Folder::new();
    drop(folder.open());
    #[cfg(unix)]
    mode(&folder.db(), 0o644);
    let kiln = Kiln::builder(folder.db()).observe(move |event| tell.lock().push(event_shown(event))).open().unwrap();
    kiln.enqueue(NewJob::new("w")).unwrap();
    let told = told.lock();
    let warned: Vec<&String> = told.iter().filter(|line| line.starts_with("warned warning=")).collect();
    assert_eq!(warned.len(), usize::from(cfg!(unix)), "once: {told:?}");
}

// A file system where SQLite cannot be relied on. Tables of mounts are the matter of unit tests; this is a real one, where
// the machine has what it takes to make one.

/// A folder seen through FUSE, until it is dropped.
#[cfg(target_os = "linux")]
struct Mounted(Folder);

#[cfg(target_os = "linux")]
impl Mounted {
    fn new() -> Option<Self> {
        let folder = Folder::new();
        ["real", "seen"].iter().for_each(|name| fs::create_dir(folder.path(name)).unwrap());
        let mut bindfs = std::process::Command::new("bindfs");
        let made = bindfs.arg(folder.path("real")).arg(folder.path("seen")).output();
        made.is_ok_and(|made| made.status.success()).then(|| Self(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mounted {
    fn drop(&mut self) {
        for program in ["fusermount3", "fusermount"] {
            let _ = std::process::Command::new(program).arg("-uz").arg(self.0.path("seen")).output();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_on_a_fuse_file_system_is_refused_unless_it_is_allowed() {
    let Some(mounted) = Mounted::new() else {
        println!("no FUSE file system could be mounted here: there is nothing to see");
        return;
    };
    let path = mounted.0.path("seen").join("jobs.db");
    let refused = || {
        let error = Kiln::open(&path).unwrap_err();
        assert!(error.is_unusable() && error.to_string().contains("FUSE file system (fuse"), "{error}");
        assert!(error.to_string().contains("KilnBuilder::allow_network_file_system"), "{error}");
    };
    refused();
    assert!(!path.exists(), "before anything is made");
    let kiln = Kiln::builder(&path).allow_network_file_system().open().unwrap();
    kiln.enqueue(NewJob::new("w")).unwrap();
    assert!(kiln.diagnose().unwrap().file_system.unwrap().starts_with("fuse"));
    drop(kiln);
    refused();
    assert!(Kiln::builder(&path).read_only().open().unwrap_err().is_unusable());
    std::os::unix::fs::symlink(&path, mounted.0.path("link.db")).unwrap();
    assert!(Kiln::open(mounted.0.path("link.db")).unwrap_err().is_unusable(), "by whatever name");
    // The same file where it really is.
    assert_eq!(Kiln::open(mounted.0.path("real").join("jobs.db")).unwrap().count(Filter::new()).unwrap().total(), 1);
}

// A file that is only looked at.

fn look(path: &Path) -> Kiln {
    Kiln::builder(path).read_only().open().unwrap()
}

fn lock_up(folder: &Folder, locked: bool) {
    let set = |path: &Path| {
        let mut permissions = fs::metadata(path).unwrap().permissions();
        permissions.set_readonly(locked);
        fs::set_permissions(path, permissions).unwrap();
    };
    set(&folder.db());
    #[cfg(unix)]
    mode(folder.db().parent().unwrap(), if locked { 0o500 } else { 0o700 });
}

fn filled() -> Folder {
    let folder = Folder::new();
    let kiln = folder.open();
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<Value>| kiln::Outcome::record(&7)).start().unwrap();
    reaches(&kiln, kiln.enqueue(NewJob::new("w")).unwrap().id, State::Completed);
    runtime.stop();
    kiln.enqueue(NewJob::new("other").queue("q").tags(["t"]).args(json!({ "n": 2 }))).unwrap();
    kiln.cron(NewCron::new("@daily", NewJob::new("w")).name("daily")).unwrap();
    drop((runtime, kiln));
    folder.closed();
    folder
}

/// Every verb that reads.
fn reads_everything(kiln: &Kiln) {
    assert_eq!(get(kiln, 2).args, json!({ "n": 2 }));
    assert_eq!(kiln.get(99).unwrap(), None);
    assert_eq!(kiln.list(Filter::new().tag("t")).unwrap().len(), 1);
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 2);
    assert_eq!(kiln.wait(1, Duration::MAX).unwrap().unwrap().state, State::Completed);
    assert_eq!(kiln.wait(2, ms(1)).unwrap(), None);
    assert_eq!(kiln.wait_result::<u32>(1, Duration::MAX).unwrap(), Some(7));
    assert_eq!(kiln.progress(1).unwrap(), None);
    assert_eq!(kiln.crons().unwrap()[0].name, "daily");
    assert!(kiln.check(Queues::All).unwrap().is_empty());
    assert_eq!(kiln.health().unwrap().unknown_workers["other"], 1);
    assert_eq!(kiln.diagnose_fully().unwrap().of(Problem::Damaged).count(), 0);
    assert_eq!(kiln.export(Vec::new(), Filter::new()).unwrap(), 2);
}

/// Every verb that writes.
fn writes_nothing(kiln: &Kiln, db: &Path) {
    let runtime = kiln.runtime().worker_fn("w", |_: &Running<Value>| ());
    let cron = || NewCron::new("@daily", NewJob::new("w"));
    let mut app = rusqlite::Connection::open_in_memory().unwrap();
    let refused: Vec<(&str, Error)> = vec![
        ("enqueue", kiln.enqueue(NewJob::new("w")).unwrap_err()),
        ("enqueue_many", kiln.enqueue_many([NewJob::new("w")]).unwrap_err()),
        ("enqueue_in", kiln.enqueue_in(&app.transaction().unwrap(), NewJob::new("w")).unwrap_err()),
        ("cancel", kiln.cancel(2).unwrap_err()),
        ("retry", kiln.retry(1).unwrap_err()),
        ("delete", kiln.delete(Filter::new()).unwrap_err()),
        ("update", kiln.update(2, Changes::new().priority(1)).unwrap_err()),
        ("update by a closure", kiln.update(99, |_: &kiln::Job| Changes::new()).unwrap_err()),
        ("pause", kiln.pause("q").unwrap_err()),
        ("resume", kiln.resume("q").unwrap_err()),
        ("scale", kiln.scale("q", 1).unwrap_err()),
        ("cron", kiln.cron(cron()).unwrap_err()),
        ("pause_cron", kiln.pause_cron("daily").unwrap_err()),
        ("resume_cron", kiln.resume_cron("daily").unwrap_err()),
        ("delete_cron", kiln.delete_cron("daily").unwrap_err()),
        ("compact", kiln.compact().unwrap_err()),
        ("start", runtime.start().map(drop).unwrap_err()),
        ("start with an entry", kiln.runtime().cron(cron()).start().map(drop).unwrap_err()),
    ];
    for (verb, error) in refused {
        assert!(error.is_unusable(), "{verb}: {error}");
        assert!(error.to_string().contains("KilnBuilder::read_only"), "{verb}: {error}");
    }
    assert!(kiln.enqueue(NewJob::new("")).unwrap_err().is_invalid() && db.exists());
}

#[test]
fn a_file_that_is_only_looked_at_is_read_and_nothing_is_left_beside_it() {
    let folder = filled();
    let content = fs::read(folder.db()).unwrap();
    let kiln = look(&folder.db());
    reads_everything(&kiln);
    writes_nothing(&kiln, &folder.db());
    assert_eq!(folder.names(), ["jobs.db"], "also while it is open");
    drop(kiln);
    assert_eq!(folder.names(), ["jobs.db"]);
    assert!(fs::read(folder.db()).unwrap() == content);
}

#[test]
fn a_file_that_cannot_be_written_is_refused_with_the_way_out_and_can_be_looked_at() {
    let folder = filled();
    lock_up(&folder, true);
    let error = Kiln::open(folder.db()).unwrap_err();
    assert!(error.is_unusable() && error.to_string().contains("KilnBuilder::read_only"), "{error}");
    reads_everything(&look(&folder.db()));
    assert_eq!(folder.names(), ["jobs.db"]);
    lock_up(&folder, false);
}

#[test]
fn what_others_write_meanwhile_is_seen() {
    let folder = filled();
    let kiln = look(&folder.db());
    let writer = folder.open();
    let id = writer.enqueue(NewJob::new("new")).unwrap().id;
    assert_eq!(get(&kiln, id).worker, "new", "not in the file yet, but in the log beside it");
    let runtime = writer.runtime().worker_fn("new", |_: &Running<Value>| ()).start().unwrap();
    assert_eq!(kiln.wait(id, common::DEADLINE).unwrap().unwrap().state, State::Completed);
    assert_eq!(kiln.health().unwrap().runtimes[0].id, runtime.id().unwrap());
    assert_eq!(kiln.check(Queues::All).unwrap().len(), 1);
    runtime.stop();
    drop((runtime, writer));
    folder.closed();
    assert_eq!(kiln.count(Filter::new()).unwrap().total(), 3);
    assert_eq!(folder.names(), ["jobs.db"], "the last one who wrote has cleaned up, and nobody came after");
}

#[test]
fn readers_that_leave_no_trace_see_whole_states_while_another_process_opens_and_closes_the_file() {
    const NAME: &str = "readers_that_leave_no_trace_see_whole_states_while_another_process_opens_and_closes_the_file";
    // Two jobs in one transaction: whoever sees one sees the other.
    let pair = |kiln: &Kiln| kiln.enqueue_many([NewJob::new("a"), NewJob::new("b")]).unwrap();
    if let Some(folder) = other_process_for() {
        for _ in 0..60 {
            let kiln = Kiln::open(folder.join("jobs.db")).unwrap();
            pair(&kiln);
            drop(kiln);
        }
        say("done");
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    let folder = Folder::new();
    pair(&folder.open());
    folder.closed();
    let kiln = look(&folder.db());
    let mut other = Other::start(NAME, &folder);
    let (mut seen, mut looks) = (0, 0);
    while seen < 122 {
        let counts = kiln.count(Filter::new()).unwrap().total();
        assert!(counts >= seen && counts.is_multiple_of(2), "{seen}, then {counts}");
        (seen, looks) = (counts, looks + 1);
    }
    assert!(looks > 1);
    assert_eq!(other.hear(), "done");
    assert_eq!(kiln.diagnose_fully().unwrap().of(Problem::Damaged).count(), 0);
}

#[test]
fn what_cannot_be_looked_at_says_so() {
    let folder = Folder::new();
    let open = |path: &Path| Kiln::builder(path).read_only().open().unwrap_err();
    let missing = open(&folder.db());
    assert!(missing.is_unusable() && missing.to_string().contains("not there"), "{missing}");
    assert_eq!(folder.names(), [""; 0]);
    stranger(&folder.db()).execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    let foreign = open(&folder.db());
    assert!(foreign.is_unusable() && foreign.to_string().contains("no jobs"), "{foreign}");
    fs::write(folder.path("text"), "Dear diary, this is no database. ".repeat(100)).unwrap();
    assert!(open(&folder.path("text")).to_string().contains("not a database"));
    assert!(Kiln::memory_builder().read_only().open().unwrap_err().is_invalid());
}

#[test]
fn a_strange_name_can_be_looked_at() {
    for name in ["a b.db", "per%20cent#.db", "q?mode=memory&x.db", "ü.db", "it's;.db"] {
        if cfg!(windows) && name.contains('?') {
            continue;
        }
        let folder = Folder::new();
        let path = folder.path(name);
        Kiln::open(&path).unwrap().enqueue(NewJob::new("w")).unwrap();
        folder.closed();
        assert_eq!(look(&path).count(Filter::new()).unwrap().total(), 1, "{name}");
        assert_eq!(folder.names(), [name]);
    }
}

#[test]
fn a_file_in_another_journal_mode_can_be_looked_at() {
    let folder = Folder::new();
    let conn = stranger(&folder.db());
    conn.execute_batch("PRAGMA journal_mode = DELETE; CREATE TABLE notes (text TEXT)").unwrap();
    let kiln = Kiln::builder(folder.db()).keep_journal_mode().open().unwrap();
    let reader = look(&folder.db());
    for n in 1..=20 {
        kiln.enqueue(NewJob::new("w")).unwrap();
        assert_eq!(reader.count(Filter::new()).unwrap().total(), n);
    }
    // Somebody else is in the midst of a change.
    conn.execute_batch("BEGIN IMMEDIATE; UPDATE kiln_jobs SET priority = 5").unwrap();
    assert!(reader.list(Filter::new()).unwrap().iter().all(|job| job.priority == 0));
    conn.execute_batch("COMMIT").unwrap();
    assert!(reader.list(Filter::new()).unwrap().iter().all(|job| job.priority == 5));
}
