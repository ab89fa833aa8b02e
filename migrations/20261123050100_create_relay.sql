-- relay, wake_waiting: how words reach a job that waits, and how a reaction finds who waits for its
-- events.

CREATE FUNCTION tallylight.derived_id(p_scope text, p_parts text[]) RETURNS uuid
LANGUAGE sql IMMUTABLE
AS $$
  SELECT encode(set_byte(set_byte(d.id, 6, get_byte(d.id, 6) & 15 | 128), 8, get_byte(d.id, 8) & 63 | 128), 'hex')::uuid
    FROM (SELECT substring(sha256(string_agg(int8send(length(p.bytes)) || p.bytes, '' ORDER BY p.n)) FOR 16) AS id
            FROM (SELECT convert_to(u.part, 'UTF8') AS bytes, u.n FROM unnest(p_scope || p_parts) WITH ORDINALITY AS u (part, n)) AS p) AS d
$$;
COMMENT ON FUNCTION tallylight.derived_id(text, text[]) IS 'The id that domain::ids::derived_id derives: UUID version 8 of SHA-256 over length-prefixed parts';

CREATE FUNCTION tallylight.relay(p_slice smallint, p_words jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- In the order in which the end of a run locks them. Of two last children at once, whoever comes
  -- second sees what the first one did; and a run that is just ending has ended, or will find what
  -- is written here. The steps too, since a dead letter has them and no job.
  PERFORM FROM tallylight.job j
    WHERE j.slice = p_slice AND j.id IN (SELECT w.job FROM jsonb_to_recordset(p_words) AS w (job uuid))
    ORDER BY j.id FOR UPDATE OF j;
  PERFORM FROM tallylight.job_step s
    WHERE s.slice = p_slice AND (s.job, s.name) IN (SELECT w.job, w.step FROM jsonb_to_recordset(p_words) AS w (job uuid, step text))
    ORDER BY s.job, s.name FOR UPDATE OF s;

  -- A word that comes again, or late, changes nothing.
  UPDATE tallylight.job_child c
     SET rank = w.rank, state = w.state, value = w.value, error = w.error,
         is_open = s.on_failure = 'wait' AND w.state IN ('discarded', 'quarantined')
    FROM (SELECT DISTINCT ON (w.job, w.step, w.n) w.* FROM jsonb_to_recordset(p_words)
              AS w (job uuid, step text, n int, rank int, state text, value jsonb, error text)
           WHERE w.n IS NOT NULL ORDER BY w.job, w.step, w.n, w.rank DESC) AS w
    JOIN tallylight.job_step s ON s.slice = p_slice AND s.job = w.job AND s.name = w.step
   WHERE c.slice = p_slice AND c.parent = w.job AND c.step = w.step AND c.n = w.n
     AND (c.rank IS NULL OR c.rank < w.rank);

  UPDATE tallylight.job_step s SET closed_at = now(), value = w.value
    FROM jsonb_to_recordset(p_words) AS w (job uuid, step text, n int, value jsonb)
   WHERE s.slice = p_slice AND s.job = w.job AND s.name = w.step AND w.n IS NULL AND s.kind = 'event' AND s.closed_at IS NULL;

  -- As cancel_job does: a mark, which the holder of the slice finds.
  UPDATE tallylight.job j
     SET cancel_at = coalesce(j.cancel_at, now()), last_error = format('child %s was %s: %s', w.child, w.state, w.error),
         run_epoch = CASE WHEN j.run_epoch >= p.epoch THEN j.run_epoch ELSE 9223372036854775807 END
    FROM (SELECT DISTINCT ON (s.job) s.job, c.child, c.state, c.error
            FROM jsonb_to_recordset(p_words) AS w (job uuid, step text, n int)
            JOIN tallylight.job_step s ON s.slice = p_slice AND s.job = w.job AND s.name = w.step
            JOIN tallylight.job_child c ON c.slice = p_slice AND c.parent = w.job AND c.step = w.step AND c.n = w.n
           WHERE s.on_failure = 'cancel' AND s.closed_at IS NULL AND c.state <> 'completed'
           ORDER BY s.job, c.n) AS w
    CROSS JOIN tallylight.checkpoint p
   WHERE j.slice = p_slice AND j.id = w.job AND p.consumer = 'jobs' AND p.slice = p_slice;

  UPDATE tallylight.job_step s SET closed_at = now()
   WHERE s.slice = p_slice AND s.kind = 'children' AND s.closed_at IS NULL
     AND (s.job, s.name) IN (SELECT w.job, w.step FROM jsonb_to_recordset(p_words) AS w (job uuid, step text))
     AND (SELECT max(c.n) FROM tallylight.job_child c
           WHERE c.slice = p_slice AND c.parent = s.job AND c.step = s.name AND c.is_open) IS NULL;

  UPDATE tallylight.job j SET run_at = least(j.run_at, now())
    FROM (SELECT DISTINCT w.job, w.step FROM jsonb_to_recordset(p_words) AS w (job uuid, step text)) AS w
    JOIN tallylight.job_step s ON s.slice = p_slice AND s.job = w.job AND s.name = w.step
   WHERE j.slice = p_slice AND j.id = w.job AND j.waits ->> 'for' = w.step AND s.closed_at IS NOT NULL AND j.run_epoch IS NULL;
END $$;
COMMENT ON FUNCTION tallylight.relay(smallint, jsonb) IS
  'Tells jobs of a slice what they wait for: an array of {job, step, n, rank, state, value, error} of children, {job, step, value} of events. Jobs that have all they wait for are due';

CREATE FUNCTION tallylight.wake_waiting(p_slice smallint, p_after bigint, p_since timestamptz, p_to bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_found bigint;
BEGIN
  WITH met AS (
    SELECT DISTINCT ON (w.job, w.step) w.subject, w.job, w.step, w.job_slice, e.position
      FROM tallylight.event e
      JOIN tallylight.event_wait w ON w.slice = p_slice AND w.subject = e.subject
     WHERE e.slice = p_slice AND e.position > p_after AND e.position <= p_to AND e.recorded_at >= p_since
       AND e.position > w.after AND (w.types = '{}' OR e.event_type = ANY (w.types))
     ORDER BY w.job, w.step, e.position),
  gone AS (
    DELETE FROM tallylight.event_wait w USING met m
     WHERE w.slice = p_slice AND w.subject = m.subject AND w.job = m.job AND w.step = m.step)
  INSERT INTO tallylight.job (slice, id, subject, args, kind, queue, max_attempts)
  SELECT p_slice, tallylight.derived_id('relay-event', ARRAY[m.job::text, m.step, m.position::text]), m.subject,
         jsonb_build_object('tell', jsonb_build_object('to', m.job_slice, 'word', jsonb_build_object('job', m.job, 'step', m.step,
           'value', jsonb_build_object('slice', p_slice, 'position', m.position)))),
         'relay', 'platform', 2147483647
    FROM met m
  ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS v_found = ROW_COUNT;

  -- Jobs that ended without their event, or timed out, left these.
  DELETE FROM tallylight.event_wait w WHERE w.slice = p_slice AND w.until < now() - interval '1 minute';
  UPDATE tallylight.checkpoint c SET has_waits = false
   WHERE c.consumer = 'react' AND c.slice = p_slice AND NOT EXISTS (SELECT FROM tallylight.event_wait w WHERE w.slice = p_slice);
  RETURN v_found;
END $$;
COMMENT ON FUNCTION tallylight.wake_waiting(smallint, bigint, timestamptz, bigint) IS
  'In a reaction to the events of a slice after p_after up to p_to: sends a relay to each job that waits for one of them; returns how many';

CREATE OR REPLACE FUNCTION tallylight.is_decided(kind text) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
  SELECT kind IN ('timer', 'forward', 'relay', 'create_live_stream', 'update_live_stream', 'clear_dvr', 'create_broadcast',
                  'activate_live_stream', 'deactivate_live_stream', 'set_broadcast_status', 'start_recording',
                  'stop_recording', 'delete_broadcast', 'observe_live_stream', 'list_videos', 'fetch_video',
                  'delete_live_stream')
$$;

-- Throws away what hangs on the dead letters too: their steps, and their parents' wait for them.
CREATE OR REPLACE FUNCTION tallylight.discard_dead(p_filter jsonb, p_dry_run boolean DEFAULT false) RETURNS bigint
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
    RETURN v_count;
  END IF;
  WITH gone AS (
    DELETE FROM tallylight.job_dead d WHERE tallylight.is_dead_match(d, p_filter)
    RETURNING d.slice, d.id, d.attempt, d.waits),
  steps AS (
    DELETE FROM tallylight.job_step s USING gone g WHERE g.waits ? 'steps' AND s.slice = g.slice AND s.job = g.id),
  children AS (
    DELETE FROM tallylight.job_child c USING gone g WHERE g.waits ? 'steps' AND c.slice = g.slice AND c.parent = g.id),
  told AS (
    INSERT INTO tallylight.job (slice, id, subject, args, kind, queue, max_attempts)
    SELECT g.slice, tallylight.derived_id('relay', ARRAY[g.id::text, (g.attempt * 2 + 1)::text]), 'job/' || (g.waits #>> '{parent,job}'),
           jsonb_build_object('tell', jsonb_build_object('to', g.waits #> '{parent,slice}', 'word', jsonb_build_object(
             'job', g.waits #> '{parent,job}', 'step', g.waits #> '{parent,step}', 'n', g.waits #> '{parent,n}',
             'rank', g.attempt * 2 + 1, 'state', 'cancelled', 'error', 'thrown away as a dead letter'))),
           'relay', 'platform', 2147483647
      FROM gone g WHERE g.waits ? 'parent'
    ON CONFLICT DO NOTHING)
  SELECT count(*) INTO v_count FROM gone;
  RETURN v_count;
END $$;

REVOKE EXECUTE ON FUNCTION tallylight.derived_id(text, text[]), tallylight.relay(smallint, jsonb), tallylight.wake_waiting(smallint, bigint, timestamptz, bigint) FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.derived_id'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.relay'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.wake_waiting');
SELECT tallylight.ensure_roles();
