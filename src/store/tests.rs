use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, StatementStatus, ToSql, params_from_iter};

use super::scratch::memory;
use super::{ack, claim, columns, crons, insert, operate, query, queues, rescue, runtimes, sweep};
use crate::job::{Filter, Job, NewJob, State, Unique};

const NOW: Timestamp = Timestamp::constant(1_767_268_800, 0);
const WORKER: &str = "app.Worker";

fn new(job: NewJob) -> Job {
    job.build(NOW, |_| {}).unwrap().job
}

fn add(conn: &Connection, job: &Job, key: Option<&str>) -> i64 {
    insert::insert(conn, job, None, key).unwrap()
}

/// A row in which each column of a job has a value of its own.
#[test]
fn a_row_is_read_as_it_is_written_column_by_column() {
    let conn = memory();
    let job = NewJob::new(WORKER).queue("q").args(serde_json::json!({ "n": 1 })).meta(serde_json::json!({ "m": 2 }));
    let job = job.tags(["a", "b"]).priority(3).max_attempts(4).scheduled_at(NOW + jiff::SignedDuration::from_secs(5));
    let mut job = new(job.expires_at(NOW + jiff::SignedDuration::from_secs(6)));
    job.id = add(&conn, &job, Some("key"));
    assert_eq!(query::get(&conn, job.id).unwrap().as_ref(), Some(&job));
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    conn.execute(
        "UPDATE kiln_jobs SET attempt = 2, crashes = 3, attempted_by = '[\"n\",\"r\"]', attempted_at = 1000000,
         completed_at = 2000000, cancelled_at = 3000000, discarded_at = 4000000, cancel_requested_at = 5000000",
        [],
    )
    .unwrap();
    let read = query::get(&conn, job.id).unwrap().unwrap();
    let expected = Job {
        attempt: 2,
        crashes: 3,
        attempted_by: vec!["n".into(), "r".into()],
        attempted_at: Some(at(1)),
        completed_at: Some(at(2)),
        cancelled_at: Some(at(3)),
        discarded_at: Some(at(4)),
        cancel_requested_at: Some(at(5)),
        ..job
    };
    assert_eq!(read, expected);
    let mut changed = new(NewJob::new("other").queue("r").priority(1));
    (changed.id, changed.state) = (read.id, State::Suspended);
    operate::update(&conn, &read, &changed).unwrap();
    let inserted_at = expected.inserted_at;
    let kept = Job { inserted_at, args: changed.args.clone(), ..changed.clone() };
    let there = query::get(&conn, read.id).unwrap().unwrap();
    assert_eq!((there.worker.as_str(), there.queue.as_str(), there.state), ("other", "r", State::Suspended));
    assert_eq!((there.inserted_at, there.scheduled_at, there.expires_at), (kept.inserted_at, kept.scheduled_at, None));
    assert_eq!((there.attempt, there.crashes, there.tags), (2, 3, vec![]), "an update leaves the job's life as it is");
}

#[test]
fn the_columns_of_a_job_are_those_of_the_schema_but_for_what_only_statements_use() {
    let conn = memory();
    let select = conn.prepare("SELECT * FROM kiln_jobs").unwrap();
    let schema: BTreeSet<&str> = select.column_names().into_iter().collect();
    let job: BTreeSet<&str> = columns::NAMES.split(", ").collect();
    assert!(job.is_subset(&schema));
    let rest: Vec<&str> = schema.difference(&job).copied().collect();
    assert_eq!(rest, ["checkpoint", "checkpoint_of", "progress", "resumes", "unique_key"]);
}

/// Tables and indexes that have a few rows at any depth, which a statement may scan.
const FEW: [&str; 7] = [
    "kiln_schema",
    "kiln_runtimes",
    "kiln_crons",
    "kiln_queues",
    "kiln_jobs_executing",
    "kiln_jobs_exhausted",
    "rarray VIRTUAL TABLE",
];

fn assert_no_scan(conn: &Connection) {
    let all = [
        insert::statements(),
        claim::statements(),
        ack::statements(),
        rescue::statements(),
        sweep::statements(),
        operate::statements(),
        query::statements(),
        crons::statements(),
        queues::statements(),
        runtimes::statements(),
    ];
    for sql in all.concat() {
        let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![Value::Null; explain.parameter_count()];
        let plan = explain.query_map(params_from_iter(parameters), |row| row.get::<_, String>(3)).unwrap();
        for step in plan.map(Result::unwrap) {
            let scans = step.starts_with("SCAN") && !FEW.iter().any(|name| step.contains(name));
            assert!(!scans && !step.contains("TEMP B-TREE"), "{step}\nin {sql}");
        }
    }
}

#[test]
fn no_statement_scans_the_jobs_with_or_without_statistics() {
    let conn = memory();
    assert_no_scan(&conn);
    for n in 0..3000 {
        add(&conn, &new(NewJob::new(WORKER).priority(n % 10)), None);
    }
    conn.execute_batch("UPDATE kiln_jobs SET state = 'completed', completed_at = id WHERE id % 3 = 0; ANALYZE")
        .unwrap();
    assert_no_scan(&conn);
}

#[test]
fn what_executes_and_what_is_to_be_pruned_is_found_in_as_many_steps_however_many_jobs_have_ended() {
    let steps = |completed: usize| {
        let conn = memory();
        for _ in 0..completed + 30 {
            add(&conn, &new(NewJob::new(WORKER)), None);
        }
        conn.execute_batch(
            "UPDATE kiln_jobs SET state = 'executing', attempted_at = 1 WHERE id <= 10;
             UPDATE kiln_jobs SET cancel_requested_at = 1 WHERE id <= 5;
             UPDATE kiln_jobs SET state = 'cancelled', cancelled_at = id WHERE id BETWEEN 11 AND 20;
             UPDATE kiln_jobs SET state = 'discarded', discarded_at = id WHERE id BETWEEN 21 AND 30;
             UPDATE kiln_jobs SET state = 'completed', completed_at = id WHERE id > 30",
        )
        .unwrap();
        let cutoff: &[&dyn ToSql] = &[&15_000_000, &3];
        let [completed, cancelled, discarded, ..] = &sweep::statements()[..] else { unreachable!() };
        let [executing, _]: [String; 2] = rescue::statements().try_into().unwrap();
        [
            (executing.as_str(), 10, &[][..]),
            (query::CANCELLING, 5, &[]),
            (cancelled, 3, cutoff),
            (discarded, 3, cutoff),
            (completed, 3, cutoff),
        ]
        .map(|(sql, expected, parameters)| {
            let mut statement = conn.prepare(sql).unwrap();
            let found = if statement.column_count() == 0 {
                statement.execute(parameters).unwrap()
            } else {
                statement.query_map(parameters, |_| Ok(())).unwrap().count()
            };
            assert_eq!(found, expected, "{sql}");
            statement.get_status(StatementStatus::VmStep)
        })
    };
    assert_eq!(steps(100), steps(3000));
}

#[test]
fn a_claim_is_no_more_work_among_suspects_and_the_search_for_a_suspect_is_none_among_the_discarded() {
    let steps = |count: i64| {
        let conn = memory();
        for _ in 0..2 * count + 10 {
            add(&conn, &new(NewJob::new(WORKER)), None);
        }
        let crashed = "UPDATE kiln_jobs SET crashes = 3, priority = 1, state = iif(id > ?1, state, 'discarded')
                       WHERE id <= 2 * ?1";
        conn.execute(crashed, [count]).unwrap();
        conn.execute("UPDATE kiln_jobs SET crashes = 0 WHERE state = 'available' AND id < ?1 + ?1 - 1", [count])
            .unwrap();
        let [_, suspects, .., one, _, _] = &claim::statements()[..] else { unreachable!() };
        let steps = |sql: &str, parameters: &[&dyn ToSql], expected: usize| {
            let mut statement = conn.prepare(sql).unwrap();
            assert_eq!(statement.query_map(parameters, |_| Ok(())).unwrap().count(), expected);
            statement.get_status(StatementStatus::VmStep)
        };
        (steps(suspects, &[&"default"], 2), steps(one, &[&"default", &5, &WORKER], 5))
    };
    assert_eq!(steps(10), steps(1000));
}

/// How much work the search for a duplicate is, in steps of SQLite's machine: the same on every computer.
fn duplicate_steps(conn: &Connection, unique: &Unique, args: i64) -> i32 {
    let job = NewJob::new(WORKER).args(serde_json::json!({ "n": args })).unique(unique.clone());
    let check = job.build(NOW, |_| {}).unwrap().check.unwrap();
    let [_, _, duplicate, ..]: [String; 5] = insert::statements().try_into().unwrap();
    let mut search = conn.prepare(&duplicate).unwrap();
    let since = check.since.map_or(i64::MIN, Timestamp::as_microsecond);
    for state in State::SUCCESSFUL {
        let parameters = (&check.key, state.as_str(), since, NOW.as_microsecond());
        search.query_map(parameters, |row| row.get::<_, i64>(0)).unwrap().for_each(drop);
    }
    search.get_status(StatementStatus::VmStep)
}

#[test]
fn the_search_for_a_duplicate_is_no_more_work_among_many_jobs_than_among_few() {
    let hour = jiff::SignedDuration::from_hours(1);
    let by_enqueue = Unique::new().within(std::time::Duration::from_secs(60));
    let ways = [by_enqueue.clone(), by_enqueue.clone().by_schedule(), Unique::new()];
    let [few, many] = [1_000, 30_000].map(|rows| {
        let conn = memory();
        conn.execute_batch("BEGIN").unwrap();
        for n in 0..rows {
            // Half of them have their own arguments; the others are long past, have the same arguments, and have ended.
            let (args, at) = if n % 2 == 0 { (n, NOW) } else { (-1, NOW - hour) };
            let job = NewJob::new(WORKER).args(serde_json::json!({ "n": args }));
            let ready = job.unique(ways[n as usize / 2 % 3].clone()).build(at, |_| {}).unwrap();
            add(&conn, &ready.job, Some(&ready.check.unwrap().key));
        }
        let ended = "UPDATE kiln_jobs SET state = 'completed' WHERE inserted_at < ?1";
        conn.execute(ended, [NOW.as_microsecond()]).unwrap();
        let mut work = Vec::new();
        for (n, unique) in ways.iter().enumerate() {
            let there = 2 * (n as i64 + 3);
            work.extend([there, rows + 1, -1].map(|args| duplicate_steps(&conn, unique, args)));
        }
        work
    });
    assert!(few.iter().all(|steps| *steps > 10), "something was searched");
    assert_eq!(few, many);
}

#[test]
fn what_another_program_wrote_into_a_row_is_read_and_shown() {
    let conn = memory();
    let id = add(&conn, &new(NewJob::new(WORKER)), None);
    conn.execute(
        "UPDATE kiln_jobs SET state = 'odd', args = x'ff', tags = 'word', errors = 'half', attempt = 'three',
         priority = 2.5, attempted_by = 7, scheduled_at = 'never', attempted_at = '2026-01-01T00:00:00Z'",
        [],
    )
    .unwrap();
    let job = query::list(&conn, &Filter::new()).unwrap().remove(0);
    assert_eq!(
        (job.id, job.state, job.tags, job.attempt, job.priority),
        (id, State::Unknown, vec!["word".into()], 0, 2)
    );
    assert_eq!((job.errors[0].error.as_str(), job.scheduled_at), ("half", job.inserted_at));
    assert_eq!(job.attempted_at, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(query::rows(&conn, &Filter::new(), 0).unwrap()[0].id, id);
}
