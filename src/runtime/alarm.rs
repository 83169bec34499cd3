//! The scheduler thread's alarm clock.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::engine::News;

/// What wakes the scheduler thread before its time.
#[derive(Default)]
pub(super) struct Alarm {
    state: Mutex<Wake>,
    rung: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wake {
    rung: bool,
    /// Somebody is to ask for a turn.
    pub carry_on: bool,
    /// Something is due earlier than was planned for.
    pub due: bool,
    /// Another connection is about to commit something.
    pub expected: bool,
    /// A cancel was asked for, and for whom was not said.
    pub cancelling: bool,
    /// Cron entries were added or changed.
    pub crons: bool,
    planned: Option<i64>,
    /// When it is to ring at the latest.
    at: Option<Instant>,
}

impl Alarm {
    pub fn ring(&self) {
        self.state.lock().rung = true;
        self.rung.notify_all();
    }

    /// Rings at this time, if not before.
    pub fn by(&self, at: Instant) {
        let mut state = self.state.lock();
        state.at = state.at.into_iter().chain([at]).min();
        drop(state);
        self.rung.notify_all();
    }

    pub fn carry_on(&self) {
        let mut state = self.state.lock();
        state.rung = true;
        state.carry_on = true;
        drop(state);
        self.rung.notify_all();
    }

    /// Which jobs are due next has to be asked anew.
    pub fn replan(&self) {
        let mut state = self.state.lock();
        state.rung = true;
        state.due = true;
        drop(state);
        self.rung.notify_all();
    }

    /// When the scheduler expects the next job to be due, in microseconds since 1970.
    pub fn plan(&self, due: Option<i64>) {
        self.state.lock().planned = due;
    }

    pub fn due(&self, news: &News) {
        let mut state = self.state.lock();
        let due = news.due.is_some_and(|due| state.planned.is_none_or(|planned| due < planned));
        let cancelling = news.cancelling.contains(&0);
        if due || cancelling || news.expected || news.crons {
            state.rung = true;
            state.expected |= news.expected;
            state.due |= due;
            state.crons |= news.crons;
            state.cancelling |= cancelling;
            drop(state);
            self.rung.notify_all();
        }
    }

    /// Waits for a ring or for the time; says what it was rung for.
    pub fn wait(&self, until: Instant) -> Wake {
        let mut state = self.state.lock();
        loop {
            let until = state.at.map_or(until, |at| at.min(until));
            if state.rung || self.rung.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let wake = *state;
        *state = Wake { planned: wake.planned, ..Wake::default() };
        wake
    }
}
