//! Kills at random moments: nothing lost, nothing doubled, nothing invented.

use std::collections::{HashMap, HashSet};
use std::env;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::Timestamp;
use kiln::{Filter, Job, Missed, NewCron, NewJob, State, Worker};

use crate::child::{Child, Role};
use crate::folder::{Folder, drained, node, unfinished, wait_for};
use crate::log::{Execution, Story, micros};
use crate::report;
use crate::watch::{Seen, Watch};
use crate::workers::{Ends, Mood, Moody, Tick, abandoned_last, abandonments, failures, rescued, runtime, snoozed};

/// More than any job is attempted by itself.
const HOPELESS: u64 = 1_000_000;

/// A job keeps no more.
const MOST_ERRORS: usize = 20;

/// How far apart the slots of the cron entry are.
const TICK: Duration = Duration::from_millis(250);

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect(variable))
}

#[test]
fn kills_at_random_moments_lose_nothing_double_nothing_and_invent_nothing() {
    let long = env::var_os("KILN_LONG").is_some_and(|long| long != "0");
    let rounds = number("KILN_CRASH_ROUNDS").unwrap_or(if long { 200 } else { 30 });
    let seed = number("KILN_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("KILN_CRASH_SEED={seed} KILN_CRASH_ROUNDS={rounds}");
    let mut rng = Rng::with_seed(seed);
    let folder = Folder::new();
    let all = Missed::RunAll { max: 1000, within: Duration::from_secs(3600) };
    folder.kiln().cron(NewCron::every(TICK, Tick::job(())).name("tick").missed(all)).unwrap();
    let watch = Watch::start(&folder);
    let started = Instant::now();
    let kills = kill_at_random(&folder, &mut rng, rounds);
    let killed = started.elapsed();

    let kiln = folder.kiln();
    let last = runtime(&kiln, &folder, 8).start().unwrap();
    folder.log().lives();
    // What was due while nobody lived is fired before the entry rests.
    let now = Timestamp::from_microsecond(micros().cast_signed()).unwrap();
    wait_for("the last slot", || kiln.crons().unwrap()[0].last_slot.filter(|slot| *slot >= now));
    kiln.pause_cron("tick").unwrap();
    drained(&kiln);
    let stopped = last.stop();
    assert_eq!((stopped.cut, stopped.unwritten), (0, 0));
    let seen = watch.end();
    println!("{kills} kills in {killed:?}, drained in {:?}", started.elapsed() - killed);

    let jobs = kiln.list(Filter::new().worker(Moody::NAME).limit(u32::MAX)).unwrap();
    let ticks = kiln.list(Filter::new().worker(Tick::NAME).limit(u32::MAX)).unwrap();
    let story = folder.log().read();
    check(&story, &jobs, &ticks);
    check_listed_ahead(&story, &jobs);
    check_ticks(&story, &ticks);
    let most = tell(&seen, &story, &jobs);
    report(
        "processes are killed -9 at random moments",
        rounds,
        "nothing lost, nothing made up, none run twice at a time",
    );
    report(
        "processes are killed with jobs executing, beside runtimes that live",
        format!("{kills} kills"),
        format!("each rescued within a second ({most} ms at the most)"),
    );
    report(
        "a job's process is killed during it",
        format!("{rounds} kills"),
        "it runs again, no more often than that happened to it",
    );
    report("cron entries while processes are killed", format!("{rounds} kills"), "each slot has its job, none has two");
    drop(kiln);
    folder.assert_whole();
    folder.assert_nothing_left_behind();
}

/// Two or three workers and an enqueuer on a file that is new; says how many of them were killed.
fn kill_at_random(folder: &Folder, rng: &mut Rng, rounds: u64) -> u64 {
    let worker = |rng: &mut Rng| Some(Child::worker(folder, rng.usize(1..=4)));
    let enqueuer = |rng: &mut Rng| Child::start(folder, Role::Enqueuer { seed: rng.u64(..) });
    let mut workers = [worker(rng), worker(rng), worker(rng)];
    let mut source = enqueuer(rng);
    let mut kills = 0;
    while kills < rounds {
        // Many die while they start.
        let wait = if rng.u8(..3) == 0 { rng.u64(..40) } else { rng.u64(40..400) };
        thread::sleep(Duration::from_millis(wait));
        match rng.u8(..12) {
            0..3 => {
                source.kill(folder);
                source = enqueuer(rng);
                kills += 1;
            }
            3 => {
                for child in workers.iter_mut().filter_map(Option::take) {
                    child.kill(folder);
                    kills += 1;
                }
            }
            _ => {
                let slot = rng.usize(..workers.len());
                if let Some(child) = workers[slot].take() {
                    child.kill(folder);
                    kills += 1;
                }
                if rng.bool() {
                    // Its place stays empty for a while.
                    continue;
                }
            }
        }
        for slot in workers.iter_mut().filter(|slot| slot.is_none()) {
            *slot = worker(rng);
        }
    }
    source.kill(folder);
    for child in workers.into_iter().flatten() {
        child.kill(folder);
        kills += 1;
    }
    kills + 1
}

/// The life of the enqueuer: a job or three at a time, each written down before and after.
pub fn enqueue(folder: &Folder, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let kiln = folder.kiln();
    let log = folder.log();
    for n in 0_u64.. {
        thread::sleep(Duration::from_millis(rng.u64(..30)));
        if n % 8 == 0 {
            // The workers shall be busy, but not for ever.
            while unfinished(&kiln).total() > 50 {
                thread::sleep(Duration::from_millis(20));
            }
        }
        let batch = if rng.u8(..8) == 0 { 3 } else { 1 };
        let keys: Vec<String> = (0..batch).map(|i| format!("{}/{n}/{i}/{batch}", process::id())).collect();
        keys.iter().for_each(|key| log.try_enqueue(key));
        let jobs = keys.iter().map(|key| draw(&mut rng, key));
        let ids: Vec<i64> = match batch {
            1 => jobs.map(|job| kiln.enqueue(job).unwrap().id).collect(),
            _ => kiln.enqueue_many(jobs).unwrap().iter().map(|job| job.id).collect(),
        };
        keys.iter().zip(ids).for_each(|(key, id)| log.enqueued(key, id));
    }
}

fn draw(rng: &mut Rng, key: &str) -> NewJob {
    let times = |rng: &mut Rng| rng.u64(..5).saturating_sub(2);
    let mood = Mood {
        key: key.to_owned(),
        millis: if rng.bool() { 0 } else { rng.u64(..=500) },
        snoozes: times(rng),
        failures: if rng.u8(..16) == 0 { HOPELESS } else { times(rng) },
        ends: [Ends::Complete, Ends::Complete, Ends::Record, Ends::Cancel][rng.usize(..4)],
    };
    let hopeless = mood.failures == HOPELESS;
    let job = Moody::job(mood).priority(rng.i64(0..10));
    let job = if hopeless { job.max_attempts(3) } else { job };
    if rng.u8(..4) == 0 { job.schedule_in(Duration::from_millis(rng.u64(..200))) } else { job }
}

fn check(story: &Story, jobs: &[Job], ticks: &[Job]) {
    story.assert_orderly();
    let mood = |job: &Job| -> Mood { job.args.decode().unwrap() };
    let ids: HashMap<String, i64> = jobs.iter().map(|job| (mood(job).key, job.id)).collect();
    assert_eq!(ids.len(), jobs.len(), "no job is there twice");
    for (key, (id, _)) in &story.enqueued {
        assert_eq!(ids.get(key), Some(id), "{key} was enqueued, and is lost");
    }
    for key in ids.keys() {
        assert!(story.tried.contains(key), "{key} was never enqueued");
        let (batch, size) = batch_of(key);
        let there = (0..size).filter(|i| ids.contains_key(&format!("{batch}/{i}/{size}"))).count();
        assert_eq!(there, size, "a batch is stored as a whole: {key}");
    }
    let unanswered = jobs.len() - story.enqueued.len();
    assert!(unanswered <= 3 * story.kills.len(), "only a kill keeps an answer back");
    let known: HashSet<i64> = jobs.iter().chain(ticks).map(|job| job.id).collect();
    assert!(story.executions.iter().all(|execution| known.contains(&execution.id)), "what ran is a job");
    jobs.iter().for_each(|job| check_job(story, job, &mood(job)));
}

fn batch_of(key: &str) -> (&str, usize) {
    let (rest, size) = key.rsplit_once('/').unwrap();
    (rest.rsplit_once('/').unwrap().0, size.parse().unwrap())
}

/// What came of a job is what it was asked for, whatever died under it on the way.
fn check_job(story: &Story, job: &Job, mood: &Mood) {
    let abandoned = abandonments(job);
    for error in &abandoned {
        let killed = story.kills.keys().any(|&pid| error.contains(&format!("{:?}", node(pid))));
        assert!(killed, "only the killed leave jobs behind: {job:?}");
    }
    let crashes = abandoned.len() as u64;
    let executions = story.of(job.id);
    let outcomes = |how: &str| {
        let ended = executions.iter().filter_map(|execution| execution.ended.as_ref());
        ended.filter(|(_, outcome)| outcome == how).count() as u64
    };
    if job.errors.len() < MOST_ERRORS {
        executions.iter().filter(|execution| execution.ended.is_none()).for_each(|cut| check_cut(job, cut));
    }
    let attempts = job.attempt.unsigned_abs();
    if mood.failures == HOPELESS {
        assert_eq!((job.state, attempts, failures(job) + crashes), (State::Discarded, 3, 3), "{job:?}");
        assert!(executions.len() as u64 <= 3 + snoozed(job), "{job:?}");
        // The crash that took the last attempt is no rescue. A snooze ends a row of crashes, and is no error.
        let in_a_row = abandoned_last(job) as i64;
        assert_eq!(rescued(job), crashes - u64::from(in_a_row > 0), "{job:?}");
        assert!(job.crashes == in_a_row || mood.snoozes > 0 && (1..in_a_row).contains(&job.crashes), "{job:?}");
        return;
    }
    assert_eq!(job.crashes, 0, "an ordinary end resets them: {job:?}");
    if job.errors.len() == MOST_ERRORS {
        // Some were dropped, and with them what tells the worker how often it has failed.
        let wanted = 1 + snoozed(job) + outcomes("failure");
        let (ran, killed) = (executions.len() as u64, story.kills_during(&executions) as u64);
        assert!(job.state.is_finished() && rescued(job) >= crashes, "{job:?}");
        assert!(
            ran <= wanted + killed,
            "it ran {ran} times, wanted {wanted}, and lived through {killed} kills: {job:?}"
        );
        return;
    }
    let (state, errors) = match mood.ends {
        Ends::Complete | Ends::Record => (State::Completed, mood.failures + crashes),
        Ends::Cancel => (State::Cancelled, mood.failures + crashes + 1),
    };
    assert_eq!(job.state, state, "{job:?}");
    assert_eq!(job.errors.len() as u64, errors, "{job:?}");
    assert_eq!((snoozed(job), failures(job), rescued(job)), (mood.snoozes, mood.failures, crashes), "{job:?}");
    assert_eq!(attempts, 1 + mood.failures + crashes, "every claim is accounted for: {job:?}");
    let record: Option<String> = job.recorded().unwrap();
    assert_eq!(record, (mood.ends == Ends::Record).then(|| mood.key.clone()), "{job:?}");

    let wanted = 1 + mood.snoozes + mood.failures;
    let ran = executions.len() as u64;
    let killed = story.kills_during(&executions) as u64;
    assert!((wanted..=wanted + crashes).contains(&ran), "it ran {ran} times, {wanted} were wanted: {job:?}");
    assert!(ran <= wanted + killed, "it ran {ran} times, wanted {wanted}, and lived through {killed} kills: {job:?}");
    assert!(outcomes("snooze") >= mood.snoozes && outcomes("failure") >= mood.failures, "{job:?}");
    let last = executions.last().and_then(|execution| execution.ended.as_ref()).map(|(_, how)| how.as_str());
    assert!(matches!(last, Some("complete" | "record" | "cancel")), "its last execution ended it: {job:?}");
}

/// An attempt that was cut off has its error: it says which attempt it was, and whose.
fn check_cut(job: &Job, cut: &Execution) {
    let owner = format!("{:?}", node(cut.pid));
    let own = job.errors.iter().filter(|error| error.attempt == cut.attempt && error.error.contains(&owner));
    assert_eq!(own.count(), 1, "{cut:?} of {job:?}");
}

/// Few jobs look begun and had not: a runtime lists at most one block of them ahead of its threads.
fn check_listed_ahead(story: &Story, jobs: &[Job]) {
    const BLOCK: usize = 16;
    const THREADS: usize = 4;
    let mut ahead: HashMap<u32, usize> = HashMap::new();
    for job in jobs {
        let executions = story.of(job.id);
        for error in job.errors.iter().filter(|error| error.error.starts_with("abandoned: ")) {
            let pid = *story.kills.keys().find(|&&pid| error.error.contains(&format!("{:?}", node(pid)))).unwrap();
            let began = executions.iter().any(|begun| (begun.pid, begun.attempt) == (pid, error.attempt));
            *ahead.entry(pid).or_default() += usize::from(!began);
        }
    }
    println!("{} attempts were listed as begun, and had not", ahead.values().sum::<usize>());
    assert!(ahead.values().all(|count| *count < BLOCK + THREADS), "{ahead:?}");
}

/// Each slot of the cron entry has one job, from the first to the last, and each ran once more for each kill at the most.
fn check_ticks(story: &Story, ticks: &[Job]) {
    let slot = |job: &Job| -> i64 {
        let slot: Timestamp = job.meta.get("cron_at").unwrap().as_str().unwrap().parse().unwrap();
        slot.as_millisecond()
    };
    let mut slots: Vec<i64> = ticks.iter().map(slot).collect();
    slots.sort_unstable();
    assert!(slots.len() > 4, "there is something to see: {slots:?}");
    let apart = TICK.as_millis() as i64;
    assert!(slots.windows(2).all(|pair| pair[1] - pair[0] == apart), "a slot is lost or doubled: {slots:?}");
    for job in ticks {
        let executions = story.of(job.id);
        let killed = story.kills_during(&executions);
        assert_eq!(job.state, State::Completed, "{job:?}");
        assert!((1..=1 + killed).contains(&executions.len()), "{} runs, {killed} kills: {job:?}", executions.len());
    }
}

/// Asserts that each rescue came in time, and has numbers for whoever reads along; says what the longest took, in
/// milliseconds.
fn tell(seen: &Seen, story: &Story, jobs: &[Job]) -> u64 {
    let waits = seen.waits(story);
    let mut sorted: Vec<u64> = waits.values().map(|wait| wait.micros / 1000).collect();
    sorted.sort_unstable();
    let [median, most] = [sorted.get(sorted.len() / 2), sorted.last()].map(|wait| wait.copied().unwrap_or_default());
    let lost = waits.values().map(|wait| wait.lost / 1000).max().unwrap_or_default();
    let cut = story.executions.iter().filter(|execution| execution.ended.is_none()).count();
    let rescued: usize = jobs.iter().map(|job| abandonments(job).len()).sum();
    println!("{} jobs, {} executions, {cut} cut off, {rescued} attempts rescued", jobs.len(), story.executions.len());
    println!(
        "{} processes died with jobs; where a runtime lived, these were rescued after {median} ms (median) to {most} ms; \
         the machine lost {} ms at once, and {lost} ms during one rescue",
        waits.len(),
        seen.worst() / 1000,
    );
    most
}
