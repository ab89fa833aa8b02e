-- append_batch: the one way into the log. Stores events of one slice at the next dense positions
-- and answers with one row, from which the caller knows every position.
--
-- For READ COMMITTED, one slice per call: the lock and the writes are statements of their own, so
-- that each sees what committed while the lock was waited for. In a longer transaction it comes
-- last, since it holds the slice's head until commit. An array may be NULL where all its values
-- are. The transport's facts come as text: so they are checked once and copied, and never parsed
-- into jsonb on the way.

CREATE FUNCTION tallylight.append_batch(
  p_slice smallint, p_batch uuid,
  p_event_id uuid[], p_subject text[], p_type text[], p_version smallint[], p_key uuid[],
  p_received timestamptz[], p_causation uuid[], p_correlation uuid[], p_meta text[], p_payload bytea[],
  OUT after_position bigint, OUT skipped int[])
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  v_at      timestamptz;
  v_claimed uuid[];
  v_stored  bigint;
BEGIN
  SELECT h.position, greatest(clock_timestamp(), h.last_at) INTO append_batch.after_position, v_at
    FROM tallylight.slice_head h WHERE h.slice = p_slice FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'slice % does not exist in this installation', p_slice USING ERRCODE = 'TL001';
  END IF;

  -- A batch sent again after a lost reply stores nothing, whichever try runs first.
  IF p_batch IS NOT NULL THEN
    INSERT INTO tallylight.event_key (slice, key, recorded_at) VALUES (p_slice, p_batch, v_at)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      after_position := NULL;
      RETURN;
    END IF;
  END IF;

  -- Stored: events without a key, and the first carrier of each key that this call claims.
  IF p_key IS NOT NULL THEN
    WITH claimed AS (
      INSERT INTO tallylight.event_key (slice, key, recorded_at)
      SELECT p_slice, k.key, v_at FROM unnest(p_key) AS k (key) WHERE k.key IS NOT NULL
      ON CONFLICT DO NOTHING
      RETURNING event_key.key)
    SELECT coalesce(array_agg(c.key), '{}') INTO v_claimed FROM claimed c;
    SELECT array_agg(k.ord::int ORDER BY k.ord) INTO append_batch.skipped
      FROM (SELECT u.key, u.ord, row_number() OVER (PARTITION BY u.key ORDER BY u.ord) AS nth
              FROM unnest(p_key) WITH ORDINALITY AS u (key, ord)) AS k
     WHERE k.key IS NOT NULL AND (k.nth > 1 OR k.key <> ALL (v_claimed));
  END IF;

  IF append_batch.skipped IS NULL THEN
    INSERT INTO tallylight.event
      (slice, position, recorded_at, received_at, event_id, subject, event_type, schema_version,
       causation_id, correlation_id, meta, payload)
    SELECT p_slice, append_batch.after_position + e.ord, v_at, e.received, e.id, e.subject,
           e.type, e.version, e.causation, e.correlation, e.meta::json, e.payload
      FROM unnest(p_event_id, p_subject, p_type, p_version, p_received, p_causation, p_correlation,
                  p_meta, p_payload) WITH ORDINALITY
        AS e (id, subject, type, version, received, causation, correlation, meta, payload, ord);
  ELSE
    INSERT INTO tallylight.event
      (slice, position, recorded_at, received_at, event_id, subject, event_type, schema_version,
       causation_id, correlation_id, meta, payload)
    SELECT p_slice, append_batch.after_position + row_number() OVER (ORDER BY e.ord), v_at, e.received,
           e.id, e.subject, e.type, e.version, e.causation, e.correlation, e.meta::json, e.payload
      FROM unnest(p_event_id, p_subject, p_type, p_version, p_received, p_causation, p_correlation,
                  p_meta, p_payload) WITH ORDINALITY
        AS e (id, subject, type, version, received, causation, correlation, meta, payload, ord)
     WHERE e.ord <> ALL (append_batch.skipped);
  END IF;
  GET DIAGNOSTICS v_stored = ROW_COUNT;

  IF v_stored > 0 THEN
    UPDATE tallylight.slice_head SET position = append_batch.after_position + v_stored, last_at = v_at
     WHERE slice = p_slice;
  END IF;
END $$;
COMMENT ON FUNCTION tallylight.append_batch(smallint, uuid, uuid[], text[], text[], smallint[], uuid[],
  timestamptz[], uuid[], uuid[], text[], bytea[]) IS
  'Appends events to one slice. after_position: the head before them, NULL where the batch was stored before; skipped: which of them (from 1) were not stored because their key was known';

-- The form that answers with a row per stored event, for programs of an earlier version.
CREATE OR REPLACE FUNCTION tallylight.append(
  p_slice smallint, p_batch uuid,
  p_event_id uuid[], p_subject text[], p_type text[], p_version smallint[], p_key uuid[],
  p_received timestamptz[], p_causation uuid[], p_correlation uuid[], p_meta json[], p_payload bytea[])
RETURNS TABLE (stored_event_id uuid, stored_at_position bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_after   bigint;
  v_skipped int[];
BEGIN
  SELECT b.after_position, b.skipped INTO v_after, v_skipped
    FROM tallylight.append_batch(p_slice, p_batch, p_event_id, p_subject, p_type, p_version, p_key, p_received,
                                 p_causation, p_correlation, p_meta::text[], p_payload) AS b;
  IF v_after IS NULL THEN RETURN; END IF;
  RETURN QUERY
  SELECT e.id, v_after + row_number() OVER (ORDER BY e.ord)
    FROM unnest(p_event_id) WITH ORDINALITY AS e (id, ord)
   WHERE v_skipped IS NULL OR e.ord <> ALL (v_skipped);
END $$;

REVOKE EXECUTE ON FUNCTION tallylight.append_batch FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege)
SELECT role, 'EXECUTE ON FUNCTION tallylight.append_batch'
  FROM unnest(ARRAY['tallylight_ingest', 'tallylight_worker', 'tallylight_api']::name[]) AS r (role);
SELECT tallylight.ensure_roles();
