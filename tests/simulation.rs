//! A seed draws verbs, deaths, late acks and jumps of the clock; the real engine is held to a model in memory.
//!
//! `KILN_SIMULATION_STEPS` says how many steps (10,000 unless said otherwise), `KILN_SIMULATION_SEED` which draw; a
//! failure prints both, and the last steps.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use kiln::testing::{Hand, ManualClock};
use kiln::{Changes, Filter, Job, Kiln, NewJob, Outcome, State};

const WORKER: &str = "app.Worker";
const QUEUES: [&str; 2] = ["a", "b"];

/// A job, as it must be.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    state: State,
    queue: String,
    priority: i64,
    attempt: i64,
    max_attempts: i64,
    due: Timestamp,
    attempted_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    asked: bool,
    errors: usize,
}

impl Model {
    fn of(job: &Job) -> Model {
        let ended_at = match job.state {
            State::Completed => job.completed_at,
            State::Cancelled => job.cancelled_at,
            State::Discarded => job.discarded_at,
            _ => None,
        };
        Model {
            state: job.state,
            queue: job.queue.clone(),
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            due: job.scheduled_at,
            attempted_at: job.attempted_at,
            ended_at,
            asked: job.cancel_requested_at.is_some(),
            errors: job.errors.len().min(20),
        }
    }

    fn end(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.ended_at = Some(now);
    }

    fn error(&mut self) {
        self.errors = (self.errors + 1).min(20);
    }

    /// To a state it may run again from, unless somebody asked to cancel it.
    fn live(&mut self, state: State, due: Option<Timestamp>, now: Timestamp) {
        if self.asked {
            return self.end(State::Cancelled, now);
        }
        self.state = state;
        self.due = due.unwrap_or(self.due);
    }

    fn abandon(&mut self, now: Timestamp) {
        self.error();
        match self.attempt >= self.max_attempts {
            true if !self.asked => self.end(State::Discarded, now),
            _ => self.live(State::Available, None, now),
        }
    }
}

struct World {
    seed: u64,
    dice: Rng,
    clock: ManualClock,
    kiln: Kiln,
    hand: Hand,
    jobs: BTreeMap<i64, Model>,
    last_id: i64,
    /// Attempts that somebody holds, some of them long lost.
    held: Vec<Job>,
    told: VecDeque<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let clock = ManualClock::default();
        let kiln = Kiln::memory_builder().clock(&clock).open().unwrap();
        let hand = Hand::new(&kiln, [WORKER]);
        let dice = Rng::with_seed(seed);
        World {
            seed,
            dice,
            clock,
            kiln,
            hand,
            jobs: BTreeMap::new(),
            last_id: 0,
            held: Vec::new(),
            told: VecDeque::new(),
        }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push_back(format!("{} {}", self.clock.now(), what.into()));
        if self.told.len() > 30 {
            self.told.pop_front();
        }
    }

    fn any(&mut self) -> Option<i64> {
        let ids: Vec<i64> = self.jobs.keys().copied().collect();
        self.dice.choice(ids)
    }

    fn step(&mut self) {
        let now = self.clock.now();
        match self.dice.u32(..100) {
            0..20 => self.enqueue(now),
            20..45 => self.claim(now),
            45..70 => self.ack(now),
            70..75 => self.cancel(now),
            75..79 => self.retry(now),
            79..81 => self.delete(),
            81..84 => self.update(now),
            84..90 => self.stage(now),
            90..92 => self.rescue(now),
            92..94 => self.prune(now),
            _ => self.turn_the_clock(),
        }
    }

    fn enqueue(&mut self, now: Timestamp) {
        let mut new = Vec::new();
        let mut models = Vec::new();
        for _ in 0..self.dice.usize(1..4) {
            let queue = QUEUES[self.dice.usize(..2)];
            let (priority, max_attempts) = (self.dice.i64(0..10), self.dice.i64(1..5));
            let job = NewJob::new(WORKER).queue(queue).priority(priority).max_attempts(max_attempts);
            let later = now + SignedDuration::from_secs(self.dice.i64(-50..200));
            let (job, state, due) = match self.dice.u32(..4) {
                0 => (job.scheduled_at(later), State::Scheduled, later),
                1 if self.dice.u32(..5) == 0 => (job.state(State::Suspended), State::Suspended, now),
                _ => (job, State::Available, now),
            };
            let (attempted_at, ended_at) = (None, None);
            let queue = queue.to_owned();
            models.push(Model {
                state,
                queue,
                priority,
                attempt: 0,
                max_attempts,
                due,
                attempted_at,
                ended_at,
                asked: false,
                errors: 0,
            });
            new.push(job);
        }
        self.tell(format!("enqueue {}", new.len()));
        for (job, model) in self.kiln.enqueue_many(new).unwrap().iter().zip(models) {
            assert!(job.id > self.last_id, "an id is given twice");
            self.last_id = job.id;
            self.jobs.insert(job.id, model);
        }
    }

    fn claim(&mut self, now: Timestamp) {
        let queue = QUEUES[self.dice.usize(..2)];
        let limit = self.dice.usize(1..5);
        let claimed = self.hand.claim(queue, limit).unwrap();
        self.tell(format!("claim {limit} of {queue}: {:?}", claimed.iter().map(|job| job.id).collect::<Vec<_>>()));
        let fits = |model: &Model| {
            model.state == State::Available && model.queue == queue && model.attempt < model.max_attempts
        };
        let waiting = self.jobs.iter().filter(|(_, model)| fits(model));
        let mut expected: Vec<_> = waiting.map(|(id, model)| (model.priority, model.due, *id)).collect();
        expected.sort_unstable();
        expected.truncate(limit);
        let found: Vec<_> = claimed.iter().map(|job| (job.priority, job.scheduled_at, job.id)).collect();
        assert_eq!(found, expected, "claimed in claim order, and no two at once");
        for job in claimed {
            let model = self.jobs.get_mut(&job.id).unwrap();
            assert!(job.attempted_at > model.attempted_at, "no two attempts look the same");
            model.state = State::Executing;
            model.attempt += 1;
            model.attempted_at = Some(job.attempted_at.unwrap().max(now));
            self.held.push(job);
        }
    }

    /// Somebody acknowledges an attempt, perhaps one that is long lost, perhaps a second time.
    fn ack(&mut self, now: Timestamp) {
        if self.held.is_empty() {
            return;
        }
        let n = self.dice.usize(..self.held.len());
        let job = if self.dice.u32(..5) == 0 { self.held[n].clone() } else { self.held.swap_remove(n) };
        let delay = Duration::from_secs(self.dice.u64(..100));
        let due = now + delay;
        let verdict = self.dice.u32(..12);
        let landed = match verdict {
            0..4 => self.hand.ack(&job, Outcome::Complete),
            4 => self.hand.ack(&job, Outcome::record(&job.id).unwrap()),
            5 => self.hand.ack(&job, Outcome::snooze(delay)),
            6 => self.hand.ack(&job, Outcome::cancel("no more")),
            7..10 => self.hand.fail(&job, "failed", delay),
            10 => self.hand.release(&job),
            _ => self.hand.discard(&job, "hopeless"),
        }
        .unwrap();
        self.tell(format!("ack {verdict} of {} attempt {}: {landed}", job.id, job.attempt));
        let current = |model: &&mut Model| {
            model.state == State::Executing && (model.attempt, model.attempted_at) == (job.attempt, job.attempted_at)
        };
        let model = self.jobs.get_mut(&job.id).filter(current);
        assert_eq!(landed, model.is_some(), "an ack lands just where its attempt still is the job's");
        let Some(model) = model else { return };
        match verdict {
            0..5 => model.end(State::Completed, now),
            5 => {
                model.attempt -= 1;
                model.live(State::Scheduled, Some(due), now);
            }
            6 => {
                model.error();
                model.end(State::Cancelled, now);
            }
            7..10 => {
                model.error();
                match model.attempt >= model.max_attempts {
                    true if !model.asked => model.end(State::Discarded, now),
                    _ => model.live(State::Retryable, Some(due), now),
                }
            }
            10 => {
                model.attempt -= 1;
                model.live(State::Available, None, now);
            }
            _ => {
                model.error();
                model.end(if model.asked { State::Cancelled } else { State::Discarded }, now);
            }
        }
    }

    fn cancel(&mut self, now: Timestamp) {
        let Some(id) = self.any() else { return };
        let count = self.kiln.cancel(id).unwrap();
        self.tell(format!("cancel {id}: {count}"));
        let model = self.jobs.get_mut(&id).unwrap();
        assert_eq!(count, u64::from(!model.state.is_finished()));
        match model.state {
            State::Executing => model.asked = true,
            state if state.is_finished() => {}
            _ => model.end(State::Cancelled, now),
        }
    }

    fn retry(&mut self, now: Timestamp) {
        let Some(id) = self.any() else { return };
        let count = self.kiln.retry(id).unwrap();
        self.tell(format!("retry {id}: {count}"));
        let model = self.jobs.get_mut(&id).unwrap();
        let revived = !matches!(model.state, State::Available | State::Executing);
        assert_eq!(count, u64::from(revived));
        if revived {
            model.state = State::Available;
            model.max_attempts = model.max_attempts.max(model.attempt + 1);
            (model.due, model.asked, model.ended_at) = (now, false, None);
        }
    }

    fn delete(&mut self) {
        let Some(id) = self.any() else { return };
        let count = self.kiln.delete(id).unwrap();
        self.tell(format!("delete {id}: {count}"));
        let gone = self.jobs[&id].state != State::Executing;
        assert_eq!(count, u64::from(gone));
        if gone {
            self.jobs.remove(&id);
        }
    }

    fn update(&mut self, now: Timestamp) {
        let Some(id) = self.any() else { return };
        let priority = self.dice.i64(0..10);
        let due = now + SignedDuration::from_secs(self.dice.i64(-50..100));
        self.tell(format!("update {id} to priority {priority}, due {due}"));
        assert_eq!(self.kiln.update(id, Changes::new().priority(priority).scheduled_at(due)).unwrap(), 1);
        let model = self.jobs.get_mut(&id).unwrap();
        (model.priority, model.due) = (priority, due);
        model.state = match model.state {
            State::Available if due > now => State::Scheduled,
            State::Scheduled if due <= now => State::Available,
            state => state,
        };
    }

    fn stage(&mut self, now: Timestamp) {
        let staged = self.hand.stage(&QUEUES).unwrap();
        self.tell(format!("stage: {staged}"));
        let waits = |model: &&mut Model| matches!(model.state, State::Scheduled | State::Retryable) && model.due <= now;
        let count = self.jobs.values_mut().filter(waits).map(|model| model.state = State::Available).count();
        assert_eq!(staged, count as u64);
    }

    /// The process dies, and another finds what it left.
    fn rescue(&mut self, now: Timestamp) {
        let rescued = self.hand.rescue().unwrap();
        self.tell(format!("rescue: {rescued}"));
        let mut count = 0;
        for model in self.jobs.values_mut() {
            if model.state == State::Executing {
                model.abandon(now);
                count += 1;
            } else if model.state == State::Available && model.attempt >= model.max_attempts {
                model.end(State::Discarded, now);
                count += 1;
            }
        }
        assert_eq!(rescued, count);
    }

    fn prune(&mut self, now: Timestamp) {
        let age = Duration::from_secs(self.dice.u64(..300));
        let pruned = self.hand.prune(age).unwrap();
        self.tell(format!("prune {age:?}: {pruned}"));
        let before = self.jobs.len();
        self.jobs.retain(|_, model| !model.state.is_finished() || model.ended_at.unwrap() > now - age);
        assert_eq!(pruned, (before - self.jobs.len()) as u64);
    }

    /// Mostly on, sometimes back, sometimes by hours, as after a sleep.
    fn turn_the_clock(&mut self) {
        let seconds = match self.dice.u32(..10) {
            0 => self.dice.i64(-7200..0),
            1 => self.dice.i64(0..7200),
            _ => self.dice.i64(0..60),
        };
        self.tell(format!("the clock moves by {seconds} s"));
        self.clock.set(self.clock.now() + SignedDuration::from_secs(seconds));
    }

    fn check(&self) {
        let jobs = self.kiln.list(Filter::new().limit(u32::MAX)).unwrap();
        let found: BTreeMap<i64, Model> = jobs.iter().map(|job| (job.id, Model::of(job))).collect();
        for (id, model) in &self.jobs {
            assert_eq!(found.get(id), Some(model), "job {id}");
            assert!(model.attempt <= model.max_attempts && model.attempt >= 0);
        }
        assert_eq!(found.len(), self.jobs.len(), "no job is lost or invented");
        let counts = self.kiln.count(Filter::new()).unwrap();
        for state in State::ALL {
            let expected = self.jobs.values().filter(|model| model.state == state).count();
            assert_eq!(counts.state(state), expected as u64, "counts add up");
        }
    }

    /// Everything that can end ends.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.clock.advance(Duration::from_secs(7200));
            let now = self.clock.now();
            self.rescue(now);
            self.stage(now);
            let mut idle = true;
            for queue in QUEUES {
                for job in self.hand.claim(queue, 1000).unwrap() {
                    idle = false;
                    assert!(self.hand.ack(&job, Outcome::Complete).unwrap());
                    self.jobs.get_mut(&job.id).unwrap().end(State::Completed, now);
                }
            }
            let open = |model: &Model| !model.state.is_finished() && model.state != State::Suspended;
            if idle && !self.jobs.values().any(open) {
                return;
            }
        }
        panic!("something never ends");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told: Vec<&str> = self.told.iter().map(String::as_str).collect();
            eprintln!("KILN_SIMULATION_SEED={}, and last:\n{}", self.seed, told.join("\n"));
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, got {text}")))
}

#[test]
fn whatever_is_drawn_the_engine_does_what_the_model_does() {
    let steps = number("KILN_SIMULATION_STEPS").unwrap_or(10_000);
    let seed = number("KILN_SIMULATION_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("KILN_SIMULATION_SEED={seed}");
    // Many small worlds rather than a large one: each ends, and what can end must.
    for world in 0..steps.div_ceil(500) {
        let mut world = World::new(seed.wrapping_add(world));
        for step in 0..500 {
            world.step();
            if step % 10 == 0 {
                world.check();
            }
        }
        world.settle();
    }
}
