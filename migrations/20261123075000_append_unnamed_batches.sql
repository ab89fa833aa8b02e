-- append_batches without batch ids: for whoever repeats a whole transaction, and never its append
-- alone. A name would be a row for each slice and transaction that nobody ever asks for.

CREATE OR REPLACE FUNCTION tallylight.append_batches(
  p_slices smallint[], p_batch uuid[], p_count int[],
  p_event_id uuid[], p_subject text[], p_type text[], p_version smallint[], p_key uuid[],
  p_received timestamptz[], p_causation uuid[], p_correlation uuid[], p_meta text[], p_payload bytea[],
  OUT after_position bigint[], OUT skipped int[])
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  v_slice   smallint[];
  v_at      timestamptz[];
  v_first   int[];
  v_count   int[] := p_count;
  v_claimed smallint[];
BEGIN
  SELECT array_agg(h.slice), array_agg(h.position), array_agg(greatest(clock_timestamp(), h.last_at))
    INTO v_slice, append_batches.after_position, v_at
    FROM (SELECT s.slice, s.position, s.last_at FROM tallylight.slice_head s
           WHERE s.slice = ANY (p_slices) ORDER BY s.slice FOR NO KEY UPDATE) AS h;
  IF v_slice IS DISTINCT FROM p_slices THEN
    RAISE EXCEPTION 'slices % are not slices of this installation in ascending order', p_slices
      USING ERRCODE = 'TL001';
  END IF;

  -- The number of each batch's first event. Positions follow from the counts alone, so that they
  -- are dense whatever the caller sends.
  SELECT array_agg(1 + b.before::int ORDER BY b.nth) INTO v_first
    FROM (SELECT c.nth, sum(c.count) OVER (ORDER BY c.nth) - c.count AS before
            FROM unnest(p_count) WITH ORDINALITY AS c (count, nth)) AS b;
  IF (SELECT sum(c) FROM unnest(p_count) AS c) IS DISTINCT FROM cardinality(p_event_id)
     OR 1 > ANY (p_count) OR cardinality(p_count) <> cardinality(p_slices) THEN
    RAISE EXCEPTION 'the counts % are not those of % events', p_count, cardinality(p_event_id)
      USING ERRCODE = '22023';
  END IF;

  -- A batch sent again after a lost reply stores nothing, whichever try runs first.
  IF p_batch IS NOT NULL THEN
    WITH claimed AS (
      INSERT INTO tallylight.event_key (slice, key, recorded_at)
      SELECT b.slice, b.batch, b.at FROM unnest(p_slices, p_batch, v_at) AS b (slice, batch, at)
      ON CONFLICT DO NOTHING
      RETURNING event_key.slice)
    SELECT coalesce(array_agg(c.slice), '{}') INTO v_claimed FROM claimed c;
    IF cardinality(v_claimed) < cardinality(p_slices) THEN
      SELECT array_agg(CASE WHEN b.slice = ANY (v_claimed) THEN b.after END ORDER BY b.nth)
        INTO append_batches.after_position
        FROM unnest(p_slices, append_batches.after_position) WITH ORDINALITY AS b (slice, after, nth);
    END IF;
  END IF;

  -- Stored: events without a key, and the first carrier of each key that this call claims.
  IF p_key IS NOT NULL THEN
    WITH keyed AS MATERIALIZED (
      SELECT k.key, k.ord, k.nth, row_number() OVER (PARTITION BY k.nth, k.key ORDER BY k.ord) AS copy
        FROM (SELECT u.key, u.ord::int, width_bucket(u.ord::int, v_first) AS nth
                FROM unnest(p_key) WITH ORDINALITY AS u (key, ord)) AS k
       WHERE k.key IS NOT NULL AND append_batches.after_position[k.nth] IS NOT NULL),
    claimed AS (
      INSERT INTO tallylight.event_key (slice, key, recorded_at)
      SELECT p_slices[k.nth], k.key, v_at[k.nth] FROM keyed k WHERE k.copy = 1
      ON CONFLICT DO NOTHING
      RETURNING event_key.slice, event_key.key)
    SELECT array_agg(k.ord ORDER BY k.ord) INTO append_batches.skipped
      FROM keyed k LEFT JOIN claimed c ON c.slice = p_slices[k.nth] AND c.key = k.key
     WHERE k.copy > 1 OR c.key IS NULL;
  END IF;

  IF append_batches.skipped IS NULL THEN
    INSERT INTO tallylight.event
      (slice, position, recorded_at, received_at, event_id, subject, event_type, schema_version,
       causation_id, correlation_id, meta, payload)
    SELECT p_slices[e.nth], append_batches.after_position[e.nth] + 1 + e.ord - v_first[e.nth], v_at[e.nth],
           e.received, e.id, e.subject, e.type, e.version, e.causation, e.correlation, e.meta::json, e.payload
      FROM (SELECT u.*, width_bucket(u.ord::int, v_first) AS nth
              FROM unnest(p_event_id, p_subject, p_type, p_version, p_received, p_causation, p_correlation,
                          p_meta, p_payload) WITH ORDINALITY
                AS u (id, subject, type, version, received, causation, correlation, meta, payload, ord)) AS e
     WHERE append_batches.after_position[e.nth] IS NOT NULL;
  ELSE
    INSERT INTO tallylight.event
      (slice, position, recorded_at, received_at, event_id, subject, event_type, schema_version,
       causation_id, correlation_id, meta, payload)
    SELECT p_slices[e.nth],
           append_batches.after_position[e.nth] + row_number() OVER (PARTITION BY e.nth ORDER BY e.ord),
           v_at[e.nth], e.received, e.id, e.subject, e.type, e.version, e.causation, e.correlation,
           e.meta::json, e.payload
      FROM (SELECT u.*, width_bucket(u.ord::int, v_first) AS nth
              FROM unnest(p_event_id, p_subject, p_type, p_version, p_received, p_causation, p_correlation,
                          p_meta, p_payload) WITH ORDINALITY
                AS u (id, subject, type, version, received, causation, correlation, meta, payload, ord)) AS e
     WHERE append_batches.after_position[e.nth] IS NOT NULL AND e.ord <> ALL (append_batches.skipped);
    SELECT array_agg(c.count - (SELECT count(*)::int FROM unnest(append_batches.skipped) AS s
                                 WHERE width_bucket(s, v_first) = c.nth) ORDER BY c.nth)
      INTO v_count
      FROM unnest(p_count) WITH ORDINALITY AS c (count, nth);
  END IF;

  UPDATE tallylight.slice_head h SET position = b.after + b.count, last_at = b.at
    FROM unnest(p_slices, append_batches.after_position, v_count, v_at) AS b (slice, after, count, at)
   WHERE h.slice = b.slice AND b.after IS NOT NULL AND b.count > 0;
END $$;
COMMENT ON FUNCTION tallylight.append_batches(smallint[], uuid[], int[], uuid[], text[], text[], smallint[], uuid[],
  timestamptz[], uuid[], uuid[], text[], bytea[]) IS
  'Appends one batch to each of several slices, given in ascending order with the number of their events, whose arrays have them in the same order. p_batch: the id of each, or null for batches that are never sent again. after_position: each head before, NULL where that batch was stored before; skipped: which of the events (from 1) were not stored because their key was known';
