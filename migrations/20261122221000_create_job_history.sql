-- What is kept of runs and jobs that have ended, by day: pruned by dropping days, never by deleting.
--
-- Which of it is written is the workers' setting `jobs.history`. A run that ended with its process
-- is always noted, since that is what a quarantine is judged by.

CREATE TABLE tallylight.job_holder (
  slice      smallint    NOT NULL,
  epoch      bigint      NOT NULL,
  process    uuid        NOT NULL,
  host       text,
  version    text,
  claimed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (slice, epoch)
);
COMMENT ON TABLE  tallylight.job_holder IS 'Which process, on which machine, of which build ran the jobs of a slice under an epoch';

CREATE TABLE tallylight.job_attempt (
  slice      smallint    NOT NULL,
  job        uuid        NOT NULL,
  attempt    int         NOT NULL,
  kind       text        NOT NULL,
  epoch      bigint      NOT NULL,
  process    uuid,
  host       text,
  version    text,
  started_at timestamptz,
  ended_at   timestamptz NOT NULL DEFAULT now(),
  outcome    text        NOT NULL,
  error      text,
  trace      text,
  PRIMARY KEY (slice, job, attempt, ended_at)
) PARTITION BY RANGE (ended_at);
COMMENT ON TABLE  tallylight.job_attempt IS 'Runs of jobs that have ended; appended only';
COMMENT ON COLUMN tallylight.job_attempt.attempt IS 'The number of the start; (epoch, attempt) was the token of the run';
COMMENT ON COLUMN tallylight.job_attempt.ended_at IS 'Of a run that ended with its process: when the next holder of the slice found it';
COMMENT ON COLUMN tallylight.job_attempt.outcome IS 'completed, failed, discarded, cancelled or crashed';
COMMENT ON COLUMN tallylight.job_attempt.trace IS 'traceparent of the trace it was part of';

CREATE TABLE tallylight.job_history (
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
  trace          text,
  state          text        NOT NULL CHECK (state IN ('completed', 'discarded', 'cancelled', 'quarantined')),
  ended_at       timestamptz NOT NULL,
  PRIMARY KEY (slice, id, ended_at)
) PARTITION BY RANGE (ended_at);
COMMENT ON TABLE  tallylight.job_history IS 'Jobs that have ended, as they were then; appended only';
COMMENT ON COLUMN tallylight.job_history.state IS 'How it ended. A dead letter that is retried ends again, and has a row for each end';

CREATE TABLE tallylight.job_attempt_default PARTITION OF tallylight.job_attempt DEFAULT;
CREATE TABLE tallylight.job_history_default PARTITION OF tallylight.job_history DEFAULT;
COMMENT ON TABLE tallylight.job_attempt_default IS 'Runs that met no day';
COMMENT ON TABLE tallylight.job_history_default IS 'Jobs that met no day';

ALTER TABLE tallylight.job
  ADD COLUMN cancel_at timestamptz,
  -- A default, so that every way to enqueue has it: SET LOCAL tallylight.traceparent = '00-..'.
  ADD COLUMN trace text DEFAULT CASE
    WHEN current_setting('tallylight.traceparent', true) ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
    THEN current_setting('tallylight.traceparent', true) END;
COMMENT ON COLUMN tallylight.job.cancel_at IS 'Somebody cancelled it then. It is not started any more: its run_epoch is that of its run, or the greatest number';
COMMENT ON COLUMN tallylight.job.trace IS 'traceparent of the trace that it is part of (W3C Trace Context)';
-- Mostly empty. A start mark changes neither column, so it still writes no index.
CREATE INDEX job_cancelled ON tallylight.job (slice) WHERE cancel_at IS NOT NULL;

ALTER TABLE tallylight.job_dead ADD COLUMN trace text, ADD COLUMN killed jsonb;
COMMENT ON COLUMN tallylight.job_dead.killed IS 'Of a quarantined job: the processes that ended while it ran, with machine, build and start';
CREATE INDEX job_dead_age ON tallylight.job_dead (slice, died_at);

CREATE FUNCTION tallylight.job_state(run_epoch bigint, cancel_at timestamptz, errors int, run_at timestamptz) RETURNS text
LANGUAGE sql STABLE
AS $$
  SELECT CASE WHEN run_epoch < 9223372036854775807 THEN 'running'
              WHEN cancel_at IS NOT NULL THEN 'cancelled'
              WHEN run_at <= now() THEN 'available'
              WHEN errors > 0 THEN 'retryable'
              ELSE 'scheduled' END
$$;
COMMENT ON FUNCTION tallylight.job_state(bigint, timestamptz, int, timestamptz) IS 'The state of a live job, by the names that other job engines use';

-- The days of one of the two tables. A day whose rows lie in the default partition is not made:
-- they go with their age.
CREATE FUNCTION tallylight.ensure_job_days(p_table text, p_days_ahead int) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  v_from  timestamptz;
  v_name  text;
  v_stray boolean;
  v_made  int := 0;
BEGIN
  FOR v_from IN SELECT date_trunc('day', now()) + make_interval(days => n) FROM generate_series(0, p_days_ahead) AS n LOOP
    v_name := p_table || '_' || to_char(v_from, 'YYYY_MM_DD');
    CONTINUE WHEN to_regclass('tallylight.' || v_name) IS NOT NULL;
    EXECUTE format('SELECT EXISTS (SELECT FROM tallylight.%I WHERE ended_at >= $1 AND ended_at < $2)', p_table || '_default')
      INTO v_stray USING v_from, v_from + interval '1 day';
    CONTINUE WHEN v_stray;
    EXECUTE format('CREATE TABLE tallylight.%I (LIKE tallylight.%I INCLUDING ALL)', v_name, p_table);
    EXECUTE format('ALTER TABLE tallylight.%I ATTACH PARTITION tallylight.%I FOR VALUES FROM (%L) TO (%L)',
                   p_table, v_name, v_from, v_from + interval '1 day');
    v_made := v_made + 1;
  END LOOP;
  RETURN v_made;
END $$;

CREATE FUNCTION tallylight.drop_job_days(p_table text, p_before timestamptz) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  v_name    text;
  v_dropped int := 0;
BEGIN
  FOR v_name IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = format('tallylight.%I', p_table)::regclass
       AND c.relname ~ ('^' || p_table || '_[0-9]{4}_[0-9]{2}_[0-9]{2}$')
       AND to_date(right(c.relname, 10), 'YYYY_MM_DD') + 1 <= p_before
     ORDER BY 1
  LOOP
    EXECUTE format('DROP TABLE tallylight.%I', v_name);
    v_dropped := v_dropped + 1;
  END LOOP;
  EXECUTE format('DELETE FROM tallylight.%I WHERE ended_at < $1', p_table || '_default') USING p_before;
  RETURN v_dropped;
END $$;

CREATE FUNCTION tallylight.keep_job_history(p_days_ahead int, p_keep interval, OUT made int, OUT dropped int)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_before timestamptz := now() - p_keep;
BEGIN
  IF p_keep IS NULL OR p_keep < interval '1 day' OR p_days_ahead IS NULL OR p_days_ahead NOT BETWEEN 0 AND 60 THEN
    RAISE EXCEPTION 'history of jobs is kept for 1 day at least, and made 0 to 60 days ahead' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- One at a time: two would both find a day missing.
  PERFORM pg_advisory_xact_lock(hashtextextended('tallylight.keep_job_history', 0));
  made := tallylight.ensure_job_days('job_attempt', p_days_ahead) + tallylight.ensure_job_days('job_history', p_days_ahead);
  dropped := tallylight.drop_job_days('job_attempt', v_before) + tallylight.drop_job_days('job_history', v_before);
  DELETE FROM tallylight.job_holder h WHERE h.claimed_at < v_before
     AND NOT EXISTS (SELECT FROM tallylight.checkpoint c WHERE c.consumer = 'jobs' AND c.slice = h.slice AND c.epoch = h.epoch);
END $$;
COMMENT ON FUNCTION tallylight.keep_job_history(int, interval) IS
  'Makes the days of job_attempt and job_history ahead, and drops those that are older than p_keep';

REVOKE EXECUTE ON FUNCTION tallylight.ensure_job_days(text, int), tallylight.drop_job_days(text, timestamptz),
  tallylight.keep_job_history(int, interval), tallylight.job_state(bigint, timestamptz, int, timestamptz) FROM PUBLIC;

SELECT tallylight.keep_job_history(7, '30 days');

INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, p.privilege FROM (VALUES
  (ARRAY['worker', 'api', 'readonly'], 'SELECT ON tallylight.job_attempt, tallylight.job_history, tallylight.job_holder'),
  (ARRAY['worker', 'api', 'readonly'], 'EXECUTE ON FUNCTION tallylight.job_state'),
  (ARRAY['worker'], 'INSERT ON tallylight.job_attempt, tallylight.job_history, tallylight.job_holder'),
  (ARRAY['worker'], 'EXECUTE ON FUNCTION tallylight.keep_job_history')
) AS p (roles, privilege), LATERAL (SELECT ('tallylight_' || unnest(p.roles))::name) AS r (role);
SELECT tallylight.ensure_roles();
