//! What stores jobs: few verbs, all batched, all handed `now`, none optional.
//!
//! SQLite is the engine there is; nothing above this room knows it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::diagnosis::{Compacted, Diagnosis};
use crate::event::Subject;
use crate::health::{Health, Pulse};
use crate::job::{
    Ack, Attempt, Changes, Counts, CronEntry, Fence, Filter, Job, Note, Notes, Ready, Shot, State, Which,
};
use crate::queues::{Control, Plan, QueueCheck, Queues, Rulings};
use crate::{Error, Result};

pub(crate) trait Engine: Send + Sync {
    /// Stores the jobs, all or none, and gives them back with their ids. Durable when it returns.
    fn enqueue(&self, jobs: Vec<Ready>) -> Result<Vec<Job>>;

    /// These four change a batch of jobs in a transaction, and say how many they changed.
    fn cancel(&self, which: &Which, now: Timestamp, told: Told<'_>) -> Result<u64>;
    fn retry(&self, which: &Which, now: Timestamp, told: Told<'_>) -> Result<u64>;
    fn delete(&self, which: &Which, told: Told<'_>) -> Result<u64>;
    fn update(&self, which: &Which, changes: &Changes, now: Timestamp, told: Told<'_>) -> Result<u64>;

    /// Stores `new` where the row is still what `old` was read as; says whether it was.
    fn replace(&self, old: Job, new: Job) -> Result<bool>;

    fn get(&self, id: i64) -> Result<Option<Job>>;
    fn list(&self, filter: &Filter) -> Result<Vec<Job>>;
    fn count(&self, filter: &Filter) -> Result<Counts>;

    /// Waits until something was committed here since `seen`, which an earlier call returned; at most until `until`.
    fn wait(&self, seen: u64, until: Instant) -> u64;

    fn health(&self) -> Result<Health>;

    /// Makes a batch of due jobs of these queues available.
    fn stage(&self, queues: &[String], now: Timestamp, batch: u32, told: Told<'_>) -> Result<Staged>;

    /// Rescues the jobs whose runtime is dead, a batch in a transaction, and discards a batch of available ones without an
    /// attempt left.
    fn rescue(&self, now: Timestamp, batch: u32, told: Told<'_>) -> Result<u64>;

    /// Abandons the attempts claimed before `before`, whoever owns them: where liveness cannot be told.
    fn rescue_older(&self, before: Timestamp, now: Timestamp, batch: u32, told: Told<'_>) -> Result<u64>;

    /// Deletes a batch of jobs that ended before the cutoff of their state, and gives a little free space back.
    fn prune(&self, cutoffs: &Cutoffs, batch: u32, told: Told<'_>) -> Result<Pruned>;

    /// Writes what an attempt says about itself; says whether the attempt still is the job's.
    fn note(&self, fence: Fence, note: Note) -> Result<bool>;

    fn notes(&self, id: i64) -> Result<Notes>;

    /// The cron entries, in the order of their names.
    fn crons(&self) -> Result<Vec<CronEntry>>;

    /// Adds entries, or redefines those that are there; gives back what they became.
    fn add_crons(&self, entries: Vec<CronEntry>, now: Timestamp) -> Result<Vec<CronEntry>>;

    /// Pauses or resumes the entry of this name; says whether that changed it.
    fn pause_cron(&self, name: &str, paused: bool, now: Timestamp) -> Result<bool>;

    /// Deletes the entry of this name; says whether there was one.
    fn delete_cron(&self, name: &str) -> Result<bool>;

    /// Settles slots and stores their jobs; gives back the jobs of each, or `None` where the entry was not what it had
    /// been read as any more. Durable when it returns.
    fn fire(&self, shots: Vec<Shot>) -> Result<Vec<Option<Vec<Job>>>>;

    /// Jobs executing somewhere that somebody asked to cancel.
    fn cancelling(&self) -> Result<Vec<i64>>;

    /// Says something of queues to all runtimes on the file. Those here have heeded it when it returns.
    fn say(&self, queues: &Queues, control: Control, now: Timestamp) -> Result<()>;

    /// What was said of queues to all runtimes on the file.
    fn rulings(&self) -> Result<Rulings>;

    /// Tells it to the crews here.
    fn tell_rulings(&self) -> Result<()>;

    /// Makes known how a runtime means to run its queues now, where that changed.
    fn announce(&self, runtime: &str, crew: Arc<dyn Crew>) -> Result<()>;

    /// How the live runtimes on the file run these queues.
    fn check(&self, queues: &Queues) -> Result<Vec<QueueCheck>>;

    /// Whether anything can be written; the error says why not.
    fn may_write(&self) -> Result<()>;

    /// Whether what is stored may still be written by this kiln; the error says why not. Others may be newer.
    fn is_understood(&self) -> Result<()>;

    /// The rows that match, as they are stored, in the order of their ids: those after this one, a page of them.
    fn rows(&self, filter: &Filter, after: i64) -> Result<Vec<Row>>;

    /// Looks over all that is stored. What cannot be read is part of the answer.
    fn diagnose(&self, full: bool, now: Timestamp) -> Result<Diagnosis>;

    /// Copies all that is stored, as it is now; says how many bytes the copy has.
    fn backup(&self, to: &Path, over: bool) -> Result<u64>;

    /// Gives all unused space back.
    fn compact(&self) -> Result<Compacted>;

    /// A number that is another one once another process has written.
    fn version(&self) -> Result<i64>;

    /// The file the jobs are in; `None` where it is none.
    fn file(&self) -> Option<&Path>;

    /// Somebody is about to commit this news on a connection of its own: the runtimes here look for it, and others.
    fn expect(&self, news: News);

    /// Makes a runtime known to everybody on the file and lets it take part in every transaction from here.
    fn join(&self, member: &Member, crew: Arc<dyn Crew>) -> Result<()>;

    /// Makes a runtime unknown again, first step: nobody rings it from now on, and when this returns, every turn it
    /// gathered for before has been delivered or given back.
    fn retire(&self, runtime: &str) -> Result<()>;

    /// Second step: it takes part in nothing any more, and counts as dead.
    fn leave(&self, runtime: &str);

    /// Where a runtime that has joined writes down what it has not begun; `None` where that would help nobody.
    fn ledger(&self, runtime: &str) -> Option<Arc<dyn Ledger>>;

    /// An attempt goes on without its runtime, or ends after that: it is in the process, and in no row.
    fn stray(&self, begins: bool);

    /// Runs a turn for somebody who is no crew.
    #[cfg(feature = "testing")]
    fn take_turn(&self, turn: Turn) -> Result<Done>;

    /// Runs a transaction for what the crews want, here and now, unless somebody else is about to.
    fn turn(&self);
}

/// How many slots a page of a ledger has: a ring, in which the first follows the last.
pub(crate) const SLOTS: usize = 512;

/// Which claimed jobs no thread has begun, for those who find their runtime dead. What is not listed has begun.
pub(crate) trait Ledger: Send + Sync {
    /// A page of one's own, while there are any.
    fn page(&self) -> Option<usize>;

    /// Gives the page back.
    fn give_back(&self, page: usize);

    /// Lists attempts from this slot on, a page full at the most; says whether they all are.
    fn list(&self, page: usize, slot: usize, fences: &[Fence]) -> bool;

    /// Lists nothing any more in so many slots. From when this returns, they may begin.
    fn strike(&self, page: usize, slot: usize, count: usize);
}

/// A row as it is stored: the names of its columns, and what they hold.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub id: i64,
    pub columns: Vec<(String, Cell)>,
}

impl Row {
    /// One of which nothing is known but its id, and why.
    pub fn unreadable(id: i64, why: &str) -> Self {
        let columns = [("id", Cell::Integer(id)), ("unreadable", Cell::Text(why.to_owned()))];
        Self { id, columns: columns.map(|(name, cell)| (name.to_owned(), cell)).into() }
    }

    pub fn bytes(&self) -> usize {
        let bytes = |(_, cell): &(String, Cell)| match cell {
            Cell::Text(text) => text.len(),
            Cell::Blob(blob) => blob.len(),
            _ => 8,
        };
        self.columns.iter().map(bytes).sum()
    }
}

/// What a column may hold, whatever it should.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// A job that a verb changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub job: Subject,
    /// What it is now; what it was, where it is gone.
    pub state: State,
    /// What was added to its errors.
    pub error: Option<String>,
}

/// Who is told of each job that a verb changed, where anybody wants to be: after each transaction, on the caller's thread
/// and with no lock held.
pub(crate) type Told<'t> = Option<&'t mut dyn FnMut(Changed)>;

/// Jobs made available, and when the next ones are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Staged {
    pub staged: u64,
    pub next_due: Option<Timestamp>,
}

/// Jobs deleted, and whether there is more to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub pruned: u64,
    pub more: bool,
}

/// A job that ended before the time given for its state may be pruned; `None` keeps it for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cutoffs {
    pub completed: Option<Timestamp>,
    pub cancelled: Option<Timestamp>,
    pub discarded: Option<Timestamp>,
}

/// A runtime, as others on the file see it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub id: String,
    pub node: String,
    pub workers: Vec<String>,
    pub started_at: Timestamp,
    /// How many crashes a job may have that it executes; with 0 they are not counted.
    pub max_crashes: u32,
    /// Whether it runs a job alone that may have had one.
    pub solitude: bool,
    /// Jobs whose rows it found to be damaged, and leaves alone.
    pub damaged: Arc<Mutex<HashSet<i64>>>,
}

/// A runtime, as the engine sees it: it takes part in transactions that anybody in this process runs, so that a
/// finished job's ack, a new job and the next claim share one commit.
///
/// None of these may block, and none may call the engine.
pub(crate) trait Crew: Send + Sync {
    /// What to write and to claim in the transaction that is about to be committed.
    fn gather(&self, news: &News) -> Turn;

    /// All that the turn asked for is done, and about to be committed.
    fn foresee(&self, turn: &Turn, done: &Done);

    /// The turn was committed.
    fn deliver(&self, turn: Turn, done: Done);

    /// The locks are given back: what was delivered may be told.
    fn tell(&self);

    /// The turn was not committed, for this reason; its acks are still to be written.
    fn give_back(&self, turn: Turn, error: &Error);

    /// Something was committed that may concern this runtime and that it has not gathered for.
    fn hear(&self, news: &News);

    /// Whoever ran the transactions until now has other things to do: somebody of this runtime is to ask for a turn.
    fn carry_on(&self);

    /// What was said of queues to all runtimes on the file.
    fn heed(&self, rulings: &Rulings);

    /// The queues that it runs, and how it means to.
    fn plans(&self) -> Vec<Plan>;

    /// Whether they changed since this was asked last.
    fn changed(&self) -> bool;

    /// What they changed to could not be made known.
    fn change(&self);

    /// How it is doing.
    fn pulse(&self) -> Pulse;
}

/// A crew's part in a transaction.
#[derive(Debug)]
pub(crate) struct Turn {
    pub runtime: Arc<Member>,
    pub now: Timestamp,
    pub acks: Vec<Ack>,
    pub demands: Vec<Demand>,
    pub company: Company,
    /// How long a suspect may keep others waiting; zero where none is run alone.
    pub solitude: Duration,
}

/// Who runs in a runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Company {
    #[default]
    Nobody,
    Somebody,
    /// A job that is to be alone.
    Suspect,
}

impl Turn {
    /// The turn of somebody who is no crew: he takes a suspect like any other job.
    #[cfg(any(test, feature = "testing"))]
    pub fn by_hand(runtime: Arc<Member>, now: Timestamp, acks: Vec<Ack>, demands: Vec<Demand>) -> Self {
        Self { runtime, now, acks, demands, company: Company::Nobody, solitude: Duration::ZERO }
    }

    pub fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.demands.is_empty()
    }
}

/// What came of a turn.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// For each ack, in their order: what the job became; `None` where the attempt was no longer the job's.
    pub acked: Vec<Option<State>>,
    pub claimed: Vec<Claimed>,
    /// Jobs that the claim found too late, and cancelled.
    pub expired: Vec<Job>,
    /// There may be jobs that the claim did not get to.
    pub more: bool,
    /// There may be jobs that have to wait, so that one can run alone.
    pub held: bool,
    /// Until when, at the most, where it waits itself.
    pub until: Option<Instant>,
    /// The job that was claimed last is to be alone.
    pub alone: bool,
}

/// So many jobs of this queue, at the most.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    pub queue: Arc<str>,
    pub limit: usize,
    /// So many have a thread each; more are claimed ahead, while all together are within [`LOAD`].
    pub slots: usize,
}

/// How many bytes of jobs are claimed at once, whatever a claim may run ahead: they are all in memory.
pub(crate) const LOAD: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Claimed {
    pub attempt: Attempt,
    pub job: Job,
}

/// What a transaction did that others may want to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    /// Queues with new available jobs.
    pub queues: Vec<String>,
    /// Any queue may have them.
    pub all_queues: bool,
    /// A job is due at this time, in microseconds since 1970; the earliest.
    pub due: Option<i64>,
    /// Executing jobs that somebody asked to cancel.
    pub cancelling: Vec<i64>,
    /// Cron entries were added or changed.
    #[serde(default)]
    pub crons: bool,
    /// It is not committed yet, but soon, perhaps.
    #[serde(default)]
    pub expected: bool,
    /// Something was said of queues to all runtimes.
    pub queues_changed: bool,
}

impl News {
    pub fn is_empty(&self) -> bool {
        let silent = self.due.is_none() && self.cancelling.is_empty() && !self.queues_changed && !self.crons;
        silent && self.queues.is_empty() && !self.all_queues
    }

    pub fn ring(&mut self, queue: &str) {
        if !self.rings(queue) {
            self.queues.push(queue.to_owned());
        }
    }

    pub fn rings(&self, queue: &str) -> bool {
        self.all_queues || self.queues.iter().any(|rung| rung == queue)
    }

    pub fn add(&mut self, other: News) {
        other.queues.iter().for_each(|queue| self.ring(queue));
        self.all_queues |= other.all_queues;
        self.due = self.due.into_iter().chain(other.due).min();
        self.cancelling.extend(other.cancelling);
        self.crons |= other.crons;
        self.expected |= other.expected;
        self.queues_changed |= other.queues_changed;
    }

    /// A job was stored as it is now.
    pub fn of(&mut self, job: &Job) {
        match job.state {
            State::Available => self.ring(&job.queue),
            State::Scheduled | State::Retryable => self.due_at(job.scheduled_at),
            _ => {}
        }
    }

    pub fn due_at(&mut self, at: Timestamp) {
        self.due = self.due.into_iter().chain([at.as_microsecond()]).min();
    }
}
