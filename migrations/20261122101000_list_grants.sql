-- What each program may do, as rows: a later migration adds its own, and `ensure_roles` grants all.

CREATE TABLE tallylight.role_grant (
  role      name NOT NULL,
  privilege text NOT NULL,
  PRIMARY KEY (role, privilege)
);
COMMENT ON TABLE  tallylight.role_grant IS 'Least privilege: what each group role is granted, and nothing else. Changed by migrations only';
COMMENT ON COLUMN tallylight.role_grant.privilege IS 'As it stands in GRANT, such as SELECT ON tallylight.job';

-- The log is appended to by function only: no role may insert, change or delete an event.
INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, p.privilege FROM (VALUES
  (ARRAY['ingest', 'worker', 'api', 'producer', 'readonly'], 'USAGE ON SCHEMA tallylight'),
  (ARRAY['ingest', 'worker', 'api'], 'EXECUTE ON FUNCTION tallylight.append'),
  (ARRAY['ingest', 'worker', 'api'], 'SELECT ON tallylight.installation'),
  (ARRAY['producer', 'worker', 'api'], 'EXECUTE ON FUNCTION tallylight.enqueue'),
  (ARRAY['worker', 'api', 'readonly'], 'EXECUTE ON FUNCTION tallylight.slice_of'),
  (ARRAY['worker', 'api', 'readonly'],
   'SELECT ON tallylight.installation, tallylight.slice_head, tallylight.event, tallylight.event_default,
      tallylight.process, tallylight.checkpoint, tallylight.parked, tallylight.job, tallylight.job_dead,
      tallylight.subject_state, tallylight.session_request, tallylight.session, tallylight.live_stream,
      tallylight.video, tallylight.account'),
  (ARRAY['worker'], 'EXECUTE ON FUNCTION tallylight.ensure_partitions'),
  (ARRAY['worker'], 'SELECT ON tallylight.event_key'),
  (ARRAY['worker'], 'UPDATE ON tallylight.checkpoint'),
  (ARRAY['worker'], 'SELECT, INSERT, UPDATE ON tallylight.sealed'),
  (ARRAY['worker'],
   'INSERT, UPDATE, DELETE ON tallylight.process, tallylight.parked, tallylight.job, tallylight.job_dead,
      tallylight.subject_state, tallylight.session_request, tallylight.session, tallylight.live_stream,
      tallylight.video, tallylight.account'),
  (ARRAY['api'], 'SELECT ON tallylight.sealed')
) AS p (roles, privilege), LATERAL (SELECT ('tallylight_' || unnest(p.roles))::name) AS r (role);

CREATE OR REPLACE FUNCTION tallylight.ensure_roles() RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_role      name;
  v_privilege text;
  v_missing   text[] := '{}';
BEGIN
  FOR v_role IN SELECT DISTINCT g.role FROM tallylight.role_grant g ORDER BY 1 LOOP
    IF NOT tallylight.ensure_role(v_role) THEN
      v_missing := v_missing || v_role::text;
      CONTINUE;
    END IF;
    FOR v_privilege IN SELECT g.privilege FROM tallylight.role_grant g WHERE g.role = v_role ORDER BY 1 LOOP
      EXECUTE format('GRANT %s TO %I', v_privilege, v_role);
    END LOOP;
  END LOOP;
  RETURN v_missing;
END $$;

SELECT tallylight.ensure_roles();
