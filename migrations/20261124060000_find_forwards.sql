-- What upkeep asks of every slice before it removes keys: since when the oldest forward waits. It
-- read all jobs for that, once for each slice.
CREATE INDEX job_forward ON tallylight.job (enqueued_at) WHERE kind = 'forward';
