-- enqueue: how other services add a job in their own transaction. The contract of this function
-- is versioned by its name and arguments; it inserts into `job` only and never touches the log,
-- so a transaction that stays open holds up nobody but a second carrier of the same key.

CREATE FUNCTION tallylight.check_enqueue(kind text, args jsonb, opts jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_refusal text;
  v_unknown text;
BEGIN
  SELECT o.name INTO v_unknown FROM jsonb_object_keys(CASE jsonb_typeof(opts) WHEN 'object' THEN opts ELSE '{}' END) AS o (name)
   WHERE o.name NOT IN ('subject', 'run_at', 'key', 'priority', 'max_attempts') LIMIT 1;
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
      THEN format('unknown option "%s": known are subject, run_at, key, priority, max_attempts', v_unknown)
    -- Both are parts of index entries, which have a greatest size.
    WHEN octet_length(opts ->> 'subject') NOT BETWEEN 1 AND 1024 THEN 'option "subject" must have 1 to 1024 bytes'
    WHEN octet_length(opts ->> 'key') NOT BETWEEN 1 AND 512 THEN 'option "key" must have 1 to 512 bytes'
    WHEN (opts ->> 'priority') !~ '^[1-4]$' THEN 'option "priority" must be 1 (first) to 4'
    WHEN (opts ->> 'max_attempts') !~ '^[1-9][0-9]{0,5}$' THEN 'option "max_attempts" must be 1 to 999999'
    -- A time without offset would mean another moment in every session.
    WHEN (opts ->> 'run_at') !~ '^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)$'
      THEN 'option "run_at" must be a time with its offset, such as 2026-11-22T14:00:00Z'
  END;
  IF v_refusal IS NOT NULL THEN
    RAISE EXCEPTION '%', v_refusal USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;
COMMENT ON FUNCTION tallylight.check_enqueue(text, jsonb, jsonb) IS 'Refuses arguments of enqueue, in words for its caller';

CREATE FUNCTION tallylight.enqueue(kind text, args jsonb DEFAULT '{}', opts jsonb DEFAULT '{}')
RETURNS uuid
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
  v_subject text;
  v_slices  smallint;
  v_slice   smallint;
  v_live    uuid;
BEGIN
  PERFORM tallylight.check_enqueue(kind, v_args, v_opts);
  -- A key decides the subject where none is given: equal keys must meet in one slice.
  v_subject := coalesce(v_opts ->> 'subject', 'job/' || kind || '/' || v_key, 'job/' || v_id);
  SELECT i.slices INTO STRICT v_slices FROM tallylight.installation i;
  v_slice := tallylight.slice_of(v_subject, v_slices);

  LOOP
    INSERT INTO tallylight.job (slice, id, kind, subject, args, priority, run_at, max_attempts, unique_key)
    VALUES (v_slice, v_id, kind, v_subject, v_args,
            coalesce((v_opts ->> 'priority')::smallint, 2::smallint),
            coalesce((v_opts ->> 'run_at')::timestamptz, clock_timestamp()),
            coalesce((v_opts ->> 'max_attempts')::int, 14),
            v_key)
    ON CONFLICT DO NOTHING
    RETURNING job.id INTO v_live;
    EXIT WHEN v_live IS NOT NULL;
    SELECT j.id INTO v_live FROM tallylight.job j
     WHERE j.slice = v_slice AND j.kind = kind AND j.subject = v_subject AND j.unique_key = v_key;
    -- Not there: it has ended between the two statements, and the key is free again.
    EXIT WHEN v_live IS NOT NULL;
  END LOOP;
  RETURN v_live;
END $$;
COMMENT ON FUNCTION tallylight.enqueue(text, jsonb, jsonb) IS
  'Adds a job and returns its id; with opts.key, returns the id of the live job of the kind and subject that has the key. opts: subject, run_at, key, priority, max_attempts';
