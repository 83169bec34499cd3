-- kiln's tables, version 1. Times are microseconds since 1970, UTC.

CREATE TABLE kiln_jobs (
  id                  INTEGER PRIMARY KEY,
  state               TEXT    NOT NULL DEFAULT 'available',
  queue               TEXT    NOT NULL DEFAULT 'default',
  worker              TEXT    NOT NULL,
  args                TEXT    NOT NULL DEFAULT '{}',
  meta                TEXT    NOT NULL DEFAULT '{}',
  tags                TEXT    NOT NULL DEFAULT '[]',
  errors              TEXT    NOT NULL DEFAULT '[]',
  attempt             INTEGER NOT NULL DEFAULT 0,
  max_attempts        INTEGER NOT NULL DEFAULT 20,
  priority            INTEGER NOT NULL DEFAULT 0,
  attempted_by        TEXT    NOT NULL DEFAULT '[]',
  inserted_at         INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)),
  scheduled_at        INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)),
  attempted_at        INTEGER,
  completed_at        INTEGER,
  cancelled_at        INTEGER,
  discarded_at        INTEGER,
  cancel_requested_at INTEGER,
  expires_at          INTEGER,
  unique_key          TEXT,
  progress            TEXT,
  checkpoint          TEXT,
  -- How often the job's process died soon after an attempt began, since the last ordinary end of an attempt.
  crashes             INTEGER NOT NULL DEFAULT 0,
  -- How often an attempt was given back after its process died, since the last ordinary end of an attempt.
  resumes             INTEGER NOT NULL DEFAULT 0,
  -- attempted_at of the attempt that stored the checkpoint last.
  checkpoint_of       INTEGER
);

-- One small index for each question that is asked all the time. Every change of a job's state evaluates each index whose
-- condition names a changed column, so the conditions name as few columns as they can.
CREATE INDEX kiln_jobs_available ON kiln_jobs (queue, worker, priority, scheduled_at)
  WHERE state = 'available' AND attempt < max_attempts AND crashes < 2;
CREATE INDEX kiln_jobs_exhausted ON kiln_jobs (attempt) WHERE attempt >= max_attempts AND state = 'available';
CREATE INDEX kiln_jobs_due ON kiln_jobs (queue, scheduled_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX kiln_jobs_executing ON kiln_jobs (cancel_requested_at) WHERE state = 'executing';
CREATE INDEX kiln_jobs_completed ON kiln_jobs (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX kiln_jobs_cancelled ON kiln_jobs (cancelled_at) WHERE cancelled_at IS NOT NULL;
CREATE INDEX kiln_jobs_discarded ON kiln_jobs (discarded_at) WHERE discarded_at IS NOT NULL;
CREATE INDEX kiln_jobs_suspects ON kiln_jobs (queue, priority, scheduled_at) WHERE crashes >= 2 AND state = 'available';

-- Duplicates by the time that a period is measured by: the due time if the key begins with an s. One index serves both
-- kinds of keys, since every change of a job's state has to look at each index.
CREATE INDEX kiln_jobs_unique ON kiln_jobs
  (unique_key, state, CASE WHEN unique_key GLOB 's*' THEN scheduled_at ELSE inserted_at END) WHERE unique_key IS NOT NULL;

-- Cron entries. The job of a slot and last_slot are written in one transaction. Each change raises the revision, which
-- begins with the time of the insert, so that an entry that is deleted and added again has another revision.
CREATE TABLE kiln_crons (
  name          TEXT    PRIMARY KEY,
  expression    TEXT    NOT NULL,
  zone          TEXT    NOT NULL DEFAULT 'UTC',
  worker        TEXT    NOT NULL,
  queue         TEXT    NOT NULL DEFAULT 'default',
  args          TEXT    NOT NULL DEFAULT '{}',
  meta          TEXT    NOT NULL DEFAULT '{}',
  tags          TEXT    NOT NULL DEFAULT '[]',
  max_attempts  INTEGER NOT NULL DEFAULT 20,
  priority      INTEGER NOT NULL DEFAULT 0,
  missed        TEXT    NOT NULL DEFAULT 'run_once',
  missed_max    INTEGER,
  missed_within INTEGER,
  paused        INTEGER NOT NULL DEFAULT 0,
  since         INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)),
  last_slot     INTEGER,
  inserted_at   INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)),
  revision      INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)),
  -- How the entry's jobs are unique: a JSON object in which a field that is left out has its default ("fields", "keys",
  -- "period" and "delay" in microseconds, "states", "timestamp", "replace" with fields by state).
  uniqueness    TEXT,
  -- When the entry's jobs expire: microseconds after the slot was settled.
  expires_in    INTEGER
) WITHOUT ROWID;

-- The runtimes on this file. Whether a runtime lives is told by the lock on its sidecar file, not by its row.
CREATE TABLE kiln_runtimes (
  id         TEXT    PRIMARY KEY,
  node       TEXT    NOT NULL,
  pid        INTEGER NOT NULL,
  port       INTEGER,
  queues     TEXT    NOT NULL,
  workers    TEXT    NOT NULL,
  started_at INTEGER NOT NULL,
  plans      TEXT    NOT NULL DEFAULT '[]',
  -- What a datagram to the runtime must carry.
  secret     TEXT,
  -- Whether the runtime lists in its sidecar file what it has begun. If it does and the file is lost, an attempt of the
  -- runtime may not have begun.
  lists      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- The settings of queues, for all runtimes. The row '' holds for every queue without a newer setting of its own. NULL: not
-- set.
CREATE TABLE kiln_queues (
  queue     TEXT    PRIMARY KEY,
  paused    INTEGER,
  "limit"   INTEGER,
  scaled_at INTEGER,
  -- Which runtimes run the queue: none for 0; every runtime, with at most so many of its jobs at once, for 1 and more; for
  -- less than 0, the runtimes that were built with it.
  run       INTEGER
) WITHOUT ROWID;

-- Which kilns may read and write the file: those whose schema version is at least min_reader and min_writer. last_id is the
-- highest id of a deleted job that was the newest, so that no id is given twice. AUTOINCREMENT would do the same, and make a
-- single enqueue a fifth slower.
CREATE TABLE kiln_schema (
  version    INTEGER NOT NULL,
  min_reader INTEGER NOT NULL,
  min_writer INTEGER NOT NULL,
  written_by TEXT    NOT NULL,
  last_id    INTEGER NOT NULL DEFAULT 0
);

-- The jobs for people, with readable times.
CREATE VIEW kiln_jobs_readable AS
SELECT id, state, queue, worker, args, meta, tags, errors, attempt, max_attempts, priority, attempted_by,
  strftime('%Y-%m-%dT%H:%M:%fZ', inserted_at / 1e6, 'unixepoch') AS inserted_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', scheduled_at / 1e6, 'unixepoch') AS scheduled_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', attempted_at / 1e6, 'unixepoch') AS attempted_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', completed_at / 1e6, 'unixepoch') AS completed_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', cancelled_at / 1e6, 'unixepoch') AS cancelled_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', discarded_at / 1e6, 'unixepoch') AS discarded_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', cancel_requested_at / 1e6, 'unixepoch') AS cancel_requested_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1e6, 'unixepoch') AS expires_at,
  unique_key, progress, checkpoint, crashes
FROM kiln_jobs;
