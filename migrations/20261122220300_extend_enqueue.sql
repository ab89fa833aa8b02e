-- enqueue: queues, limits, fairness, and what a key that is taken comes to.

CREATE OR REPLACE FUNCTION tallylight.check_enqueue(kind text, args jsonb, opts jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_known   constant text[] := '{subject,run_at,key,priority,max_attempts,queue,limit_key,limit,limit_waiting,fair_key,on_conflict,key_states,key_period}';
  v_refusal text;
  v_unknown text;
BEGIN
  SELECT o.name INTO v_unknown FROM jsonb_object_keys(CASE jsonb_typeof(opts) WHEN 'object' THEN opts ELSE '{}' END) AS o (name)
   WHERE o.name <> ALL (v_known) LIMIT 1;
  v_refusal := CASE
    WHEN kind IS NULL OR kind !~ '^[a-z][a-z0-9_]{0,62}$'
      THEN 'kind must be 1 to 63 of a-z, 0-9, _ and begin with a letter'
    -- Only decisions make these, with all their guards; a job out of nowhere has passed none.
    WHEN kind IN ('timer', 'forward', 'create_live_stream', 'update_live_stream', 'clear_dvr', 'create_broadcast',
                  'activate_live_stream', 'deactivate_live_stream', 'set_broadcast_status', 'start_recording',
                  'stop_recording', 'delete_broadcast', 'observe_live_stream', 'list_videos', 'fetch_video',
                  'delete_live_stream')
      THEN format('kind "%s" is reserved for Tallylight', kind)
    WHEN jsonb_typeof(args) <> 'object' OR jsonb_typeof(opts) <> 'object'
      THEN 'args and opts must be JSON objects'
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
  v_now     timestamptz := clock_timestamp();
  v_run_at  timestamptz;
  v_subject text;
  v_slices  smallint;
  v_slice   smallint;
  v_waiting int;
BEGIN
  PERFORM tallylight.check_enqueue(kind, v_args, v_opts);
  v_run_at := coalesce((v_opts ->> 'run_at')::timestamptz, v_now);
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
                                queue, lane, limit_key, max_running, fair_key, key_until_started)
    VALUES (v_slice, v_id, kind, v_subject, v_args,
            coalesce((v_opts ->> 'priority')::smallint, 2::smallint),
            v_run_at,
            coalesce((v_opts ->> 'max_attempts')::int, 14),
            v_key,
            coalesce(v_opts ->> 'queue', 'default'),
            CASE WHEN v_fair IS NULL THEN 0 ELSE 3 END,
            v_limit, (v_opts ->> 'limit')::smallint, v_fair,
            v_changes OR coalesce(v_opts ->> 'key_states' = 'until_started', false))
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
COMMENT ON FUNCTION tallylight.enqueue_job(text, jsonb, jsonb) IS
  'Adds a job; returns its id and true. Where the key in opts is taken: as opts.on_conflict says, and false. opts: docs/jobs.md';
