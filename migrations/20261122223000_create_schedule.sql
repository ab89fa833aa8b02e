-- Schedules: jobs that are enqueued again and again, by cron expression and time zone.
--
-- Nobody leads: the holder of the slice (consumer `jobs`) fires, in one fenced transaction that
-- moves next_fire_at on, inserts the fire, and enqueues its job. What the expression means is not
-- known here; whoever writes next_fire_at has computed it.

CREATE TABLE tallylight.schedule (
  slice        smallint    NOT NULL,
  name         text        NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  cron         text        NOT NULL,
  time_zone    text        NOT NULL,
  kind         text        NOT NULL,
  args         jsonb       NOT NULL DEFAULT '{}',
  opts         jsonb       NOT NULL DEFAULT '{}',
  missed       text        NOT NULL DEFAULT 'coalesce' CHECK (missed IN ('skip', 'coalesce', 'catch_up')),
  catch_up     smallint    NOT NULL DEFAULT 1 CHECK (catch_up BETWEEN 1 AND 1000),
  paused       boolean     NOT NULL DEFAULT false,
  next_fire_at timestamptz,
  version      bigint      NOT NULL DEFAULT 1,
  last_fire_at timestamptz,
  last_error   text,
  made_at      timestamptz NOT NULL DEFAULT now(),
  changed_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (slice, name)
);
COMMENT ON TABLE  tallylight.schedule IS 'Jobs that are enqueued again and again. The slice is that of the subject schedule/NAME';
COMMENT ON COLUMN tallylight.schedule.cron IS 'Cron expression, read in time_zone';
COMMENT ON COLUMN tallylight.schedule.time_zone IS 'Name in the IANA time zone database';
COMMENT ON COLUMN tallylight.schedule.opts IS 'Options of enqueue for its jobs, without run_at';
COMMENT ON COLUMN tallylight.schedule.missed IS 'What becomes of fires that nobody performed in time: skip, coalesce (one job for all), catch_up (one each)';
COMMENT ON COLUMN tallylight.schedule.catch_up IS 'The most jobs that catch_up enqueues at once: for the last fires';
COMMENT ON COLUMN tallylight.schedule.next_fire_at IS 'Null: the expression names no more';
COMMENT ON COLUMN tallylight.schedule.version IS 'Raised by every change that somebody made, so that nobody fires by what he read before it';
COMMENT ON COLUMN tallylight.schedule.last_error IS 'Why the last fire was not enqueued';

CREATE INDEX schedule_due ON tallylight.schedule (slice, next_fire_at) WHERE NOT paused;

CREATE TABLE tallylight.schedule_fire (
  slice     smallint    NOT NULL,
  name      text        NOT NULL,
  fire_at   timestamptz NOT NULL,
  fired_at  timestamptz NOT NULL DEFAULT now(),
  job       uuid,
  by_hand   boolean     NOT NULL DEFAULT false,
  PRIMARY KEY (slice, name, fire_at)
);
COMMENT ON TABLE  tallylight.schedule_fire IS 'Fires that were performed: each enqueued one job. Kept for a week';
COMMENT ON COLUMN tallylight.schedule_fire.fire_at IS 'The moment that the expression names; by hand: when somebody asked for it';
COMMENT ON COLUMN tallylight.schedule_fire.job IS 'Its job; with an option `key`, perhaps one that waited already';

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'SELECT, UPDATE ON tallylight.schedule'),
  ('tallylight_worker', 'SELECT, INSERT, UPDATE, DELETE ON tallylight.schedule_fire'),
  ('tallylight_api', 'SELECT, INSERT, UPDATE, DELETE ON tallylight.schedule, tallylight.schedule_fire'),
  ('tallylight_api', 'EXECUTE ON FUNCTION tallylight.check_enqueue'),
  ('tallylight_readonly', 'SELECT ON tallylight.schedule, tallylight.schedule_fire');
SELECT tallylight.ensure_roles();
