//! A wake-up from another process: a datagram on the loopback interface, which costs nothing while nobody rings.
//!
//! A ring is a hint and nothing more: the table is the truth, a lost ring costs at most one look at it, and a false
//! one is a look in vain.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::engine::News;

/// More than a datagram carries for sure is not worth saying in detail.
const LONGEST: usize = 1200;

/// Hears rings until it is dropped.
pub(crate) struct Bell {
    port: u16,
    stopping: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Bell {
    pub fn hang(heard: impl Fn(News) + Send + 'static) -> io::Result<Bell> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = socket.local_addr()?.port();
        let stopping = Arc::new(AtomicBool::new(false));
        let listener = thread::Builder::new().name("kiln-bell".into()).spawn({
            let stopping = Arc::clone(&stopping);
            move || {
                while let Ok(news) = hear(&socket) {
                    if stopping.load(Ordering::Acquire) {
                        return;
                    }
                    heard(news);
                }
            }
        })?;
        Ok(Bell { port, stopping, listener: Some(listener) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let rung = Ringer::new().is_some_and(|ringer| ringer.ring(self.port, &News::default()));
        // A listener that cannot be woken is left to the end of the process; one that drops itself cannot be joined.
        if let Some(listener) = self.listener.take()
            && rung
            && listener.thread().id() != thread::current().id()
        {
            let _ = listener.join();
        }
    }
}

/// Waits for a ring, and takes those that came along with it.
fn hear(socket: &UdpSocket) -> io::Result<News> {
    let mut buffer = [0; LONGEST + 1];
    let mut news = News::default();
    socket.set_nonblocking(false)?;
    loop {
        match socket.recv(&mut buffer) {
            // What is no news of ours rings for nobody.
            Ok(length) => news.add(serde_json::from_slice(&buffer[..length]).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(news),
            // Some systems report here that somebody we rang is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        }
        socket.set_nonblocking(true)?;
    }
}

/// Rings others.
pub(crate) struct Ringer(UdpSocket);

impl Ringer {
    pub fn new() -> Option<Ringer> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Ringer(socket))
    }

    pub fn ring(&self, port: u16, news: &News) -> bool {
        let text = serde_json::to_vec(news).unwrap_or_default();
        let text = if text.len() > LONGEST { everything(news) } else { text };
        self.0.send_to(&text, (Ipv4Addr::LOCALHOST, port)).is_ok()
    }
}

/// The same, in few words.
fn everything(news: &News) -> Vec<u8> {
    let news = News { all_queues: true, queues: Vec::new(), cancelling: vec![0], ..news.clone() };
    serde_json::to_vec(&news).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_heard_and_a_strange_datagram_is_not() {
        let (heard, rings) = crossbeam_channel::unbounded();
        let bell = Bell::hang(move |news| heard.send(news).unwrap()).unwrap();
        let ringer = Ringer::new().unwrap();
        ringer.0.send_to(b"\xff not ours", (Ipv4Addr::LOCALHOST, bell.port())).unwrap();
        let news = News { queues: vec!["mailers".into()], due: Some(5), ..News::default() };
        assert!(ringer.ring(bell.port(), &news));
        let all = rings.iter().find(|heard| !heard.is_empty()).unwrap();
        assert_eq!(all, news);
        drop(bell);
        assert!(rings.iter().next().is_none(), "the listener is gone");
    }

    #[test]
    fn a_long_story_is_told_in_few_words() {
        let (heard, rings) = crossbeam_channel::unbounded();
        let bell = Bell::hang(move |news| heard.send(news).unwrap()).unwrap();
        let queues = (0..500).map(|n| format!("queue {n}")).collect();
        Ringer::new().unwrap().ring(bell.port(), &News { queues, ..News::default() });
        assert!(rings.recv().unwrap().all_queues);
    }
}
