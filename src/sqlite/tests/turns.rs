use super::*;
use crate::engine::{Claimed, LOAD};

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
