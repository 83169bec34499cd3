//! The example `checksum`, run as its users run it: a process of its own, on a real tree, killed as it comes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use fastrand::Rng;
use kiln::{Filter, Job, Kiln, State};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What takes longer than this will not happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sums of files, by path.
type Sums = BTreeMap<PathBuf, String>;

#[test]
fn a_tree_of_odd_names_ends_in_a_manifest_that_sha256sum_accepts() {
    let place = Place::new();
    place.write_odd_names();
    let run = place.run_in(&place.tree(), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let ours = ["SHA256SUMS", "SHA256SUMS.db", "SHA256SUMS.db-wal", "SHA256SUMS.db-shm"];
    let sums = with_prefix(".", sums_of(&place.tree(), &ours));
    assert_eq!(manifest(&place.tree()), sums);
    assert!(run.out.contains(&format!("files:    {} in SHA256SUMS\n", sums.len())), "{run:?}");
    assert!(run.out.contains(&format!("read now: {} files", sums.len())), "{run:?}");
    assert!(run.out.contains("failures: 0\n"), "{run:?}");
    assert_eq!(run.err, "", "no bar where there is no terminal");
    accepted_by_sha256sum(&place.tree());
}

#[test]
fn the_folder_stands_in_the_manifest_as_it_was_given() {
    let place = Place::new();
    place.write("a", b"1");
    place.write("b/c", b"2");
    let whole = place.tree().display().to_string();
    for (given, read) in [("tree", 2), ("tree/", 0), ("./tree", 0), ("tree/../tree", 0), (whole.as_str(), 0)] {
        let run = place.run(&[given, "--threads", "1"]);
        assert_eq!((run.code, run.read_now()), (Some(0), read), "{given}: {run:?}");
        assert_eq!(manifest(&place.path()), with_prefix(given, sums_of(&place.tree(), &[])), "{given}");
        accepted_by_sha256sum(&place.path());
    }
}

#[test]
fn trees_in_one_database_do_not_mix() {
    let place = Place::new();
    place.write("one/same", b"1");
    place.write("two/same", b"2");
    for (tree, read) in [("tree/one", 1), ("tree/two", 1), ("tree/one", 0), ("tree", 2), ("tree/two", 0)] {
        let run = place.run(&[tree, "--db", "memory", "--manifest", "tree/one/sums"]);
        assert_eq!((run.code, run.read_now()), (Some(0), read), "{tree}: {run:?}");
        let sums = sums_of(&place.path().join(tree), &["sums", "one/sums"]);
        assert_eq!(read_manifest(&place.path().join("tree/one/sums")), with_prefix(tree, sums));
    }
}

#[test]
fn the_next_run_reads_what_is_new_or_changed_and_forgets_what_has_vanished() {
    let place = Place::new();
    for name in ["same", "longer", "touched", "spoilt", "vanishes", "old/vanishes"] {
        place.write(name, name.as_bytes());
    }
    assert_eq!(place.run(&["tree"]).read_now(), 6);
    let mut sums = sums_of(&place.tree(), &[]);

    spoil(&place.tree().join("spoilt"));
    place.write("longer", b"longer than before");
    place.write("touched", b"TOUCHED");
    let another_time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(place.tree().join("touched")).unwrap().set_modified(another_time).unwrap();
    place.write("new", b"new");
    fs::remove_file(place.tree().join("vanishes")).unwrap();
    fs::remove_dir_all(place.tree().join("old")).unwrap();
    let run = place.run(&["tree"]);
    assert_eq!((run.code, run.read_now()), (Some(0), 3), "{run:?}");

    let unread = sums.remove(Path::new("spoilt")).unwrap();
    sums = sums_of(&place.tree(), &[]);
    sums.insert("spoilt".into(), unread);
    assert_eq!(manifest(&place.path()), with_prefix("tree", sums));
    assert_eq!(place.jobs().len(), 5);
    assert_eq!(place.run(&["tree"]).read_now(), 0);
}

#[test]
fn a_run_killed_again_and_again_ends_with_every_file_once_and_reads_no_finished_one_twice() {
    const KILLS: u32 = 12;
    let seed = env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut dice = Rng::with_seed(seed);
    let place = Place::new();
    place.write_odd_names();
    place.grow(&mut dice);
    let mut truth = sums_of(&place.tree(), &[]);
    let begun = Instant::now();
    assert_eq!(place.run(&["tree", "--manifest", "other"]).code, Some(0));
    // The shortest there was: one that the machine held up must not make kills rare.
    let mut whole_run = begun.elapsed();
    // What is killed again and again is given longer: the tree has grown since, or the machine is busier.
    let mut patience = 1.2;

    let mut finished = BTreeMap::new();
    let mut kills = 0;
    for start in 1.. {
        assert!(start < 500, "{kills} kills only");
        let begun = Instant::now();
        let mut child = place.start(&["tree", "--threads", "3"]);
        match child.ends_within(whole_run.mul_f64(dice.f64() * patience)) {
            Some(run) => {
                assert_eq!(run.code, Some(0), "{run:?}");
                whole_run = whole_run.min(begun.elapsed());
                assert_eq!(manifest(&place.path()), with_prefix("tree", truth.clone()));
                if kills >= KILLS {
                    break;
                }
                // Too fast for so many kills: there is more to do.
                truth.extend(place.grow(&mut dice));
                patience = 1.2;
            }
            None => {
                child.kill();
                kills += 1;
                patience *= 1.03;
            }
        }
        remember(&place, &mut finished);
    }
    remember(&place, &mut finished);
    assert_eq!(finished.len(), truth.len());
    assert_eq!(place.run(&["tree"]).read_now(), 0);
    assert_eq!(manifest(&place.path()), with_prefix("tree", truth.clone()));

    finished.keys().for_each(|path| spoil(&place.tree().join(path)));
    assert_eq!(sums_of(&place.tree(), &[]), truth, "spoilt twice is mended");
    accepted_by_sha256sum(&place.path());
}

#[test]
fn what_killed_runs_leave_beside_the_database_is_swept_away_by_the_next_one() {
    let place = Place::new();
    place.write("file", b"1");
    let mut dice = Rng::new();
    for _ in 0..40 {
        let mut child = place.start(&["tree"]);
        if child.ends_within(Duration::from_micros(dice.u64(..20_000))).is_none() {
            child.kill();
        }
    }
    assert_eq!(place.run(&["tree"]).code, Some(0));
    assert_eq!(place.left_beside_the_tree("-kiln-"), [""; 0]);
}

#[test]
fn a_run_that_ends_has_closed_its_database() {
    let place = Place::new();
    for n in 0..50 {
        place.write(n.to_string(), b"1");
    }
    for _ in 0..20 {
        fs::remove_file(place.path().join("SHA256SUMS.db")).ok();
        assert_eq!(place.run(&["tree", "--threads", "16"]).code, Some(0));
        assert_eq!(place.left_beside_the_tree("SHA256SUMS.db-"), [""; 0]);
    }
}

/// Checks that what was finished before is as it was, takes down what is finished now, and spoils its file: whoever
/// reads it again has another sum.
fn remember(place: &Place, finished: &mut BTreeMap<PathBuf, Job>) {
    let mut paths = BTreeMap::new();
    for job in place.jobs() {
        let path = path_of(&job);
        assert_eq!(paths.insert(path.clone(), job.id), None, "two jobs for {path:?}");
        match finished.get(&path) {
            Some(before) => assert_eq!(*before, job),
            None if job.state == State::Completed => {
                spoil(&place.tree().join(&path));
                finished.insert(path, job);
            }
            None => {}
        }
    }
    assert!(finished.keys().all(|path| paths.contains_key(path)), "a finished job is gone");
}

#[test]
#[cfg(unix)]
fn a_file_cut_short_by_more_kills_than_it_has_attempts_is_read_in_the_end() {
    let place = Place::new();
    place.write_endless("long");
    for kill in 1.. {
        let mut child = place.start(&["tree"]);
        let pid = child.0.id();
        place.wait_until(&mut child, |kiln| {
            let at_work = kiln.health().unwrap().runtimes.iter().any(|runtime| runtime.pid == pid);
            at_work && kiln.count(Filter::new().state(State::Executing)).unwrap().total() == 1
        });
        if kill <= 5 {
            child.kill();
            continue;
        }
        // One attempt more fails, and is not the last one either.
        wait_until_open(pid, &place.tree().join("long"));
        place.write("long", b"not any more");
        let run = child.end();
        assert_eq!((run.code, run.read_now()), (Some(0), 1), "{run:?}");
        break;
    }
    if cfg!(target_os = "linux") {
        assert_eq!(place.jobs()[0].errors.last().unwrap().error, "it changed while it was read");
    }
    assert_eq!(manifest(&place.path()), with_prefix("tree", sums_of(&place.tree(), &[])));
}

#[test]
#[cfg(unix)]
fn files_that_cannot_be_read_end_discarded_with_the_reason_and_the_others_complete() {
    let place = Place::new();
    // A file that keeps the only thread busy while the others change under the hands of the run.
    place.write_endless("first");
    let mut child = place.start(&["tree", "--threads", "1"]);
    place.wait_until(&mut child, |kiln| kiln.count(Filter::new().state(State::Executing)).unwrap().total() == 1);
    child.kill();
    let victims = ["becomes a folder", "becomes a link", "becomes a pipe", "vanishes"];
    victims.iter().chain(&["stays", "stays too"]).for_each(|name| place.write(name, name.as_bytes()));
    let mut child = place.start(&["tree", "--threads", "1"]);
    place.wait_until(&mut child, |kiln| kiln.count(Filter::new()).unwrap().total() == 7);

    let at = |name: &str| place.tree().join(name);
    victims.iter().for_each(|name| fs::remove_file(at(name)).unwrap());
    fs::create_dir(at("becomes a folder")).unwrap();
    std::os::unix::fs::symlink("stays", at("becomes a link")).unwrap();
    assert!(Command::new("mkfifo").arg(at("becomes a pipe")).status().unwrap().success());
    place.write("first", b"short now");
    let run = child.end();

    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.out.contains("failures: 4\n"), "{run:?}");
    assert_eq!(run.err.lines().count(), 4, "{run:?}");
    for (name, reason) in victims.iter().zip(["no regular file", "no regular file", "no regular file", "No such file"])
    {
        let line = run.err.lines().find(|line| line.contains(&format!("\"tree/{name}\""))).unwrap();
        assert!(line.contains(reason), "{line}");
    }
    assert_eq!(manifest(&place.path()), with_prefix("tree", sums_of(&place.tree(), &[])));
    for job in place.jobs() {
        let is_victim = victims.iter().any(|name| path_of(&job) == Path::new(name));
        let expected =
            if is_victim { (State::Discarded, 3, 3) } else { (State::Completed, job.attempt, job.errors.len()) };
        assert_eq!((job.state, job.attempt, job.errors.len()), expected, "{job:?}");
    }

    fs::remove_file(at("becomes a link")).unwrap();
    place.write("becomes a link", b"a file again");
    let run = place.run(&["tree"]);
    assert_eq!((run.code, run.read_now()), (Some(0), 1), "discarded ones are tried again or gone: {run:?}");
    assert_eq!(manifest(&place.path()), with_prefix("tree", sums_of(&place.tree(), &[])));
    assert_eq!(place.jobs().len(), 4);
}

#[test]
#[cfg(unix)]
fn a_folder_that_cannot_be_read_is_a_failure_and_what_is_known_of_it_stays() {
    let place = Place::new();
    ["open", "locked", "folder/known", "folder/known too"].iter().for_each(|name| place.write(name, b"1"));
    let sums = sums_of(&place.tree(), &[]);
    let run = place.run_restricted(&["tree"]);
    assert_eq!(run.code, Some(0), "{run:?}");

    place.write("locked", b"23");
    place.set_mode("locked", 0o000);
    place.set_mode("folder", 0o000);
    let run = place.run_restricted(&["tree"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    for name in ["locked", "folder"] {
        let line = run.err.lines().find(|line| line.contains(&format!("\"tree/{name}\""))).unwrap();
        assert!(line.contains("Permission denied"), "{line}");
    }
    assert_eq!(run.read_now(), 0);
    let mut without = sums.clone();
    without.remove(Path::new("locked"));
    assert_eq!(manifest(&place.path()), with_prefix("tree", without));

    place.set_mode("locked", 0o644);
    place.set_mode("folder", 0o755);
    let run = place.run_restricted(&["tree"]);
    assert_eq!((run.code, run.read_now()), (Some(0), 1), "{run:?}");
    assert_eq!(manifest(&place.path()), with_prefix("tree", sums_of(&place.tree(), &[])));
}

#[test]
#[cfg(unix)]
fn a_second_run_on_the_same_database_says_so_and_leaves_the_first_one_alone() {
    let place = Place::new();
    place.write_endless("long");
    let mut first = place.start(&["tree", "--threads", "1"]);
    place.wait_until(&mut first, |kiln| kiln.count(Filter::new().state(State::Executing)).unwrap().total() == 1);
    let second = place.run(&["tree"]);
    assert_eq!(second.code, Some(2), "{second:?}");
    let pid = first.0.id();
    assert!(second.err.contains(&format!("another run is at work on this database: process {pid}")), "{second:?}");
    place.write("long", b"short");
    let run = first.end();
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(manifest(&place.path()), with_prefix("tree", sums_of(&place.tree(), &[])));
}

#[test]
fn wrong_arguments_are_named_and_nothing_is_written() {
    let place = Place::new();
    place.write("file", b"no database");
    for (args, told) in [
        (&["--thread", "2"][..], "unknown option \"--thread\""),
        (&["tree", "--threads", "0"], "--threads takes a number from 1 on, got \"0\""),
        (&["tree", "--threads", "many"], "--threads takes a number from 1 on, got \"many\""),
        (&["tree", "--threads"], "--threads needs a value"),
        (&["tree", "--db"], "--db needs a value"),
        (&["tree", "tree"], "one folder at a time, got \"tree\" as well"),
        (&["nowhere"], "cannot use the folder \"nowhere\""),
        (&["tree/file"], "cannot use \"tree/file\": it is no folder"),
        (&["tree", "--manifest", "tree"], "cannot write \"tree\": it names no file"),
        (&["tree", "--manifest", "no/sums"], "cannot write \"no/sums\""),
        (&["tree", "--db", "no/db"], "the folder no does not exist"),
        (&["tree", "--db", "tree/file"], "not a database"),
    ] {
        let run = place.run(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
        assert!(run.err.starts_with("checksum: ") && run.err.contains(told), "{args:?}: {run:?}");
        assert_eq!(run.out, "", "{args:?}");
    }
    let run = place.run(&["--help"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    assert!(run.out.starts_with("usage: checksum [DIR] [--db FILE] [--manifest FILE] [--threads N]\n"), "{run:?}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "only the tree");
}

/// The example's program, built as this test is.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let program = profile.join("examples").join(format!("checksum{}", env::consts::EXE_SUFFIX));
        // `cargo test` has built it; `cargo test --test checksum` has not, and may have left an old one.
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let newest = ["src", "examples", "Cargo.toml"].into_iter().flat_map(|part| {
            walkdir::WalkDir::new(package.join(part)).into_iter().map(|entry| entry.unwrap().metadata().unwrap())
        });
        let newest = newest.map(|found| found.modified().unwrap()).max().unwrap();
        if !fs::metadata(&program).is_ok_and(|found| found.modified().unwrap() > newest) {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "checksum", "--target-dir"]).arg(profile.parent().unwrap());
            cargo.args((profile.file_name().unwrap() == "release").then_some("--release"));
            assert!(cargo.current_dir(package).status().unwrap().success());
        }
        program
    })
}

/// A folder with a tree in it, for one test.
struct Place(TempDir);

/// A run that goes on; it is killed with its test.
struct Running(Child);

/// A run that has ended.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir(place.tree()).unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        // Some systems keep their temporary folders behind a link.
        self.0.path().canonicalize().unwrap()
    }

    fn tree(&self) -> PathBuf {
        self.path().join("tree")
    }

    fn write(&self, name: impl AsRef<Path>, content: &[u8]) {
        let path = self.tree().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A file of zeros that nobody reads to its end, and that takes no room.
    #[cfg(unix)]
    fn write_endless(&self, name: &str) {
        File::create(self.tree().join(name)).unwrap().set_len(1 << 42).unwrap();
    }

    fn write_odd_names(&self) {
        let plain = ["a b", " ", "-", "--db", "%41", "{}", "sub/SHA256SUMS", "sub/SHA256SUMS.db", "SHA256SUMS.dbx"];
        let more = ["SHA256SUMS.db-walls", "x.SHA256SUMS", ".hidden/file", "a/a", "a.b", "ünï", "a/b/c/d/e", "émoji🔥"];
        plain.iter().chain(&more).for_each(|name| self.write(name, name.as_bytes()));
        self.write("empty", b"");
        for (name, length) in [("block", 128 * 1024), ("more", 128 * 1024 + 1), ("large", 2_000_011)] {
            self.write(name, &vec![b'x'; length]);
        }
        #[cfg(unix)]
        self.write_odder_names();
    }

    #[cfg(unix)]
    fn write_odder_names(&self) {
        let odd =
            ["new\nline", "\n", "back\\slash", "\\n", "\\", "re\rturn", "end\r", "tab\t", "\x1b[31m", "a\\\nb/c\\\rd"];
        odd.iter().for_each(|name| self.write(name, name.as_bytes()));
        // Not every system takes them.
        #[cfg(target_os = "linux")]
        for raw in [&b"raw \xff\xfe"[..], b"raw\\\xc3(/\x80\n"] {
            self.write(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(raw), raw);
        }
        std::os::unix::fs::symlink("a b", self.tree().join("link")).unwrap();
        std::os::unix::fs::symlink("..", self.tree().join("a/up")).unwrap();
        std::os::unix::fs::symlink("nowhere", self.tree().join("dangling")).unwrap();
        assert!(Command::new("mkfifo").arg(self.tree().join("pipe")).status().unwrap().success());
    }

    /// Some hundred files more, most of them small; tells their sums.
    fn grow(&self, dice: &mut Rng) -> Sums {
        let folder = format!("grown {:x}", dice.u64(..));
        for n in 0..300 {
            let length = if dice.u8(..) < 16 { dice.usize(..1 << 19) } else { dice.usize(..20_000) };
            let content: Vec<u8> =
                std::iter::repeat_with(|| dice.u64(..).to_le_bytes()).take(length / 8).flatten().collect();
            self.write(format!("{folder}/{}/{n}", dice.u8(..10)), &content);
        }
        let sums = sums_of(&self.tree().join(&folder), &[]);
        sums.into_iter().map(|(path, sum)| (Path::new(&folder).join(path), sum)).collect()
    }

    #[cfg(unix)]
    fn set_mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.tree().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The files with this in their name.
    fn left_beside_the_tree(&self, part: &str) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(part)).collect()
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(Command::new(program()).args(args).current_dir(self.path()))
    }

    fn run(&self, args: &[&str]) -> Run {
        self.run_in(&self.path(), args)
    }

    fn run_in(&self, folder: &Path, args: &[&str]) -> Run {
        Running::start(Command::new(program()).args(args).current_dir(folder)).end()
    }

    /// A run that permissions bite: root's, which they do not, is run as nobody.
    #[cfg(unix)]
    fn run_restricted(&self, args: &[&str]) -> Run {
        use std::os::unix::fs::{MetadataExt, chown};
        use std::os::unix::process::CommandExt;
        const NOBODY: u32 = 65534;
        // Where the program was built, nobody may look.
        let copy = tempfile::tempdir().unwrap();
        if fs::metadata(copy.path()).unwrap().uid() != 0 {
            return self.run(args);
        }
        let program_copy = copy.path().join("checksum");
        // Copied by another process: one that is still open for writing here cannot be started.
        assert!(Command::new("cp").arg(program()).arg(&program_copy).status().unwrap().success());
        chown(copy.path(), Some(NOBODY), None).unwrap();
        for entry in walkdir::WalkDir::new(self.path()) {
            chown(entry.unwrap().path(), Some(NOBODY), None).unwrap();
        }
        Running::start(Command::new(program_copy).uid(NOBODY).args(args).current_dir(self.path())).end()
    }

    /// The jobs of a database that nobody uses just now, read from a copy: the next run has to find it as it is.
    fn jobs(&self) -> Vec<Job> {
        let copy = tempfile::tempdir().unwrap();
        for name in ["SHA256SUMS.db", "SHA256SUMS.db-wal"] {
            if self.path().join(name).exists() {
                fs::copy(self.path().join(name), copy.path().join(name)).unwrap();
            }
        }
        Kiln::open(copy.path().join("SHA256SUMS.db")).unwrap().list(Filter::new().limit(u32::MAX)).unwrap()
    }

    /// Looks at the database of a run that goes on until it is as it should be.
    #[cfg(unix)]
    fn wait_until(&self, run: &mut Running, ready: impl Fn(&Kiln) -> bool) {
        let kiln = Kiln::open(self.path().join("SHA256SUMS.db")).unwrap();
        let until = Instant::now() + PATIENCE;
        while !ready(&kiln) {
            if let Some(run) = run.ends_within(Duration::ZERO) {
                panic!("it has ended: {run:?}");
            }
            assert!(Instant::now() < until, "it does not come: {:#?}", kiln.list(Filter::new()));
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn end(mut self) -> Run {
        self.ends_within(PATIENCE).expect("it does not end")
    }

    fn ends_within(&mut self, time: Duration) -> Option<Run> {
        let until = Instant::now() + time;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                let (mut out, mut err) = (String::new(), String::new());
                self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
                self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
                return Some(Run { code: status.code(), out, err });
            }
            let rest = until.checked_duration_since(Instant::now())?;
            thread::sleep(rest.min(Duration::from_millis(2)));
        }
    }

    /// Kills it as nobody can object to: SIGKILL, or what is as rude elsewhere.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    fn read_now(&self) -> usize {
        let line =
            self.out.lines().find_map(|line| line.strip_prefix("read now: ")).unwrap_or_else(|| panic!("{self:?}"));
        line.split(' ').next().unwrap().parse().unwrap()
    }
}

/// Waits until a process has opened a file, where the system tells.
#[cfg(unix)]
fn wait_until_open(pid: u32, path: &Path) {
    let until = Instant::now() + PATIENCE;
    let open =
        |fd: std::io::Result<fs::DirEntry>| fd.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path));
    while fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut fds| !fds.any(open)) {
        assert!(Instant::now() < until, "{path:?} is not opened");
        thread::sleep(Duration::from_millis(5));
    }
}

fn path_of(job: &Job) -> PathBuf {
    match job.args.get("path").unwrap() {
        Value::String(path) => path.into(),
        raw => serde_json::from_value::<std::ffi::OsString>(raw).unwrap().into(),
    }
}

/// The sums of all regular files under a folder, but for these.
fn sums_of(folder: &Path, except: &[&str]) -> Sums {
    let files =
        walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let sums = files.map(|entry| {
        let name = entry.path().strip_prefix(folder).unwrap().to_owned();
        (name, sum(&fs::read(entry.path()).unwrap()))
    });
    sums.filter(|(name, _)| except.iter().all(|other| name != Path::new(other))).collect()
}

fn sum(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with_prefix(folder: &str, sums: Sums) -> Sums {
    sums.into_iter().map(|(name, sum)| (Path::new(folder).join(name), sum)).collect()
}

/// Turns every bit of a file, and leaves its size and its time as they are. Done twice, nothing was done.
fn spoil(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let turned: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| !byte).collect();
    let mut file = File::options().write(true).open(path).unwrap();
    file.write_all(&turned).unwrap();
    file.set_modified(modified).unwrap();
}

fn manifest(folder: &Path) -> Sums {
    read_manifest(&folder.join("SHA256SUMS"))
}

/// Reads a manifest by the letter: 64 digits, two spaces, the name, in the order of the names, each once.
fn read_manifest(path: &Path) -> Sums {
    let text = fs::read(path).unwrap();
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut sums = Sums::new();
    for line in text.strip_suffix(b"\n").into_iter().flat_map(|text| text.split(|byte| *byte == b'\n')) {
        let (escaped, line) = match line.strip_prefix(b"\\") {
            Some(line) => (true, line),
            None => (false, line),
        };
        let (sum, name) = line.split_at(64);
        let name = name.strip_prefix(b"  ").unwrap();
        let name = if escaped { unescaped(name) } else { name.to_vec() };
        assert!(sum.iter().all(|byte| b"0123456789abcdef".contains(byte)));
        assert_eq!(escaped, name.iter().any(|byte| b"\\\n\r".contains(byte)));
        sums.insert(native(&name), String::from_utf8(sum.to_vec()).unwrap());
        names.push(name);
    }
    assert!(names.is_sorted_by(|one, next| one < next), "not sorted, or one twice");
    sums
}

fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut bytes = name.iter();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'\\') => b'\\',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                other => panic!("a strange escape: {other:?}"),
            },
            byte => *byte,
        });
    }
    plain
}

#[cfg(unix)]
fn native(name: &[u8]) -> PathBuf {
    <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name).into()
}

#[cfg(not(unix))]
fn native(name: &[u8]) -> PathBuf {
    str::from_utf8(name).unwrap().into()
}

/// Has the real sha256sum check the manifest of a folder, where there is one that knows all escapes.
fn accepted_by_sha256sum(folder: &Path) {
    let check = |folder: &Path| {
        let mut command = Command::new("sha256sum");
        command.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(folder).output()
    };
    if cfg!(unix) {
        let probe = tempfile::tempdir().unwrap();
        fs::write(probe.path().join("\r"), "").unwrap();
        fs::write(probe.path().join("SHA256SUMS"), format!("\\{}  \\r\n", sum(b""))).unwrap();
        if check(probe.path()).is_ok_and(|output| output.status.success()) {
            let output = check(folder).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
