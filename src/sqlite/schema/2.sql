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

-- Every change of a job's state looks at every index whose condition names it, so they are few, and conditions name as
-- little as they can. What executes and what ended share one, by the name that an older kiln asks for: the newest end and
-- the executing jobs are neighbours there, so that a commit that ends a job and claims the next writes one page of it.
-- Discarded jobs come first, then the cancelled, then the completed, each by when; then those that execute; then those of
-- them that were asked to cancel.
DROP INDEX kiln_jobs_exhausted;
DROP INDEX kiln_jobs_executing;
DROP INDEX kiln_jobs_completed;
DROP INDEX kiln_jobs_cancelled;
DROP INDEX kiln_jobs_discarded;
CREATE INDEX kiln_jobs_exhausted ON kiln_jobs (attempt) WHERE attempt >= max_attempts AND state = 'available';
CREATE INDEX kiln_jobs_executing ON kiln_jobs
  (CASE state WHEN 'executing' THEN 4000000000000000000 + ifnull(cancel_requested_at > 0, 0)
   WHEN 'completed' THEN completed_at WHEN 'cancelled' THEN cancelled_at - 4000000000000000000
   ELSE discarded_at - 8000000000000000000 END)
  WHERE state = 'executing' OR completed_at IS NOT NULL OR cancelled_at IS NOT NULL OR discarded_at IS NOT NULL;
