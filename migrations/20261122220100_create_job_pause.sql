-- Pauses: what is not to be started. The owners of slices read them every time they look for jobs
-- after a poll; what runs goes on.

CREATE TABLE tallylight.job_pause (
  scope     text        NOT NULL CHECK (scope IN ('queue', 'kind', 'key')),
  name      text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 1024),
  paused_at timestamptz NOT NULL DEFAULT now(),
  paused_by text        NOT NULL,
  reason    text,
  PRIMARY KEY (scope, name),
  CHECK (NOT (scope = 'kind' AND name IN ('timer', 'forward')))
);
COMMENT ON TABLE  tallylight.job_pause IS 'Jobs of these queues, kinds and keys are not started. Timers and forwards never wait: they are how time and facts pass';
COMMENT ON COLUMN tallylight.job_pause.name IS 'With scope key: a limit_key, or the subject of jobs without one';

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'SELECT ON tallylight.job_pause'),
  ('tallylight_readonly', 'SELECT ON tallylight.job_pause'),
  ('tallylight_api', 'SELECT, INSERT, DELETE ON tallylight.job_pause');
SELECT tallylight.ensure_roles();
