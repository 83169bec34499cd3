use super::super::claim::MOST_BYTES;
use super::*;

#[test]
fn a_claim_merges_its_workers_in_claim_order() {
    let memory = &mut Memory::new();
    let mut expected = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let worker = [WORKER, "app.Other", "app.Unknown"][random.usize(..3)];
        let mut job = ready(NewJob::new(worker).priority(random.i64(0..3)));
        job.job.scheduled_at = NOW - SignedDuration::from_secs(random.i64(0..3));
        let job = memory.enqueue(vec![job]).remove(0);
        if worker != "app.Unknown" {
            expected.push((job.priority, job.scheduled_at, job.id));
        }
    }
    expected.sort_unstable();
    let claimed = memory.claim(1000).claimed;
    let found: Vec<_> = claimed.iter().map(|c| (c.job.priority, c.job.scheduled_at, c.job.id)).collect();
    assert_eq!(found, expected);
    let fences: HashSet<Fence> = claimed.iter().map(|claimed| claimed.attempt.fence).collect();
    assert_eq!(fences.len(), expected.len());
    for claimed in claimed {
        assert_eq!(memory.get(claimed.job.id), Some(claimed.job), "as it is stored");
    }
}

#[test]
fn an_attempt_given_back_and_claimed_again_at_the_same_time_has_another_fence() {
    let memory = &mut Memory::new();
    memory.add(NewJob::new(WORKER));
    let mut fences = HashSet::new();
    for _ in 0..5 {
        let fence = memory.claim(1).claimed[0].attempt.fence;
        assert_eq!(fence.attempt, 1);
        assert!(fences.insert(fence));
        memory.ack(vec![Ack { fence, verdict: Verdict::Release }]);
    }
}

#[test]
fn a_claim_that_runs_ahead_carries_no_more_than_so_many_bytes() {
    let memory = &mut Memory::new();
    let huge = serde_json::json!({ "text": "h".repeat(MOST_BYTES / 4) });
    memory.enqueue((0..40).map(|_| ready(NewJob::new(WORKER).args(&huge))).collect());
    let claim = |memory: &mut Memory, limit, slots| {
        let demands = vec![Demand { queue: QUEUE.into(), limit, slots }];
        let done = memory.turn(&Part { demands, ..part(vec![], 0) });
        (done.claimed.len(), done.more)
    };
    assert_eq!(claim(memory, 400, 0), (4, true));
    assert_eq!(claim(memory, 400, 2), (4, true));
    assert_eq!(claim(memory, 400, 9), (9, true), "each has a thread");
    assert_eq!(claim(memory, 3, 3), (3, false), "what was asked for was found");
    memory.execute("UPDATE kiln_jobs SET expires_at = 5 WHERE id <= 32");
    assert_eq!(claim(memory, 400, 1), (0, true), "those that have expired are no lighter");
    while let (0, more) = claim(memory, 400, 1) {
        assert!(more);
    }
}

#[test]
fn an_expired_job_is_cancelled_and_the_next_one_is_claimed() {
    let memory = &mut Memory::new();
    let late = memory.add(NewJob::new(WORKER).expires_at(NOW)).id;
    let next = memory.add(NewJob::new(WORKER).expires_at(NOW + SignedDuration::from_secs(1))).id;
    let suspect = memory.add(NewJob::new(WORKER).expires_at(NOW)).id;
    memory.conn.execute("UPDATE kiln_jobs SET crashes = 2 WHERE id = ?1", [suspect]).unwrap();
    let done = memory.claim(2);
    assert_eq!(done.claimed.iter().map(|claimed| claimed.job.id).collect::<Vec<_>>(), [next]);
    assert_eq!(done.expired.iter().map(|job| job.id).collect::<Vec<_>>(), [late, suspect]);
    for id in [late, suspect] {
        let job = memory.get(id).unwrap();
        assert_eq!((job.state, job.errors.len()), (State::Cancelled, 1));
    }
}

#[test]
fn a_job_whose_attempt_of_before_still_runs_here_is_not_claimed_here() {
    let memory = &mut Memory::new();
    let jobs: Vec<i64> = (0..3).map(|_| memory.add(NewJob::new(WORKER)).id).collect();
    memory.execute("UPDATE kiln_jobs SET attempt = 1, attempted_at = 1 WHERE id <= 2");
    memory.execute("UPDATE kiln_jobs SET crashes = 2 WHERE id = 2");
    let held = HashSet::from_iter(jobs.iter().copied());
    let done = memory.turn(&Part { held, ..part(vec![], 1) });
    // The third was never claimed: the set says nothing of it.
    assert_eq!(done.claimed.iter().map(|claimed| claimed.job.id).collect::<Vec<_>>(), [3]);
    assert_eq!(memory.get(1).unwrap().state, State::Available);
    assert_eq!(done.passed, [1, 2], "so that they are claimed when their attempts have ended");
    assert_eq!(memory.claim(2).claimed.len(), 2, "another runtime claims them");
}

fn suspects(memory: &mut Memory, count: usize) {
    for _ in 0..count {
        let id = memory.add(NewJob::new(WORKER)).id;
        memory.conn.execute("UPDATE kiln_jobs SET crashes = 2 WHERE id = ?1", [id]).unwrap();
    }
}

fn claimed_at(memory: &mut Memory, seconds: i64, limit: usize) -> (Vec<i64>, Done) {
    let now = NOW + SignedDuration::from_secs(seconds);
    let done = memory.turn(&Part { now, ..part(vec![], limit) });
    (done.claimed.iter().map(|claimed| claimed.job.id).collect(), done)
}

#[test]
fn one_suspect_is_claimed_at_a_time_and_after_ordinary_jobs() {
    let memory = &mut Memory::new();
    suspects(memory, 2);
    memory.add(NewJob::new(WORKER));
    let (found, first) = claimed_at(memory, 0, 5);
    assert_eq!(found, [3, 1]);
    assert!(first.claimed[0].suspect.is_none() && first.claimed[1].suspect.is_some());
    assert_eq!(claimed_at(memory, 100, 5).0, [0; 0], "the place is taken");
    drop(first);
    assert_eq!(claimed_at(memory, 100, 0).0, [0; 0], "no thread is free");
    let ahead = Part { demands: vec![Demand { queue: QUEUE.into(), limit: 5, slots: 0 }], ..part(vec![], 0) };
    assert_eq!(memory.turn(&ahead).claimed.len(), 0, "a suspect is never claimed ahead");
    let (found, second) = claimed_at(memory, 100, 5);
    assert_eq!(found, [2]);
    // A transaction that was rolled back drops what it had claimed, and with it the place.
    drop(second);
    memory.execute("UPDATE kiln_jobs SET state = 'available' WHERE id = 2");
    assert_eq!(claimed_at(memory, 100, 5).0, [2]);
}

#[test]
fn a_suspect_that_has_waited_for_a_minute_goes_before_ordinary_jobs() {
    let memory = &mut Memory::new();
    suspects(memory, 1);
    memory.enqueue((0..200).map(|_| ready(NewJob::new(WORKER))).collect());
    for seconds in 0..60 {
        assert_ne!(claimed_at(memory, seconds, 1).0, [1], "ordinary jobs fill the demand");
    }
    let (found, first) = claimed_at(memory, 60, 2);
    assert_eq!(found[0], 1);
    assert!(first.claimed[0].suspect.is_some() && found.len() == 2);
    assert_ne!(claimed_at(memory, 61, 1).0, [1]);
}

#[test]
fn a_suspect_of_an_unknown_worker_or_without_an_attempt_left_keeps_no_other_waiting() {
    let memory = &mut Memory::new();
    suspects(memory, 3);
    memory.execute("UPDATE kiln_jobs SET worker = 'unknown' WHERE id = 1");
    memory.execute("UPDATE kiln_jobs SET attempt = max_attempts WHERE id = 2");
    assert_eq!(claimed_at(memory, 0, 5).0, [3]);
}

#[test]
fn a_suspect_that_is_left_is_refused_the_place_so_that_its_runtime_hears_when_the_place_is_free() {
    let memory = &mut Memory::new();
    let suspects_of_process = Suspects::default();
    memory.state = ClaimState::new(suspects_of_process.clone());
    let (listener, signals) = crossbeam_channel::bounded(1);
    suspects_of_process.register(listener);
    suspects(memory, 2);
    let (found, first) = claimed_at(memory, 0, 5);
    assert_eq!((found, signals.len()), (vec![1], 0));
    drop(first);
    assert_eq!(signals.len(), 1);
    signals.recv().unwrap();
    let (found, second) = claimed_at(memory, 1, 5);
    assert_eq!(found, [2]);
    drop(second);
    assert_eq!(signals.len(), 0, "nobody waits any more");
}

#[test]
fn a_queue_in_which_a_suspect_may_wait_for_a_thread_is_named() {
    let memory = &mut Memory::new();
    let waiting = |memory: &mut Memory, seconds, slots| {
        let now = NOW + SignedDuration::from_secs(seconds);
        let demands = vec![Demand { queue: QUEUE.into(), limit: 5, slots }];
        let done = memory.turn(&Part { now, demands, ..part(vec![], 0) });
        done.waiting.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(waiting(memory, 0, 0), [""; 0], "there is none");
    suspects(memory, 1);
    // The queue was searched a moment ago, and is not searched again.
    assert_eq!(waiting(memory, 0, 0), [QUEUE]);
    assert_eq!(waiting(memory, 2, 0), [QUEUE]);
    assert_eq!(waiting(memory, 2, 1), [""; 0], "it was claimed");
}
