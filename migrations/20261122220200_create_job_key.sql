-- Keys that hold for a time, also after their job has ended. Upkeep removes old ones.

CREATE TABLE tallylight.job_key (
  slice      smallint    NOT NULL,
  kind       text        NOT NULL,
  subject    text        NOT NULL,
  unique_key text        NOT NULL,
  job_id     uuid        NOT NULL,
  until      timestamptz NOT NULL,
  PRIMARY KEY (slice, kind, subject, unique_key)
);
COMMENT ON TABLE  tallylight.job_key IS 'Keys of jobs that were enqueued with key_period';
COMMENT ON COLUMN tallylight.job_key.until IS 'From then on the key is free, if no live job has it';

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'SELECT, DELETE ON tallylight.job_key');
SELECT tallylight.ensure_roles();
