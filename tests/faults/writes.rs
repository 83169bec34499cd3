//! Every act of the disk fails once, and every one from the n-th on until the disk is well again.

use std::collections::BTreeMap;

use kiln::{Durability, Error, Kiln};

use crate::common::Folder;
use crate::disk::{Act, BUSY, Cut, FULL, Fault, LOCK_ERROR, SYNC_ERROR, WRITE_ERROR};
use crate::story::{STEPS, Story, key, see, whole};
use crate::{long, report, seed};

/// What came of the runs.
#[derive(Default)]
struct Outcome {
    runs: u64,
    unnoticed: u64,
    refused: BTreeMap<&'static str, u64>,
    reappeared: u64,
}

/// Tells the workload with the n-th act failing, for n = 1, 2, 3 until a run meets no failure.
fn each_fails(act: Act, code: i32, name: &str, stride: u64, expected: fn(&Error) -> bool) {
    let durability = if act == Act::Sync { Durability::Strict } else { Durability::Full };
    for lasts in [false, true] {
        let mut outcome = Outcome::default();
        let mut nth = if stride == 1 { 1 } else { 1 + seed() % stride };
        while tell(Fault { act, nth, code, lasts }, durability, expected, &mut outcome) {
            outcome.runs += 1;
            nth += stride;
        }
        assert!(outcome.runs > 10, "the loop has met some failures: {}", outcome.runs);
        let how = if lasts { "and all after it until it is mended" } else { "alone" };
        let Outcome { runs, unnoticed, refused, reappeared } = outcome;
        let refused: u64 = refused.values().sum();
        report(
            format!("the n-th {name}, {how}"),
            format!("{runs} runs, n up to {}", nth - stride),
            format!(
                "{unnoticed} runs went on as if nothing had been, {refused} calls returned an error and had done \
                 nothing, {reappeared} of these would have been found done after a kill at that moment; then all went on"
            ),
        );
        if lasts && matches!(act, Act::Commit | Act::Sync | Act::WriteLock) {
            assert!(refused > 0, "a fault that lasts is told to the caller");
        }
    }
}

/// Says whether the fault was met.
fn tell(fault: Fault, durability: Durability, expected: fn(&Error) -> bool, outcome: &mut Outcome) -> bool {
    let mut story = Story::new(durability);
    story.disk.fail(fault);
    let mut refused = false;
    for step in STEPS {
        let before = (step.whole).then(|| story.disk.spare(|| story.seen()));
        let Err(error) = (step.take)(&mut story) else { continue };
        let context = || format!("{fault:?}, step {:?}: {error:?}", step.name);
        story.disk.heal();
        assert!(story.disk.injected() > 0, "only faults make a step fail: {}", context());
        assert!(expected(&error), "{}", context());
        if let Some(before) = before {
            assert!(before == story.seen(), "a call that failed has done nothing: {}", context());
            outcome.reappeared += u64::from(found_after_a_kill(&story, &before));
        }
        *outcome.refused.entry(step.name).or_default() += 1;
        refused = true;
        (step.take)(&mut story).unwrap_or_else(|error| panic!("{}: again: {error:?}", context()));
    }
    let met = story.disk.injected() > 0;
    story.disk.heal();
    story.check();
    story.end();
    outcome.unnoticed += u64::from(met && !refused);
    met
}

/// A process killed just after a failed call: what is found is all of the call or nothing of it. Says which.
fn found_after_a_kill(story: &Story, before: &crate::story::Seen) -> bool {
    let folder = Folder::new();
    story.disk.now().cut(&mut Cut::Nothing, folder.db().parent().unwrap());
    let kiln = Kiln::open(folder.db()).unwrap();
    whole(&folder.db());
    let found = see(&kiln, &folder.db());
    let jobs = kiln.list(kiln::Filter::new().limit(u32::MAX)).unwrap();
    let keys: Vec<String> = jobs.iter().filter_map(key).collect();
    let refused = story.refused.iter().filter(|key| keys.contains(key)).count();
    assert!([0, 1, 12].contains(&refused), "a batch is found as a whole or not at all: {refused}");
    found != *before
}

fn stride(many: u64) -> u64 {
    if long() { 1 } else { many }
}

#[test]
fn every_commit_fails_once_for_want_of_space() {
    each_fails(Act::Commit, FULL, "commit finds the disk full", 1, Error::is_full);
}

#[test]
fn every_commit_fails_once_by_an_error_of_the_disk() {
    each_fails(Act::Commit, WRITE_ERROR, "commit cannot be written", 1, storage);
}

#[test]
fn every_write_fails_once_for_want_of_space() {
    each_fails(Act::Write, FULL, "write finds the disk full", stride(11), Error::is_full);
}

#[test]
fn every_write_fails_once_by_an_error_of_the_disk() {
    each_fails(Act::Write, WRITE_ERROR, "write fails half done", stride(11), storage);
}

#[test]
fn every_sync_fails_once() {
    each_fails(Act::Sync, SYNC_ERROR, "sync fails", 1, storage);
}

#[test]
fn every_lock_for_writing_is_refused_once() {
    each_fails(Act::WriteLock, BUSY, "write lock is another's", 1, Error::is_busy);
}

#[test]
fn every_other_lock_fails_once() {
    each_fails(Act::OtherLock, LOCK_ERROR, "lock cannot be taken", stride(3), storage);
}

/// An error that is none of those a caller can do something about.
fn storage(error: &Error) -> bool {
    !error.is_full() && !error.is_busy() && !error.is_invalid()
}
