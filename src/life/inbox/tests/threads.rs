//! Threads that sleep are called, and those who wait for them are.

use std::sync::{Barrier, mpsc};
use std::thread;

use super::*;

/// Waits until the inbox is in a state.
fn until(inbox: &Inbox, holds: impl Fn(&State) -> bool) {
    let started = Instant::now();
    while !holds(&inbox.state.lock()) {
        assert!(started.elapsed() < LONG, "it never comes to that");
        thread::yield_now();
    }
}

#[test]
fn a_thread_that_sleeps_is_called_to_quick_jobs_while_the_one_that_claimed_them_sees_to_the_next_transaction() {
    let inbox = Arc::new(quick_inbox());
    let (begun, begins) = mpsc::channel();
    let sleeper = Arc::clone(&inbox);
    let thread = thread::spawn(move || begun.send(next(&sleeper)));
    until(&inbox, |state| state.idle == 1);
    assert_eq!(wanted(&inbox), Some(402));
    assert!(inbox.put(402, claimed(3..405), false).waits);
    assert_eq!(begins.recv_timeout(LONG), Ok(3));
    thread.join().unwrap().unwrap();
}

#[test]
fn a_thread_that_sleeps_is_not_called_while_another_is_on_its_way() {
    let inbox = Arc::new(quick_inbox());
    let sleeper = Arc::clone(&inbox);
    let thread = thread::spawn(move || next(&sleeper));
    until(&inbox, |state| state.idle == 1);
    assert_eq!(wanted(&inbox), Some(402));
    assert!(!inbox.put(402, claimed([3, 4]), false).waits, "each has a thread");
    let state = inbox.state.lock();
    assert_eq!((state.idle, state.woken), (1, 0));
    drop(state);
    assert_eq!(next(&inbox), 3);
    assert_eq!(thread.join().unwrap(), 4, "the thread that took the first has called it");
}

#[test]
fn one_thread_is_woken_and_each_wakes_the_next_while_jobs_are_left() {
    let inbox = Arc::new(inbox(4));
    assert_eq!(wanted(&inbox), Some(4));
    inbox.put(4, claimed(1..5), false);
    assert_eq!(inbox.hire(), 4);
    (1..5).for_each(|id| assert_eq!(next(&inbox), id));
    (1..5).for_each(|id| done(&inbox, id));
    let barrier = Arc::new(Barrier::new(4));
    let sleepers: Vec<_> = (0..4)
        .map(|_| {
            let (inbox, barrier) = (Arc::clone(&inbox), Arc::clone(&barrier));
            thread::spawn(move || {
                let id = next(&inbox);
                // Nobody sees to a second job before each has one.
                barrier.wait();
                id
            })
        })
        .collect();
    until(&inbox, |state| state.idle == 4);
    assert_eq!(wanted(&inbox), Some(4));
    inbox.put(4, claimed(5..9), false);
    let mut begun: Vec<i64> = sleepers.into_iter().map(|sleeper| sleeper.join().unwrap()).collect();
    begun.sort_unstable();
    assert_eq!(begun, [5, 6, 7, 8]);
}

#[test]
fn sleeping_threads_above_the_limit_leave_at_once_and_all_when_it_is_closed() {
    let inbox = Arc::new(quick_inbox());
    let (left, leaves) = mpsc::channel();
    let sleepers: Vec<_> = (0..2)
        .map(|_| {
            let (inbox, left) = (Arc::clone(&inbox), left.clone());
            thread::spawn(move || {
                while let Some(task) = inbox.next() {
                    done(&inbox, task.fence().id);
                }
                left.send(()).unwrap();
                inbox.left();
            })
        })
        .collect();
    until(&inbox, |state| state.idle == 2);
    inbox.set(1, false);
    leaves.recv_timeout(LONG).unwrap();
    assert_eq!(inbox.state.lock().threads, 1);
    assert_eq!(wanted(&inbox), Some(401));
    inbox.put(401, claimed([3]), false);
    until(&inbox, |state| state.ready.is_empty() && state.executing.is_empty() && state.idle == 1);
    assert!(inbox.close().is_empty());
    inbox.wait_for_threads(Instant::now() + LONG);
    assert!(inbox.is_over());
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
}

#[test]
fn a_stop_waits_for_the_last_job_and_says_how_many_go_on_when_its_time_is_up() {
    let inbox = Arc::new(inbox(2));
    assert_eq!(inbox.wait_for_jobs(Instant::now()), 0);
    assert_eq!(wanted(&inbox), Some(2));
    inbox.put(2, claimed([1, 2]), false);
    inbox.hire();
    assert_eq!([next(&inbox), next(&inbox)], [1, 2]);
    done(&inbox, 1);
    assert_eq!(inbox.wait_for_jobs(Instant::now()), 1);
    let waiting = Arc::clone(&inbox);
    let waiter = thread::spawn(move || waiting.wait_for_jobs(Instant::now() + LONG));
    done(&inbox, 2);
    assert_eq!(waiter.join().unwrap(), 0);
}
