-- Cleanup walks the sessions of a source that ended long ago, page by page.

CREATE INDEX session_ended ON tallylight.session (source, status_at, session_id) WHERE status = 'ended';
