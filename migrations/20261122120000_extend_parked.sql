-- What is set aside can be tried again or skipped on request. The worker that holds the slice does
-- it, in a transaction with its fence; the request waits on the first event of its subject.

ALTER TABLE tallylight.parked
  ADD COLUMN attempts     int NOT NULL DEFAULT 0,
  ADD COLUMN request      text CHECK (request IN ('retry', 'skip')),
  ADD COLUMN requested_by text,
  ADD COLUMN requested_at timestamptz,
  ADD COLUMN reason       text,
  ADD COLUMN skipped_at   timestamptz;
UPDATE tallylight.parked SET attempts = 1 WHERE error IS NOT NULL;
COMMENT ON COLUMN tallylight.parked.attempts IS 'How often it was tried; 0: only waiting for its turn';
COMMENT ON COLUMN tallylight.parked.request IS 'What somebody wants done with it';
COMMENT ON COLUMN tallylight.parked.requested_by IS 'Who asked for it';
COMMENT ON COLUMN tallylight.parked.reason IS 'Why, in the words of who asked';
COMMENT ON COLUMN tallylight.parked.skipped_at IS 'Passed over for good at this time: kept, so that a rebuild passes it over too';

CREATE INDEX parked_waiting ON tallylight.parked (consumer, slice, subject, position) WHERE skipped_at IS NULL;
