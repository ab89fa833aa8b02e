-- check_enqueue, redrive_jobs: args have at most 1 MiB by every way in, also where the caller read
-- them from a table that keeps them compressed, and where an edit of a dead letter adds to them.

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

CREATE OR REPLACE FUNCTION tallylight.redrive_jobs(p_filter jsonb, p_edit jsonb, p_dry_run boolean, p_decided boolean) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_count bigint;
BEGIN
  PERFORM tallylight.check_dead_filter(p_filter);
  IF p_edit IS NOT NULL AND jsonb_typeof(p_edit) <> 'object' THEN
    RAISE EXCEPTION 'the edit of args must be a JSON object, a merge patch' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF p_dry_run THEN
    SELECT count(*) INTO v_count FROM tallylight.job_dead d
     WHERE tallylight.is_dead_match(d, p_filter) AND (p_decided OR NOT tallylight.is_decided(d.kind));
    RETURN v_count;
  END IF;
  -- As at the enqueue; an edit may add to args that had their greatest size.
  IF p_edit IS NOT NULL AND EXISTS (
       SELECT FROM tallylight.job_dead d
        WHERE tallylight.is_dead_match(d, p_filter) AND (p_decided OR NOT tallylight.is_decided(d.kind))
          AND pg_column_size(tallylight.merge_patch(d.args, p_edit)) > 1048576) THEN
    RAISE EXCEPTION 'with this edit, args have more than 1 MiB: keep what is larger elsewhere, and name it' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- Columns that both tables have go along by name.
  WITH dead AS (
    DELETE FROM tallylight.job_dead d
     WHERE tallylight.is_dead_match(d, p_filter) AND (p_decided OR NOT tallylight.is_decided(d.kind))
    RETURNING d.*),
  moved AS (
    INSERT INTO tallylight.job
    SELECT (jsonb_populate_record(NULL::tallylight.job, to_jsonb(dead) || jsonb_build_object(
             'args', CASE WHEN p_edit IS NULL THEN dead.args ELSE tallylight.merge_patch(dead.args, p_edit) END,
             'run_at', now(), 'errors', 0, 'crashes', 0, 'last_error', NULL,
             'lane', CASE WHEN dead.fair_key IS NULL THEN 0 ELSE 3 END, 'edits', 0, 'key_until_started', false))).* FROM dead
    ON CONFLICT DO NOTHING)
  SELECT count(*) INTO v_count FROM dead;
  RETURN v_count;
END $$;
