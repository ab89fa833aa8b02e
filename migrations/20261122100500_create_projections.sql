-- Projections: current state, made from the log by `evolve` alone. May be rebuilt at any time.

CREATE TABLE tallylight.subject_state (
  slice    smallint NOT NULL,
  subject  text     NOT NULL,
  state    jsonb    NOT NULL,
  position bigint   NOT NULL,
  PRIMARY KEY (slice, subject)
);
COMMENT ON TABLE  tallylight.subject_state IS 'Folded state of every subject that has one';
COMMENT ON COLUMN tallylight.subject_state.position IS 'The last event of the subject';

CREATE TABLE tallylight.session_request (
  slice          smallint    NOT NULL,
  session_id     uuid        NOT NULL,
  source         text        NOT NULL,
  account        text,
  name           text        NOT NULL,
  status         text        NOT NULL,
  failure        text,
  live_stream_id bigint,
  requested_at   timestamptz NOT NULL,
  position       bigint      NOT NULL,
  PRIMARY KEY (slice, session_id)
);
COMMENT ON TABLE tallylight.session_request IS 'Sessions as asked for, on the slice of the request';
CREATE INDEX session_request_id ON tallylight.session_request (session_id);
CREATE INDEX session_request_recent ON tallylight.session_request (requested_at, session_id);

CREATE TABLE tallylight.session (
  slice          smallint    NOT NULL,
  session_id     uuid        NOT NULL,
  source         text        NOT NULL,
  account        text,
  live_stream_id bigint      NOT NULL,
  status         text        NOT NULL,
  status_at      timestamptz NOT NULL,
  detail         jsonb       NOT NULL,
  position       bigint      NOT NULL,
  PRIMARY KEY (slice, session_id)
);
COMMENT ON TABLE tallylight.session IS 'Sessions that have their live stream, on its slice';
CREATE INDEX session_id ON tallylight.session (session_id);
CREATE INDEX session_live_stream ON tallylight.session (source, live_stream_id);

CREATE TABLE tallylight.live_stream (
  slice          smallint NOT NULL,
  source         text     NOT NULL,
  live_stream_id bigint   NOT NULL,
  account        text,
  installation   uuid,
  active         boolean,
  live           boolean  NOT NULL,
  idle_since     timestamptz,
  deleted        boolean  NOT NULL,
  hls_url        text,
  dash_url       text,
  iframe_url     text,
  position       bigint   NOT NULL,
  PRIMARY KEY (slice, source, live_stream_id)
);
COMMENT ON TABLE  tallylight.live_stream IS 'Live streams of the platform that were heard of';
COMMENT ON COLUMN tallylight.live_stream.installation IS 'Which installation made it, by its tag; null: not ours';
COMMENT ON COLUMN tallylight.live_stream.idle_since IS 'Since when it has had no session and was neither live nor active';
CREATE INDEX live_stream_account ON tallylight.live_stream (source, account) WHERE account IS NOT NULL;

CREATE TABLE tallylight.video (
  slice          smallint NOT NULL,
  source         text     NOT NULL,
  video_id       bigint   NOT NULL,
  live_stream_id bigint,
  status         text     NOT NULL,
  duration_ms    bigint,
  position       bigint   NOT NULL,
  PRIMARY KEY (slice, source, video_id)
);
COMMENT ON TABLE tallylight.video IS 'Videos of the platform that were heard of';

CREATE TABLE tallylight.account (
  slice      smallint    NOT NULL,
  source     text        NOT NULL,
  account    text        NOT NULL,
  deleted_at timestamptz,
  position   bigint      NOT NULL,
  PRIMARY KEY (slice, source, account)
);
COMMENT ON TABLE tallylight.account IS 'Accounts of the product that were said to be deleted';
