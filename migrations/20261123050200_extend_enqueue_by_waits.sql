-- enqueue_job: a job that waits for an event. enqueue_parent: a job that waits for other jobs.

CREATE OR REPLACE FUNCTION tallylight.check_enqueue(kind text, args jsonb, opts jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_known   constant text[] := '{subject,run_at,key,priority,max_attempts,queue,limit_key,limit,limit_waiting,fair_key,on_conflict,key_states,key_period,wait_for}';
  v_refusal text;
  v_unknown text;
BEGIN
  SELECT o.name INTO v_unknown FROM jsonb_object_keys(CASE jsonb_typeof(opts) WHEN 'object' THEN opts ELSE '{}' END) AS o (name)
   WHERE o.name <> ALL (v_known) LIMIT 1;
  v_refusal := CASE
    WHEN kind IS NULL OR kind !~ '^[a-z][a-z0-9_]{0,62}$'
      THEN 'kind must be 1 to 63 of a-z, 0-9, _ and begin with a letter'
    -- Only decisions make these, with all their guards; a job out of nowhere has passed none.
    WHEN tallylight.is_decided(kind)
      THEN format('kind "%s" is reserved for Tallylight', kind)
    WHEN jsonb_typeof(args) <> 'object' OR jsonb_typeof(opts) <> 'object'
      THEN 'args and opts must be JSON objects'
    WHEN pg_column_size(args) > 1048576
      THEN 'args must have at most 1 MiB: keep what is larger elsewhere, and name it'
    WHEN v_unknown IS NOT NULL
      THEN format('unknown option "%s": known are %s', v_unknown, array_to_string(v_known, ', '))
    -- They are parts of index entries, which have a greatest size.
    WHEN octet_length(opts ->> 'subject') NOT BETWEEN 1 AND 1024 THEN 'option "subject" must have 1 to 1024 bytes'
    WHEN octet_length(opts ->> 'key') NOT BETWEEN 1 AND 512 THEN 'option "key" must have 1 to 512 bytes'
    WHEN octet_length(opts ->> 'limit_key') NOT BETWEEN 1 AND 1024 THEN 'option "limit_key" must have 1 to 1024 bytes'
    WHEN octet_length(opts ->> 'fair_key') NOT BETWEEN 1 AND 512 THEN 'option "fair_key" must have 1 to 512 bytes'
    WHEN (opts ->> 'priority') !~ '^[1-4]$' THEN 'option "priority" must be 1 (first) to 4'
    WHEN (opts ->> 'max_attempts') !~ '^[1-9][0-9]{0,5}$' THEN 'option "max_attempts" must be 1 to 999999'
    -- A time without offset would mean another moment in every session.
    WHEN (opts ->> 'run_at') !~ '^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)$'
      THEN 'option "run_at" must be a time with its offset, such as 2026-11-22T14:00:00Z'
    WHEN (opts ->> 'queue') !~ '^[a-z][a-z0-9_-]{0,62}$'
      THEN 'option "queue" must be 1 to 63 of a-z, 0-9, _, - and begin with a letter'
    WHEN (opts ->> 'queue') = 'platform' THEN 'queue "platform" is reserved for Tallylight'
    WHEN (opts ->> 'limit') !~ '^([1-9][0-9]{0,2}|1000)$' THEN 'option "limit" must be 1 to 1000'
    WHEN (opts ->> 'limit_waiting') !~ '^([1-9][0-9]{0,3}|10000)$' THEN 'option "limit_waiting" must be 1 to 10000'
    WHEN coalesce(opts ->> 'limit', opts ->> 'limit_waiting') IS NOT NULL AND opts ->> 'limit_key' IS NULL
      THEN 'options "limit" and "limit_waiting" need "limit_key"'
    WHEN (opts ->> 'on_conflict') NOT IN ('existing', 'ignore', 'replace', 'debounce')
      THEN 'option "on_conflict" must be existing, ignore, replace or debounce'
    WHEN (opts ->> 'key_states') NOT IN ('live', 'until_started')
      THEN 'option "key_states" must be live or until_started'
    WHEN (opts ->> 'key_period') !~ '^[1-9][0-9]{0,7}$' THEN 'option "key_period" must be 1 to 99999999 seconds'
    WHEN coalesce(opts ->> 'on_conflict', opts ->> 'key_states', opts ->> 'key_period') IS NOT NULL AND opts ->> 'key' IS NULL
      THEN 'options "on_conflict", "key_states" and "key_period" need "key"'
    -- A job that has started does not change any more: what is new would be lost.
    WHEN (opts ->> 'on_conflict') IN ('replace', 'debounce') AND ((opts ->> 'key_states') = 'live' OR opts ->> 'key_period' IS NOT NULL)
      THEN 'with "on_conflict" replace or debounce a key holds until the start: leave out "key_states" live and "key_period"'
    WHEN opts -> 'wait_for' IS NOT NULL THEN tallylight.check_wait_for(opts -> 'wait_for', opts)
  END;
  IF v_refusal IS NOT NULL THEN
    RAISE EXCEPTION '%', v_refusal USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;

CREATE FUNCTION tallylight.check_wait_for(wait_for jsonb, opts jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
  SELECT CASE
    WHEN jsonb_typeof(wait_for) <> 'object' OR wait_for - ARRAY['subject', 'types', 'timeout'] <> '{}'
      THEN 'option "wait_for" must be an object {"subject", "types", "timeout"}'
    WHEN octet_length(wait_for ->> 'subject') BETWEEN 1 AND 1024 IS NOT TRUE
      THEN 'option "wait_for" must name a "subject" of 1 to 1024 bytes'
    WHEN CASE jsonb_typeof(coalesce(wait_for -> 'types', '[]')) WHEN 'array' THEN jsonb_array_length(coalesce(wait_for -> 'types', '[]')) <= 20
           AND NOT EXISTS (SELECT FROM jsonb_array_elements(wait_for -> 'types') AS t (type) WHERE jsonb_typeof(t.type) <> 'string') END IS NOT TRUE
      THEN 'in option "wait_for", "types" must be an array of at most 20 types of events'
    WHEN (wait_for ->> 'timeout') ~ '^[1-9][0-9]{0,7}$' IS NOT TRUE
      THEN 'option "wait_for" must have a "timeout" of 1 to 99999999 seconds'
    WHEN opts ->> 'run_at' IS NOT NULL OR (opts ->> 'on_conflict') IN ('replace', 'debounce')
      THEN 'option "wait_for" decides when the job is due: leave out "run_at", and "on_conflict" replace or debounce'
  END
$$;
COMMENT ON FUNCTION tallylight.check_wait_for(jsonb, jsonb) IS 'What is wrong with the option wait_for; null: nothing';

CREATE OR REPLACE FUNCTION tallylight.enqueue_job(kind text, args jsonb DEFAULT '{}', opts jsonb DEFAULT '{}')
RETURNS TABLE (id uuid, is_new boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_id      uuid := gen_random_uuid();
  v_args    jsonb := coalesce(args, '{}');
  v_opts    jsonb := coalesce(opts, '{}');
  v_key     text := v_opts ->> 'key';
  v_limit   text := v_opts ->> 'limit_key';
  v_fair    text := v_opts ->> 'fair_key';
  v_mode    text := coalesce(v_opts ->> 'on_conflict', 'existing');
  v_changes boolean := v_mode IN ('replace', 'debounce');
  v_wait    jsonb := v_opts -> 'wait_for';
  v_now     timestamptz := clock_timestamp();
  v_run_at  timestamptz;
  v_subject text;
  v_slices  smallint;
  v_slice   smallint;
  v_waiting int;
BEGIN
  PERFORM tallylight.check_enqueue(kind, v_args, v_opts);
  v_run_at := coalesce((v_opts ->> 'run_at')::timestamptz, v_now + (v_wait ->> 'timeout')::int * interval '1 second', v_now);
  -- A key decides the subject where none is given: equal keys must meet in one slice.
  v_subject := coalesce(v_opts ->> 'subject', v_limit, 'job/' || kind || '/' || v_key, 'job/' || v_id);
  SELECT i.slices INTO STRICT v_slices FROM tallylight.installation i;
  -- All jobs of a limit have one owner, who can count them.
  v_slice := tallylight.slice_of(coalesce(v_limit, v_subject), v_slices);
  is_new := false;

  LOOP
    IF v_opts ->> 'key_period' IS NOT NULL THEN
      INSERT INTO tallylight.job_key AS k (slice, kind, subject, unique_key, job_id, until)
      VALUES (v_slice, kind, v_subject, v_key, v_id, v_now + (v_opts ->> 'key_period')::int * interval '1 second')
      ON CONFLICT ON CONSTRAINT job_key_pkey
      DO UPDATE SET job_id = excluded.job_id, until = excluded.until WHERE k.until <= v_now OR k.job_id = v_id;
      IF NOT FOUND THEN
        SELECT k.job_id INTO id FROM tallylight.job_key k
         WHERE k.slice = v_slice AND k.kind = kind AND k.subject = v_subject AND k.unique_key = v_key;
        EXIT WHEN FOUND;
        -- Removed as old between the two statements.
        CONTINUE;
      END IF;
    END IF;

    INSERT INTO tallylight.job (slice, id, kind, subject, args, priority, run_at, max_attempts, unique_key,
                                queue, lane, limit_key, max_running, fair_key, key_until_started, waits)
    VALUES (v_slice, v_id, kind, v_subject, v_args,
            coalesce((v_opts ->> 'priority')::smallint, 2::smallint),
            v_run_at,
            coalesce((v_opts ->> 'max_attempts')::int, 14),
            v_key,
            coalesce(v_opts ->> 'queue', 'default'),
            CASE WHEN v_fair IS NULL THEN 0 ELSE 3 END,
            v_limit, (v_opts ->> 'limit')::smallint, v_fair,
            v_changes OR coalesce(v_opts ->> 'key_states' = 'until_started', false),
            CASE WHEN v_wait IS NOT NULL THEN jsonb_build_object('steps', jsonb_build_object('start', v_now), 'for', 'start') END)
    ON CONFLICT DO NOTHING;
    is_new := FOUND;
    id := v_id;
    EXIT WHEN is_new;

    IF v_changes THEN
      -- Waits for a start that is being marked, and finds nothing once it is: the key is free then.
      -- Time makes it wait again where it is found by time, whatever lane it was in.
      UPDATE tallylight.job j
         SET args = CASE v_mode WHEN 'replace' THEN v_args ELSE j.args END,
             priority = CASE v_mode WHEN 'replace' THEN coalesce((v_opts ->> 'priority')::smallint, j.priority) ELSE j.priority END,
             run_at = CASE WHEN v_mode = 'debounce' THEN greatest(j.run_at, v_run_at)
                           WHEN v_opts ->> 'run_at' IS NOT NULL THEN v_run_at ELSE j.run_at END,
             lane = CASE WHEN v_mode = 'replace' AND v_opts ->> 'run_at' IS NULL THEN j.lane
                         WHEN j.fair_key IS NULL THEN 0 ELSE 3 END,
             edits = j.edits + 1
       WHERE j.slice = v_slice AND j.kind = kind AND j.subject = v_subject AND j.unique_key = v_key AND j.run_epoch IS NULL
      RETURNING j.id INTO id;
      EXIT WHEN FOUND;
    END IF;
    SELECT j.id INTO id FROM tallylight.job j
     WHERE j.slice = v_slice AND j.kind = kind AND j.subject = v_subject AND j.unique_key = v_key;
    -- Not there: it has ended, or its start freed the key, between the two statements.
    EXIT WHEN FOUND;
  END LOOP;

  IF is_new AND v_opts ->> 'limit_waiting' IS NOT NULL THEN
    SELECT count(*) INTO v_waiting FROM (
      SELECT FROM tallylight.job j WHERE j.slice = v_slice AND j.limit_key = v_limit
       LIMIT (v_opts ->> 'limit_waiting')::int + 1) AS waiting;
    IF v_waiting > (v_opts ->> 'limit_waiting')::int THEN
      RAISE EXCEPTION 'limit_key "%" has % jobs already: enqueue again when some have ended', v_limit, v_waiting - 1
        USING ERRCODE = 'TL030';
    END IF;
  END IF;
  IF is_new AND v_wait IS NOT NULL THEN
    PERFORM tallylight.start_by_event(v_slice, v_id, v_wait, v_run_at, v_slices);
  END IF;
  -- A live job may have the key beside the period's row.
  IF NOT is_new AND v_opts ->> 'key_period' IS NOT NULL THEN
    UPDATE tallylight.job_key k SET job_id = id
     WHERE k.slice = v_slice AND k.kind = kind AND k.subject = v_subject AND k.unique_key = v_key AND k.job_id = v_id;
  END IF;
  IF NOT is_new AND v_mode = 'ignore' THEN
    id := NULL;
  END IF;
  RETURN NEXT;
END $$;

-- The step of a job that waits for an event before its first start. A producer's transaction may
-- stay open, and whoever waits for an event holds up the reaction under way: so a relay does it,
-- after the commit, and looks at what was appended meanwhile.
CREATE FUNCTION tallylight.start_by_event(p_job_slice smallint, p_job uuid, p_wait jsonb, p_until timestamptz, p_slices smallint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_to     smallint := tallylight.slice_of(p_wait ->> 'subject', p_slices);
  v_after  bigint;
  v_awaits jsonb;
BEGIN
  SELECT h.position INTO STRICT v_after FROM tallylight.slice_head h WHERE h.slice = v_to;
  v_awaits := jsonb_build_object('subject', p_wait -> 'subject', 'types', coalesce(p_wait -> 'types', '[]'), 'after', v_after);
  INSERT INTO tallylight.job_step (slice, job, name, kind, awaits, until)
  VALUES (p_job_slice, p_job, 'start', 'event', v_awaits, p_until);
  INSERT INTO tallylight.job (slice, id, subject, args, kind, queue, max_attempts)
  VALUES (p_job_slice, tallylight.derived_id('relay-await', ARRAY[p_job::text]), 'job/' || p_job,
          jsonb_build_object('await', jsonb_build_object('job_slice', p_job_slice, 'job', p_job, 'step', 'start', 'awaits', v_awaits, 'until', p_until)),
          'relay', 'platform', 2147483647);
END $$;

-- Over several slices, so no argument of it is `p_slice`, which would send it to a node of Citus.
-- Children of a job that is live, all or none. They are new jobs, each its parent's alone.
CREATE FUNCTION tallylight.add_children(p_parent_slice smallint, p_parent uuid, p_step text, p_children jsonb) RETURNS uuid[]
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_slices      smallint;
  v_ids         uuid[];
  v_job         jsonb;
  v_n           int := 0;
  v_now         timestamptz := clock_timestamp();
  v_trace       text;
  v_causation   uuid;
  v_correlation uuid;
BEGIN
  IF (CASE WHEN jsonb_typeof(p_children) = 'array' THEN jsonb_array_length(p_children) NOT BETWEEN 1 AND 10000 ELSE true END) THEN
    RAISE EXCEPTION 'children must be a JSON array of 1 to 10000 objects {"kind", "args", "opts"}'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  BEGIN
    FOR v_job IN SELECT j.job FROM jsonb_array_elements(p_children) WITH ORDINALITY AS j (job, n) ORDER BY j.n LOOP
      v_n := v_n + 1;
      IF jsonb_typeof(v_job) <> 'object' OR v_job - ARRAY['kind', 'args', 'opts'] <> '{}' THEN
        RAISE EXCEPTION 'a job must be an object {"kind", "args", "opts"}' USING ERRCODE = 'invalid_parameter_value';
      END IF;
      PERFORM tallylight.check_enqueue(v_job ->> 'kind', coalesce(v_job -> 'args', '{}'), coalesce(v_job -> 'opts', '{}'));
      IF coalesce(v_job -> 'opts', '{}') ?| ARRAY['key', 'limit_waiting', 'wait_for'] THEN
        RAISE EXCEPTION 'a child is a new job of its parent: leave out "key", "limit_waiting" and "wait_for"' USING ERRCODE = 'invalid_parameter_value';
      END IF;
      PERFORM (v_job -> 'opts' ->> 'run_at')::timestamptz;
    END LOOP;
  EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION 'child %: %', v_n, SQLERRM USING ERRCODE = 'invalid_parameter_value';
  END;

  SELECT i.slices INTO STRICT v_slices FROM tallylight.installation i;
  SELECT j.trace, j.causation_id, j.correlation_id INTO STRICT v_trace, v_causation, v_correlation
    FROM tallylight.job j WHERE j.slice = p_parent_slice AND j.id = p_parent;
  -- Volatile values first: on Citus, no statement that is sent to several nodes may hold one.
  v_ids := ARRAY(SELECT gen_random_uuid() FROM generate_series(1, v_n));

  WITH child AS MATERIALIZED (
    SELECT v_ids[e.n] AS id, e.n::int AS n, e.job ->> 'kind' AS kind, coalesce(e.job -> 'args', '{}') AS args,
           coalesce(e.job -> 'opts', '{}') AS opts,
           coalesce(e.job #>> '{opts,subject}', e.job #>> '{opts,limit_key}', 'job/' || v_ids[e.n]) AS subject
      FROM jsonb_array_elements(p_children) WITH ORDINALITY AS e (job, n)),
  placed AS MATERIALIZED (
    SELECT c.*, tallylight.slice_of(coalesce(c.opts ->> 'limit_key', c.subject), v_slices) AS slice FROM child c),
  noted AS (
    INSERT INTO tallylight.job_child (slice, parent, step, n, child, child_slice)
    SELECT p_parent_slice, p_parent, p_step, c.n, c.id, c.slice FROM placed c)
  INSERT INTO tallylight.job (slice, id, kind, subject, args, priority, run_at, max_attempts, queue, lane, limit_key,
                              max_running, fair_key, trace, causation_id, correlation_id, waits)
  SELECT c.slice, c.id, c.kind, c.subject, c.args,
         coalesce((c.opts ->> 'priority')::smallint, 2::smallint),
         coalesce((c.opts ->> 'run_at')::timestamptz, v_now),
         coalesce((c.opts ->> 'max_attempts')::int, 14),
         coalesce(c.opts ->> 'queue', 'default'),
         CASE WHEN c.opts ->> 'fair_key' IS NULL THEN 0 ELSE 3 END,
         c.opts ->> 'limit_key', (c.opts ->> 'limit')::smallint, c.opts ->> 'fair_key', v_trace, v_causation, v_correlation,
         jsonb_build_object('parent', jsonb_build_object('slice', p_parent_slice, 'job', p_parent, 'step', p_step, 'n', c.n))
    FROM placed c;
  RETURN v_ids;
END $$;
COMMENT ON FUNCTION tallylight.add_children(smallint, uuid, text, jsonb) IS
  'Adds children of a live job, whose step waits for them: an array of {kind, args, opts}. Returns their ids, in order';

CREATE FUNCTION tallylight.enqueue_parent(parent jsonb, children jsonb, wake boolean DEFAULT false)
RETURNS TABLE (n int, id uuid, is_new boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_opts     jsonb := coalesce(parent -> 'opts', '{}');
  v_slices   smallint;
  v_slice    smallint;
  v_parent   uuid;
  v_children uuid[] := '{}';
  v_refusal  text;
  v_told     text;
BEGIN
  v_refusal := CASE
    WHEN jsonb_typeof(parent) IS DISTINCT FROM 'object' OR parent - ARRAY['kind', 'args', 'opts', 'on_child_failure', 'on_cancel'] <> '{}'
      THEN 'parent must be an object {"kind", "args", "opts", "on_child_failure", "on_cancel"}'
    WHEN (parent ->> 'on_child_failure') NOT IN ('run', 'cancel', 'wait') THEN '"on_child_failure" must be run, cancel or wait'
    WHEN (parent ->> 'on_cancel') NOT IN ('cancel', 'keep') THEN '"on_cancel" must be cancel or keep'
    WHEN jsonb_typeof(v_opts) = 'object' AND (v_opts ?| ARRAY['run_at', 'wait_for'] OR (v_opts ->> 'on_conflict') IN ('replace', 'debounce'))
      THEN 'the ends of its children decide when a parent is due: leave out "run_at", "wait_for", and "on_conflict" replace or debounce'
  END;
  IF v_refusal IS NOT NULL THEN
    RAISE EXCEPTION '%', v_refusal USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT e.id, e.is_new INTO STRICT v_parent, is_new
    FROM tallylight.enqueue_job(parent ->> 'kind', coalesce(parent -> 'args', '{}'),
      CASE jsonb_typeof(v_opts) WHEN 'object' THEN v_opts || '{"run_at": "9999-01-01T00:00:00Z"}' ELSE v_opts END) AS e;
  IF is_new THEN
    SELECT i.slices INTO STRICT v_slices FROM tallylight.installation i;
    UPDATE tallylight.job j
       SET waits = jsonb_build_object('steps', jsonb_build_object('children', clock_timestamp()), 'for', 'children')
     WHERE j.slice = ANY (ARRAY(SELECT s::smallint FROM generate_series(0, v_slices - 1) AS s)) AND j.id = v_parent
    RETURNING j.slice INTO STRICT v_slice;
    INSERT INTO tallylight.job_step (slice, job, name, kind, on_failure, on_cancel)
    VALUES (v_slice, v_parent, 'children', 'children', coalesce(parent ->> 'on_child_failure', 'run'), coalesce(parent ->> 'on_cancel', 'cancel'));
    v_children := tallylight.add_children(v_slice, v_parent, 'children', children);
    -- As enqueue_many does.
    IF wake THEN
      SELECT ';' || string_agg(s.slice::text, ',') INTO v_told FROM generate_series(0, v_slices - 1) AS s (slice);
      PERFORM pg_notify('tallylight', CASE WHEN length(v_told) < 7900 THEN v_told ELSE '' END);
    END IF;
  END IF;
  n := 0;
  id := v_parent;
  RETURN NEXT;
  RETURN QUERY SELECT u.n::int, u.id, true FROM unnest(v_children) WITH ORDINALITY AS u (id, n) ORDER BY u.n;
END $$;
COMMENT ON FUNCTION tallylight.enqueue_parent(jsonb, jsonb, boolean) IS
  'Adds a job that is due when its children have ended, and the children. parent: {kind, args, opts, on_child_failure, on_cancel}, children: an array of {kind, args, opts}. Returns n (0: the parent, then the children from 1), id and is_new; only the parent, where its key is taken';

REVOKE EXECUTE ON FUNCTION tallylight.check_wait_for(jsonb, jsonb), tallylight.start_by_event(smallint, uuid, jsonb, timestamptz, smallint),
  tallylight.add_children(smallint, uuid, text, jsonb), tallylight.enqueue_parent(jsonb, jsonb, boolean) FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, p.privilege FROM (VALUES
  (ARRAY['producer', 'worker', 'api'], 'EXECUTE ON FUNCTION tallylight.enqueue_parent'),
  (ARRAY['worker'], 'EXECUTE ON FUNCTION tallylight.add_children'),
  (ARRAY['api'], 'EXECUTE ON FUNCTION tallylight.check_wait_for, tallylight.is_decided')
) AS p (roles, privilege), LATERAL (SELECT ('tallylight_' || unnest(p.roles))::name) AS r (role);
SELECT tallylight.ensure_roles();
