-- Pages of live streams go by id and source: ids are the platform's, and two sources may share one.

CREATE INDEX live_stream_page ON tallylight.live_stream (live_stream_id, source);
