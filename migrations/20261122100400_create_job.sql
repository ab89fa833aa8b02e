-- Jobs: live ones in `job`, those given up in `job_dead`. Finished ones are events of the log.
--
-- A start mark changes no indexed column. Pages are filled to less than half, so that all rows of
-- a page can be marked in one transaction and their new versions stay on it: no index is written.

CREATE TABLE tallylight.job (
  slice          smallint    NOT NULL,
  id             uuid        NOT NULL,
  kind           text        NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]{0,62}$'),
  subject        text        NOT NULL,
  args           jsonb       NOT NULL DEFAULT '{}',
  priority       smallint    NOT NULL DEFAULT 2 CHECK (priority BETWEEN 1 AND 4),
  run_at         timestamptz NOT NULL DEFAULT now(),
  max_attempts   int         NOT NULL DEFAULT 14 CHECK (max_attempts > 0),
  unique_key     text,
  causation_id   uuid,
  correlation_id uuid,
  enqueued_at    timestamptz NOT NULL DEFAULT now(),
  attempt        int         NOT NULL DEFAULT 0,
  errors         int         NOT NULL DEFAULT 0,
  crashes        int         NOT NULL DEFAULT 0,
  run_epoch      bigint,
  started_at     timestamptz,
  last_error     text,
  PRIMARY KEY (slice, id)
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE  tallylight.job IS 'Live jobs only. Run by the process that holds the slice for the consumer `jobs`';
COMMENT ON COLUMN tallylight.job.subject IS 'What it is about; decides the slice. Jobs of one subject run one at a time';
COMMENT ON COLUMN tallylight.job.priority IS '1 (first) to 4';
COMMENT ON COLUMN tallylight.job.unique_key IS 'At most one live job of a kind and subject has it';
COMMENT ON COLUMN tallylight.job.attempt IS 'Starts; never goes back, so (epoch, attempt) is unique for ever';
COMMENT ON COLUMN tallylight.job.errors IS 'Failed attempts, counted against max_attempts';
COMMENT ON COLUMN tallylight.job.crashes IS 'Attempts that ended with their process';
COMMENT ON COLUMN tallylight.job.run_epoch IS 'Epoch of the lease it was started under; null: not running';

CREATE INDEX job_claim ON tallylight.job (slice, priority, run_at, id);
CREATE UNIQUE INDEX job_unique ON tallylight.job (slice, kind, subject, unique_key) WHERE unique_key IS NOT NULL;

CREATE TABLE tallylight.job_dead (
  slice          smallint    NOT NULL,
  id             uuid        NOT NULL,
  kind           text        NOT NULL,
  subject        text        NOT NULL,
  args           jsonb       NOT NULL,
  priority       smallint    NOT NULL,
  max_attempts   int         NOT NULL,
  causation_id   uuid,
  correlation_id uuid,
  enqueued_at    timestamptz NOT NULL,
  attempt        int         NOT NULL,
  errors         int         NOT NULL,
  crashes        int         NOT NULL,
  last_error     text,
  state          text        NOT NULL CHECK (state IN ('discarded', 'quarantined')),
  died_at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (slice, id)
);
COMMENT ON TABLE  tallylight.job_dead IS 'Dead letters: jobs that were given up, until somebody retries or removes them';
COMMENT ON COLUMN tallylight.job_dead.state IS 'discarded: failed for good; quarantined: its process died with it again and again';
