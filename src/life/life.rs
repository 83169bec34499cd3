//! A file of jobs as it is open here: what writes it, what reads it, and which runtimes live on it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;

use super::mailbox::Mailbox;
use super::runtimes::{check, peers};
use super::turn::Writer;
use super::tx::{Call, Member, Operation, Tx};
use super::waiter::Need;
use crate::error::{Error, Kind, Result};
use crate::event::Observers;
use crate::file::{Migration, Options, Reader, care, connection, copy, failed, open};
use crate::job::{Control, CronEntry, Fence, Notice, QueueCheck, QueueSettings, Queues, Redaction};
use crate::presence::{Bell, Live, Membership, Rules, Sidecar, Suspects};
use crate::report::Compacted;
use crate::store;
use crate::store::runtimes::RuntimeRow;
use crate::store::{queues, runtimes};

pub(crate) struct Life {
    /// `None` if the file was opened to be read only.
    writer: Option<Arc<Writer>>,
    reader: Reader,
    /// `None` for jobs in memory.
    file: Option<PathBuf>,
    pub live: Live,
    /// The runtimes of this handle, with what they hold while they live.
    joined: Mutex<HashMap<String, Joined>>,
    pub patience: Duration,
    /// Whether a read never waits for a write: the file is in WAL mode.
    reads_at_once: bool,
}

/// What a runtime holds while it lives.
struct Joined {
    /// Its place among the runtimes of the process.
    _membership: Membership,
    /// How other processes wake it; `None` if no socket could be had, and for jobs in memory.
    bell: Option<Bell>,
}

impl Life {
    /// Opens a file to write; returns what was done to a file of an older kiln.
    pub fn open(
        path: &Path,
        options: &Options,
        observers: &Observers,
        redaction: &Redaction,
    ) -> Result<(Self, Option<Migration>)> {
        let path = open::prepare(path, options)?;
        let (conn, migration) = open::writer(&path, options)?;
        let reader = Reader::pooled(path.clone(), options.patience);
        let writer = Writer::new(conn, options, observers.clone(), redaction.clone());
        Ok((Self::new(Some(writer), reader, Some(path), options), migration))
    }

    /// Opens a file that is only looked at.
    pub fn read_only(path: &Path, options: &Options) -> Result<Self> {
        let (reader, path) = Reader::read_only(path, options)?;
        Ok(Self::new(None, reader, Some(path), options))
    }

    /// A database in memory.
    pub fn in_memory(options: &Options, observers: &Observers, redaction: &Redaction) -> Result<Self> {
        let conn = open::in_memory(options)?;
        let writer = Writer::new(conn, options, observers.clone(), redaction.clone());
        Ok(Self::new(Some(writer), Reader::in_memory(), None, options))
    }

    fn new(writer: Option<Writer>, reader: Reader, file: Option<PathBuf>, options: &Options) -> Self {
        Self {
            writer: writer.map(Arc::new),
            reader,
            live: Live::new(file.clone()),
            joined: Mutex::default(),
            patience: options.patience,
            reads_at_once: file.is_some() && !options.keep_journal_mode,
            file,
        }
    }

    /// The file the jobs are in; `None` for jobs in memory.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What writes the file. Read-only means that there is no writer.
    pub fn writer(&self) -> Result<&Arc<Writer>> {
        self.writer.as_ref().ok_or_else(|| {
            let message = "nothing was written: the file was opened with KilnBuilder::read_only; open it without";
            Error::new(Kind::Unusable, message)
        })
    }

    /// Calls a function in a turn, and returns its result once that is committed. It may be called again after a rollback.
    pub fn call<T: Send + 'static>(
        &self,
        need: Need,
        function: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write(need, Call::new(function)).map(Call::finish)
    }

    /// Runs an operation in a turn, and gives it back once that is committed.
    pub fn write<O: Operation + 'static>(&self, need: Need, operation: O) -> Result<O> {
        self.writer()?.write(need, operation)
    }

    /// Reads what is committed. `query` may run more than once.
    pub fn read<T>(&self, query: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        match self.reader.read(&query) {
            Some(result) => result,
            None => self.writer()?.with(|conn| self.reader.read_on(conn, &query)),
        }
    }

    /// Runs a turn for what the runtimes here want, unless another thread does.
    pub fn turn(&self) {
        self.writer.iter().for_each(|writer| writer.turn());
    }

    /// Waits until something was committed here since `seen`, which an earlier call returned; at most until `until`.
    pub fn wait(&self, seen: u64, until: Instant) -> u64 {
        match &self.writer {
            Some(writer) => writer.wait(seen, until),
            None => {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                seen
            }
        }
    }

    /// Whether this kiln may still write the file; the error says why not. Another program may have taken the file over.
    pub fn is_understood(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        self.read(|conn| writer.permission.check_now(conn))
    }

    /// A number that changes when another process has written.
    pub fn version(&self) -> Result<i64> {
        if self.file.is_none() {
            return Ok(0);
        }
        // Asked on the connection that writes, which does not count what it wrote itself.
        self.writer()?.with(|conn| connection::pragma(conn, "data_version")).map_err(failed)
    }

    /// Another connection of this process is about to commit this: the runtimes here look for it, and others.
    pub fn announce_soon(&self, notice: Notice) {
        let Some(writer) = &self.writer else { return };
        let notice = Notice { expected: true, ..notice };
        writer.mailboxes().iter().for_each(|mailbox| mailbox.notify(&notice));
        if self.reads_at_once {
            // Not by the connection that writes: it may wait for the very commit that is expected. If this fails, others
            // find the job with their next look.
            let _ = self.read(|conn| {
                writer.peers.tell(&notice, || peers(conn));
                Ok(())
            });
        }
    }

    /// Takes the lock that says that a runtime lives. Returns its sidecar; `None` for jobs in memory.
    pub fn enter(&self, id: &str, rules: Rules) -> Result<Option<Arc<Sidecar>>> {
        self.writer()?;
        self.live.enter(id, rules)
    }

    /// Makes a runtime known on the file, and lets it take part in every turn from here on.
    pub fn join(&self, mailbox: &Arc<Mailbox>) -> Result<()> {
        let writer = self.writer()?;
        let runtime = &mailbox.runtime;
        let membership = Suspects::of_process().enter(self.file(), mailbox.sidecar.clone());
        // An error here is one of the database, and the next start sweeps as well.
        let named = self.named();
        named.iter().for_each(|named| self.live.sweep(named));
        let bell = self.file().and_then(|_| hang(writer, mailbox));
        // The row to be written has the plans.
        mailbox.take_unannounced();
        let row = row(mailbox, bell.as_ref());
        let registered = self.call(Need::Ride, move |tx| runtimes::register(tx.conn, &row));
        let joined = registered.and_then(|()| {
            let applying = writer.applying.lock();
            mailbox.apply(&writer.with(queues::settings)?);
            writer.peers.is_here(&runtime.id);
            writer.attach(Arc::clone(mailbox));
            drop(applying);
            self.announce(mailbox)
        });
        self.joined.lock().insert(runtime.id.clone(), Joined { _membership: membership, bell });
        if joined.is_err() {
            mailbox.stop_claiming();
            let _ = self.retire(&runtime.id);
            mailbox.release_ready();
            self.turn();
            self.leave(&runtime.id);
        }
        joined
    }

    /// The first step of leaving: nobody rings the runtime from now on, and when this returns, every turn that it took part
    /// in so far has delivered.
    pub fn retire(&self, id: &str) -> Result<()> {
        let bell = self.joined.lock().get_mut(id).and_then(|joined| joined.bell.take());
        drop(bell);
        let id = id.to_owned();
        self.call(Need::Ride, move |tx| runtimes::forget(tx.conn, &id))
    }

    /// The second step: the runtime takes part in nothing any more, and counts as dead.
    pub fn leave(&self, id: &str) {
        self.writer().into_iter().for_each(|writer| writer.detach(id));
        let joined = self.joined.lock().remove(id);
        drop(joined);
        self.live.leave(id);
    }

    /// Sets something for the queues of all runtimes on the file. The runtimes here obey when this returns.
    pub fn set_queues(&self, queues: &Queues, control: Control, now: Timestamp) -> Result<()> {
        let queues = queues.clone();
        self.call(Need::Durable, move |tx| {
            tx.notice.queues_changed = true;
            queues::set(tx.conn, &queues, control, now.as_microsecond())
        })?;
        // It is set, whether the runtimes here can be told now or look by themselves within a minute.
        let _ = self.apply_queue_settings().or_else(|_| self.apply_queue_settings());
        Ok(())
    }

    /// What holds for the queues of all runtimes on the file.
    pub fn queue_settings(&self) -> Result<QueueSettings> {
        self.read(queues::settings)
    }

    /// Lets the runtimes here obey what holds for all runtimes on the file.
    pub fn apply_queue_settings(&self) -> Result<()> {
        let Some(writer) = self.writer().ok() else { return Ok(()) };
        // Read and applied in one go: a thread that reads later applies later.
        let applying = writer.applying.lock();
        let settings = writer.with(queues::settings)?;
        let mailboxes = writer.mailboxes();
        mailboxes.iter().for_each(|mailbox| mailbox.apply(&settings));
        drop(applying);
        writer.peers.look_again();
        let announced = mailboxes.iter().try_for_each(|mailbox| self.announce(mailbox));
        // What was given back is written, and what may be claimed again is claimed.
        writer.turn();
        announced
    }

    /// Writes how a runtime runs its queues now, if that changed.
    pub fn announce(&self, mailbox: &Arc<Mailbox>) -> Result<()> {
        let writer = self.writer()?;
        // A thread that finds nothing changed finds it written as well.
        let announcing = writer.announcing.lock();
        if !mailbox.take_unannounced() {
            return Ok(());
        }
        let (runtime, plans) = (mailbox.runtime.id.clone(), mailbox.plans());
        let announce = Call::new(move |tx: &mut Tx<'_>| {
            // Other processes learn which runtimes a new job concerns.
            tx.notice.queues_changed = true;
            runtimes::announce(tx.conn, &runtime, &plans)
        });
        let (announced, events) = writer.write_untold(Need::Ride, announce);
        if announced.is_err() {
            mailbox.set_unannounced();
        }
        drop(announcing);
        writer.tell(events);
        announced.map(Call::finish)
    }

    /// The runtimes that are named on the file: by their rows, and by the jobs that they execute.
    pub fn named(&self) -> Result<HashSet<String>> {
        self.read(|conn| {
            let owners = store::rescue::executing(conn)?.into_iter().map(|attempt| attempt.runtime);
            Ok(owners.chain(store::runtimes::list(conn)?.into_iter().map(|runtime| runtime.id)).collect())
        })
    }

    /// The executing attempts that somebody asked to cancel.
    pub fn cancelling(&self) -> Result<Vec<Fence>> {
        self.read(store::query::cancelling)
    }

    /// The cron entries, in the order of their names.
    pub fn crons(&self) -> Result<Vec<CronEntry>> {
        self.read(store::crons::list)
    }

    /// How the live runtimes on the file run these queues.
    pub fn check(&self, queues: &Queues) -> Result<Vec<QueueCheck>> {
        self.read(|conn| check(conn, queues, |id| self.live.is_dead(id)))
    }

    /// Copies the whole file, as it is now. Returns how many bytes the copy has.
    pub fn backup(&self, to: &Path, over: bool) -> Result<u64> {
        let to = copy::destination(self.file(), to, over)?;
        // The runtimes of the original are not those of the copy.
        let options = |patience| copy::CopyOptions { over, without: &["kiln_runtimes"], patience };
        match (self.file(), self.writer()) {
            (Some(file), Ok(_)) => {
                let conn = connection::read_only(file, self.patience)?;
                copy::snapshot(&conn, &to, &options(Some(self.patience)))
            }
            (None, Ok(writer)) => writer.with(|conn| copy::snapshot(conn, &to, &options(None))),
            (_, Err(_)) => self.read(|conn| copy::snapshot(conn, &to, &options(None))),
        }
    }

    /// Gives all unused space back.
    pub fn compact(&self) -> Result<Compacted> {
        let writer = self.writer()?;
        let (before, after) = match self.file() {
            // On a connection of its own: callers that write meanwhile wait as they do for another process.
            Some(file) => care::compact(&connection::spare(file)?, &file.display().to_string(), self.patience)?,
            None => writer.with(|conn| care::compact(conn, "memory", self.patience))?,
        };
        Ok(Compacted::new(before, after))
    }
}

/// The row by which others know a runtime.
fn row(mailbox: &Mailbox, bell: Option<&Bell>) -> RuntimeRow {
    let (plans, Member { id, node, workers, started_at, .. }) = (mailbox.plans(), &*mailbox.runtime);
    RuntimeRow {
        id: id.clone(),
        node: node.clone(),
        pid: std::process::id(),
        port: bell.map(|bell| bell.address.port),
        secret: bell.map(|bell| bell.address.secret.clone()),
        queues: plans.iter().map(|plan| plan.queue.clone()).collect(),
        workers: workers.clone(),
        started_at: *started_at,
        plans,
        lists: mailbox.sidecar.is_some(),
    }
}

/// Listens for other processes. Without a bell, the look at the file's version has to do.
fn hang(writer: &Arc<Writer>, mailbox: &Arc<Mailbox>) -> Option<Bell> {
    let (writer, heard) = (Arc::downgrade(writer), Arc::downgrade(mailbox));
    Bell::hang(&mailbox.runtime.id, move |notice| {
        if let (Some(writer), Some(mailbox)) = (writer.upgrade(), heard.upgrade()) {
            if notice.queues_changed {
                writer.peers.look_again();
                mailbox.alarm.ring(|wake| wake.queues = true);
            }
            mailbox.notify(&notice);
            writer.turn();
        }
    })
    .ok()
}
