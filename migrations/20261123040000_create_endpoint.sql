-- Endpoints: addresses of the product that messages about its sessions are sent to.

CREATE TABLE tallylight.endpoint (
  id              uuid        PRIMARY KEY,
  url             text        NOT NULL CHECK (octet_length(url) BETWEEN 1 AND 2048),
  description     text,
  types           text[]      NOT NULL DEFAULT '{}',
  accounts        text[]      NOT NULL DEFAULT '{}',
  sources         text[]      NOT NULL DEFAULT '{}',
  secret          bytea       NOT NULL,
  old_secret      bytea,
  old_secret_until timestamptz,
  disabled_at     timestamptz,
  disabled_reason text,
  failing_since   timestamptz,
  last_error      text,
  version         bigint      NOT NULL DEFAULT 1,
  made_at         timestamptz NOT NULL DEFAULT now(),
  changed_at      timestamptz NOT NULL DEFAULT now(),
  CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
  CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);
COMMENT ON TABLE  tallylight.endpoint IS 'Where the product hears messages. Few rows, read where an announcement is folded and where a message is sent; without a slice, since messages of every slice go there';
COMMENT ON COLUMN tallylight.endpoint.types IS 'Topics that it hears, or their beginnings before a *; none: all';
COMMENT ON COLUMN tallylight.endpoint.accounts IS 'Pseudonyms of the accounts that it hears of; none: all';
COMMENT ON COLUMN tallylight.endpoint.sources IS 'Sources that it hears of; none: all';
COMMENT ON COLUMN tallylight.endpoint.secret IS 'What messages are signed with: AES-256-GCM, the key is in the configuration';
COMMENT ON COLUMN tallylight.endpoint.old_secret IS 'The secret before a rotation, which signs too until old_secret_until';
COMMENT ON COLUMN tallylight.endpoint.disabled_at IS 'Since when nothing is sent there';
COMMENT ON COLUMN tallylight.endpoint.failing_since IS 'The first failure since the last message that was accepted';
COMMENT ON COLUMN tallylight.endpoint.version IS 'Raised by every change of somebody, so that nobody disables by what he read before it';

INSERT INTO tallylight.role_grant (role, privilege) VALUES
  ('tallylight_api', 'SELECT, INSERT, UPDATE, DELETE ON tallylight.endpoint'),
  ('tallylight_worker', 'SELECT, UPDATE ON tallylight.endpoint');
SELECT tallylight.ensure_roles();
