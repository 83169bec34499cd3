//! Wakes the runtimes of other processes: a datagram on the loopback interface, which costs nothing while nobody rings.
//!
//! A ring is a hint. The rows are the truth: a lost ring delays a look at them, a false one causes a look in vain. A
//! runtime ignores a datagram without its secret. The secret stands in its row, so only processes that may read the
//! database can ring.

use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::Notice;

/// A longer datagram may be lost on its way: such a notice is told in fewer words.
const LONGEST: usize = 1200;

/// No datagram is longer. Some systems treat a datagram that is longer than the buffer as an error.
const BUFFER: usize = 65_536;

/// The most datagrams that are taken together.
const AT_ONCE: usize = 64;

/// After so many errors without a datagram between them, the listener pauses before each next attempt.
const ERRORS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// For how long a listener is asked to stop, and how often.
const STOPS: u32 = 1000;
const STOP: Duration = Duration::from_millis(2);

#[derive(Serialize, Deserialize)]
struct Datagram<'a> {
    /// The id of the runtime that is rung. A port may belong to another runtime by now.
    to: Cow<'a, str>,
    secret: Cow<'a, str>,
    notice: Cow<'a, Notice>,
}

/// Where a runtime is rung.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub id: String,
    pub port: u16,
    /// What a datagram to this runtime must contain.
    pub secret: String,
}

/// Listens for rings until it is dropped.
pub(crate) struct Bell {
    pub address: Address,
    stopping: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Bell {
    /// Starts to listen for rings to the runtime with this id.
    pub fn hang(id: &str, heard: impl Fn(Notice) + Send + 'static) -> io::Result<Bell> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = Address { id: id.to_owned(), port: socket.local_addr()?.port(), secret: random_secret()? };
        let (stopping, buffer) = (Arc::new(AtomicBool::new(false)), vec![0; BUFFER]);
        let listener = Listener { socket, buffer, address: address.clone(), stopping: Arc::clone(&stopping) };
        let listener = thread::Builder::new().name("kiln-bell".into()).spawn(move || listener.listen(heard))?;
        Ok(Bell { address, stopping, listener: Some(listener) })
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let Some(listener) = self.listener.take() else { return };
        // The listener cannot wait for itself.
        if listener.thread().id() == thread::current().id() {
            return;
        }
        let ringer = Ringer::new();
        for _ in 0..STOPS {
            ringer.iter().for_each(|ringer| ringer.ring(&self.address, &Notice::default()));
            thread::sleep(STOP);
            if listener.is_finished() {
                let _ = listener.join();
                return;
            }
        }
        // A listener that no datagram reaches is left to the end of the process.
    }
}

/// 32 hexadecimal digits from the system: no other process can guess them.
fn random_secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

struct Listener {
    socket: UdpSocket,
    buffer: Vec<u8>,
    address: Address,
    stopping: Arc<AtomicBool>,
}

impl Listener {
    fn listen(mut self, heard: impl Fn(Notice)) {
        let mut errors = 0;
        while !self.stopping.load(Ordering::Acquire) {
            match self.hear() {
                Ok(Some(notice)) if !self.stopping.load(Ordering::Acquire) => {
                    errors = 0;
                    heard(notice);
                }
                Ok(_) => errors = 0,
                // Some systems report here what became of an earlier datagram. No error ends the listener, but a broken socket
                // must not keep a processor busy.
                Err(_) if errors < ERRORS => errors += 1,
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Waits for a datagram, and takes others that came along with it. `None` if none of them is a ring to this runtime.
    fn hear(&mut self) -> io::Result<Option<Notice>> {
        let mut all: Option<Notice> = None;
        self.socket.set_nonblocking(false)?;
        for _ in 0..AT_ONCE {
            match self.socket.recv(&mut self.buffer) {
                Ok(length) => {
                    let notice = self.read(&self.buffer[..length]);
                    notice.into_iter().for_each(|notice| all.get_or_insert_default().merge(notice));
                }
                Err(error) if all.is_none() && error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => break,
            }
            if self.socket.set_nonblocking(true).is_err() {
                break;
            }
        }
        Ok(all)
    }

    fn read(&self, bytes: &[u8]) -> Option<Notice> {
        if bytes.len() > LONGEST {
            return None;
        }
        let datagram: Datagram<'_> = serde_json::from_slice(bytes).ok()?;
        // Nothing is answered, so nobody can measure how long this takes to tell a wrong secret.
        let Address { id, secret, .. } = &self.address;
        (datagram.to == *id && datagram.secret == *secret).then(|| datagram.notice.into_owned())
    }
}

/// Rings runtimes of other processes.
pub(crate) struct Ringer(UdpSocket);

impl Ringer {
    pub fn new() -> Option<Ringer> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Ringer(socket))
    }

    /// Rings a runtime. It may not hear it.
    pub fn ring(&self, to: &Address, notice: &Notice) {
        let text = |notice: Cow<'_, Notice>| {
            let (id, secret) = (to.id.as_str().into(), to.secret.as_str().into());
            serde_json::to_vec(&Datagram { to: id, secret, notice }).unwrap_or_default()
        };
        let mut bytes = text(Cow::Borrowed(notice));
        if bytes.len() > LONGEST {
            bytes = text(Cow::Owned(in_few_words(notice)));
        }
        let _ = self.0.send_to(&bytes, (Ipv4Addr::LOCALHOST, to.port));
    }
}

/// A notice that concerns any queue, and any job that somebody asked to cancel.
fn in_few_words(notice: &Notice) -> Notice {
    Notice { all_queues: true, queues: Vec::new(), cancelling: vec![0], ..notice.clone() }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::Receiver;

    use super::*;

    const ID: &str = "0123456789abcdef";

    fn bell() -> (Bell, Receiver<Notice>) {
        let (heard, rings) = crossbeam_channel::unbounded();
        (Bell::hang(ID, move |notice| heard.send(notice).unwrap()).unwrap(), rings)
    }

    fn notice(queue: &str) -> Notice {
        Notice { queues: vec![queue.into()], due: Some(5), ..Notice::default() }
    }

    #[test]
    fn a_ring_is_heard_until_the_bell_is_dropped() {
        let (bell, rings) = bell();
        let ringer = Ringer::new().unwrap();
        ringer.ring(&bell.address, &notice("mailers"));
        assert_eq!(rings.recv(), Ok(notice("mailers")));
        drop(bell);
        assert!(rings.recv().is_err(), "the listener is gone");
    }

    #[test]
    fn a_strange_datagram_is_ignored_and_ends_no_listener() {
        let (bell, rings) = bell();
        let ringer = Ringer::new().unwrap();
        let Address { port, secret, .. } = bell.address.clone();
        let to = |id: &str, secret: &str| Address { id: id.to_owned(), port, secret: secret.to_owned() };
        let right = |notice| Datagram { to: ID.into(), secret: secret.as_str().into(), notice: Cow::Owned(notice) };
        let right = serde_json::to_vec(&right(notice("padded"))).unwrap();
        let padded = |length: usize| right.iter().copied().chain(std::iter::repeat(b' ')).take(length).collect();
        let strange: [Vec<u8>; 7] = [
            Vec::new(),
            b"\xff not ours".into(),
            b"{}".into(),
            serde_json::to_vec(&notice("without an address")).unwrap(),
            right[..right.len() - 1].into(),
            padded(LONGEST + 1),
            padded(60_000),
        ];
        for bytes in &strange {
            ringer.0.send_to(bytes, (Ipv4Addr::LOCALHOST, port)).unwrap();
        }
        ringer.ring(&to(ID, ""), &notice("no secret"));
        ringer.ring(&to(ID, &secret[1..]), &notice("a part of the secret"));
        ringer.ring(&to(ID, &random_secret().unwrap()), &notice("a wrong secret"));
        ringer.ring(&to("another", &secret), &notice("to another runtime"));
        ringer.ring(&bell.address, &notice("the end"));
        assert_eq!(rings.recv(), Ok(notice("the end")));
        drop(bell);
        assert!(rings.recv().is_err());
    }

    #[test]
    fn many_datagrams_are_heard_together_but_not_without_an_end() {
        let (bell, rings) = bell();
        let ringer = Ringer::new().unwrap();
        let rung: Vec<String> = (0..AT_ONCE + 10).map(|n| format!("queue {n}")).collect();
        rung.iter().for_each(|queue| ringer.ring(&bell.address, &notice(queue)));
        let mut heard = Vec::new();
        while heard.len() < rung.len() {
            let queues = rings.recv().unwrap().queues;
            assert!(queues.len() <= AT_ONCE);
            heard.extend(queues);
        }
        assert_eq!(heard, rung);
    }

    #[test]
    fn a_long_notice_is_told_in_few_words() {
        let (bell, rings) = bell();
        let queues = (0..500).map(|n| format!("queue {n}")).collect();
        let notice = Notice { queues, ..Notice::default() };
        Ringer::new().unwrap().ring(&bell.address, &notice);
        assert!(rings.recv().unwrap().all_queues);
    }

    #[test]
    fn an_error_ends_no_listener() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = bind();
        let at = socket.local_addr().unwrap();
        // A connected socket is told on its next call that nobody listens at the other end.
        socket.connect(bind().local_addr().unwrap()).unwrap();
        let sender = socket.try_clone().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let listener = Listener {
            socket,
            buffer: vec![0; BUFFER],
            address: Address { id: ID.to_owned(), port: at.port(), secret: "secret".to_owned() },
            stopping: Arc::clone(&stopping),
        };
        let (heard, rings) = crossbeam_channel::unbounded();
        let listener = thread::spawn(move || listener.listen(move |notice| heard.send(notice).unwrap()));
        for _ in 0..2 * ERRORS {
            let _ = sender.send(b"in vain");
            thread::sleep(Duration::from_millis(5));
            assert!(!listener.is_finished());
        }
        let other = bind();
        sender.connect(other.local_addr().unwrap()).unwrap();
        let datagram = Datagram { to: ID.into(), secret: "secret".into(), notice: Cow::Owned(notice("heard")) };
        other.send_to(&serde_json::to_vec(&datagram).unwrap(), at).unwrap();
        assert_eq!(rings.recv(), Ok(notice("heard")));
        stopping.store(true, Ordering::Release);
        other.send_to(b"stop", at).unwrap();
        listener.join().unwrap();
    }

    #[test]
    fn secrets_differ() {
        let secrets: std::collections::HashSet<String> = (0..100).map(|_| random_secret().unwrap()).collect();
        assert!(secrets.len() == 100 && secrets.iter().all(|secret| secret.len() == 32));
    }
}
