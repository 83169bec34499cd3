use std::sync::mpsc;

use super::*;
use crate::engine::{Claimed, LOAD};
use crate::job::Ready;
use crate::sqlite::solitude::Solitude;

/// It had completed its job by itself, and an ack of its end is as late among many as it is alone.
#[test]
fn a_late_ack_among_many_others_is_told_as_it_would_be_alone() {
    let engine = engine();
    let turn = |acks, limit| {
        let demands = vec![Demand { queue: QUEUE.into(), limit, slots: limit }];
        engine.take_turn(Turn::by_hand(member(), NOW, acks, demands)).unwrap()
    };
    engine.enqueue((0..40).map(|_| NewJob::new(WORKER).build(NOW, |_| {}).unwrap()).collect()).unwrap();
    // Every other one is claimed later, so that none of them are neighbours.
    engine.writer.with(|conn| conn.execute_batch("UPDATE kiln_jobs SET priority = id % 2").unwrap());
    let ack = |claimed: Claimed| Ack { fence: claimed.attempt.fence, verdict: Verdict::Complete };
    let acks: Vec<Ack> = turn(vec![], 20).claimed.into_iter().map(ack).collect();
    engine.writer.with(|conn| within::complete(conn, acks[5].fence, NOW).unwrap());
    let acked = turn(acks, 0).acked;
    let expected = |n| (n != 5).then_some(State::Completed);
    assert_eq!(acked, (0..20).map(expected).collect::<Vec<_>>());
}

/// All that is claimed is in memory: beyond what has a thread, a few huge jobs are as good as many.
#[test]
fn a_claim_that_runs_ahead_carries_no_more_than_so_many_bytes() {
    let engine = engine();
    let huge = serde_json::json!({ "text": "h".repeat(LOAD / 4) });
    let jobs = (0..40).map(|_| NewJob::new(WORKER).args(&huge).build(NOW, |_| {}).unwrap()).collect();
    engine.enqueue(jobs).unwrap();
    let claim = |limit, slots| {
        let demands = vec![Demand { queue: QUEUE.into(), limit, slots }];
        let done = engine.take_turn(Turn::by_hand(member(), NOW, Vec::new(), demands)).unwrap();
        (done.claimed.len(), done.more)
    };
    assert_eq!(claim(400, 0), (4, true));
    assert_eq!(claim(400, 2), (4, true));
    assert_eq!(claim(400, 9), (9, true), "each has a thread");
    assert_eq!(claim(3, 3), (3, false), "what was asked for was found");
    engine.writer.with(|conn| conn.execute_batch("UPDATE kiln_jobs SET expires_at = 5 WHERE id <= 32").unwrap());
    assert_eq!(claim(400, 1), (0, true), "those that have expired are no lighter");
    while let (0, more) = claim(400, 1) {
        assert!(more);
    }
}

/// What a caller has to do.
struct Count(u64);

impl Op for Count {
    fn run(&mut self, _: &mut Tx<'_>) -> Result<()> {
        // So that others come meanwhile, and wait in line.
        std::thread::sleep(Duration::from_micros(300));
        self.0 += 1;
        Ok(())
    }
}

/// Each has been kept for long enough before it has done anything, as one that the system held up: it hands over at the
/// first moment it may. One that handed over to itself, as it could while nobody else was in line, would leave everybody
/// after it waiting.
#[test]
fn callers_lead_in_turn_and_each_has_its_own_answer() {
    let mut engine = engine();
    Arc::get_mut(&mut engine.writer).unwrap().kept = Duration::ZERO;
    let engine = Arc::new(engine);
    for (callers, writes) in std::iter::repeat_n((2, 1), 50).chain([(12, 40)]) {
        let (done, all) = mpsc::channel();
        for caller in 0..callers {
            let (engine, done) = (Arc::clone(&engine), done.clone());
            std::thread::spawn(move || {
                for n in 0..writes {
                    let number = caller * 1000 + n;
                    assert_eq!(engine.writer.write(Need::Ride, Count(number)).unwrap().0, number + 1);
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..callers {
            all.recv_timeout(Duration::from_secs(30)).expect("nobody waits for ever, and each has its own answer");
        }
    }
}

/// All rows, cell by cell.
fn rows(engine: &Sqlite) -> Vec<Vec<Value>> {
    engine.writer.with(|conn| {
        let mut select = conn.prepare("SELECT * FROM kiln_jobs ORDER BY id").unwrap();
        let columns = select.column_count();
        let read = |row: &rusqlite::Row<'_>| (0..columns).map(|n| row.get(n)).collect();
        select.query_map([], read).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    })
}

/// Whatever is there already, and whoever asks: a job that a turn may claim as it stores it ends up where it would have been
/// claimed, or not, after it was stored.
#[test]
fn a_new_job_claimed_as_it_is_stored_is_as_one_that_is_stored_and_then_claimed() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut at_once, mut later, mut left) = (0, 0, 0);
    for _ in 0..400 {
        let new = |dice: &mut fastrand::Rng| {
            let job = NewJob::new(*dice.choice(&[WORKER, WORKER, "app.Other", "app.Unknown"]).unwrap());
            let job = job.queue(*dice.choice(&[QUEUE, QUEUE, QUEUE, "slow"]).unwrap());
            let job = job.args(serde_json::json!({ "n": dice.u8(..) })).priority(dice.i64(0..3));
            job.build(NOW - SignedDuration::from_secs(dice.i64(0..2)), |_| {}).unwrap()
        };
        let there: Vec<Ready> = (0..dice.usize(0..3)).map(|_| new(&mut dice)).collect();
        let executing = dice.usize(0..3);
        let job = new(&mut dice).job;
        let demand = |queue: &str, dice: &mut fastrand::Rng| {
            let slots = dice.usize(0..3);
            Demand { queue: queue.into(), limit: slots + dice.usize(0..2), slots }
        };
        let mut demands = vec![demand(QUEUE, &mut dice)];
        if dice.bool() {
            demands.insert(dice.usize(0..2), demand("slow", &mut dice));
        }
        let ways = [true, false].map(|storing| {
            let engine = engine();
            engine.enqueue(there.clone()).unwrap();
            let some = vec![Demand { queue: QUEUE.into(), limit: executing, slots: executing }];
            let claimed = engine.take_turn(Turn::by_hand(member(), NOW, vec![], some)).unwrap().claimed;
            let ack = |claim: &Claimed| Ack { fence: claim.attempt.fence, verdict: Verdict::Complete };
            let acks = claimed.first().map(ack).into_iter().collect();
            let turn = Turn::by_hand(member(), NOW + SignedDuration::from_secs(1), acks, demands.clone());
            let mut job = job.clone();
            let done = engine.writer.with(|conn| {
                let (mut tx, turns, apart) = (Tx::new(conn), std::slice::from_ref(&turn), Solitude::apart());
                if !storing {
                    enqueue::enqueue_one(&mut tx, &mut job).unwrap();
                }
                claim::turns(&mut tx, turns, Some(&mut job).filter(|_| storing), &apart).unwrap()
            });
            let claimed: Vec<Job> = done[0].claimed.iter().map(|claim| claim.job.clone()).collect();
            (rows(&engine), job, claimed, done[0].acked.clone(), done[0].more, done[0].held)
        });
        assert_eq!(ways[0], ways[1]);
        let [(_, job, claimed, ..), _] = &ways;
        match claimed.iter().any(|claimed| claimed.id == job.id) {
            true if claimed.len() == 1 => at_once += 1,
            true => later += 1,
            false => left += 1,
        }
    }
    assert!(at_once > 20 && later > 5 && left > 20, "{at_once} at once, {later} with others, {left} left");
}
