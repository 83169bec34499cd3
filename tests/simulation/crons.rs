//! Cron entries: added, redefined, paused, resumed, deleted, fired. Each slot has its job once, or is missed as was said.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use kiln::{Cron, Kiln, Missed, NewCron, NewJob};
use serde_json::json;

use crate::life::Rule;
use crate::model::Model;
use crate::process::WORKERS;
use crate::world::World;

const NAMES: [&str; 3] = ["digest", "poll", "tidy"];
const EXPRESSIONS: [&str; 4] = ["* * * * *", "*/5 * * * *", "7 * * * *", "30 */6 * * *"];

/// A slot that nobody fired for so long was missed.
const ON_TIME: SignedDuration = SignedDuration::from_mins(1);

#[derive(Clone, Debug)]
pub struct Entry {
    when: When,
    missed: Missed,
    paused: bool,
    since: Timestamp,
    last: Option<Timestamp>,
    queue: &'static str,
    worker: &'static str,
    max_attempts: i64,
    expires_in: Option<Duration>,
    unique: Option<Rule>,
    k: i64,
    /// The slots that had a job, or a double of one.
    fired: BTreeSet<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    Expression(&'static str),
    Every(Duration),
}

impl Entry {
    fn settled(&self) -> Timestamp {
        self.last.map_or(self.since, |last| last.max(self.since))
    }

    /// All slots that are due and not settled, by looking at every minute, or every distance.
    fn due(&self, now: Timestamp) -> Vec<Timestamp> {
        let after = self.settled();
        let from = |distance: i64| (after.as_second().div_euclid(distance) + 1) * distance;
        let slots = |distance: i64| {
            let mut second = from(distance);
            std::iter::from_fn(move || {
                let slot = Timestamp::from_second(second).unwrap();
                second += distance;
                (slot <= now).then_some(slot)
            })
        };
        match &self.when {
            When::Every(distance) => slots(distance.as_secs() as i64).collect(),
            When::Expression(expression) => {
                let cron: Cron = expression.parse().unwrap();
                slots(60).filter(|slot| cron.matches(Offset::UTC.to_datetime(*slot))).collect()
            }
        }
    }

    /// Those of them that have a job.
    fn fire(&self, due: &[Timestamp], now: Timestamp) -> Vec<Timestamp> {
        let Some(last) = due.last() else { return Vec::new() };
        let age = |slot: &Timestamp| now.duration_since(*slot);
        match self.missed {
            Missed::Skip if age(last) >= ON_TIME => Vec::new(),
            Missed::RunAll { max, within } => {
                let within = SignedDuration::try_from(within).unwrap();
                let young: Vec<_> = due.iter().filter(|slot| age(slot) <= within || age(slot) < ON_TIME).collect();
                young.iter().skip(young.len().saturating_sub(max as usize)).map(|slot| **slot).collect()
            }
            _ => vec![*last],
        }
    }

    fn expression(&self) -> String {
        match &self.when {
            When::Expression(expression) => (*expression).to_owned(),
            When::Every(distance) => format!("@every {}s", distance.as_secs()),
        }
    }
}

impl World {
    pub fn change_crons(&mut self, now: Timestamp) {
        let name = NAMES[self.dice.usize(..NAMES.len())];
        let kiln = self.kiln();
        let verb = self.dice.u32(..8);
        self.tell(format!("cron {name}: {verb}"));
        match verb {
            0..4 => self.add_cron(&kiln, name, now),
            4 => {
                let there = self.crons.get_mut(name).filter(|entry| !entry.paused);
                assert_eq!(kiln.pause_cron(name).unwrap(), there.is_some());
                there.into_iter().for_each(|entry| entry.paused = true);
            }
            5..7 => {
                let there = self.crons.get_mut(name).filter(|entry| entry.paused);
                assert_eq!(kiln.resume_cron(name).unwrap(), there.is_some());
                there.into_iter().for_each(|entry| (entry.paused, entry.since) = (false, now));
            }
            _ => assert_eq!(kiln.delete_cron(name).unwrap(), self.crons.remove(name).is_some()),
        }
    }

    fn add_cron(&mut self, kiln: &Kiln, name: &str, now: Timestamp) {
        let when = match self.dice.usize(..5) {
            4 => When::Every(Duration::from_secs(90)),
            n => When::Expression(EXPRESSIONS[n]),
        };
        let within = Duration::from_secs(self.dice.u64(60..7200));
        let missed =
            [Missed::Skip, Missed::RunOnce, Missed::RunAll { max: self.dice.u32(1..6), within }][self.dice.usize(..3)];
        let mut entry = Entry {
            when,
            missed,
            paused: false,
            since: now,
            last: None,
            queue: self.any_queue(),
            worker: WORKERS[self.dice.usize(..2)],
            max_attempts: self.dice.i64(1..4),
            expires_in: (self.dice.u32(..3) == 0).then(|| Duration::from_secs(self.dice.u64(1..600))),
            unique: (self.dice.u32(..3) == 0).then_some(Rule::Incomplete),
            k: self.dice.i64(0..4),
            fired: BTreeSet::new(),
        };
        let mut job = NewJob::new(entry.worker).queue(entry.queue).max_attempts(entry.max_attempts);
        job = job.args(json!({ "k": entry.k }));
        if let Some(delay) = entry.expires_in {
            job = job.expires_in(delay);
        }
        if let Some(rule) = entry.unique {
            job = job.unique(rule.unique());
        }
        let new = match &entry.when {
            When::Expression(expression) => NewCron::new(expression, job),
            When::Every(distance) => NewCron::every(*distance, job),
        };
        kiln.cron(new.name(name).missed(missed)).unwrap();
        if let Some(old) = self.crons.remove(name) {
            let since = if old.when == entry.when { old.since } else { now };
            (entry.paused, entry.since, entry.last, entry.fired) = (old.paused, since, old.last, old.fired);
        }
        self.crons.insert(name.to_owned(), entry);
    }

    pub fn fire(&mut self, now: Timestamp) {
        let mut made = self.hand().fire().unwrap().into_iter();
        self.tell(format!("fire: {}", made.len()));
        let names: Vec<String> = self.crons.keys().cloned().collect();
        for name in names {
            let entry = self.crons[&name].clone();
            let due = if entry.paused { Vec::new() } else { entry.due(now) };
            for slot in entry.fire(&due, now) {
                assert!(self.crons.get_mut(&name).unwrap().fired.insert(slot), "slot {slot} of {name} is fired twice");
                self.fire_slot(&mut made, &name, &entry, slot, now);
            }
            if let Some(last) = due.last() {
                self.crons.get_mut(&name).unwrap().last = Some(*last);
            }
        }
        assert_eq!(made.len(), 0, "jobs of slots that are not due");
    }

    fn fire_slot(
        &mut self,
        made: &mut impl Iterator<Item = kiln::Job>,
        name: &str,
        entry: &Entry,
        slot: Timestamp,
        now: Timestamp,
    ) {
        self.count("slots fired");
        let mut model = Model { max_attempts: entry.max_attempts, ..Model::new(entry.queue, entry.worker, now) };
        model.expires = entry.expires_in.map(|delay| now + delay);
        if let Some(rule) = entry.unique
            && self.has_double(rule, entry.worker, entry.k, now)
        {
            return self.count("doubles found");
        }
        let job = made.next().unwrap_or_else(|| panic!("slot {slot} of {name} has no job"));
        let at = slot.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        assert_eq!(job.meta.get("cron_at"), Some(json!(at)), "{name}");
        assert_eq!(job.meta.get("cron_name"), Some(json!(name)));
        assert!(self.stored(&job, model, entry.k, entry.unique, now));
    }

    pub fn check_crons(&self, kiln: &Kiln) {
        let found = kiln.crons().unwrap();
        let names: Vec<&String> = found.iter().map(|entry| &entry.name).collect();
        assert_eq!(names, self.crons.keys().collect::<Vec<_>>());
        for entry in &found {
            let model = &self.crons[&entry.name];
            let told = (entry.expression.clone(), entry.paused, entry.last_slot, entry.missed);
            assert_eq!(told, (model.expression(), model.paused, model.last, model.missed), "cron entry {}", entry.name);
            assert_eq!(entry.next_slot().is_none(), model.paused);
            assert!(entry.next_slot().is_none_or(|next| next > model.settled()));
        }
    }
}
