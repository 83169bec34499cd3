//! An idle runtime is quiet: fewer than two wake-ups a second, and no writes. Counted by the kernel, in a process of
//! its own.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::time::{Duration, Instant, SystemTime};

use common::{Folder, Other, count, other_process_for, reaches, say, stranger, until};
use kiln::{Kiln, NewCron, NewJob, Running, Runtime, State};
use serde_json::Value;

const WINDOW: Duration = Duration::from_secs(4);

fn start(kiln: &Kiln) -> Runtime {
    let runtime = kiln.runtime().queue("default", 2).queue("mail", 4).queue("media", 1).queue("sync", 8);
    runtime.worker_fn("w", |_: &Running<Value>| ()).start().unwrap()
}

/// The process that idles, from the line in which it is told the file's name until it hears nothing more.
#[test]
fn another_process_that_idles() {
    let Some(folder) = other_process_for() else { return };
    let mut lines = std::io::stdin().lock().lines();
    let kiln = Kiln::open(folder.join(lines.next().unwrap().unwrap())).unwrap();
    let runtime = start(&kiln);
    say("started");
    assert!(lines.next().is_none());
    runtime.stop();
}

fn idler(folder: &Folder) -> Other {
    let mut other = Other::start("another_process_that_idles", folder);
    other.tell("jobs.db");
    assert_eq!(other.hear(), "started");
    other
}

/// How the kernel and the file system see a process.
#[derive(Debug)]
struct Look {
    at: Instant,
    wakes: BTreeMap<String, u64>,
    ticks: u64,
    written: Vec<u64>,
    files: Vec<(String, u64, SystemTime)>,
}

impl Look {
    fn at(folder: &Folder, pid: u32) -> Self {
        let read = |path: String| fs::read_to_string(path).unwrap_or_default();
        let number = |text: &str, key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.map_or(0, |line| line.trim().parse().unwrap())
        };
        let mut wakes = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = read(format!("{}/status", task.unwrap().path().display()));
            let name = status.lines().next().unwrap_or_default().replace("Name:\t", "");
            *wakes.entry(name).or_default() += number(&status, "voluntary_ctxt_switches:");
        }
        assert!(wakes.values().sum::<u64>() > 0, "nothing is counted here");
        let stat = read(format!("/proc/{pid}/stat"));
        // Times are the 14th and the 15th field; the 2nd is the name in brackets, in which anything may be.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = [fields[11], fields[12]].map(|ticks| ticks.parse::<u64>().unwrap()).iter().sum();
        let io = read(format!("/proc/{pid}/io"));
        let written = ["wchar:", "syscw:", "write_bytes:"].map(|key| number(&io, key)).to_vec();
        let files = folder.names().into_iter().map(|name| {
            let found = fs::metadata(folder.path(&name)).unwrap();
            (name, found.len(), found.modified().unwrap())
        });
        Self { at: Instant::now(), wakes, ticks, written, files: files.collect() }
    }
}

/// Watches a process that has nothing to do. What it still does from before may take a window or two.
fn is_quiet(folder: &Folder, pid: u32) {
    let mut complaints = Vec::new();
    for _ in 0..3 {
        let before = Look::at(folder, pid);
        std::thread::sleep(WINDOW);
        let after = Look::at(folder, pid);
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let mut wakes = after.wakes.clone();
        wakes.iter_mut().for_each(|(name, count)| *count -= before.wakes.get(name).copied().unwrap_or(0).min(*count));
        let rate = wakes.values().sum::<u64>() as f64 / seconds;
        let ticks = after.ticks - before.ticks;
        wakes.retain(|_, count| *count > 0);
        println!("{rate:.2} wake-ups a second, {ticks} ticks in {seconds:.1} s: {wakes:?}");
        let mut complaint = String::new();
        if rate > 2.0 {
            complaint += &format!("{rate:.2} wake-ups a second: {wakes:?}; ");
        }
        if ticks > 40 {
            complaint += &format!("{ticks} ticks of a processor in {seconds:.1} s; ");
        }
        if after.written != before.written || after.files != before.files {
            complaint += &format!("it writes: {before:?}, {after:?}");
        }
        if complaint.is_empty() {
            return;
        }
        complaints.push(complaint);
    }
    panic!("{complaints:#?}");
}

#[test]
fn an_idle_runtime_wakes_less_than_twice_a_second_and_writes_nothing() {
    let folder = Folder::new();
    let kiln = folder.open();
    let job = kiln.enqueue(NewJob::new("w").queue("sync")).unwrap();
    let other = idler(&folder);
    reaches(&kiln, job.id, State::Completed);
    drop(kiln);
    is_quiet(&folder, other.id());
}

#[test]
fn jobs_that_wait_do_not_keep_it_awake() {
    let folder = Folder::new();
    let kiln = folder.open();
    let hour = Duration::from_secs(3600);
    let mut jobs: Vec<NewJob> = (0..500).map(|_| NewJob::new("ghost")).collect();
    jobs.extend((0..50).map(|_| NewJob::new("w").schedule_in(hour)));
    jobs.extend((0..50).map(|_| NewJob::new("w").state(State::Retryable).schedule_in(hour)));
    jobs.extend((0..50).map(|_| NewJob::new("w").state(State::Suspended)));
    jobs.extend((0..50).map(|_| NewJob::new("w").queue("nobody's").schedule_in(Duration::ZERO)));
    jobs.push(NewJob::new("w"));
    kiln.enqueue_many(jobs).unwrap();
    let other = idler(&folder);
    until("what can be done is done", || count(&kiln, State::Completed) == 1);
    drop(kiln);
    is_quiet(&folder, other.id());
}

#[test]
fn cron_entries_and_queues_that_are_paused_or_stopped_do_not_keep_it_awake() {
    let folder = Folder::new();
    let kiln = folder.open();
    let century = Duration::from_secs(100 * 365 * 86_400);
    let never = ["0 0 30 2 *", "0 0 29 2 MON", "@reboot"].map(|text| NewCron::new(text, NewJob::new("w")));
    let zoned = NewCron::new("0 0 29 2 MON", NewJob::new("w")).zone("Australia/Lord_Howe").name("zoned");
    let paused = NewCron::every(Duration::from_millis(1), NewJob::new("w")).paused().name("paused");
    for entry in never.into_iter().chain([zoned, paused, NewCron::every(century, NewJob::new("w")).name("rare")]) {
        kiln.cron(entry).unwrap();
    }
    // Written by another program: what cannot be read is left alone.
    let odd = "UPDATE kiln_crons SET zone = 'Nowhere' WHERE name = 'zoned';
               INSERT INTO kiln_crons (name, expression, worker) VALUES ('odd', 'now and then', 'w');
               INSERT INTO kiln_crons (name, expression, worker, uniqueness) VALUES ('odder', '* * * * *', 'w', '?')";
    stranger(&folder.db()).execute_batch(odd).unwrap();
    kiln.pause("mail").unwrap();
    kiln.stop_queue("media").unwrap();
    kiln.start_queue("lent", 3).unwrap();
    for queue in ["mail", "media"] {
        let expired = (0..50).map(|_| NewJob::new("w").queue(queue).expires_in(Duration::ZERO));
        let due = (0..50).map(|_| NewJob::new("w").queue(queue).schedule_in(Duration::ZERO));
        kiln.enqueue_many(expired.chain(due)).unwrap();
    }
    let jobs = ["default", "lent"].map(|queue| kiln.enqueue(NewJob::new("w").queue(queue)).unwrap());
    let other = idler(&folder);
    jobs.iter().for_each(|job| drop(reaches(&kiln, job.id, State::Completed)));
    assert_eq!(count(&kiln, State::Completed), 2);
    drop(kiln);
    is_quiet(&folder, other.id());
}

#[test]
fn two_processes_on_one_file_let_each_other_sleep() {
    let folder = Folder::new();
    let kiln = folder.open();
    let others = [idler(&folder), idler(&folder)];
    let jobs = kiln.enqueue_many((0..20).map(|_| NewJob::new("w"))).unwrap();
    for job in jobs {
        reaches(&kiln, job.id, State::Completed);
    }
    drop(kiln);
    for other in &others {
        is_quiet(&folder, other.id());
    }
}

#[test]
fn odd_rows_do_not_keep_it_awake() {
    let folder = Folder::new();
    let kiln = folder.open();
    let odd = "INSERT INTO kiln_jobs (worker, state, scheduled_at) VALUES
                 ('w', 'scheduled', '2020-02-02T02:02:02Z'), ('w', 'retryable', 'yesterday'), ('w', 'scheduled', x'ff'),
                 ('w', 'strange', 1);
               INSERT INTO kiln_jobs (worker, state, attempt, attempted_by) VALUES
                 ('w', 'executing', 1, 'who?'), ('w', 'executing', 'one', '[\"far\", \"gone\"]');
               INSERT INTO kiln_jobs (worker, max_attempts) VALUES ('ghost', 'many'), ('ghost', 0);
               INSERT INTO kiln_jobs (worker, expires_at) VALUES ('ghost', 'yesterday');";
    stranger(&folder.db()).execute_batch(odd).unwrap();
    let job = kiln.enqueue(NewJob::new("w")).unwrap();
    let other = idler(&folder);
    reaches(&kiln, job.id, State::Completed);
    drop(kiln);
    is_quiet(&folder, other.id());
}
