//! A model of processes that execute jobs and die, which drives the rule for crashes: random histories in simulated
//! time.

use fastrand::Rng;
use jiff::Timestamp;

use super::ack::{Ack, Fence, Standing, Verdict};
use super::crash::{Begun, Lost, MOST_RESUMES, SUSPECT};
use super::json::Json;
use super::state::State;

/// Times are in milliseconds.
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const WINDOW: i64 = MINUTE;
const NEVER: i64 = i64::MAX / 2;
const MAX_CRASHES: i64 = 3;

#[derive(Clone, Debug)]
struct Job {
    /// How long its work takes.
    work: i64,
    /// How long it works before it stores a checkpoint.
    checkpoint_every: i64,
    /// How long after the beginning of an attempt it aborts its process.
    dies_after: i64,
    state: State,
    attempt: i64,
    max_attempts: i64,
    crashes: i64,
    resumes: i64,
    /// How much of the work its checkpoint holds.
    done: i64,
    /// When the attempt was claimed that stored the checkpoint.
    checkpoint_of: Option<i64>,
    /// How often its process died while it executed.
    deaths: i64,
}

fn job(work: i64) -> Job {
    Job {
        work,
        checkpoint_every: NEVER,
        dies_after: NEVER,
        state: State::Available,
        attempt: 0,
        max_attempts: 20,
        crashes: 0,
        resumes: 0,
        done: 0,
        checkpoint_of: None,
        deaths: 0,
    }
}

fn poison(dies_after: i64) -> Job {
    Job { dies_after, ..job(HOUR) }
}

/// An attempt that a process executes.
#[derive(Clone, Debug)]
struct Running {
    id: usize,
    process: usize,
    claimed_at: i64,
    /// When it begins, or when it stored its last checkpoint.
    window_from: i64,
    has_begun: bool,
    checkpoint_at: i64,
    dies_at: i64,
    ends_at: i64,
    is_suspect: bool,
}

impl Running {
    fn begun(&self, now: i64) -> Begun {
        match now {
            _ if !self.has_begun && now < self.window_from => Begun::No,
            _ if now < self.window_from + WINDOW => Begun::InWindow,
            _ => Begun::Outlived,
        }
    }
}

/// The file, and the processes that use it.
struct World {
    jobs: Vec<Job>,
    running: Vec<Running>,
    processes: usize,
    width: usize,
    now: i64,
    /// Since when each process executes no suspect in its window.
    free_since: Vec<i64>,
    /// How long a process is down, if it is the only one.
    downtime: i64,
    rng: Rng,
}

impl World {
    fn new(seed: u64, processes: usize, width: usize, jobs: Vec<Job>) -> Self {
        let (running, free_since, rng) = (Vec::new(), vec![0; processes], Rng::with_seed(seed));
        Self { jobs, running, processes, width, now: 0, free_since, downtime: 0, rng }
    }

    /// The rule of the claim: a process executes one suspect at a time, after ordinary jobs, but before them once it
    /// has executed no suspect for a minute. That minute is the process's: a job may have waited while no process ran.
    fn next_claim(&self, process: usize) -> Option<usize> {
        let here: Vec<&Running> = self.running.iter().filter(|it| it.process == process).collect();
        let is_free = !here.iter().any(|it| it.is_suspect && it.begun(self.now) != Begun::Outlived);
        let find = |suspect: bool| {
            let fits = |job: &Job| job.state == State::Available && (job.crashes >= SUSPECT) == suspect;
            self.jobs.iter().position(fits)
        };
        let suspect = || if is_free { find(true) } else { None };
        match self.now >= self.free_since[process] + MINUTE {
            _ if here.len() == self.width => None,
            true => suspect().or_else(|| find(false)),
            false => find(false).or_else(suspect),
        }
    }

    fn claim(&mut self) {
        for process in 0..self.processes {
            while let Some(id) = self.next_claim(process) {
                // Jobs begin a little after they were claimed, and in any order.
                let (claimed_at, begins_at) = (self.now, self.now + self.rng.i64(1..20));
                let job = &mut self.jobs[id];
                (job.state, job.attempt) = (State::Executing, job.attempt + 1);
                self.running.push(Running {
                    id,
                    process,
                    claimed_at,
                    window_from: begins_at,
                    has_begun: false,
                    checkpoint_at: begins_at + job.checkpoint_every,
                    dies_at: begins_at + job.dies_after,
                    ends_at: begins_at + job.work - job.done,
                    is_suspect: job.crashes >= SUSPECT,
                });
            }
        }
    }

    /// Executes until then, or until every job has ended.
    fn run_until(&mut self, until: i64) {
        loop {
            self.claim();
            let window = |it: &Running| Some(it.window_from + WINDOW).filter(|end| *end > self.now).unwrap_or(NEVER);
            let next = |it: &Running| it.checkpoint_at.min(it.dies_at).min(it.ends_at).min(window(it));
            let Some(it) = self.running.iter().min_by_key(|it| next(it)).cloned() else { return };
            let at = next(&it);
            if at > until {
                self.now = until;
                return;
            }
            let suspects = self.running.iter().filter(|it| it.is_suspect && it.begun(self.now) != Begun::Outlived);
            suspects.for_each(|it| self.free_since[it.process] = at);
            self.now = at;
            if at == it.dies_at {
                self.kill(it.process);
            } else if at == it.ends_at {
                self.running.retain(|other| other.id != it.id);
                self.settle(&it, Verdict::Complete);
            } else if at == it.checkpoint_at {
                let job = &mut self.jobs[it.id];
                job.done += job.checkpoint_every;
                job.checkpoint_of = Some(it.claimed_at);
                let next = at + job.checkpoint_every;
                let it = self.running.iter_mut().find(|other| other.id == it.id).unwrap();
                (it.has_begun, it.window_from, it.checkpoint_at) = (true, at, next);
            }
        }
    }

    /// The process ends, and its jobs are rescued.
    fn kill(&mut self, process: usize) {
        let dead = self.running.extract_if(.., |it| it.process == process).collect();
        self.rescue(dead, |it, now| it.begun(now));
        self.now += if self.processes == 1 { self.downtime } else { 0 };
        self.free_since[process] = self.now;
    }

    /// The machine goes down, and with it what the processes knew of their jobs.
    fn cut_power(&mut self) {
        let dead = std::mem::take(&mut self.running);
        self.rescue(dead, |_, _| Begun::Unknown);
    }

    fn rescue(&mut self, dead: Vec<Running>, begun: impl Fn(&Running, i64) -> Begun) {
        for it in &dead {
            let begun_at = begun(it, self.now);
            let company = dead.iter().any(|other| other.id != it.id && begun(other, self.now) == Begun::InWindow);
            let job = &mut self.jobs[it.id];
            job.deaths += i64::from(begun_at != Begun::No);
            let lost = Lost {
                fence: Fence { id: it.id as i64, attempt: job.attempt, attempted_at: it.claimed_at },
                begun: begun_at,
                crashes: job.crashes,
                resumes: job.resumes,
                max_attempts: job.max_attempts,
                has_checkpoint: job.checkpoint_of == Some(it.claimed_at),
                max_crashes: MAX_CRASHES as u32,
                company,
                owner: "r".into(),
            };
            self.settle(it, lost.verdict());
        }
    }

    fn settle(&mut self, it: &Running, verdict: Verdict) {
        let job = &mut self.jobs[it.id];
        let standing = Standing {
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            meta: Json::EMPTY,
            errors: "[]".into(),
            cancel_requested: false,
            crashes: job.crashes,
            resumes: job.resumes,
        };
        let fence = Fence { id: it.id as i64, attempt: job.attempt, attempted_at: it.claimed_at };
        let settled = Ack { fence, verdict }.settle(&standing, Timestamp::UNIX_EPOCH);
        (job.state, job.attempt) = (settled.state, settled.attempt);
        job.crashes = settled.crashes.unwrap_or(job.crashes);
        job.resumes = settled.resumes.unwrap_or(job.resumes);
    }

    fn states(&self) -> Vec<State> {
        self.jobs.iter().map(|job| job.state).collect()
    }
}

/// Some worlds of so many processes and threads with these jobs in any order, executed until all jobs have ended.
fn end_of(jobs: &[Job], widths: &[usize], check: impl Fn(&World, u64)) {
    for seed in 0..100 {
        for (processes, width, downtime) in widths.iter().flat_map(|w| [(1, *w, 0), (1, *w, 10 * MINUTE), (3, *w, 0)]) {
            let mut world = World::new(seed, processes, width, jobs.to_vec());
            world.downtime = downtime;
            world.rng.shuffle(&mut world.jobs);
            world.run_until(10_000 * HOUR);
            assert!(world.jobs.iter().all(|job| job.state.is_finished()), "seed {seed}: {:?}", world.jobs);
            check(&world, seed);
        }
    }
}

fn innocents_complete_and_poisons_are_discarded(world: &World, seed: u64) {
    for job in &world.jobs {
        let expected = if job.dies_after == NEVER { State::Completed } else { State::Discarded };
        assert_eq!(job.state, expected, "seed {seed}: {job:?}");
    }
}

#[test]
fn a_job_that_aborts_at_once_ends_and_its_neighbours_complete() {
    end_of(&[poison(0)], &[1, 8], |world, _| assert_eq!(world.jobs[0].deaths, MAX_CRASHES));
    for neighbour in [SECOND / 100, SECOND, 50 * SECOND, 10 * MINUTE] {
        let jobs: Vec<Job> = [poison(0)].into_iter().chain(vec![job(neighbour); 7]).collect();
        end_of(&jobs, &[1, 2, 8], innocents_complete_and_poisons_are_discarded);
    }
}

#[test]
fn many_poisons_among_many_short_jobs_condemn_no_innocent() {
    let short = [1, 30, 200, 2 * SECOND].map(|work| vec![job(work); 45]).concat();
    for dies_after in [0, 50, SECOND] {
        let jobs = [short.clone(), vec![poison(dies_after); 20]].concat();
        end_of(&jobs, &[1, 4, 16], innocents_complete_and_poisons_are_discarded);
    }
}

#[test]
fn nothing_loops_for_ever() {
    // It stores a checkpoint after 70 s, and dies 1 s or 61 s later.
    for (dies_after, deaths) in [(71 * SECOND, MOST_RESUMES + MAX_CRASHES), (131 * SECOND, MOST_RESUMES + 20)] {
        let looping = Job { checkpoint_every: 70 * SECOND, ..poison(dies_after) };
        end_of(&[vec![looping], vec![job(10 * SECOND); 7]].concat(), &[1, 8], |world, seed| {
            innocents_complete_and_poisons_are_discarded(world, seed);
            assert!(world.jobs.iter().all(|job| job.deaths == deaths || job.dies_after == NEVER), "seed {seed}");
        });
    }
}

#[test]
fn whatever_happens_every_job_ends_and_only_crashes_or_attempts_discard_one() {
    for seed in 0..500 {
        let rng = &mut Rng::with_seed(seed);
        let random = |_| {
            let time = |rng: &mut Rng| [50, SECOND, 20 * SECOND, 70 * SECOND, 10 * MINUTE][rng.usize(..5)];
            let checkpoint_every = if rng.bool() { time(rng) } else { NEVER };
            let dies_after = if rng.u8(..4) == 0 { time(rng) } else { NEVER };
            Job { checkpoint_every, dies_after, max_attempts: rng.i64(1..=20), ..job(time(rng)) }
        };
        let jobs = (0..12).map(random).collect();
        let mut world = World::new(seed, rng.usize(1..=3), rng.usize(1..=4), jobs);
        for _ in 0..rng.usize(..30) {
            world.run_until(world.now + rng.i64(0..3 * MINUTE));
            if rng.bool() { world.kill(0) } else { world.cut_power() }
        }
        world.run_until(NEVER);
        for job in &world.jobs {
            let may_be_discarded = job.crashes >= MAX_CRASHES || job.attempt == job.max_attempts;
            assert!(
                job.state == State::Completed || job.state == State::Discarded && may_be_discarded,
                "{seed}: {job:?}"
            );
        }
    }
}

#[test]
fn a_checkpointing_job_survives_ten_kills_and_ten_power_cuts() {
    for seed in 0..200 {
        let jobs = vec![Job { max_attempts: 3, checkpoint_every: 30 * SECOND, ..job(HOUR) }; 4];
        let mut world = World::new(seed, 1, 4, jobs);
        for end in 0..20 {
            let next = world.now + world.rng.i64(MINUTE..3 * MINUTE);
            world.run_until(next);
            if end % 2 == 0 { world.kill(0) } else { world.cut_power() }
        }
        assert!(world.jobs.iter().all(|job| job.deaths == 20 && job.state == State::Available), "{:?}", world.jobs);
        world.run_until(NEVER);
        assert_eq!(world.states(), [State::Completed; 4]);
    }
}

/// A job with these neighbours, after so many kills, each so long after the process began.
fn after_kills(first: Job, neighbours: &[Job], kills: i64, after: i64) -> World {
    let mut world = World::new(1, 1, 8, vec![first]);
    world.jobs.extend_from_slice(neighbours);
    for _ in 0..kills {
        world.run_until(world.now + after);
        world.kill(0);
    }
    world
}

#[test]
fn three_kills_from_outside_soon_after_a_start_discard_a_job_that_was_alone_at_the_third() {
    let states = |neighbours: &[Job], kills, after| after_kills(job(HOUR), neighbours, kills, after).states();
    assert_eq!(states(&[], 2, SECOND), [State::Available]);
    assert_eq!(states(&[], 3, SECOND), [State::Discarded]);
    assert_eq!(states(&[], 19, 2 * MINUTE), [State::Available], "later kills only cost the attempt");
    // After two kills both are suspects: the third kill finds one of them alone.
    assert_eq!(states(&[job(HOUR)], 2, SECOND), [State::Available; 2]);
    assert_eq!(states(&[job(HOUR)], 3, SECOND), [State::Discarded, State::Available]);

    // New jobs beside it are company: it is discarded at twice the number.
    let mut world = World::new(1, 1, 8, vec![job(HOUR)]);
    for kill in 1..=2 * MAX_CRASHES {
        world.jobs.push(job(HOUR));
        world.run_until(world.now + SECOND);
        world.kill(0);
        let expected = if kill < 2 * MAX_CRASHES { State::Available } else { State::Discarded };
        assert_eq!(world.jobs[0].state, expected, "{kill}");
    }
}

#[test]
fn a_crash_at_the_last_attempt_ends_the_job() {
    let last = |job: Job| Job { max_attempts: 1, ..job };
    for after in [SECOND, 2 * MINUTE] {
        assert_eq!(after_kills(last(job(HOUR)), &[], 1, after).states(), [State::Discarded]);
    }
    let progress = last(Job { checkpoint_every: SECOND, ..job(HOUR) });
    assert_eq!(after_kills(progress, &[], MOST_RESUMES, 2 * SECOND).states(), [State::Available]);
}

#[test]
fn a_job_that_dies_after_its_window_costs_its_neighbours_an_attempt_each_time() {
    let late = Job { max_attempts: 5, ..poison(90 * SECOND) };
    end_of(&[late, job(HOUR), job(HOUR)], &[3], |world, seed| {
        innocents_complete_and_poisons_are_discarded(world, seed);
        assert!(world.jobs.iter().all(|job| job.attempt == job.deaths + i64::from(job.dies_after == NEVER)));
    });
}

#[test]
fn a_power_cut_costs_an_attempt_and_discards_nothing() {
    for max_attempts in [1, 5, 30] {
        let mut world = World::new(1, 2, 4, vec![Job { max_attempts, ..job(HOUR) }; 8]);
        for cuts in 1..=20 {
            world.run_until(world.now + SECOND);
            world.cut_power();
            assert!(world.jobs.iter().all(|job| job.state == State::Available && job.crashes == 0));
            assert!(world.jobs.iter().all(|job| job.attempt == cuts.min(max_attempts - 1)));
        }
        world.run_until(NEVER);
        assert_eq!(world.states(), [State::Completed; 8]);
    }
}
