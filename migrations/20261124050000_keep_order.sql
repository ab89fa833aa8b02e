-- Strict order: an ordered job holds its key from its first start until it ends, however often it
-- fails and waits for its next try meanwhile.
--
-- The start mark says so, so whoever holds the slice next finds it. Null where it does not hold: no
-- other job's mark changes what this index is made of, and stays as cheap as it was.

ALTER TABLE tallylight.job
  ADD COLUMN ordered boolean NOT NULL DEFAULT false,
  ADD COLUMN holds   boolean CHECK (holds);
COMMENT ON COLUMN tallylight.job.ordered IS 'It starts only while fewer jobs of its key run or hold it than max_running says, and then holds the key itself';
COMMENT ON COLUMN tallylight.job.holds IS 'It is ordered, has started and has not ended; null: not so';
CREATE INDEX job_holds ON tallylight.job (slice, (coalesce(limit_key, subject))) WHERE holds;

ALTER TABLE tallylight.job_dead ADD COLUMN ordered boolean NOT NULL DEFAULT false;

CREATE OR REPLACE FUNCTION tallylight.check_enqueue(kind text, args jsonb, opts jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_known   constant text[] := '{subject,run_at,key,priority,max_attempts,queue,limit_key,limit,limit_waiting,ordered,fair_key,on_conflict,key_states,key_period,wait_for}';
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
    -- What was read from a table may be compressed, and is unpacked by whoever runs the job.
    WHEN CASE WHEN pg_column_compression(args) IS NULL THEN pg_column_size(args) ELSE octet_length(args::text) END > 1048576
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
    WHEN opts -> 'ordered' NOT IN ('true', 'false') THEN 'option "ordered" must be true or false'
    WHEN (opts ->> 'ordered') = 'true' AND coalesce(opts ->> 'limit_key', opts ->> 'subject') IS NULL
      THEN 'option "ordered" needs "limit_key" or "subject": the jobs of that run in order'
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
                                queue, lane, limit_key, max_running, ordered, fair_key, key_until_started, waits)
    VALUES (v_slice, v_id, kind, v_subject, v_args,
            coalesce((v_opts ->> 'priority')::smallint, 2::smallint),
            v_run_at,
            coalesce((v_opts ->> 'max_attempts')::int, 14),
            v_key,
            coalesce(v_opts ->> 'queue', 'default'),
            CASE WHEN v_fair IS NULL THEN 0 ELSE 3 END,
            v_limit, (v_opts ->> 'limit')::smallint, coalesce((v_opts ->> 'ordered')::boolean, false), v_fair,
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

CREATE OR REPLACE FUNCTION tallylight.add_children(p_parent_slice smallint, p_parent uuid, p_step text, p_children jsonb) RETURNS uuid[]
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
                              max_running, ordered, fair_key, trace, causation_id, correlation_id, waits)
  SELECT c.slice, c.id, c.kind, c.subject, c.args,
         coalesce((c.opts ->> 'priority')::smallint, 2::smallint),
         coalesce((c.opts ->> 'run_at')::timestamptz, v_now),
         coalesce((c.opts ->> 'max_attempts')::int, 14),
         coalesce(c.opts ->> 'queue', 'default'),
         CASE WHEN c.opts ->> 'fair_key' IS NULL THEN 0 ELSE 3 END,
         c.opts ->> 'limit_key', (c.opts ->> 'limit')::smallint, coalesce((c.opts ->> 'ordered')::boolean, false), c.opts ->> 'fair_key', v_trace, v_causation, v_correlation,
         jsonb_build_object('parent', jsonb_build_object('slice', p_parent_slice, 'job', p_parent, 'step', p_step, 'n', c.n))
    FROM placed c;
  RETURN v_ids;
END $$;

CREATE OR REPLACE FUNCTION tallylight.mark_started(
  p_slices smallint[], p_epochs bigint[],
  p_of smallint[], p_of_epochs bigint[], p_ids uuid[], p_attempts int[])
RETURNS TABLE (slice smallint, epoch bigint, id uuid, attempt int, crashes int, args jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  v_slices smallint[];
  v_epochs bigint[];
BEGIN
  SELECT coalesce(array_agg(held.slice), '{}'), coalesce(array_agg(held.epoch), '{}')
    INTO v_slices, v_epochs
    FROM (SELECT c.slice, c.epoch FROM tallylight.checkpoint c
            JOIN unnest(p_slices, p_epochs) AS lease (slice, epoch)
              ON c.slice = lease.slice AND c.epoch = lease.epoch
           WHERE c.consumer = 'jobs' AND c.slice = ANY (p_slices)
           ORDER BY c.slice FOR SHARE OF c) AS held;

  -- The leases that hold, with no job.
  RETURN QUERY SELECT lease.slice, lease.epoch, NULL::uuid, NULL::int, NULL::int, NULL::jsonb
    FROM unnest(v_slices, v_epochs) AS lease (slice, epoch);

  RETURN QUERY
  UPDATE tallylight.job j
     SET attempt = j.attempt + 1, run_epoch = due.epoch, started_at = now(),
         crashes = crashes + (run_epoch IS NOT NULL)::int,
         unique_key = CASE WHEN key_until_started THEN NULL ELSE unique_key END,
         holds = CASE WHEN ordered THEN true END
    FROM unnest(p_of, p_of_epochs, p_ids, p_attempts) AS due (slice, epoch, id, attempt)
   WHERE j.slice = ANY (v_slices) AND j.slice = due.slice AND j.id = due.id
     AND v_epochs[array_position(v_slices, due.slice)] = due.epoch
     AND (j.run_epoch IS NULL OR j.run_epoch < due.epoch)
     AND (j.edits = 0 OR j.run_at <= now())
     AND (due.attempt IS NULL OR j.attempt = due.attempt)
  RETURNING j.slice, due.epoch, j.id, j.attempt, j.crashes, CASE WHEN j.edits > 0 THEN j.args END;
END $$;
