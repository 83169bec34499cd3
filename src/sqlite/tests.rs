mod turns;

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::Value;

use super::write::{Op, Tx};
use super::*;
use crate::engine::{Changed, Demand, Turn};
use crate::job::{Ack, Fence, State, Verb, Verdict};
use crate::{NewJob, Outcome, Unique};

const NOW: Timestamp = Timestamp::constant(1_767_268_800, 0);
const QUEUE: &str = "default";
const WORKER: &str = "app.Worker";

fn engine() -> Sqlite {
    Sqlite::in_memory(&Options::default()).unwrap()
}

fn member() -> Arc<Member> {
    let workers = vec![WORKER.to_owned(), "app.Other".to_owned()];
    let damaged = Arc::default();
    Arc::new(Member {
        id: "me".into(),
        node: "here".into(),
        workers,
        started_at: NOW,
        max_crashes: 0,
        solitude: false,
        damaged,
    })
}

/// A job in this state, an hour old, with an attempt behind it and more to come.
fn job_in(engine: &Sqlite, state: State) -> Job {
    let hour_ago = NOW - SignedDuration::from_hours(1);
    let job = NewJob::new(WORKER).build(hour_ago, |_| {}).unwrap();
    let id = engine.enqueue(vec![job]).unwrap()[0].id;
    let sql = "UPDATE kiln_jobs SET state = ?2, attempt = 2, max_attempts = 5, attempted_at = ?3, attempted_by = '[]',
               completed_at = iif(?2 = 'completed', ?3, NULL), cancelled_at = iif(?2 = 'cancelled', ?3, NULL),
               discarded_at = iif(?2 = 'discarded', ?3, NULL) WHERE id = ?1";
    engine.writer.with(|conn| conn.execute(sql, (id, state.as_str(), hour_ago.as_microsecond())).unwrap());
    engine.get(id).unwrap().unwrap()
}

fn apply(engine: &Sqlite, verb: Verb, job: &Job) {
    let which = Which::Ids(vec![job.id]);
    let turn = |acks, demands| Turn::by_hand(member(), NOW, acks, demands);
    let fence = Fence { id: job.id, attempt: 2, attempted_at: job.attempted_at.unwrap().as_microsecond() };
    match verb {
        Verb::Stage => engine.stage(&[QUEUE.to_owned()], NOW, 10, None).map(|_| ()),
        Verb::Claim => {
            engine.take_turn(turn(vec![], vec![Demand { queue: QUEUE.into(), limit: 1, slots: 1 }])).map(|_| ())
        }
        Verb::Ack => engine.take_turn(turn(vec![Ack { fence, verdict: Verdict::Complete }], vec![])).map(|_| ()),
        Verb::Rescue => engine.rescue(NOW, 10, None).map(|_| ()),
        Verb::Cancel => engine.cancel(&which, NOW, None).map(|_| ()),
        Verb::Retry => engine.retry(&which, NOW, None).map(|_| ()),
        Verb::Delete => engine.delete(&which, None).map(|_| ()),
        Verb::Update => engine.update(&which, &Changes::new().priority(7), NOW, None).map(|_| ()),
        Verb::Prune => {
            let cutoff = Some(NOW - SignedDuration::from_mins(1));
            engine.prune(&Cutoffs { completed: cutoff, cancelled: cutoff, discarded: cutoff }, 10, None).map(|_| ())
        }
    }
    .unwrap();
}

#[test]
fn every_verb_does_something_in_just_the_states_that_the_table_allows() {
    use Verb::*;
    for state in State::ALL {
        for verb in [Stage, Claim, Ack, Rescue, Cancel, Retry, Delete, Update, Prune] {
            let engine = engine();
            let before = job_in(&engine, state);
            apply(&engine, verb, &before);
            let changed = engine.get(before.id).unwrap() != Some(before);
            assert_eq!(changed, state.allows(verb), "{verb:?} of a job that is {state}");
        }
    }
}

/// Everything that is run again and again, and what may scan: a table or an index that holds a few rows at any depth.
fn statements() -> Vec<(String, &'static [&'static str])> {
    let few: &[&str] = &[
        "kiln_schema",
        "kiln_runtimes",
        "kiln_crons",
        "kiln_queues",
        "kiln_jobs_executing",
        "kiln_jobs_exhausted",
        "rarray VIRTUAL TABLE",
    ];
    let fixed = [
        sql::ENQUEUE_FIRST,
        sql::ENQUEUE_NEXT,
        sql::ENQUEUE_FIRST_PLAIN,
        sql::ENQUEUE_NEXT_PLAIN,
        sql::ENQUEUE_CLAIMED,
        sql::ENQUEUE_FIRST_UNIQUE,
        sql::ENQUEUE_NEXT_UNIQUE,
        sql::ENQUEUE_ALIKE,
        sql::REMEMBER_NEWEST,
        sql::ELDER_KEYS,
        sql::DOUBLE,
        sql::EXPIRE,
        sql::ERRORS,
        sql::ANY_AVAILABLE,
        sql::CLAIM_ONE,
        sql::CLAIM_FRESH,
        sql::ACK_COMPLETE,
        sql::ACK_COMPLETE_MANY,
        sql::ACK_RECORD,
        sql::ACK_RECORD_MANY,
        sql::COMPLETED,
        sql::ACK_STANDING,
        sql::STANDING,
        sql::ACK_SETTLE,
        sql::STAGE,
        sql::NOTE_PROGRESS,
        sql::NOTE_CHECKPOINT,
        sql::NOTES,
        sql::NEXT_DUE,
        sql::EXECUTING,
        sql::CANCELLING,
        sql::EXHAUSTED,
        sql::DISCARD_EXHAUSTED,
        sql::PRUNE_COMPLETED,
        sql::PRUNE_CANCELLED,
        sql::PRUNE_DISCARDED,
        sql::GET,
        sql::SUBJECT,
        sql::CANCEL,
        sql::CANCEL_EXECUTING,
        sql::RETRY,
        sql::DELETE,
        sql::UPDATE,
        sql::UNIQUE_KEY,
        sql::JOIN,
        sql::LEAVE,
        sql::CRONS,
        sql::CRON,
        sql::STORE_CRON,
        sql::DELETE_CRON,
        sql::SETTLE_SLOT,
        sql::MEMBERS,
        sql::ANNOUNCE,
        sql::RULINGS,
        sql::SAY_PAUSED,
        sql::UNSAY_PAUSES,
        sql::SAY_LIMIT,
        sql::UNSAY_LIMITS,
        sql::SAY_RUN,
        sql::UNSAY_RUNS,
    ];
    let claims = [1, 2, 7].map(sql::claim).map(str::to_owned);
    fixed.map(str::to_owned).into_iter().chain(claims).map(|sql| (sql, few)).collect()
}

fn assert_no_scan(conn: &Connection) {
    for (sql, few) in statements() {
        let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![Value::Null; explain.parameter_count()];
        let plan = explain.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>(3)).unwrap();
        for step in plan.map(Result::unwrap) {
            let scans = step.starts_with("SCAN") && !few.iter().any(|name| step.contains(name));
            assert!(!scans && !step.contains("TEMP B-TREE"), "{step}\nin {sql}");
        }
    }
}

#[test]
fn no_statement_scans_the_jobs_with_or_without_statistics() {
    let engine = engine();
    engine.writer.with(assert_no_scan);
    let jobs = (0..3000).map(|n| NewJob::new(WORKER).priority(n % 10).build(NOW, |_| {}).unwrap()).collect();
    engine.enqueue(jobs).unwrap();
    engine.writer.with(|conn| {
        conn.execute_batch("UPDATE kiln_jobs SET state = 'completed', completed_at = id WHERE id % 3 = 0; ANALYZE")
            .unwrap();
        assert_no_scan(conn);
    });
}

#[test]
fn what_executes_and_what_is_to_be_pruned_is_found_in_as_many_steps_however_much_has_ended() {
    let steps = |completed: usize| {
        let engine = engine();
        let jobs = (0..completed + 30).map(|_| NewJob::new(WORKER).build(NOW, |_| {}).unwrap()).collect();
        engine.enqueue(jobs).unwrap();
        engine.writer.with(|conn| {
            conn.execute_batch(
                "UPDATE kiln_jobs SET state = 'executing', attempted_at = 1 WHERE id <= 10;
                 UPDATE kiln_jobs SET cancel_requested_at = 1 WHERE id <= 5;
                 UPDATE kiln_jobs SET state = 'cancelled', cancelled_at = id WHERE id BETWEEN 11 AND 20;
                 UPDATE kiln_jobs SET state = 'discarded', discarded_at = id WHERE id BETWEEN 21 AND 30;
                 UPDATE kiln_jobs SET state = 'completed', completed_at = id WHERE id > 30",
            )
            .unwrap();
            let cutoff: &[&dyn rusqlite::ToSql] = &[&15_000_000, &3];
            [
                (sql::EXECUTING, 10, &[][..]),
                (sql::CANCELLING, 5, &[]),
                (sql::EXECUTING_SINCE, 10, &[]),
                (sql::PRUNE_CANCELLED, 3, cutoff),
                (sql::PRUNE_DISCARDED, 3, cutoff),
                (sql::PRUNE_COMPLETED, 3, cutoff),
            ]
            .map(|(sql, expected, parameters)| {
                let mut statement = conn.prepare(sql).unwrap();
                let found = if statement.column_count() == 0 {
                    statement.execute(parameters).unwrap()
                } else {
                    statement.query_map(parameters, |_| Ok(())).unwrap().count()
                };
                assert_eq!(found, expected, "{sql}");
                statement.get_status(rusqlite::StatementStatus::VmStep)
            })
        })
    };
    assert_eq!(steps(100), steps(3000));
}

#[test]
fn a_claim_merges_its_workers_in_claim_order() {
    let engine = engine();
    let mut expected = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let worker = [WORKER, "app.Other", "app.Unknown"][random.usize(..3)];
        let scheduled_at = NOW - SignedDuration::from_secs(random.i64(0..3));
        let mut job = NewJob::new(worker).priority(random.i64(0..3)).build(NOW, |_| {}).unwrap();
        job.job.scheduled_at = scheduled_at;
        let job = engine.enqueue(vec![job]).unwrap().remove(0);
        if worker != "app.Unknown" {
            expected.push((job.priority, job.scheduled_at, job.id));
        }
    }
    expected.sort_unstable();
    let demands = vec![Demand { queue: QUEUE.into(), limit: 1000, slots: 1000 }];
    let turn = Turn::by_hand(member(), NOW, Vec::new(), demands);
    let claimed = engine.take_turn(turn).unwrap().claimed;
    let found: Vec<_> = claimed.iter().map(|c| (c.job.priority, c.job.scheduled_at, c.job.id)).collect();
    assert_eq!(found, expected);
    let fences: HashSet<Fence> = claimed.iter().map(|claimed| claimed.attempt.fence).collect();
    assert_eq!(fences.len(), expected.len());
}

#[test]
fn of_many_acks_at_once_those_that_are_late_change_nothing_and_are_told() {
    for record in [false, true] {
        let engine = engine();
        let jobs = (0..100).map(|_| NewJob::new(WORKER).build(NOW, |_| {}).unwrap()).collect();
        engine.enqueue(jobs).unwrap();
        let turn = |acks, limit| {
            let demands = vec![Demand { queue: QUEUE.into(), limit, slots: limit }];
            engine.take_turn(Turn::by_hand(member(), NOW, acks, demands)).unwrap()
        };
        let fences: Vec<Fence> = turn(vec![], 100).claimed.iter().map(|claimed| claimed.attempt.fence).collect();
        let late = [
            (3, "attempt = 2"),
            (20, "attempted_at = attempted_at + 1"),
            (21, "state = 'available'"),
            (50, "state = 'completed', attempt = 7"),
            (99, "id = 1000"),
        ];
        let change = |n: usize, change: &str| {
            let sql = format!("UPDATE kiln_jobs SET {change} WHERE id = ?1");
            engine.writer.with(|conn| conn.execute(&sql, [fences[n].id]).unwrap());
        };
        late.iter().for_each(|(n, how)| change(*n, how));
        change(70, "meta = '{\"mine\":1}'");
        let value = |n: usize| serde_json::json!({ "n": n, "text": "é\"\\", "list": [1, 2.5, null] });
        let verdict = |n| match Outcome::record(&value(n)).unwrap() {
            _ if n == 10 => Verdict::Cancel { error: "no".into() },
            Outcome::Record { encoded } if record => Verdict::Record { encoded },
            _ => Verdict::Complete,
        };
        let acks = fences.iter().enumerate().map(|(n, &fence)| Ack { fence, verdict: verdict(n) }).collect();
        let acked = turn(acks, 0).acked;
        for (n, state) in acked.iter().enumerate() {
            let is_late = late.iter().any(|(late, _)| *late == n);
            let expected = match n {
                10 => Some(State::Cancelled),
                _ if is_late => None,
                _ => Some(State::Completed),
            };
            assert_eq!(*state, expected, "ack {n}");
            if n != 99 {
                let job = engine.get(fences[n].id).unwrap().unwrap();
                let recorded = (record && expected == Some(State::Completed)).then(|| value(n));
                assert_eq!(job.recorded::<serde_json::Value>().unwrap(), recorded, "ack {n}");
                assert_eq!(job.meta.get("mine"), (n == 70).then(|| 1.into()), "ack {n}");
            }
        }
        let completed = engine.count(&Filter::new()).unwrap().state(State::Completed);
        assert_eq!(completed, 95, "one was completed by somebody else");
    }
}

#[test]
fn many_jobs_are_stored_as_each_would_be_alone() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut jobs = Vec::new();
    while jobs.len() < 500 {
        let (queue, priority, tagged) = (random.usize(..2), random.i64(0..2), random.bool());
        for _ in 0..[1, 2, 15, 16, 17, 60][random.usize(..6)] {
            let job = NewJob::new(WORKER).args(serde_json::json!({ "n": jobs.len() })).priority(priority);
            let job = job.queue(["a", "b"][queue]).tags(tagged.then_some("t"));
            let unique = random.u8(..20) == 0;
            jobs.push(if unique { job.unique(crate::Unique::new()) } else { job }.build(NOW, |_| {}).unwrap());
        }
    }
    let engine = engine();
    engine.enqueue(vec![jobs[0].clone()]).unwrap();
    engine.delete(&Which::Ids(vec![1]), None).unwrap();
    let stored = engine.enqueue(jobs.clone()).unwrap();
    assert_eq!(stored.len(), jobs.len());
    for (n, (stored, given)) in stored.into_iter().zip(jobs).enumerate() {
        assert_eq!(stored.id, n as i64 + 2);
        assert_eq!(engine.get(stored.id).unwrap(), Some(Job { id: stored.id, ..given.job.clone() }));
        assert_eq!(stored, Job { id: stored.id, ..given.job });
    }
}

#[test]
fn an_attempt_given_back_and_claimed_again_at_the_same_time_has_another_fence() {
    let engine = engine();
    engine.enqueue(vec![NewJob::new(WORKER).build(NOW, |_| {}).unwrap()]).unwrap();
    let mut fences = HashSet::new();
    for _ in 0..5 {
        let demands = vec![Demand { queue: QUEUE.into(), limit: 1, slots: 1 }];
        let turn = Turn::by_hand(member(), NOW, Vec::new(), demands);
        let claimed = engine.take_turn(turn).unwrap().claimed;
        let fence = claimed[0].attempt.fence;
        assert_eq!(fence.attempt, 1);
        assert!(fences.insert(fence));
        let acks = vec![Ack { fence, verdict: Verdict::Release }];
        engine.take_turn(Turn::by_hand(member(), NOW, acks, Vec::new())).unwrap();
    }
}

#[test]
fn one_job_that_cannot_be_written_does_not_take_the_others_with_it() {
    let engine = Arc::new(engine());
    engine.writer.with(|conn| {
        conn.execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON kiln_jobs WHEN NEW.queue = 'refused'
             BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        .unwrap();
    });
    let threads: Vec<_> = (0..64)
        .map(|n| {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || {
                let queue = if n % 4 == 0 { "refused" } else { "fine" };
                engine.enqueue(vec![NewJob::new(WORKER).queue(queue).build(NOW, |_| {}).unwrap()]).is_ok()
            })
        })
        .collect();
    let written = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count();
    assert_eq!(written, 48);
    assert_eq!(engine.count(&Filter::new()).unwrap().queue("fine"), 48);
    assert_eq!(engine.count(&Filter::new()).unwrap().queue("refused"), 0);
}

#[test]
fn an_id_is_never_given_twice_whichever_way_the_newest_job_goes() {
    let engine = engine();
    let enqueue = || engine.enqueue(vec![NewJob::new(WORKER).build(NOW, |_| {}).unwrap()]).unwrap()[0].id;
    assert_eq!([enqueue(), enqueue(), enqueue()], [1, 2, 3]);
    engine.delete(&Which::Ids(vec![2, 3]), None).unwrap();
    assert_eq!(enqueue(), 4);
    engine.delete(&Which::Matching(Filter::new()), None).unwrap();
    assert_eq!(enqueue(), 5);
    engine.cancel(&Which::Matching(Filter::new()), NOW, None).unwrap();
    engine.prune(&Cutoffs { cancelled: Some(NOW), ..Cutoffs::default() }, 10, None).unwrap();
    assert_eq!(engine.count(&Filter::new()).unwrap().total(), 0);
    assert_eq!([enqueue(), enqueue()], [6, 7]);
}

/// How much work the search for a double is, in steps of SQLite's machine: the same on every computer.
fn steps(conn: &Connection, unique: &Unique, args: i64, states: &[State]) -> i32 {
    let job = NewJob::new(WORKER).args(serde_json::json!({ "n": args })).unique(unique.clone());
    let check = job.build(NOW, |_| {}).unwrap().check.unwrap();
    let mut search = conn.prepare(sql::DOUBLE).unwrap();
    let since = check.since.map_or(i64::MIN, Timestamp::as_microsecond);
    for state in states {
        search
            .query_map((&check.key, state.as_str(), since, NOW.as_microsecond()), |row| row.get::<_, i64>(0))
            .unwrap()
            .for_each(drop);
    }
    search.get_status(rusqlite::StatementStatus::VmStep)
}

#[test]
fn the_search_for_a_double_is_no_more_work_among_a_hundred_thousand_jobs_than_among_a_thousand() {
    let hour = SignedDuration::from_hours(1);
    let by_enqueue = Unique::new().within(Duration::from_secs(60));
    let ways = [by_enqueue.clone(), by_enqueue.clone().by_schedule(), Unique::new()];
    let [few, many] = [1_000, 100_000].map(|rows| {
        let engine = engine();
        // Half of them have each its own arguments; the others are long past, have the same, and have ended.
        let jobs = (0..rows).map(|n| {
            let (args, at) = if n % 2 == 0 { (n, NOW) } else { (-1, NOW - hour) };
            let job = NewJob::new(WORKER).args(serde_json::json!({ "n": args }));
            let mut job = job.unique(ways[n as usize / 2 % 3].clone()).build(at, |_| {}).unwrap();
            // They are brought in as they are, however many doubles that makes.
            let key = job.check.take().unwrap().key;
            (job, key)
        });
        let (jobs, keys): (Vec<Ready>, Vec<String>) = jobs.unzip();
        let ids: Vec<i64> = engine.enqueue(jobs).unwrap().iter().map(|job| job.id).collect();
        engine.writer.with(|conn| {
            let mut set = conn.prepare("UPDATE kiln_jobs SET unique_key = ?2 WHERE id = ?1").unwrap();
            for row in ids.iter().zip(keys) {
                set.execute(row).unwrap();
            }
            conn.execute("UPDATE kiln_jobs SET state = 'completed' WHERE inserted_at < ?1", [NOW.as_microsecond()])
                .unwrap();
            let mut work = Vec::new();
            for (n, unique) in ways.iter().enumerate() {
                let there = 2 * (n as i64 + 3);
                work.push(steps(conn, unique, there, &State::SUCCESSFUL));
                work.push(steps(conn, unique, rows + 1, &State::SUCCESSFUL));
                work.push(steps(conn, unique, -1, &State::SUCCESSFUL));
            }
            work
        })
    });
    println!("steps among 1,000: {few:?}, among 100,000: {many:?}");
    assert!(few.iter().all(|steps| *steps > 10), "something was searched");
    assert_eq!(few, many);
}

/// Runs the op, takes it back, as a transaction does that another op of it made fail, and runs it again.
fn run_twice(engine: &Sqlite, op: &mut impl Op) {
    engine.writer.with(|conn| {
        for end in ["ROLLBACK", "COMMIT"] {
            conn.execute_batch("BEGIN IMMEDIATE").unwrap();
            op.run(&mut Tx::new(conn)).unwrap();
            conn.execute_batch(end).unwrap();
        }
    });
}

#[test]
fn what_a_transaction_that_was_run_again_changed_is_told_once() {
    let engine = engine();
    let mut ids = Vec::new();
    let mut told = |changed: Changed| ids.push(changed.job.id);
    let mut told = Some(&mut told as &mut dyn FnMut(Changed));
    let tally = || Tally::new(&Some(&mut |_| ()));

    let waits = job_in(&engine, State::Scheduled).id;
    let mut stage = Stage { queues: vec![QUEUE.to_owned()], now: NOW, batch: 10, staged: tally() };
    run_twice(&engine, &mut stage);
    stage.staged.tell(&mut told);

    let runs = job_in(&engine, State::Executing).id;
    let exhausted = job_in(&engine, State::Available).id;
    engine.writer.with(|conn| conn.execute("UPDATE kiln_jobs SET attempt = 5 WHERE id = ?1", [exhausted]).unwrap());
    let older = Whose::Older(NOW, HashSet::new());
    let mut rescue = Rescue::new(older, NOW, 10, tally());
    run_twice(&engine, &mut rescue);
    rescue.rescued.tell(&mut told);

    let mut sweep = Sweep::new(&Which::Ids(vec![waits, runs]), Cancel { now: NOW }, tally());
    run_twice(&engine, &mut sweep);
    assert_eq!(sweep.next(&mut told), Some(2));

    let cutoffs = Cutoffs { cancelled: Some(NOW), ..Cutoffs::default() };
    let mut prune = Prune { cutoffs, batch: 10, pruned: tally() };
    run_twice(&engine, &mut prune);
    prune.pruned.tell(&mut told);
    assert_eq!((stage.staged.count, rescue.rescued.count, prune.pruned.count), (1, 2, 2));
    assert_eq!(ids, [waits, runs, exhausted, waits, runs, waits, runs]);
}

/// Once it is told, it has something to make known itself.
struct Talker {
    engine: Arc<Sqlite>,
    itself: std::sync::Weak<Talker>,
    changes: Mutex<Vec<bool>>,
}

impl Crew for Talker {
    fn gather(&self, _: &News) -> Turn {
        Turn::by_hand(member(), NOW, Vec::new(), Vec::new())
    }
    fn tell(&self) {
        let itself = self.itself.upgrade().unwrap();
        self.engine.announce("me", itself).unwrap();
    }
    fn changed(&self) -> bool {
        self.changes.lock().pop().unwrap_or(false)
    }
    fn plans(&self) -> Vec<crate::queues::Plan> {
        Vec::new()
    }
    fn pulse(&self) -> crate::Pulse {
        unreachable!("nobody asks for it")
    }
    fn foresee(&self, _: &Turn, _: &engine::Done) {}
    fn deliver(&self, _: Turn, _: engine::Done) {}
    fn give_back(&self, _: Turn, _: &Error) {}
    fn hear(&self, _: &News) {}
    fn carry_on(&self) {}
    fn heed(&self, _: &Rulings) {}
    fn change(&self) {}
}

#[test]
fn who_is_told_of_an_announcement_may_make_one() {
    let (done, ended) = std::sync::mpsc::channel();
    // On a thread of its own: one that waits for itself fails the test, and does not hang it.
    std::thread::spawn(move || {
        let engine = Arc::new(engine());
        let crew = Arc::new_cyclic(|itself| Talker {
            engine: Arc::clone(&engine),
            itself: itself.clone(),
            changes: Mutex::new(vec![true; 4]),
        });
        engine.writer.attach("me", crew.clone());
        engine.announce("me", crew.clone()).unwrap();
        done.send(crew.changes.lock().len()).unwrap();
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(30)), Ok(0), "all were made known");
}
