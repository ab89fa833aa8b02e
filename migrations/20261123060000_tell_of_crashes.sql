-- What is kept of runs that ended with their process: which arguments they were started with, and
-- that one was taken for crashed wrongly.

-- Equal arguments have equal digests, whatever job they belong to: jsonb is written in one way only.
CREATE FUNCTION tallylight.args_digest(args jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
  SELECT encode(sha256(convert_to(args::text, 'UTF8')), 'hex')
$$;
COMMENT ON FUNCTION tallylight.args_digest(jsonb) IS 'SHA-256 of arguments as jsonb writes them: tells which are the same without telling them';
REVOKE EXECUTE ON FUNCTION tallylight.args_digest(jsonb) FROM PUBLIC;

ALTER TABLE tallylight.job_attempt ADD COLUMN args_digest text;
COMMENT ON COLUMN tallylight.job_attempt.args_digest IS 'Of a run that ended with its process: tallylight.args_digest of what it was started with';
COMMENT ON TABLE  tallylight.job_attempt IS 'Runs of jobs that have ended. Appended only, but that one is changed from crashed to lost where its process turns out to live';
COMMENT ON COLUMN tallylight.job_attempt.outcome IS 'completed, failed, discarded, cancelled, crashed, or lost: its lease had passed on while its process lived';

INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, p.privilege FROM (VALUES
  (ARRAY['worker', 'api', 'readonly'], 'EXECUTE ON FUNCTION tallylight.args_digest'),
  (ARRAY['worker'], 'UPDATE (outcome, error) ON tallylight.job_attempt')
) AS p (roles, privilege), LATERAL (SELECT ('tallylight_' || unnest(p.roles))::name) AS r (role);
SELECT tallylight.ensure_roles();
