//! The world of one draw: what is there, what is drawn, and what must hold after every step.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use kiln::testing::{Hand, ManualClock};
use kiln::{Filter, Job, Kiln, Queues, State};

use crate::crons::Entry;
use crate::model::Model;
use crate::process::{Place, Process, QUEUES, Runtime, WORKERS};

/// An attempt that somebody was given.
pub struct Held {
    pub job: Job,
    pub owner: String,
    /// Whether a thread has begun it; one that was claimed ahead waits for that.
    pub begun: bool,
    /// It is the job's no more: acknowledged, or lost.
    pub over: bool,
}

/// What was said of a queue, or of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ruling {
    pub paused: Option<bool>,
    pub limit: Option<usize>,
}

pub struct World {
    pub dice: Rng,
    pub clock: ManualClock,
    pub place: Place,
    pub processes: Vec<Process>,
    /// The runtimes that live, each by the lock that says so.
    pub alive: HashMap<String, Option<File>>,
    pub jobs: BTreeMap<i64, Model>,
    /// What unique jobs are compared by.
    pub unique: BTreeMap<i64, i64>,
    /// Jobs that were left without an attempt by an update.
    pub lowered: BTreeSet<i64>,
    /// Jobs that were brought along after their end.
    pub history: BTreeSet<i64>,
    pub crons: BTreeMap<String, Entry>,
    pub rulings: HashMap<&'static str, Ruling>,
    pub all: Ruling,
    pub born: usize,
    pub gone: usize,
    pub last_id: i64,
    pub held: Vec<Held>,
    pub told: VecDeque<String>,
    pub tally: BTreeMap<&'static str, u64>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut dice = Rng::with_seed(seed);
        let clock = ManualClock::default();
        let in_memory = dice.u32(..2) == 0;
        let place = if in_memory { Place::Memory } else { Place::file(&clock) };
        let processes = (0..if in_memory { 1 } else { 2 }).map(|_| place.open(&clock, &mut dice)).collect();
        World {
            dice,
            clock,
            place,
            processes,
            alive: HashMap::new(),
            jobs: BTreeMap::new(),
            unique: BTreeMap::new(),
            lowered: BTreeSet::new(),
            history: BTreeSet::new(),
            crons: BTreeMap::new(),
            rulings: HashMap::new(),
            all: Ruling::default(),
            born: 0,
            gone: 0,
            last_id: 0,
            held: Vec::new(),
            told: VecDeque::new(),
            tally: BTreeMap::new(),
        }
    }

    pub fn tell(&mut self, what: impl Into<String>) {
        self.told.push_back(format!("{} {}", self.clock.now(), what.into()));
        if self.told.len() > 40 {
            self.told.pop_front();
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Any handle on the file.
    pub fn kiln(&mut self) -> Kiln {
        let n = self.dice.usize(..self.processes.len());
        self.processes[n].kiln.clone()
    }

    /// Where a runtime of those that live is.
    pub fn any_runtime(&mut self) -> (usize, usize) {
        let process = self.dice.usize(..self.processes.len());
        (process, self.dice.usize(..self.processes[process].runtimes.len()))
    }

    pub fn hand(&mut self) -> Hand {
        let (process, runtime) = self.any_runtime();
        self.processes[process].runtimes[runtime].hand.clone()
    }

    pub fn any_queue(&mut self) -> &'static str {
        QUEUES[self.dice.usize(..2)]
    }

    pub fn ruling(&self, queue: &str) -> Ruling {
        let own = self.rulings.get(queue).copied().unwrap_or_default();
        Ruling { paused: own.paused.or(self.all.paused), limit: own.limit.or(self.all.limit) }
    }

    pub fn step(&mut self) {
        let now = self.clock.now();
        match self.dice.u32(..100) {
            0..16 => self.enqueue(now),
            16..36 => self.claim(now),
            36..39 => self.begin(),
            39..58 => self.ack(now),
            58..62 => self.cancel(now),
            62..65 => self.retry(now),
            65..68 => self.delete(),
            68..71 => self.update(now),
            71..74 => self.say(),
            74..78 => self.stage(now),
            78..80 => self.die(),
            80..82 => self.rescue(now),
            82 => self.rescue_older(now),
            83..86 => self.prune(now),
            86..89 => self.change_crons(now),
            89..93 => self.fire(now),
            _ => self.turn_the_clock(),
        }
    }

    /// A process is killed and starts again; now and then all of them at once.
    fn die(&mut self) {
        let all = self.dice.u32(..4) == 0;
        let one = self.dice.usize(..self.processes.len());
        self.tell(if all { "all die".to_owned() } else { format!("process {one} dies") });
        for n in 0..self.processes.len() {
            if all || n == one {
                self.kill(n);
            }
        }
        if let Place::File { .. } = self.place {
            self.count("file opened again");
        }
    }

    fn kill(&mut self, n: usize) {
        let World { alive, processes, dice, place, clock, .. } = self;
        processes[n].runtimes.iter().filter_map(|runtime| runtime.id.as_ref()).for_each(|id| {
            alive.remove(id);
        });
        processes[n] = match place {
            // What is in memory goes with its handle: only the runtimes die.
            Place::Memory => {
                let kiln = processes[n].kiln.clone();
                Process { runtimes: Runtime::draw(&kiln, dice), kiln }
            }
            Place::File { .. } => place.open(clock, dice),
        };
        // Whoever opens a file looks for the dead.
        if self.place.tells_life() {
            self.abandon_dead(self.clock.now());
        }
        self.count("deaths");
    }

    /// Mostly on, sometimes back, sometimes by hours, as after a sleep.
    fn turn_the_clock(&mut self) {
        let seconds = match self.dice.u32(..10) {
            0 => {
                self.count("clock set back");
                -self.dice.i64(1..7200)
            }
            1 => {
                self.count("sleeps");
                self.dice.i64(3600..12 * 3600)
            }
            _ => self.dice.i64(0..60),
        };
        self.tell(format!("the clock moves by {seconds} s"));
        let micros = self.dice.i64(0..1000);
        self.clock.set(self.clock.now() + SignedDuration::from_secs(seconds) + SignedDuration::from_micros(micros));
    }

    /// What must hold, whatever was drawn.
    pub fn check(&mut self) {
        let kiln = self.kiln();
        let jobs = kiln.list(Filter::new().limit(u32::MAX)).unwrap();
        let found: BTreeMap<i64, Model> = jobs.iter().map(|job| (job.id, Model::of(job))).collect();
        for (id, model) in &self.jobs {
            assert_eq!(found.get(id), Some(model), "job {id}, as it is and as it must be");
            model.assert_sound(*id, self.lowered.contains(id), self.history.contains(id));
        }
        assert_eq!((found.len(), jobs.len()), (self.jobs.len(), self.jobs.len()), "no job is lost or invented");
        assert_eq!(self.born - self.gone, jobs.len(), "what was stored less what was deleted");
        self.check_counts(&kiln);
        self.check_crons(&kiln);
        self.check_queues(&kiln);
        self.check_executions();
    }

    fn check_counts(&self, kiln: &Kiln) {
        let counts = kiln.count(Filter::new()).unwrap();
        for queue in QUEUES {
            for state in State::ALL {
                let is_here = |model: &&Model| model.queue == queue && model.state == state;
                let expected = self.jobs.values().filter(is_here).count() as u64;
                assert_eq!(counts.get(queue, state), expected, "{state} jobs of queue {queue}");
            }
        }
        assert_eq!(counts.total(), self.jobs.len() as u64, "counts add up");
    }

    /// What each living runtime of another process is known to run, and how.
    fn check_queues(&self, kiln: &Kiln) {
        if !self.place.tells_life() {
            return;
        }
        let checks = kiln.check(Queues::All).unwrap();
        assert_eq!(checks.len(), self.alive.len() * QUEUES.len(), "the living run their queues");
        for check in checks {
            let ruling = self.ruling(&check.queue);
            assert_eq!(check.paused(), ruling.paused == Some(true), "{check:?}");
            let own = self.runtimes().find(|runtime| runtime.id.as_ref() == Some(&check.runtime)).unwrap();
            let place = QUEUES.iter().position(|queue| *queue == check.queue).unwrap();
            assert_eq!(check.limit, ruling.limit.unwrap_or(own.limits[place]), "{check:?}");
            let runs = |model: &Model| {
                model.state == State::Executing
                    && model.owner.as_ref() == Some(&check.runtime)
                    && model.queue == check.queue
            };
            let running: Vec<i64> = self.jobs.iter().filter(|(_, model)| runs(model)).map(|(id, _)| *id).collect();
            assert_eq!(check.running, running, "{check:?}");
        }
    }

    pub fn runtimes(&self) -> impl Iterator<Item = &Runtime> {
        self.processes.iter().flat_map(|process| &process.runtimes)
    }

    /// Every executing job is one that somebody was given, and given once.
    fn check_executions(&self) {
        let mut live: BTreeMap<i64, usize> = BTreeMap::new();
        for held in self.held.iter().filter(|held| !held.over) {
            *live.entry(held.job.id).or_default() += 1;
            assert!(self.jobs[&held.job.id].executes(&held.job), "job {} is over, and its attempt is not", held.job.id);
        }
        assert!(live.values().all(|count| *count == 1), "a job executes twice: {live:?}");
        let executing = self.jobs.iter().filter(|(_, model)| model.state == State::Executing);
        let executing: Vec<i64> = executing.map(|(id, _)| *id).collect();
        assert_eq!(live.into_keys().collect::<Vec<_>>(), executing, "what executes is held by somebody");
    }

    /// Changes a job behind everybody's back, for the test of this test.
    pub fn spoil(&self) {
        let hand = Hand::new(&self.processes[0].kiln, WORKERS);
        for queue in QUEUES {
            for job in hand.claim(queue, 1).unwrap() {
                hand.ack(&job, kiln::Outcome::Complete).unwrap();
            }
        }
    }

    /// Everything that can end ends.
    pub fn settle(&mut self) {
        let kiln = self.kiln();
        kiln.resume(Queues::All).unwrap();
        (self.all.paused, self.rulings) = (Some(false), self.rulings.drain().map(unpaused).collect());
        let names: Vec<String> = self.crons.keys().cloned().collect();
        names.iter().for_each(|name| assert!(kiln.delete_cron(name).unwrap()));
        self.crons.clear();
        (0..self.processes.len()).for_each(|n| self.kill(n));
        self.tell("the end");
        for _ in 0..1000 {
            self.clock.advance(Duration::from_secs(7200));
            let now = self.clock.now();
            self.rescue(now);
            self.stage_all(now);
            let mut idle = true;
            for queue in QUEUES {
                let kiln = self.kiln();
                let hand = Hand::new(&kiln, WORKERS);
                for job in self.claim_with(&hand, &WORKERS, queue, 1000, now) {
                    idle = false;
                    assert!(hand.ack(&job, kiln::Outcome::Complete).unwrap());
                    self.jobs.get_mut(&job.id).unwrap().end(State::Completed, now);
                }
            }
            let open = |model: &Model| !model.state.is_finished() && model.state != State::Suspended;
            if idle && !self.jobs.values().any(open) {
                self.check();
                return self.place.assert_whole();
            }
        }
        panic!("something never ends");
    }

    pub fn forget(&mut self, id: i64) {
        assert!(self.jobs.remove(&id).is_some());
        self.unique.remove(&id);
        self.gone += 1;
    }

    /// Notes which attempts are their job's no more.
    pub fn look_for_lost(&mut self) {
        let World { held, jobs, .. } = self;
        for held in held.iter_mut().filter(|held| !held.over) {
            held.over = !jobs.get(&held.job.id).is_some_and(|model| model.executes(&held.job));
        }
        // The oldest of those that are over are forgotten.
        let over: Vec<usize> = (0..held.len()).filter(|n| held[*n].over).collect();
        for n in over.iter().take(over.len().saturating_sub(30)).rev() {
            held.remove(*n);
        }
    }
}

fn unpaused((queue, ruling): (&'static str, Ruling)) -> (&'static str, Ruling) {
    (queue, Ruling { paused: None, ..ruling })
}

/// So many seconds from now, or before.
pub fn from(now: Timestamp, seconds: i64) -> Timestamp {
    now + SignedDuration::from_secs(seconds)
}
