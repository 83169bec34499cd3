use super::*;
use crate::error::Kind;
use crate::job::{Attempt, Fence, Job, NewJob, Outcome};
use crate::life::Wake;

/// How far claims run ahead.
const AHEAD: Duration = Duration::from_millis(10);

fn mailbox(queues: &[&str]) -> Arc<Mailbox> {
    let clock = Clock::system();
    let runtime = Member {
        id: "me".into(),
        node: "here".into(),
        workers: vec!["w".into()],
        started_at: clock.now(),
        damaged: Arc::default(),
    };
    let plans = Arc::new(Mutex::new(queues.iter().map(|queue| plan(queue)).collect()));
    let mailbox = Mailbox::new(runtime, clock, None, plans, 2, AHEAD);
    mailbox.arrange();
    rung(&mailbox);
    mailbox
}

fn plan(queue: &str) -> QueuePlan {
    QueuePlan::new(queue.to_owned(), 2)
}

fn claimed(queue: &str, ids: impl IntoIterator<Item = i64>) -> Vec<Claimed> {
    let claim = |id| {
        let attempt = Attempt { fence: Fence { id, attempt: 1, attempted_at: 0 }, max_attempts: 20 };
        let job = NewJob::new("w").queue(queue).build(jiff::Timestamp::UNIX_EPOCH, |_| ()).unwrap().job;
        Claimed { attempt, job: Job { id, ..job }, suspect: None }
    };
    ids.into_iter().map(claim).collect()
}

fn inbox(mailbox: &Mailbox, queue: &str) -> Arc<Inbox> {
    mailbox.inboxes().into_iter().find(|inbox| inbox.is_open() && *inbox.queue == *queue).unwrap()
}

fn collect(mailbox: &Mailbox) -> Given {
    mailbox.collect(&Notice::default())
}

fn demands(given: &Given) -> Vec<(&str, usize)> {
    given.part.demands.iter().map(|demand| (&*demand.queue, demand.limit)).collect()
}

/// The ids of the acks that wait.
fn acks(mailbox: &Mailbox) -> Vec<i64> {
    let given = collect(mailbox);
    let ids = given.part.acks.iter().map(|ack| ack.fence.id).collect();
    mailbox.return_all(given, &Error::new(Kind::Busy, "busy"));
    ids
}

fn rung(mailbox: &Mailbox) -> Wake {
    mailbox.alarm.wait(Instant::now(), &crossbeam_channel::never())
}

#[test]
fn what_was_claimed_goes_to_the_queue_that_asked_for_it_in_the_order_of_the_demands() {
    let mailbox = mailbox(&["a", "b", "c"]);
    let given = collect(&mailbox);
    assert_eq!(demands(&given), [("a", 2), ("b", 2), ("c", 2)]);
    assert!(collect(&mailbox).part.demands.is_empty(), "nobody asks twice");
    let all = claimed("a", [1]).into_iter().chain(claimed("c", [2, 3])).collect();
    assert!(mailbox.put(0, given.part.demands, all, false, &[]).is_none());
    assert_eq!(["a", "b", "c"].map(|queue| inbox(&mailbox, queue).ready()), [1, 0, 2]);
    assert!(rung(&mailbox).hire);
    assert!(!mailbox.has_mail(), "the table had no more for anybody");
    mailbox.notify(&Notice { queues: vec!["b".into(), "unknown".into()], ..Notice::default() });
    assert_eq!(demands(&collect(&mailbox)), [("b", 2)]);
    let notice = Notice { queues: vec!["a".into()], ..Notice::default() };
    assert_eq!(demands(&mailbox.collect(&notice)), [("a", 1)], "what the turn itself has stored");
}

#[test]
fn a_queue_that_was_stopped_and_started_again_does_not_get_what_was_claimed_before() {
    let mailbox = mailbox(&["q"]);
    let given = collect(&mailbox);
    let before = inbox(&mailbox, "q");
    let plan_to_run = |queues: &[&str]| {
        let change = |plans: &mut Vec<QueuePlan>| {
            *plans = queues.iter().map(|queue| plan(queue)).collect();
            Ok(())
        };
        mailbox.plan(change).unwrap();
    };
    plan_to_run(&[]);
    assert!(!before.is_open() && !before.is_over(), "a claim is under way");
    plan_to_run(&["q"]);
    let after = inbox(&mailbox, "q");
    assert!(!Arc::ptr_eq(&before, &after) && mailbox.inboxes().len() == 2);
    mailbox.put(0, given.part.demands, claimed("q", [1, 2]), false, &[]);
    assert_eq!((before.ready(), after.ready(), acks(&mailbox)), (0, 0, vec![1, 2]));
    assert!(before.is_over());
    mailbox.arrange();
    assert_eq!(mailbox.inboxes().len(), 1);
}

#[test]
fn what_could_not_be_written_is_asked_for_and_left_again() {
    let mailbox = mailbox(&["q"]);
    let given = collect(&mailbox);
    mailbox.put(0, given.part.demands, claimed("q", [1, 2]), false, &[]);
    mailbox.release(inbox(&mailbox, "q").clear());
    inbox(&mailbox, "q").ring();
    let given = collect(&mailbox);
    assert_eq!((given.part.acks.len(), given.ended.len(), demands(&given)), (2, 2, vec![("q", 2)]));
    assert_eq!(mailbox.unwritten(), 2);
    let full = Error::new(Kind::Full, "full");
    assert_eq!(mailbox.return_all(given, &full).unwrap().name(), "degraded");
    let given = collect(&mailbox);
    assert_eq!((given.part.acks.len(), demands(&given)), (2, vec![]), "nothing can be written, nothing is claimed");
    assert!(mailbox.put_aside(given, &full).is_none(), "it is told once");
    mailbox.outbox.lock().resume();
    let mut parts: Vec<Given> = collect(&mailbox).split().collect();
    let sizes: Vec<_> = parts.iter().map(|it| (it.part.acks.len(), it.part.demands.len())).collect();
    assert_eq!(sizes, [(1, 0), (1, 0), (0, 1)]);
    let torn = Error::new(Kind::Storage, "torn");
    mailbox.put_aside(parts.pop().unwrap(), &torn);
    inbox(&mailbox, "q").ring();
    mailbox.put_aside(parts.pop().unwrap(), &torn);
    assert_eq!(mailbox.unwritten(), 2);
    mailbox.put(1, Vec::new(), Vec::new(), false, &[]);
    assert_eq!(mailbox.unwritten(), 1);
    assert!(collect(&mailbox).part.demands.is_empty(), "the queue is left out");
    mailbox.outbox.lock().hurry();
    let given = collect(&mailbox);
    assert_eq!((given.part.acks[0].fence.id, demands(&given)), (2, vec![("q", 2)]));
}

#[test]
fn a_runtime_that_stops_or_has_too_many_stuck_threads_claims_nothing() {
    let mailbox = mailbox(&["q"]);
    assert!(mailbox.has_mail() && mailbox.pulse().claiming);
    mailbox.stuck.store(2, Ordering::SeqCst);
    assert!(!mailbox.has_mail() && collect(&mailbox).part.demands.is_empty() && !mailbox.pulse().claiming);
    mailbox.stuck.store(1, Ordering::SeqCst);
    let given = collect(&mailbox);
    assert_eq!(demands(&given), [("q", 2)]);
    mailbox.stop_claiming();
    mailbox.put(0, given.part.demands, claimed("q", [1]), true, &[]);
    assert!(!mailbox.has_mail() && collect(&mailbox).part.demands.is_empty());
    assert_eq!(mailbox.release_ready(), 1, "a claim that was under way came in all the same");
    assert!(mailbox.has_mail() && acks(&mailbox) == [1]);
}

/// A mailbox whose threads are all at work on slow jobs, with so many quick ones claimed ahead.
fn blocked(ahead: i64) -> Arc<Mailbox> {
    let mailbox = mailbox(&["q"]);
    let inbox = inbox(&mailbox, "q");
    let put = |claimed| mailbox.put(0, collect(&mailbox).part.demands, claimed, true, &[]);
    put(claimed("q", [1, 2]));
    assert_eq!(inbox.hire(), 2);
    let quick = [inbox.next().unwrap(), inbox.next().unwrap()];
    for task in quick {
        let id = task.fence().id;
        mailbox.acknowledge(task, End::Outcome(Outcome::Complete), None, Instant::now());
        assert!(inbox.done(id, Duration::from_micros(1), Instant::now(), false).is_none());
    }
    put(claimed("q", 3..5 + ahead));
    assert!(inbox.next().is_some() && inbox.next().is_some());
    mailbox.put(2, Vec::new(), Vec::new(), false, &[]);
    assert_eq!((inbox.ready(), mailbox.unwritten()), (ahead as usize, 0));
    mailbox
}

#[test]
fn a_suspect_that_waits_for_a_thread_is_asked_for_when_one_is_free() {
    let mailbox = blocked(0);
    let inbox = inbox(&mailbox, "q");
    let put = |waits: bool| {
        inbox.ring();
        let demands = collect(&mailbox).part.demands;
        assert_eq!(demands[0].slots, 0, "claims run ahead, and no thread is free");
        let waiting: Vec<_> = demands.iter().filter(|_| waits).map(|demand| Arc::clone(&demand.queue)).collect();
        mailbox.put(0, demands, Vec::new(), false, &waiting);
        assert!(!mailbox.has_mail());
    };
    put(false);
    put(true);
    assert!(inbox.done(3, Duration::from_micros(1), Instant::now(), false).is_none());
    assert_eq!(collect(&mailbox).part.demands[0].slots, 1);
}

#[test]
fn the_scheduler_looks_after_what_waits_and_rests_when_nothing_does() {
    let mailbox = blocked(3);
    let now = Instant::now();
    assert_eq!(mailbox.tend(now), Some(now + TEND), "jobs were put that no thread is free for");
    let later = now + AHEAD * 3;
    assert_eq!(mailbox.tend(later), None, "slow jobs keep the others waiting: these are given back");
    assert_eq!((acks(&mailbox), inbox(&mailbox, "q").ready()), (vec![5, 6, 7], 0));
    assert_eq!(mailbox.tend(later), None);
    rung(&mailbox);
    for _ in 0..3 {
        mailbox.waits();
        mailbox.waits();
        assert_eq!(mailbox.tend(later), Some(later + TEND), "something waits again");
        assert_eq!(mailbox.tend(later), None);
    }
}
