-- Secrets of platform objects, sealed. Neither log nor projection holds them.

CREATE TABLE tallylight.sealed (
  slice      smallint    NOT NULL,
  subject    text        NOT NULL,
  nonce      bytea       NOT NULL,
  ciphertext bytea       NOT NULL,
  sealed_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (slice, subject)
);
COMMENT ON TABLE  tallylight.sealed IS 'Push addresses and keys of live streams: AES-256-GCM, the key is in the configuration';
COMMENT ON COLUMN tallylight.sealed.subject IS 'The live stream; bound into the seal as associated data';
