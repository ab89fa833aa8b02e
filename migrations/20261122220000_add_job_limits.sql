-- Limits, fairness, queues: what the owner of a slice needs to know of a job to hold it back.
--
-- A lane says by which index the owner finds a job, so that what may not run never stands before
-- what may. No start mark changes a lane: it would write indexes.

ALTER TABLE tallylight.job
  ADD COLUMN queue             text     NOT NULL DEFAULT 'default',
  ADD COLUMN lane              smallint NOT NULL DEFAULT 0 CHECK (lane BETWEEN 0 AND 3),
  ADD COLUMN limit_key         text,
  ADD COLUMN max_running       smallint CHECK (max_running > 0),
  ADD COLUMN fair_key          text,
  ADD COLUMN key_until_started boolean  NOT NULL DEFAULT false,
  ADD COLUMN edits             int      NOT NULL DEFAULT 0;
COMMENT ON COLUMN tallylight.job.subject IS 'What it is about. Decides the slice, and is its key, where it has no limit_key';
COMMENT ON COLUMN tallylight.job.queue IS 'What it is paused with; platform: decided by the plan';
COMMENT ON COLUMN tallylight.job.lane IS 'How it is found: 0 by time, 1 by its key (jobs of that key were in the way), 2 not at all (paused), 3 by its fair_key';
COMMENT ON COLUMN tallylight.job.limit_key IS 'Takes the place of the subject as its key: at most max_running jobs of a key run at once';
COMMENT ON COLUMN tallylight.job.max_running IS 'Null: 1, so that jobs of a key run one after another';
COMMENT ON COLUMN tallylight.job.fair_key IS 'Whose it is: jobs of different ones take turns';
COMMENT ON COLUMN tallylight.job.key_until_started IS 'The first start frees its unique_key';
COMMENT ON COLUMN tallylight.job.edits IS 'How often what was read of it may have changed before it started';

ALTER TABLE tallylight.job_dead
  ADD COLUMN queue       text NOT NULL DEFAULT 'default',
  ADD COLUMN limit_key   text,
  ADD COLUMN max_running smallint,
  ADD COLUMN fair_key    text;

CREATE INDEX job_due ON tallylight.job (slice, lane, priority, run_at, id);
DROP INDEX tallylight.job_claim;
-- Only what is parked, shared or limited pays for these.
CREATE INDEX job_parked ON tallylight.job (slice, (coalesce(limit_key, subject)), priority, run_at, id) WHERE lane = 1;
CREATE INDEX job_shared ON tallylight.job (slice, fair_key, priority, run_at, id) WHERE lane = 3;
CREATE INDEX job_limited ON tallylight.job (slice, limit_key) WHERE limit_key IS NOT NULL;
