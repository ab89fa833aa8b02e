-- An endpoint that was asked for under an Idempotency-Key has an id derived from it, and remembers
-- what was asked for: a repeat finds it, and the same key with another body is told apart.

ALTER TABLE tallylight.endpoint ADD COLUMN request uuid;
COMMENT ON COLUMN tallylight.endpoint.request IS 'Digest of what was asked for under an Idempotency-Key; null: without one';
