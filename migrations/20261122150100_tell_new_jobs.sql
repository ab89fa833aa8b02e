-- enqueue_job: enqueue, and told whether the job is new. One body for both.

CREATE FUNCTION tallylight.enqueue_job(kind text, args jsonb DEFAULT '{}', opts jsonb DEFAULT '{}')
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
  v_subject text;
  v_slices  smallint;
  v_slice   smallint;
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
    ON CONFLICT DO NOTHING;
    is_new := FOUND;
    id := v_id;
    EXIT WHEN is_new;
    SELECT j.id INTO id FROM tallylight.job j
     WHERE j.slice = v_slice AND j.kind = kind AND j.subject = v_subject AND j.unique_key = v_key;
    -- Not there: it has ended between the two statements, and the key is free again.
    EXIT WHEN FOUND;
  END LOOP;
  RETURN NEXT;
END $$;
COMMENT ON FUNCTION tallylight.enqueue_job(text, jsonb, jsonb) IS
  'Adds a job; returns its id and true. With opts.key, and a live job of the kind and subject that has the key: the id of that one and false. opts: subject, run_at, key, priority, max_attempts';

CREATE OR REPLACE FUNCTION tallylight.enqueue(kind text, args jsonb DEFAULT '{}', opts jsonb DEFAULT '{}')
RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
  RETURN (SELECT e.id FROM tallylight.enqueue_job(kind, args, opts) AS e);
END $$;
COMMENT ON FUNCTION tallylight.enqueue(text, jsonb, jsonb) IS 'As enqueue_job, and returns the id only';

REVOKE EXECUTE ON FUNCTION tallylight.enqueue_job(text, jsonb, jsonb) FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, 'EXECUTE ON FUNCTION tallylight.enqueue_job'
  FROM (VALUES ('tallylight_producer'::name), ('tallylight_worker'), ('tallylight_api')) AS r (role);
SELECT tallylight.ensure_roles();
