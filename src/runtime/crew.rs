//! The house as a crew: its part in every transaction, and what comes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use std::{iter, thread};

use super::execute;
use super::house::{House, Run};
use super::lane::{Delivered, Lane, Task};
use super::pending::{Acked, Claims, Ended, Outcomes, Share};
use crate::Error;
use crate::engine::{Claimed, Crew, Demand, Done, News, Turn};
use crate::event::Event;
use crate::health::Pulse;
use crate::job::{LONGEST, solitude};
use crate::queues::{Plan, Rulings};
use crate::worker::Flag;

impl House {
    /// The lane that made a demand, which may be closed by now and have a namesake.
    fn lane_of(&self, demand: &Demand) -> Option<Arc<Lane>> {
        self.lanes.read().iter().find(|lane| Arc::ptr_eq(&lane.queue, &demand.queue)).cloned()
    }

    fn enter(&self, lane: &Arc<Lane>, claimed: impl Iterator<Item = Claimed>) -> Vec<Task> {
        let mut runs = self.runs.lock();
        let enter = |Claimed { attempt, job }| {
            let flag = Arc::new(Flag::default());
            let job = Arc::new(job);
            let task = Task { fence: attempt.fence, job: Arc::clone(&job), flag: Arc::clone(&flag) };
            let run = Run { attempt, job, lane: Arc::clone(lane), flag, deadline: None, timed_out: false };
            runs.insert(task.fence.id, run);
            task
        };
        claimed.map(enter).collect()
    }

    fn hire(&self, lane: &Arc<Lane>) {
        let house = self.itself.upgrade().expect("BUG: a house that delivers is not gone");
        let name = format!("kiln-{}", lane.queue);
        let place = Arc::clone(lane);
        let hired = thread::Builder::new().name(name).spawn(move || execute::live(house, &place));
        if hired.is_err() && lane.unborn() {
            // Better done elsewhere or later than never.
            self.give_back_ready();
            lane.ring();
        }
    }
}

impl Crew for House {
    fn gather(&self, news: &News) -> Turn {
        let mut demands = Vec::new();
        let claiming = self.claiming();
        let mut pending = self.acks.lock();
        let Share { acks, claims } = pending.share();
        for lane in self.lanes.read().iter() {
            if news.rings(&lane.queue) {
                lane.ring();
            }
            let may = match &claims {
                Claims::All => !pending.is_aside(&lane.queue),
                Claims::One(queue) => Arc::ptr_eq(queue, &lane.queue),
                Claims::None => false,
            };
            if claiming
                && may
                && let Some((limit, slots)) = lane.demand()
            {
                demands.push(Demand { queue: Arc::clone(&lane.queue), limit, slots });
            }
        }
        if pending.has_suspects() {
            self.alarm.carry_on();
        }
        drop(pending);
        Turn {
            runtime: Arc::clone(&self.member),
            now: self.now(),
            acks,
            demands,
            company: self.company(),
            solitude: self.settings.solitude,
        }
    }

    fn foresee(&self, turn: &Turn, done: &Done) {
        let Some(ledger) = self.ledger().filter(|_| !self.settings.claim_ahead.is_zero()) else { return };
        let mut claimed = &done.claimed[..];
        for demand in &turn.demands {
            let of_queue = claimed.iter().take_while(|claim| *claim.job.queue == *demand.queue).count();
            let (own, rest) = claimed.split_at(of_queue);
            claimed = rest;
            if let Some(lane) = self.lane_of(demand).filter(|_| !own.is_empty()) {
                lane.foresee(own.iter().map(|claim| claim.attempt.fence), ledger);
            }
        }
    }

    fn deliver(&self, turn: Turn, done: Done) {
        let mut pending = self.acks.lock();
        let (ended, again) = pending.written(Instant::now());
        drop(pending);
        if again {
            self.alarm.carry_on();
        }
        if self.observers().any() {
            let errors = turn.acks.iter().zip(&done.acked).map(|(ack, state)| ack.error_in(*state).map(str::to_owned));
            let acked = ended.into_iter().zip(errors).zip(&done.acked);
            let mut outcomes = self.outcomes.lock();
            outcomes.acked.extend(acked.map(|((ended, error), state)| Acked { ended, state: *state, error }));
            outcomes.expired.extend(done.expired);
        }
        if let Some(Claimed { attempt, job }) = done.claimed.last().filter(|_| done.alone) {
            let now = Instant::now();
            let until = now.checked_add(solitude(self.settings.solitude, job.crashes)).unwrap_or(now + LONGEST);
            *self.alone.lock() = Some((attempt.fence, until));
            self.hold(until);
        }
        if let Some(until) = done.until {
            self.hold(until);
        }
        let mut claimed = done.claimed.into_iter().peekable();
        for demand in turn.demands {
            let Some(lane) = self.lane_of(&demand) else { continue };
            let own = iter::from_fn(|| claimed.next_if(|claim| *claim.job.queue == *demand.queue));
            let Delivered { missing, refused, ahead } = lane.deliver(demand.limit, self.enter(&lane, own));
            self.give_back_tasks(&refused);
            if ahead {
                self.waits();
            }
            for _ in 0..missing {
                self.hire(&lane);
            }
            if done.more || done.held {
                lane.ring();
            }
        }
    }

    fn give_back(&self, turn: Turn, error: &Error) {
        let mut pending = self.acks.lock();
        pending.unwritable(turn.acks, &turn.demands, error, Instant::now());
        if pending.has_suspects() {
            self.alarm.carry_on();
        }
        drop(pending);
        for demand in turn.demands {
            if let Some(lane) = self.lane_of(&demand) {
                lane.give_back(demand.limit);
            }
        }
    }

    fn tell(&self) {
        let told = std::mem::take(&mut self.acks.lock().untold);
        let Outcomes { acked, expired } = std::mem::take(&mut *self.outcomes.lock());
        told.into_iter().for_each(|event| self.observers().tell(|| event));
        for Acked { ended: Ended { job, run_time }, state, error } in acked {
            self.kiln.tell_acked(&job, state, run_time, error);
        }
        expired.iter().for_each(|job| self.observers().tell(|| Event::Expired { job: job.into() }));
    }

    fn hear(&self, news: &News) {
        self.lanes.read().iter().filter(|lane| news.rings(&lane.queue)).for_each(|lane| lane.ring());
        self.cancel(&news.cancelling);
        self.alarm.due(news);
    }

    fn carry_on(&self) {
        self.alarm.carry_on();
    }

    fn heed(&self, rulings: &Rulings) {
        *self.rulings.lock() = rulings.clone();
        self.arrange();
    }

    fn plans(&self) -> Vec<Plan> {
        self.run_plans()
    }

    fn changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    fn change(&self) {
        self.changed.store(true, Ordering::Release);
    }

    fn pulse(&self) -> Pulse {
        Pulse {
            executing: self.executing(),
            stuck: self.stuck.load(Ordering::Acquire),
            claiming: self.claiming() && !self.acks.lock().is_halted(),
            unwritten: self.unwritten(),
            trouble: self.acks.lock().trouble().map(str::to_owned),
        }
    }
}
