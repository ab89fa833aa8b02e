-- The keys of accounts: whoever drops one has forgotten the person.

CREATE TABLE tallylight.account_key (
  pseudonym      uuid        PRIMARY KEY,
  account_digest uuid        NOT NULL UNIQUE,
  sealed         bytea       NOT NULL,
  made_at        timestamptz NOT NULL DEFAULT now()
  -- A dropped key leaves the table's file with the next round of autovacuum.
) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE  tallylight.account_key IS 'Keys under which personal values are sealed, one per account of the product; deleting a row erases them everywhere. Read when values are shown or sent, never by an append or a fold, so it needs no slice';
COMMENT ON COLUMN tallylight.account_key.pseudonym IS 'Stands for the account in events, states, rows and jobs; made by chance';
COMMENT ON COLUMN tallylight.account_key.account_digest IS 'How the row of an account is found: derived from its id';
COMMENT ON COLUMN tallylight.account_key.sealed IS 'Key and account id: AES-256-GCM, the key for that is in the configuration';

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_api', 'SELECT, INSERT, DELETE ON tallylight.account_key'),
  ('tallylight_worker', 'SELECT ON tallylight.account_key');

SELECT tallylight.ensure_roles();
