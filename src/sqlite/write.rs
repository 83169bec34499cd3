//! Group commit: whoever finds the writer free leads, and runs in one transaction what everybody has queued
//! meanwhile, together with what the runtimes here have to acknowledge and to claim.
//!
//! Alone, a caller pays no hand-off between threads; among many, a commit and its sync are shared.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use rusqlite::Connection;

use super::group::{Group, Own};
use super::line::{Waiter, Waiting};
use super::link::Link;
use super::patience::be_patient;
use super::peers::Peers;
use super::schema::Leave;
use super::solitude::Solitude;
use super::{claim, holder};
use crate::engine::{Crew, News, Turn};
use crate::job::Job;
use crate::{Durability, Error, Result};

/// Something to do in a transaction. It may be run again after a rollback.
pub(super) trait Op: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()>;

    /// The job it stores, where that is all it does and the job has nothing but its arguments.
    fn plain(&mut self) -> Option<&mut Job> {
        None
    }

    /// Whether one statement may do, which alone is a transaction of its own.
    fn may_be_one_statement(&self) -> bool {
        false
    }

    /// Says whether it did.
    fn run_as_one_statement(&mut self, _: &mut Tx<'_>) -> Result<bool> {
        Ok(false)
    }
}

/// A transaction that is open, and what it will have to tell.
pub(super) struct Tx<'c> {
    pub conn: &'c Connection,
    pub news: News,
    /// The job it stored last, while none was deleted since.
    pub newest: Option<i64>,
    /// An id that was given before; 0 where none is known.
    pub known: i64,
    /// There are unique jobs with keys as schema version 1 has them.
    pub elder_keys: bool,
}

impl<'c> Tx<'c> {
    pub fn new(conn: &'c Connection) -> Self {
        Self { conn, news: News::default(), newest: None, known: 0, elder_keys: true }
    }
}

/// What a caller needs of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// On the disk before the call returns.
    Durable,
    /// May ride on the next sync: losing it in a power cut only repeats a job.
    Ride,
}

type Crews = Vec<(String, Arc<dyn Crew>)>;

pub(super) struct Writer {
    line: Mutex<Line>,
    connection: Mutex<Link>,
    /// As a whole, so that a transaction takes them along for the price of a count.
    crews: RwLock<Arc<Crews>>,
    pub solitude: Solitude,
    pub peers: Peers,
    pub leave: Leave,
    /// Held while the crews are told what was said of queues.
    pub telling: Mutex<()>,
    /// Held while it is made known how one runs its queues: who finds nothing changed finds it written as well.
    pub announcing: Mutex<()>,
    /// How many transactions were run, for those who wait for the next.
    runs: Mutex<u64>,
    ran: Condvar,
    durability: Durability,
    patience: Duration,
    /// A caller is not to be kept by the work of others for longer than this.
    pub kept: Duration,
}

/// Who waits for the writer.
#[derive(Default)]
struct Line {
    led: bool,
    /// A crew asked for a turn since the leader last looked.
    again: bool,
    /// Somebody waited when the last transaction began.
    crowded: bool,
    waiting: Vec<Arc<dyn Waiting>>,
}

/// The crews that a leader ran turns for. They are told once it leads no more: an observer may want to write.
#[derive(Default)]
#[must_use]
pub(super) struct Untold(Arc<Crews>);

impl Untold {
    pub fn tell(self) {
        self.0.iter().for_each(|(_, crew)| crew.tell());
    }
}

/// Who runs the transactions.
#[derive(Clone, Copy)]
enum Leader {
    /// Somebody with an op of its own, which is done with the first of them.
    Caller,
    /// A thread of a runtime.
    Runtime,
}

/// A runtime's thread is kept for no more transactions than these: it has other things to do as well.
const TURNS: u32 = 4;

impl Writer {
    pub fn new(conn: Connection, durability: Durability, patience: Duration) -> Self {
        Self {
            line: Mutex::default(),
            connection: Mutex::new(Link::new(conn)),
            solitude: Solitude::new(),
            crews: RwLock::default(),
            peers: Peers::default(),
            leave: Leave::to_write(),
            telling: Mutex::default(),
            announcing: Mutex::default(),
            runs: Mutex::new(0),
            ran: Condvar::new(),
            durability,
            patience,
            kept: Duration::from_micros(200),
        }
    }

    pub fn attach(&self, id: &str, crew: Arc<dyn Crew>) {
        self.peers.is_here(id);
        Arc::make_mut(&mut *self.crews.write()).push((id.to_owned(), crew));
    }

    pub fn detach(&self, id: &str) {
        Arc::make_mut(&mut *self.crews.write()).retain(|(other, _)| other != id);
    }

    pub fn crews(&self) -> Arc<Crews> {
        Arc::clone(&self.crews.read())
    }

    /// Uses the connection outside of any transaction.
    pub fn with<T>(&self, f: impl FnOnce(&Connection) -> T) -> T {
        f(&self.connection.lock().conn)
    }

    /// Waits until another transaction was run here than those counted in `seen`; says how many there are then.
    pub fn wait(&self, seen: u64, until: Instant) -> u64 {
        let mut runs = self.runs.lock();
        while *runs == seen && !self.ran.wait_until(&mut runs, until).timed_out() {}
        *runs
    }

    /// Runs `op` in a transaction of its own or of many, and gives it back once that is committed.
    pub fn write<O: Op + 'static>(&self, need: Need, op: O) -> Result<O> {
        let (result, untold) = self.write_untold(need, op);
        untold.tell();
        result
    }

    /// The same for somebody who holds a lock: what is to be told is to be told without.
    pub fn write_untold<O: Op + 'static>(&self, need: Need, mut op: O) -> (Result<O>, Untold) {
        let mut line = self.line.lock();
        if !line.led {
            line.led = true;
            drop(line);
            let mut own = Own { need, op: &mut op, answer: None };
            let untold = self.lead(Leader::Caller, Some(&mut own));
            let answer = own.answer.expect("BUG: a leader's own op is in its first turn");
            return (answer.map(|()| op), untold);
        }
        let waiter = Arc::new(Waiter::new(need, op));
        line.waiting.push(waiter.clone());
        drop(line);
        // Without a sync a commit is quick.
        let soon = self.durability == Durability::Normal;
        let untold = if waiter.is_to_lead(soon) { self.lead(Leader::Caller, None) } else { Untold::default() };
        (waiter.take(), untold)
    }

    /// Runs a transaction for what the crews want, unless somebody leads: then that one will.
    pub fn turn(&self) {
        let mut line = self.line.lock();
        if line.led {
            line.again = true;
            return;
        }
        line.led = true;
        drop(line);
        self.lead(Leader::Runtime, None).tell();
    }

    fn lead(&self, leader: Leader, own: Option<&mut Own<'_>>) -> Untold {
        // Those who are here now: one that leaves meanwhile is told of its last acks all the same.
        let crews = self.crews();
        self.take_turns(leader, own);
        Untold(crews)
    }

    fn take_turns(&self, leader: Leader, mut own: Option<&mut Own<'_>>) {
        let began = Instant::now();
        for turn in 1.. {
            let last = match leader {
                // Its own op is in the first, and it must not hand over to itself.
                Leader::Caller => turn > 1 && began.elapsed() >= self.kept,
                Leader::Runtime => turn == TURNS,
            };
            // Who was called early waits here, and takes along all who have come meanwhile.
            let link = self.connection.lock();
            let waiting = self.take_along();
            let next = if last { waiting.last() } else { None };

            self.transact(link, Group { own: own.take(), waiting: &waiting }, next);

            if next.is_some() {
                return;
            }
            let mut line = self.line.lock();
            if line.waiting.is_empty() && !line.again {
                line.led = false;
                return;
            }
            if !last {
                continue;
            }
            match line.waiting.first() {
                Some(next) => next.promote(),
                // Only runtimes want more: theirs is the time for it.
                None => {
                    line.led = false;
                    drop(line);
                    self.crews().iter().for_each(|(_, crew)| crew.carry_on());
                }
            }
            return;
        }
    }

    /// Those who wait now.
    fn take_along(&self) -> Vec<Arc<dyn Waiting>> {
        let mut line = self.line.lock();
        if line.crowded {
            // Who was just answered is about to come with the next: the more there are, the less each of them costs.
            MutexGuard::unlocked(&mut line, thread::yield_now);
        }
        line.again = false;
        let waiting = std::mem::take(&mut line.waiting);
        line.crowded = !waiting.is_empty();
        waiting
    }

    /// Runs a transaction, and calls who is to lead after it.
    fn transact(&self, mut link: MutexGuard<'_, Link>, mut group: Group<'_, '_>, next: Option<&Arc<dyn Waiting>>) {
        // It wakes up while this one is run, and then waits for the connection.
        if let Some(next) = next {
            next.promote();
        }
        let crews = self.crews();
        let mut news = News::default();
        let mut gathered = false;
        match self.attempt(&mut link, &mut group, &crews) {
            Ok(told) => {
                news = told;
                gathered = true;
                group.answer(|| Ok(()));
            }
            // Somebody else holds the lock: trying again at once would only double the wait.
            Err(error) if error.is_busy() => {
                let error = holder::named(error, &link.conn);
                group.answer(|| Err(error.again()));
            }
            // One that cannot be written must not take the others with it.
            Err(_) => {
                let Group { own, waiting } = group;
                let own = own.map(|own| Group { own: Some(own), waiting: &[] });
                let each = waiting.iter().map(|one| Group { own: None, waiting: std::slice::from_ref(one) });
                for mut one in own.into_iter().chain(each) {
                    let result = self.attempt(&mut link, &mut one, &[]);
                    one.answer(|| result.as_ref().map(|_| ()).map_err(Error::again));
                    news.add(result.unwrap_or_default());
                }
            }
        }
        self.peers.tell(&link.conn, &news);
        drop(link);
        *self.runs.lock() += 1;
        self.ran.notify_all();
        if gathered {
            news.queues.clear();
            news.all_queues = false;
        }
        if !news.is_empty() {
            crews.iter().for_each(|(_, crew)| crew.hear(&news));
            self.line.lock().again |= !gathered;
        }
    }

    /// One transaction: all of it, or nothing.
    fn attempt(&self, link: &mut Link, group: &mut Group<'_, '_>, crews: &[(String, Arc<dyn Crew>)]) -> Result<News> {
        let early: Option<Vec<Turn>> = if group.len() == 0 {
            let turns = self.gather(crews, &News::default());
            if turns.iter().all(Turn::is_empty) {
                return Ok(News::default());
            }
            Some(turns)
        } else {
            None
        };
        let synced = match self.durability {
            Durability::Normal => false,
            Durability::Full => group.needs_sync(),
            Durability::Strict => true,
        };
        if crews.is_empty() && group.may_be_one_statement() {
            let (done, news) = self.inside(link, synced, true, |tx| group.run_as_one_statement(tx))?;
            if done {
                return Ok(news);
            }
        }
        let mut turns = early.unwrap_or_default();
        let result = self.inside(link, synced, false, |tx| {
            // It is no news to anybody else, should it be claimed as it is stored.
            let mut coming = News::default();
            match group.plain() {
                Some(job) => coming.of(job),
                None => group.run(tx)?,
            }
            if turns.is_empty() {
                turns = self.gather(crews, if coming.is_empty() { &tx.news } else { &coming });
            }
            let done = claim::turns(tx, &turns, group.plain(), &self.solitude)?;
            for (((_, crew), turn), done) in crews.iter().zip(&turns).zip(&done) {
                crew.foresee(turn, done);
            }
            Ok(done)
        });
        match result {
            Ok((done, news)) => {
                self.line.lock().again |= done.iter().any(|done| done.more);
                for (((_, crew), turn), done) in crews.iter().zip(turns).zip(done) {
                    crew.deliver(turn, done);
                }
                Ok(news)
            }
            Err(error) => {
                self.solitude.undo();
                for ((_, crew), turn) in crews.iter().zip(turns) {
                    crew.give_back(turn, &error);
                }
                Err(error)
            }
        }
    }

    fn gather(&self, crews: &[(String, Arc<dyn Crew>)], news: &News) -> Vec<Turn> {
        let turns = crews.iter().map(|(_, crew)| crew.gather(news)).collect::<Vec<_>>();
        self.solitude.see(&turns, Instant::now());
        turns
    }

    fn inside<T>(
        &self,
        link: &mut Link,
        synced: bool,
        alone: bool,
        body: impl FnOnce(&mut Tx<'_>) -> Result<T>,
    ) -> Result<(T, News)> {
        be_patient(self.patience);
        link.run(synced, alone, |tx| self.leave.ask(tx.conn).and_then(|()| body(tx)))
    }
}
