//! Every statement that is run again and again, in the order of a job's life.
//!
//! Each names its index, so that no statistics, and no lack of them, can make it scan.

use std::sync::OnceLock;

/// What a claim reads of a job: it knows the rest.
macro_rules! claim_columns {
    () => {
        "id, worker, args, meta, tags, errors, attempt, max_attempts, priority, inserted_at, scheduled_at, attempted_at, \
         completed_at, cancelled_at, discarded_at, cancel_requested_at, expires_at, crashes"
    };
}

macro_rules! columns {
    () => {
        concat!(claim_columns!(), ", state, queue, attempted_by")
    };
}

pub(super) const COLUMNS: &str = columns!();

macro_rules! enqueue {
    ($verb:literal, $($id:tt)+) => {
        concat!(
            $verb,
            " INTO kiln_jobs (id, state, queue, worker, args, meta, tags, max_attempts, priority, inserted_at, \
             scheduled_at, expires_at, unique_key) VALUES (",
            $($id)+,
            ", ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
        )
    };
}

/// The first job of an enqueue gets an id above all that were ever given; those after it follow by themselves. SQLite
/// goes on from the newest row, so that it is only told where a newer one was deleted: none was above an id that is known
/// to have been given, while the last of the deleted is below it. Where somebody has used the last id there is, it draws
/// one that is free.
macro_rules! first_id {
    ($known:literal) => {
        concat!(
            "(SELECT last_id + 1 FROM kiln_schema WHERE last_id >= ",
            $known,
            " AND last_id < 9223372036854775807 AND last_id > ifnull((SELECT max(id) FROM kiln_jobs), 0))"
        )
    };
}

/// A job that has the key lends its id: it cannot be given twice, and nothing is stored.
macro_rules! unless_double {
    ($($id:tt)+) => {
        concat!(
            "ifnull((SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_doubles WHERE unique_key = ?12 LIMIT 1), ",
            $($id)+,
            ")"
        )
    };
}

pub(super) const ENQUEUE_FIRST: &str = enqueue!("INSERT", first_id!("?13"));

pub(super) const ENQUEUE_NEXT: &str = enqueue!("INSERT", "NULL");

/// The same for a job that has nothing but its arguments, as most: what is not bound costs less.
macro_rules! enqueue_plain {
    ($id:expr, $columns:literal, $values:literal) => {
        concat!(
            "INSERT INTO kiln_jobs (id, queue, worker, args, max_attempts, priority, inserted_at, scheduled_at",
            $columns,
            ") VALUES (",
            $id,
            ", ?1, ?2, ?3, ?4, ?5, ?6, ?6",
            $values,
            ")"
        )
    };
}

pub(super) const ENQUEUE_FIRST_PLAIN: &str = enqueue_plain!(first_id!("?7"), "", "");

pub(super) const ENQUEUE_NEXT_PLAIN: &str = enqueue_plain!("NULL", "", "");

/// The same for a job that is claimed at once.
pub(super) const ENQUEUE_CLAIMED: &str =
    enqueue_plain!(first_id!("?7"), ", state, attempt, attempted_at, attempted_by", ", 'executing', 1, ?8, ?9");

pub(super) const ENQUEUE_FIRST_UNIQUE: &str = enqueue!("INSERT OR IGNORE", unless_double!(first_id!("?13")));

pub(super) const ENQUEUE_NEXT_UNIQUE: &str = enqueue!("INSERT OR IGNORE", unless_double!("NULL"));

/// Jobs that differ in nothing but their arguments, which are the table ?4.
pub(super) const ENQUEUE_ALIKE: &str = "
INSERT INTO kiln_jobs (state, queue, worker, args, meta, tags, max_attempts, priority, inserted_at, scheduled_at,
  expires_at, unique_key)
SELECT ?1, ?2, ?3, value, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM rarray(?4)";

pub(super) const NEWEST: &str = "SELECT ifnull(max(id), 0) FROM kiln_jobs";

pub(super) const REMEMBER_NEWEST: &str = "UPDATE kiln_schema SET last_id = max(last_id, ?1)";

/// Changes nothing where a kiln of this version may write, and takes the lock for writing.
pub(super) const TAKEN_OVER: &str = "UPDATE kiln_schema SET last_id = last_id WHERE max(min_reader, min_writer) > ?1";

/// What waits and has expired is as good as cancelled.
macro_rules! not_expired {
    () => {
        "(state NOT IN ('available', 'scheduled', 'retryable', 'suspended') OR ifnull(expires_at, ?4 + 1) > ?4)"
    };
}

/// The time that counts for a double, as the index has it.
macro_rules! stamp {
    () => {
        "CASE WHEN unique_key GLOB 's*' THEN scheduled_at ELSE inserted_at END"
    };
}

/// Whether there are keys of schema version 1.
pub(super) const ELDER_KEYS: &str =
    "SELECT 1 FROM kiln_jobs INDEXED BY kiln_jobs_doubles WHERE unique_key < 'g' LIMIT 1";

/// The doubles of a unique job in one state; the states are asked for one by one.
pub(super) const DOUBLE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM kiln_jobs INDEXED BY kiln_jobs_doubles
WHERE unique_key = ?1 AND state = ?2 AND ",
    stamp!(),
    " >= ?3 AND ",
    not_expired!(),
    " ORDER BY ",
    stamp!(),
    " DESC LIMIT 1"
);

/// One arm of a claim; the arms of all known workers are merged in claim order. An attempt is never claimed past the
/// last: such a row waits for its rescue.
const CLAIM_ARM: &str = concat!(
    "SELECT ",
    claim_columns!(),
    " FROM kiln_jobs INDEXED BY kiln_jobs_available
WHERE state = 'available' AND attempt < max_attempts AND queue = ?1 AND worker = ?"
);

/// How many sorted lists SQLite merges in one statement: 500, and some to spare.
const MOST_WORKERS: usize = 400;

/// The jobs to claim: parameter 1 is the queue, 2 the limit, then one worker each.
pub(super) fn claim(workers: usize) -> &'static str {
    static TEXTS: [OnceLock<String>; MOST_WORKERS + 1] = [const { OnceLock::new() }; MOST_WORKERS + 1];
    TEXTS[workers].get_or_init(|| {
        let arms: Vec<String> = (0..workers).map(|n| format!("{CLAIM_ARM}{}", n + 3)).collect();
        format!("{} ORDER BY priority, scheduled_at, id LIMIT ?2", arms.join(" UNION ALL "))
    })
}

/// Whether a queue has anything to claim, for whichever worker.
pub(super) const ANY_AVAILABLE: &str = "
SELECT 1 FROM kiln_jobs INDEXED BY kiln_jobs_available
WHERE state = 'available' AND attempt < max_attempts AND queue = ?1 LIMIT 1";

/// The ids alone, in claim order, of one worker's jobs: read from the index, they can be told where a row cannot be read.
pub(super) const CLAIMABLE: &str = "
SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_available
WHERE state = 'available' AND attempt < max_attempts AND queue = ?1 AND worker = ?2
ORDER BY priority, scheduled_at, id";

pub(super) const CLAIM_ONE: &str = "
UPDATE kiln_jobs SET state = 'executing', attempt = ?2, attempted_at = ?3, attempted_by = ?4 WHERE id = ?1";

/// The same for neighbours that were never claimed before.
pub(super) const CLAIM_FRESH: &str = "
UPDATE kiln_jobs SET state = 'executing', attempt = 1, attempted_at = ?3, attempted_by = ?4 WHERE id BETWEEN ?1 AND ?2";

pub(super) const ERRORS: &str = "SELECT errors FROM kiln_jobs WHERE id = ?1";

pub(super) const EXPIRE: &str = "
UPDATE kiln_jobs SET state = 'cancelled', cancelled_at = ?2, errors = ?3 WHERE id = ?1";

/// The ack that is nearly every ack.
pub(super) const ACK_COMPLETE: &str = "
UPDATE kiln_jobs SET state = 'completed', completed_at = ?4, checkpoint = NULL, crashes = 0
WHERE id = ?1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = 'executing'";

/// The same for neighbours that were claimed at once.
pub(super) const ACK_COMPLETE_MANY: &str = "
UPDATE kiln_jobs SET state = 'completed', completed_at = ?5, checkpoint = NULL, crashes = 0
WHERE id BETWEEN ?1 AND ?2 AND attempt = ?3 AND ifnull(attempted_at, 0) = ?4 AND state = 'executing'";

/// The ack of a job that recorded a value and has nothing else in its meta, as most have.
pub(super) const ACK_RECORD: &str = "
UPDATE kiln_jobs SET state = 'completed', completed_at = ?4, checkpoint = NULL, meta = ?5, crashes = 0
WHERE id = ?1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = 'executing' AND meta = '{}'";

/// The same for neighbours that were claimed at once.
pub(super) const ACK_RECORD_MANY: &str = "
UPDATE kiln_jobs SET state = 'completed', completed_at = ?5, checkpoint = NULL, meta = kiln_recorded(id), crashes = 0
WHERE id BETWEEN ?1 AND ?2 AND attempt = ?3 AND ifnull(attempted_at, 0) = ?4 AND state = 'executing' AND meta = '{}'";

/// Whether the attempt was the one that completed its job.
pub(super) const COMPLETED: &str = "
SELECT 1 FROM kiln_jobs WHERE id = ?1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = 'completed'";

pub(super) const ACK_STANDING: &str = "
SELECT attempt, max_attempts, meta, errors, cancel_requested_at, crashes FROM kiln_jobs
WHERE id = ?1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = 'executing'";

pub(super) const STANDING: &str = "
SELECT attempt, max_attempts, meta, errors, cancel_requested_at, crashes FROM kiln_jobs WHERE id = ?1";

pub(super) const ACK_SETTLE: &str = "
UPDATE kiln_jobs SET state = ?2, attempt = ?3, scheduled_at = coalesce(?4, scheduled_at), meta = coalesce(?5, meta),
  errors = coalesce(?6, errors),
  completed_at = CASE ?2 WHEN 'completed' THEN ?7 ELSE completed_at END,
  cancelled_at = CASE ?2 WHEN 'cancelled' THEN ?7 ELSE cancelled_at END,
  discarded_at = CASE ?2 WHEN 'discarded' THEN ?7 ELSE discarded_at END,
  checkpoint = CASE ?2 WHEN 'completed' THEN NULL ELSE checkpoint END, crashes = coalesce(?8, crashes)
WHERE id = ?1";

pub(super) const NOTE_PROGRESS: &str = "
UPDATE kiln_jobs SET progress = ?4 WHERE id = ?1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = 'executing'";

pub(super) const NOTE_CHECKPOINT: &str = "
UPDATE kiln_jobs SET checkpoint = ?4 WHERE id = ?1 AND attempt = ?2 AND ifnull(attempted_at, 0) = ?3 AND state = 'executing'";

pub(super) const NOTES: &str = "SELECT progress, checkpoint FROM kiln_jobs WHERE id = ?1";

pub(super) const STAGE: &str = "
UPDATE kiln_jobs SET state = 'available' WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_due
  WHERE state IN ('scheduled', 'retryable') AND queue = ?1 AND scheduled_at <= ?2
  ORDER BY scheduled_at LIMIT ?3)";

/// Numbers come before all else: a due time that is none is never due.
pub(super) const NEXT_DUE: &str = "
SELECT scheduled_at FROM kiln_jobs INDEXED BY kiln_jobs_due
WHERE state IN ('scheduled', 'retryable') AND queue = ?1 AND scheduled_at <= 9223372036854775807
ORDER BY scheduled_at LIMIT 1";

/// The executing jobs are as many as there are slots, on all runtimes together.
pub(super) const EXECUTING: &str = "
SELECT id, attempt, attempted_at, attempted_by, queue, crashes FROM kiln_jobs INDEXED BY kiln_jobs_executing
WHERE state = 'executing'";

pub(super) const CANCELLING: &str = "
SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_executing WHERE state = 'executing' AND cancel_requested_at > 0";

pub(super) const EXHAUSTED: &str = "
SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_exhausted WHERE state = 'available' AND attempt >= max_attempts LIMIT 1";

pub(super) const DISCARD_EXHAUSTED: &str = "
UPDATE kiln_jobs SET state = 'discarded', discarded_at = ?1 WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_exhausted
  WHERE state = 'available' AND attempt >= max_attempts LIMIT ?2)";

pub(super) const PRUNE_COMPLETED: &str = "
DELETE FROM kiln_jobs WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_completed
  WHERE state = 'completed' AND completed_at <= ?1 ORDER BY completed_at LIMIT ?2)";

pub(super) const PRUNE_CANCELLED: &str = "
DELETE FROM kiln_jobs WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_cancelled
  WHERE state = 'cancelled' AND cancelled_at <= ?1 ORDER BY cancelled_at LIMIT ?2)";

pub(super) const PRUNE_DISCARDED: &str = "
DELETE FROM kiln_jobs WHERE id IN (
  SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_discarded
  WHERE state = 'discarded' AND discarded_at <= ?1 ORDER BY discarded_at LIMIT ?2)";

pub(super) const GET: &str = concat!("SELECT ", columns!(), " FROM kiln_jobs WHERE id = ?1");

/// What an operator's verb needs to know of a row.
pub(super) const SUBJECT: &str = "SELECT id, queue, worker, attempt, state FROM kiln_jobs WHERE id = ?1";

pub(super) const CANCEL: &str = "
UPDATE kiln_jobs SET state = 'cancelled', cancelled_at = ?2, meta = ?3 WHERE id = ?1";

pub(super) const CANCEL_EXECUTING: &str = "
UPDATE kiln_jobs SET cancel_requested_at = coalesce(cancel_requested_at, ?2) WHERE id = ?1";

/// A job that took its process down runs alone all the same, and with all but one crash to spare.
pub(super) const RETRY: &str = "
UPDATE kiln_jobs SET state = 'available', crashes = min(crashes, 1), max_attempts = max(max_attempts, attempt + 1), scheduled_at = ?2,
  completed_at = NULL, cancelled_at = NULL, discarded_at = NULL, cancel_requested_at = NULL, expires_at = NULL
WHERE id = ?1";

pub(super) const DELETE: &str = "DELETE FROM kiln_jobs WHERE id = ?1";

pub(super) const UPDATE: &str = "
UPDATE kiln_jobs SET args = ?2, max_attempts = ?3, meta = ?4, priority = ?5, queue = ?6, scheduled_at = ?7,
  state = ?8, tags = ?9, worker = ?10, expires_at = ?11, unique_key = coalesce(?12, unique_key)
WHERE id = ?1";

pub(super) const UNIQUE_KEY: &str = "SELECT unique_key FROM kiln_jobs WHERE id = ?1";

macro_rules! cron_columns {
    () => {
        "name, expression, zone, worker, queue, args, meta, tags, max_attempts, priority, missed, missed_max, \
         missed_within, paused, since, last_slot, inserted_at, revision, uniqueness, expires_in"
    };
}

/// All entries: a program has a handful.
pub(super) const CRONS: &str = concat!("SELECT ", cron_columns!(), " FROM kiln_crons ORDER BY name");

pub(super) const CRON: &str = concat!("SELECT ", cron_columns!(), " FROM kiln_crons WHERE name = ?1");

/// A new entry, or a new definition of one that is there.
pub(super) const STORE_CRON: &str = "
INSERT INTO kiln_crons (name, expression, zone, worker, queue, args, meta, tags, max_attempts, priority, missed,
  missed_max, missed_within, paused, since, inserted_at, revision, uniqueness, expires_in)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
ON CONFLICT (name) DO UPDATE SET expression = ?2, zone = ?3, worker = ?4, queue = ?5, args = ?6, meta = ?7, tags = ?8,
  max_attempts = ?9, priority = ?10, missed = ?11, missed_max = ?12, missed_within = ?13, paused = ?14, since = ?15,
  uniqueness = ?18, expires_in = ?19, revision = revision + 1";

pub(super) const DELETE_CRON: &str = "DELETE FROM kiln_crons WHERE name = ?1";

/// The slot counts as settled where nobody changed the entry, or settled a slot of it, since it was read.
pub(super) const SETTLE_SLOT: &str = "
UPDATE kiln_crons SET last_slot = ?3, revision = revision + 1 WHERE name = ?1 AND revision = ?2";

pub(super) const JOIN: &str = "
INSERT INTO kiln_runtimes (id, node, pid, port, queues, workers, started_at, plans)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

pub(super) const LEAVE: &str = "DELETE FROM kiln_runtimes WHERE id = ?1";

pub(super) const FORGET_RUNTIMES: &str = "DELETE FROM kiln_runtimes";

pub(super) const MEMBERS: &str = "
SELECT id, node, pid, port, queues, workers, started_at, plans FROM kiln_runtimes";

pub(super) const ANNOUNCE: &str = "UPDATE kiln_runtimes SET queues = ?2, plans = ?3 WHERE id = ?1";

pub(super) const RULINGS: &str = "SELECT queue, paused, \"limit\", scaled_at, run FROM kiln_queues";

pub(super) const SAY_PAUSED: &str = "
INSERT INTO kiln_queues (queue, paused) VALUES (?1, ?2) ON CONFLICT (queue) DO UPDATE SET paused = excluded.paused";

pub(super) const UNSAY_PAUSES: &str = "UPDATE kiln_queues SET paused = NULL";

/// Each limit is later than all others, whatever the clock does.
pub(super) const SAY_LIMIT: &str = "
INSERT INTO kiln_queues (queue, \"limit\", scaled_at)
VALUES (?1, ?2, max(?3, (SELECT coalesce(max(scaled_at), 0) + 1 FROM kiln_queues)))
ON CONFLICT (queue) DO UPDATE SET \"limit\" = excluded.\"limit\", scaled_at = excluded.scaled_at";

pub(super) const UNSAY_LIMITS: &str = "UPDATE kiln_queues SET \"limit\" = NULL";

/// All columns there are, a newer kiln's as well.
pub(super) const ROWS: &str = "SELECT * FROM kiln_jobs";

/// What a diagnosis looks for in the rows: a count, and the ids of the first.
pub(super) const EXECUTING_SINCE: &str = "
SELECT id, attempted_at, attempted_by, cancel_requested_at FROM kiln_jobs INDEXED BY kiln_jobs_executing
WHERE state = 'executing' ORDER BY id";

pub(super) const ALL_EXHAUSTED: &str = "
SELECT id FROM kiln_jobs INDEXED BY kiln_jobs_exhausted
WHERE state = 'available' AND attempt >= max_attempts ORDER BY id";

pub(super) const CRASHED: &str = "
SELECT id FROM kiln_jobs
WHERE crashes > 0 AND state IN ('available', 'scheduled', 'executing', 'retryable', 'discarded') ORDER BY id";

pub(super) const MALFORMED: &str = "
SELECT id FROM kiln_jobs
WHERE state NOT IN ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled', 'suspended')
  OR typeof(args) <> 'text' OR typeof(meta) <> 'text' OR NOT json_valid(args) OR NOT json_valid(meta)
  OR NOT json_valid(tags) OR NOT json_valid(errors) OR typeof(attempt) <> 'integer' OR attempt < 0
  OR typeof(max_attempts) <> 'integer' OR typeof(scheduled_at) <> 'integer'
ORDER BY id";

pub(super) const LARGE: &str = "
SELECT id FROM kiln_jobs WHERE octet_length(args) + octet_length(meta) > 65536 ORDER BY id";

pub(super) const SAY_RUN: &str = "
INSERT INTO kiln_queues (queue, run) VALUES (?1, ?2) ON CONFLICT (queue) DO UPDATE SET run = excluded.run";

pub(super) const UNSAY_RUNS: &str = "UPDATE kiln_queues SET run = NULL";
