mod claim;
mod rescue;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::claim::{ClaimState, by_hand};
use super::enqueue::Enqueue;
use super::operate::{cancel, delete, operate, retry, update};
use super::rescue::rescue_older;
use super::sweep::{Cutoffs, prune, stage};
use super::tx::{Batch, Call, Demand, Done, Member, Operation, Part, Tx};
use crate::error::Result;
use crate::job::{Ack, Changes, Fence, Filter, Job, NewJob, Note, Outcome, Ready, State, Unique, Verb, Verdict, Which};
use crate::presence::{Rules, Suspects};
use crate::store;
use crate::store::query;
use crate::store::scratch::memory;
use crate::store::sweep::{Changed, ChangedJobs};

const NOW: Timestamp = Timestamp::constant(1_767_268_800, 0);
const QUEUE: &str = "default";
const WORKER: &str = "app.Worker";

/// A database in memory, and what a turn keeps from one transaction to the next.
struct Memory {
    conn: Connection,
    known: i64,
    state: ClaimState,
}

impl Memory {
    fn new() -> Self {
        Self { conn: memory(), known: 0, state: ClaimState::default() }
    }

    fn within<T>(&mut self, body: impl FnOnce(&mut Tx<'_>, &mut ClaimState) -> T) -> T {
        self.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut tx = Tx::new(&self.conn, self.known);
        let result = body(&mut tx, &mut self.state);
        let newest = tx.newest;
        self.conn.execute_batch("COMMIT").unwrap();
        self.known = newest.unwrap_or(self.known);
        result
    }

    fn run<O: Operation>(&mut self, mut operation: O) -> O {
        self.within(|tx, _| operation.run(tx)).unwrap();
        operation
    }

    fn call<T: Send>(&mut self, function: impl FnMut(&mut Tx<'_>) -> Result<T> + Send) -> T {
        self.run(Call::new(function)).finish()
    }

    /// Applies a verb to all of the jobs at once.
    fn operate(&mut self, which: Which, verb: impl Fn(&mut Tx<'_>, i64) -> Result<Option<Changed>> + Sync) {
        assert_eq!(self.call(|tx| operate(tx, &which, None, false, &verb)).1, None);
    }

    fn cancel(&mut self, which: Which) {
        self.operate(which, |tx, id| cancel(tx, id, NOW));
    }

    fn retry(&mut self, which: Which) {
        self.operate(which, |tx, id| retry(tx, id, NOW));
    }

    fn prune(&mut self, cutoffs: Cutoffs) -> ChangedJobs {
        self.call(|tx| prune(tx, &cutoffs, batch(false)))
    }

    fn enqueue(&mut self, jobs: Vec<Ready>) -> Vec<Job> {
        self.run(Enqueue::new(jobs)).finish()
    }

    fn add(&mut self, job: NewJob) -> Job {
        self.enqueue(vec![ready(job)]).remove(0)
    }

    fn turn(&mut self, part: &Part) -> Done {
        self.within(|tx, state| by_hand(tx, part, state)).unwrap()
    }

    fn claim(&mut self, limit: usize) -> Done {
        self.turn(&part(vec![], limit))
    }

    fn ack(&mut self, acks: Vec<Ack>) -> Vec<Option<State>> {
        self.turn(&part(acks, 0)).acked
    }

    fn get(&self, id: i64) -> Option<Job> {
        query::get(&self.conn, id).unwrap()
    }

    fn execute(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }

    fn number(&self, sql: &str) -> i64 {
        self.conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn ready(job: NewJob) -> Ready {
    job.build(NOW, |_| {}).unwrap()
}

fn member(workers: &[&str]) -> Arc<Member> {
    Arc::new(Member {
        id: "me".into(),
        node: "here".into(),
        workers: workers.iter().map(|worker| (*worker).to_owned()).collect(),
        started_at: NOW,
        damaged: Arc::default(),
    })
}

fn part(acks: Vec<Ack>, limit: usize) -> Part {
    let demands = vec![Demand { queue: QUEUE.into(), limit, slots: limit }];
    Part { runtime: member(&[WORKER, "app.Other"]), now: NOW, acks, demands, held: HashSet::new() }
}

fn ids(ids: &[i64]) -> Which {
    Which::Ids(ids.to_vec())
}

/// A job in this state, an hour old, with an attempt behind it and more to come.
fn job_in(memory: &mut Memory, state: State) -> Job {
    let hour_ago = NOW - SignedDuration::from_hours(1);
    let job = NewJob::new(WORKER).build(hour_ago, |_| {}).unwrap();
    let id = memory.enqueue(vec![job])[0].id;
    let sql = "UPDATE kiln_jobs SET state = ?2, attempt = 2, max_attempts = 5, attempted_at = ?3, attempted_by = '[]',
               completed_at = iif(?2 = 'completed', ?3, NULL), cancelled_at = iif(?2 = 'cancelled', ?3, NULL),
               discarded_at = iif(?2 = 'discarded', ?3, NULL) WHERE id = ?1";
    memory.conn.execute(sql, (id, state.as_str(), hour_ago.as_microsecond())).unwrap();
    memory.get(id).unwrap()
}

fn apply(memory: &mut Memory, verb: Verb, job: &Job) {
    let which = ids(&[job.id]);
    let fence = Fence { id: job.id, attempt: 2, attempted_at: job.attempted_at.unwrap().as_microsecond() };
    let cutoff = Some(NOW - SignedDuration::from_mins(1));
    match verb {
        Verb::Stage => drop(memory.call(|tx| stage_due(tx, false))),
        Verb::Claim => drop(memory.claim(1)),
        Verb::Ack => drop(memory.ack(vec![Ack { fence, verdict: Verdict::Complete }])),
        Verb::Rescue => drop(memory.call(|tx| rescue_old(tx, false))),
        Verb::Cancel => memory.cancel(which),
        Verb::Retry => memory.retry(which),
        Verb::Delete => memory.operate(which, delete),
        Verb::Update => {
            let changes = Changes::new().priority(7);
            memory.operate(which, move |tx, id| update(tx, id, &changes, NOW));
        }
        Verb::Prune => {
            let cutoffs = Cutoffs { completed: cutoff, cancelled: cutoff, discarded: cutoff };
            memory.prune(cutoffs);
        }
    }
}

fn batch(wanted: bool) -> Batch {
    Batch { now: NOW, size: 10, wanted }
}

fn stage_due(tx: &mut Tx<'_>, wanted: bool) -> Result<ChangedJobs> {
    stage(tx, &[QUEUE.to_owned()], batch(wanted))
}

fn rescue_old(tx: &mut Tx<'_>, wanted: bool) -> Result<ChangedJobs> {
    rescue_older(tx, NOW, &HashSet::new(), batch(wanted))
}

#[test]
fn every_verb_does_something_in_just_the_states_that_the_table_allows() {
    use Verb::*;
    for state in State::ALL {
        for verb in [Stage, Claim, Ack, Rescue, Cancel, Retry, Delete, Update, Prune] {
            let memory = &mut Memory::new();
            let before = job_in(memory, state);
            let bystander = job_in(memory, State::Suspended);
            apply(memory, verb, &before);
            let changed = memory.get(before.id) != Some(before);
            assert_eq!(changed, state.allows(verb), "{verb:?} of a job that is {state}");
            assert_eq!(memory.get(bystander.id), Some(bystander));
        }
    }
}

#[test]
fn an_id_is_never_given_twice_whichever_way_the_newest_job_goes() {
    let memory = &mut Memory::new();
    let mut expected = 1;
    let mut next = |memory: &mut Memory| {
        assert_eq!(memory.add(NewJob::new(WORKER)).id, expected);
        expected += 1;
    };
    (0..3).for_each(|_| next(memory));
    memory.operate(ids(&[2, 3]), delete);
    next(memory);
    memory.operate(Which::Matching(Filter::new()), delete);
    next(memory);
    memory.cancel(Which::Matching(Filter::new()));
    let cutoffs = Cutoffs { cancelled: Some(NOW), ..Cutoffs::default() };
    memory.prune(cutoffs);
    assert_eq!(memory.number("SELECT count(*) FROM kiln_jobs"), 0);
    // A delete in the same transaction as the jobs before and after it.
    memory.within(|tx, _| {
        Enqueue::new(vec![ready(NewJob::new(WORKER))]).run(tx).unwrap();
        operate(tx, &ids(&[6]), None, false, &delete).unwrap();
        let mut enqueue = Enqueue::new(vec![ready(NewJob::new(WORKER)), ready(NewJob::new(WORKER))]);
        enqueue.run(tx).unwrap();
        let given: Vec<i64> = enqueue.finish().iter().map(|job| job.id).collect();
        assert_eq!(given, [7, 8]);
    });
    expected = 9;
    assert_eq!(memory.add(NewJob::new(WORKER)).id, expected);
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
            jobs.push(ready(if random.u8(..20) == 0 { job.unique(Unique::new()) } else { job }));
        }
    }
    let memory = &mut Memory::new();
    memory.enqueue(vec![jobs[0].clone()]);
    memory.operate(ids(&[1]), delete);
    let stored = memory.enqueue(jobs.clone());
    assert_eq!(stored.len(), jobs.len());
    for (n, (stored, given)) in stored.into_iter().zip(jobs).enumerate() {
        assert_eq!(stored.id, n as i64 + 2);
        assert_eq!(memory.get(stored.id), Some(Job { id: stored.id, ..given.job.clone() }));
        assert_eq!(stored, Job { id: stored.id, ..given.job });
    }
}

#[test]
fn of_jobs_with_one_key_the_first_is_stored_and_the_others_find_it_until_it_is_cancelled() {
    let memory = &mut Memory::new();
    let unique =
        || NewJob::new(WORKER).priority(5).unique(Unique::new().replace(State::Available, [crate::Field::Priority]));
    let jobs = vec![ready(unique()), ready(NewJob::new("other")), ready(unique().priority(2))];
    let stored = memory.enqueue(jobs);
    let found: Vec<(i64, bool, i64)> = stored.iter().map(|job| (job.id, job.conflict, job.priority)).collect();
    assert_eq!(found, [(1, false, 5), (2, false, 0), (1, true, 2)]);
    assert_eq!(memory.get(1).unwrap().priority, 2);
    memory.cancel(ids(&[1]));
    assert_eq!(memory.add(unique()).id, 3);
}

#[test]
fn of_many_acks_at_once_those_that_are_late_change_nothing_and_are_told() {
    for record in [false, true] {
        let memory = &mut Memory::new();
        memory.enqueue((0..100).map(|_| ready(NewJob::new(WORKER))).collect());
        let fences: Vec<Fence> = memory.claim(100).claimed.iter().map(|claimed| claimed.attempt.fence).collect();
        let late = [
            (3, "attempt = 2"),
            (20, "attempted_at = attempted_at + 1"),
            (21, "state = 'available'"),
            (50, "state = 'completed', attempt = 7"),
            (99, "id = 1000"),
        ];
        let change = |n: usize, how: &str| {
            let sql = format!("UPDATE kiln_jobs SET {how} WHERE id = ?1");
            memory.conn.execute(&sql, [fences[n].id]).unwrap();
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
        for (n, state) in memory.ack(acks).into_iter().enumerate() {
            let expected = match n {
                10 => Some(State::Cancelled),
                _ if late.iter().any(|(late, _)| *late == n) => None,
                _ => Some(State::Completed),
            };
            assert_eq!(state, expected, "ack {n}");
            if n != 99 {
                let job = memory.get(fences[n].id).unwrap();
                let recorded = (record && expected == Some(State::Completed)).then(|| value(n));
                assert_eq!(job.recorded::<serde_json::Value>().unwrap(), recorded, "ack {n}");
                assert_eq!(job.meta.get("mine"), (n == 70).then(|| 1.into()), "ack {n}");
            }
        }
        let completed = memory.number("SELECT count(*) FROM kiln_jobs WHERE state = 'completed'");
        assert_eq!(completed, 95, "one was completed by another attempt");
    }
}

/// A job that was completed in the application's transaction has such an ack.
#[test]
fn a_late_ack_among_many_is_told_as_it_would_be_alone() {
    let memory = &mut Memory::new();
    memory.enqueue((0..40).map(|_| ready(NewJob::new(WORKER))).collect());
    // Every other job is claimed later, so that no two are neighbours.
    memory.execute("UPDATE kiln_jobs SET priority = id % 2");
    let claimed = memory.claim(20).claimed;
    let ack = |n: usize, verdict| Ack { fence: claimed[n].attempt.fence, verdict };
    assert!(super::ack::complete_within(&memory.conn, claimed[5].attempt.fence, NOW).unwrap());
    let acks = (0..20).map(|n| ack(n, if n == 5 { Verdict::Committed } else { Verdict::Complete })).collect();
    assert_eq!(memory.ack(acks), vec![Some(State::Completed); 20]);
    assert_eq!(memory.ack(vec![ack(5, Verdict::Complete)]), [None]);
}

#[test]
fn an_ordinary_end_and_a_retry_forget_the_crashes_and_a_checkpoint_notes_its_attempt() {
    let memory = &mut Memory::new();
    for verdict in [
        Verdict::Complete,
        Verdict::Record { encoded: "e".into() },
        Verdict::Retry { at: NOW, error: "e".into() },
        Verdict::Release,
    ] {
        let is_end = verdict != Verdict::Release;
        let id = memory.add(NewJob::new(WORKER)).id;
        memory.execute("UPDATE kiln_jobs SET crashes = 1, resumes = 3");
        let fence = memory.claim(1).claimed[0].attempt.fence;
        let note = |text: &str| Note::Checkpoint(text.into());
        assert!(memory.call(|tx| store::ack::note(tx.conn, fence, &note("1"))));
        let other = Fence { attempted_at: fence.attempted_at + 1, ..fence };
        assert!(!memory.call(|tx| store::ack::note(tx.conn, other, &note("2"))));
        assert_eq!(memory.number("SELECT checkpoint_of - attempted_at FROM kiln_jobs"), 0);
        memory.ack(vec![Ack { fence, verdict }]);
        let counts = memory.number("SELECT 10 * crashes + resumes FROM kiln_jobs");
        assert_eq!(counts, if is_end { 0 } else { 13 });
        memory.execute("UPDATE kiln_jobs SET state = 'discarded', crashes = 3, resumes = 20");
        memory.retry(ids(&[id]));
        assert_eq!(memory.number("SELECT crashes + resumes FROM kiln_jobs"), 0);
        memory.execute("DELETE FROM kiln_jobs");
    }
}

/// Runs the operation, takes it back, as a transaction does in which another operation fails, and runs it again.
fn run_twice(memory: &mut Memory, operation: &mut impl Operation) {
    memory.conn.execute_batch("BEGIN").unwrap();
    operation.run(&mut Tx::new(&memory.conn, 0)).unwrap();
    memory.conn.execute_batch("ROLLBACK").unwrap();
    memory.within(|tx, _| operation.run(tx)).unwrap();
}

fn call_twice<T: Send>(memory: &mut Memory, function: impl FnMut(&mut Tx<'_>) -> Result<T> + Send) -> T {
    let mut call = Call::new(function);
    run_twice(memory, &mut call);
    call.finish()
}

#[test]
fn what_a_transaction_that_was_run_again_changed_is_told_once() {
    let memory = &mut Memory::new();
    let mut told = Vec::new();
    let mut tell = |changed: ChangedJobs| {
        told.extend(changed.jobs.into_iter().map(|changed| changed.job.id));
        changed.count
    };

    let waits = job_in(memory, State::Scheduled).id;
    assert_eq!(tell(call_twice(memory, |tx| stage_due(tx, true))), 1);

    let runs = job_in(memory, State::Executing).id;
    let exhausted = job_in(memory, State::Available).id;
    memory.conn.execute("UPDATE kiln_jobs SET attempt = 5 WHERE id = ?1", [exhausted]).unwrap();
    assert_eq!(tell(call_twice(memory, |tx| rescue_old(tx, true))), 2);

    let verb = |tx: &mut Tx<'_>, id| cancel(tx, id, NOW);
    let (cancelled, end) = call_twice(memory, |tx| operate(tx, &ids(&[waits, runs]), None, true, &verb));
    assert_eq!((tell(cancelled), end), (2, None));

    let cutoffs = Cutoffs { cancelled: Some(NOW), ..Cutoffs::default() };
    assert_eq!(tell(call_twice(memory, |tx| prune(tx, &cutoffs, batch(true)))), 2);
    assert_eq!(told, [waits, runs, exhausted, waits, runs, waits, runs]);

    let mut enqueue = Enqueue::new(vec![ready(NewJob::new(WORKER).unique(Unique::new()))]);
    run_twice(memory, &mut enqueue);
    let stored = enqueue.finish();
    assert!(stored.len() == 1 && !stored[0].conflict);
}

#[test]
fn a_verb_goes_on_with_the_next_batch_after_each_commit() {
    let memory = &mut Memory::new();
    memory.enqueue((0..2500).map(|_| ready(NewJob::new(WORKER))).collect());
    for which in [Which::Matching(Filter::new()), Which::Ids((1..=2500).collect())] {
        let changes = Changes::new().priority(3);
        let (mut counts, mut from) = (Vec::new(), None);
        loop {
            let verb = |tx: &mut Tx<'_>, id| update(tx, id, &changes, NOW);
            let (changed, end) = memory.call(|tx| operate(tx, &which, from, false, &verb));
            counts.push(changed.count);
            if end.is_none() {
                break;
            }
            from = end;
        }
        assert_eq!(counts, [1000, 1000, 500]);
    }
}
