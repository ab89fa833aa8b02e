-- An event that was skipped waits for nothing: it keeps no key alive.

CREATE OR REPLACE FUNCTION tallylight.key_horizon(p_slice smallint, p_before timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT least(p_before,
    -- What a consumer decides twice before it has applied what it appended, a key keeps single.
    (SELECT min(c.recorded_at) FROM tallylight.checkpoint c JOIN tallylight.slice_head h ON h.slice = c.slice
      WHERE c.slice = p_slice AND c.consumer <> 'jobs' AND c.position < h.position),
    (SELECT min(e.recorded_at) FROM tallylight.parked p JOIN tallylight.event e
         ON e.slice = p.slice AND e.position = p.position
      WHERE p.slice = p_slice AND p.skipped_at IS NULL),
    -- A forward that died after its append and before its end appends again, in any slice.
    (SELECT min(j.enqueued_at) FROM (
       SELECT enqueued_at FROM tallylight.job WHERE kind = 'forward'
       UNION ALL SELECT enqueued_at FROM tallylight.job_dead WHERE kind = 'forward') AS j))
$$;
