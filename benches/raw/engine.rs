//! A thread that owns the writes: it inserts, acks and fetches in one transaction, for threads of this process and,
//! woken by datagrams, for other processes.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Fetched, Slot, Sync, ack, args, begin, fetch, insert, open};
use crate::measure::{Run, Stamps, pace};

enum Message {
    Insert(String, Arc<Slot>),
    Look,
    Stop,
}

type Handler = Arc<dyn Fn(u64) + Send + std::marker::Sync>;

/// The writer thread and its eight workers.
pub struct Engine {
    to: Sender<Message>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and its threads share.
#[derive(Default)]
struct Desk {
    todo: Mutex<Vec<Option<Fetched>>>,
    more: Condvar,
    done: Mutex<Vec<i64>>,
}

impl Desk {
    /// Works until it is handed nothing.
    fn work(&self, handler: &Handler, finished: impl Fn()) {
        loop {
            let mut todo = self.todo.lock().expect("a lock");
            let job = loop {
                match todo.pop() {
                    Some(Some(job)) => break job,
                    Some(None) => return,
                    None => todo = self.more.wait(todo).expect("a lock"),
                }
            };
            drop(todo);
            handler(job.handle().n);
            self.done.lock().expect("a lock").push(job.id);
            finished();
        }
    }

    fn hand_out(&self, jobs: impl Iterator<Item = Option<Fetched>>) {
        let mut todo = self.todo.lock().expect("a lock");
        let before = todo.len();
        todo.extend(jobs);
        todo[before..].reverse();
        let count = todo.len() - before;
        drop(todo);
        (0..count).for_each(|_| self.more.notify_one());
    }

    fn done(&self) -> Vec<i64> {
        std::mem::take(&mut self.done.lock().expect("a lock"))
    }
}

impl Engine {
    pub fn start(path: &Path, sync: Sync, handler: impl Fn(u64) + Send + std::marker::Sync + 'static) -> Engine {
        let (to, from) = channel();
        let (path, handler, back) = (path.to_owned(), Arc::new(handler) as Handler, to.clone());
        let writer = thread::spawn(move || write(&path, sync, &handler, &from, &back));
        Engine { to, writer: Some(writer) }
    }

    fn enqueue(&self, args: String, slot: &Arc<Slot>) {
        self.to.send(Message::Insert(args, Arc::clone(slot))).expect("the writer");
        slot.wait();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.to.send(Message::Stop);
        self.writer.take().map(JoinHandle::join);
    }
}

const THREADS: usize = 8;

fn write(path: &Path, sync: Sync, handler: &Handler, from: &Receiver<Message>, back: &Sender<Message>) {
    let mut conn = open(path, sync);
    let desk = Arc::new(Desk::default());
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (desk, handler, back) = (Arc::clone(&desk), Arc::clone(handler), back.clone());
            thread::spawn(move || desk.work(&handler, || _ = back.send(Message::Look)))
        })
        .collect();
    let mut claimed = 0;
    let mut stop = false;
    while !stop {
        // Rows of programs that say nothing are looked for now and then.
        let first = match from.recv_timeout(Duration::from_secs(1)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => Message::Look,
            Err(RecvTimeoutError::Disconnected) => Message::Stop,
        };
        let mut callers = Vec::new();
        for message in std::iter::once(first).chain(from.try_iter()) {
            match message {
                Message::Insert(args, slot) => callers.push((args, slot)),
                Message::Look => {}
                Message::Stop => stop = true,
            }
        }
        let done = desk.done();
        let tx = begin(&mut conn);
        for (args, _) in &callers {
            insert(&tx, args);
        }
        ack(&tx, &done);
        claimed -= done.len();
        let jobs = fetch(&tx, THREADS * 2 - claimed);
        // One that wrote nothing costs nothing.
        tx.commit().expect("a commit");
        claimed += jobs.len();
        desk.hand_out(jobs.into_iter().map(Some));
        callers.iter().for_each(|(_, slot)| slot.answer());
    }
    desk.hand_out((0..THREADS).map(|_| None));
    threads.into_iter().for_each(|thread| thread.join().expect("a worker"));
}

/// From the call of each enqueue to the start of its handler.
pub fn steady(path: &Path, sync: Sync, rate: u64, jobs: u64) -> Run {
    let stamps = Stamps::new(jobs);
    let begins = Arc::clone(&stamps);
    let engine = Engine::start(path, sync, move |n| begins.begin(n));
    thread::sleep(Duration::from_millis(100));
    let slot = Slot::new();
    pace(rate, jobs, |n| {
        stamps.call(n);
        engine.enqueue(args(n), &slot);
    });
    stamps.run()
}

/// The same without a thread that owns the writes: who enqueues also acks, fetches, and hands the job to a thread.
pub fn steady_direct(path: &Path, sync: Sync, rate: u64, jobs: u64) -> Run {
    let stamps = Stamps::new(jobs);
    let begins = Arc::clone(&stamps);
    let handler = Arc::new(move |n| begins.begin(n)) as Handler;
    let mut conn = open(path, sync);
    let desk = Desk::default();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| desk.work(&handler, || {}));
        }
        thread::sleep(Duration::from_millis(100));
        pace(rate, jobs, |n| {
            stamps.call(n);
            let done = desk.done();
            let tx = begin(&mut conn);
            insert(&tx, &args(n));
            ack(&tx, &done);
            let jobs = fetch(&tx, THREADS);
            tx.commit().expect("a commit");
            desk.hand_out(jobs.into_iter().map(Some));
        });
        let run = stamps.run();
        desk.hand_out((0..THREADS).map(|_| None));
        run
    })
}

/// Works off what another process enqueues; it is told the port of a socket to ring.
pub fn work_for_another(
    path: &Path,
    sync: Sync,
    handler: impl Fn(u64) + Send + std::marker::Sync + 'static,
    tell: impl FnOnce(u16),
) -> Engine {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let engine = Engine::start(path, sync, handler);
    let to = engine.to.clone();
    tell(socket.local_addr().expect("an address").port());
    thread::spawn(move || {
        let mut bytes = [0; 16];
        while socket.recv(&mut bytes).is_ok() && to.send(Message::Look).is_ok() {}
    });
    engine
}

/// Enqueues for another process, and rings.
pub fn enqueue_for_another(path: &Path, sync: Sync, port: u16, rate: u64, jobs: u64, mut call: impl FnMut(u64)) {
    let conn = open(path, sync);
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    socket.connect(("127.0.0.1", port)).expect("a socket");
    pace(rate, jobs, |n| {
        call(n);
        insert(&conn, &args(n));
        socket.send(b"w").expect("a datagram");
    });
}
