use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::Value;

use super::*;
use crate::NewJob;
use crate::engine::{Demand, Turn};
use crate::job::{Ack, Fence, State, Verb, Verdict};

const NOW: Timestamp = Timestamp::constant(1_767_268_800, 0);
const QUEUE: &str = "default";
const WORKER: &str = "app.Worker";

fn engine() -> Sqlite {
    Sqlite::in_memory(&Options::default()).unwrap()
}

fn member() -> Arc<Member> {
    let workers = vec![WORKER.to_owned(), "app.Other".to_owned()];
    Arc::new(Member { id: "me".into(), node: "here".into(), workers, started_at: NOW })
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
    let turn = |acks, demands| Turn { runtime: member(), now: NOW, acks, demands };
    let fence = Fence { id: job.id, attempt: 2, attempted_at: job.attempted_at.unwrap().as_microsecond() };
    match verb {
        Verb::Stage => engine.stage(&[QUEUE.to_owned()], NOW, 10).map(|_| ()),
        Verb::Claim => engine.take_turn(turn(vec![], vec![Demand { queue: QUEUE.into(), limit: 1 }])).map(|_| ()),
        Verb::Ack => engine.take_turn(turn(vec![Ack { fence, verdict: Verdict::Complete }], vec![])).map(|_| ()),
        Verb::Rescue => engine.rescue(NOW, 10).map(|_| ()),
        Verb::Cancel => engine.cancel(&which, NOW).map(|_| ()),
        Verb::Retry => engine.retry(&which, NOW).map(|_| ()),
        Verb::Delete => engine.delete(&which).map(|_| ()),
        Verb::Update => engine.update(&which, &Changes::new().priority(7), NOW).map(|_| ()),
        Verb::Prune => {
            let cutoff = Some(NOW - SignedDuration::from_mins(1));
            engine.prune(&Cutoffs { completed: cutoff, cancelled: cutoff, discarded: cutoff }, 10).map(|_| ())
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
        sql::REMEMBER_NEWEST,
        sql::DOUBLE,
        sql::EXPIRE,
        sql::ERRORS,
        sql::CLAIM_ONE,
        sql::CLAIM_FRESH,
        sql::ACK_COMPLETE,
        sql::ACK_COMPLETE_MANY,
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
        sql::STATE,
        sql::CANCEL,
        sql::CANCEL_EXECUTING,
        sql::RETRY,
        sql::DELETE,
        sql::UPDATE,
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
    let demands = vec![Demand { queue: QUEUE.into(), limit: 1000 }];
    let turn = Turn { runtime: member(), now: NOW, acks: Vec::new(), demands };
    let claimed = engine.take_turn(turn).unwrap().claimed;
    let found: Vec<_> = claimed.iter().map(|c| (c.job.priority, c.job.scheduled_at, c.job.id)).collect();
    assert_eq!(found, expected);
    let fences: HashSet<Fence> = claimed.iter().map(|claimed| claimed.attempt.fence).collect();
    assert_eq!(fences.len(), expected.len());
}

#[test]
fn of_many_acks_at_once_those_that_are_late_change_nothing_and_are_told() {
    let engine = engine();
    let jobs = (0..100).map(|_| NewJob::new(WORKER).build(NOW, |_| {}).unwrap()).collect();
    engine.enqueue(jobs).unwrap();
    let turn = |acks, limit| {
        let demands = vec![Demand { queue: QUEUE.into(), limit }];
        engine.take_turn(Turn { runtime: member(), now: NOW, acks, demands }).unwrap()
    };
    let fences: Vec<Fence> = turn(vec![], 100).claimed.iter().map(|claimed| claimed.attempt.fence).collect();
    let late = [
        (3, "attempt = 2"),
        (20, "attempted_at = attempted_at + 1"),
        (21, "state = 'available'"),
        (50, "state = 'completed', attempt = 7"),
        (99, "id = 1000"),
    ];
    for (n, change) in late {
        let sql = format!("UPDATE kiln_jobs SET {change} WHERE id = ?1");
        engine.writer.with(|conn| conn.execute(&sql, [fences[n].id]).unwrap());
    }
    let verdict = |n| if n == 10 { Verdict::Cancel { error: "no".into() } } else { Verdict::Complete };
    let acks = fences.iter().enumerate().map(|(n, &fence)| Ack { fence, verdict: verdict(n) }).collect();
    let acked = turn(acks, 0).acked;
    for (n, state) in acked.iter().enumerate() {
        let expected = match n {
            10 => Some(State::Cancelled),
            n if late.iter().any(|(late, _)| *late == n) => None,
            _ => Some(State::Completed),
        };
        assert_eq!(*state, expected, "ack {n}");
    }
    assert_eq!(engine.count(&Filter::new()).unwrap().state(State::Completed), 95, "one was completed by somebody else");
}

#[test]
fn an_attempt_given_back_and_claimed_again_at_the_same_time_has_another_fence() {
    let engine = engine();
    engine.enqueue(vec![NewJob::new(WORKER).build(NOW, |_| {}).unwrap()]).unwrap();
    let mut fences = HashSet::new();
    for _ in 0..5 {
        let demands = vec![Demand { queue: QUEUE.into(), limit: 1 }];
        let turn = Turn { runtime: member(), now: NOW, acks: Vec::new(), demands };
        let claimed = engine.take_turn(turn).unwrap().claimed;
        let fence = claimed[0].attempt.fence;
        assert_eq!(fence.attempt, 1);
        assert!(fences.insert(fence));
        let acks = vec![Ack { fence, verdict: Verdict::Release }];
        engine.take_turn(Turn { runtime: member(), now: NOW, acks, demands: Vec::new() }).unwrap();
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
    engine.delete(&Which::Ids(vec![2, 3])).unwrap();
    assert_eq!(enqueue(), 4);
    engine.delete(&Which::Matching(Filter::new())).unwrap();
    assert_eq!(enqueue(), 5);
    engine.cancel(&Which::Matching(Filter::new()), NOW).unwrap();
    engine.prune(&Cutoffs { cancelled: Some(NOW), ..Cutoffs::default() }, 10).unwrap();
    assert_eq!(engine.count(&Filter::new()).unwrap().total(), 0);
    assert_eq!([enqueue(), enqueue()], [6, 7]);
}
