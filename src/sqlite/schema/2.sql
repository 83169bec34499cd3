-- From version 1 to 2. Only added: a kiln that knows version 1 goes on as before.

-- How often the job was executing when its process died.
ALTER TABLE kiln_jobs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;

-- Said for all runtimes: 1 runs the queue with the limit beside it, 0 does not run it. NULL: nothing.
ALTER TABLE kiln_queues ADD COLUMN run INTEGER;

-- What else an entry's jobs are given: how they are unique, as JSON, and when they expire, in microseconds after the slot
-- was settled.
ALTER TABLE kiln_crons ADD COLUMN uniqueness TEXT;
ALTER TABLE kiln_crons ADD COLUMN expires_in INTEGER;

-- Which start of the machine the runtime belongs to.
ALTER TABLE kiln_runtimes ADD COLUMN boot TEXT;
