//! Another process: how the test starts, orders and kills it, and what it does itself.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::folder::{FOLDER, Folder};
use crate::poison::Manner;
use crate::workers;
use crate::{kills, poison, together};

const ROLE: &str = "KILN_CRASH_ROLE";

/// The queue of [`Role::Loner`].
pub const LONELY: &str = "lonely";

/// What a child has to do.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Runs a runtime with so many threads until it is told to stop.
    Worker { threads: usize },
    /// The same on a queue that nobody else runs.
    Loner { threads: usize },
    /// Enqueues moody jobs drawn from a seed until it is killed.
    Enqueuer { seed: u64 },
    /// Runs runtimes with the default `max_crashes` until it is told to stop: for the tests in [`poison`].
    Poisoned(Manner),
    /// Enqueues so many jobs and runs a runtime at the same time, until it is told to stop.
    Both { jobs: usize },
}

pub struct Child {
    process: process::Child,
    orders: ChildStdin,
    said: Receiver<String>,
}

impl Child {
    pub fn start(folder: &Folder, role: Role) -> Child {
        let (name, number) = match role {
            Role::Worker { threads } => ("worker", threads as u64),
            Role::Loner { threads } => (LONELY, threads as u64),
            Role::Enqueuer { seed } => ("enqueuer", seed),
            Role::Both { jobs } => ("both", jobs as u64),
            Role::Poisoned(manner) => ("poisoned", manner as u64),
        };
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{name} {number}"))
            .env(FOLDER, folder.path())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (heard, said) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(word) = line.strip_prefix('@') {
                    let _ = heard.send(word.to_owned());
                }
            }
        });
        Child { process, orders, said }
    }

    pub fn worker(folder: &Folder, threads: usize) -> Child {
        Child::start(folder, Role::Worker { threads })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line of the child that begins so; the rest of it.
    pub fn says(&self, word: &str) -> String {
        loop {
            let line = self.said.recv_timeout(Duration::from_secs(60)).expect(word);
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub fn lives(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Kills it with no chance to do anything about it.
    pub fn kill(mut self, folder: &Folder) {
        assert!(self.lives(), "it lives until it is killed");
        folder.log().kill(self.pid());
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        folder.log().dead(self.pid());
    }

    /// Waits until it ends by itself.
    pub fn exit(&mut self) -> ExitStatus {
        crate::folder::wait_for("the child's end", || self.process.try_wait().unwrap())
    }

    /// Waits until a job has taken it down.
    pub fn dies(&mut self, folder: &Folder) {
        assert!(!self.exit().success());
        // The kill came before, and nobody could write it down.
        folder.log().kill(self.pid());
        folder.log().dead(self.pid());
    }

    /// Sends a signal that is not its end: STOP, CONT.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

/// Whatever becomes of the test, nobody is left behind.
impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says a line to the parent. The test harness writes to the same stream, and does not end its lines.
pub fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n@{word}\n").unwrap();
    out.flush().unwrap();
}

/// Orders from the parent. Without a parent there is nothing to live for.
fn orders() -> Receiver<String> {
    let (given, orders) = mpsc::channel();
    thread::spawn(move || {
        for order in std::io::stdin().lines().map_while(Result::ok) {
            let _ = given.send(order);
        }
        process::exit(0);
    });
    orders
}

pub fn play() {
    let Ok(role) = env::var(ROLE) else { return };
    let (name, number) = role.split_once(' ').unwrap();
    let number: u64 = number.parse().unwrap();
    let folder = Folder::inherited();
    let orders = orders();
    match name {
        "worker" => work(&folder, &orders, "default", number as usize),
        LONELY => work(&folder, &orders, LONELY, number as usize),
        "enqueuer" => kills::enqueue(&folder, number),
        "both" => together::both(&folder, &orders, number as usize),
        "poisoned" => poison::work(&folder, &orders, number),
        other => panic!("no such role: {other}"),
    }
}

fn work(folder: &Folder, orders: &Receiver<String>, queue: &str, threads: usize) {
    let kiln = folder.kiln();
    let runtime = workers::runtime_of(&kiln, folder, queue, threads).start().unwrap();
    folder.log().lives();
    say("started");
    assert_eq!(orders.recv().unwrap(), "stop");
    let report = runtime.stop();
    say(&format!("stopped {} {} {} {}", report.finished, report.returned, report.cut, report.unwritten));
}
