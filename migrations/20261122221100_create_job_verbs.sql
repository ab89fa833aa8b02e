-- What other services and people do to jobs that are there: cancel, retry, redrive. As enqueue,
-- none of them touches the log, so a transaction that stays open holds up nobody.
--
-- Cancelling only marks: the holder of the slice ends the job, with its event. From the mark's
-- commit on a job that waits is never started (docs/adr/0017-cancelling-is-a-mark.md).

CREATE FUNCTION tallylight.is_decided(kind text) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
  SELECT kind IN ('timer', 'forward', 'create_live_stream', 'update_live_stream', 'clear_dvr', 'create_broadcast',
                  'activate_live_stream', 'deactivate_live_stream', 'set_broadcast_status', 'start_recording',
                  'stop_recording', 'delete_broadcast', 'observe_live_stream', 'list_videos', 'fetch_video',
                  'delete_live_stream')
$$;
COMMENT ON FUNCTION tallylight.is_decided(text) IS 'Whether only decisions make jobs of the kind: a session waits for them';

CREATE FUNCTION tallylight.cancel_job(p_id uuid, p_force boolean DEFAULT false)
RETURNS TABLE (slice smallint, state text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  v_slices smallint;
  v_slice  smallint;
  v_kind   text;
BEGIN
  SELECT i.slices INTO STRICT v_slices FROM tallylight.installation i;
  SELECT j.slice, j.kind INTO v_slice, v_kind FROM tallylight.job j
   WHERE j.slice = ANY (ARRAY(SELECT n::smallint FROM generate_series(0, v_slices - 1) AS n)) AND j.id = p_id;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF tallylight.is_decided(v_kind) AND p_force IS NOT TRUE THEN
    RAISE EXCEPTION 'job % is a "%" that a session waits for: command the session, or cancel it by force', p_id, v_kind
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- A mark of an epoch that has passed is a run that ended with its process.
  RETURN QUERY
  UPDATE tallylight.job j
     SET cancel_at = coalesce(j.cancel_at, now()),
         run_epoch = CASE WHEN j.run_epoch >= c.epoch THEN j.run_epoch ELSE 9223372036854775807 END
    FROM tallylight.checkpoint c
   WHERE c.consumer = 'jobs' AND c.slice = v_slice AND j.slice = v_slice AND j.id = p_id
  RETURNING j.slice, tallylight.job_state(j.run_epoch, j.cancel_at, j.errors, j.run_at);
END $$;
COMMENT ON FUNCTION tallylight.cancel_job(uuid, boolean) IS
  'Cancels a live job. Returns its slice and state, cancelled or (until its holder has stopped it) running; no row: it is not live. p_force: also one that a session waits for';

CREATE FUNCTION tallylight.cancel(id uuid) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
  RETURN (SELECT c.state FROM tallylight.cancel_job(id, false) AS c);
END $$;
COMMENT ON FUNCTION tallylight.cancel(uuid) IS
  'Cancels a plain job: cancelled, or running until its worker has stopped it; null: it is not live (any more)';

-- RFC 7396.
CREATE FUNCTION tallylight.merge_patch(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_result jsonb;
  v_name   text;
  v_value  jsonb;
BEGIN
  IF jsonb_typeof(patch) IS DISTINCT FROM 'object' THEN
    RETURN patch;
  END IF;
  v_result := CASE jsonb_typeof(target) WHEN 'object' THEN target ELSE '{}' END;
  FOR v_name, v_value IN SELECT e.key, e.value FROM jsonb_each(patch) AS e LOOP
    IF v_value = 'null' THEN
      v_result := v_result - v_name;
    ELSE
      v_result := jsonb_set(v_result, ARRAY[v_name], tallylight.merge_patch(v_result -> v_name, v_value));
    END IF;
  END LOOP;
  RETURN v_result;
END $$;
COMMENT ON FUNCTION tallylight.merge_patch(jsonb, jsonb) IS 'Changes a JSON value by a merge patch: null removes';

-- The filter of dead letters, the same for all who list, count, redrive or discard them.
CREATE FUNCTION tallylight.check_dead_filter(filter jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  v_refusal text;
  v_unknown text;
BEGIN
  SELECT f.name INTO v_unknown FROM jsonb_object_keys(CASE jsonb_typeof(filter) WHEN 'object' THEN filter ELSE '{}' END) AS f (name)
   WHERE f.name NOT IN ('all', 'id', 'kind', 'queue', 'subject', 'state', 'error', 'since', 'until') LIMIT 1;
  v_refusal := CASE
    WHEN filter IS NULL OR jsonb_typeof(filter) <> 'object' THEN 'the filter must be a JSON object'
    WHEN v_unknown IS NOT NULL
      THEN format('unknown condition "%s": known are id, kind, queue, subject, state, error, since, until, all', v_unknown)
    WHEN filter = '{}' THEN 'the filter is empty: name a condition, or {"all": true} for all dead letters'
    WHEN (filter ->> 'state') NOT IN ('discarded', 'quarantined') THEN 'condition "state" must be discarded or quarantined'
    WHEN (filter ->> 'id') !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN 'condition "id" must be the id of a job'
    WHEN EXISTS (SELECT FROM jsonb_each_text(filter) AS f (name, value) WHERE f.name IN ('since', 'until')
                  AND f.value !~ '^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)$')
      THEN 'conditions "since" and "until" must be times with their offset, such as 2026-11-22T14:00:00Z'
  END;
  IF v_refusal IS NOT NULL THEN
    RAISE EXCEPTION '%', v_refusal USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;
COMMENT ON FUNCTION tallylight.check_dead_filter(jsonb) IS 'Refuses a filter of dead letters, in words for its caller';

-- Columns that only some versions have are read by name from the row as JSON.
CREATE FUNCTION tallylight.is_dead_match(dead tallylight.job_dead, filter jsonb) RETURNS boolean
LANGUAGE sql STABLE
AS $$
  SELECT (filter ->> 'id' IS NULL OR dead.id = (filter ->> 'id')::uuid)
     AND (filter ->> 'kind' IS NULL OR dead.kind = filter ->> 'kind')
     AND (filter ->> 'queue' IS NULL OR to_jsonb(dead) ->> 'queue' = filter ->> 'queue')
     AND (filter ->> 'subject' IS NULL OR dead.subject = filter ->> 'subject')
     AND (filter ->> 'state' IS NULL OR dead.state = filter ->> 'state')
     AND (filter ->> 'error' IS NULL OR strpos(lower(dead.last_error), lower(filter ->> 'error')) > 0)
     AND (filter ->> 'since' IS NULL OR dead.died_at >= (filter ->> 'since')::timestamptz)
     AND (filter ->> 'until' IS NULL OR dead.died_at < (filter ->> 'until')::timestamptz)
$$;
COMMENT ON FUNCTION tallylight.is_dead_match(tallylight.job_dead, jsonb) IS 'Whether a dead letter meets every condition of a filter';

CREATE FUNCTION tallylight.redrive_jobs(p_filter jsonb, p_edit jsonb, p_dry_run boolean, p_decided boolean) RETURNS bigint
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
COMMENT ON FUNCTION tallylight.redrive_jobs(jsonb, jsonb, boolean, boolean) IS
  'Lets dead jobs run again with fresh budgets, their args changed by a merge patch; returns how many. p_decided: also those that a session waited for';

CREATE FUNCTION tallylight.redrive(filter jsonb, edit jsonb DEFAULT NULL, dry_run boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
  RETURN tallylight.redrive_jobs(filter, edit, dry_run, false);
END $$;
COMMENT ON FUNCTION tallylight.redrive(jsonb, jsonb, boolean) IS
  'Lets dead plain jobs run again; returns how many, with dry_run how many would. filter: id, kind, queue, subject, state, error (a part of its text), since, until, or {"all": true}';

CREATE FUNCTION tallylight.retry(id uuid) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
  RETURN tallylight.redrive_jobs(jsonb_build_object('id', id), NULL, false, false) > 0;
END $$;
COMMENT ON FUNCTION tallylight.retry(uuid) IS 'Lets a dead plain job run again; false: there is none of this id';

CREATE FUNCTION tallylight.discard_dead(p_filter jsonb, p_dry_run boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_count bigint;
BEGIN
  PERFORM tallylight.check_dead_filter(p_filter);
  IF p_dry_run THEN
    SELECT count(*) INTO v_count FROM tallylight.job_dead d WHERE tallylight.is_dead_match(d, p_filter);
  ELSE
    DELETE FROM tallylight.job_dead d WHERE tallylight.is_dead_match(d, p_filter);
    GET DIAGNOSTICS v_count = ROW_COUNT;
  END IF;
  RETURN v_count;
END $$;
COMMENT ON FUNCTION tallylight.discard_dead(jsonb, boolean) IS 'Throws dead letters away for good; returns how many';

REVOKE EXECUTE ON FUNCTION tallylight.cancel_job(uuid, boolean), tallylight.cancel(uuid), tallylight.retry(uuid),
  tallylight.redrive_jobs(jsonb, jsonb, boolean, boolean), tallylight.redrive(jsonb, jsonb, boolean),
  tallylight.discard_dead(jsonb, boolean), tallylight.is_decided(text), tallylight.merge_patch(jsonb, jsonb),
  tallylight.check_dead_filter(jsonb), tallylight.is_dead_match(tallylight.job_dead, jsonb) FROM PUBLIC;

INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, p.privilege FROM (VALUES
  (ARRAY['producer', 'worker', 'api'], 'EXECUTE ON FUNCTION tallylight.cancel'),
  (ARRAY['producer', 'worker', 'api'], 'EXECUTE ON FUNCTION tallylight.retry'),
  (ARRAY['producer', 'worker', 'api'], 'EXECUTE ON FUNCTION tallylight.redrive'),
  (ARRAY['worker', 'api', 'readonly'], 'EXECUTE ON FUNCTION tallylight.is_dead_match'),
  (ARRAY['worker', 'api'], 'EXECUTE ON FUNCTION tallylight.cancel_job'),
  (ARRAY['worker', 'api'], 'EXECUTE ON FUNCTION tallylight.redrive_jobs'),
  (ARRAY['worker', 'api'], 'EXECUTE ON FUNCTION tallylight.discard_dead')
) AS p (roles, privilege), LATERAL (SELECT ('tallylight_' || unnest(p.roles))::name) AS r (role);
SELECT tallylight.ensure_roles();
