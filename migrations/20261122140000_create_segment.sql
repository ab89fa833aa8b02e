-- Sealed history: closed months of the log as files outside of the database.
--
-- A segment is a closed range of one slice in one file. Segments of a slice are its beginning,
-- without a hole: what is not sealed is in `event`. A month leaves the database in this order:
-- each of its segments is noted, the partition is detached, the partition is dropped. The two
-- functions that take it away look for themselves that every row is covered, whoever calls.

CREATE TABLE tallylight.segment (
  slice         smallint    NOT NULL,
  from_position bigint      NOT NULL CHECK (from_position > 0),
  to_position   bigint      NOT NULL,
  from_at       timestamptz NOT NULL,
  to_at         timestamptz NOT NULL,
  file          text        NOT NULL,
  bytes         bigint      NOT NULL CHECK (bytes > 0),
  sha256        bytea       NOT NULL CHECK (length(sha256) = 32),
  sealed_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (slice, from_position),
  CHECK (to_position >= from_position AND to_at >= from_at)
);
COMMENT ON TABLE  tallylight.segment IS 'Closed ranges of the log that stand in files. Written by tallylight.note_segment only';
COMMENT ON COLUMN tallylight.segment.to_position IS 'Last position of the range; the next segment of the slice begins after it';
COMMENT ON COLUMN tallylight.segment.from_at IS 'recorded_at of its first event';
COMMENT ON COLUMN tallylight.segment.to_at IS 'recorded_at of its last event';
COMMENT ON COLUMN tallylight.segment.file IS 'Its path below history.url';
COMMENT ON COLUMN tallylight.segment.sha256 IS 'Of the whole file';

-- Months are named by their partition, `event_YYYY_MM`: no caller may name another table.
CREATE FUNCTION tallylight.month_table(p_partition text) RETURNS regclass
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_table regclass := to_regclass(format('tallylight.%I', p_partition));
BEGIN
  IF p_partition IS NULL OR p_partition !~ '^event_[0-9]{4}_[0-9]{2}$' OR v_table IS NULL THEN
    RAISE EXCEPTION 'there is no month %', p_partition USING ERRCODE = 'TL010';
  END IF;
  RETURN v_table;
END $$;
COMMENT ON FUNCTION tallylight.month_table(text) IS 'The table of a month, attached or not';

CREATE FUNCTION tallylight.note_segment(
  p_slice smallint, p_from bigint, p_to bigint, p_from_at timestamptz, p_to_at timestamptz,
  p_file text, p_bytes bigint, p_sha256 bytea)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_sealed bigint;
  v_count  bigint;
BEGIN
  -- One at a time: two would both extend the same end.
  LOCK TABLE tallylight.segment IN SHARE ROW EXCLUSIVE MODE;
  SELECT coalesce(max(s.to_position), 0) INTO v_sealed FROM tallylight.segment s WHERE s.slice = p_slice;
  IF p_from IS DISTINCT FROM v_sealed + 1 THEN
    RAISE EXCEPTION 'slice % is sealed up to %, so a segment cannot begin at %', p_slice, v_sealed, p_from
      USING ERRCODE = 'TL011';
  END IF;
  SELECT count(*) INTO v_count FROM tallylight.event e
   WHERE e.slice = p_slice AND e.position BETWEEN p_from AND p_to
     AND e.recorded_at BETWEEN p_from_at AND p_to_at;
  IF v_count <> p_to - p_from + 1 THEN
    RAISE EXCEPTION 'slice % has % events from % to %, so they are no segment', p_slice, v_count, p_from, p_to
      USING ERRCODE = 'TL012';
  END IF;
  INSERT INTO tallylight.segment (slice, from_position, to_position, from_at, to_at, file, bytes, sha256)
  VALUES (p_slice, p_from, p_to, p_from_at, p_to_at, p_file, p_bytes, p_sha256);
END $$;
COMMENT ON FUNCTION tallylight.note_segment(smallint, bigint, bigint, timestamptz, timestamptz, text, bigint, bytea) IS
  'Notes a segment whose file was read back and compared; it must begin where the last one of its slice ended';

-- Raises unless segments hold each row of a month: number, first and last position, per slice.
-- The month is locked against writers until the end of the transaction.
CREATE FUNCTION tallylight.check_sealed(p_partition text) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_table regclass := tallylight.month_table(p_partition);
  v_slice smallint;
BEGIN
  EXECUTE format('LOCK TABLE %s IN SHARE MODE', v_table);
  EXECUTE format(
    'SELECT m.slice FROM (SELECT e.slice, min(e.position) AS lo, max(e.position) AS hi, count(*) AS n
                            FROM %s e GROUP BY e.slice) AS m
      WHERE m.n <> m.hi - m.lo + 1
         OR NOT coalesce((SELECT min(s.from_position) = m.lo AND max(s.to_position) = m.hi
                             AND sum(s.to_position - s.from_position + 1) = m.n
                            FROM tallylight.segment s
                           WHERE s.slice = m.slice AND s.from_position >= m.lo AND s.to_position <= m.hi), false)
      ORDER BY 1 LIMIT 1', v_table) INTO v_slice;
  IF v_slice IS NOT NULL THEN
    RAISE EXCEPTION 'month % has events of slice % that no segment holds', p_partition, v_slice
      USING ERRCODE = 'TL013';
  END IF;
END $$;
COMMENT ON FUNCTION tallylight.check_sealed(text) IS 'Raises unless segments cover every row of a month';

-- Detached plainly: CONCURRENTLY is refused while a default partition exists. Whoever appends
-- waits behind the wait for the lock, so each is short and there are several.
CREATE FUNCTION tallylight.detach_sealed(p_partition text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
  v_table regclass := tallylight.month_table(p_partition);
BEGIN
  PERFORM tallylight.check_sealed(p_partition);
  FOR v_try IN 1..30 LOOP
    IF NOT EXISTS (SELECT FROM pg_inherits i
                    WHERE i.inhrelid = v_table AND i.inhparent = 'tallylight.event'::regclass) THEN
      RETURN v_try > 1;
    END IF;
    BEGIN
      EXECUTE format('ALTER TABLE tallylight.event DETACH PARTITION %s', v_table);
      RETURN true;
    EXCEPTION WHEN lock_not_available THEN
      PERFORM pg_sleep(0.02 * v_try);
    END;
  END LOOP;
  RAISE EXCEPTION 'month % is in use: it could not be detached', p_partition USING ERRCODE = 'lock_not_available';
END $$;
COMMENT ON FUNCTION tallylight.detach_sealed(text) IS 'Takes a sealed month out of the log; false: it was out';

CREATE FUNCTION tallylight.drop_sealed(p_partition text) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  v_table regclass := tallylight.month_table(p_partition);
BEGIN
  IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = v_table) THEN
    RAISE EXCEPTION 'month % is part of the log: detach it first', p_partition USING ERRCODE = 'TL014';
  END IF;
  PERFORM tallylight.check_sealed(p_partition);
  EXECUTE format('DROP TABLE %s', v_table);
END $$;
COMMENT ON FUNCTION tallylight.drop_sealed(text) IS 'Drops a month that is sealed and detached';

REVOKE EXECUTE ON FUNCTION tallylight.month_table(text), tallylight.check_sealed(text),
  tallylight.detach_sealed(text), tallylight.drop_sealed(text),
  tallylight.note_segment(smallint, bigint, bigint, timestamptz, timestamptz, text, bigint, bytea) FROM PUBLIC;

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'SELECT ON tallylight.segment'),
  ('tallylight_api', 'SELECT ON tallylight.segment'),
  ('tallylight_readonly', 'SELECT ON tallylight.segment'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.note_segment'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.detach_sealed'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.drop_sealed');
SELECT tallylight.ensure_roles();
