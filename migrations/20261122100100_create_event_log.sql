-- The event log: dense positions per slice, appended only.

CREATE TABLE tallylight.slice_head (
  slice    smallint    PRIMARY KEY,
  position bigint      NOT NULL DEFAULT 0,
  last_at  timestamptz NOT NULL DEFAULT 'epoch'
) WITH (fillfactor = 10);
COMMENT ON TABLE  tallylight.slice_head IS 'One row per slice: the lock, the head and the clock of the slice';
COMMENT ON COLUMN tallylight.slice_head.position IS 'Position of the last committed event; the first event has 1';
COMMENT ON COLUMN tallylight.slice_head.last_at IS 'recorded_at of that event; never runs backwards';

CREATE TABLE tallylight.event (
  slice          smallint    NOT NULL,
  position       bigint      NOT NULL,
  recorded_at    timestamptz NOT NULL,
  received_at    timestamptz NOT NULL,
  event_id       uuid        NOT NULL,
  subject        text        NOT NULL,
  event_type     text        NOT NULL,
  schema_version smallint    NOT NULL,
  causation_id   uuid,
  correlation_id uuid,
  meta           json,
  payload        bytea       COMPRESSION lz4 NOT NULL,
  PRIMARY KEY (slice, position, recorded_at)
) PARTITION BY RANGE (recorded_at);
COMMENT ON TABLE  tallylight.event IS 'Immutable facts. Every position of a slice from 1 to its head is here once';
COMMENT ON COLUMN tallylight.event.position IS 'Dense number within the slice, in commit order';
COMMENT ON COLUMN tallylight.event.recorded_at IS 'Commit time by the database clock';
COMMENT ON COLUMN tallylight.event.received_at IS 'When the fact reached us; domain time';
COMMENT ON COLUMN tallylight.event.subject IS 'Grouping key; decides the slice, events of one subject are in order';
COMMENT ON COLUMN tallylight.event.causation_id IS 'The event that caused this one';
COMMENT ON COLUMN tallylight.event.correlation_id IS 'The event that started the whole chain';
COMMENT ON COLUMN tallylight.event.meta IS 'About the transport: content type, headers, what was redacted';
COMMENT ON COLUMN tallylight.event.payload IS 'The body: raw bytes of a webhook without its secrets, else JSON';

CREATE INDEX event_subject ON tallylight.event (subject, position);

CREATE TABLE tallylight.event_default PARTITION OF tallylight.event DEFAULT;
COMMENT ON TABLE tallylight.event_default IS 'Safety net; must stay empty';

CREATE TABLE tallylight.event_key (
  slice       smallint    NOT NULL,
  key         uuid        NOT NULL,
  recorded_at timestamptz NOT NULL,
  PRIMARY KEY (slice, key)
);
COMMENT ON TABLE tallylight.event_key IS 'Idempotency keys and batch ids: the first append that brings one is stored';

-- The log is append-only. Privileges are the first wall, this is the second.
CREATE FUNCTION tallylight.forbid_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  RAISE EXCEPTION 'the event log is append-only: % on %.% is refused', tg_op, tg_table_schema, tg_table_name
    USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION tallylight.forbid_change() IS 'Refuses changes of stored events';

CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON tallylight.event
  FOR EACH ROW EXECUTE FUNCTION tallylight.forbid_change();
CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON tallylight.event
  FOR EACH STATEMENT EXECUTE FUNCTION tallylight.forbid_change();
CREATE TRIGGER event_default_no_truncate BEFORE TRUNCATE ON tallylight.event_default
  FOR EACH STATEMENT EXECUTE FUNCTION tallylight.forbid_change();

-- Months are made as plain tables and attached, so that appends go on meanwhile. Should events
-- have met no month (nothing ran for months, or a clock jumped), they are moved to months of
-- their own; only then the log waits.
CREATE FUNCTION tallylight.ensure_partitions(p_months_ahead int) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  v_from  timestamptz;
  v_name  text;
  v_stray boolean;
  v_made  int := 0;
BEGIN
  IF p_months_ahead IS NULL OR p_months_ahead NOT BETWEEN 0 AND 120 THEN
    RAISE EXCEPTION 'months ahead must be 0 to 120' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- One at a time: two would both find a month missing.
  PERFORM pg_advisory_xact_lock(hashtextextended('tallylight.ensure_partitions', 0));
  v_stray := EXISTS (SELECT FROM tallylight.event_default);
  IF v_stray THEN
    ALTER TABLE tallylight.event DETACH PARTITION tallylight.event_default;
  END IF;

  FOR v_from IN
    SELECT m.utc AT TIME ZONE 'UTC' FROM (
      SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n)
        FROM generate_series(0, p_months_ahead) AS n
      UNION
      SELECT date_trunc('month', d.recorded_at AT TIME ZONE 'UTC') FROM tallylight.event_default d
    ) AS m (utc) ORDER BY 1
  LOOP
    v_name := 'event_' || to_char(v_from AT TIME ZONE 'UTC', 'YYYY_MM');
    CONTINUE WHEN to_regclass('tallylight.' || v_name) IS NOT NULL;
    EXECUTE format('CREATE TABLE tallylight.%I (LIKE tallylight.event INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)', v_name);
    IF v_stray THEN
      EXECUTE format('INSERT INTO tallylight.%I SELECT * FROM tallylight.event_default WHERE recorded_at >= $1 AND recorded_at < $2', v_name)
        USING v_from, v_from + interval '1 month';
      -- Detached, the default partition has no row trigger.
      DELETE FROM tallylight.event_default WHERE recorded_at >= v_from AND recorded_at < v_from + interval '1 month';
    END IF;
    EXECUTE format('ALTER TABLE tallylight.event ATTACH PARTITION tallylight.%I FOR VALUES FROM (%L) TO (%L)',
                   v_name, v_from, v_from + interval '1 month');
    EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON tallylight.%I FOR EACH STATEMENT EXECUTE FUNCTION tallylight.forbid_change()',
                   v_name || '_no_truncate', v_name);
    v_made := v_made + 1;
  END LOOP;

  IF v_stray THEN
    ALTER TABLE tallylight.event ATTACH PARTITION tallylight.event_default DEFAULT;
  END IF;
  RETURN v_made;
END $$;
COMMENT ON FUNCTION tallylight.ensure_partitions(int) IS 'Makes the monthly partitions from this month to that many months ahead, and of stray events; returns how many were missing';
