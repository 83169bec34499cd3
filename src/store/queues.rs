//! The settings of queues for all runtimes on the file.

use rusqlite::{Connection, Row};

use super::value::{all, run, text};
use crate::error::Result;
use crate::job::{Control, QueueSettings, Queues, Run, SettingRow};

/// The name of the row that stands for all queues; no queue has a blank name.
const ALL: &str = "";

const SETTINGS: &str = "SELECT queue, paused, \"limit\", scaled_at, run FROM kiln_queues";

/// All settings there are.
pub(crate) fn settings(conn: &Connection) -> Result<QueueSettings> {
    let read = |row: &Row<'_>| {
        let number = |column| row.get::<_, Option<i64>>(column).unwrap_or(None);
        let setting = SettingRow {
            paused: number(1).map(|paused| paused != 0),
            // Any program may have written it: a limit of 0 would be a pause that nobody sees.
            limit: number(2).and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
            scaled_at: number(3).unwrap_or(0),
            run: number(4).map(run_of),
        };
        Ok((text(row.get_ref(0)?), setting))
    };
    let mut settings = QueueSettings::default();
    for (queue, setting) in all(conn, SETTINGS, [], read)? {
        if queue == ALL {
            // Every queue that anybody could name cannot be run.
            let run = setting.run.filter(|run| !matches!(run, Run::Every(_)));
            settings.all = SettingRow { run, ..setting };
        } else {
            settings.queues.insert(queue, setting);
        }
    }
    Ok(settings)
}

/// Sets a column of one queue.
fn put(column: &str) -> String {
    format!(
        "INSERT INTO kiln_queues (queue, {column}) VALUES (?1, ?2)
ON CONFLICT (queue) DO UPDATE SET {column} = excluded.{column}"
    )
}

/// Unsets a column of all queues.
fn clear(column: &str) -> String {
    format!("UPDATE kiln_queues SET {column} = NULL")
}

const PAUSED: &str = "paused";
const LIMIT: &str = "\"limit\"";
const RUN: &str = "run";

/// Each limit is later than all others, whatever the clock does.
const SCALED: &str = "
UPDATE kiln_queues SET scaled_at = max(?2, (SELECT coalesce(max(scaled_at), 0) + 1 FROM kiln_queues)) WHERE queue = ?1";

/// Sets something for queues. Without a limit, each runtime has its own again.
pub(crate) fn set(conn: &Connection, queues: &Queues, control: Control, now: i64) -> Result<()> {
    let queue = match queues {
        Queues::One(queue) => queue,
        Queues::All => ALL,
    };
    let set = |column: &str, value: Option<i64>| {
        // What is set for all queues goes over what was set for single queues.
        if *queues == Queues::All {
            run(conn, &clear(column), [])?;
        }
        run(conn, &put(column), (queue, value))
    };
    let limit = |limit: Option<usize>| {
        set(LIMIT, limit.map(column))?;
        run(conn, SCALED, (queue, now))
    };
    let changed = match control {
        Control::Pause => set(PAUSED, Some(1)),
        Control::Resume => set(PAUSED, Some(0)),
        Control::Scale(to) => limit(to),
        Control::Start(None) => set(RUN, Some(OWN)),
        Control::Start(Some(to)) => set(RUN, Some(column(to))).and_then(|_| limit(Some(to))),
        Control::Stop => set(RUN, Some(NOBODY)),
    };
    changed.map(|_| ())
}

/// In the column `run`: the runtimes that were built with the queue.
const OWN: i64 = -1;

const NOBODY: i64 = 0;

fn column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn run_of(column: i64) -> Run {
    match usize::try_from(column) {
        Ok(0) => Run::Nobody,
        Ok(limit) => Run::Every(limit),
        Err(_) => Run::Own,
    }
}

#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    let settings = [PAUSED, LIMIT, RUN].into_iter().flat_map(|column| [put(column), clear(column)]);
    settings.chain([SETTINGS, SCALED].map(str::to_owned)).collect()
}
