//! Events for those who would rather take them than be called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::event::Event;

/// Events as they happen, from [`Kiln::subscribe`](crate::Kiln::subscribe): an iterator that waits for the next.
///
/// It ends when the last handle and the last runtime on the file are dropped. Dropping it ends the subscription.
///
/// ```
/// use kiln::{Event, Kiln, NewJob, Running};
///
/// let kiln = Kiln::in_memory()?;
/// let events = kiln.subscribe(1_000);
/// let runtime = kiln.runtime().worker_fn("greet", |_: &Running<()>| ()).start()?;
/// let job = kiln.enqueue(NewJob::new("greet"))?;
///
/// for event in events {
///     if let Event::Acked { job: acked, .. } = event {
///         assert_eq!(acked.id, job.id);
///         break;
///     }
/// }
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    missed: Arc<AtomicU64>,
}

impl Events {
    /// The next event, if there is one within `timeout`; a timeout of zero does not wait.
    pub fn next_within(&self, timeout: Duration) -> Option<Event> {
        self.receiver.recv_timeout(timeout).ok()
    }

    /// How many events found no room so far, since too many waited to be taken. They are lost to this subscription.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.receiver.recv().ok()
    }
}

/// Where the events of a handle are sent.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    any: AtomicBool,
    all: Mutex<Vec<Subscription>>,
}

#[derive(Debug)]
struct Subscription {
    sender: Sender<Event>,
    missed: Arc<AtomicU64>,
}

impl Subscriptions {
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub fn add(&self, room: usize) -> Events {
        let ((sender, receiver), missed) = (bounded(room.max(1)), Arc::new(AtomicU64::new(0)));
        let mut all = self.all.lock();
        all.push(Subscription { sender, missed: Arc::clone(&missed) });
        self.any.store(true, Ordering::Relaxed);
        Events { receiver, missed }
    }

    /// Never waits for a subscriber: an event that finds no room is counted as missed. One that is gone is forgotten.
    pub fn send(&self, event: &Event) {
        let mut all = self.all.lock();
        all.retain(|Subscription { sender, missed }| match sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                missed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
        self.any.store(!all.is_empty(), Ordering::Relaxed);
    }
}
