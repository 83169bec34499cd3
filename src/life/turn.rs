//! The turn: the one transaction in which everything is written.
//!
//! A turn runs the operations of all callers that wait, writes the acks that the runtimes of this process have left,
//! claims jobs for their free threads, and commits. After the commit it puts claimed jobs into the inboxes and answers the
//! callers. So a finished job's ack, a new job and the next claim share one commit and one sync.
//!
//! A caller that finds nobody leading leads itself: alone, it pays no hand-off between threads. Callers that come meanwhile
//! wait, and share the next turn.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use rusqlite::Connection;

use super::claim::ClaimState;
use super::group::{Group, Own};
use super::mailbox::{Given, Mailbox};
use super::outbox::Ended;
use super::runtimes::{name_holder, peers};
use super::tx::{Done, Operation, Tx};
use super::waiter::{Need, Waiter, Waiting};
use super::{ack, claim};
use crate::error::{Error, Result};
use crate::event::{Event, Observers};
use crate::file::{Durability, Options, Permission, WriteConnection};
use crate::job::{Ack, Notice, Redaction, State};
use crate::presence::{Peers, Suspects};

pub(crate) struct Writer {
    line: Mutex<Line>,
    /// Held by the leader during the transaction of a turn, and by whoever uses the connection between turns.
    connection: Mutex<Turns>,
    /// As a whole, so that a turn takes them along for the price of a count.
    mailboxes: RwLock<Arc<Vec<Arc<Mailbox>>>>,
    pub peers: Peers,
    pub permission: Arc<Permission>,
    /// Held while the runtimes here are told what holds for the queues of all: what is read later is applied later.
    pub applying: Mutex<()>,
    /// Held while a runtime's row is written anew: a thread that finds nothing changed finds it written as well.
    pub announcing: Mutex<()>,
    observers: Observers,
    redaction: Redaction,
    /// How many turns were run, for callers that wait for the next.
    turns: Mutex<u64>,
    turned: Condvar,
    durability: Durability,
}

/// What turns have in common.
struct Turns {
    connection: WriteConnection,
    /// An id that is known to have been given; 0 if none is.
    known: i64,
    claims: ClaimState,
}

/// The callers that wait for a turn.
#[derive(Default)]
struct Line {
    led: bool,
    /// A runtime asked for a turn since the leader last looked.
    again: bool,
    /// Callers waited when the last turn began.
    crowded: bool,
    waiting: Vec<Arc<dyn Waiting>>,
}

/// Which thread runs the turns.
#[derive(Clone, Copy)]
enum Leader {
    /// A caller with an operation of its own, which is done with the first turn.
    Caller,
    /// A thread of a runtime.
    Runtime,
}

/// A thread of a runtime leads no more turns than these at once: it has jobs to execute as well.
const TURNS: u32 = 4;

/// Once a caller has led for this long, its own turn included, it begins no further turn; it leads at least two if others
/// wait.
const KEPT: Duration = Duration::from_micros(200);

impl Writer {
    pub fn new(conn: Connection, options: &Options, observers: Observers, redaction: Redaction) -> Self {
        let permission = Arc::new(Permission::to_write());
        let connection = WriteConnection::new(conn, Arc::clone(&permission), options.patience);
        let turns = Turns { connection, known: 0, claims: ClaimState::new(Suspects::of_process()) };
        Self {
            line: Mutex::default(),
            connection: Mutex::new(turns),
            mailboxes: RwLock::default(),
            peers: Peers::default(),
            permission,
            applying: Mutex::default(),
            announcing: Mutex::default(),
            observers,
            redaction,
            turns: Mutex::new(0),
            turned: Condvar::new(),
            durability: options.durability,
        }
    }

    pub fn attach(&self, mailbox: Arc<Mailbox>) {
        Arc::make_mut(&mut *self.mailboxes.write()).push(mailbox);
    }

    pub fn detach(&self, runtime: &str) {
        Arc::make_mut(&mut *self.mailboxes.write()).retain(|mailbox| mailbox.runtime.id != runtime);
    }

    pub fn mailboxes(&self) -> Arc<Vec<Arc<Mailbox>>> {
        Arc::clone(&self.mailboxes.read())
    }

    /// Uses the connection outside of any turn.
    pub fn with<T>(&self, f: impl FnOnce(&Connection) -> T) -> T {
        f(&self.connection.lock().connection.conn)
    }

    /// Waits until another turn was run here than those counted in `seen`; says how many there are then.
    pub fn wait(&self, seen: u64, until: Instant) -> u64 {
        let mut turns = self.turns.lock();
        while *turns == seen && !self.turned.wait_until(&mut turns, until).timed_out() {}
        *turns
    }

    /// Runs an operation in a turn, and gives it back once that is committed.
    pub fn write<O: Operation + 'static>(&self, need: Need, operation: O) -> Result<O> {
        let (result, events) = self.write_untold(need, operation);
        self.tell(events);
        result
    }

    /// The same for a caller that holds a lock: observers must be told without.
    pub fn write_untold<O: Operation + 'static>(&self, need: Need, mut operation: O) -> (Result<O>, Vec<Event>) {
        let mut line = self.line.lock();
        if !line.led {
            line.led = true;
            drop(line);
            let mut own = Own { need, operation: &mut operation, answer: None };
            let events = self.lead(Leader::Caller, Some(&mut own));
            let answer = own.answer.expect("BUG: a leader's own operation is in its first turn");
            return (answer.map(|()| operation), events);
        }
        let waiter = Arc::new(Waiter::new(need, operation));
        line.waiting.push(waiter.clone());
        drop(line);
        let soon = self.durability == Durability::Normal;
        let events = if waiter.is_to_lead(soon) { self.lead(Leader::Caller, None) } else { Vec::new() };
        (waiter.take(), events)
    }

    /// Runs a turn for what the runtimes want, unless another thread leads: then that thread will.
    pub fn turn(&self) {
        let mut line = self.line.lock();
        if line.led {
            line.again = true;
            return;
        }
        line.led = true;
        drop(line);
        let events = self.lead(Leader::Runtime, None);
        self.tell(events);
    }

    /// Tells observers what turns came to. The caller leads no more and holds no lock: an observer may want to write.
    pub fn tell(&self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.observers.tell(|| event));
    }

    fn lead(&self, leader: Leader, mut own: Option<&mut Own<'_>>) -> Vec<Event> {
        let began = Instant::now();
        let mut events = Vec::new();
        for turn in 1.. {
            let waiting = self.take_waiting();
            self.run(Group { own: own.take(), waiting: &waiting }, &mut events);
            let last = match leader {
                Leader::Caller => turn > 1 && began.elapsed() >= KEPT,
                Leader::Runtime => turn == TURNS,
            };
            if !self.goes_on(last) {
                break;
            }
        }
        events
    }

    /// The operations that wait now.
    fn take_waiting(&self) -> Vec<Arc<dyn Waiting>> {
        let mut line = self.line.lock();
        if line.crowded {
            // Callers that were just answered usually come again at once. Yielding lets them join this turn, which makes
            // each turn cheaper per operation: without it, 8 threads at NORMAL make 0.59 of the calls.
            MutexGuard::unlocked(&mut line, thread::yield_now);
        }
        line.again = false;
        let waiting = std::mem::take(&mut line.waiting);
        line.crowded = !waiting.is_empty();
        waiting
    }

    /// Whether the leader runs another turn. If it was the last and there is more to do, another thread is called.
    fn goes_on(&self, last: bool) -> bool {
        let mut line = self.line.lock();
        if line.waiting.is_empty() && !line.again {
            line.led = false;
            return false;
        }
        if !last {
            return true;
        }
        match line.waiting.first() {
            Some(next) => next.promote(),
            // Only runtimes want more, and they have a thread for that.
            None => {
                line.led = false;
                drop(line);
                self.mailboxes().iter().for_each(|mailbox| mailbox.alarm.ring(|wake| wake.turn = true));
            }
        }
        false
    }

    /// One turn, and what follows from it. Results are put into the mailboxes after the commit and without a lock; the next
    /// turn begins only after that.
    fn run(&self, mut group: Group<'_, '_>, events: &mut Vec<Event>) {
        let mailboxes = self.mailboxes();
        if group.is_empty() && !mailboxes.iter().any(|mailbox| mailbox.has_mail()) {
            return;
        }
        let mut given = None;
        let mut turns = self.connection.lock();
        let result = self.transact(&mut turns, &mut group, &mailboxes, &mut given);
        // A transaction that could not even begin has read no mailbox.
        let collect = || mailboxes.iter().map(|mailbox| mailbox.collect(&Notice::default())).collect();
        let given = given.unwrap_or_else(collect);
        let is_whole = result.is_ok();
        let notice = match result {
            Ok((done, notice)) => {
                self.peers.tell(&notice, || peers(&turns.connection.conn));
                drop(turns);
                self.deliver(&mailboxes, given, done, events);
                group.answer(|| Ok(()));
                notice
            }
            // Another process holds the lock: trying each by itself would only multiply the wait.
            Err(error) if error.is_busy() => {
                let error = name_holder(error, &turns.connection.conn);
                drop(turns);
                let returned = mailboxes.iter().zip(given);
                events.extend(returned.filter_map(|(mailbox, given)| mailbox.return_all(given, &error)));
                group.answer(|| Err(error.clone()));
                Notice::default()
            }
            // One operation that cannot be written does not take the others along.
            Err(_) => {
                drop(turns);
                self.one_by_one(&mut group, &mailboxes, given, events)
            }
        };
        *self.turns.lock() += 1;
        self.turned.notify_all();
        self.notify(&mailboxes, notice, is_whole);
    }

    /// The transaction: all of it, or nothing. The mailboxes are read once, after the callers' operations.
    fn transact(
        &self,
        turns: &mut Turns,
        group: &mut Group<'_, '_>,
        mailboxes: &[Arc<Mailbox>],
        given: &mut Option<Vec<Given>>,
    ) -> Result<(Vec<Done>, Notice)> {
        let sync = match self.durability {
            Durability::Normal => false,
            Durability::Full => group.needs_sync(),
            Durability::Strict => true,
        };
        let Turns { connection, known, claims } = turns;
        let mut newest = None;
        let result = connection.commit(sync, &mut |conn| {
            let mut tx = Tx::new(conn, *known);
            group.run(&mut tx)?;
            let given = given.get_or_insert_with(|| mailboxes.iter().map(|it| it.collect(&tx.notice)).collect());
            let mut done = Vec::with_capacity(given.len());
            for Given { part, .. } in given.iter() {
                done.push(Done { acked: ack::acknowledge(&mut tx, &part.acks, part.now)?, ..Done::default() });
            }
            for (Given { part, .. }, done) in given.iter().zip(&mut done) {
                claim::claim(&mut tx, part, claims, done)?;
            }
            newest = tx.newest;
            Ok((done, tx.notice))
        });
        // After an error nobody knows what is there.
        *known = if result.is_ok() { newest.unwrap_or(*known) } else { 0 };
        result
    }

    /// Puts what a committed turn came to into the mailboxes.
    fn deliver(&self, mailboxes: &[Arc<Mailbox>], given: Vec<Given>, done: Vec<Done>, events: &mut Vec<Event>) {
        for ((mailbox, Given { part, ended }), done) in mailboxes.iter().zip(given).zip(done) {
            let Done { acked, claimed, expired, more, waiting, passed } = done;
            if self.observers.any() {
                let acks = part.acks.iter().zip(&ended).zip(&acked);
                events.extend(acks.map(|((ack, ended), state)| self.acked(ack, ended, *state)));
                events.extend(expired.iter().map(|job| Event::Expired { job: job.into() }));
            }
            if more {
                self.line.lock().again = true;
            }
            events.extend(mailbox.put(part.acks.len(), part.demands, claimed, more, &waiting));
            if !passed.is_empty() {
                mailbox.passed(&passed);
            }
        }
    }

    fn acked(&self, ack: &Ack, Ended { job, run_time, .. }: &Ended, state: Option<State>) -> Event {
        let error = ack
            .error_in(state)
            .map(|error| self.redaction.text(error, &[job.args.as_str(), job.meta.as_str()]).into_owned());
        Event::Acked { job: (&**job).into(), state, queue_time: job.queue_time(), run_time: *run_time, error }
    }

    /// Tries each operation, each ack and each claim by itself. What fails is answered with its error, or put aside.
    fn one_by_one(
        &self,
        group: &mut Group<'_, '_>,
        mailboxes: &[Arc<Mailbox>],
        given: Vec<Given>,
        events: &mut Vec<Event>,
    ) -> Notice {
        let mut notices = Notice::default();
        group.each(|one| {
            let result = self.transact(&mut self.connection.lock(), one, &[], &mut None);
            one.answer(|| result.as_ref().map(|_| ()).map_err(Error::clone));
            notices.merge(result.map(|(_, notice)| notice).unwrap_or_default());
        });
        for (mailbox, given) in mailboxes.iter().zip(given) {
            let mut halted = None;
            for given in given.split() {
                match &halted {
                    Some(error) => events.extend(mailbox.return_all(given, error)),
                    None => match self.try_alone(mailbox, given, events) {
                        Ok(notice) => notices.merge(notice),
                        Err(error) => halted = Some(error),
                    },
                }
            }
        }
        self.peers.tell(&notices, || self.with(peers));
        notices
    }

    /// Runs a turn for one ack or one claim; it is put aside if it fails. An error means that nothing can be written at all.
    fn try_alone(&self, mailbox: &Arc<Mailbox>, given: Given, events: &mut Vec<Event>) -> Result<Notice> {
        let one = std::slice::from_ref(mailbox);
        let mut given = Some(vec![given]);
        let result = self.transact(&mut self.connection.lock(), &mut Group::default(), one, &mut given);
        let given = given.unwrap_or_default();
        match result {
            Ok((done, notice)) => {
                self.deliver(one, given, done, events);
                Ok(notice)
            }
            Err(error) => {
                events.extend(given.into_iter().filter_map(|given| mailbox.put_aside(given, &error)));
                if error.is_of_the_file() { Err(error) } else { Ok(Notice::default()) }
            }
        }
    }

    /// Tells the runtimes here what was committed, beyond what they have just claimed.
    fn notify(&self, mailboxes: &[Arc<Mailbox>], mut notice: Notice, claimed_for_all: bool) {
        if claimed_for_all {
            notice.queues.clear();
            notice.all_queues = false;
        }
        if !notice.is_empty() {
            mailboxes.iter().for_each(|mailbox| mailbox.notify(&notice));
            self.line.lock().again |= !claimed_for_all;
        }
    }
}

#[cfg(test)]
mod tests;
