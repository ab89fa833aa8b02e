-- The incarnation of the log: which history its positions belong to. A restore rewinds the heads,
-- so positions are given out again, for other events.
--
-- A restored schema is another object than the one that was dumped and so has another oid: that is
-- how `tallylight migrate` notices a restore, by whatever means it was done, and begins a new
-- incarnation; until then no program of ours takes the database for its own.

ALTER TABLE tallylight.installation
  ADD COLUMN incarnation uuid NOT NULL DEFAULT gen_random_uuid(),
  ADD COLUMN schema_oid  oid  NOT NULL DEFAULT to_regnamespace('tallylight')::oid;
COMMENT ON COLUMN tallylight.installation.incarnation IS 'Changes with every restore. Whoever keeps positions outside this database keeps it beside them and begins anew when it differs';
COMMENT ON COLUMN tallylight.installation.schema_oid IS 'The schema this row was made in; another one: it was restored and has no incarnation of its own yet';

CREATE FUNCTION tallylight.begin_incarnation() RETURNS uuid
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
  -- A backup holds the live projections alone: no other generation can be gone on with or gone back to.
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
COMMENT ON FUNCTION tallylight.begin_incarnation() IS
  'Gives a restored log a new incarnation. Migrate calls it; by hand after a restore of files (base backup, point in time), which leaves no trace in the schema';
REVOKE EXECUTE ON FUNCTION tallylight.begin_incarnation() FROM PUBLIC;
