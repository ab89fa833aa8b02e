-- The schema, and the one row that says which installation this is.

CREATE SCHEMA IF NOT EXISTS tallylight;
COMMENT ON SCHEMA tallylight IS 'Tallylight: event log, jobs, projections';

CREATE TABLE tallylight.installation (
  singleton   boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
  id          uuid        NOT NULL,
  slices      smallint    NOT NULL CHECK (slices BETWEEN 1 AND 4096),
  migrated_to bigint      NOT NULL DEFAULT 0,
  created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  tallylight.installation IS 'Which installation this is; one row, made by `tallylight migrate`';
COMMENT ON COLUMN tallylight.installation.id IS 'Part of the ownership tag on platform objects: staging and production may share one account';
COMMENT ON COLUMN tallylight.installation.slices IS 'Number of slices S; fixed, since it decides where every subject lies';
COMMENT ON COLUMN tallylight.installation.migrated_to IS 'Version of the newest migration; a program that needs a newer one says so at its start';

CREATE FUNCTION tallylight.slice_of(p_subject text, p_slices smallint) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
  SELECT ((get_byte(d, 0) * 256 + get_byte(d, 1)) % p_slices)::smallint
    FROM (SELECT sha256(convert_to(p_subject, 'UTF8'))) AS h(d)
$$;
COMMENT ON FUNCTION tallylight.slice_of(text, smallint) IS 'Slice of a subject: first two bytes of its SHA-256, big-endian, modulo S';
