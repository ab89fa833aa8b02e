-- Least privilege: one group role per program. A deployment grants its login roles to these.
--
-- Roles belong to the cluster, their grants to this database. `tallylight migrate` calls
-- ensure_roles each time, so roles that an administrator made later get their grants then.

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA tallylight FROM PUBLIC;

CREATE FUNCTION tallylight.ensure_role(p_role name) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = p_role) THEN
    EXECUTE format('CREATE ROLE %I NOLOGIN', p_role);
  END IF;
  RETURN true;
EXCEPTION
  -- Made by a migration of another database of the cluster in the same moment.
  WHEN duplicate_object OR unique_violation THEN
    RETURN true;
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'role % is missing and % may not create it: let an administrator run CREATE ROLE % NOLOGIN, then migrate again',
      p_role, current_user, p_role;
    RETURN false;
END $$;
COMMENT ON FUNCTION tallylight.ensure_role(name) IS 'Makes a group role if it is missing; false: it is missing still';

CREATE FUNCTION tallylight.ensure_roles() RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_role    name;
  v_missing text[] := '{}';
BEGIN
  FOREACH v_role IN ARRAY ARRAY['tallylight_ingest', 'tallylight_worker', 'tallylight_api',
                                'tallylight_producer', 'tallylight_readonly']::name[]
  LOOP
    IF NOT tallylight.ensure_role(v_role) THEN
      v_missing := v_missing || v_role::text;
      CONTINUE;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA tallylight TO %I', v_role);

    -- The log is appended to by function only: no role may insert, change or delete an event.
    IF v_role IN ('tallylight_ingest', 'tallylight_worker', 'tallylight_api') THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION tallylight.append TO %I', v_role);
      EXECUTE format('GRANT SELECT ON tallylight.installation TO %I', v_role);
    END IF;
    IF v_role IN ('tallylight_producer', 'tallylight_worker', 'tallylight_api') THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION tallylight.enqueue TO %I', v_role);
    END IF;
    IF v_role IN ('tallylight_worker', 'tallylight_api', 'tallylight_readonly') THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION tallylight.slice_of TO %I', v_role);
      EXECUTE format(
        'GRANT SELECT ON tallylight.installation, tallylight.slice_head, tallylight.event, tallylight.event_default,
           tallylight.process, tallylight.checkpoint, tallylight.parked, tallylight.job, tallylight.job_dead,
           tallylight.subject_state, tallylight.session_request, tallylight.session, tallylight.live_stream,
           tallylight.video, tallylight.account TO %I', v_role);
    END IF;
    IF v_role = 'tallylight_worker' THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION tallylight.ensure_partitions TO %I', v_role);
      EXECUTE format('GRANT SELECT ON tallylight.event_key TO %I', v_role);
      EXECUTE format('GRANT UPDATE ON tallylight.checkpoint TO %I', v_role);
      EXECUTE format('GRANT SELECT, INSERT, UPDATE ON tallylight.sealed TO %I', v_role);
      EXECUTE format(
        'GRANT INSERT, UPDATE, DELETE ON tallylight.process, tallylight.parked, tallylight.job, tallylight.job_dead,
           tallylight.subject_state, tallylight.session_request, tallylight.session, tallylight.live_stream,
           tallylight.video, tallylight.account TO %I', v_role);
    END IF;
    IF v_role = 'tallylight_api' THEN
      EXECUTE format('GRANT SELECT ON tallylight.sealed TO %I', v_role);
    END IF;
  END LOOP;
  RETURN v_missing;
END $$;
COMMENT ON FUNCTION tallylight.ensure_roles() IS 'Makes the group roles and grants them what their program needs; returns those that are missing still';

REVOKE EXECUTE ON FUNCTION tallylight.ensure_role(name), tallylight.ensure_roles() FROM PUBLIC;
SELECT tallylight.ensure_roles();
