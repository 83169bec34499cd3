use std::collections::HashMap;

use super::super::rescue::{self, Dead, rescue};
use super::*;
use crate::job::{Begun, Lost};
use crate::presence::Remains;

fn remains(process: &str, begun: &[(Fence, bool)]) -> Remains {
    Remains {
        process: process.into(),
        rules: Rules { max_crashes: 3, ..Rules::default() },
        shared: false,
        begun: begun.iter().map(|(fence, outlived)| ((fence.id, fence.attempted_at), *outlived)).collect(),
        complete: true,
    }
}

fn claimed(memory: &mut Memory, count: usize, owner: &str) -> Vec<Fence> {
    memory.enqueue((0..count).map(|_| ready(NewJob::new(WORKER))).collect());
    let runtime = Arc::new(Member { id: owner.into(), ..(*member(&[WORKER])).clone() });
    let done = memory.turn(&Part { runtime, ..part(vec![], count) });
    done.claimed.iter().map(|claimed| claimed.attempt.fence).collect()
}

fn dead<const N: usize>(dead: [(&str, Option<Remains>); N]) -> Dead {
    dead.map(|(id, remains)| (id.to_owned(), remains)).into()
}

/// What the rule is told of each lost attempt, by its id.
fn lost(memory: &Memory, dead: Dead) -> HashMap<i64, Lost> {
    rescue::lost(&memory.conn, &dead).unwrap().into_iter().map(|lost| (lost.fence.id, lost)).collect()
}

#[test]
fn the_rule_is_told_what_the_sidecar_and_the_row_say_of_an_attempt() {
    let memory = &mut Memory::new();
    let fences = claimed(memory, 5, "a");
    memory.execute(
        "UPDATE kiln_jobs SET crashes = 1, resumes = 2, max_attempts = 9, checkpoint_of = attempted_at WHERE id = 2",
    );
    memory.execute("UPDATE kiln_jobs SET checkpoint_of = attempted_at - 1 WHERE id = 3");
    let listed = [(fences[1], false), (fences[2], true), (Fence { attempted_at: 7, ..fences[3] }, false)];
    let found = lost(memory, dead([("a", Some(remains("p", &listed))), ("b", None)]));
    let begun = [1, 2, 3, 4, 5].map(|id| found[&id].begun);
    assert_eq!(begun, [Begun::No, Begun::InWindow, Begun::Outlived, Begun::No, Begun::No]);
    let second = &found[&2];
    assert_eq!((second.crashes, second.resumes, second.max_attempts, second.max_crashes), (1, 2, 9, 3));
    assert!(second.has_checkpoint && !found[&3].has_checkpoint, "an attempt of before has stored it");
    assert_eq!(second.owner, "\"a\" on \"here\"");
    assert!(lost(memory, dead([("b", None)])).is_empty());
    let without_sidecar = |memory: &Memory| lost(memory, dead([("a", None)])).into_values().map(|lost| lost.begun);
    assert!(without_sidecar(memory).eq([Begun::Unlisted; 5]), "that is no runtime");
    let row =
        "INSERT INTO kiln_runtimes (id, node, pid, queues, workers, started_at, lists) VALUES ('a', '', 1, '', '', 0, ";
    memory.execute(&format!("{row}0)"));
    assert!(without_sidecar(memory).eq([Begun::Unlisted; 5]));
    memory.execute("UPDATE kiln_runtimes SET lists = 1");
    assert!(without_sidecar(memory).eq([Begun::Unknown; 5]), "its sidecar is lost");
}

#[test]
fn an_attempt_has_company_if_another_of_its_process_was_in_its_window_or_the_process_had_jobs_elsewhere() {
    let memory = &mut Memory::new();
    let (a, b, c) = (claimed(memory, 3, "a"), claimed(memory, 1, "b"), claimed(memory, 1, "c"));
    let company = |lost: &HashMap<i64, Lost>| [1, 2, 3, 4, 5].map(|id| lost[&id].company);
    let one = |a: &[(Fence, bool)], b: &[(Fence, bool)], shared| {
        let b = Remains { shared, ..remains("p", b) };
        dead([("a", Some(remains("p", a))), ("b", Some(b)), ("c", Some(remains("q", &[(c[0], false)])))])
    };
    let alone = lost(memory, one(&[(a[0], false), (a[1], true)], &[], false));
    assert_eq!(company(&alone), [false, true, true, true, false], "the first is in its window by itself");
    let both = lost(memory, one(&[(a[0], false)], &[(b[0], false)], false));
    assert_eq!(company(&both), [true, true, true, true, false], "two runtimes of one process");
    let shared = lost(memory, one(&[], &[(b[0], false)], true));
    assert!(shared[&4].company);
    memory.ack(vec![Ack { fence: a[0], verdict: Verdict::Complete }]);
    let acked = lost(memory, one(&[(a[0], false)], &[(b[0], false)], false));
    assert!(!acked[&4].company, "an entry whose ack is committed is listed still, and does not count");
}

#[test]
fn what_had_not_begun_is_given_back_a_batch_at_a_time_and_a_runtime_is_forgotten_once_nothing_is_left() {
    let memory = &mut Memory::new();
    let fences = claimed(memory, 25, "a");
    memory.execute(
        "INSERT INTO kiln_runtimes (id, node, pid, queues, workers, started_at) VALUES ('a', '', 1, '', '', 0)",
    );
    let left = dead([("a", Some(remains("p", &[(fences[24], false), (fences[23], false)])))]);
    let mut told = Vec::new();
    for (count, more) in [(12, true), (10, true), (3, false)] {
        let (rescued, left) = memory.call(|tx| rescue(tx, &left, batch(true)));
        assert_eq!((rescued.count, left), (count, more));
        told.extend(rescued.jobs.into_iter().map(|changed| (changed.job.attempt, changed.state)));
        assert_eq!(memory.number("SELECT count(*) FROM kiln_runtimes"), i64::from(more));
    }
    assert_eq!(told, vec![(1, State::Available); 25]);
    assert_eq!(memory.number("SELECT sum(attempt) FROM kiln_jobs"), 2, "of the two that had begun, the attempt counts");
}
