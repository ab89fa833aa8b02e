-- append: stores events of one slice at the next dense positions.
--
-- For READ COMMITTED, one slice per call: the lock and the writes are statements of their own, so
-- that each sees what committed while the lock was waited for. In a longer transaction it comes
-- last, since it holds the slice's head until commit.

CREATE FUNCTION tallylight.append(
  p_slice smallint, p_batch uuid,
  p_event_id uuid[], p_subject text[], p_type text[], p_version smallint[], p_key uuid[],
  p_received timestamptz[], p_causation uuid[], p_correlation uuid[], p_meta json[], p_payload bytea[])
RETURNS TABLE (stored_event_id uuid, stored_at_position bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  v_position bigint;
  v_at       timestamptz;
  v_claimed  uuid[];
  v_stored   bigint;
BEGIN
  SELECT position, greatest(clock_timestamp(), last_at) INTO v_position, v_at
    FROM tallylight.slice_head WHERE slice = p_slice FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'slice % does not exist in this installation', p_slice USING ERRCODE = 'TL001';
  END IF;

  -- A batch sent again after a lost reply stores nothing, whichever try runs first.
  IF p_batch IS NOT NULL THEN
    INSERT INTO tallylight.event_key (slice, key, recorded_at) VALUES (p_slice, p_batch, v_at)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN RETURN; END IF;
  END IF;

  IF p_key IS NOT NULL THEN
    WITH claimed AS (
      INSERT INTO tallylight.event_key (slice, key, recorded_at)
      SELECT p_slice, k.key, v_at FROM unnest(p_key) AS k (key) WHERE k.key IS NOT NULL
      ON CONFLICT DO NOTHING
      RETURNING event_key.key)
    SELECT coalesce(array_agg(c.key), '{}') INTO v_claimed FROM claimed c;
  END IF;

  -- Stored: events without a key, and the first carrier of each key that this call claimed.
  RETURN QUERY
  INSERT INTO tallylight.event
    (slice, position, recorded_at, received_at, event_id, subject, event_type, schema_version,
     causation_id, correlation_id, meta, payload)
  SELECT p_slice, v_position + row_number() OVER (ORDER BY e.ord), v_at, e.received, e.id, e.subject,
         e.type, e.version, e.causation, e.correlation, e.meta, e.payload
    FROM (SELECT u.*, row_number() OVER (PARTITION BY u.key ORDER BY u.ord) AS nth
            FROM unnest(p_event_id, p_subject, p_type, p_version, p_key, p_received,
                        p_causation, p_correlation, p_meta, p_payload) WITH ORDINALITY
              AS u (id, subject, type, version, key, received, causation, correlation, meta, payload, ord)) AS e
   WHERE e.key IS NULL OR (e.nth = 1 AND e.key IN (SELECT unnest(v_claimed)))
  RETURNING event.event_id, event.position;
  GET DIAGNOSTICS v_stored = ROW_COUNT;

  IF v_stored > 0 THEN
    UPDATE tallylight.slice_head SET position = v_position + v_stored, last_at = v_at WHERE slice = p_slice;
  END IF;
END $$;
COMMENT ON FUNCTION tallylight.append(smallint, uuid, uuid[], text[], text[], smallint[], uuid[],
  timestamptz[], uuid[], uuid[], json[], bytea[]) IS
  'Appends events to one slice. An event id that does not come back was stored before, by key or by batch';
