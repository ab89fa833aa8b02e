-- Sweeps read the sessions of a source that are not over, every few seconds: among all that ever
-- ran they are few.
CREATE INDEX session_awaited ON tallylight.session (source) WHERE status <> 'ended';
