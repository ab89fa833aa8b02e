-- A subject that is folded anew from its first event replaces all rows it has, those too that an
-- unfinished fold of it wrote for a later event.

DROP FUNCTION tallylight.upsert_generation(name, name, jsonb);
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
REVOKE EXECUTE ON FUNCTION tallylight.upsert_generation(name, name, jsonb, boolean) FROM PUBLIC;
