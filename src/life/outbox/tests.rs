use super::*;
use crate::error::Kind;
use crate::job::{Attempt, End, Fence, NewJob};

fn ended() -> Ended {
    let job = NewJob::new("w").build(jiff::Timestamp::UNIX_EPOCH, |_| ()).unwrap().job;
    Ended::new(Arc::new(job), None, None)
}

fn ack(id: i64) -> Ack {
    let attempt = Attempt { fence: Fence { id, attempt: 1, attempted_at: 0 }, max_attempts: 1 };
    attempt.ack(End::Interrupted, jiff::Timestamp::UNIX_EPOCH)
}

fn outbox(acks: i64, now: Instant) -> Outbox {
    let mut outbox = Outbox::default();
    (1..=acks).for_each(|id| assert!(!outbox.add(ack(id), ended(), now), "it waits for company"));
    outbox
}

fn ids(acks: &[Ack]) -> Vec<i64> {
    acks.iter().map(|ack| ack.fence.id).collect()
}

fn torn() -> Error {
    Error::new(Kind::Storage, "torn")
}

fn full() -> Error {
    Error::new(Kind::Full, "full")
}

fn busy() -> Error {
    Error::new(Kind::Busy, "busy")
}

/// What was written, and the names of what is told.
type Ran = (Vec<i64>, Vec<&'static str>);

/// Runs a turn; if any of these acks is in it, it fails, and each ack is tried by itself.
fn run(outbox: &mut Outbox, broken: &[i64], now: Instant) -> Ran {
    let Mail { acks, ended, .. } = outbox.collect();
    let (mut written, mut events) = (Vec::new(), Vec::new());
    if !ids(&acks).iter().any(|id| broken.contains(id)) {
        written = ids(&acks);
        events.extend(outbox.written(acks.len(), now).1);
    } else {
        let mut left = outbox.unwritten();
        for (ack, ended) in acks.into_iter().zip(ended) {
            if broken.contains(&ack.fence.id) {
                events.extend(outbox.put_aside(ack, ended, &torn(), now));
            } else {
                written.push(ack.fence.id);
                events.extend(outbox.written(1, now).1);
                left -= 1;
            }
            assert_eq!(outbox.unwritten(), left, "what is still to be tried counts");
        }
    }
    (written, events.iter().map(Event::name).collect())
}

#[test]
fn one_ack_that_cannot_be_written_is_put_aside_and_tried_again() {
    let now = Instant::now();
    let outbox = &mut outbox(5, now);
    assert_eq!(run(outbox, &[2, 4], now), (vec![1, 3, 5], vec!["degraded"]));
    assert_eq!((outbox.unwritten(), outbox.trouble()), (2, Some("torn")));
    assert!(!outbox.is_halted() && !outbox.has_mail() && !outbox.is_due(now));
    let later = now + SOON;
    assert!(outbox.is_due(later) && outbox.has_mail());
    assert_eq!(run(outbox, &[4], later), (vec![2], vec![]));
    assert!(!outbox.is_due(later + SOON), "it is tried more rarely now");
    assert!(outbox.is_due(later + SOON * 2));
    assert_eq!(run(outbox, &[], later), (vec![4], vec![]));
    assert_eq!((outbox.unwritten(), outbox.trouble()), (0, Some("torn")), "that has to last");
    assert_eq!(outbox.look(later + SOON * 2).unwrap().name(), "recovered");
    assert_eq!(outbox.trouble(), None);
}

#[test]
fn without_space_nothing_is_claimed_and_tries_become_rare() {
    let mut now = Instant::now();
    let outbox = &mut outbox(2, now);
    let (mut waits, mut told) = (Vec::new(), 0);
    for n in 0..8 {
        let Mail { acks, ended, may_claim, .. } = outbox.collect();
        assert_eq!(ids(&acks), [1, 2], "acks are held, not lost, and in their order");
        assert_eq!((may_claim, outbox.is_halted()), (n == 0, n > 0));
        told += outbox.return_all(acks, ended, &full(), now).iter().count();
        let next = outbox.next.unwrap();
        waits.push(next.duration_since(now).as_millis());
        assert!(!outbox.is_due(next - Duration::from_millis(1)));
        now = next;
        assert!(outbox.is_due(now));
    }
    assert_eq!(waits, [700, 1400, 2800, 5600, 11_200, 22_400, 30_000, 30_000]);
    assert_eq!(told, 1, "it is told once");
    outbox.add(ack(3), ended(), now);
    assert_eq!(run(outbox, &[], now).0, [1, 2, 3]);
    assert!(outbox.is_halted(), "an ack may fit where a claim does not: the scheduler tries");
    outbox.resume();
    assert!(!outbox.is_halted());
}

#[test]
fn recovered_is_told_once_all_is_well_for_as_long_as_the_last_wait() {
    let mut now = Instant::now();
    let begun = now;
    let outbox = &mut outbox(1, now);
    let queue: Arc<str> = "q".into();
    assert_eq!(run(outbox, &[1], now).1, ["degraded"]);
    now += SOON;
    assert!(outbox.is_due(now));
    assert_eq!(run(outbox, &[1], now), (vec![], vec![]));
    now += SOON * 2;
    assert!(outbox.is_due(now));
    assert_eq!(run(outbox, &[], now), (vec![1], vec![]), "the last wait was of two");
    now += SOON;
    assert!(outbox.look(now).is_none());
    // Something else fails: it goes on, and the wait is longer.
    assert!(outbox.put_queue_aside(&queue, &torn(), now).is_none());
    assert!(outbox.look(now + SOON * 3).is_none());
    now += SOON * 4;
    assert!(outbox.is_due(now) && outbox.look(now).is_none());
    assert!(outbox.look(now + SOON * 4 - Duration::from_millis(1)).is_none());
    now += SOON * 4;
    let Some(Event::Recovered { after }) = outbox.look(now) else { panic!("it is over") };
    assert_eq!(after, now - begun);
    assert!(outbox.look(now).is_none() && outbox.trouble().is_none() && !outbox.is_due(now));
    assert_eq!(outbox.put_queue_aside(&queue, &torn(), now).unwrap().name(), "degraded", "another trouble");
    assert_eq!(outbox.next, Some(now + SOON), "begins with the shortest wait");
}

#[test]
fn whoever_gets_the_lock_once_goes_on_claiming() {
    let now = Instant::now();
    let outbox = &mut outbox(1, now);
    for n in 1..5 {
        let Mail { acks, ended, may_claim, .. } = outbox.collect();
        assert_eq!(may_claim, n == 1);
        outbox.return_all(acks, ended, &busy(), now + SOON * n);
        assert_eq!(outbox.next, Some(now + SOON * (n + 1)), "a lock is given back any time");
    }
    let acks = outbox.collect().acks.len();
    assert!(outbox.written(acks, now).0, "a turn is wanted that claims");
    assert!(!outbox.is_halted());
    assert!(!outbox.written(0, now).0);
}

#[test]
fn a_queue_whose_claim_failed_is_left_out_until_it_is_time_or_there_is_a_hurry() {
    let now = Instant::now();
    let outbox = &mut outbox(0, now);
    let queue: Arc<str> = "q".into();
    outbox.put_queue_aside(&queue, &torn(), now);
    let Mail { may_claim, queues_aside, .. } = outbox.collect();
    assert!(may_claim && Arc::ptr_eq(&queues_aside[0], &queue));
    assert!(!outbox.is_due(now) && outbox.is_due(now + SOON));
    assert!(outbox.collect().queues_aside.is_empty());
    outbox.put_queue_aside(&queue, &torn(), now);
    outbox.hurry();
    assert!(outbox.collect().queues_aside.is_empty());
}

#[test]
fn an_ack_waits_a_moment_for_company() {
    let now = Instant::now();
    let outbox = &mut outbox(2, now);
    assert!(outbox.add(ack(3), ended(), now + COMPANY));
    assert_eq!(outbox.unwritten(), 3);
    assert_eq!(ids(&outbox.collect().acks), [1, 2, 3]);
    assert_eq!(outbox.unwritten(), 3, "they are in the turn");
    assert!(!outbox.add(ack(4), ended(), now + COMPANY * 5), "the first of its turn");
}
