-- From version 1 to 2. A kiln that knows version 1 may no longer write: it would not see the doubles of this one's unique
-- jobs. One that has the file open already goes on, and fails to enqueue those.

-- How often the job was executing when its process died, since it last ended by itself.
ALTER TABLE kiln_jobs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;

-- Doubles by the time that counts for them: their due time, where the key says so and begins with an s. One index and not
-- two, since every change of a job's state has to look at each; and not by its old name, which an older kiln asks for.
DROP INDEX kiln_jobs_unique;
CREATE INDEX kiln_jobs_doubles ON kiln_jobs
  (unique_key, state, CASE WHEN unique_key GLOB 's*' THEN scheduled_at ELSE inserted_at END) WHERE unique_key IS NOT NULL;

-- Who runs the queue: nobody for 0, every runtime with at most so many of its jobs at once for 1 and more, those that
-- were built with it for less. NULL: nothing was said.
ALTER TABLE kiln_queues ADD COLUMN run INTEGER;

-- What else an entry's jobs are given: how they are unique, as a JSON object in which what is left out is the default
-- ("fields", "keys", "period" and "delay" in microseconds, "states", "timestamp", "replace" with fields by state), and
-- when they expire, in microseconds after the slot was settled.
ALTER TABLE kiln_crons ADD COLUMN uniqueness TEXT;
ALTER TABLE kiln_crons ADD COLUMN expires_in INTEGER;

-- Every change of a job's state looks at every index whose condition names it, so conditions name as little as they can.
DROP INDEX kiln_jobs_exhausted;
DROP INDEX kiln_jobs_completed;
DROP INDEX kiln_jobs_cancelled;
DROP INDEX kiln_jobs_discarded;
CREATE INDEX kiln_jobs_exhausted ON kiln_jobs (attempt) WHERE attempt >= max_attempts AND state = 'available';
CREATE INDEX kiln_jobs_completed ON kiln_jobs (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX kiln_jobs_cancelled ON kiln_jobs (cancelled_at) WHERE cancelled_at IS NOT NULL;
CREATE INDEX kiln_jobs_discarded ON kiln_jobs (discarded_at) WHERE discarded_at IS NOT NULL;
