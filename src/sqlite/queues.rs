//! Queues: what is said of them to all runtimes, and how each runs them.

use std::sync::Arc;

use rusqlite::Connection;

use super::live::Live;
use super::write::{Need, Op, Tx, Writer};
use super::{failed, keep, look, rows, sql, verbs};
use crate::Result;
use crate::engine::Crew;
use crate::queues::{Control, Plan, QueueCheck, Queues, Row, Rulings, Run};

/// The row that stands for all queues; no queue has a blank name.
const ALL: &str = "";

/// Says something of queues to all runtimes on the file.
pub(super) struct Say {
    pub queues: Queues,
    pub control: Control,
    pub now: i64,
}

impl Op for Say {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let queue = match &self.queues {
            Queues::One(queue) => queue,
            Queues::All => ALL,
        };
        let all = *queue == *ALL;
        match self.control {
            Control::Pause | Control::Resume => {
                if all {
                    verbs::run(tx.conn, sql::UNSAY_PAUSES, [])?;
                }
                verbs::run(tx.conn, sql::SAY_PAUSED, (queue, self.control == Control::Pause))?;
            }
            Control::Scale(limit) => {
                if all {
                    verbs::run(tx.conn, sql::UNSAY_LIMITS, [])?;
                }
                self.say_limit(tx, queue, limit)?;
            }
            Control::Start(limit) => {
                if all {
                    verbs::run(tx.conn, sql::UNSAY_RUNS, [])?;
                }
                verbs::run(tx.conn, sql::SAY_RUN, (queue, limit.map_or(OWN, column)))?;
                if limit.is_some() {
                    self.say_limit(tx, queue, limit)?;
                }
            }
            Control::Stop => {
                if all {
                    verbs::run(tx.conn, sql::UNSAY_RUNS, [])?;
                }
                verbs::run(tx.conn, sql::SAY_RUN, (queue, NOBODY))?;
            }
        }
        tx.news.queues_changed = true;
        Ok(())
    }
}

impl Say {
    fn say_limit(&self, tx: &mut Tx<'_>, queue: &str, limit: Option<usize>) -> Result<()> {
        verbs::run(tx.conn, sql::SAY_LIMIT, (queue, limit.map(column), self.now)).map(|_| ())
    }
}

fn column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// In the column `run`: those that mean to.
const OWN: i64 = -1;

const NOBODY: i64 = 0;

fn run(column: i64) -> Run {
    match usize::try_from(column) {
        Ok(0) => Run::Nobody,
        Ok(limit) => Run::Every(limit),
        Err(_) => Run::Own,
    }
}

pub(super) fn rulings(conn: &Connection) -> Result<Rulings> {
    let mut select = conn.prepare_cached(sql::RULINGS).map_err(failed)?;
    let mut found = select.query([]).map_err(failed)?;
    let mut rulings = Rulings::default();
    while let Some(row) = found.next().map_err(failed)? {
        let queue = rows::text(row.get_ref(0).map_err(failed)?);
        let number = |column| Ok(row.get::<_, Option<i64>>(column).unwrap_or(None));
        let row = Row {
            paused: number(1)?.map(|paused| paused != 0),
            // Anybody may have written it: a limit of none would be a pause that nobody sees.
            limit: number(2)?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
            scaled_at: number(3)?.unwrap_or(0),
            run: number(4)?.map(run),
        };
        if queue == ALL {
            // All queues that anybody could name cannot be run.
            let run = row.run.filter(|run| !matches!(run, Run::Every(_)));
            rulings.all = Row { run, ..row };
        } else {
            rulings.queues.insert(queue, row);
        }
    }
    Ok(rulings)
}

impl Writer {
    /// Tells the crews here what holds for all runtimes on the file, and makes known what they run then.
    pub fn tell_rulings(&self) -> Result<()> {
        // Read and told in one go: who reads later tells later.
        let told = self.telling.lock();
        let rulings = self.with(rulings)?;
        let crews = self.crews();
        crews.iter().for_each(|(_, crew)| crew.heed(&rulings));
        drop(told);
        crews.iter().try_for_each(|(id, crew)| self.announce_changes(id, crew))
    }

    pub fn announce_changes(&self, id: &str, crew: &Arc<dyn Crew>) -> Result<()> {
        let announcing = self.announcing.lock();
        if !crew.changed() {
            return Ok(());
        }
        let (announced, untold) =
            self.write_untold(Need::Ride, Announce { runtime: id.to_owned(), crew: Arc::clone(crew) });
        if announced.is_err() {
            // The next time, then.
            crew.change();
        }
        drop(announcing);
        untold.tell();
        announced.map(|_| ())
    }

    /// Lets a crew take part that has heeded what holds.
    pub fn attach_told(&self, id: &str, crew: Arc<dyn Crew>) -> Result<()> {
        let _told = self.telling.lock();
        crew.heed(&self.with(rulings)?);
        self.attach(id, crew);
        Ok(())
    }
}

/// Writes how a runtime means to run its queues, as it is when it is written.
pub(super) struct Announce {
    pub runtime: String,
    pub crew: Arc<dyn Crew>,
}

impl Op for Announce {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let (queues, plans) = columns(&self.crew.plans());
        verbs::run(tx.conn, sql::ANNOUNCE, (&self.runtime, queues, plans))?;
        // Those elsewhere learn whom to ring.
        tx.news.queues_changed = true;
        Ok(())
    }
}

/// The plans as a runtime's row holds them: the names for those who ring, and the whole.
pub(super) fn columns(plans: &[Plan]) -> (String, String) {
    let names: Vec<String> = plans.iter().map(|plan| plan.queue.clone()).collect();
    (rows::words_json(&names).into_owned(), serde_json::to_string(plans).unwrap_or_default())
}

/// The queues of all live runtimes on the file.
pub(super) fn check(conn: &Connection, live: &Live, queues: &Queues) -> Result<Vec<QueueCheck>> {
    let (members, rulings, executing) = (members(conn)?, rulings(conn)?, keep::executing(conn)?);
    let mut checks = Vec::new();
    for (member, plans) in members.into_iter().filter(|(member, _)| !live.is_dead(&member.id)) {
        for plan in plans.into_iter().filter(|plan| queues.include(&plan.queue)) {
            let ruling = rulings.of(&plan.queue);
            if !plan.is_run(&ruling) {
                continue;
            }
            let here = executing.iter().filter(|job| job.runtime == member.id && job.queue == plan.queue);
            let mut running: Vec<i64> = here.map(|job| job.fence.id).collect();
            running.sort_unstable();
            checks.push(QueueCheck {
                limit: plan.limit(&ruling),
                paused_here: plan.paused,
                paused_for_all: ruling.paused,
                queue: plan.queue,
                runtime: member.id.clone(),
                node: member.node.clone(),
                running,
                started_at: rows::from_micros(plan.started_at),
            });
        }
    }
    checks.sort_by(|a, b| (&a.queue, a.started_at, &a.runtime).cmp(&(&b.queue, b.started_at, &b.runtime)));
    Ok(checks)
}

fn members(conn: &Connection) -> Result<Vec<(crate::health::RuntimeHealth, Vec<Plan>)>> {
    let mut select = conn.prepare_cached(sql::MEMBERS).map_err(failed)?;
    let members = select
        .query_map([], |row| {
            let plans = serde_json::from_str(&rows::text(row.get_ref(7)?)).unwrap_or_default();
            Ok((look::member(row)?, plans))
        })
        .map_err(failed)?;
    members.collect::<rusqlite::Result<_>>().map_err(failed)
}
