-- Runs whose start is not marked (docs/adr/0026-jobs-of-several-slices-together.md).

CREATE FUNCTION tallylight.is_run(run integer, attempt integer, run_epoch bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
  SELECT attempt = run OR attempt = run - 1 AND (run_epoch IS NULL OR run_epoch = 9223372036854775807)
$$;
COMMENT ON FUNCTION tallylight.is_run(integer, integer, bigint) IS
  'Whether the start of this number is the present one of a job: the last that was marked, or, where none runs, the next, which was not; the largest epoch is the mark of a cancelled job';

REVOKE EXECUTE ON FUNCTION tallylight.is_run(integer, integer, bigint) FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege)
VALUES ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.is_run'),
       -- Outcomes of jobs of several slices are appended in one call.
       ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.append_batches');
SELECT tallylight.ensure_roles();
