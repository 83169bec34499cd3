//! Those who want to be told.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::Event;
use crate::{Job, observing};

/// Passed in, in order; there are no others.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<Observer>>);

type Observer = dyn Fn(&Event) + Send + Sync;

impl Observers {
    pub fn add(&mut self, observer: impl Fn(&Event) + Send + Sync + 'static) {
        self.0.push(Arc::new(observer));
    }

    /// Whether anybody listens: an event nobody wants is not even made.
    pub fn any(&self) -> bool {
        observing::ANY || !self.0.is_empty()
    }

    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if !self.any() {
            return;
        }
        let event = event();
        observing::tell(&event);
        for observer in &self.0 {
            // An observer that panics harms itself alone.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| observer(&event)));
        }
    }

    /// Tells what came of the enqueue of each of these.
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
