-- Workers verify some slices every night. What they compare goes to tables of their session.
INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.verify_put_aside'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.verify_compare'),
  ('tallylight_worker', 'EXECUTE ON FUNCTION tallylight.rows_as_stored');
SELECT tallylight.ensure_roles();
