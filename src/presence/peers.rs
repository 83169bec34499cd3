//! Which runtimes of other handles and processes a notice concerns, and how they hear of it.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::bell::{Address, Ringer};
use crate::job::Notice;

/// For how long the rows that were read last are used. A runtime that joins meanwhile looks at the jobs by itself.
const TRUSTED: Duration = Duration::from_millis(500);

/// The row of a runtime that listens for rings.
#[derive(Clone, Debug)]
pub(crate) struct PeerRow {
    pub address: Address,
    pub queues: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Peers {
    ringer: OnceLock<Option<Ringer>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The runtimes of this handle, which hear without a bell.
    here: HashSet<String>,
    elsewhere: Vec<PeerRow>,
    /// When the rows were read; `None` if they are to be read again.
    read: Option<Instant>,
    /// How often somebody asked for that.
    asked: u64,
}

impl Peers {
    /// The runtime is one of this handle.
    pub fn is_here(&self, id: &str) {
        let mut known = self.known.lock();
        known.here.insert(id.to_owned());
        known.look_again();
    }

    /// Rings the runtimes which the notice may concern. `look` reads the rows of all runtimes, if those that were read last
    /// are too old.
    pub fn tell(&self, notice: &Notice, look: impl FnOnce() -> Vec<PeerRow>) {
        if notice.is_empty() {
            return;
        }
        let old = self.known.lock().is_old(notice);
        if let Some(asked) = old {
            let rows = look();
            self.known.lock().learn(rows, asked);
        }
        let mut known = self.known.lock();
        for peer in known.elsewhere.iter().filter(|peer| concerns(notice, peer)) {
            if let Some(ringer) = self.ringer.get_or_init(Ringer::new) {
                ringer.ring(&peer.address, notice);
            }
        }
        if notice.queues_changed {
            // The runtimes that were rung execute other queues in a moment.
            known.look_again();
        }
    }

    /// A runtime has written that it executes other queues.
    pub fn look_again(&self) {
        self.known.lock().look_again();
    }
}

impl Known {
    fn look_again(&mut self) {
        self.read = None;
        self.asked += 1;
    }

    /// If the rows are to be read before this is told: how often that was asked for.
    fn is_old(&self, notice: &Notice) -> Option<u64> {
        // A lost ring delays a new job a little. But somebody waits for a cancel or a pause.
        let urgent = !notice.cancelling.is_empty() || notice.queues_changed;
        let old = urgent || self.read.is_none_or(|read| read.elapsed() > TRUSTED);
        old.then_some(self.asked)
    }

    fn learn(&mut self, rows: Vec<PeerRow>, asked: u64) {
        self.elsewhere = rows;
        self.elsewhere.retain(|peer| peer.address.port > 0 && !self.here.contains(&peer.address.id));
        // If somebody asked to look again meanwhile, the rows may be old already.
        self.read = (self.asked == asked).then(Instant::now);
    }
}

fn concerns(notice: &Notice, peer: &PeerRow) -> bool {
    let concerns_all = notice.due.is_some() || !notice.cancelling.is_empty() || notice.crons || notice.queues_changed;
    concerns_all || notice.all_queues || peer.queues.iter().any(|queue| notice.concerns(queue))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use crossbeam_channel::Receiver;

    use super::*;
    use crate::presence::Bell;

    struct Peer {
        bell: Bell,
        row: PeerRow,
        rings: Receiver<Notice>,
    }

    fn peer(id: &str, queue: &str) -> Peer {
        let (heard, rings) = crossbeam_channel::unbounded();
        let bell = Bell::hang(id, move |notice| heard.send(notice).unwrap()).unwrap();
        let queues = vec![queue.to_owned()];
        let row = PeerRow { address: bell.address.clone(), queues };
        Peer { bell, row, rings }
    }

    fn of_queue(queue: &str) -> Notice {
        Notice { queues: vec![queue.to_owned()], ..Notice::default() }
    }

    #[test]
    fn a_notice_rings_the_runtimes_elsewhere_that_it_concerns() {
        let peers = Peers::default();
        let [here, a, b] = [peer("here", "a"), peer("one", "a"), peer("two", "b")];
        peers.is_here("here");
        let rows = || [&here, &a, &b].map(|peer| peer.row.clone()).to_vec();
        peers.tell(&of_queue("a"), rows);
        assert_eq!(a.rings.recv(), Ok(of_queue("a")));
        let due = Notice { due: Some(1), ..Notice::default() };
        peers.tell(&due, rows);
        assert_eq!((a.rings.recv(), b.rings.recv()), (Ok(due.clone()), Ok(due)), "the first ring was not for b");
        drop(here.bell);
        assert!(here.rings.recv().is_err(), "nobody rang here");
    }

    #[test]
    fn rows_are_read_again_when_they_are_old_or_somebody_waits() {
        let peers = Peers::default();
        let looks = Cell::new(0);
        let tell = |notice: &Notice| {
            let before = looks.get();
            peers.tell(notice, || {
                looks.set(looks.get() + 1);
                Vec::new()
            });
            looks.get() > before
        };
        let cancel = Notice { cancelling: vec![1], ..Notice::default() };
        let pause = Notice { queues_changed: true, ..Notice::default() };
        assert!(!tell(&Notice::default()), "there is nothing to tell");
        assert!(tell(&of_queue("a")));
        assert!(!tell(&of_queue("a")), "they are still trusted");
        assert!(tell(&cancel) && tell(&cancel));
        assert!(!tell(&of_queue("a")));
        assert!(tell(&pause));
        assert!(tell(&of_queue("a")), "queues have changed");
        peers.look_again();
        assert!(tell(&of_queue("a")));
        peers.known.lock().read = Instant::now().checked_sub(TRUSTED * 2);
        assert!(tell(&of_queue("a")));
        peers.tell(&cancel, || {
            peers.look_again();
            Vec::new()
        });
        assert!(tell(&of_queue("a")), "what was read may be older than that");
    }
}
