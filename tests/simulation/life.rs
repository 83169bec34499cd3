//! What becomes of a job by itself: enqueue, claim, execute, ack, stage, rescue, prune.

use std::time::Duration;

use jiff::Timestamp;
use kiln::testing::Hand;
use kiln::{Job, NewJob, Outcome, State, Unique};
use serde_json::json;

use crate::model::Model;
use crate::process::{Place, QUEUES, WORKERS};
use crate::world::{Held, World, from};

/// How a new job is unique, by its worker and its arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Successful,
    Incomplete,
    Throttle(Duration),
    Debounce(Duration),
}

impl Rule {
    pub fn unique(self) -> Unique {
        let unique = Unique::new().by([kiln::Field::Worker, kiln::Field::Args]);
        match self {
            Rule::Successful => unique,
            Rule::Incomplete => unique.states(State::INCOMPLETE),
            Rule::Throttle(period) => unique.throttle(period),
            Rule::Debounce(delay) => unique.debounce(delay),
        }
    }

    fn states(self) -> Vec<State> {
        match self {
            Rule::Successful => State::SUCCESSFUL.to_vec(),
            Rule::Incomplete => State::INCOMPLETE.to_vec(),
            Rule::Throttle(_) => State::ALL.to_vec(),
            Rule::Debounce(_) => vec![State::Scheduled],
        }
    }
}

/// A job to be stored, as it is handed over and as it must be then.
struct New {
    job: NewJob,
    model: Model,
    /// What its arguments say, and how it is unique.
    k: i64,
    rule: Option<Rule>,
}

impl World {
    pub fn enqueue(&mut self, now: Timestamp) {
        let many = match self.dice.u32(..20) {
            0 => return self.enqueue_alike(now),
            1..12 => 1,
            _ => self.dice.usize(2..5),
        };
        let new: Vec<New> = (0..many).map(|_| self.draw(now)).collect();
        self.tell(format!(
            "enqueue {:?}",
            new.iter().map(|new| (new.model.state, new.k, new.rule)).collect::<Vec<_>>()
        ));
        let kiln = self.kiln();
        let (jobs, models): (Vec<_>, Vec<_>) =
            new.into_iter().map(|new| (new.job, (new.model, new.k, new.rule))).unzip();
        let stored = match jobs.len() {
            1 => jobs.into_iter().map(|job| kiln.enqueue(job).unwrap()).collect(),
            _ => kiln.enqueue_many(jobs).unwrap(),
        };
        assert_eq!(stored.len(), models.len());
        for (job, (model, k, rule)) in stored.iter().zip(models) {
            self.stored(job, model, k, rule, now);
        }
    }

    fn draw(&mut self, now: Timestamp) -> New {
        let (queue, worker) = (self.any_queue(), WORKERS[self.dice.usize(..2)]);
        let mut model = Model::new(queue, worker, now);
        (model.priority, model.max_attempts) = (self.dice.i64(0..10), self.dice.i64(1..5));
        let mut job = NewJob::new(worker).queue(queue).priority(model.priority).max_attempts(model.max_attempts);
        match self.dice.u32(..20) {
            0..5 => {
                let at = from(now, self.dice.i64(-50..200));
                job = job.scheduled_at(at);
                (model.state, model.due) = (State::Scheduled, at);
            }
            5 => {
                job = job.state(State::Suspended);
                model.state = State::Suspended;
            }
            6 if self.dice.u32(..4) == 0 => {
                model.state = [State::Completed, State::Cancelled, State::Discarded][self.dice.usize(..3)];
                job = job.state(model.state);
            }
            _ => {}
        }
        if self.dice.u32(..6) == 0 {
            let at = from(now, self.dice.i64(-20..200));
            job = job.expires_at(at);
            model.expires = Some(at);
        }
        let seconds = Duration::from_secs(self.dice.u64(1..300));
        // A finished job is no double of itself: history is brought along as it is.
        let rule = match self.dice.u32(..12) {
            _ if model.state.is_finished() => None,
            0 => Some(Rule::Successful),
            1 => Some(Rule::Incomplete),
            2 => Some(Rule::Throttle(seconds)),
            // It says itself when the job is due.
            3 if model.state == State::Available => {
                (model.state, model.due) = (State::Scheduled, now + seconds);
                Some(Rule::Debounce(seconds))
            }
            _ => None,
        };
        if let Some(rule) = rule {
            job = job.unique(rule.unique());
        }
        let k = self.dice.i64(0..4);
        New { job: job.args(json!({ "k": k })), model, k, rule }
    }

    /// So many that differ in nothing but their arguments that one statement stores them.
    fn enqueue_alike(&mut self, now: Timestamp) {
        let (queue, worker) = (self.any_queue(), WORKERS[self.dice.usize(..2)]);
        self.tell(format!("enqueue 20 of {worker} in {queue}"));
        let job = |k: i64| NewJob::new(worker).queue(queue).max_attempts(3).args(json!({ "k": k }));
        let stored = self.kiln().enqueue_many((0..20).map(job)).unwrap();
        let model = Model { max_attempts: 3, ..Model::new(queue, worker, now) };
        assert_eq!(stored.len(), 20);
        for (k, job) in (0..).zip(&stored) {
            self.stored(job, model.clone(), k, None, now);
        }
    }

    /// What an enqueue gave back: the job, or its double; says whether it was stored.
    pub fn stored(&mut self, job: &Job, model: Model, k: i64, rule: Option<Rule>, now: Timestamp) -> bool {
        let doubles = rule.map(|rule| self.doubles(rule, &model.worker, k, now)).unwrap_or_default();
        assert_eq!(job.conflict, !doubles.is_empty(), "job {} and its doubles {doubles:?}", job.id);
        if !job.conflict {
            assert!(job.id > self.last_id, "an id is given twice: {}", job.id);
            assert_eq!(job.args.get("k"), Some(json!(k)));
            self.last_id = job.id;
            self.born += 1;
            if model.state.is_finished() {
                self.history.insert(job.id);
            }
            if rule.is_some() {
                self.unique.insert(job.id, k);
            }
            self.jobs.insert(job.id, model);
            return true;
        }
        self.count("doubles found");
        assert!(doubles.contains(&job.id), "{} was found, not one of {doubles:?}", job.id);
        if let Some(Rule::Debounce(_)) = rule {
            let there = self.jobs.get_mut(&job.id).unwrap();
            // Its meta is the new one's, and tells nothing of what was.
            (there.due, there.snoozed, there.rescued, there.recorded) = (model.due, 0, 0, None);
            there.move_by_schedule(now);
        }
        false
    }

    pub fn has_double(&self, rule: Rule, worker: &str, k: i64, now: Timestamp) -> bool {
        !self.doubles(rule, worker, k, now).is_empty()
    }

    /// The newest double in the first state that has any; several where they are of one moment.
    fn doubles(&self, rule: Rule, worker: &str, k: i64, now: Timestamp) -> Vec<i64> {
        let states = rule.states();
        let since = match rule {
            Rule::Throttle(period) => now - period,
            _ => Timestamp::MIN,
        };
        let counts_as_cancelled =
            |model: &Model| !states.contains(&State::Cancelled) && model.waits() && model.is_expired(now);
        for state in &states {
            let fits = |(id, model): &(&i64, &Model)| {
                self.unique.get(id) == Some(&k)
                    && model.worker == worker
                    && model.state == *state
                    && model.inserted >= since
                    && !counts_as_cancelled(model)
            };
            let found: Vec<_> = self.jobs.iter().filter(fits).collect();
            if let Some(newest) = found.iter().map(|(_, model)| model.inserted).max() {
                return found.iter().filter(|(_, model)| model.inserted == newest).map(|(id, _)| **id).collect();
            }
        }
        Vec::new()
    }

    /// A runtime claims for its free slots, and sometimes a few jobs ahead of them.
    pub fn claim(&mut self, now: Timestamp) {
        let (p, r) = self.any_runtime();
        let place = self.dice.usize(..QUEUES.len());
        let queue = QUEUES[place];
        let runtime = self.processes[p].runtimes[r].clone();
        let ruling = self.ruling(queue);
        if ruling.paused == Some(true) {
            return self.give_back_claimed_ahead(&runtime.id, queue);
        }
        let limit = ruling.limit.unwrap_or(runtime.limits[place]);
        let own = |held: &&Held| !held.over && Some(&held.owner) == runtime.id.as_ref() && held.job.queue == queue;
        let busy = self.held.iter().filter(own).filter(|held| held.begun).count();
        let waiting = self.held.iter().filter(own).count() - busy;
        let ahead = if self.dice.u32(..3) == 0 { self.dice.usize(1..4) } else { 0 };
        let room = (limit + ahead).saturating_sub(busy + waiting);
        if room == 0 {
            return;
        }
        let claimed = self.claim_with(&runtime.hand, &runtime.workers, queue, room, now);
        let ids: Vec<i64> = claimed.iter().map(|job| job.id).collect();
        self.tell(format!("process {p}, runtime {r} claims {room} of {queue}: {ids:?}"));
        let Some(owner) = claimed.first().map(|job| job.attempted_by[1].clone()) else { return };
        if runtime.id.is_none() {
            let here = &mut self.processes[p].runtimes[r];
            here.id = Some(owner.clone());
            self.alive.insert(owner.clone(), self.place.enter(here));
        }
        let free = limit.saturating_sub(busy);
        for (n, job) in claimed.into_iter().enumerate() {
            if n >= free {
                self.count("claimed ahead");
            }
            self.held.push(Held { job, owner: owner.clone(), begun: n < free, over: false });
        }
    }

    /// Claims, in claim order; what has expired on the way is cancelled.
    pub fn claim_with(&mut self, hand: &Hand, workers: &[&str], queue: &str, limit: usize, now: Timestamp) -> Vec<Job> {
        /// How often one look goes on to the next jobs when those it found had expired.
        const ROUNDS: u32 = 16;
        let claimed = hand.claim(queue, limit).unwrap();
        let mut expected = Vec::new();
        let mut rounds = 0;
        loop {
            let fits = |model: &Model| {
                model.state == State::Available
                    && model.queue == queue
                    && model.attempt < model.max_attempts
                    && workers.contains(&model.worker.as_str())
            };
            let waiting = self.jobs.iter().filter(|(id, model)| fits(model) && !expected.contains(*id));
            let mut first: Vec<_> = waiting.map(|(id, model)| (model.priority, model.due, *id)).collect();
            first.sort_unstable();
            first.truncate(limit - expected.len());
            let found = expected.len();
            for (_, _, id) in &first {
                let model = self.jobs.get_mut(id).unwrap();
                if model.is_expired(now) {
                    model.error();
                    model.end(State::Cancelled, now);
                } else {
                    expected.push(*id);
                }
            }
            rounds += 1;
            let none_expired = expected.len() - found == first.len();
            if none_expired || (rounds % ROUNDS == 0 && !expected.is_empty()) {
                break;
            }
        }
        let ids: Vec<i64> = claimed.iter().map(|job| job.id).collect();
        assert_eq!(ids, expected, "claimed in claim order");
        for job in &claimed {
            let nobody = self.held.iter().all(|held| held.job.id != job.id || held.over);
            assert!(nobody, "job {} is executed twice at a time", job.id);
            let model = self.jobs.get_mut(&job.id).unwrap();
            assert!(job.attempted_at > model.attempted_at, "no two attempts of job {} look the same", job.id);
            assert!(job.attempted_at >= Some(now));
            model.state = State::Executing;
            model.attempt += 1;
            (model.attempted_at, model.owner) = (job.attempted_at, Some(job.attempted_by[1].clone()));
            assert!(model.attempt <= model.max_attempts, "job {} is attempted once too often", job.id);
        }
        claimed
    }

    /// A thread begins what was claimed ahead of it.
    pub fn begin(&mut self) {
        if let Some(held) = self.held.iter_mut().find(|held| !held.over && !held.begun) {
            held.begun = true;
            let id = held.job.id;
            self.tell(format!("job {id}, claimed ahead, begins"));
        }
    }

    /// A paused queue's jobs that no thread has begun are given back.
    fn give_back_claimed_ahead(&mut self, owner: &Option<String>, queue: &str) {
        let idle =
            |held: &Held| !held.over && !held.begun && Some(&held.owner) == owner.as_ref() && held.job.queue == queue;
        while let Some(n) = self.held.iter().position(idle) {
            let held = self.held.swap_remove(n);
            self.tell(format!("{queue} is paused: {} is given back", held.job.id));
            let now = self.clock.now();
            assert!(self.hand().release(&held.job).unwrap());
            let model = self.jobs.get_mut(&held.job.id).unwrap();
            model.give_back();
            model.live(State::Available, None, now);
        }
    }

    /// Somebody acknowledges an attempt, perhaps one that is long lost, perhaps a second time.
    pub fn ack(&mut self, now: Timestamp) {
        if self.held.is_empty() {
            return;
        }
        let n = self.dice.usize(..self.held.len());
        let job = self.held[n].job.clone();
        let delay = Duration::from_secs(self.dice.u64(..100));
        let due = now + delay;
        // What no thread has begun can only be given back.
        let verdict = if self.held[n].begun { self.dice.u32(..12) } else { 10 };
        let hand = self.hand();
        let landed = match verdict {
            0..4 => hand.ack(&job, Outcome::Complete),
            4 => hand.ack(&job, Outcome::record(&job.id).unwrap()),
            5 => hand.ack(&job, Outcome::snooze(delay)),
            6 => hand.ack(&job, Outcome::cancel("no more")),
            7..10 => hand.fail(&job, "failed", delay),
            10 => hand.release(&job),
            _ => hand.discard(&job, "hopeless"),
        }
        .unwrap();
        self.tell(format!("ack {verdict} of {} attempt {}: {landed}", job.id, job.attempt));
        assert_eq!(landed, !self.held[n].over, "an ack lands just where its attempt still is the job's");
        if !landed {
            return self.count("stale acks");
        }
        self.held[n].over = true;
        self.apply(&job, verdict, due, now);
    }

    /// What an ack makes of the model's job.
    fn apply(&mut self, job: &Job, verdict: u32, due: Timestamp, now: Timestamp) {
        let model = self.jobs.get_mut(&job.id).unwrap();
        match verdict {
            0..4 => model.end(State::Completed, now),
            4 => {
                model.recorded = Some(job.id);
                model.end(State::Completed, now);
            }
            5 => {
                model.snoozed += 1;
                model.give_back();
                model.live(State::Scheduled, Some(due), now);
            }
            6 => {
                model.error();
                model.end(State::Cancelled, now);
            }
            7..10 => {
                model.error();
                // By what the attempt was told of the attempts there are.
                match job.attempt >= job.max_attempts {
                    true => model.discard(now),
                    false => model.live(State::Retryable, Some(due), now),
                }
            }
            10 => {
                model.give_back();
                model.live(State::Available, None, now);
            }
            _ => {
                model.error();
                model.discard(now);
            }
        }
    }

    pub fn stage(&mut self, now: Timestamp) {
        if self.dice.bool() {
            return self.stage_all(now);
        }
        let queue = self.any_queue();
        self.stage_these(&[queue], now);
    }

    pub fn stage_all(&mut self, now: Timestamp) {
        self.stage_these(&QUEUES, now);
    }

    fn stage_these(&mut self, queues: &[&str], now: Timestamp) {
        let staged = self.hand().stage(queues).unwrap();
        self.tell(format!("stage {queues:?}: {staged}"));
        let waits = |model: &&mut Model| {
            queues.contains(&model.queue.as_str())
                && matches!(model.state, State::Scheduled | State::Retryable)
                && model.due <= now
        };
        let count = self.jobs.values_mut().filter(waits).map(|model| model.state = State::Available).count();
        assert_eq!(staged, count as u64);
    }

    /// Somebody looks for the dead: those whose lock is free; in memory, all of them.
    pub fn rescue(&mut self, now: Timestamp) {
        let rescued = self.hand().rescue().unwrap();
        self.tell(format!("rescue: {rescued}"));
        assert_eq!(rescued, self.abandon_dead(now));
    }

    /// What a look for the dead makes of their jobs; says of how many.
    pub fn abandon_dead(&mut self, now: Timestamp) -> u64 {
        let is_dead = |owner: &String| matches!(self.place, Place::Memory) || !self.alive.contains_key(owner);
        let dead = |model: &Model| model.owner.as_ref().is_some_and(is_dead);
        let left: Vec<i64> = self.jobs.iter().filter(|(_, model)| dead(model)).map(|(id, _)| *id).collect();
        self.abandon(&left, now)
    }

    /// Where liveness cannot be told: whoever took long has lost it, living or not.
    pub fn rescue_older(&mut self, now: Timestamp) {
        let age = Duration::from_secs(self.dice.u64(1..600));
        let rescued = self.hand().rescue_older(age).unwrap();
        self.tell(format!("rescue of those older than {age:?}: {rescued}"));
        let old = |model: &Model| model.attempted_at.is_some_and(|at| at < now - age);
        let left: Vec<i64> = self.jobs.iter().filter(|(_, model)| old(model)).map(|(id, _)| *id).collect();
        let lost = self.abandon(&left, now);
        assert_eq!(rescued, lost);
        if lost > 0 {
            self.count("rescues by age");
        }
    }

    /// What a rescue makes of these: those that execute lose their attempt. And jobs without one left are discarded.
    fn abandon(&mut self, left: &[i64], now: Timestamp) -> u64 {
        let mut count = 0;
        for (id, model) in &mut self.jobs {
            if model.state == State::Executing && left.contains(id) {
                model.abandon(now);
                count += 1;
            }
            if model.state == State::Available && model.attempt >= model.max_attempts {
                model.end(State::Discarded, now);
                count += 1;
            }
        }
        self.look_for_lost();
        count
    }

    pub fn prune(&mut self, now: Timestamp) {
        let age = Duration::from_secs(self.dice.u64(..300));
        let pruned = self.hand().prune(age).unwrap();
        self.tell(format!("prune {age:?}: {pruned}"));
        let old = |model: &Model| model.ended_at().is_some_and(|ended| ended <= now - age);
        let gone: Vec<i64> = self.jobs.iter().filter(|(_, model)| old(model)).map(|(id, _)| *id).collect();
        assert_eq!(pruned, gone.len() as u64);
        gone.into_iter().for_each(|id| self.forget(id));
    }
}
