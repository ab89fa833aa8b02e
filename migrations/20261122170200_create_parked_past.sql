-- What was set aside and applied later: until then it was shown to nobody, and whoever asks what
-- was known at a time before must not be told of it.

CREATE TABLE tallylight.parked_past (
  consumer   text        NOT NULL,
  slice      smallint    NOT NULL,
  position   bigint      NOT NULL,
  parked_at  timestamptz NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer, slice, position)
);
COMMENT ON TABLE  tallylight.parked_past IS 'Events that were set aside and are applied now';
COMMENT ON COLUMN tallylight.parked_past.parked_at IS 'Since when they had waited';
COMMENT ON COLUMN tallylight.parked_past.applied_at IS 'When they were applied after all';

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_worker', 'SELECT, INSERT ON tallylight.parked_past'),
  ('tallylight_api', 'SELECT ON tallylight.parked_past'),
  ('tallylight_readonly', 'SELECT ON tallylight.parked_past');
SELECT tallylight.ensure_roles();
