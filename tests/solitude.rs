//! Jobs whose process died while they were executing run alone: in their process, so these tests take turns.

mod common;

use std::time::Duration;

use common::{Folder, Gate, Meter, get, ms, reaches, stranger, until};
use jiff::Timestamp;
use kiln::{Changes, Job, Kiln, NewJob, Problem, Running, RuntimeBuilder, State};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

/// One suspect has the whole process for itself.
fn take_turns() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
}

/// Enqueues a job that has been executing at so many crashes.
fn suspect(folder: &Folder, kiln: &Kiln, job: NewJob, crashes: i64) -> i64 {
    let id = kiln.enqueue(job.schedule_in(Duration::from_secs(3600))).unwrap().id;
    let sql = "UPDATE kiln_jobs SET crashes = ?2 WHERE id = ?1";
    stranger(&folder.db()).execute(sql, (id, crashes)).unwrap();
    assert_eq!(get(kiln, id).crashes, crashes);
    kiln.update(id, Changes::new().scheduled_at(Timestamp::UNIX_EPOCH)).unwrap();
    id
}

fn job(queue: &str, waits: bool) -> NewJob {
    NewJob::new("job").queue(queue).args(json!({ "waits": waits }))
}

/// Two queues whose jobs wait at the gate, where they are told to.
fn runtime(kiln: &Kiln, gate: &Gate, inside: &Meter) -> RuntimeBuilder {
    let (gate, inside) = (gate.clone(), inside.clone());
    kiln.runtime().queue("a", 3).queue("b", 3).worker_fn("job", move |job: &Running<Value>| {
        let _inside = inside.enter();
        if job.args["waits"] == true {
            gate.pass();
        }
    })
}

/// An enqueue claims what can be claimed before it returns.
fn enqueue(kiln: &Kiln, job: NewJob) -> Job {
    let id = kiln.enqueue(job).unwrap().id;
    get(kiln, id)
}

#[test]
fn a_suspect_waits_for_what_runs_and_what_comes_after_it_waits_for_the_suspect() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (first, then) = (Gate::default(), Gate::default());
    let inside = Meter::default();
    let meter = inside.clone();
    let gates = [first.clone(), then.clone()];
    let runtime = kiln.runtime().queue("a", 3).queue("b", 3).solitude(Duration::MAX);
    let runtime = runtime.worker_fn("job", move |job: &Running<Value>| {
        let _inside = meter.enter();
        assert!(job.crashes == 0 || meter.inside() == 1, "it is alone");
        if let Some(gate) = job.args["gate"].as_u64() {
            gates[gate as usize].pass();
        }
    });
    let runtime = runtime.start().unwrap();
    let gated = |gate: u64| NewJob::new("job").queue("a").args(json!({ "gate": gate }));
    let other = enqueue(&kiln, gated(0));
    until("it runs", || inside.inside() == 1);
    let suspect = suspect(&folder, &kiln, gated(1), 1);
    for queue in ["a", "b"] {
        assert_eq!(enqueue(&kiln, job(queue, false)).state, State::Available, "the process is emptied");
    }
    assert_eq!(get(&kiln, suspect).state, State::Available);

    first.open();
    assert_eq!(reaches(&kiln, other.id, State::Completed).crashes, 0);
    reaches(&kiln, suspect, State::Executing);
    for queue in ["a", "b"] {
        assert_eq!(enqueue(&kiln, job(queue, false)).state, State::Available, "it has the process for itself");
    }
    then.open();
    let done = reaches(&kiln, suspect, State::Completed);
    assert_eq!((done.attempt, done.crashes, done.errors.len()), (1, 0, 0), "it is like any other again");
    (3..=6).for_each(|id| assert_eq!(reaches(&kiln, id, State::Completed).attempt, 1));
    runtime.stop();
}

#[test]
fn many_suspects_run_one_after_the_other() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, inside) = (Gate::default(), Meter::default());
    let ids: Vec<i64> = (1..=20).map(|n| suspect(&folder, &kiln, job(["a", "b"][n % 2], false), n as i64)).collect();
    let runtime = runtime(&kiln, &gate, &inside).solitude(Duration::MAX).start().unwrap();
    ids.iter().for_each(|id| assert_eq!(reaches(&kiln, *id, State::Completed).crashes, 0));
    assert_eq!(inside.most(), 1);
    runtime.stop();
}

#[test]
fn runtimes_of_one_handle_leave_a_suspect_alone_together() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, inside) = (Gate::default(), Meter::default());
    let id = suspect(&folder, &kiln, job("a", true), 1);
    let build = |queue: &str| {
        let (gate, inside) = (gate.clone(), inside.clone());
        let runtime = kiln.runtime().queue(queue, 2).solitude(Duration::MAX);
        runtime.worker_fn("job", move |job: &Running<Value>| {
            let _inside = inside.enter();
            if job.args["waits"] == true {
                gate.pass();
            }
        })
    };
    let runtimes = ["a", "b"].map(|queue| build(queue).start().unwrap());
    reaches(&kiln, id, State::Executing);
    let other = enqueue(&kiln, job("b", false));
    assert_eq!(other.state, State::Available);
    gate.open();
    reaches(&kiln, other.id, State::Completed);
    assert_eq!(inside.most(), 1);
    runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
}

#[test]
fn a_suspect_that_takes_long_holds_up_nobody_for_longer_than_it_may() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, inside) = (Gate::default(), Meter::default());
    let ids = [1, 2, 1, 0].map(|crashes| suspect(&folder, &kiln, job("a", true), crashes));
    let runtime = runtime(&kiln, &gate, &inside).queue("c", 1).solitude(ms(20)).start().unwrap();
    // Three have a thread: alone, beside the first after ten times as long, and let go.
    ids[..3].iter().for_each(|id| drop(reaches(&kiln, *id, State::Executing)));
    assert_eq!(get(&kiln, ids[3]).state, State::Available, "there is no thread for it");
    let other = enqueue(&kiln, job("b", false));
    reaches(&kiln, other.id, State::Completed);
    gate.open();
    ids.iter().for_each(|id| assert_eq!(reaches(&kiln, *id, State::Completed).crashes, 0));
    runtime.stop();
}

#[test]
fn a_job_that_never_ends_holds_up_no_suspect_for_longer_than_it_may() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, inside) = (Gate::default(), Meter::default());
    let runtime = runtime(&kiln, &gate, &inside).solitude(ms(20)).start().unwrap();
    let endless = enqueue(&kiln, job("a", true));
    for crashes in [1, 2] {
        let id = suspect(&folder, &kiln, job("b", false), crashes);
        reaches(&kiln, id, State::Completed);
        let other = enqueue(&kiln, job("a", false));
        reaches(&kiln, other.id, State::Completed);
    }
    assert_eq!(get(&kiln, endless.id).state, State::Executing);
    gate.open();
    reaches(&kiln, endless.id, State::Completed);
    runtime.stop();
}

#[test]
fn where_crashes_do_not_count_nobody_waits() {
    let _turn = take_turns();
    for set in
        [|runtime: RuntimeBuilder| runtime.max_crashes(0), |runtime: RuntimeBuilder| runtime.solitude(Duration::ZERO)]
    {
        let folder = Folder::new();
        let kiln = folder.open();
        let (gate, inside) = (Gate::default(), Meter::default());
        let ids = [3; 3].map(|crashes| suspect(&folder, &kiln, job("a", true), crashes));
        let runtime = set(runtime(&kiln, &gate, &inside)).start().unwrap();
        until("all run at once", || inside.inside() == 3);
        gate.open();
        ids.iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
        runtime.stop();
    }
}

#[test]
fn a_suspect_that_is_gone_meanwhile_holds_up_nobody() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, inside) = (Gate::default(), Meter::default());
    let runtime = runtime(&kiln, &gate, &inside).solitude(Duration::MAX).start().unwrap();
    let endless = enqueue(&kiln, job("a", true));
    until("it runs", || inside.inside() == 1);
    let gone = suspect(&folder, &kiln, job("b", false), 1);
    let other = enqueue(&kiln, job("b", false));
    assert_eq!(other.state, State::Available);
    assert_eq!(kiln.cancel(gone).unwrap(), 1);
    reaches(&kiln, other.id, State::Completed);
    assert_eq!(get(&kiln, endless.id).state, State::Executing);
    // One in a queue that is paused does not either.
    let waits = suspect(&folder, &kiln, job("b", false), 1);
    runtime.pause("b").unwrap();
    gate.open();
    let other = enqueue(&kiln, job("a", false));
    reaches(&kiln, other.id, State::Completed);
    assert_eq!(get(&kiln, waits).state, State::Available);
    runtime.stop();
}

#[test]
fn an_operator_sees_suspects_and_a_retry_leaves_one_crash() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let id = suspect(&folder, &kiln, job("a", false), 3);
    let found = kiln.diagnose().unwrap();
    let finding = found.of(Problem::Crashed).next().expect("it is a finding");
    assert_eq!(finding.jobs, [id]);
    kiln.cancel(id).unwrap();
    assert_eq!(kiln.diagnose().unwrap().of(Problem::Crashed).count(), 0);
    kiln.retry(id).unwrap();
    assert_eq!(get(&kiln, id).crashes, 1, "it runs alone, and may crash again");
}

#[test]
fn all_handles_of_a_process_leave_a_suspect_alone_whichever_file_they_are_on() {
    let _turn = take_turns();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let kilns = [folder.open(), folder.open(), elsewhere.open(), Kiln::in_memory().unwrap()];
    let (gate, inside) = (Gate::default(), Meter::default());
    let first = Gate::default();
    let build = |(kiln, queue): (&Kiln, &str)| {
        let (first, gate, inside) = (first.clone(), gate.clone(), inside.clone());
        let runtime = kiln.runtime().queue(queue, 2).solitude(Duration::MAX);
        let runtime = runtime.worker_fn("job", move |job: &Running<Value>| {
            let _inside = inside.enter();
            match job.args["waits"] == true {
                true if job.crashes > 0 => gate.pass(),
                true => first.pass(),
                false => {}
            }
        });
        runtime.start().unwrap()
    };
    let queues = ["a", "b", "a", "a"];
    let runtimes: Vec<_> = kilns.iter().zip(queues).map(build).collect();
    let others = || -> Vec<Job> { (1..4).map(|n| enqueue(&kilns[n], job(queues[n], false))).collect() };

    let running = enqueue(&kilns[3], job("a", true));
    assert_eq!(running.state, State::Executing);
    let suspect = suspect(&folder, &kilns[0], job("a", true), 1);
    let held = others();
    held.iter().for_each(|job| assert_eq!(job.state, State::Available, "the process is emptied"));
    assert_eq!(get(&kilns[0], suspect).state, State::Available);
    first.open();
    reaches(&kilns[0], suspect, State::Executing);
    let more = others();
    more.iter().for_each(|job| assert_eq!(job.state, State::Available, "it has the process for itself"));
    until("it runs", || inside.inside() == 1);
    assert_eq!(inside.most(), 1);
    gate.open();
    reaches(&kilns[0], suspect, State::Completed);
    for jobs in [held, more] {
        jobs.iter().zip(1..).for_each(|(job, n)| drop(reaches(&kilns[n], job.id, State::Completed)));
    }
    runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
}

#[test]
fn neither_a_suspect_nor_who_it_waits_for_holds_up_another_handle_for_longer_than_it_may() {
    let _turn = take_turns();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let (kiln, other) = (folder.open(), elsewhere.open());
    let (gate, inside) = (Gate::default(), Meter::default());
    let runtimes = [&kiln, &other].map(|kiln| runtime(kiln, &gate, &inside).solitude(ms(20)).start().unwrap());
    let endless = enqueue(&other, job("a", true));
    assert_eq!(endless.state, State::Executing);
    let suspects = [1, 2].map(|crashes| suspect(&folder, &kiln, job("a", true), crashes));
    suspects.iter().for_each(|id| drop(reaches(&kiln, *id, State::Executing)));
    let more = enqueue(&other, job("a", false));
    reaches(&other, more.id, State::Completed);
    assert_eq!(get(&other, endless.id).state, State::Executing);
    gate.open();
    suspects.iter().for_each(|id| assert_eq!(reaches(&kiln, *id, State::Completed).crashes, 0));
    runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
}

#[test]
fn a_handle_that_stops_with_a_suspect_running_or_waiting_holds_up_no_other() {
    let _turn = take_turns();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let (kiln, other) = (folder.open(), elsewhere.open());
    let (gate, inside) = (Gate::default(), Meter::default());
    let build = |kiln: &Kiln| runtime(kiln, &gate, &inside).solitude(Duration::MAX).start().unwrap();
    let bystander = build(&other);
    for crashes in [1, 2] {
        let own = build(&kiln);
        let waits = suspect(&folder, &kiln, job("a", true), crashes);
        until("it runs", || inside.inside() == crashes as usize);
        let held = enqueue(&other, job("a", false));
        assert_eq!(held.state, State::Available);
        // Its thread goes on, and nobody waits for it.
        assert_eq!(own.stop_within(Duration::ZERO).cut, 1);
        reaches(&other, held.id, State::Completed);
        kiln.cancel(waits).unwrap();
    }
    gate.open();
    bystander.stop();
}

#[test]
fn of_several_suspects_the_one_that_began_last_runs_first_whichever_queue_it_is_in() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let began = [3, 1, 4, 2, 4];
    let ids: Vec<i64> = (0..began.len()).map(|n| suspect(&folder, &kiln, job(["a", "b"][n % 2], false), 1)).collect();
    let conn = stranger(&folder.db());
    for (id, began) in ids.iter().zip(began) {
        conn.execute("UPDATE kiln_jobs SET attempted_at = ?2 WHERE id = ?1", (id, began)).unwrap();
    }
    let order = std::sync::Arc::new(Mutex::new(Vec::new()));
    let told = std::sync::Arc::clone(&order);
    let runtime = kiln.runtime().queue("a", 5).queue("b", 5).solitude(Duration::MAX);
    let runtime = runtime.worker_fn("job", move |job: &Running<Value>| told.lock().push(job.id)).start().unwrap();
    ids.iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
    // Of two that began at once, the first in claim order.
    assert_eq!(*order.lock(), [2, 4, 0, 3, 1].map(|n| ids[n]));
    runtime.stop();
}
