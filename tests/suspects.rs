//! Jobs whose process died twice in a row soon after they had begun: a process executes one of them at a time. There is
//! one place for them in a process, so these tests take turns.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Folder, Gate, Meter, get, ms, reaches, stranger, until};
use jiff::Timestamp;
use kiln::{Changes, Event, Job, Kiln, NewJob, Problem, Queues, Running, RuntimeBuilder, State};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

/// So many crashes make a job a suspect.
const SUSPECT: i64 = 2;

/// One test at a time uses the place of this process.
fn take_turns() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
}

/// Enqueues a job as it is after so many crashes.
fn crashed(folder: &Folder, kiln: &Kiln, job: NewJob, crashes: i64) -> i64 {
    let id = kiln.enqueue(job.schedule_in(Duration::from_secs(3600))).unwrap().id;
    let sql = "UPDATE kiln_jobs SET crashes = ?2 WHERE id = ?1";
    stranger(&folder.db()).execute(sql, (id, crashes)).unwrap();
    assert_eq!(get(kiln, id).crashes, crashes);
    kiln.update(id, Changes::new().scheduled_at(Timestamp::UNIX_EPOCH)).unwrap();
    id
}

fn suspect(folder: &Folder, kiln: &Kiln, job: NewJob) -> i64 {
    crashed(folder, kiln, job, SUSPECT)
}

fn job(queue: &str, waits: bool) -> NewJob {
    NewJob::new("job").queue(queue).args(json!({ "waits": waits }))
}

/// Counts the suspects inside, and lets jobs wait at the gate if they are told to.
fn runtime(kiln: &Kiln, gate: &Gate, suspects: &Meter) -> RuntimeBuilder {
    let (gate, suspects) = (gate.clone(), suspects.clone());
    kiln.runtime().queue("a", 3).queue("b", 3).worker_fn("job", move |job: &Running<Value>| {
        let _inside = (job.crashes >= SUSPECT).then(|| suspects.enter());
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

/// Waits until so many suspects are inside.
fn inside(suspects: &Meter, count: usize) {
    until("so many suspects run", || suspects.inside() == count);
}

#[test]
fn a_process_executes_many_suspects_one_after_the_other() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, suspects) = (Gate::default(), Meter::default());
    let ids: Vec<i64> =
        (0..20).map(|n| crashed(&folder, &kiln, job(["a", "b"][n % 2], false), SUSPECT + n as i64)).collect();
    let runtime = runtime(&kiln, &gate, &suspects).start().unwrap();
    for id in ids {
        let done = reaches(&kiln, id, State::Completed);
        assert_eq!((done.attempt, done.crashes, done.errors.len()), (1, 0, 0), "it is like any other again");
    }
    assert_eq!(suspects.most(), 1);
    runtime.stop();
}

#[test]
fn a_suspect_runs_after_ordinary_jobs_and_they_run_beside_it() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, first) = (Gate::default(), Gate::default());
    let order = Arc::new(Mutex::new(Vec::new()));
    let (told, waits, begins) = (Arc::clone(&order), gate.clone(), first.clone());
    let begin = enqueue(&kiln, NewJob::new("job").queue("a").args(json!({ "waits": "first" })));
    let suspect = suspect(&folder, &kiln, job("a", false).priority(0));
    let others: Vec<i64> = (0..5).map(|_| kiln.enqueue(job("a", false).priority(9)).unwrap().id).collect();
    let runtime = kiln.runtime().queue("a", 1).queue("b", 2).worker_fn("job", move |job: &Running<Value>| {
        match &job.args["waits"] {
            Value::String(_) => begins.pass(),
            Value::Bool(true) => waits.pass(),
            _ => {}
        }
        told.lock().push(job.id);
    });
    let runtime = runtime.start().unwrap();
    first.open();
    reaches(&kiln, suspect, State::Completed);
    assert_eq!(*order.lock(), [vec![begin.id], others, vec![suspect]].concat());

    let running = self::suspect(&folder, &kiln, job("b", true));
    reaches(&kiln, running, State::Executing);
    for queue in ["a", "b"] {
        let other = enqueue(&kiln, job(queue, false));
        reaches(&kiln, other.id, State::Completed);
    }
    assert_eq!(get(&kiln, running).state, State::Executing);
    gate.open();
    reaches(&kiln, running, State::Completed);
    runtime.stop();
}

#[test]
fn all_handles_of_a_process_execute_one_suspect_at_a_time_whichever_file_they_are_on() {
    let _turn = take_turns();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let kilns = [(&folder, folder.open(), "a"), (&folder, folder.open(), "b"), (&elsewhere, elsewhere.open(), "a")];
    let suspects = Meter::default();
    let gates: Vec<Gate> = kilns.iter().map(|_| Gate::default()).collect();
    let ids: Vec<i64> = kilns.iter().map(|(folder, kiln, queue)| suspect(folder, kiln, job(queue, true))).collect();
    let build = |(kiln, queue, gate): (&Kiln, &str, &Gate)| {
        let (gate, suspects) = (gate.clone(), suspects.clone());
        let runtime = kiln.runtime().queue(queue, 2).worker_fn("job", move |_: &Running<Value>| {
            let _inside = suspects.enter();
            gate.pass();
        });
        runtime.start().unwrap()
    };
    let runtimes: Vec<_> =
        kilns.iter().zip(&gates).map(|((_, kiln, queue), gate)| build((kiln, queue, gate))).collect();
    let state = |n: usize| get(&kilns[n].1, ids[n]).state;
    let mut left = vec![0, 1, 2];
    while !left.is_empty() {
        inside(&suspects, 1);
        let runs: Vec<usize> = left.iter().copied().filter(|n| state(*n) == State::Executing).collect();
        assert_eq!(runs.len(), 1, "the others wait: {left:?}");
        gates[runs[0]].open();
        reaches(&kilns[runs[0]].1, ids[runs[0]], State::Completed);
        left.retain(|n| *n != runs[0]);
    }
    assert_eq!(suspects.most(), 1);
    runtimes.iter().for_each(|runtime| assert_eq!(runtime.stop().unwritten, 0));
}

#[test]
fn a_suspect_that_outlives_its_window_gives_its_place_to_the_next() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, suspects) = (Gate::default(), Meter::default());
    let ids = [(); 3].map(|()| suspect(&folder, &kiln, job("a", true)));
    let runtime = runtime(&kiln, &gate, &suspects).crash_window(ms(20)).start().unwrap();
    inside(&suspects, 3);
    gate.open();
    ids.iter().for_each(|id| assert_eq!(reaches(&kiln, *id, State::Completed).crashes, 0));
    runtime.stop();
}

#[test]
fn a_suspect_that_waits_for_a_thread_runs_as_soon_as_one_is_free() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, suspects) = (Gate::default(), Meter::default());
    let worker_gate = gate.clone();
    // Quick jobs are claimed ahead, so a claim asks for more jobs than there are threads.
    let runtime = kiln.runtime().queue("a", 1).claim_ahead(Duration::from_secs(60));
    let runtime = runtime.worker_fn("job", move |job: &Running<Value>| {
        let _inside = (job.crashes >= SUSPECT).then(|| suspects.enter());
        if job.args["waits"] == true {
            worker_gate.pass();
        }
    });
    let runtime = runtime.start().unwrap();
    for _ in 0..50 {
        let quick = enqueue(&kiln, job("a", false));
        reaches(&kiln, quick.id, State::Completed);
    }
    let busy = enqueue(&kiln, job("a", true));
    reaches(&kiln, busy.id, State::Executing);
    let id = suspect(&folder, &kiln, job("a", false));
    reaches(&kiln, id, State::Available);
    // A claim found it, and had no thread for it. Nothing else wakes the queue: the scheduler has looked around since.
    std::thread::sleep(ms(1500));
    gate.open();
    reaches(&kiln, id, State::Completed);
    runtime.stop();
}

#[test]
fn a_suspect_that_is_gone_or_whose_queue_is_paused_keeps_no_other_waiting() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, suspects) = (Gate::default(), Meter::default());
    let runtime = runtime(&kiln, &gate, &suspects).start().unwrap();
    let first = suspect(&folder, &kiln, job("a", true));
    inside(&suspects, 1);
    let [gone, paused, next] = ["a", "b", "a"].map(|queue| suspect(&folder, &kiln, job(queue, false)));
    [gone, paused, next].iter().for_each(|id| drop(reaches(&kiln, *id, State::Available)));
    assert_eq!(kiln.cancel(gone).unwrap(), 1);
    runtime.pause("b").unwrap();
    gate.open();
    [first, next].iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
    assert_eq!(get(&kiln, paused).state, State::Available);
    runtime.resume("b").unwrap();
    reaches(&kiln, paused, State::Completed);
    runtime.stop();
}

#[test]
fn a_handle_that_stops_while_a_suspect_runs_gives_the_place_to_another_handle() {
    let _turn = take_turns();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let (kiln, other) = (folder.open(), elsewhere.open());
    let (gate, suspects) = (Gate::default(), Meter::default());
    let own = runtime(&kiln, &gate, &suspects).start().unwrap();
    let stuck = suspect(&folder, &kiln, job("a", true));
    inside(&suspects, 1);
    let bystander = runtime(&other, &gate, &suspects).start().unwrap();
    let waits = suspect(&elsewhere, &other, job("a", false));
    reaches(&other, waits, State::Available);
    // Its thread goes on, and nobody waits for it.
    assert_eq!(own.stop_within(Duration::ZERO).cut, 1);
    reaches(&other, waits, State::Completed);
    assert_eq!(get(&kiln, stuck).state, State::Available);
    gate.open();
    bystander.stop();
}

#[test]
fn an_operator_sees_what_waits_as_a_suspect_and_a_retry_clears_its_crashes() {
    let _turn = take_turns();
    let folder = Folder::new();
    let kiln = folder.open();
    let (gate, suspects) = (Gate::default(), Meter::default());
    let runtime = runtime(&kiln, &gate, &suspects).start().unwrap();
    let running = suspect(&folder, &kiln, job("a", true));
    inside(&suspects, 1);
    let [second, first] = ["a"; 2].map(|queue| suspect(&folder, &kiln, job(queue, false)));
    let elsewhere = suspect(&folder, &kiln, job("b", false));
    let once = crashed(&folder, &kiln, job("nobody", false), 1);
    [first, second, elsewhere].iter().for_each(|id| drop(reaches(&kiln, *id, State::Available)));

    let listed = |queue: &str| kiln.check(queue).unwrap().remove(0).suspects;
    assert_eq!((listed("a"), listed("b")), (vec![second, first], vec![elsewhere]));
    assert_eq!(kiln.check(Queues::All).unwrap()[0].running, [running], "one that runs does not wait");
    let found = kiln.diagnose().unwrap();
    let mut crashed = found.of(Problem::Crashed);
    assert_eq!(crashed.next().unwrap().jobs, [running, once]);
    let waiting = crashed.next().unwrap();
    assert_eq!(waiting.jobs, [second, first, elsewhere]);
    assert!(waiting.text.starts_with("jobs that wait as suspects"), "{}", waiting.text);
    assert!(waiting.advice.starts_with("a process executes one suspect at a time"), "{}", waiting.advice);

    assert_eq!(kiln.cancel([second, once]).unwrap(), 2);
    assert_eq!(listed("a"), [first]);
    assert_eq!(kiln.retry(second).unwrap(), 1);
    assert_eq!(reaches(&kiln, second, State::Completed).crashes, 0);
    assert_eq!(get(&kiln, first).state, State::Available, "a job that was retried waits for no suspect");
    gate.open();
    [running, first, elsewhere].iter().for_each(|id| drop(reaches(&kiln, *id, State::Completed)));
    assert!(listed("a").is_empty() && kiln.diagnose().unwrap().of(Problem::Crashed).next().is_none());
    runtime.stop();
}

/// The runtime that claimed the jobs is dead: its sidecar is there, and nobody holds the lock.
#[test]
fn an_event_tells_that_a_rescued_job_waits_as_a_suspect() {
    let _turn = take_turns();
    let folder = Folder::new();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = Arc::clone(&told);
    let observer = move |event: &Event| lines.lock().push(event.to_string());
    let kiln = folder.open();
    let ids: Vec<i64> = [0, SUSPECT].map(|crashes| crashed(&folder, &kiln, job("a", false), crashes)).into();
    let hand = kiln::testing::Hand::new(&kiln, ["job"]);
    hand.stage(&["a"]).unwrap();
    stranger(&folder.db()).execute("UPDATE kiln_jobs SET crashes = 0", []).unwrap();
    let claimed = hand.claim("a", 2).unwrap();
    assert_eq!(claimed.len(), 2);
    stranger(&folder.db()).execute("UPDATE kiln_jobs SET crashes = ?2 WHERE id = ?1", (ids[1], SUSPECT)).unwrap();
    std::fs::write(folder.path(&format!("jobs.db-kiln-{}", claimed[0].attempted_by[1])), "").unwrap();
    drop((hand, kiln));

    let kiln = Kiln::builder(folder.db()).observe(observer).open().unwrap();
    let told = std::mem::take(&mut *told.lock());
    let of = |id: i64| -> Vec<&str> {
        let named = format!(" job={id} ");
        told.iter().filter(|line| line.contains(&named)).map(|line| line.split_once(' ').unwrap().0).collect()
    };
    assert_eq!((of(ids[0]), of(ids[1])), (vec!["rescued"], vec!["rescued", "suspected"]));
    let line = format!("suspected job={} queue=a worker=job attempt=1", ids[1]);
    assert!(told.contains(&line), "{told:?}");
    drop(kiln);
}
