-- enqueue_many: a batch of jobs in one call, all or nothing.

CREATE FUNCTION tallylight.enqueue_many(jobs jsonb, wake boolean DEFAULT false)
RETURNS TABLE (n int, id uuid, is_new boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_slices smallint;
  v_told   text;
  v_ids    uuid[];
  v_news   boolean[];
  v_job    jsonb;
  v_now    timestamptz := clock_timestamp();
  -- Jobs with these options only are rows and nothing more; enqueue_job knows what others mean.
  v_plain  constant text[] := ARRAY['subject', 'run_at', 'priority', 'max_attempts'];
BEGIN
  IF (CASE WHEN jsonb_typeof(jobs) = 'array' THEN jsonb_array_length(jobs) > 10000 ELSE true END) THEN
    RAISE EXCEPTION 'jobs must be a JSON array of at most 10000 objects {"kind", "args", "opts"}'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  n := 0;
  BEGIN
    FOR v_job IN SELECT j.job FROM jsonb_array_elements(jobs) WITH ORDINALITY AS j (job, n) ORDER BY j.n LOOP
      n := n + 1;
      IF jsonb_typeof(v_job) <> 'object' OR v_job - ARRAY['kind', 'args', 'opts'] <> '{}' THEN
        RAISE EXCEPTION 'a job must be an object {"kind", "args", "opts"}' USING ERRCODE = 'invalid_parameter_value';
      END IF;
      PERFORM tallylight.check_enqueue(v_job ->> 'kind', coalesce(v_job -> 'args', '{}'), coalesce(v_job -> 'opts', '{}'));
      PERFORM (v_job -> 'opts' ->> 'run_at')::timestamptz;
    END LOOP;
  EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION 'job %: %', n, SQLERRM USING ERRCODE = 'invalid_parameter_value';
  END;

  SELECT i.slices INTO STRICT v_slices FROM tallylight.installation i;
  -- Volatile values first: on Citus, no statement that is sent to several nodes may hold one.
  v_ids := ARRAY(SELECT gen_random_uuid() FROM generate_series(1, n));
  v_news := array_fill(true, ARRAY[n]);

  INSERT INTO tallylight.job (slice, id, kind, subject, args, priority, run_at, max_attempts)
  SELECT tallylight.slice_of(j.subject, v_slices), j.id, j.kind, j.subject, j.args, j.priority, j.run_at, j.max_attempts
    FROM (SELECT v_ids[e.n] AS id, e.job ->> 'kind' AS kind, coalesce(e.job -> 'args', '{}') AS args,
                 coalesce(e.job -> 'opts' ->> 'subject', 'job/' || v_ids[e.n]) AS subject,
                 coalesce((e.job -> 'opts' ->> 'priority')::smallint, 2::smallint) AS priority,
                 coalesce((e.job -> 'opts' ->> 'run_at')::timestamptz, v_now) AS run_at,
                 coalesce((e.job -> 'opts' ->> 'max_attempts')::int, 14) AS max_attempts
            FROM jsonb_array_elements(jobs) WITH ORDINALITY AS e (job, n)
           WHERE coalesce(e.job -> 'opts', '{}') - v_plain = '{}') AS j;

  -- In one order for every caller, so that two with the same keys wait for each other and never
  -- both ways.
  FOR n, v_job IN
    SELECT e.n, e.job FROM jsonb_array_elements(jobs) WITH ORDINALITY AS e (job, n)
     WHERE coalesce(e.job -> 'opts', '{}') - v_plain <> '{}'
     ORDER BY e.job ->> 'kind', e.job -> 'opts' ->> 'subject', e.job -> 'opts' ->> 'key', e.n
  LOOP
    SELECT e.id, e.is_new INTO STRICT id, is_new
      FROM tallylight.enqueue_job(v_job ->> 'kind', coalesce(v_job -> 'args', '{}'), coalesce(v_job -> 'opts', '{}')) AS e;
    v_ids[n] := id;
    v_news[n] := is_new;
  END LOOP;

  -- It is sent at the commit and takes a lock of the whole cluster there: only where it was asked for.
  -- Of all slices: jobs without a subject lie anywhere.
  IF wake AND v_ids <> '{}' THEN
    SELECT ';' || string_agg(s.slice::text, ',') INTO v_told FROM generate_series(0, v_slices - 1) AS s (slice);
    PERFORM pg_notify('tallylight', CASE WHEN length(v_told) < 7900 THEN v_told ELSE '' END);
  END IF;
  RETURN QUERY SELECT u.n::int, u.id, u.is_new
                 FROM unnest(v_ids, v_news) WITH ORDINALITY AS u (id, is_new, n) ORDER BY u.n;
END $$;
COMMENT ON FUNCTION tallylight.enqueue_many(jsonb, boolean) IS
  'Adds jobs, all or none: an array of {kind, args, opts} as for enqueue_job. Returns number (from 1), id and is_new of each, in order. wake: tell workers at the commit';

REVOKE EXECUTE ON FUNCTION tallylight.enqueue_many(jsonb, boolean) FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, 'EXECUTE ON FUNCTION tallylight.enqueue_many'
  FROM (VALUES ('tallylight_producer'::name), ('tallylight_worker'), ('tallylight_api')) AS r (role);
SELECT tallylight.ensure_roles();
