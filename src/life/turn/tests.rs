use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::clock::Clock;
use crate::error::Kind;
use crate::file::open;
use crate::job::{End, NewJob, Outcome, QueuePlan, Ready};
use crate::life::enqueue::Enqueue;
use crate::life::tx::Member;
use crate::life::{Inbox, Task, Wake};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

struct World {
    writer: Arc<Writer>,
    events: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new(file: Option<&Path>) -> Self {
        let options = Options { patience: Duration::from_millis(20), ..Options::default() };
        let conn = match file {
            Some(file) => open::writer(&open::prepare(file, &options).unwrap(), &options).unwrap().0,
            None => open::in_memory(&options).unwrap(),
        };
        let events = Arc::new(Mutex::new(Vec::new()));
        let mut observers = Observers::default();
        let seen = Arc::clone(&events);
        observers.add(move |event| seen.lock().push(event.name().to_owned()));
        let mut writer = Writer::new(conn, &options, observers, Redaction::default());
        // Tests that run beside this one have a suspect of their own.
        writer.connection.get_mut().claims = ClaimState::default();
        Self { writer: Arc::new(writer), events }
    }

    /// A runtime without threads of its own, with these queues.
    fn attach(&self, id: &str, queues: &[&str]) -> Arc<Mailbox> {
        let clock = Clock::system();
        let member = Member {
            id: id.into(),
            node: "here".into(),
            workers: vec!["w".into()],
            started_at: clock.now(),
            damaged: Arc::default(),
        };
        let plans = queues.iter().map(|queue| QueuePlan::new((*queue).to_owned(), 2)).collect();
        let mailbox = Mailbox::new(member, clock, None, Arc::new(Mutex::new(plans)), 1, Duration::ZERO);
        mailbox.arrange();
        self.writer.attach(Arc::clone(&mailbox));
        mailbox
    }

    fn execute(&self, sql: &str) {
        self.writer.with(|conn| conn.execute_batch(sql).unwrap());
    }

    fn number(&self, sql: &str) -> i64 {
        self.writer.with(|conn| conn.query_row(sql, [], |row| row.get(0)).unwrap())
    }

    fn states(&self, state: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM kiln_jobs WHERE state = '{state}'"))
    }

    fn enqueue(&self, queue: &str, jobs: usize) {
        let jobs = (0..jobs).map(|_| ready(queue)).collect();
        self.writer.write(Need::Durable, Enqueue::new(jobs)).unwrap();
    }

    /// What was told since the last call.
    fn events(&self, but: &[&str]) -> Vec<String> {
        let mut events = std::mem::take(&mut *self.events.lock());
        events.retain(|name| !but.contains(&name.as_str()));
        events
    }
}

fn ready(queue: &str) -> Ready {
    NewJob::new("w").queue(queue).build(jiff::Timestamp::UNIX_EPOCH, |_| {}).unwrap()
}

fn inbox(mailbox: &Mailbox, queue: &str) -> Arc<Inbox> {
    mailbox.inboxes().into_iter().find(|inbox| *inbox.queue == *queue).unwrap()
}

/// A job of the inbox begins and ends: its ack waits.
fn complete(mailbox: &Mailbox, inbox: &Inbox) -> i64 {
    inbox.hire();
    let task = inbox.next().unwrap();
    let id = task.fence().id;
    end(mailbox, task);
    assert!(inbox.done(id, LONG, Instant::now(), false).is_none());
    id
}

fn end(mailbox: &Mailbox, task: Task) {
    mailbox.acknowledge(task, End::Outcome(Outcome::Complete), None, Instant::now());
}

/// A caller's operation, which may see the writer.
struct Call<F>(F);

impl<F: FnMut(&mut Tx<'_>) -> Result<()> + Send> Operation for Call<F> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        (self.0)(tx)
    }
}

/// Waits until so many callers wait for a turn.
fn until_waiting(writer: &Writer, callers: usize) {
    let started = Instant::now();
    while writer.line.lock().waiting.len() < callers {
        assert!(started.elapsed() < LONG, "nobody comes");
        thread::yield_now();
    }
}

/// Waits until a leader has led for long enough.
fn outstay() {
    let since = Instant::now();
    while since.elapsed() < KEPT {}
}

/// What the runtime's scheduler was called for.
fn rung(mailbox: &Mailbox) -> Wake {
    mailbox.alarm.wait(Instant::now(), &crossbeam_channel::never())
}

fn insert(tx: &Tx<'_>, worker: &str) {
    tx.conn.execute("INSERT INTO kiln_jobs (worker) VALUES (?1)", [worker]).unwrap();
}

/// What a caller has to do: it counts, and others come meanwhile.
struct Count(u64);

impl Operation for Count {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        thread::yield_now();
        self.0 += 1;
        insert(tx, &self.0.to_string());
        Ok(())
    }
}

#[test]
fn callers_lead_in_turn() {
    let world = World::new(None);
    let (begun, begins) = mpsc::channel();
    let call = |n: usize| {
        let (writer, line, begun) = (Arc::clone(&world.writer), Arc::clone(&world.writer), begun.clone());
        let operation = Call(move |_: &mut Tx<'_>| {
            begun.send(thread::current().id()).unwrap();
            if n < 2 {
                until_waiting(&line, 1);
                outstay();
            }
            Ok(())
        });
        let caller = thread::spawn(move || writer.write(Need::Ride, operation).map(|_| ()).unwrap());
        let leader = begins.recv_timeout(LONG).unwrap();
        (caller, leader)
    };
    let callers = [call(0), call(1), call(2)];
    let ids = [0, 1, 2].map(|n| callers[n].0.thread().id());
    let leaders = [0, 1, 2].map(|n| callers[n].1);
    assert_eq!(leaders, [ids[0], ids[0], ids[2]], "the first leads the second, and the third leads itself");
    callers.into_iter().for_each(|(caller, _)| caller.join().unwrap());
    assert!(!world.writer.line.lock().led);
}

#[test]
fn many_callers_have_each_their_own_answer_and_nobody_waits_for_ever() {
    let world = World::new(None);
    let (done, all) = mpsc::channel();
    for caller in 0..12 {
        let (writer, done) = (Arc::clone(&world.writer), done.clone());
        thread::spawn(move || {
            for n in 0..40 {
                let number = caller * 1000 + n;
                assert_eq!(writer.write(Need::Ride, Count(number)).unwrap().0, number + 1);
            }
            done.send(()).unwrap();
        });
    }
    (0..12).for_each(|_| all.recv_timeout(LONG).expect("each has its own answer"));
    assert_eq!(world.number("SELECT count(*) FROM kiln_jobs"), 480);
    assert!(!world.writer.line.lock().led);
}

#[test]
fn one_refused_operation_does_not_take_the_group_along() {
    let world = World::new(None);
    let mailbox = world.attach("me", &["q"]);
    let (begun, begins) = mpsc::channel();
    let writer = Arc::clone(&world.writer);
    let leader = thread::spawn(move || {
        let line = Arc::clone(&writer);
        let operation = Call(move |_: &mut Tx<'_>| {
            begun.send(()).unwrap();
            until_waiting(&line, 3);
            outstay();
            Ok(())
        });
        writer.write(Need::Ride, operation).map(|_| ())
    });
    begins.recv_timeout(LONG).unwrap();
    let callers = [false, true, false].map(|refused| {
        let writer = Arc::clone(&world.writer);
        let operation = Call(move |tx: &mut Tx<'_>| {
            insert(tx, if refused { "refused" } else { "accepted" });
            if refused { Err(Error::invalid("worker", "refused")) } else { Enqueue::new(vec![ready("q")]).run(tx) }
        });
        thread::spawn(move || writer.write(Need::Ride, operation).map(|_| ()))
    });
    leader.join().unwrap().unwrap();
    let answers = callers.map(|caller| caller.join().unwrap());
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().field(), Some("worker"));
    assert_eq!(world.number("SELECT count(*) FROM kiln_jobs WHERE worker = 'refused'"), 0);
    assert_eq!(world.number("SELECT count(*) FROM kiln_jobs WHERE worker = 'accepted'"), 2);
    // The leader has done so for long enough, and calls the runtime.
    assert!(rung(&mailbox).turn);
    world.writer.turn();
    assert_eq!(inbox(&mailbox, "q").ready(), 2, "what they stored is claimed");
    assert!(world.events(&["claimed"]).is_empty(), "nobody's trouble but the caller's");
}

#[test]
fn results_are_in_the_inbox_when_write_returns() {
    let world = World::new(None);
    let mailboxes = [world.attach("a", &["q", "slow"]), world.attach("b", &["q"])];
    world.enqueue("q", 3);
    let ready = || mailboxes.each_ref().map(|mailbox| inbox(mailbox, "q").ready());
    assert_eq!(ready(), [2, 1], "each has two threads");
    assert_eq!(inbox(&mailboxes[0], "slow").ready(), 0);
    world.enqueue("slow", 1);
    assert_eq!(inbox(&mailboxes[0], "slow").ready(), 1);
    assert!(rung(&mailboxes[0]).hire, "threads are to be hired");
    let id = complete(&mailboxes[0], &inbox(&mailboxes[0], "q"));
    assert_eq!(world.states("completed"), 0);
    world.enqueue("q", 1);
    assert_eq!((world.states("completed"), world.states("executing")), (1, 4), "{id} was acknowledged as well");
    assert_eq!((ready(), mailboxes[0].unwritten()), ([2, 1], 0));
    assert_eq!(world.events(&[]), ["acked"]);
}

/// A caller that waits for a turn, and looks into the inbox when it is answered.
struct Looking(Mutex<Enqueue>, Arc<Inbox>, Mutex<Option<usize>>);

impl Waiting for Looking {
    fn need(&self) -> Need {
        Need::Ride
    }

    fn run(&self, tx: &mut Tx<'_>) -> Result<()> {
        self.0.lock().run(tx)
    }

    fn answer(&self, answer: Result<()>) {
        answer.unwrap();
        *self.2.lock() = Some(self.1.ready());
    }

    fn promote(&self) {}
}

#[test]
fn a_caller_that_waited_is_answered_after_the_results_are_put() {
    let world = World::new(None);
    let inbox = inbox(&world.attach("me", &["q"]), "q");
    let caller = Arc::new(Looking(Mutex::new(Enqueue::new(vec![ready("q")])), inbox, Mutex::default()));
    world.writer.line.lock().waiting.push(caller.clone());
    world.enqueue("other", 1);
    assert_eq!(*caller.2.lock(), Some(1));
}

#[test]
fn an_ack_that_fails_by_itself_does_not_take_others_along() {
    let world = World::new(None);
    let (one, other) = (world.attach("a", &["q"]), world.attach("b", &["q"]));
    world.enqueue("q", 4);
    let broken = complete(&one, &inbox(&one, "q"));
    complete(&one, &inbox(&one, "q"));
    complete(&other, &inbox(&other, "q"));
    world.execute(&format!(
        "CREATE TRIGGER torn BEFORE UPDATE OF state ON kiln_jobs WHEN NEW.state = 'completed' AND NEW.id = {broken}
         BEGIN SELECT RAISE(ABORT, 'torn'); END"
    ));
    world.enqueue("q", 3);
    assert_eq!((world.states("completed"), one.unwritten(), other.unwritten()), (2, 1, 0));
    assert!(one.pulse().trouble.unwrap().contains("torn") && other.pulse().trouble.is_none());
    assert_eq!((inbox(&one, "q").ready(), inbox(&other, "q").ready()), (2, 2), "and all go on claiming");
    assert_eq!(world.events(&["acked"]), ["degraded"]);
    assert!(!one.has_mail(), "it is tried again when it is time");
    world.execute("DROP TRIGGER torn");
    one.outbox.lock().hurry();
    world.writer.turn();
    assert_eq!((world.states("completed"), one.unwritten()), (3, 0));
}

#[test]
fn a_claim_that_fails_puts_its_queue_aside() {
    let world = World::new(None);
    let mailbox = world.attach("me", &["bad", "good"]);
    world.execute(
        "CREATE TRIGGER torn BEFORE UPDATE OF state ON kiln_jobs WHEN NEW.state = 'executing' AND NEW.queue = 'bad'
         BEGIN SELECT RAISE(ABORT, 'torn'); END",
    );
    let ready = || ["bad", "good"].map(|queue| inbox(&mailbox, queue).ready());
    world.enqueue("good", 1);
    world.enqueue("bad", 1);
    assert_eq!((ready(), world.events(&[])), ([0, 1], vec!["degraded".to_owned()]));
    assert!(!mailbox.outbox.lock().is_halted());
    world.enqueue("good", 1);
    assert_eq!((ready(), world.states("available")), ([0, 2], 1), "the queue is left out");
    world.execute("DROP TRIGGER torn");
    world.enqueue("bad", 1);
    assert_eq!(ready(), [0, 2], "until it is tried again");
    mailbox.outbox.lock().hurry();
    world.writer.turn();
    assert_eq!((ready(), world.states("available")), ([2, 2], 0));
}

#[test]
fn a_busy_database_gives_acks_back_and_halts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let world = World::new(Some(&file));
    let mailbox = world.attach("me", &["q"]);
    world.enqueue("q", 2);
    let jobs = inbox(&mailbox, "q");
    let ids = [complete(&mailbox, &jobs), complete(&mailbox, &jobs)];
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let operation = Enqueue::new(vec![ready("q")]);
    assert!(world.writer.write(Need::Durable, operation).is_err_and(|error| error.is_busy()));
    assert_eq!((mailbox.unwritten(), mailbox.pulse().claiming), (2, false));
    assert_eq!(world.events(&[]), ["degraded"]);
    world.writer.turn();
    assert_eq!((mailbox.unwritten(), world.events(&[]).len()), (2, 0), "it is told once");
    other.execute_batch("ROLLBACK").unwrap();
    let acks = mailbox.outbox.lock().collect();
    assert_eq!(acks.acks.iter().map(|ack| ack.fence.id).collect::<Vec<_>>(), ids, "in their order");
    assert!(!acks.may_claim);
    let error = Error::new(Kind::Busy, "busy");
    mailbox.outbox.lock().return_all(acks.acks, acks.ended, &error, Instant::now());
    world.writer.turn();
    assert_eq!((mailbox.unwritten(), world.states("completed")), (0, 2));
    assert!(mailbox.pulse().claiming, "whoever gets the lock once goes on");
    assert!(rung(&mailbox).turn, "a turn is asked for that claims");
    world.enqueue("q", 1);
    assert_eq!(jobs.ready(), 1);
}

#[test]
fn what_needs_no_space_is_written_though_a_caller_found_none() {
    let world = World::new(None);
    let mailbox = world.attach("me", &["q"]);
    world.enqueue("q", 5);
    let jobs = inbox(&mailbox, "q");
    complete(&mailbox, &jobs);
    complete(&mailbox, &jobs);
    let pages = world.number("PRAGMA page_count");
    world.execute(&format!("PRAGMA max_page_count = {pages}"));
    let huge = NewJob::new("w").queue("q").args(serde_json::json!({ "text": "h".repeat(1 << 20) }));
    let huge = huge.build(jiff::Timestamp::UNIX_EPOCH, |_| {}).unwrap();
    let refused = world.writer.write(Need::Ride, Enqueue::new(vec![huge]));
    assert!(refused.is_err_and(|error| error.is_full()));
    assert_eq!((mailbox.unwritten(), world.states("completed"), jobs.ready()), (0, 2, 2));
    assert!(world.events(&["acked"]).is_empty());
}

#[test]
fn a_runtime_that_asks_while_another_leads_does_not_wait_and_is_served_by_the_leader() {
    let world = World::new(None);
    let mailbox = world.attach("me", &["q"]);
    world.enqueue("q", 1);
    let jobs = inbox(&mailbox, "q");
    jobs.hire();
    let mut task = jobs.next();
    let (writer, runtime) = (Arc::clone(&world.writer), Arc::clone(&mailbox));
    let operation = Call(move |_: &mut Tx<'_>| {
        task.take().into_iter().for_each(|task| end(&runtime, task));
        writer.turn();
        assert!(writer.line.lock().again);
        Ok(())
    });
    world.writer.write(Need::Ride, operation).unwrap();
    assert_eq!((world.states("completed"), mailbox.unwritten()), (1, 0));
    assert!(!world.writer.line.lock().led);
}
