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
  checkpoint          TEXT
);

-- One small index for each question that is asked all the time; a finished job is in the last three at the most.
CREATE INDEX kiln_jobs_available ON kiln_jobs (queue, worker, priority, scheduled_at)
  WHERE state = 'available' AND attempt < max_attempts;
CREATE INDEX kiln_jobs_exhausted ON kiln_jobs (attempt) WHERE state = 'available' AND attempt >= max_attempts;
CREATE INDEX kiln_jobs_due ON kiln_jobs (queue, scheduled_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX kiln_jobs_executing ON kiln_jobs (cancel_requested_at) WHERE state = 'executing';
CREATE INDEX kiln_jobs_completed ON kiln_jobs (completed_at) WHERE state = 'completed';
CREATE INDEX kiln_jobs_cancelled ON kiln_jobs (cancelled_at) WHERE state = 'cancelled';
CREATE INDEX kiln_jobs_discarded ON kiln_jobs (discarded_at) WHERE state = 'discarded';
CREATE INDEX kiln_jobs_unique ON kiln_jobs (unique_key, state, inserted_at) WHERE unique_key IS NOT NULL;

-- What recurs. A slot's job and its last_slot are written in one transaction. Each change counts the revision up, from
-- the time of the insert, so that an entry deleted and added again is another one.
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
  revision      INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER))
) WITHOUT ROWID;

-- The runtimes on this file. Whether one lives is told by the lock on its sidecar file, not by its row.
CREATE TABLE kiln_runtimes (
  id         TEXT    PRIMARY KEY,
  node       TEXT    NOT NULL,
  pid        INTEGER NOT NULL,
  port       INTEGER,
  queues     TEXT    NOT NULL,
  workers    TEXT    NOT NULL,
  started_at INTEGER NOT NULL,
  plans      TEXT    NOT NULL DEFAULT '[]'
) WITHOUT ROWID;

-- What was said of queues to all runtimes; the row '' is for every queue of which nothing was said since. NULL: nothing.
CREATE TABLE kiln_queues (
  queue     TEXT    PRIMARY KEY,
  paused    INTEGER,
  "limit"   INTEGER,
  scaled_at INTEGER
) WITHOUT ROWID;

-- Who may read and who may write: a kiln whose schema version is at least these. And the highest id of a deleted job
-- that was the newest: no id is given twice. AUTOINCREMENT would do that as well, for a fifth of a single enqueue.
CREATE TABLE kiln_schema (
  version    INTEGER NOT NULL,
  min_reader INTEGER NOT NULL,
  min_writer INTEGER NOT NULL,
  written_by TEXT    NOT NULL,
  last_id    INTEGER NOT NULL DEFAULT 0
);

-- For people: the same jobs with readable times.
CREATE VIEW kiln_jobs_readable AS
SELECT id, state, queue, worker, args, meta, tags, errors, attempt, max_attempts, priority, attempted_by,
  strftime('%Y-%m-%dT%H:%M:%fZ', inserted_at / 1e6, 'unixepoch') AS inserted_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', scheduled_at / 1e6, 'unixepoch') AS scheduled_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', attempted_at / 1e6, 'unixepoch') AS attempted_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', completed_at / 1e6, 'unixepoch') AS completed_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', cancelled_at / 1e6, 'unixepoch') AS cancelled_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', discarded_at / 1e6, 'unixepoch') AS discarded_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', cancel_requested_at / 1e6, 'unixepoch') AS cancel_requested_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1e6, 'unixepoch') AS expires_at
FROM kiln_jobs;
