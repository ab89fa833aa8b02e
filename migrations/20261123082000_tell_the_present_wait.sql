-- relay, wake_waiting: a job that recurs may wait again under the name of an earlier step, while who
-- waits for the earlier one's event is still listed. A word says which subject it is about, and only
-- the wait that it fits hears it. (Words of builds before this one name no subject.)

CREATE OR REPLACE FUNCTION tallylight.relay(p_slice smallint, p_words jsonb) RETURNS void
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
    FROM jsonb_to_recordset(p_words) AS w (job uuid, step text, n int, subject text, value jsonb)
   WHERE s.slice = p_slice AND s.job = w.job AND s.name = w.step AND w.n IS NULL AND s.kind = 'event' AND s.closed_at IS NULL
     -- A word that an earlier wait of this name asked for may be about something else.
     AND (w.value ->> 'position')::bigint > (s.awaits ->> 'after')::bigint
     AND coalesce(w.subject, s.awaits ->> 'subject') = s.awaits ->> 'subject';

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

CREATE OR REPLACE FUNCTION tallylight.wake_waiting(p_slice smallint, p_after bigint, p_since timestamptz, p_to bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_found bigint;
BEGIN
  WITH met AS (
    SELECT DISTINCT ON (w.job, w.step, w.subject) w.subject, w.job, w.step, w.job_slice, e.position
      FROM tallylight.event e
      JOIN tallylight.event_wait w ON w.slice = p_slice AND w.subject = e.subject
     WHERE e.slice = p_slice AND e.position > p_after AND e.position <= p_to AND e.recorded_at >= p_since
       AND e.position > w.after AND (w.types = '{}' OR e.event_type = ANY (w.types))
     ORDER BY w.job, w.step, w.subject, e.position),
  gone AS (
    DELETE FROM tallylight.event_wait w USING met m
     WHERE w.slice = p_slice AND w.subject = m.subject AND w.job = m.job AND w.step = m.step)
  INSERT INTO tallylight.job (slice, id, subject, args, kind, queue, max_attempts)
  SELECT p_slice, tallylight.derived_id('relay-event', ARRAY[m.job::text, m.step, m.position::text]), m.subject,
         jsonb_build_object('tell', jsonb_build_object('to', m.job_slice, 'word', jsonb_build_object('job', m.job, 'step', m.step,
           'subject', m.subject, 'value', jsonb_build_object('slice', p_slice, 'position', m.position)))),
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
