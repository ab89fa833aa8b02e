-- Rebuilding: a generation of the projections is made in a schema of its own and swapped with the live one.

CREATE SCHEMA IF NOT EXISTS tallylight_shadow;
COMMENT ON SCHEMA tallylight_shadow IS 'The generation of Tallylight''s projections that is being rebuilt';
CREATE SCHEMA IF NOT EXISTS tallylight_previous;
COMMENT ON SCHEMA tallylight_previous IS 'The generation of Tallylight''s projections before the last swap, kept for a rollback';

CREATE TABLE tallylight.projection (
  name name PRIMARY KEY
);
COMMENT ON TABLE tallylight.projection IS 'Tables that a rebuild makes anew; a later migration adds its own';
INSERT INTO tallylight.projection (name) VALUES
  ('subject_state'), ('session_request'), ('session'), ('live_stream'), ('video'), ('account');

CREATE TABLE tallylight.rebuild (
  id       uuid        PRIMARY KEY,
  state    text        NOT NULL CHECK (state IN ('created', 'folding', 'loading', 'indexing', 'catching_up',
                                                 'ready', 'live', 'aborted', 'rolled_back')),
  shape    text        NOT NULL,
  runner   uuid        NOT NULL,
  began_at timestamptz NOT NULL DEFAULT now(),
  state_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  tallylight.rebuild IS 'Rebuilds of the projections, finished ones included';
COMMENT ON COLUMN tallylight.rebuild.shape IS 'Digest of the tables'' definitions and of the fold; another one cannot go on with it';
COMMENT ON COLUMN tallylight.rebuild.runner IS 'The run that works on it: the fence of every transaction of a rebuild';
CREATE UNIQUE INDEX rebuild_open ON tallylight.rebuild ((true)) WHERE state NOT IN ('live', 'aborted', 'rolled_back');

CREATE TABLE tallylight.rebuild_slice (
  rebuild     uuid        NOT NULL,
  slice       smallint    NOT NULL,
  position    bigint      NOT NULL,
  recorded_at timestamptz NOT NULL,
  set_aside   bigint[]    NOT NULL,
  events      bigint      NOT NULL,
  subjects    bigint      NOT NULL,
  PRIMARY KEY (rebuild, slice)
);
COMMENT ON TABLE  tallylight.rebuild_slice IS 'Slices whose rows a rebuild has written';
COMMENT ON COLUMN tallylight.rebuild_slice.position IS 'How far they are folded; after the swap, how far the previous generation is';
COMMENT ON COLUMN tallylight.rebuild_slice.set_aside IS 'Positions up to there that were parked and so not folded';

-- What the tables of a generation look like, by name and not by number.
CREATE FUNCTION tallylight.generation_shape(p_schema name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(string_agg(line, E'\n' ORDER BY line), '') FROM (
    SELECT format('%s.%s %s%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  CASE WHEN a.attnotnull THEN ' not null' ELSE '' END, pg_get_expr(d.adbin, d.adrelid)) AS line
      FROM pg_class c
      JOIN tallylight.projection p ON p.name = c.relname
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = p_schema::regnamespace AND c.relkind = 'r'
    UNION ALL
    SELECT format('%s: %s', c.relname, replace(pg_get_indexdef(i.indexrelid), ' ON ' || p_schema || '.', ' ON '))
      FROM pg_class c
      JOIN tallylight.projection p ON p.name = c.relname
      JOIN pg_index i ON i.indrelid = c.oid
     WHERE c.relnamespace = p_schema::regnamespace
    UNION ALL
    SELECT format('%s: %s %s', c.relname, n.conname, pg_get_constraintdef(n.oid))
      FROM pg_class c
      JOIN tallylight.projection p ON p.name = c.relname
      JOIN pg_constraint n ON n.conrelid = c.oid AND n.contype <> 'n'
     WHERE c.relnamespace = p_schema::regnamespace) AS lines
$$;
COMMENT ON FUNCTION tallylight.generation_shape(name) IS 'Columns, constraints and indexes of a generation''s tables, one line each';

CREATE FUNCTION tallylight.drop_generation(p_schema name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_table name;
BEGIN
  IF p_schema NOT IN ('tallylight_shadow', 'tallylight_previous') THEN
    RAISE EXCEPTION '% holds no spare generation', p_schema USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR v_table IN SELECT p.name FROM tallylight.projection p LOOP
    EXECUTE format('DROP TABLE IF EXISTS %I.%I', p_schema, v_table);
  END LOOP;
END $$;
COMMENT ON FUNCTION tallylight.drop_generation(name) IS 'Drops the tables of a generation that is not live';

-- What is bound to a table by number, not by name, would stay with the old generation after a swap.
CREATE FUNCTION tallylight.refuse_bound_projections() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_bound text;
BEGIN
  SELECT string_agg(DISTINCT b.what, ', ') INTO v_bound FROM (
    SELECT format('view %s', r.ev_class::regclass) AS what
      FROM pg_depend d
      JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
     WHERE d.refclassid = 'pg_class'::regclass AND r.ev_class <> d.refobjid
       AND d.refobjid IN (SELECT to_regclass('tallylight.' || p.name) FROM tallylight.projection p)
    UNION ALL
    SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass)
      FROM pg_trigger t
     WHERE NOT t.tgisinternal
       AND t.tgrelid IN (SELECT to_regclass('tallylight.' || p.name) FROM tallylight.projection p)
    UNION ALL
    SELECT format('foreign key %s of %s', n.conname, n.conrelid::regclass)
      FROM pg_constraint n
     WHERE n.contype = 'f'
       AND (n.confrelid IN (SELECT to_regclass('tallylight.' || p.name) FROM tallylight.projection p)
            OR n.conrelid IN (SELECT to_regclass('tallylight.' || p.name) FROM tallylight.projection p))
    UNION ALL
    SELECT format('policy %s on %s', o.polname, o.polrelid::regclass)
      FROM pg_policy o
     WHERE o.polrelid IN (SELECT to_regclass('tallylight.' || p.name) FROM tallylight.projection p)) AS b;
  IF v_bound IS NOT NULL THEN
    RAISE EXCEPTION 'a rebuild swaps the tables of the projections, and these would stay with the old ones: %; drop them, rebuild, and create them again', v_bound
      USING ERRCODE = 'TL002';
  END IF;
END $$;
COMMENT ON FUNCTION tallylight.refuse_bound_projections() IS 'Refuses a rebuild where a view, trigger, foreign key or policy is bound to a projection';

CREATE FUNCTION tallylight.create_shadow() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_table   record;
  v_command text;
BEGIN
  PERFORM tallylight.refuse_bound_projections();
  PERFORM tallylight.drop_generation('tallylight_shadow');
  FOR v_table IN
    SELECT c.oid, c.relname, c.reloptions, c.relowner, obj_description(c.oid, 'pg_class') AS comment
      FROM tallylight.projection p
      JOIN pg_class c ON c.oid = to_regclass('tallylight.' || p.name)
     ORDER BY p.name
  LOOP
    -- Without indexes: they are made once its rows are in.
    EXECUTE format('CREATE TABLE tallylight_shadow.%1$I (LIKE tallylight.%1$I INCLUDING ALL EXCLUDING INDEXES)%2$s',
                   v_table.relname,
                   ' WITH (' || array_to_string(v_table.reloptions, ', ') || ')');
    EXECUTE format('COMMENT ON TABLE tallylight_shadow.%I IS %L', v_table.relname, v_table.comment);
    FOR v_command IN
      SELECT format('GRANT %s%s ON tallylight_shadow.%I TO %s%s', g.privilege_type,
                    CASE WHEN g.attname IS NULL THEN '' ELSE format(' (%I)', g.attname) END, v_table.relname,
                    CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END,
                    CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM (SELECT NULL::name AS attname, x.* FROM pg_class c, aclexplode(c.relacl) AS x WHERE c.oid = v_table.oid
              UNION ALL
              SELECT a.attname, x.* FROM pg_attribute a, aclexplode(a.attacl) AS x WHERE a.attrelid = v_table.oid) AS g
    LOOP
      EXECUTE v_command;
    END LOOP;
    IF v_table.relowner <> (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user) THEN
      EXECUTE format('ALTER TABLE tallylight_shadow.%I OWNER TO %s', v_table.relname, v_table.relowner::regrole);
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION tallylight.create_shadow() IS 'Makes the tables of a new generation, empty and without indexes';

CREATE FUNCTION tallylight.index_shadow(p_table name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_index record;
BEGIN
  FOR v_index IN
    SELECT i.indexrelid, x.relname, n.conname, pg_get_constraintdef(n.oid) AS constraint_as,
           pg_get_indexdef(i.indexrelid) AS index_as, obj_description(i.indexrelid, 'pg_class') AS comment
      FROM pg_index i
      JOIN pg_class x ON x.oid = i.indexrelid
      LEFT JOIN pg_constraint n ON n.conindid = i.indexrelid AND n.conrelid = i.indrelid AND n.contype IN ('p', 'u', 'x')
     WHERE i.indrelid = to_regclass('tallylight.' || p_table)
     ORDER BY x.relname
  LOOP
    -- Made before the run was interrupted.
    CONTINUE WHEN to_regclass(format('tallylight_shadow.%I', v_index.relname)) IS NOT NULL;
    IF v_index.conname IS NOT NULL THEN
      EXECUTE format('ALTER TABLE tallylight_shadow.%I ADD CONSTRAINT %I %s', p_table, v_index.conname, v_index.constraint_as);
    ELSE
      EXECUTE overlay(v_index.index_as PLACING ' ON tallylight_shadow.'
                      FROM position(' ON tallylight.' IN v_index.index_as) FOR length(' ON tallylight.'));
    END IF;
    IF v_index.comment IS NOT NULL THEN
      EXECUTE format('COMMENT ON INDEX tallylight_shadow.%I IS %L', v_index.relname, v_index.comment);
    END IF;
  END LOOP;
  EXECUTE format('ANALYZE tallylight_shadow.%I', p_table);
END $$;
COMMENT ON FUNCTION tallylight.index_shadow(name) IS 'Gives a table of the new generation its keys and indexes, under the names that they have live';

-- Indexes, constraints, comments and grants move with their table. Names are parsed anew by
-- whoever uses them next, prepared statements included.
CREATE FUNCTION tallylight.swap_generation(p_in name, p_out name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_tables text;
  v_table  name;
BEGIN
  PERFORM tallylight.refuse_bound_projections();
  PERFORM tallylight.drop_generation(p_out);
  SELECT string_agg(format('tallylight.%I', p.name), ', ' ORDER BY p.name) INTO v_tables FROM tallylight.projection p;
  -- All at once: readers take one table after the other.
  EXECUTE 'LOCK TABLE ' || v_tables || ' IN ACCESS EXCLUSIVE MODE';
  FOR v_table IN SELECT p.name FROM tallylight.projection p ORDER BY p.name LOOP
    EXECUTE format('ALTER TABLE tallylight.%I SET SCHEMA %I', v_table, p_out);
    EXECUTE format('ALTER TABLE %I.%I SET SCHEMA tallylight', p_in, v_table);
  END LOOP;
END $$;
COMMENT ON FUNCTION tallylight.swap_generation(name, name) IS 'Puts the tables of p_in in the place of the live ones, which go to p_out';

CREATE FUNCTION tallylight.generation_states(p_schema name, p_slice smallint, p_subjects text[])
RETURNS TABLE (of_subject text, folded jsonb, at_position bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT subject, state, position FROM %I.subject_state WHERE slice = $1 AND subject = ANY ($2)', p_schema)
    USING p_slice, p_subjects;
END $$;
COMMENT ON FUNCTION tallylight.generation_states(name, smallint, text[]) IS 'Folded states of subjects in a generation';

CREATE FUNCTION tallylight.upsert_generation(p_schema name, p_table name, p_rows jsonb, p_anew boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_key     text;
  v_changes text;
BEGIN
  SELECT string_agg(quote_ident(a.attname), ', ') INTO v_key
    FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
   WHERE i.indrelid = format('%I.%I', p_schema, p_table)::regclass AND i.indisprimary;
  SELECT string_agg(format('%1$I = excluded.%1$I', a.attname), ', ') INTO v_changes
    FROM pg_attribute a
   WHERE a.attrelid = format('%I.%I', p_schema, p_table)::regclass AND a.attnum > 0 AND NOT a.attisdropped;
  EXECUTE format(
    'INSERT INTO %1$I.%2$I AS present SELECT * FROM jsonb_populate_recordset(NULL::%1$I.%2$I, $1)
     ON CONFLICT (%3$s) DO UPDATE SET %4$s WHERE $2 OR present.position <= excluded.position',
    p_schema, p_table, v_key, v_changes) USING p_rows, p_anew;
END $$;
COMMENT ON FUNCTION tallylight.upsert_generation(name, name, jsonb, boolean) IS
  'Writes rows, given as JSON objects, to a table of a generation that has its keys: over older rows, or, of subjects folded anew, over all';

-- Verifying: the live rows of a slice are put aside in one snapshot, the fold's beside them, then compared.

CREATE FUNCTION tallylight.verify_put_aside(p_slice smallint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
  v_table name;
BEGIN
  FOR v_table IN SELECT p.name FROM tallylight.projection p LOOP
    EXECUTE format('CREATE TEMP TABLE IF NOT EXISTS %I (LIKE tallylight.%I)', 'live_' || v_table, v_table);
    EXECUTE format('CREATE TEMP TABLE IF NOT EXISTS %I (LIKE tallylight.%I)', 'folded_' || v_table, v_table);
    EXECUTE format('TRUNCATE pg_temp.%I, pg_temp.%I', 'live_' || v_table, 'folded_' || v_table);
    EXECUTE format('INSERT INTO pg_temp.%I SELECT * FROM tallylight.%I WHERE slice = $1', 'live_' || v_table, v_table)
      USING p_slice;
  END LOOP;
END $$;
COMMENT ON FUNCTION tallylight.verify_put_aside(smallint) IS 'Copies the live rows of a slice to tables of this session, and makes those for the fold''s';

CREATE FUNCTION tallylight.verify_compare(p_table name, p_limit int)
RETURNS TABLE (of_key jsonb, live jsonb, folded jsonb, differing bigint, compared bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_key text;
BEGIN
  SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO v_key
    FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
   WHERE i.indrelid = format('tallylight.%I', p_table)::regclass AND i.indisprimary;
  EXECUTE format('ANALYZE pg_temp.%I, pg_temp.%I', 'live_' || p_table, 'folded_' || p_table);
  -- The counts come once more with each row told, and alone where there is none.
  RETURN QUERY EXECUTE format(
    'WITH side AS MATERIALIZED (
       SELECT to_jsonb(k) AS of_key, to_jsonb(l) AS live, to_jsonb(f) AS folded
         FROM pg_temp.%1$I l FULL JOIN pg_temp.%2$I f USING (%3$s), LATERAL (SELECT %3$s) AS k)
     SELECT d.of_key, d.live, d.folded, c.differing, c.compared
       FROM (SELECT count(*) FILTER (WHERE s.live IS DISTINCT FROM s.folded) AS differing,
                    count(s.live) AS compared FROM side s) AS c
       LEFT JOIN LATERAL (SELECT s.* FROM side s WHERE s.live IS DISTINCT FROM s.folded
                           ORDER BY s.of_key LIMIT $1) AS d ON true',
    'live_' || p_table, 'folded_' || p_table, v_key) USING p_limit;
END $$;
COMMENT ON FUNCTION tallylight.verify_compare(name, int) IS 'Rows of the slice put aside that differ from those of the fold, and how many do';

CREATE FUNCTION tallylight.rows_as_stored(p_table name, p_rows jsonb) RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT to_jsonb(r) FROM jsonb_array_elements($1) WITH ORDINALITY AS e (row, n),
            jsonb_populate_record(NULL::tallylight.%I, e.row) AS r ORDER BY e.n', p_table) USING p_rows;
END $$;
COMMENT ON FUNCTION tallylight.rows_as_stored(name, jsonb) IS 'Rows given as JSON objects, as they would be read back from the table';

REVOKE EXECUTE ON FUNCTION tallylight.generation_states(name, smallint, text[]), tallylight.upsert_generation(name, name, jsonb, boolean),
  tallylight.verify_put_aside(smallint), tallylight.verify_compare(name, int), tallylight.rows_as_stored(name, jsonb),
  tallylight.generation_shape(name), tallylight.drop_generation(name),
  tallylight.refuse_bound_projections(), tallylight.create_shadow(), tallylight.index_shadow(name),
  tallylight.swap_generation(name, name) FROM PUBLIC;

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'SELECT ON tallylight.projection, tallylight.rebuild, tallylight.rebuild_slice'),
  ('tallylight_api', 'SELECT ON tallylight.projection, tallylight.rebuild, tallylight.rebuild_slice'),
  ('tallylight_readonly', 'SELECT ON tallylight.projection, tallylight.rebuild, tallylight.rebuild_slice');
SELECT tallylight.ensure_roles();
