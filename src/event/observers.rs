//! The functions that an application gave to be called with each event.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::event::Event;
use super::subscription::{Events, Subscriptions};
use super::telemetry;
use crate::job::Job;

/// The observers of a handle, in the order in which they were given, and its subscriptions.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    all: Vec<Arc<Observer>>,
    subscriptions: Arc<Subscriptions>,
}

type Observer = dyn Fn(&Event) + Send + Sync;

impl Observers {
    pub fn add(&mut self, observer: impl Fn(&Event) + Send + Sync + 'static) {
        self.all.push(Arc::new(observer));
    }

    /// Sends events to a channel with room for so many.
    pub fn subscribe(&self, room: usize) -> Events {
        self.subscriptions.add(room)
    }

    /// Whether anybody wants events. If nobody does, no event is made.
    pub fn any(&self) -> bool {
        telemetry::ENABLED || !self.all.is_empty() || self.subscriptions.any()
    }

    /// Makes the event and passes it to everybody who wants it.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if !self.any() {
            return;
        }
        let event = event();
        telemetry::record(&event);
        self.subscriptions.send(&event);
        for observer in &self.all {
            // A panic of an observer must not reach the job or the runtime.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| observer(&event)));
        }
    }

    /// Makes the event of each job that an enqueue stored or found.
    pub fn enqueued<'j>(&self, jobs: impl IntoIterator<Item = &'j Job>) {
        if self.any() {
            jobs.into_iter().for_each(|job| {
                self.tell(|| match job.conflict {
                    false => Event::Enqueued { job: job.into() },
                    true => Event::Conflicted { job: job.into() },
                });
            });
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.all.len())
    }
}
