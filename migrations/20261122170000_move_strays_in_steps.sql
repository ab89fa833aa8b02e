-- Stray events, those that met no month, are moved out of the default partition in steps, while
-- appends go on.
--
-- They are copied, a bounded number at a time, to months of their own under `event_stray`, which
-- is no part of the log: stored events never change, so a copy stays right. Then one short
-- transaction takes the log, copies the few that came last, attaches the months and empties the
-- default partition. Whoever reads the log finds each event once, before and after.

CREATE OR REPLACE FUNCTION tallylight.ensure_partitions(p_months_ahead int) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  v_from timestamptz;
  v_name text;
  v_made int := 0;
BEGIN
  IF p_months_ahead IS NULL OR p_months_ahead NOT BETWEEN 0 AND 120 THEN
    RAISE EXCEPTION 'months ahead must be 0 to 120' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- One at a time: two would both find a month missing.
  PERFORM pg_advisory_xact_lock(hashtextextended('tallylight.ensure_partitions', 0));
  -- An attached month would be compared with every event there, under a lock on all of them.
  IF EXISTS (SELECT FROM tallylight.event_default) THEN
    RETURN NULL;
  END IF;
  FOR v_from IN
    SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n)) AT TIME ZONE 'UTC'
      FROM generate_series(0, p_months_ahead) AS n ORDER BY 1
  LOOP
    v_name := 'event_' || to_char(v_from AT TIME ZONE 'UTC', 'YYYY_MM');
    CONTINUE WHEN to_regclass('tallylight.' || v_name) IS NOT NULL;
    EXECUTE format('CREATE TABLE tallylight.%I (LIKE tallylight.event INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)', v_name);
    PERFORM tallylight.attach_month(v_name, v_from);
    v_made := v_made + 1;
  END LOOP;
  RETURN v_made;
END $$;
COMMENT ON FUNCTION tallylight.ensure_partitions(int) IS
  'Makes the monthly partitions from this month to that many months ahead; returns how many were missing, or null: stray events are to be moved first, by copy_strays and attach_strays';

CREATE FUNCTION tallylight.attach_month(p_name text, p_from timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('ALTER TABLE tallylight.event ATTACH PARTITION tallylight.%I FOR VALUES FROM (%L) TO (%L)',
                 p_name, p_from, p_from + interval '1 month');
  EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON tallylight.%I FOR EACH STATEMENT EXECUTE FUNCTION tallylight.forbid_change()',
                 p_name || '_no_truncate', p_name);
END $$;
COMMENT ON FUNCTION tallylight.attach_month(text, timestamptz) IS 'Makes a table that holds a month, and nothing else, a part of the log';

CREATE FUNCTION tallylight.stage_month(p_from timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  v_name text := 'event_' || to_char(p_from, 'YYYY_MM');
BEGIN
  IF to_regclass('tallylight.' || v_name) IS NOT NULL THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE tallylight.%I PARTITION OF tallylight.event_stray FOR VALUES FROM (%L) TO (%L)',
                 v_name, p_from, p_from + interval '1 month');
  -- Known to hold that month alone, it is attached without being read.
  EXECUTE format('ALTER TABLE tallylight.%I ADD CONSTRAINT month CHECK (recorded_at >= %L AND recorded_at < %L)',
                 v_name, p_from, p_from + interval '1 month');
END $$;
COMMENT ON FUNCTION tallylight.stage_month(timestamptz) IS 'Makes a month that stray events are copied to';

-- Positions of a slice grow, so the last one that is copied tells which are.
CREATE FUNCTION tallylight.copy_strays_of(p_slice smallint, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  v_after  bigint;
  v_to     bigint;
  v_copied bigint;
BEGIN
  SELECT coalesce(max(s.position), 0) INTO v_after FROM tallylight.event_stray s WHERE s.slice = p_slice;
  SELECT max(d.position) INTO v_to FROM (
    SELECT e.position FROM tallylight.event_default e WHERE e.slice = p_slice AND e.position > v_after
     ORDER BY e.position LIMIT p_limit) AS d;
  PERFORM tallylight.stage_month(m.begins) FROM (
    SELECT DISTINCT date_trunc('month', e.recorded_at) AS begins FROM tallylight.event_default e
     WHERE e.slice = p_slice AND e.position > v_after AND e.position <= v_to) AS m;
  INSERT INTO tallylight.event_stray
  SELECT * FROM tallylight.event_default e WHERE e.slice = p_slice AND e.position > v_after AND e.position <= v_to;
  GET DIAGNOSTICS v_copied = ROW_COUNT;
  RETURN v_copied;
END $$;
COMMENT ON FUNCTION tallylight.copy_strays_of(smallint, bigint) IS 'Copies the next stray events of a slice; returns how many';

CREATE FUNCTION tallylight.copy_strays(p_months_ahead int, p_limit int) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  v_slice  smallint;
  v_copied bigint := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('tallylight.ensure_partitions', 0));
  IF to_regclass('tallylight.event_stray') IS NULL THEN
    CREATE TABLE tallylight.event_stray (LIKE tallylight.event INCLUDING ALL) PARTITION BY RANGE (recorded_at);
    COMMENT ON TABLE tallylight.event_stray IS 'Copies of events of the default partition, on their way to months of the log; no part of it yet';
  END IF;
  -- Those ahead that are missing come with them.
  PERFORM tallylight.stage_month(date_trunc('month', now()) + make_interval(months => n))
     FROM generate_series(0, p_months_ahead) AS n;
  FOR v_slice IN SELECT h.slice FROM tallylight.slice_head h ORDER BY h.slice LOOP
    EXIT WHEN v_copied >= p_limit;
    v_copied := v_copied + tallylight.copy_strays_of(v_slice, p_limit - v_copied);
  END LOOP;
  RETURN v_copied;
END $$;
COMMENT ON FUNCTION tallylight.copy_strays(int, int) IS
  'Copies up to p_limit stray events to months beside the log, holding nobody up; returns how many. Fewer than p_limit: attach_strays is next';

CREATE FUNCTION tallylight.attach_strays(p_limit int) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '5s'
AS $$
DECLARE
  v_slice  smallint;
  v_month  name;
  v_rest   bigint := 0;
  v_made   int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('tallylight.ensure_partitions', 0));
  IF to_regclass('tallylight.event_stray') IS NULL THEN
    RETURN NULL;
  END IF;
  -- Before any lock, since it reads all of them: the default partition is emptied unread.
  IF EXISTS (
    WITH copied AS MATERIALIZED (SELECT s.slice, max(s.position) AS position FROM tallylight.event_stray s GROUP BY s.slice)
    SELECT FROM tallylight.event_default d JOIN copied c ON c.slice = d.slice AND d.position <= c.position
     WHERE NOT EXISTS (SELECT FROM tallylight.event_stray s
                        WHERE s.slice = d.slice AND s.position = d.position AND s.recorded_at = d.recorded_at))
  THEN
    RAISE EXCEPTION 'stray events were left out of tallylight.event_stray: drop that table, and they are copied anew'
      USING ERRCODE = 'TL015';
  END IF;
  -- Whoever appends waits behind the wait for the lock, so each is short and there are several.
  PERFORM set_config('lock_timeout', '100ms', true);
  FOR v_try IN 1..30 LOOP
    BEGIN
      LOCK TABLE ONLY tallylight.event, ONLY tallylight.event_default IN ACCESS EXCLUSIVE MODE;
      EXIT;
    EXCEPTION WHEN lock_not_available THEN
      IF v_try = 30 THEN
        RAISE EXCEPTION 'the log is in use: stray events could not be moved' USING ERRCODE = 'lock_not_available';
      END IF;
      PERFORM pg_sleep(0.02 * v_try);
    END;
  END LOOP;

  FOR v_slice IN SELECT h.slice FROM tallylight.slice_head h ORDER BY h.slice LOOP
    v_rest := v_rest + tallylight.copy_strays_of(v_slice, p_limit + 1 - v_rest);
    IF v_rest > p_limit THEN
      RETURN NULL;
    END IF;
  END LOOP;

  -- Detached, it has no row trigger.
  ALTER TABLE tallylight.event DETACH PARTITION tallylight.event_default;
  ALTER TABLE tallylight.event_default DISABLE TRIGGER event_default_no_truncate;
  TRUNCATE tallylight.event_default;
  ALTER TABLE tallylight.event_default ENABLE TRIGGER event_default_no_truncate;
  FOR v_month IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'tallylight.event_stray'::regclass ORDER BY c.relname
  LOOP
    EXECUTE format('ALTER TABLE tallylight.event_stray DETACH PARTITION tallylight.%I', v_month);
    PERFORM tallylight.attach_month(v_month, to_date(substr(v_month, 7), 'YYYY_MM')::timestamptz);
    EXECUTE format('ALTER TABLE tallylight.%I DROP CONSTRAINT month', v_month);
    v_made := v_made + 1;
  END LOOP;
  ALTER TABLE tallylight.event ATTACH PARTITION tallylight.event_default DEFAULT;
  DROP TABLE tallylight.event_stray;
  RETURN v_made;
END $$;
COMMENT ON FUNCTION tallylight.attach_strays(int) IS
  'Makes the copied months a part of the log and empties the default partition; returns how many, or null: more than p_limit events are to be copied first';

REVOKE EXECUTE ON FUNCTION tallylight.attach_month(text, timestamptz), tallylight.stage_month(timestamptz),
  tallylight.copy_strays_of(smallint, bigint), tallylight.copy_strays(int, int), tallylight.attach_strays(int) FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.copy_strays'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.attach_strays');
SELECT tallylight.ensure_roles();
