//! Queues: what is said of them to all runtimes, and how each runs them.

use std::sync::Arc;

use rusqlite::Connection;

use super::live::Live;
use super::write::{Op, Tx, Writer};
use super::{failed, keep, look, rows, sql, verbs};
use crate::Result;
use crate::engine::Crew;
use crate::queues::{Control, Plan, QueueCheck, Queues, Row, Rulings};

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
        let unsay = *queue == *ALL;
        match self.control {
            Control::Pause | Control::Resume => {
                if unsay {
                    verbs::run(tx.conn, sql::UNSAY_PAUSES, [])?;
                }
                verbs::run(tx.conn, sql::SAY_PAUSED, (queue, self.control == Control::Pause))?;
            }
            Control::Scale(limit) => {
                if unsay {
                    verbs::run(tx.conn, sql::UNSAY_LIMITS, [])?;
                }
                let limit = limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
                verbs::run(tx.conn, sql::SAY_LIMIT, (queue, limit, self.now))?;
            }
        }
        tx.news.queues_changed = true;
        Ok(())
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
        };
        if queue == ALL {
            rulings.all = row;
        } else {
            rulings.queues.insert(queue, row);
        }
    }
    Ok(rulings)
}

impl Writer {
    /// Tells the crews here what holds for all runtimes on the file.
    pub fn tell_rulings(&self) -> Result<()> {
        // Read and told in one go: who reads later tells later.
        let _told = self.telling.lock();
        let rulings = self.with(rulings)?;
        self.crews().iter().for_each(|(_, crew)| crew.heed(&rulings));
        Ok(())
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
        verbs::run(tx.conn, sql::ANNOUNCE, (&self.runtime, queues, plans)).map(|_| ())
    }
}

/// The plans as a runtime's row holds them: the names for those who ring, and the whole.
pub(super) fn columns(plans: &[Plan]) -> (String, String) {
    let names: Vec<String> = plans.iter().map(|plan| plan.queue.clone()).collect();
    (rows::words_json(&names), serde_json::to_string(plans).unwrap_or_default())
}

/// The queues of all live runtimes on the file.
pub(super) fn check(conn: &Connection, live: &Live, queues: &Queues) -> Result<Vec<QueueCheck>> {
    let (members, rulings, executing) = (members(conn)?, rulings(conn)?, keep::executing(conn)?);
    let mut checks = Vec::new();
    for (member, plans) in members.into_iter().filter(|(member, _)| !live.is_dead(&member.id)) {
        for plan in plans.into_iter().filter(|plan| queues.include(&plan.queue)) {
            let ruling = rulings.of(&plan.queue);
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
