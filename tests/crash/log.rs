//! What all processes wrote down, in the order in which it happened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln::Fence;

pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Self { path: path.to_owned(), file }
    }

    /// A kill may tear a line apart; it begins and ends such that nobody takes the rest for a line.
    fn line(&self, text: &str) {
        let line = format!("\n{text} {} .\n", micros());
        assert_eq!((&self.file).write(line.as_bytes()).unwrap(), line.len(), "a line is one write");
    }

    pub fn start(&self, fence: Fence) {
        let Fence { id, attempt, attempted_at, .. } = fence;
        self.line(&format!("start {id} {attempt} {attempted_at} {}", process::id()));
    }

    pub fn end(&self, fence: Fence, how: &str) {
        let Fence { id, attempt, attempted_at, .. } = fence;
        self.line(&format!("end {id} {attempt} {attempted_at} {} {how}", process::id()));
    }

    /// To be written once the attempt has stored a checkpoint.
    pub fn saved(&self, fence: Fence) {
        let Fence { id, attempt, attempted_at, .. } = fence;
        self.line(&format!("saved {id} {attempt} {attempted_at}"));
    }

    /// To be written before the kill: whatever comes later in the log may have come after the process's end.
    pub fn kill(&self, pid: u32) {
        self.line(&format!("kill {pid}"));
    }

    /// To be written once the process is gone.
    pub fn dead(&self, pid: u32) {
        self.line(&format!("dead {pid}"));
    }

    /// To be written once a runtime of this process has started.
    pub fn lives(&self) {
        self.line(&format!("lives {}", process::id()));
    }

    /// To be written before the enqueue.
    pub fn try_enqueue(&self, key: &str) {
        self.line(&format!("try {key}"));
    }

    /// To be written once the enqueue has returned.
    pub fn enqueued(&self, key: &str, id: i64) {
        self.line(&format!("enqueued {key} {id}"));
    }

    pub fn read(&self) -> Story {
        let text = fs::read(&self.path).unwrap();
        let mut story = Story::default();
        for (place, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            if let [verb, words @ .., micros, "."] = words.as_slice() {
                story.tell(verb, words, Moment { place, micros: micros.parse().unwrap() });
            }
        }
        story
    }
}

/// Microseconds since 1970: the one clock that all processes share.
#[expect(clippy::disallowed_methods, reason = "the clock of the test, not of kiln")]
pub fn micros() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The line in the log, which no clock can turn back.
    pub place: usize,
    pub micros: u64,
}

#[derive(Clone, Debug)]
pub struct Execution {
    pub id: i64,
    pub attempt: i64,
    pub attempted_at: i64,
    pub pid: u32,
    pub started: Moment,
    /// When it ended by itself, and how.
    pub ended: Option<(Moment, String)>,
    /// Whether it stored a checkpoint.
    pub saved: bool,
}

#[derive(Default)]
pub struct Story {
    /// In the order of their starts.
    pub executions: Vec<Execution>,
    pub kills: HashMap<u32, Moment>,
    pub dead: HashMap<u32, Moment>,
    /// Since when a runtime of this process lived.
    pub lives: HashMap<u32, Moment>,
    pub tried: HashSet<String>,
    pub enqueued: BTreeMap<String, (i64, Moment)>,
}

impl Story {
    fn tell(&mut self, verb: &str, words: &[&str], at: Moment) {
        match (verb, words) {
            ("start", [id, attempt, attempted_at, pid]) => self.executions.push(Execution {
                id: id.parse().unwrap(),
                attempt: attempt.parse().unwrap(),
                attempted_at: attempted_at.parse().unwrap(),
                pid: pid.parse().unwrap(),
                started: at,
                ended: None,
                saved: false,
            }),
            ("saved", [id, attempt, attempted_at]) => {
                let told = (id.parse(), attempt.parse(), attempted_at.parse());
                let mut executions = self.executions.iter_mut().rev();
                let saved = executions.find(|e| (Ok(e.id), Ok(e.attempt), Ok(e.attempted_at)) == told);
                saved.expect("what saves has begun").saved = true;
            }
            ("end", [id, attempt, attempted_at, pid, how]) => {
                let told = (id.parse(), attempt.parse(), attempted_at.parse(), pid.parse());
                let mut executions = self.executions.iter_mut().rev();
                let ended = executions.find(|e| (Ok(e.id), Ok(e.attempt), Ok(e.attempted_at), Ok(e.pid)) == told);
                ended.expect("what ends has begun").ended = Some((at, (*how).to_owned()));
            }
            ("kill", [pid]) => {
                self.kills.insert(pid.parse().unwrap(), at);
            }
            ("dead", [pid]) => drop(self.dead.insert(pid.parse().unwrap(), at)),
            ("lives", [pid]) => drop(self.lives.insert(pid.parse().unwrap(), at)),
            ("try", [key]) => assert!(self.tried.insert((*key).to_owned()), "a key is used once"),
            ("enqueued", [key, id]) => {
                self.enqueued.insert((*key).to_owned(), (id.parse().unwrap(), at));
            }
            other => panic!("a strange line: {other:?}"),
        }
    }

    pub fn of(&self, id: i64) -> Vec<&Execution> {
        self.executions.iter().filter(|execution| execution.id == id).collect()
    }

    /// How many of these executions of a job, in their order, went on or were done as their process was killed, so that
    /// the job may have come to another.
    pub fn kills_during(&self, executions: &[&Execution]) -> usize {
        let killed_before = |one: &Execution, next: &Execution| {
            let (Some(kill), Some(dead)) = (self.kills.get(&one.pid), self.dead.get(&one.pid)) else { return false };
            // It may have begun after the kill was written down, and before the process was gone.
            one.started.place < dead.place && kill.place < next.started.place
        };
        executions.windows(2).filter(|pair| killed_before(pair[0], pair[1])).count()
    }

    pub fn by_job(&self) -> BTreeMap<i64, Vec<&Execution>> {
        let mut jobs: BTreeMap<i64, Vec<&Execution>> = BTreeMap::new();
        self.executions.iter().for_each(|execution| jobs.entry(execution.id).or_default().push(execution));
        jobs
    }

    /// The line up to which an execution lasted for sure: a process killed is alive until the kill.
    fn lasted(&self, execution: &Execution) -> usize {
        match (&execution.ended, self.kills.get(&execution.pid)) {
            (Some((ended, _)), _) => ended.place,
            (None, Some(kill)) => kill.place.max(execution.started.place),
            (None, None) => usize::MAX,
        }
    }

    /// No two executions of a job at one time, no two with one fence, and attempts that count up. Only a snooze gives an
    /// attempt back, and a kill after a checkpoint.
    pub fn assert_orderly(&self) {
        let mut fences = HashSet::new();
        for execution in &self.executions {
            let fresh = fences.insert((execution.id, execution.attempted_at));
            assert!(fresh, "a fence was used twice: {execution:?}");
        }
        for executions in self.by_job().values() {
            for pair in executions.windows(2) {
                let [one, next] = [pair[0], pair[1]];
                assert!(self.lasted(one) < next.started.place, "two at a time: {one:?} and {next:?}");
                let snoozed = matches!(&one.ended, Some((_, how)) if how == "snooze");
                let resumes = one.saved && self.kills.contains_key(&one.pid);
                let least = if snoozed || resumes { one.attempt } else { one.attempt + 1 };
                assert!(next.attempt >= least, "attempts count up: {one:?} and {next:?}");
            }
        }
    }
}
