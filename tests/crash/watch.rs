//! How long the jobs of dead processes wait, as anybody sees it, and how much time the machine itself loses meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

use crate::folder::{Folder, node};
use crate::log::{Moment, Story, micros};

/// What is promised of a rescue, in microseconds.
const PROMISED: u64 = 1_000_000;

/// So long it rests between two looks.
const REST: Duration = Duration::from_millis(5);

/// Looks at the file again and again, on a thread of its own, until it is asked what it saw.
pub struct Watch {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

/// One look, from the end of the one before: what a rescue consists of, a rest, a look at the rows and a turn with the
/// write lock. What it took longer than the rest is lost to the machine, or to those who had the lock.
struct Look {
    from: u64,
    to: u64,
    lost: u64,
    /// The nodes that jobs are executing on.
    executing: HashSet<String>,
}

impl Watch {
    pub fn start(folder: &Folder) -> Watch {
        let conn = folder.look();
        let done = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let done = Arc::clone(&done);
            move || {
                let mut looks = Vec::new();
                let mut from = micros();
                while !done.load(Ordering::Relaxed) {
                    let look = look(&conn, from);
                    from = look.to;
                    looks.push(look);
                }
                looks
            }
        });
        Watch { done, thread }
    }

    pub fn end(self) -> Seen {
        self.done.store(true, Ordering::Relaxed);
        Seen(self.thread.join().unwrap())
    }
}

fn look(conn: &Connection, from: u64) -> Look {
    thread::sleep(REST);
    conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
    let sql =
        "SELECT DISTINCT attempted_by ->> 0 FROM kiln_jobs INDEXED BY kiln_jobs_executing WHERE state = 'executing'";
    let mut select = conn.prepare_cached(sql).unwrap();
    let executing = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let to = micros();
    let lost = to.saturating_sub(from).saturating_sub(REST.as_micros() as u64);
    Look { from, to, lost, executing }
}

pub struct Seen(Vec<Look>);

/// How long a runtime lived beside the jobs of a dead process, and how much of that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    pub micros: u64,
    pub lost: u64,
}

impl Seen {
    /// When the jobs of a process were seen to be rescued: the end of the first look, of those begun after its end, that
    /// finds none of them.
    fn rescued(&self, pid: u32, dead: Moment) -> u64 {
        let node = node(pid);
        let looks = &self.0[self.0.partition_point(|look| look.from < dead.micros)..];
        looks.iter().find(|look| !look.executing.contains(&node)).expect("all are rescued in the end").to
    }

    /// What was lost in the looks that have a part in this time.
    fn lost(&self, from: u64, to: u64) -> u64 {
        let looks = &self.0[self.0.partition_point(|look| look.to <= from)..];
        looks.iter().take_while(|look| look.from < to).map(|look| look.lost).sum()
    }

    /// For each job that a kill cut off, how long it was from the end of its process to the next start of the job, in
    /// microseconds.
    ///
    /// # Panics
    ///
    /// If a job did not run again, or waited for longer than promised, not counting what the machine lost meanwhile. So
    /// a runtime must have lived beside the process that was killed, with a free thread for each of its jobs.
    pub fn waits_to_run_again(&self, story: &Story) -> Vec<u64> {
        let mut waits = Vec::new();
        for cut in story.executions.iter().filter(|execution| execution.ended.is_none()) {
            let Some(&dead) = story.dead.get(&cut.pid) else { continue };
            let next = story.of(cut.id).into_iter().find(|next| next.started.place > cut.started.place);
            let next = next.unwrap_or_else(|| panic!("{cut:?} was cut off, and the job never ran again"));
            let wait = next.started.micros.saturating_sub(dead.micros);
            let lost = self.lost(dead.micros, next.started.micros);
            assert!(wait <= PROMISED + lost, "{wait} µs from the end of {cut:?} to {next:?}, {lost} of them lost");
            waits.push(wait);
        }
        waits
    }

    /// The most that was lost at once.
    pub fn worst(&self) -> u64 {
        self.0.iter().map(|look| look.lost).max().unwrap_or(0)
    }

    /// For each process that died with jobs executing the longest time that one and the same runtime lived on the file
    /// before they were rescued.
    ///
    /// # Panics
    ///
    /// Where that is longer than promised, not counting what the machine lost meanwhile.
    pub fn waits(&self, story: &Story) -> BTreeMap<u32, Wait> {
        let mut waits = BTreeMap::new();
        for (&pid, &dead) in &story.dead {
            let node = node(pid);
            // The last look before, and those that saw its end.
            let before = self.0.partition_point(|look| look.to <= story.kills[&pid].micros).saturating_sub(1);
            let mut about = self.0[before..].iter().take_while(|look| look.from <= dead.micros);
            if !about.any(|look| look.executing.contains(&node)) {
                continue;
            }
            let rescued = self.rescued(pid, dead);
            let mut longest = Wait { micros: 0, lost: 0 };
            for (other, lives) in story.lives.iter().filter(|(other, _)| **other != pid) {
                let killed = story.kills.get(other).map_or(u64::MAX, |kill| kill.micros);
                let (from, to) = (dead.micros.max(lives.micros), rescued.min(killed));
                if from < to {
                    let wait = Wait { micros: to - from, lost: self.lost(from, to) };
                    assert!(
                        wait.micros <= PROMISED + wait.lost,
                        "process {other} lived beside the jobs of {pid} for {wait:?}, in microseconds"
                    );
                    longest = longest.max(wait);
                }
            }
            waits.insert(pid, longest);
        }
        waits
    }
}
