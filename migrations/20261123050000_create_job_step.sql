-- Durable waits: named steps of a job, its children, and who waits for an event.
--
-- What a wait needs lies with the job, in its slice; a word for a job of another slice travels as a
-- job of the kind `relay` (docs/adr/0023-a-wait-is-a-step.md).

ALTER TABLE tallylight.job ADD COLUMN waits jsonb;
COMMENT ON COLUMN tallylight.job.waits IS 'Null for most. steps: names of its steps and when each was begun; for: the one it waits for; parent: slice, job, step and n of which it is a child';
ALTER TABLE tallylight.job_dead ADD COLUMN waits jsonb;
ALTER TABLE tallylight.job_history ADD COLUMN waits jsonb;
COMMENT ON COLUMN tallylight.job_history.waits IS 'As job.waits: what steps it had';

CREATE TABLE tallylight.job_step (
  slice      smallint    NOT NULL,
  job        uuid        NOT NULL,
  name       text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200),
  kind       text        NOT NULL CHECK (kind IN ('value', 'sleep', 'event', 'children')),
  value      jsonb,
  awaits     jsonb,
  until      timestamptz,
  on_failure text        CHECK (on_failure IN ('run', 'cancel', 'wait')),
  on_cancel  text        CHECK (on_cancel IN ('cancel', 'keep')),
  opened_at  timestamptz NOT NULL DEFAULT now(),
  closed_at  timestamptz,
  PRIMARY KEY (slice, job, name),
  CHECK ((kind = 'children') = (on_failure IS NOT NULL AND on_cancel IS NOT NULL))
);
COMMENT ON TABLE  tallylight.job_step IS 'Named steps of live and dead jobs: work that is done, and waits';
COMMENT ON COLUMN tallylight.job_step.kind IS 'value: done work; sleep: until a time; event: for an event, until a time; children: for their ends';
COMMENT ON COLUMN tallylight.job_step.value IS 'What the work came to; of an event, its slice and position, null when it did not come in time';
COMMENT ON COLUMN tallylight.job_step.awaits IS 'Of an event: subject, types and the position after which it is awaited';
COMMENT ON COLUMN tallylight.job_step.on_failure IS 'What a child that fails comes to: run (it has ended), cancel (the parent), wait (until a redrive succeeds)';
COMMENT ON COLUMN tallylight.job_step.on_cancel IS 'What becomes of children that were not started when their parent is cancelled';
COMMENT ON COLUMN tallylight.job_step.closed_at IS 'Null: it is waited for. Of a sleep always: its end is its time';

CREATE TABLE tallylight.job_child (
  slice       smallint NOT NULL,
  parent      uuid     NOT NULL,
  step        text     NOT NULL,
  n           int      NOT NULL,
  child       uuid     NOT NULL,
  child_slice smallint NOT NULL,
  is_open     boolean  NOT NULL DEFAULT true,
  rank        int,
  state       text,
  value       jsonb,
  error       text,
  PRIMARY KEY (slice, parent, step, n)
);
COMMENT ON TABLE  tallylight.job_child IS 'Children of live and dead jobs, in the slice of the parent. A row each, so that none is counted twice';
COMMENT ON COLUMN tallylight.job_child.n IS 'Its number, from 1';
COMMENT ON COLUMN tallylight.job_child.is_open IS 'Whether its parent waits for it';
COMMENT ON COLUMN tallylight.job_child.rank IS 'Of what was heard of it; a later word has a greater one: twice its number of starts, and one more where nothing can follow';
COMMENT ON COLUMN tallylight.job_child.state IS 'How it ended: completed, discarded, quarantined, cancelled; null: it has not';
-- Read from its end: children mostly end in their order, and what has ended lies before.
CREATE INDEX job_child_open ON tallylight.job_child (slice, parent, step, n) WHERE is_open;

CREATE TABLE tallylight.event_wait (
  slice     smallint    NOT NULL,
  subject   text        NOT NULL,
  job       uuid        NOT NULL,
  step      text        NOT NULL,
  job_slice smallint    NOT NULL,
  types     text[]      NOT NULL,
  after     bigint      NOT NULL,
  until     timestamptz NOT NULL,
  PRIMARY KEY (slice, subject, job, step)
);
COMMENT ON TABLE  tallylight.event_wait IS 'Who waits for events of a subject, in the slice of the subject. Gone with the event, or some time after `until`';
COMMENT ON COLUMN tallylight.event_wait.types IS 'Types of events that end the wait; empty: any';
COMMENT ON COLUMN tallylight.event_wait.after IS 'Only later positions end it';

ALTER TABLE tallylight.checkpoint ADD COLUMN has_waits boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN tallylight.checkpoint.has_waits IS 'Of react: whether event_wait may have rows of the slice. Set by whoever adds one, who thereby waits for the reaction that is under way';

ALTER TABLE tallylight.job_pause DROP CONSTRAINT job_pause_check;
ALTER TABLE tallylight.job_pause ADD CONSTRAINT job_pause_check CHECK (NOT (scope = 'kind' AND name IN ('timer', 'forward', 'relay')));

INSERT INTO tallylight.role_grant (role, privilege)
SELECT r.role, p.privilege FROM (VALUES
  (ARRAY['worker'], 'SELECT, INSERT, UPDATE, DELETE ON tallylight.job_step, tallylight.job_child, tallylight.event_wait'),
  (ARRAY['api', 'readonly'], 'SELECT ON tallylight.job_step, tallylight.job_child, tallylight.event_wait')
) AS p (roles, privilege), LATERAL (SELECT ('tallylight_' || unnest(p.roles))::name) AS r (role);
SELECT tallylight.ensure_roles();
