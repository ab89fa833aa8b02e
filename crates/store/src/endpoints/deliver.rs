//! What workers need of endpoints: who hears, how a message to one is sent, and how that went.

use std::time::Duration;

use domain::endpoint::{Filter, Secret};
use uuid::Uuid;

use super::open_secret;
use crate::{Error, SealingKey, Store};

/// An endpoint that hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hearing {
    /// The endpoint.
    pub id: Uuid,
    /// What it hears.
    pub filter: Filter,
}

/// How a message is sent to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Where to.
    pub url: String,
    /// What it is signed with: the secret, and for some time after a rotation the one before.
    pub secrets: Vec<Secret>,
    /// Nothing is sent there.
    pub is_disabled: bool,
    /// It did not accept the last message.
    pub is_failing: bool,
    /// Which of its versions this is.
    pub version: i64,
}

/// How an endpoint stands after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// How long it has accepted nothing.
    pub since: Duration,
    /// Which of its versions this is.
    pub version: i64,
}

impl Store {
    /// The endpoints that hear anything. A table of few rows, read whole.
    pub async fn hearing(&self) -> Result<Vec<Hearing>, Error> {
        let rows = sqlx::query!(
            "SELECT id, types, accounts, sources FROM tallylight.endpoint
              WHERE disabled_at IS NULL ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await?;
        let hearing = rows.into_iter().map(|row| Hearing {
            id: row.id,
            filter: Filter { types: row.types, accounts: row.accounts, sources: row.sources },
        });
        Ok(hearing.collect())
    }

    /// How a message is sent to an endpoint; `None`: there is no such one any more.
    ///
    /// # Errors
    /// [`Error::Seal`] where its secret was sealed with another key.
    pub async fn receiver(&self, key: &SealingKey, id: Uuid) -> Result<Option<Receiver>, Error> {
        let row = sqlx::query!(
            r#"SELECT url, secret, CASE WHEN old_secret_until > now() THEN old_secret END AS old_secret,
                      disabled_at IS NOT NULL AS "is_disabled!",
                      failing_since IS NOT NULL AS "is_failing!", version
                 FROM tallylight.endpoint WHERE id = $1"#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed = std::iter::once(&row.secret).chain(&row.old_secret);
        let secrets =
            sealed.map(|sealed| open_secret(key, id, sealed)).collect::<Result<_, _>>()?;
        Ok(Some(Receiver {
            url: row.url,
            secrets,
            is_disabled: row.is_disabled,
            is_failing: row.is_failing,
            version: row.version,
        }))
    }

    /// Notes that an endpoint accepted a message.
    pub async fn endpoint_accepted(&self, id: Uuid) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE tallylight.endpoint SET failing_since = NULL, last_error = NULL
              WHERE id = $1 AND failing_since IS NOT NULL",
            id,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Notes that an endpoint did not accept a message, and tells for how long it has accepted
    /// none, by the database's clock. `None`: there is no such one any more.
    pub async fn endpoint_failed(&self, id: Uuid, error: &str) -> Result<Option<Failing>, Error> {
        let row = sqlx::query!(
            r#"UPDATE tallylight.endpoint
                  SET failing_since = coalesce(failing_since, now()), last_error = $2
                WHERE id = $1
            RETURNING (extract(epoch FROM now() - failing_since) * 1000000)::bigint AS "since!",
                      version"#,
            id,
            error.replace('\0', "\u{fffd}"),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| Failing {
            since: Duration::from_micros(u64::try_from(row.since).unwrap_or_default()),
            version: row.version,
        }))
    }

    /// Disables an endpoint that nobody has changed since `version`. Returns whether it did.
    pub async fn disable_endpoint(
        &self,
        id: Uuid,
        version: i64,
        reason: &str,
    ) -> Result<bool, Error> {
        let disabled = sqlx::query!(
            "UPDATE tallylight.endpoint
                SET disabled_at = now(), disabled_reason = $3, version = version + 1
              WHERE id = $1 AND version = $2 AND disabled_at IS NULL",
            id,
            version,
            reason.replace('\0', "\u{fffd}"),
        )
        .execute(&self.pool)
        .await?;
        Ok(disabled.rows_affected() == 1)
    }
}
