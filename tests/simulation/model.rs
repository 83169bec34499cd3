//! A job, as it must be, and what its life does to it.

use jiff::Timestamp;
use kiln::{Job, State};

/// What is seen of a job, less what nothing here depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub state: State,
    pub queue: String,
    pub worker: String,
    pub priority: i64,
    pub attempt: i64,
    pub max_attempts: i64,
    pub inserted: Timestamp,
    pub due: Timestamp,
    pub attempted_at: Option<Timestamp>,
    /// The runtime that claimed it last.
    pub owner: Option<String>,
    pub completed: Option<Timestamp>,
    pub cancelled: Option<Timestamp>,
    pub discarded: Option<Timestamp>,
    /// Since when somebody wants it cancelled while it executes.
    pub asked: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    pub errors: usize,
    pub snoozed: i64,
    pub rescued: i64,
    pub recorded: Option<i64>,
}

/// So many errors are kept.
const ERRORS: usize = 20;

impl Model {
    pub fn new(queue: &str, worker: &str, now: Timestamp) -> Model {
        Model {
            state: State::Available,
            queue: queue.to_owned(),
            worker: worker.to_owned(),
            priority: 0,
            attempt: 0,
            max_attempts: 20,
            inserted: now,
            due: now,
            attempted_at: None,
            owner: None,
            completed: None,
            cancelled: None,
            discarded: None,
            asked: None,
            expires: None,
            errors: 0,
            snoozed: 0,
            rescued: 0,
            recorded: None,
        }
    }

    pub fn of(job: &Job) -> Model {
        let count = |key: &str| job.meta.get(key).and_then(|count| count.as_i64()).unwrap_or(0);
        Model {
            state: job.state,
            queue: job.queue.clone(),
            worker: job.worker.clone(),
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            inserted: job.inserted_at,
            due: job.scheduled_at,
            attempted_at: job.attempted_at,
            owner: job.attempted_by.get(1).cloned(),
            completed: job.completed_at,
            cancelled: job.cancelled_at,
            discarded: job.discarded_at,
            asked: job.cancel_requested_at,
            expires: job.expires_at,
            errors: job.errors.len(),
            snoozed: count("snoozed"),
            rescued: count("rescued"),
            recorded: job.recorded().unwrap(),
        }
    }

    pub fn ended_at(&self) -> Option<Timestamp> {
        self.completed.or(self.cancelled).or(self.discarded)
    }

    /// Whether it waits for something, so that it may be found expired.
    pub fn waits(&self) -> bool {
        !self.state.is_finished() && self.state != State::Executing
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Whether it executes the attempt of this copy.
    pub fn executes(&self, claimed: &Job) -> bool {
        self.state == State::Executing && (self.attempt, self.attempted_at) == (claimed.attempt, claimed.attempted_at)
    }

    pub fn error(&mut self) {
        self.errors = (self.errors + 1).min(ERRORS);
    }

    pub fn end(&mut self, state: State, now: Timestamp) {
        self.state = state;
        match state {
            State::Completed => self.completed = Some(now),
            State::Cancelled => self.cancelled = Some(now),
            _ => self.discarded = Some(now),
        }
    }

    /// To a state it may run again from, unless somebody asked to cancel it.
    pub fn live(&mut self, state: State, due: Option<Timestamp>, now: Timestamp) {
        if self.asked.is_some() {
            return self.end(State::Cancelled, now);
        }
        self.state = state;
        self.due = due.unwrap_or(self.due);
    }

    /// For good, or cancelled where somebody asked for that.
    pub fn discard(&mut self, now: Timestamp) {
        self.end(if self.asked.is_some() { State::Cancelled } else { State::Discarded }, now);
    }

    /// Its attempt is given back.
    pub fn give_back(&mut self) {
        self.attempt = (self.attempt - 1).max(0);
    }

    /// The attempt is lost with its owner.
    pub fn abandon(&mut self, now: Timestamp) {
        self.error();
        if self.attempt >= self.max_attempts {
            return self.discard(now);
        }
        self.rescued += 1;
        self.live(State::Available, None, now);
    }

    pub fn retry(&mut self, now: Timestamp) -> bool {
        if matches!(self.state, State::Available | State::Executing) {
            return false;
        }
        self.state = State::Available;
        self.max_attempts = self.max_attempts.max(self.attempt + 1);
        self.due = now;
        (self.completed, self.cancelled, self.discarded, self.asked, self.expires) = (None, None, None, None, None);
        true
    }

    pub fn cancel(&mut self, now: Timestamp) -> bool {
        match self.state {
            State::Executing => self.asked = self.asked.or(Some(now)),
            state if state.is_finished() => return false,
            _ => self.end(State::Cancelled, now),
        }
        true
    }

    /// A job that waits is where its due time says.
    pub fn move_by_schedule(&mut self, now: Timestamp) {
        self.state = match self.state {
            State::Available if self.due > now => State::Scheduled,
            State::Scheduled if self.due <= now => State::Available,
            state => state,
        };
    }

    /// Stamps and counters fit the state, whatever happened.
    pub fn assert_sound(&self, id: i64, lowered: bool, history: bool) {
        let stamps = [self.completed, self.cancelled, self.discarded].map(|stamp| stamp.is_some());
        let due = [State::Completed, State::Cancelled, State::Discarded].map(|state| self.state == state);
        assert!(stamps == due || (history && stamps == [false; 3]), "stamps of job {id} fit its state: {self:?}");
        assert!(self.attempt >= 0 && (self.attempt <= self.max_attempts || lowered), "attempts of job {id}: {self:?}");
        let begun = self.state == State::Executing;
        assert!(
            !begun || (self.attempt > 0 && self.attempted_at.is_some() && self.owner.is_some()),
            "job {id}: {self:?}"
        );
        assert!(
            self.asked.is_none() || begun || self.state.is_finished(),
            "a job asked to cancel rests: {id}: {self:?}"
        );
    }
}
