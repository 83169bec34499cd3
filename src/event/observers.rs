//! The functions that an application gave to be called with each event.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::event::Event;
use super::telemetry;
use crate::job::Job;

/// The observers of a handle, in the order in which they were given.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<Observer>>);

type Observer = dyn Fn(&Event) + Send + Sync;

impl Observers {
    pub fn add(&mut self, observer: impl Fn(&Event) + Send + Sync + 'static) {
        self.0.push(Arc::new(observer));
    }

    /// Whether anybody wants events. If nobody does, no event is made.
    pub fn any(&self) -> bool {
        telemetry::ENABLED || !self.0.is_empty()
    }

    /// Makes the event and passes it to everybody who wants it.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if !self.any() {
            return;
        }
        let event = event();
        telemetry::record(&event);
        for observer in &self.0 {
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
        write!(f, "{} observers", self.0.len())
    }
}
