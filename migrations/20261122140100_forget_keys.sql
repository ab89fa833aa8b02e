-- Idempotency keys have an age limit. docs/history.md says what a key still guards.

CREATE FUNCTION tallylight.key_horizon(p_slice smallint, p_before timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT least(p_before,
    -- What a consumer decides twice before it has applied what it appended, a key keeps single.
    (SELECT min(c.recorded_at) FROM tallylight.checkpoint c JOIN tallylight.slice_head h ON h.slice = c.slice
      WHERE c.slice = p_slice AND c.consumer <> 'jobs' AND c.position < h.position),
    -- An event that was skipped waits for nothing.
    (SELECT min(e.recorded_at) FROM tallylight.parked p JOIN tallylight.event e
         ON e.slice = p.slice AND e.position = p.position
      WHERE p.slice = p_slice AND p.skipped_at IS NULL),
    -- A forward that died after its append and before its end appends again, in any slice.
    (SELECT min(j.enqueued_at) FROM (
       SELECT enqueued_at FROM tallylight.job WHERE kind = 'forward'
       UNION ALL SELECT enqueued_at FROM tallylight.job_dead WHERE kind = 'forward') AS j))
$$;
COMMENT ON FUNCTION tallylight.key_horizon(smallint, timestamptz) IS
  'Keys of the slice from before this time guard nothing that is still to come; at most p_before';

-- In order of the keys and not of their age: an index on the age would be paid at every append,
-- to save work that is done once a day.
CREATE FUNCTION tallylight.forget_keys(
  p_slice smallint, p_after uuid, p_before timestamptz, p_limit int,
  OUT next_after uuid, OUT removed bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_before IS NULL OR p_before > now() - interval '7 days' THEN
    RAISE EXCEPTION 'keys younger than 7 days are needed by retries and spools' USING ERRCODE = 'TL020';
  END IF;
  SELECT e.key INTO next_after FROM tallylight.event_key e
   WHERE e.slice = p_slice AND e.key > p_after ORDER BY e.key OFFSET p_limit - 1 LIMIT 1;
  DELETE FROM tallylight.event_key e
   WHERE e.slice = p_slice AND e.key > p_after
     AND e.key <= coalesce(next_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
     AND e.recorded_at < p_before;
  GET DIAGNOSTICS removed = ROW_COUNT;
END $$;
COMMENT ON FUNCTION tallylight.forget_keys(smallint, uuid, timestamptz, int) IS
  'Removes keys of a slice from before p_before, among the p_limit keys after p_after; next_after is null at the end';

REVOKE EXECUTE ON FUNCTION tallylight.key_horizon(smallint, timestamptz),
  tallylight.forget_keys(smallint, uuid, timestamptz, int) FROM PUBLIC;

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.key_horizon'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.forget_keys');
SELECT tallylight.ensure_roles();
