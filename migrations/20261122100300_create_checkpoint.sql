-- Who may work on a slice, and how far a consumer has come.

CREATE TABLE tallylight.process (
  id         uuid        PRIMARY KEY,
  host       text        NOT NULL,
  version    text        NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  tallylight.process IS 'Worker processes; a process takes a new id at every start';
COMMENT ON COLUMN tallylight.process.seen_at IS 'Last heartbeat; slices are shared among those seen lately';

CREATE TABLE tallylight.checkpoint (
  consumer    text        NOT NULL,
  slice       smallint    NOT NULL,
  position    bigint      NOT NULL DEFAULT 0,
  recorded_at timestamptz NOT NULL DEFAULT 'epoch',
  owner       uuid,
  epoch       bigint      NOT NULL DEFAULT 0,
  lease_until timestamptz NOT NULL DEFAULT 'epoch',
  PRIMARY KEY (consumer, slice)
) WITH (fillfactor = 20);
COMMENT ON TABLE  tallylight.checkpoint IS 'Lease and progress of a consumer on a slice. `jobs` is a lease only';
COMMENT ON COLUMN tallylight.checkpoint.position IS 'Last applied position';
COMMENT ON COLUMN tallylight.checkpoint.recorded_at IS 'recorded_at of that event; lets the next read skip old partitions';
COMMENT ON COLUMN tallylight.checkpoint.owner IS 'The process that may work on it';
COMMENT ON COLUMN tallylight.checkpoint.epoch IS 'Raised at every claim; every transaction of an owner checks it';

CREATE TABLE tallylight.parked (
  consumer  text        NOT NULL,
  slice     smallint    NOT NULL,
  position  bigint      NOT NULL,
  subject   text        NOT NULL,
  error     text,
  parked_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer, slice, position)
);
COMMENT ON TABLE  tallylight.parked IS 'Events a consumer could not apply, and the later ones of the same subject that wait behind them';
COMMENT ON COLUMN tallylight.parked.error IS 'What went wrong; null: only waiting for its turn';
