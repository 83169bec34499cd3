//! What the sidecar says of jobs that are about to begin.

use std::path::PathBuf;

use super::*;
use crate::presence::{Remains, Rules, Suspects};

struct Page {
    inbox: Inbox,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Page {
    fn new(limit: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar");
        let sidecar = Sidecar::create(&path, Rules { max_crashes: 3, window: LONG }).unwrap();
        let inbox = Inbox::new("q", 10 * MS, Some(sidecar));
        inbox.set(limit, false);
        Self { inbox, path, _folder: folder }
    }

    /// One thread, and jobs that took so long until now.
    fn with_jobs_that_take(time: Duration) -> Self {
        let page = Self::new(1);
        page.put(1, claimed([1]));
        assert_eq!(page.inbox.hire(), 1);
        let first = page.inbox.next().unwrap();
        assert_eq!(page.listed(), [1], "nobody knows how long it takes");
        assert!(page.inbox.done(1, time, Instant::now(), false).is_none());
        drop(first);
        page
    }

    fn put(&self, least: usize, claimed: Vec<Claimed>) {
        self.inbox.ring();
        let demanded = wanted(&self.inbox).unwrap();
        assert!(demanded >= least);
        assert!(self.inbox.put(demanded, claimed, false).refused.is_empty());
    }

    fn listed(&self) -> Vec<i64> {
        let remains = Remains::read(&self.path).unwrap();
        assert!(remains.begun.keys().all(|(id, attempted_at)| *attempted_at == 7 * id), "as they were claimed");
        let mut ids: Vec<i64> = remains.begun.into_keys().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// The thread's next job, after the end of this one.
    fn step(&self, before: &Task) -> Task {
        let straight_on = self.inbox.done(before.fence().id, QUICK, Instant::now(), false);
        straight_on.unwrap_or_else(|| self.inbox.next().unwrap())
    }
}

#[test]
fn quick_jobs_are_listed_sixteen_at_a_time_before_the_first_of_them_begins() {
    let page = Page::with_jobs_that_take(QUICK);
    page.put(40, claimed(100..140));
    assert_eq!(page.listed(), [1], "nothing was begun, and old entries stay until they are written over");
    let mut tasks = vec![page.inbox.next().unwrap()];
    assert_eq!(page.listed(), Vec::from_iter(100..116));
    while tasks.len() < 16 {
        tasks.push(page.step(&tasks[tasks.len() - 1]));
        assert_eq!(page.listed(), Vec::from_iter(100..116), "one write is enough for all of them");
    }
    tasks.push(page.step(&tasks[15]));
    assert_eq!(page.listed(), Vec::from_iter(100..132), "no entry is written over while its ack is not committed");
    let last = tasks.pop().unwrap();
    assert_eq!(ids(&tasks), Vec::from_iter(100..116));
    let kept = tasks.split_off(15);
    drop(tasks);
    let mut tasks = vec![last];
    while tasks.len() < 17 {
        tasks.push(page.step(&tasks[tasks.len() - 1]));
    }
    assert_eq!(page.listed(), Vec::from_iter(100..140), "one of the block is not committed yet");
    drop(kept);
    page.put(1, claimed([500]));
    while page.inbox.ready() > 0 {
        tasks.push(page.step(&tasks[tasks.len() - 1]));
    }
    assert_eq!(tasks.last().map(|task| task.fence().id), Some(500));
    let listed = page.listed();
    assert!(ids(&tasks).iter().all(|id| listed.contains(id)));
    assert!(!listed.contains(&100), "all of its block are committed: written over by {listed:?}");
}

#[test]
fn slow_jobs_are_listed_one_at_a_time() {
    for (time, together) in [(Duration::from_millis(1), 1), (Duration::from_micros(25), 4)] {
        let page = Page::with_jobs_that_take(time);
        page.put(10, claimed(100..110));
        let task = page.inbox.next().unwrap();
        assert_eq!(page.listed(), Vec::from_iter(100..100 + together), "{time:?}");
        drop(task);
    }
}

#[test]
fn a_job_at_its_last_attempt_and_a_suspect_are_listed_by_themselves_and_when_they_begin() {
    let last = |id| {
        let claim = claimed([id]).remove(0);
        Claimed { attempt: Attempt { max_attempts: 1, ..claim.attempt }, ..claim }
    };
    let suspects = Suspects::default();
    let suspect = |id| {
        let claim = claimed([id]).remove(0);
        Claimed { job: Job { crashes: SUSPECT, ..claim.job }, suspect: suspects.reserve(), ..claim }
    };
    let page = Page::with_jobs_that_take(QUICK);
    let mut jobs = vec![last(100)];
    jobs.extend(claimed([101, 102]));
    jobs.push(suspect(103));
    jobs.push(last(104));
    jobs.extend(claimed([105, 106]));
    page.put(7, jobs);
    let mut tasks = vec![page.inbox.next().unwrap()];
    let mut seen = vec![page.listed()];
    while page.inbox.ready() > 0 {
        tasks.push(page.step(&tasks[tasks.len() - 1]));
        seen.push(page.listed());
    }
    assert!(tasks[3].place.is_some() && suspects.reserve().is_none());
    let until = |last: i64| Vec::from_iter(100..=last);
    assert_eq!(seen, [100, 102, 102, 103, 104, 106, 106].map(until));
}

#[test]
fn jobs_that_were_listed_and_are_given_back_keep_their_entries_until_that_is_committed() {
    let page = Page::with_jobs_that_take(QUICK);
    page.put(20, claimed(100..120));
    let begun = page.inbox.next().unwrap();
    let back = page.inbox.set(1, true);
    assert_eq!(back.iter().filter(|task| task.listed.is_some()).count(), 15);
    page.inbox.set(1, false);
    assert!(page.inbox.done(100, QUICK, Instant::now(), true).is_none());
    drop(begun);
    page.put(16, claimed(200..216));
    let next = page.inbox.next().unwrap();
    assert_eq!(page.listed(), Vec::from_iter((100..116).chain(200..216)));
    drop((back, next));
}

#[test]
fn jobs_begin_though_their_list_says_nothing_any_more() {
    let page = Page::with_jobs_that_take(QUICK);
    page.put(20, claimed(100..120));
    page.inbox.sidecar.as_ref().unwrap().close();
    let mut task = page.inbox.next().unwrap();
    while page.inbox.ready() > 0 {
        assert!(task.listed.is_none());
        task = page.step(&task);
    }
    assert_eq!(task.fence().id, 119);
    assert!(Remains::read(&page.path).is_none());
}
