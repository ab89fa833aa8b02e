-- mark_started: the fence and the marks of several slices in one call, which is its own transaction.
-- What takes time in a mark is not its rows but the way there and back, and it was gone four times.
--
-- Rows are found by their keys: left to itself the planner may read a table that it believes to be
-- small, and a plan that was made while it was small stays. For READ COMMITTED: a lease that passes
-- on meanwhile is waited for, and then found to have passed on, before a job of it is looked at.

CREATE FUNCTION tallylight.mark_started(
  p_slices smallint[], p_epochs bigint[],
  p_of smallint[], p_of_epochs bigint[], p_ids uuid[], p_attempts int[])
RETURNS TABLE (slice smallint, epoch bigint, id uuid, attempt int, crashes int, args jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  v_slices smallint[];
  v_epochs bigint[];
BEGIN
  SELECT coalesce(array_agg(held.slice), '{}'), coalesce(array_agg(held.epoch), '{}')
    INTO v_slices, v_epochs
    FROM (SELECT c.slice, c.epoch FROM tallylight.checkpoint c
            JOIN unnest(p_slices, p_epochs) AS lease (slice, epoch)
              ON c.slice = lease.slice AND c.epoch = lease.epoch
           WHERE c.consumer = 'jobs' AND c.slice = ANY (p_slices)
           ORDER BY c.slice FOR SHARE OF c) AS held;

  -- The leases that hold, with no job.
  RETURN QUERY SELECT lease.slice, lease.epoch, NULL::uuid, NULL::int, NULL::int, NULL::jsonb
    FROM unnest(v_slices, v_epochs) AS lease (slice, epoch);

  RETURN QUERY
  UPDATE tallylight.job j
     SET attempt = j.attempt + 1, run_epoch = due.epoch, started_at = now(),
         crashes = crashes + (run_epoch IS NOT NULL)::int,
         unique_key = CASE WHEN key_until_started THEN NULL ELSE unique_key END
    FROM unnest(p_of, p_of_epochs, p_ids, p_attempts) AS due (slice, epoch, id, attempt)
   WHERE j.slice = ANY (v_slices) AND j.slice = due.slice AND j.id = due.id
     AND v_epochs[array_position(v_slices, due.slice)] = due.epoch
     AND (j.run_epoch IS NULL OR j.run_epoch < due.epoch)
     AND (j.edits = 0 OR j.run_at <= now())
     AND (due.attempt IS NULL OR j.attempt = due.attempt)
  RETURNING j.slice, due.epoch, j.id, j.attempt, j.crashes, CASE WHEN j.edits > 0 THEN j.args END;
END $$;
COMMENT ON FUNCTION tallylight.mark_started IS
  'Marks jobs as started, each under the lease of its slice. p_slices, p_epochs: the leases, slices ascending; p_of, p_of_epochs, p_ids, p_attempts: the jobs, each with its lease and how often it was started as far as the caller knows (null: whatever that is). Returns a row without a job for each lease that holds, and a row for each job that is marked';

REVOKE EXECUTE ON FUNCTION tallylight.mark_started FROM PUBLIC;
INSERT INTO tallylight.role_grant (role, privilege)
VALUES ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.mark_started');
SELECT tallylight.ensure_roles();
