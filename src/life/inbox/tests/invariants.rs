//! The two invariants of an inbox, and what nobody may lose, in random order.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use fastrand::Rng;

use super::*;
use crate::presence::{Remains, Rules};

/// How many jobs an inbox holds or waits for. Checks the second invariant.
fn held(state: &State) -> usize {
    let State { idle, woken, threads, alive, executing, .. } = state;
    assert!(idle + woken + executing.len() <= *threads, "{idle} + {woken} + {} > {threads}", executing.len());
    assert!(threads <= alive);
    assert!(state.is_open() || state.ready.is_empty());
    state.claiming + state.ready.len() + executing.len()
}

/// Checks the first invariant, given how many jobs were held before: what was there before a pause or a smaller limit only
/// becomes less.
fn check(state: &State, before: usize) {
    let held = held(state);
    assert!(held <= state.allowance.max(before), "{held} are held, {before} before, {} may be", state.allowance);
}

/// One inbox, and the threads and claims that this test plays.
struct World {
    rng: Rng,
    inbox: Inbox,
    sidecar: tempfile::NamedTempFile,
    fresh: i64,
    claims: Vec<usize>,
    /// Threads that are about to ask for a job.
    coming: usize,
    executing: BTreeMap<i64, Task>,
    /// What was given back or has ended, and is not committed yet.
    uncommitted: Vec<Task>,
    put: usize,
    gone: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let sidecar = tempfile::NamedTempFile::new().unwrap();
        let rules = Rules { max_crashes: 3, window: LONG };
        let inbox = Inbox::new("q", 10 * MS, Some(Sidecar::create(sidecar.path(), rules).unwrap()));
        Self {
            rng: Rng::with_seed(seed),
            inbox,
            sidecar,
            fresh: 1,
            claims: Vec::new(),
            coming: 0,
            executing: BTreeMap::new(),
            uncommitted: Vec::new(),
            put: 0,
            gone: 0,
        }
    }

    fn give_back(&mut self, tasks: Vec<Task>) {
        self.gone += tasks.len();
        self.uncommitted.extend(tasks);
    }

    fn begin(&mut self, task: Task) {
        let state = self.inbox.state.lock();
        assert!(state.is_open() && state.executing.len() <= state.limit, "it may begin");
        drop(state);
        let id = task.fence().id;
        assert!(task.listed.is_some());
        let listed = Remains::read(self.sidecar.path()).unwrap();
        assert!(listed.begun.contains_key(&(id, 7 * id)), "{id} begins and is not listed");
        assert!(self.executing.insert(id, task).is_none(), "no job begins twice");
    }

    fn claim(&mut self) {
        if self.rng.bool() {
            self.inbox.ring();
        }
        let mut held = HashSet::new();
        if let Some(demand) = self.inbox.demand(&mut held) {
            assert!(demand.slots <= demand.limit);
            assert_eq!(held, self.executing.keys().copied().collect::<HashSet<i64>>());
            self.claims.push(demand.limit);
        }
    }

    fn deliver(&mut self) {
        let Some(demanded) = self.claims.pop() else { return };
        if self.rng.u8(..8) == 0 {
            return self.inbox.take_back(demanded);
        }
        let found = self.rng.usize(..=demanded);
        let claimed = claimed(self.fresh..self.fresh + found as i64);
        self.fresh += found as i64;
        self.put += found;
        let put = self.inbox.put(demanded, claimed, self.rng.bool());
        self.give_back(put.refused);
    }

    fn hire(&mut self) {
        let wanted = self.inbox.hire();
        let failed = if self.rng.u8(..4) == 0 { self.rng.usize(..=wanted) } else { 0 };
        if failed > 0 {
            self.inbox.not_hired(failed);
        }
        self.coming += wanted - failed;
    }

    /// A thread asks for a job, unless it would sleep.
    fn next(&mut self) {
        let state = self.inbox.state.lock();
        assert_eq!(state.coming(), self.coming);
        let sleeps = state.ready.is_empty() && !state.has_too_many_threads();
        drop(state);
        if self.coming == 0 || sleeps {
            return;
        }
        self.coming -= 1;
        match self.inbox.next() {
            Some(task) => self.begin(task),
            None => self.inbox.left(),
        }
    }

    fn end(&mut self) {
        let at = self.rng.usize(..self.executing.len().max(1));
        let Some(id) = self.executing.keys().nth(at).copied() else { return };
        self.uncommitted.extend(self.executing.remove(&id));
        self.gone += 1;
        if self.rng.u8(..20) == 0 {
            return self.inbox.write_off(id);
        }
        let took = if self.rng.u8(..30) == 0 { SLOW } else { QUICK };
        match self.inbox.done(id, took, Instant::now(), self.rng.u8(..4) == 0) {
            Some(task) => self.begin(task),
            None => self.coming += 1,
        }
    }

    fn step(&mut self) {
        let before = held(&self.inbox.state.lock());
        match self.rng.u8(..40) {
            0..6 => self.claim(),
            6..14 => self.deliver(),
            14..18 => self.hire(),
            18..26 => self.next(),
            26..35 => self.end(),
            35 => {
                let back = self.inbox.set(self.rng.usize(1..6), self.rng.u8(..3) == 0);
                self.give_back(back);
            }
            36 => {
                let back = self.inbox.stale(Instant::now() + SLOW, 20 * MS);
                self.give_back(back);
            }
            37 if self.rng.u8(..10) == 0 => {
                let back = self.inbox.clear();
                self.give_back(back);
            }
            _ => self.commit(),
        }
        self.check(before);
    }

    fn commit(&mut self) {
        let left = self.rng.usize(..=self.uncommitted.len());
        self.rng.shuffle(&mut self.uncommitted);
        self.uncommitted.truncate(left);
    }

    fn check(&self, before: usize) {
        let state = self.inbox.state.lock();
        check(&state, before);
        assert_eq!(state.executing.iter().copied().collect::<HashSet<i64>>(), self.executing.keys().copied().collect());
        assert_eq!(state.claiming, self.claims.iter().sum::<usize>());
        assert_eq!((state.idle, state.woken), (0, 0));
        assert_eq!(state.threads, self.coming + self.executing.len());
        assert_eq!(self.put, self.gone + state.ready.len() + self.executing.len(), "nothing is lost");
    }

    fn close(mut self) {
        let back = self.inbox.close();
        self.give_back(back);
        while self.inbox.hire() + self.claims.len() + self.coming + self.executing.len() > 0 {
            assert!(!self.inbox.is_over());
            self.deliver();
            self.end();
            self.next();
        }
        assert!(self.inbox.is_over());
        assert_eq!(self.put, self.gone);
    }
}

#[test]
fn whatever_happens_no_more_is_held_than_may_be_and_nothing_begins_unlisted_or_gets_lost() {
    let seed = fastrand::u64(..);
    let mut begun = 0;
    for seed in (0..20).chain([seed]) {
        println!("seed {seed}");
        let mut world = World::new(seed);
        (0..1000).for_each(|_| world.step());
        begun += world.gone;
        world.close();
    }
    assert!(begun > 1000, "{begun}");
}

/// A thread as a runtime has it.
fn work(inbox: &Inbox, ended: &mpsc::Sender<i64>) {
    let mut next = inbox.next();
    while let Some(task) = next {
        let id = task.fence().id;
        ended.send(id).unwrap();
        next = inbox.done(id, QUICK, Instant::now(), id % 7 == 0).or_else(|| inbox.next());
    }
    inbox.left();
}

#[test]
fn with_threads_of_its_own_each_job_ends_once_and_no_call_is_lost() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let inbox = Arc::new(inbox(3));
    let (ended, ends) = mpsc::channel();
    let mut threads = Vec::new();
    let mut todo: Vec<i64> = (1..=10_000).collect();
    let mut missing: HashSet<i64> = todo.iter().copied().collect();
    while !missing.is_empty() {
        let before = held(&inbox.state.lock());
        let (mut back, mut under_way) = (Vec::new(), None);
        inbox.ring();
        if let Some(demanded) = wanted(&inbox) {
            let found = rng.usize(..=demanded).min(todo.len());
            under_way = Some((demanded, todo.split_off(todo.len() - found)));
        }
        check(&inbox.state.lock(), before);
        if rng.u8(..20) == 0 {
            back.extend(inbox.set(rng.usize(1..5), rng.u8(..4) == 0));
        }
        if rng.u8(..10) == 0 {
            back.extend(inbox.stale(Instant::now() + SLOW, 20 * MS));
        }
        let before = held(&inbox.state.lock());
        if let Some((demanded, found)) = under_way {
            back.extend(inbox.put(demanded, claimed(found), false).refused);
        }
        check(&inbox.state.lock(), before);
        todo.extend(ids(&back));
        for _ in 0..inbox.hire() {
            let (inbox, ended) = (Arc::clone(&inbox), ended.clone());
            threads.push(thread::spawn(move || work(&inbox, &ended)));
        }
        // All that is in the inbox ends without anything further from here.
        while missing.len() > todo.len() {
            let id = ends.recv_timeout(LONG).expect("a thread was called for every job");
            assert!(missing.remove(&id), "{id} ended once");
        }
        if todo.is_empty() {
            break;
        }
        if inbox.state.lock().paused {
            inbox.set(rng.usize(1..5), false);
        }
    }
    assert!(inbox.close().is_empty());
    inbox.wait_for_threads(Instant::now() + LONG);
    assert!(inbox.is_over());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
