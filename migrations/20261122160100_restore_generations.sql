-- A backup holds the live projections alone: after a restore no other generation is there, so none
-- can be gone on with or gone back to.

CREATE OR REPLACE FUNCTION tallylight.begin_incarnation() RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_incarnation uuid := gen_random_uuid();
BEGIN
  UPDATE tallylight.installation
     SET incarnation = v_incarnation, schema_oid = to_regnamespace('tallylight')::oid;
  -- Nobody holds a slice. Epochs leap over all that a process of the former incarnation may still
  -- have, so that its fences fail.
  UPDATE tallylight.checkpoint SET owner = NULL, lease_until = 'epoch', epoch = epoch + (1::bigint << 32);
  DELETE FROM tallylight.process;
  -- Each job may have been run after the backup was made, and each decision that is taken anew may
  -- have been taken then: all look first, those that are still to come too.
  UPDATE tallylight.job SET attempt = 1 WHERE attempt = 0;
  ALTER TABLE tallylight.job ALTER COLUMN attempt SET DEFAULT 1;
  DELETE FROM tallylight.rebuild_slice;
  DELETE FROM tallylight.rebuild;
  CREATE SCHEMA IF NOT EXISTS tallylight_shadow;
  CREATE SCHEMA IF NOT EXISTS tallylight_previous;
  PERFORM tallylight.drop_generation('tallylight_shadow');
  PERFORM tallylight.drop_generation('tallylight_previous');
  -- A restore may leave out privileges, and then everybody may execute.
  REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA tallylight FROM PUBLIC;
  RETURN v_incarnation;
END $$;
