use std::collections::HashSet;
use std::path::Path;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::*;
use crate::job::{Filter, NewJob, QueuePlan, State};
use crate::kiln::Kiln;
use crate::life::{Mailbox, Member};
use crate::presence::Rules;
use crate::runtime::settings::{Retention, Settings};
use crate::worker::{Registry, Running};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A runtime whose scheduler is this test.
fn scheduler(kiln: &Kiln) -> Scheduler {
    let settings = Settings {
        grace: Duration::ZERO,
        timeout_grace: Duration::ZERO,
        max_stuck: 8,
        claim_ahead: Duration::from_millis(10),
        rescue_after: None,
        max_crashes: 3,
        crash_window: LONGEST,
        retention: Retention { completed: DAY, cancelled: DAY, discarded: DAY },
    };
    let mut workers = Registry::default();
    workers.add_fn("w", |_: &Running<()>| ()).unwrap();
    let rules = Rules { max_crashes: settings.max_crashes, window: settings.crash_window };
    let member = Member {
        id: kiln.dice().name(),
        node: kiln.node().to_owned(),
        workers: workers.names(),
        started_at: kiln.clock().now(),
        damaged: Arc::default(),
    };
    let sidecar = kiln.life().enter(&member.id, rules).unwrap();
    let plans = Arc::new(Mutex::new(vec![QueuePlan::new("default".to_owned(), 1)]));
    let mailbox = Mailbox::new(member, kiln.clock().clone(), sidecar, plans, settings.max_stuck, settings.claim_ahead);
    mailbox.arrange();
    kiln.life().join(&mailbox).unwrap();
    let shared = Shared::new(kiln.clone(), mailbox, settings, workers, Vec::new());
    Scheduler::new(shared, Crons::new(kiln, HashSet::new()))
}

/// The runtime is stopped, as far as a scheduler without a thread is.
fn leave(scheduler: &Scheduler) {
    let shared = &scheduler.shared;
    shared.mailbox.stop_claiming();
    shared.kiln.life().retire(&shared.mailbox.runtime.id).unwrap();
    let until = Instant::now() + LONGEST;
    for inbox in shared.mailbox.inboxes() {
        shared.mailbox.release(inbox.close());
        inbox.wait_for_threads(until);
    }
    shared.turn();
    shared.kiln.life().leave(&shared.mailbox.runtime.id);
}

/// Jobs of a worker that nobody knows, executing in a runtime whose lock is free.
fn die(file: &Path, jobs: usize) {
    let id = "0123456789abcdef0123456789abcdef";
    std::fs::write(format!("{}-kiln-{id}", file.display()), "").unwrap();
    let conn = Connection::open(file).unwrap();
    let sql = "INSERT INTO kiln_jobs (worker, state, attempt, attempted_at, attempted_by)
               VALUES ('ghost', 'executing', 1, 1, json_array('there', ?1))";
    conn.execute_batch("BEGIN").unwrap();
    (0..jobs).for_each(|_| assert_eq!(conn.execute(sql, [id]).unwrap(), 1));
    conn.execute_batch("COMMIT").unwrap();
}

#[test]
fn what_a_look_finds_dead_is_rescued_in_that_look_however_much_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let kiln = Kiln::open(&file).unwrap();
    let mut scheduler = scheduler(&kiln);
    scheduler.tick(Wake::default());
    die(&file, 3 * RESCUE_BATCH as usize);
    scheduler.look = Instant::now();
    scheduler.tick(Wake::default());
    assert_eq!(kiln.count(Filter::new()).unwrap().state(State::Available), 3 * u64::from(RESCUE_BATCH));
    leave(&scheduler);
}

#[test]
fn looks_are_never_further_apart_than_what_leaves_a_part_of_the_second_that_is_promised() {
    assert!(LOOK <= Duration::from_millis(600));
    let kiln = Kiln::in_memory().unwrap();
    let mut scheduler = scheduler(&kiln);
    let all: [fn(&mut Wake); 5] = [
        |_| (),
        |wake| wake.expected = true,
        |wake| wake.turn = true,
        |wake| (wake.hire, wake.cancelling, wake.queues) = (true, true, true),
        |wake| (wake.due, wake.crons) = (true, true),
    ];
    for set in all {
        let mut wake = Wake::default();
        set(&mut wake);
        // What is expected is looked for soon, and then more and more rarely.
        for wake in std::iter::once(wake).chain([Wake::default(); 15]) {
            let now = Instant::now();
            let rest = scheduler.tick(wake);
            assert!(rest <= scheduler.look && scheduler.look <= Instant::now() + LOOK);
            if !wake.expected {
                scheduler.look = now;
                scheduler.tick(Wake::default());
                assert!(scheduler.look > now, "it looks when it is time");
            }
        }
    }
    leave(&scheduler);
}

#[test]
fn what_is_expected_is_looked_for_soon_and_then_more_and_more_rarely() {
    let kiln = Kiln::in_memory().unwrap();
    let mut scheduler = scheduler(&kiln);
    scheduler.tick(Wake::default());
    scheduler.tick(Wake { expected: true, ..Wake::default() });
    assert!(scheduler.look <= Instant::now() + SOON);
    let mut waits = Vec::new();
    while let Some(soon) = scheduler.soon {
        waits.push(soon);
        scheduler.look = Instant::now();
        scheduler.tick(Wake::default());
    }
    assert!(waits.len() > 5 && waits.windows(2).all(|pair| pair[1] == pair[0] * 2), "{waits:?}");
    assert!(waits.last() < Some(&LOOK) && waits.last() > Some(&(LOOK / 3)));
    leave(&scheduler);
}

#[test]
fn a_job_that_another_process_stored_without_a_word_is_begun_with_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let kiln = Kiln::open(&file).unwrap();
    let mut scheduler = scheduler(&kiln);
    scheduler.tick(Wake::default());
    let other = Connection::open(&file).unwrap();
    other.execute_batch("INSERT INTO kiln_jobs (worker, scheduled_at) VALUES ('w', 0)").unwrap();
    let id = other.last_insert_rowid();
    scheduler.tick(Wake::default());
    assert_eq!(kiln.get(id).unwrap().unwrap().state, State::Available, "it is not time for a look");
    scheduler.look = Instant::now();
    scheduler.tick(Wake::default());
    let job = kiln.wait(id, LONGEST).unwrap().unwrap();
    assert_eq!(job.state, State::Completed);
    leave(&scheduler);
}

#[test]
fn a_job_that_is_due_before_what_was_planned_for_is_news_and_planned_for() {
    let kiln = Kiln::in_memory().unwrap();
    let mut scheduler = scheduler(&kiln);
    // The first tick prunes, and looks at everything anew after that.
    scheduler.tick(Wake::default());
    scheduler.tick(Wake::default());
    assert_eq!(scheduler.due, Due::Never);
    for (days, is_news) in [(5, true), (7, false), (3, true)] {
        let job = kiln.enqueue(NewJob::new("w").schedule_in(DAY * days)).unwrap();
        let wake = scheduler.shared.mailbox.alarm.wait(Instant::now(), &scheduler.suspects.1);
        assert_eq!(wake.due, is_news);
        scheduler.tick(wake);
        assert_eq!(scheduler.due == Due::At(job.scheduled_at), is_news);
    }
    leave(&scheduler);
}
