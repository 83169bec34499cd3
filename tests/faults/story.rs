//! A fixed workload: every verb, on a file whose disk can fail, at the time of a clock that is turned by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use kiln::testing::{Drain, Hand, ManualClock};
use kiln::{
    Changes, CronEntry, Durability, Filter, Job, Kiln, NewCron, NewJob, Outcome, Queues, Result, Running, State, Unique,
};
use serde_json::json;

use crate::common::{Folder, ms, stranger, until};
use crate::disk::Disk;

pub const WORKER: &str = "app.Worker";
const NOTER: &str = "app.Noter";
const QUEUES: [&str; 3] = ["default", "notes", "later"];

pub struct Story {
    pub folder: Folder,
    pub disk: Disk,
    pub durability: Durability,
    clock: ManualClock,
    open: Option<(Kiln, Hand)>,
    /// Keys of jobs whose enqueue returned `Ok`, and of those whose did not.
    pub there: BTreeSet<String>,
    pub refused: BTreeSet<String>,
    /// Jobs that a verb was told to remove.
    removed: BTreeSet<String>,
    keys: u64,
    held: Vec<Job>,
}

/// A step may fail, and is then taken again.
pub struct Step {
    pub name: &'static str,
    pub take: fn(&mut Story) -> Result<()>,
    /// Whether one that failed has done nothing at all.
    pub whole: bool,
}

/// What can be seen of a file.
#[derive(Debug, PartialEq)]
pub struct Seen {
    jobs: Vec<Job>,
    crons: Vec<CronEntry>,
    queues: Vec<(String, Option<i64>, Option<i64>)>,
}

impl Story {
    pub fn new(durability: Durability) -> Story {
        let folder = Folder::new();
        let disk = Disk::at(folder.db().parent().unwrap());
        let clock = ManualClock::default();
        let (there, refused, removed) = Default::default();
        Story { folder, disk, durability, clock, open: None, there, refused, removed, keys: 0, held: Vec::new() }
    }

    pub fn kiln(&self) -> Kiln {
        self.open.as_ref().expect("the story begins with an open").0.clone()
    }

    fn hand(&self) -> Hand {
        self.open.as_ref().expect("the story begins with an open").1.clone()
    }

    fn job(&mut self) -> (String, NewJob) {
        self.keys += 1;
        let key = format!("job {}", self.keys);
        // Until it is known to be there, it is not.
        self.refused.insert(key.clone());
        (key.clone(), NewJob::new(WORKER).args(json!({ "key": key })))
    }

    fn came(&mut self, key: String) {
        self.refused.remove(&key);
        self.there.insert(key);
    }

    fn enqueue(&mut self, with: impl FnOnce(NewJob) -> NewJob) -> Result<Job> {
        let (key, job) = self.job();
        let job = self.kiln().enqueue(with(job))?;
        self.came(key);
        Ok(job)
    }

    fn any(&self, state: State) -> Job {
        let found = self.disk.spare(|| self.kiln().list(Filter::new().state(state)).unwrap());
        found.into_iter().next().unwrap_or_else(|| panic!("the story has a job that is {state} here"))
    }

    fn claim(&mut self, queue: &str, limit: usize) -> Result<()> {
        let claimed = self.hand().claim(queue, limit)?;
        assert_eq!(claimed.len(), limit, "the story has so many jobs here");
        self.held.extend(claimed);
        Ok(())
    }

    fn ack(&mut self, ack: impl FnOnce(&Hand, &Job) -> Result<bool>) -> Result<()> {
        let job = self.held.last().cloned().expect("the story has claimed enough");
        assert!(ack(&self.hand(), &job)?, "the attempt is its job's until its ack is written");
        self.held.pop();
        Ok(())
    }

    /// What dead runtimes leave: a file that nobody has locked.
    fn die(&self) {
        for job in self.disk.spare(|| self.kiln().list(Filter::new().state(State::Executing)).unwrap()) {
            fs::write(self.folder.path(&format!("jobs.db-kiln-{}", job.attempted_by[1])), "").unwrap();
        }
    }

    pub fn removed(&self) -> &BTreeSet<String> {
        &self.removed
    }

    pub fn seen(&self) -> Seen {
        see(&self.kiln(), &self.folder.db())
    }

    /// What holds at any time, whatever has failed.
    pub fn check(&self) {
        let jobs = self.kiln().list(Filter::new().limit(u32::MAX)).unwrap();
        let keys: Vec<String> = jobs.iter().filter_map(key).collect();
        let unique: BTreeSet<&String> = keys.iter().collect();
        assert_eq!(unique.len(), keys.len(), "no job is there twice");
        for key in self.there.difference(&self.removed) {
            assert!(unique.contains(key), "{key} was enqueued, and is lost");
        }
        for key in &self.refused {
            assert!(!unique.contains(key), "{key} was refused, and is there");
        }
        for job in &jobs {
            assert!((0..=job.max_attempts).contains(&job.attempt), "{job:?}");
        }
        whole(&self.folder.db());
    }

    /// Everything that can end ends.
    pub fn end(&mut self) {
        let hand = self.hand();
        for _ in 0..100 {
            self.clock.advance(Duration::from_secs(7200));
            self.die();
            hand.rescue().unwrap();
            hand.stage(&QUEUES).unwrap();
            let mut idle = true;
            for queue in QUEUES {
                for job in hand.claim(queue, 100).unwrap() {
                    idle = false;
                    assert!(hand.ack(&job, Outcome::Complete).unwrap());
                }
            }
            let open = [State::Available, State::Scheduled, State::Retryable, State::Executing];
            if idle && self.kiln().count(Filter::new().states(open)).unwrap().total() == 0 {
                return self.check();
            }
        }
        panic!("something never ends: {:?}", self.seen());
    }
}

/// What a job of the story is known by.
pub fn key(job: &Job) -> Option<String> {
    job.args.value()["key"].as_str().map(str::to_owned)
}

pub fn see(kiln: &Kiln, db: &Path) -> Seen {
    let conn = stranger(db);
    let mut queues = conn.prepare("SELECT queue, paused, \"limit\" FROM kiln_queues ORDER BY queue").unwrap();
    let queues = queues.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    Seen {
        jobs: kiln.list(Filter::new().limit(u32::MAX)).unwrap(),
        crons: kiln.crons().unwrap(),
        queues: queues.map(|row| row.unwrap()).collect(),
    }
}

pub fn whole(db: &Path) {
    let found: String = stranger(db).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
}

const fn step(name: &'static str, take: fn(&mut Story) -> Result<()>) -> Step {
    Step { name, take, whole: true }
}

/// The workload.
pub const STEPS: &[Step] = &[
    Step {
        name: "open",
        take: |story| {
            let kiln = Kiln::builder(story.folder.db()).clock(&story.clock).durability(story.durability);
            let kiln = kiln.patience(ms(20)).seed(7).open()?;
            let hand = Hand::new(&kiln, [WORKER, NOTER]);
            story.open = Some((kiln, hand));
            Ok(())
        },
        whole: false,
    },
    step("enqueue", |story| story.enqueue(|job| job).map(drop)),
    step("enqueue a large one", |story| story.enqueue(|job| job.meta(json!({ "m": "x".repeat(30_000) }))).map(drop)),
    step("enqueue many", |story| {
        let (keys, jobs): (Vec<String>, Vec<NewJob>) = (0..12).map(|_| story.job()).unzip();
        story.kiln().enqueue_many(jobs)?;
        keys.into_iter().for_each(|key| story.came(key));
        Ok(())
    }),
    step("enqueue for later", |story| {
        story.enqueue(|job| job.queue("later").schedule_in(Duration::from_secs(60))).map(drop)
    }),
    step("enqueue a unique one", |story| story.enqueue(|job| job.queue("later").unique(Unique::new())).map(drop)),
    step("claim", |story| story.claim("default", 8)),
    step("complete", |story| story.ack(|hand, job| hand.ack(job, Outcome::Complete))),
    step("record", |story| story.ack(|hand, job| hand.ack(job, Outcome::record(&"r".repeat(5000))?))),
    step("snooze", |story| story.ack(|hand, job| hand.ack(job, Outcome::snooze(Duration::from_secs(9))))),
    step("cancel itself", |story| story.ack(|hand, job| hand.ack(job, Outcome::cancel("enough")))),
    step("fail", |story| story.ack(|hand, job| hand.fail(job, "no luck", Duration::from_secs(5)))),
    step("discard", |story| story.ack(|hand, job| hand.discard(job, "hopeless"))),
    step("release", |story| story.ack(|hand, job| hand.release(job))),
    step("abandon", |story| story.ack(|hand, job| hand.abandon(job))),
    step("cancel", |story| {
        let id = story.any(State::Available).id;
        assert_eq!(story.kiln().cancel(id)?, 1);
        Ok(())
    }),
    step("retry", |story| {
        let id = story.any(State::Cancelled).id;
        assert_eq!(story.kiln().retry(id)?, 1);
        Ok(())
    }),
    step("update", |story| {
        let id = story.any(State::Available).id;
        assert_eq!(story.kiln().update(id, Changes::new().priority(3))?, 1);
        Ok(())
    }),
    step("update by closure", |story| {
        let id = story.any(State::Available).id;
        let count = story.kiln().update(id, |job: &Job| Changes::new().priority(job.priority + 1))?;
        assert_eq!(count, 1);
        Ok(())
    }),
    step("claim one more", |story| story.claim("default", 1)),
    step("cancel what executes", |story| {
        let id = story.held.last().unwrap().id;
        assert_eq!(story.kiln().cancel(id)?, 1);
        Ok(())
    }),
    step("fail what is cancelled", |story| story.ack(|hand, job| hand.fail(job, "told to", Duration::ZERO))),
    step("delete", |story| {
        let job = story.any(State::Completed);
        assert_eq!(story.kiln().delete(job.id)?, 1);
        story.removed.extend(key(&job));
        Ok(())
    }),
    step("turn the clock and stage", |story| {
        if story.any(State::Scheduled).scheduled_at > story.clock.now() {
            story.clock.advance(Duration::from_secs(100));
        }
        assert!(story.hand().stage(&QUEUES)? >= 1);
        Ok(())
    }),
    step("claim what is to be rescued", |story| story.claim("default", 2)),
    step("rescue", |story| {
        story.die();
        assert!(story.hand().rescue()? >= 2);
        story.held.clear();
        Ok(())
    }),
    step("claim what takes too long", |story| story.claim("default", 1)),
    step("rescue by age", |story| {
        story.clock.advance(Duration::from_secs(1));
        assert_eq!(story.hand().rescue_older(ms(500))?, 1);
        story.held.clear();
        Ok(())
    }),
    step("add a cron entry", |story| {
        let job = NewJob::new(WORKER).args(json!({ "cron": true }));
        story.kiln().cron(NewCron::new("0 0 1 1 *", job).name("yearly")).map(drop)
    }),
    Step {
        name: "fire",
        // A slot that could not be settled is due still.
        take: |story| {
            if story.kiln().crons()?.iter().all(|entry| entry.last_slot.is_none()) {
                let next = "2031-01-01T00:00:30Z".parse().unwrap();
                story.clock.set(next);
                assert_eq!(story.hand().fire()?.len(), 1);
            }
            Ok(())
        },
        whole: true,
    },
    step("pause a cron entry", |story| story.kiln().pause_cron("yearly").map(drop)),
    step("delete a cron entry", |story| story.kiln().delete_cron("yearly").map(drop)),
    step("pause for all", |story| story.kiln().pause("default")),
    step("scale for all", |story| story.kiln().scale(Queues::All, Some(3))),
    step("resume for all", |story| story.kiln().resume("default")),
    step("enqueue one that takes notes", |story| story.kiln().enqueue(NewJob::new(NOTER).queue("notes")).map(drop)),
    Step {
        name: "progress, checkpoint and step",
        take: |story| {
            let taking_notes = |job: &Running<()>| -> std::result::Result<(), kiln::Failure> {
                job.progress(1, 2, "half");
                job.checkpoint("here")?;
                job.step("once", || Ok::<_, kiln::Error>(5)).map(drop)
            };
            story.die();
            story.hand().rescue()?;
            story.kiln().retry(Filter::new().worker(NOTER))?;
            Drain::new(&story.kiln()).worker_fn(NOTER, taking_notes)?.drain()?;
            Ok(())
        },
        whole: false,
    },
    Step {
        name: "close and open again",
        take: |story| {
            // The last to close writes the WAL back.
            story.open = None;
            until("the file is closed, or cannot be tidied up", || {
                story.disk.injected() > 0 || story.folder.names().iter().all(|name| !name.ends_with("-wal"))
            });
            (STEPS[0].take)(story)
        },
        whole: false,
    },
    step("prune", |story| {
        let ended = [State::Completed, State::Cancelled, State::Discarded];
        let ended = story.kiln().list(Filter::new().states(ended))?;
        assert_eq!(story.hand().prune(Duration::ZERO)?, ended.len() as u64);
        story.removed.extend(ended.iter().filter_map(key));
        Ok(())
    }),
    step("enqueue the last one", |story| story.enqueue(|job| job).map(drop)),
];
