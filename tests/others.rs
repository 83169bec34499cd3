//! Bugs that other queues had, and the tests that show that they are not here. What had no test elsewhere is below.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Folder, Other, count, get, ms, other_process_for, reaches, say, stranger, until};
use kiln::testing::{Hand, ManualClock};
use kiln::{Kiln, NewCron, NewJob, Running, State};

/// Whose bug, what went wrong, and where it is shown that here it does not.
const TABLE: [(&str, &str, &str, &str); 18] = [
    (
        "effectum",
        "a misspelt pragma: WAL was never on",
        "file.rs",
        "a_new_file_is_in_wal_mode_and_gives_space_back_in_small_bites",
    ),
    (
        "plainjob",
        "rescue by due time, not by start",
        "others.rs",
        "a_job_overdue_for_days_that_began_just_now_is_not_rescued",
    ),
    (
        "plainjob",
        "a cron slot lost between two statements",
        "faults/writes.rs",
        "every_commit_fails_once_for_want_of_space",
    ),
    ("plainjob", "the same, at a restart", "crons.rs", "a_restart_neither_forgets_nor_doubles_a_slot"),
    (
        "apalis-sqlite",
        "orphans are enqueued anew for ever",
        "crash/rescue.rs",
        "a_job_that_kills_its_process_at_every_attempt_ends_discarded",
    ),
    (
        "fang",
        "a cron series ends with a crash during its job",
        "others.rs",
        "a_cron_series_goes_on_though_its_job_died",
    ),
    (
        "fang",
        "a payload that cannot be decoded kills the thread",
        "runtime.rs",
        "args_that_cannot_be_decoded_are_an_ordinary_error_of_that_job",
    ),
    (
        "fang",
        "in progress for ever after a crash",
        "crash/rescue.rs",
        "jobs_of_a_killed_process_run_again_within_a_second_of_the_next_start",
    ),
    (
        "huey",
        "what runs is lost with a kill",
        "crash/kills.rs",
        "kills_at_random_moments_lose_nothing_double_nothing_and_invent_nothing",
    ),
    (
        "huey",
        "a due job is lost where it cannot be enqueued",
        "faults/writes.rs",
        "every_write_fails_once_by_an_error_of_the_disk",
    ),
    ("oban-py", "an ack without a fence", "crash/rescue.rs", "the_ack_of_a_process_taken_for_dead_changes_nothing"),
    (
        "oban-py",
        "rescue after 300 s, dead or not",
        "crash/rescue.rs",
        "a_job_is_never_rescued_while_its_process_lives_even_stopped",
    ),
    (
        "honker",
        "a look at the file drops the locks of the process",
        "others.rs",
        "nothing_the_library_looks_at_drops_a_lock_of_this_process",
    ),
    (
        "honker",
        "polling each millisecond",
        "quiet.rs",
        "an_idle_runtime_wakes_less_than_twice_a_second_and_writes_nothing",
    ),
    (
        "River",
        "a cancel is dropped where nobody is notified",
        "others.rs",
        "a_cancel_written_by_another_program_reaches_a_running_job",
    ),
    ("River", "one connection only", "file.rs", "two_handles_and_another_process_write_side_by_side"),
    (
        "Solid Queue",
        "a scheduler that is dead after a sleep",
        "faults/time.rs",
        "a_computer_that_sleeps_for_hours_times_nothing_out_and_runs_what_became_due",
    ),
    (
        "Solid Queue",
        "a slot released twice",
        "runtime.rs",
        "a_queue_runs_as_many_jobs_at_once_as_its_limit_and_never_more",
    ),
];

#[test]
fn every_test_of_the_table_is_there() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (whose, what, file, test) in TABLE {
        let text = fs::read_to_string(tests.join(file)).unwrap();
        let (before, _) = text.split_once(&format!("fn {test}()")).unwrap_or_else(|| panic!("{whose}: {what}: {test}"));
        let attributes = before.rsplit("\n\n").next().unwrap();
        assert!(attributes.contains("#[test]"), "{test} is no test");
    }
}

#[test]
fn a_job_overdue_for_days_that_began_just_now_is_not_rescued() {
    let clock = ManualClock::default();
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    let hand = Hand::new(&kiln, ["w"]);
    let overdue = kiln.enqueue(NewJob::new("w")).unwrap();
    clock.advance(Duration::from_secs(5 * 86_400));
    assert_eq!(hand.claim("default", 1).unwrap()[0].id, overdue.id);
    clock.advance(Duration::from_secs(60));
    assert_eq!(hand.rescue_older(Duration::from_secs(3600)).unwrap(), 0);
    assert_eq!(get(&kiln, overdue.id).state, State::Executing);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(hand.rescue_older(Duration::from_secs(3600)).unwrap(), 1);
}

#[test]
fn a_cron_series_goes_on_though_its_job_died() {
    let clock = ManualClock::at("2026-03-02T08:30:00Z".parse().unwrap());
    let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
    kiln.cron(NewCron::new("@hourly", NewJob::new("w").max_attempts(1))).unwrap();
    for hour in 0..3 {
        clock.advance(Duration::from_secs(3600));
        let hand = Hand::new(&kiln, ["w"]);
        assert_eq!(hand.fire().unwrap().len(), 1, "hour {hour}");
        assert_eq!(hand.claim("default", 9).unwrap().len(), 1);
        // It is never heard of again.
    }
    assert_eq!(Hand::new(&kiln, ["w"]).rescue().unwrap(), 3);
    assert_eq!(count(&kiln, State::Discarded), 3);
}

/// Tries for the lock whenever it is told to, and says whether it was free.
#[test]
fn another_process_that_tries_the_lock() {
    let Some(folder) = other_process_for() else { return };
    let conn = rusqlite::Connection::open(folder.join("jobs.db")).unwrap();
    conn.busy_timeout(Duration::ZERO).unwrap();
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        let free = conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        say(if free { "free" } else { "held" });
    }
}

#[test]
fn nothing_the_library_looks_at_drops_a_lock_of_this_process() {
    let folder = Folder::new();
    let kiln = Kiln::builder(folder.db()).patience(ms(20)).open().unwrap();
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", |_: &Running<()>| ()).start().unwrap();
    let mut other = Other::start("another_process_that_tries_the_lock", &folder);
    let mut lock = |what: &str, expected: &str| {
        let mut tried = || {
            other.tell("try");
            other.hear()
        };
        match expected {
            // The runtime may be at work just now.
            "free" => until(&format!("it is free after {what}"), || tried() == expected),
            _ => assert_eq!(tried(), expected, "after {what}"),
        }
    };
    lock("nothing", "free");
    let held = stranger(&folder.db());
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    lock("taking it", "held");
    kiln.health().unwrap();
    lock("health", "held");
    kiln.check("default").unwrap();
    lock("check", "held");
    kiln.list(kiln::Filter::new()).unwrap();
    lock("a list", "held");
    assert!(kiln.enqueue(NewJob::new("w")).unwrap_err().is_busy());
    lock("an enqueue that gave up and named the holder", "held");
    drop(Kiln::builder(folder.db()).patience(ms(20)).open());
    lock("another handle, opened and closed", "held");
    held.execute_batch("COMMIT").unwrap();
    lock("giving it back", "free");
    runtime.stop();
}

#[test]
fn a_cancel_written_by_another_program_reaches_a_running_job() {
    let folder = Folder::new();
    let kiln = folder.open();
    let worker = |job: &Running<()>| -> Result<(), kiln::Cancelled> { job.sleep(common::DEADLINE) };
    let runtime = kiln.runtime().queue("default", 1).worker_fn("w", worker).start().unwrap();
    let id = kiln.enqueue(NewJob::new("w")).unwrap().id;
    until("it runs", || get(&kiln, id).state == State::Executing);
    stranger(&folder.db()).execute("UPDATE kiln_jobs SET cancel_requested_at = 1 WHERE id = ?1", [id]).unwrap();
    reaches(&kiln, id, State::Cancelled);
    runtime.stop();
}
