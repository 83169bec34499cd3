//! The scheduler thread: a tick of everything that recurs, then a rest.
//!
//! Each part of a tick is asked what there is to do `now`, and says how long it may rest. Nothing here waits longer than a
//! minute, since clocks jump and laptops sleep; a wait that was too long or too short is planned anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;

use super::cron::Crons;
use super::due::Due;
use super::execute;
use super::shared::Shared;
use crate::error::Error;
use crate::life::{Inbox, Wake, sweep::Cutoffs};
use crate::presence::Suspects;

/// How often another process's plain INSERT is looked for, a dead runtime's lock is tried, and what could not be written is
/// tried again. A second is promised: this, and what is left of it for the look itself and its transaction. More often would
/// not be quiet.
const LOOK: Duration = Duration::from_millis(600);

/// How soon to look for a commit that another connection of this process is about to make.
const SOON: Duration = Duration::from_millis(1);

const LONGEST: Duration = Duration::from_secs(60);
const PRUNE: Duration = Duration::from_secs(60);

const STAGE_BATCH: u32 = 1000;
const RESCUE_BATCH: u32 = 500;
const PRUNE_BATCH: u32 = 500;

pub(super) struct Scheduler {
    shared: Arc<Shared>,
    look: Instant,
    /// How soon to look again while somebody is about to commit something.
    soon: Option<Duration>,
    /// When the next job is due, as far as is known.
    due: Due,
    crons: Crons,
    prune: Instant,
    /// What the file's version was at the last look.
    version: Option<i64>,
    /// The place of a suspect became free in this process. The sender is kept so that the channel stays open.
    suspects: (Sender<()>, Receiver<()>),
    /// When threads may be hired again after one could not be had, and how long the next wait is.
    hire: (Instant, Duration),
}

impl Scheduler {
    pub fn new(shared: Arc<Shared>, crons: Crons) -> Self {
        let now = Instant::now();
        let suspects = bounded(1);
        Suspects::of_process().register(suspects.0.clone());
        let (soon, due, version) = (None, Due::Unknown, None);
        Self { shared, look: now, soon, due, crons, prune: now, version, suspects, hire: (now, LOOK) }
    }

    /// The life of the scheduler thread.
    pub fn run(mut self, stopping: &AtomicBool) {
        let mut wake = Wake::default();
        while !stopping.load(Ordering::Acquire) {
            let rest = self.tick(wake);
            wake = self.shared.mailbox.alarm.wait(rest, &self.suspects.1);
        }
    }

    /// Does what is due; says until when there is nothing to do.
    fn tick(&mut self, wake: Wake) -> Instant {
        let now = Instant::now();
        self.heed(wake, now);
        if now >= self.look {
            let found = self.look_around();
            // A transaction that takes long is looked for more and more rarely.
            self.soon = self.soon.map(|soon| soon * 2).filter(|soon| !found && *soon < LOOK);
            self.look = now + self.soon.unwrap_or(LOOK);
        }
        let hired = self.hire(now);
        let fired = self.fire(now);
        let staged = self.stage(now);
        let tended = self.tend(now);
        let watched = self.shared.watch(now);
        let reported = self.shared.write_reports(now);
        if now >= self.prune {
            self.prune = self.prune(now);
            // Notices are hints and the table is the truth: one that was lost costs a minute at the most.
            self.look_at_everything();
            let _ = self.shared.kiln.life().apply_queue_settings();
        }
        let longest = now.checked_add(LONGEST);
        let rests = [Some(self.look), Some(self.prune), hired, fired, staged, tended, watched, reported, longest];
        rests.into_iter().flatten().min().unwrap_or(now)
    }

    /// Does what the alarm was rung for.
    fn heed(&mut self, wake: Wake, now: Instant) {
        if wake.expected {
            self.soon = Some(SOON);
            self.look = self.look.min(now + SOON);
        }
        if wake.due {
            self.due = Due::Unknown;
        }
        if wake.crons {
            self.crons.look();
        }
        if wake.queues {
            // If this fails, the next look at the file's version has to do.
            let _ = self.shared.kiln.life().apply_queue_settings();
        }
        if wake.cancelling {
            self.cancel();
        }
        if wake.suspects {
            // Any queue may have a suspect that was refused the place.
            self.shared.mailbox.inboxes().iter().for_each(|inbox| inbox.ring());
        }
        if wake.turn || wake.suspects {
            self.shared.turn();
        }
    }

    /// What others may have done, and what went wrong before. Says whether others did something.
    fn look_around(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let life = shared.kiln.life();
        // An error here is one of the database: the next look tries again.
        let changed = self.changed_elsewhere();
        if changed {
            if let Err(error) = life.is_understood() {
                self.meet(&error);
            }
            self.look_at_everything();
            self.cancel();
        }
        if changed || self.shared.mailbox.is_unannounced() {
            let _ = life.apply_queue_settings();
        }
        let _ = self.shared.kiln.rescue(RESCUE_BATCH);
        if let Some(age) = self.shared.settings.rescue_after {
            let before = self.shared.now().checked_sub(age).unwrap_or(Timestamp::MIN);
            let _ = self.shared.kiln.rescue_older(before, RESCUE_BATCH);
        }
        self.try_again(Instant::now());
        if self.shared.mailbox.has_mail() {
            self.shared.turn();
        }
        changed
    }

    fn look_at_everything(&mut self) {
        self.due = Due::Unknown;
        self.crons.look();
        self.shared.mailbox.inboxes().iter().for_each(|inbox| inbox.ring());
    }

    /// Whether another process wrote since the last look. Before the first, anything may have been written.
    fn changed_elsewhere(&mut self) -> bool {
        match self.shared.kiln.life().version() {
            Ok(version) => self.version.replace(version) != Some(version),
            Err(_) => true,
        }
    }

    fn cancel(&self) {
        if let Ok(cancelling) = self.shared.kiln.life().cancelling() {
            self.shared.attempts.cancel(cancelling);
        }
    }

    /// Hires threads for jobs that none is coming for. Says when to try again if a thread cannot be had.
    fn hire(&mut self, now: Instant) -> Option<Instant> {
        if now < self.hire.0 {
            return Some(self.hire.0);
        }
        for inbox in self.shared.mailbox.inboxes() {
            let wanted = inbox.hire();
            for hired in 0..wanted {
                if let Err(error) = self.hire_one(&inbox) {
                    inbox.not_hired(wanted - hired);
                    return Some(self.cannot_hire(&inbox, &error, now));
                }
            }
        }
        self.hire.1 = LOOK;
        None
    }

    fn hire_one(&self, inbox: &Arc<Inbox>) -> std::io::Result<()> {
        let (shared, inbox) = (Arc::clone(&self.shared), Arc::clone(inbox));
        let name = format!("kiln-{}", inbox.queue);
        thread::Builder::new().name(name).spawn(move || execute::live(shared, inbox)).map(|_| ())
    }

    /// No thread can be had: better done elsewhere, or later, than never. Says when to try again.
    fn cannot_hire(&mut self, inbox: &Inbox, _: &std::io::Error, now: Instant) -> Instant {
        if inbox.is_without_threads() {
            self.shared.mailbox.release(inbox.clear());
            inbox.ring();
        }
        let (again, wait) = &mut self.hire;
        *again = now + *wait;
        *wait = (*wait * 2).min(LONGEST);
        *again
    }

    /// Looks after what waits: acks for company, claimed jobs for a thread. Says when to look again.
    fn tend(&self, now: Instant) -> Option<Instant> {
        let next = self.shared.mailbox.tend(now);
        if next.is_some() && self.shared.mailbox.unwritten() > 0 {
            self.shared.turn();
        }
        next
    }

    /// Fires cron entries; says when to go on.
    fn fire(&mut self, now: Instant) -> Option<Instant> {
        let time = self.shared.now();
        match (self.crons.tick(time), self.crons.due()) {
            (Err(error), _) => {
                self.meet(&error);
                Some(now + LOOK)
            }
            (Ok(_), due) => due.instant(time, now),
        }
    }

    /// Makes due jobs available; says when to go on.
    fn stage(&mut self, now: Instant) -> Option<Instant> {
        let time = self.shared.now();
        if self.due.is_now(time) {
            // Until the new plan is made, every job that becomes due is news: one may be committed after the look below.
            self.shared.mailbox.alarm.plan(None);
            self.due = match self.shared.kiln.stage(&self.shared.mailbox.queues(), STAGE_BATCH) {
                Ok((_, next_due)) => next_due.map_or(Due::Never, Due::At),
                Err(error) => {
                    self.meet(&error);
                    return Some(now + LOOK);
                }
            };
        }
        self.shared.mailbox.alarm.plan(self.due.micros());
        if self.due == Due::Unknown { Some(now) } else { self.due.instant(time, now) }
    }

    /// Deletes a batch of old jobs; says when to go on.
    fn prune(&self, now: Instant) -> Instant {
        let time = self.shared.now();
        let before = |age: Duration| time.checked_sub(age).ok();
        let retention = &self.shared.settings.retention;
        let cutoffs = Cutoffs {
            completed: before(retention.completed),
            cancelled: before(retention.cancelled),
            discarded: before(retention.discarded),
        };
        match self.shared.kiln.prune(&cutoffs, PRUNE_BATCH) {
            // The others on the file are let in between.
            Ok((_, true)) => now + Duration::from_millis(20),
            Ok(_) | Err(_) => now + PRUNE,
        }
    }

    /// Something that the scheduler had to write could not be written.
    fn meet(&self, error: &Error) {
        if error.is_of_the_file() {
            let event = self.shared.mailbox.outbox.lock().halt(error, Instant::now());
            event.into_iter().for_each(|event| self.shared.observers().tell(|| event));
        }
    }

    /// Tries again what could not be written, when it is time for it.
    fn try_again(&self, now: Instant) {
        let mailbox = &self.shared.mailbox;
        let mut outbox = mailbox.outbox.lock();
        if !outbox.is_due(now) {
            return;
        }
        let halted = outbox.is_halted();
        drop(outbox);
        if halted {
            // The runtime's own row, written as it is: that shows whether anything can be written.
            mailbox.set_unannounced();
            if let Err(error) = self.shared.kiln.life().announce(mailbox) {
                return self.meet(&error);
            }
            mailbox.outbox.lock().resume();
        }
        self.shared.turn();
        let event = mailbox.outbox.lock().look(now);
        event.into_iter().for_each(|event| self.shared.observers().tell(|| event));
    }
}

#[cfg(test)]
mod tests;
