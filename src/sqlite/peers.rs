//! The other runtimes on the file, as far as they want to be rung.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{rows, sql};
use crate::bell::Ringer;
use crate::engine::News;

/// How long a look at the table of runtimes is trusted. Who joins meanwhile looks at the jobs by itself.
const TRUSTED: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Peers {
    ringer: OnceLock<Option<Ringer>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Runtimes of this handle: they hear without a bell.
    here: HashSet<String>,
    elsewhere: Vec<Peer>,
    looked: Option<Instant>,
}

struct Peer {
    port: u16,
    queues: Vec<String>,
}

impl Peers {
    pub fn is_here(&self, id: &str) {
        let mut known = self.known.lock();
        known.here.insert(id.to_owned());
        known.looked = None;
    }

    /// Rings those whom the news may concern.
    pub fn tell(&self, conn: &Connection, news: &News) {
        if news.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        // A lost wake-up costs an enqueue little, but somebody waits for a cancel or a pause.
        let urgent = !news.cancelling.is_empty() || news.queues_changed;
        if urgent || known.looked.is_none_or(|looked| looked.elapsed() > TRUSTED) {
            // A failed look is no reason to fail a commit that is done.
            known.elsewhere = known.look(conn).unwrap_or_default();
            known.looked = Some(Instant::now());
        }
        for peer in &known.elsewhere {
            let concerns = news.due.is_some()
                || !news.cancelling.is_empty()
                || news.all_queues
                || news.crons
                || news.queues_changed
                || peer.queues.iter().any(|queue| news.rings(queue));
            if concerns && let Some(ringer) = self.ringer.get_or_init(Ringer::new) {
                ringer.ring(peer.port, news);
            }
        }
        if news.queues_changed {
            // Those that are told run other queues in a moment.
            known.looked = None;
        }
    }

    /// Somebody made known that it runs other queues.
    pub fn look_again(&self) {
        self.known.lock().looked = None;
    }
}

impl Known {
    fn look(&self, conn: &Connection) -> rusqlite::Result<Vec<Peer>> {
        let mut select = conn.prepare_cached(sql::MEMBERS)?;
        let mut rows = select.query([])?;
        let mut elsewhere = Vec::new();
        while let Some(row) = rows.next()? {
            // A row that somebody else wrote must not keep the others from being rung.
            if let Ok(port) = u16::try_from(rows::integer(row.get_ref(3)?))
                && port > 0
                && !self.here.contains(&rows::text(row.get_ref(0)?))
            {
                elsewhere.push(Peer { port, queues: rows::words(row.get_ref(4)?) });
            }
        }
        Ok(elsewhere)
    }
}
