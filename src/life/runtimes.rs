//! What the rows of the runtimes on the file tell: whom to ring, which queues each runs, and who holds the write lock.

use std::error::Error as _;
use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::file::holder;
use crate::job::{QueueCheck, Queues};
use crate::presence::{Address, PeerRow};
use crate::store::examine::suspects;
use crate::store::queues::settings;
use crate::store::rescue::{Executing, executing};
use crate::store::runtimes::{self, RuntimeRow};
use crate::store::value::from_micros;

/// The runtimes on the file that listen. A row that cannot be read keeps no other from being rung.
pub(super) fn peers(conn: &Connection) -> Vec<PeerRow> {
    let rows = runtimes::list(conn).unwrap_or_default().into_iter();
    let peer = |RuntimeRow { id, port, secret, queues, .. }: RuntimeRow| {
        Some(PeerRow { address: Address { id, port: port?, secret: secret? }, queues })
    };
    rows.filter_map(peer).collect()
}

/// How the live runtimes on the file run these queues.
pub(super) fn check(conn: &Connection, queues: &Queues, is_dead: impl Fn(&str) -> bool) -> Result<Vec<QueueCheck>> {
    let (runtimes, settings, executing) = (runtimes::list(conn)?, settings(conn)?, executing(conn)?);
    let waiting = suspects(conn)?;
    let mut checks = Vec::new();
    for RuntimeRow { id, node, plans, .. } in runtimes.into_iter().filter(|runtime| !is_dead(&runtime.id)) {
        for plan in plans.into_iter().filter(|plan| queues.include(&plan.queue)) {
            let setting = settings.of(&plan.queue);
            if !plan.is_run(&setting) {
                continue;
            }
            let is_its = |job: &&Executing| job.runtime == id && job.queue == plan.queue;
            let mut running: Vec<i64> = executing.iter().filter(is_its).map(|job| job.fence.id).collect();
            running.sort_unstable();
            let suspects = waiting.iter().filter(|(_, queue)| *queue == plan.queue).map(|(id, _)| *id).collect();
            checks.push(QueueCheck {
                limit: plan.limit(&setting),
                paused_here: plan.paused,
                paused_for_all: setting.paused,
                queue: plan.queue,
                runtime: id.clone(),
                node: node.clone(),
                running,
                suspects,
                started_at: from_micros(plan.started_at),
            });
        }
    }
    checks.sort_by(|a, b| (&a.queue, a.started_at, &a.runtime).cmp(&(&b.queue, b.started_at, &b.runtime)));
    Ok(checks)
}

/// The error of a caller that waited for the write lock in vain. It names the process that holds the lock if that is
/// known, and otherwise the runtimes on the file.
pub(super) fn name_holder(error: Error, conn: &Connection) -> Error {
    let Some(file) = conn.path().filter(|path| !path.is_empty()) else { return error };
    if error.source().is_none() {
        // The lock is not what was missing.
        return error;
    }
    // The lock does not keep anybody from reading. If this cannot be read either, the error is good enough.
    let runtimes = runtimes::list(conn).unwrap_or_default();
    let describe =
        |RuntimeRow { id, node, pid, .. }: &RuntimeRow| format!("process {pid} with kiln's runtime {id:?} on {node:?}");
    let holder = match holder::holder(Path::new(file)) {
        Some(pid) if pid == std::process::id() => format!("another connection of this process, {pid}"),
        Some(pid) => runtimes.iter().find(|runtime| runtime.pid == pid).map_or_else(
            || {
                format!(
                    "process {pid}{}",
                    holder::process_name(pid).map(|name| format!(" ({name})")).unwrap_or_default()
                )
            },
            describe,
        ),
        None if runtimes.is_empty() => return error,
        None => {
            let runtimes: Vec<String> = runtimes.iter().map(describe).collect();
            format!("another process, perhaps {}", runtimes.join(" or "))
        }
    };
    let message = format!("the database's write lock is held by {holder}; nothing was written, try again");
    Error::new(error.kind(), message)
}
