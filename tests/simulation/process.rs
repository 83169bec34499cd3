//! Processes on one file, as far as the file can tell: a handle each, and runtimes that are known and hold their lock.

use std::fs::File;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use kiln::testing::{Hand, ManualClock};
use kiln::{Durability, Kiln};
use rusqlite::Connection;
use serde_json::json;

use crate::common::{Folder, stranger};

pub const WORKERS: [&str; 2] = ["app.Mailer", "app.Sync"];
pub const QUEUES: [&str; 2] = ["a", "b"];

/// Where the jobs are.
pub enum Place {
    Memory,
    File { folder: Folder, conn: Connection },
}

pub struct Process {
    pub kiln: Kiln,
    pub runtimes: Vec<Runtime>,
}

#[derive(Clone)]
pub struct Runtime {
    pub hand: Hand,
    pub workers: Vec<&'static str>,
    /// How many jobs of each queue it means to run at once.
    pub limits: [usize; 2],
    /// Its id, once something was claimed by it.
    pub id: Option<String>,
}

impl Place {
    pub fn file(clock: &ManualClock) -> Place {
        let folder = Folder::new();
        Kiln::builder(folder.db()).clock(clock).open().unwrap();
        let conn = stranger(&folder.db());
        Place::File { folder, conn }
    }

    /// A process that starts on the file, or goes on in memory.
    pub fn open(&self, clock: &ManualClock, dice: &mut Rng) -> Process {
        let kiln = match self {
            Place::Memory => Kiln::memory_builder().clock(clock).open().unwrap(),
            Place::File { folder, .. } => {
                let durability = [Durability::Normal, Durability::Full, Durability::Strict][dice.usize(..3)];
                Kiln::builder(folder.db()).clock(clock).durability(durability).open().unwrap()
            }
        };
        let runtimes = Runtime::draw(&kiln, dice);
        Process { kiln, runtimes }
    }

    /// Makes a runtime known to all on the file, as one that starts there does; it lives as long as the lock is held.
    pub fn enter(&self, runtime: &Runtime) -> Option<File> {
        let (Place::File { folder, conn }, Some(id)) = (self, &runtime.id) else { return None };
        let sidecar = File::options().create(true).truncate(false).write(true).open(sidecar(&folder.db(), id)).unwrap();
        sidecar.try_lock().unwrap();
        let plan = |(queue, limit): (&&str, &usize)| json!({ "queue": queue, "limit": limit, "scaled": null, "paused": false, "started_at": 0 });
        let plans: Vec<_> = QUEUES.iter().zip(&runtime.limits).map(plan).collect();
        let sql = "INSERT INTO kiln_runtimes (id, node, pid, queues, workers, started_at, plans)
                   VALUES (?1, 'simulated', 1, ?2, ?3, 0, ?4)";
        let [queues, workers, plans] =
            [json!(QUEUES), json!(runtime.workers), json!(plans)].map(|list| list.to_string());
        conn.execute(sql, (id, queues, workers, plans)).unwrap();
        Some(sidecar)
    }

    /// Whether the lock of a runtime tells that it lives; in memory nobody's does.
    pub fn tells_life(&self) -> bool {
        matches!(self, Place::File { .. })
    }

    pub fn assert_whole(&self) {
        if let Place::File { conn, .. } = self {
            let found: String = conn.query_one("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(found, "ok");
        }
    }
}

fn sidecar(db: &Path, id: &str) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(format!("-kiln-{id}"));
    name.into()
}

impl Runtime {
    /// One or two, that know some of the workers or all.
    pub fn draw(kiln: &Kiln, dice: &mut Rng) -> Vec<Runtime> {
        let mut runtime = |workers: &[&'static str]| Runtime {
            hand: Hand::new(kiln, workers.iter().copied()),
            workers: workers.to_vec(),
            limits: [dice.usize(1..5), dice.usize(1..5)],
            id: None,
        };
        let all = runtime(&WORKERS);
        let some = runtime(&WORKERS[..1]);
        if dice.bool() { vec![all, some] } else { vec![all] }
    }
}
