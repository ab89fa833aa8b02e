-- rate_bucket: how fast the whole fleet may call somebody. Processes take tokens in small batches,
-- by one short statement each and by this database's clock alone.

CREATE TABLE tallylight.rate_bucket (
  name              text             PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 1024),
  capacity          double precision NOT NULL CHECK (capacity >= 1),
  refill_per_second double precision NOT NULL CHECK (refill_per_second > 0),
  tokens            double precision NOT NULL CHECK (tokens >= 0),
  refilled_at       timestamptz      NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE  tallylight.rate_bucket IS 'Rates shared by all processes: a call costs a token, tokens come back with time';
COMMENT ON COLUMN tallylight.rate_bucket.name IS 'Whom it is about, such as source/gcore-main';
COMMENT ON COLUMN tallylight.rate_bucket.capacity IS 'Most tokens it holds, as the configuration of its last taker has it';
COMMENT ON COLUMN tallylight.rate_bucket.tokens IS 'What was left at refilled_at, with fractions';

CREATE FUNCTION tallylight.take_tokens(
  p_name text, p_capacity double precision, p_refill_per_second double precision, p_wanted int
) RETURNS TABLE (granted int, wait_us bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_bucket tallylight.rate_bucket;
  v_now    timestamptz;
  v_tokens double precision;
BEGIN
  LOOP
    SELECT * INTO v_bucket FROM tallylight.rate_bucket b WHERE b.name = p_name FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO tallylight.rate_bucket (name, capacity, refill_per_second, tokens, refilled_at)
    VALUES (p_name, p_capacity, p_refill_per_second, p_capacity, clock_timestamp())
    ON CONFLICT DO NOTHING;
  END LOOP;
  -- Read behind the lock, so that no moment is counted twice; a clock set back counts as none.
  v_now := greatest(clock_timestamp(), v_bucket.refilled_at);
  -- The time that has passed was under the old rate.
  v_tokens := least(p_capacity, v_bucket.tokens
    + v_bucket.refill_per_second * extract(epoch FROM v_now - v_bucket.refilled_at)::double precision);
  granted := least(greatest(p_wanted, 0)::double precision, floor(v_tokens))::int;
  v_tokens := v_tokens - granted;
  wait_us := CASE WHEN v_tokens >= 1 THEN 0
                  ELSE ceil(least((1 - v_tokens) / p_refill_per_second, 86400) * 1000000) END;
  IF granted > 0 OR (p_capacity, p_refill_per_second) IS DISTINCT FROM (v_bucket.capacity, v_bucket.refill_per_second) THEN
    UPDATE tallylight.rate_bucket b
       SET capacity = p_capacity, refill_per_second = p_refill_per_second, tokens = v_tokens, refilled_at = v_now
     WHERE b.name = p_name;
  END IF;
  RETURN NEXT;
END $$;
COMMENT ON FUNCTION tallylight.take_tokens(text, double precision, double precision, int) IS
  'Takes up to p_wanted tokens of a bucket, which begins full. Returns how many, and microseconds until there is one more';
REVOKE EXECUTE ON FUNCTION tallylight.take_tokens(text, double precision, double precision, int) FROM PUBLIC;

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'SELECT, INSERT, UPDATE ON tallylight.rate_bucket'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.take_tokens'),
  ('tallylight_readonly', 'SELECT ON tallylight.rate_bucket');
SELECT tallylight.ensure_roles();
