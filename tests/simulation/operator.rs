//! What an operator's hand does: cancel, retry, delete, update; and pause, resume and scale for all.

use jiff::Timestamp;
use kiln::{Changes, Filter, Jobs, Queues, State};

use crate::world::{World, from};

impl World {
    /// The jobs a verb is meant for: one, several, one that is not there, all of a queue in a state.
    fn targets(&mut self) -> (Jobs, Vec<i64>) {
        let ids: Vec<i64> = self.jobs.keys().copied().collect();
        if ids.is_empty() || self.dice.u32(..20) == 0 {
            return (Jobs::from(self.last_id + 1000), Vec::new());
        }
        match self.dice.u32(..10) {
            0 => {
                let (queue, state) = (self.any_queue(), State::ALL[self.dice.usize(..8)]);
                let fits = |id: &i64| self.jobs[id].queue == queue && self.jobs[id].state == state;
                (Filter::new().queue(queue).state(state).into(), ids.into_iter().filter(fits).collect())
            }
            1..3 => {
                let some: Vec<i64> = ids.into_iter().filter(|_| self.dice.u32(..6) == 0).collect();
                (Jobs::from(some.clone()), some)
            }
            _ => {
                let id = ids[self.dice.usize(..ids.len())];
                (id.into(), vec![id])
            }
        }
    }

    pub fn cancel(&mut self, now: Timestamp) {
        let (jobs, ids) = self.targets();
        let count = self.kiln().cancel(jobs).unwrap();
        self.tell(format!("cancel {ids:?}: {count}"));
        let expected = ids.iter().filter(|id| self.jobs.get_mut(id).unwrap().cancel(now)).count();
        assert_eq!(count, expected as u64);
    }

    pub fn retry(&mut self, now: Timestamp) {
        let (jobs, ids) = self.targets();
        let count = self.kiln().retry(jobs).unwrap();
        self.tell(format!("retry {ids:?}: {count}"));
        let revived: Vec<i64> = ids.into_iter().filter(|id| self.jobs.get_mut(id).unwrap().retry(now)).collect();
        assert_eq!(count, revived.len() as u64);
        for id in revived {
            self.lowered.remove(&id);
        }
    }

    pub fn delete(&mut self) {
        let (jobs, ids) = self.targets();
        let count = self.kiln().delete(jobs).unwrap();
        self.tell(format!("delete {ids:?}: {count}"));
        let gone: Vec<i64> = ids.into_iter().filter(|id| self.jobs[id].state != State::Executing).collect();
        assert_eq!(count, gone.len() as u64);
        gone.into_iter().for_each(|id| self.forget(id));
    }

    pub fn update(&mut self, now: Timestamp) {
        let (jobs, ids) = self.targets();
        let mut maybe = |value: i64| (self.dice.u32(..3) == 0).then_some(value);
        let (priority, due, max, expires) = (maybe(1), maybe(1), maybe(1), maybe(1));
        let priority = priority.map(|_| self.dice.i64(0..10));
        let due = due.map(|_| from(now, self.dice.i64(-50..100)));
        let max_attempts = max.map(|_| self.dice.i64(1..6));
        let expires = expires.map(|_| self.dice.bool().then(|| from(now, self.dice.i64(-10..200))));
        let queue = (self.dice.u32(..4) == 0).then(|| self.any_queue());
        let mut changes = Changes::new();
        if let Some(priority) = priority {
            changes = changes.priority(priority);
        }
        if let Some(due) = due {
            changes = changes.scheduled_at(due);
        }
        if let Some(max_attempts) = max_attempts {
            changes = changes.max_attempts(max_attempts);
        }
        if let Some(expires) = expires {
            changes = changes.expires_at(expires);
        }
        if let Some(queue) = queue {
            changes = changes.queue(queue);
        }
        self.tell(format!("update {ids:?}: {priority:?}, {due:?}, {max_attempts:?}, {expires:?}, {queue:?}"));
        assert_eq!(self.kiln().update(jobs, changes).unwrap(), ids.len() as u64);
        for id in ids {
            let model = self.jobs.get_mut(&id).unwrap();
            model.due = due.unwrap_or(model.due);
            model.move_by_schedule(now);
            model.priority = priority.unwrap_or(model.priority);
            model.max_attempts = max_attempts.unwrap_or(model.max_attempts);
            model.expires = expires.unwrap_or(model.expires);
            if let Some(queue) = queue {
                model.queue = queue.to_owned();
            }
            match model.attempt > model.max_attempts {
                true => self.lowered.insert(id),
                false => self.lowered.remove(&id),
            };
        }
    }

    /// Something is said of a queue, or of all, to all runtimes.
    pub fn say(&mut self) {
        let one = (self.dice.u32(..3) > 0).then(|| self.any_queue());
        let queues = one.map_or(Queues::All, Queues::from);
        let (verb, limit) = (self.dice.u32(..5), self.dice.usize(1..6));
        let kiln = self.kiln();
        let World { all, rulings, .. } = self;
        if one.is_none() {
            let every = rulings.values_mut();
            match verb {
                0..3 => every.for_each(|ruling| ruling.paused = None),
                _ => every.for_each(|ruling| ruling.limit = None),
            }
        }
        let ruling = one.map_or(all, |queue| rulings.entry(queue).or_default());
        match verb {
            // More often resumed than paused, or little would happen.
            0 => {
                kiln.pause(queues).unwrap();
                ruling.paused = Some(true);
            }
            1..3 => {
                kiln.resume(queues).unwrap();
                ruling.paused = Some(false);
            }
            3 => {
                kiln.scale(queues, limit).unwrap();
                ruling.limit = Some(limit);
            }
            _ => {
                kiln.scale(queues, None).unwrap();
                ruling.limit = None;
            }
        }
        self.tell(format!("said of {one:?}: {verb}, {limit}"));
    }
}
