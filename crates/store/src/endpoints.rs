//! Endpoints: where the product hears messages, kept by people and programs, read by workers.
//!
//! A secret is made here by chance, kept sealed, and told once; after a rotation the old one signs
//! beside the new one for [`SECRET_GRACE`]. An endpoint is *failing* from the first message that it
//! did not accept until the next that it does. Not its job: who hears what and how messages are
//! signed, which `domain::endpoint` says; when an endpoint is disabled, which the worker decides.

use std::time::Duration;

use domain::endpoint::{Filter, Secret, is_pattern};
use domain::ids::Timestamp;
use rand::RngExt as _;
use uuid::Uuid;

use crate::consumer::micros;
use crate::{Error, SealingKey, Store};

mod deliver;
mod deliveries;
mod once;
mod resend;

pub use deliver::{Failing, Hearing, Receiver};
pub use deliveries::Delivery;
pub use once::AddedEndpoint;
pub use resend::{Again, Resent};

/// Most endpoints of an installation: each of them costs a look at every announcement.
pub const MOST_ENDPOINTS: i64 = 100;

/// How long a secret signs beside the one that took its place.
pub const SECRET_GRACE: Duration = Duration::from_hours(24);

/// Longest address, in bytes.
const MAX_URL: usize = 2_048;

/// Longest list of a filter.
const MAX_LIST: usize = 100;

/// An endpoint as somebody wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewEndpoint {
    /// Where messages are sent: an absolute address without user name and fragment.
    pub url: String,
    /// What it is, for people.
    pub description: Option<String>,
    /// What it hears; accounts by their pseudonyms.
    pub filter: Filter,
}

/// What is to be changed of an endpoint; `None`: it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointChange {
    /// Where messages are sent.
    pub url: Option<String>,
    /// What it is, for people.
    pub description: Option<String>,
    /// Topics or their beginnings.
    pub types: Option<Vec<String>>,
    /// Pseudonyms of accounts.
    pub accounts: Option<Vec<String>>,
    /// Sources.
    pub sources: Option<Vec<String>>,
    /// Whether it is sent anything. Enabled again, it is failing no more.
    pub enabled: Option<bool>,
}

/// An endpoint as it is, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: Uuid,
    /// Where messages are sent.
    pub url: String,
    /// What it is, for people.
    pub description: Option<String>,
    /// What it hears; accounts by their pseudonyms.
    pub filter: Filter,
    /// Nothing is sent there.
    pub disabled: Option<Disabled>,
    /// The first failure since the last message that was accepted.
    pub failing_since: Option<Timestamp>,
    /// What failed last, while it is failing or disabled.
    pub last_error: Option<String>,
    /// Until when the secret before a rotation signs too.
    pub old_secret_until: Option<Timestamp>,
    /// When it was made.
    pub made_at: Timestamp,
    /// When somebody changed it last.
    pub changed_at: Timestamp,
}

/// Why nothing is sent to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// Since when.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// A row of `endpoint`, without its secrets.
struct Row {
    id: Uuid,
    url: String,
    description: Option<String>,
    types: Vec<String>,
    accounts: Vec<String>,
    sources: Vec<String>,
    disabled_at: Option<Timestamp>,
    disabled_reason: Option<String>,
    failing_since: Option<Timestamp>,
    last_error: Option<String>,
    old_secret_until: Option<Timestamp>,
    made_at: Timestamp,
    changed_at: Timestamp,
}

impl From<Row> for Endpoint {
    fn from(row: Row) -> Self {
        let disabled = row.disabled_at.zip(row.disabled_reason);
        Self {
            id: row.id,
            url: row.url,
            description: row.description,
            filter: Filter { types: row.types, accounts: row.accounts, sources: row.sources },
            disabled: disabled.map(|(at, reason)| Disabled { at, reason }),
            failing_since: row.failing_since,
            last_error: row.last_error,
            old_secret_until: row.old_secret_until,
            made_at: row.made_at,
            changed_at: row.changed_at,
        }
    }
}

/// Refuses an address that no message could be sent to. Where it leads is looked at when it is sent.
fn check_url(url: &str) -> Result<(), Error> {
    let refuse = |reason: &str| Err(Error::Invalid { reason: reason.to_owned() });
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || url.len() > MAX_URL || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse("url must be an address such as https://shop.example/tallylight");
    }
    if host.contains('@') || url.contains('#') {
        return refuse("url must have no user name and no fragment");
    }
    Ok(())
}

fn check_lists<'a>(
    types: impl IntoIterator<Item = &'a String>,
    lists: [Option<&Vec<String>>; 3],
) -> Result<(), Error> {
    let invalid = |reason: String| Err(Error::Invalid { reason });
    if let Some(unknown) = types.into_iter().find(|pattern| !is_pattern(pattern)) {
        return invalid(format!(
            "types has \"{unknown}\", which means no message: name one such as session.live, or the \
             beginning of some, such as recording.*"
        ));
    }
    if lists.iter().flatten().any(|list| list.len() > MAX_LIST) {
        return invalid(format!("a list has at most {MAX_LIST} entries"));
    }
    Ok(())
}

/// What is bound into the seal of an endpoint's secret.
fn place(id: Uuid) -> String {
    format!("endpoint:{id}")
}

fn too_many() -> Error {
    Error::Invalid { reason: format!("there are {MOST_ENDPOINTS} endpoints: remove one first") }
}

fn not_opened(id: Uuid) -> Error {
    Error::Seal { subject: place(id) }
}

/// A new secret, and how it is kept.
fn make_secret(key: &SealingKey, id: Uuid) -> Result<(Secret, Vec<u8>), Error> {
    let secret = Secret::new(rand::rng().random());
    let sealed = key.encrypt(place(id).as_bytes(), secret.bytes()).ok_or_else(|| not_opened(id))?;
    Ok((secret, sealed))
}

fn open_secret(key: &SealingKey, id: Uuid, sealed: &[u8]) -> Result<Secret, Error> {
    let bytes = key.decrypt(place(id).as_bytes(), sealed);
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| not_opened(id))?;
    Ok(Secret::new(bytes))
}

impl Store {
    /// Adds an endpoint, and makes its secret. Announcements that are folded after the commit are
    /// told to it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where something of it is refused, or there are
    /// [`MOST_ENDPOINTS`] already.
    pub async fn add_endpoint(
        &self,
        key: &SealingKey,
        new: &NewEndpoint,
    ) -> Result<(Uuid, Secret), Error> {
        let id = Uuid::now_v7();
        let secret = self.insert_endpoint(key, new, id, None).await?.ok_or_else(too_many)?;
        Ok((id, secret))
    }

    /// Inserts an endpoint, and makes its secret. `None`: one of this id is there already.
    async fn insert_endpoint(
        &self,
        key: &SealingKey,
        new: &NewEndpoint,
        id: Uuid,
        request: Option<Uuid>,
    ) -> Result<Option<Secret>, Error> {
        check_url(&new.url)?;
        let Filter { types, accounts, sources } = &new.filter;
        check_lists(types, [Some(types), Some(accounts), Some(sources)])?;
        let (secret, sealed) = make_secret(key, id)?;
        let added = sqlx::query!(
            "INSERT INTO tallylight.endpoint
                    (id, url, description, types, accounts, sources, secret, request)
             SELECT $1, $2, $3, $4, $5, $6, $7, $9
              WHERE (SELECT count(*) FROM tallylight.endpoint) < $8
             ON CONFLICT (id) DO NOTHING",
            id,
            new.url,
            new.description,
            types,
            accounts,
            sources,
            sealed,
            MOST_ENDPOINTS,
            request,
        )
        .execute(&self.pool)
        .await?;
        if added.rows_affected() == 1 {
            return Ok(Some(secret));
        }
        let is_there = self.endpoint(id).await?.is_some();
        if is_there { Ok(None) } else { Err(too_many()) }
    }

    /// All endpoints, the oldest first.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, url, description, types, accounts, sources, disabled_at, disabled_reason,
                    failing_since, last_error, old_secret_until, made_at, changed_at
               FROM tallylight.endpoint ORDER BY made_at, id",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Endpoint::from).collect())
    }

    /// An endpoint by its id.
    pub async fn endpoint(&self, id: Uuid) -> Result<Option<Endpoint>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, url, description, types, accounts, sources, disabled_at, disabled_reason,
                    failing_since, last_error, old_secret_until, made_at, changed_at
               FROM tallylight.endpoint WHERE id = $1",
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Endpoint::from))
    }

    /// Changes an endpoint. Returns whether there is such a one.
    ///
    /// # Errors
    /// As [`Store::add_endpoint`].
    pub async fn change_endpoint(&self, id: Uuid, change: &EndpointChange) -> Result<bool, Error> {
        change.url.as_deref().map_or(Ok(()), check_url)?;
        let EndpointChange { url, description, types, accounts, sources, enabled } = change;
        check_lists(types.iter().flatten(), [types.as_ref(), accounts.as_ref(), sources.as_ref()])?;
        let changed = sqlx::query!(
            "UPDATE tallylight.endpoint
                SET url = coalesce($2, url), description = coalesce($3, description),
                    types = coalesce($4, types), accounts = coalesce($5, accounts),
                    sources = coalesce($6, sources),
                    disabled_at = CASE $7::bool WHEN true THEN NULL
                                  WHEN false THEN coalesce(disabled_at, now()) ELSE disabled_at END,
                    disabled_reason = CASE $7::bool WHEN true THEN NULL
                                      WHEN false THEN coalesce(disabled_reason, 'by hand')
                                      ELSE disabled_reason END,
                    failing_since = CASE $7::bool WHEN true THEN NULL ELSE failing_since END,
                    last_error = CASE $7::bool WHEN true THEN NULL ELSE last_error END,
                    version = version + 1, changed_at = now()
              WHERE id = $1",
            id,
            url.as_deref(),
            description.as_deref(),
            types.as_deref(),
            accounts.as_deref(),
            sources.as_deref(),
            *enabled,
        )
        .execute(&self.pool)
        .await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Gives an endpoint a new secret; the old one signs too for [`SECRET_GRACE`], and one that was
    /// replaced before does no more. `None`: there is no such endpoint.
    ///
    /// # Errors
    /// [`Error::Seal`] where the cipher fails.
    pub async fn rotate_secret(&self, key: &SealingKey, id: Uuid) -> Result<Option<Secret>, Error> {
        let (secret, sealed) = make_secret(key, id)?;
        let rotated = sqlx::query!(
            "UPDATE tallylight.endpoint
                SET old_secret = secret, secret = $2,
                    old_secret_until = now() + $3::bigint * interval '1 microsecond',
                    version = version + 1, changed_at = now()
              WHERE id = $1",
            id,
            sealed,
            micros(SECRET_GRACE),
        )
        .execute(&self.pool)
        .await?;
        Ok((rotated.rows_affected() == 1).then_some(secret))
    }

    /// Removes an endpoint: what waits for it is sent no more. Returns whether there was such a one.
    pub async fn remove_endpoint(&self, id: Uuid) -> Result<bool, Error> {
        let removed = sqlx::query!("DELETE FROM tallylight.endpoint WHERE id = $1", id)
            .execute(&self.pool)
            .await?;
        Ok(removed.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_absolute_and_carries_no_credentials() {
        for good in ["https://a.example", "https://a.example:8443/hooks?x=1", "http://10.0.0.1/"] {
            check_url(good).unwrap();
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL));
        for bad in [
            "",
            "a.example",
            "https://",
            "https:///hooks",
            "ftp://a.example",
            "https://u:p@a.example/",
            "https://a.example/#part",
            "https://a.example/a b",
            "https://a.example/ü",
            &long,
        ] {
            assert!(matches!(check_url(bad), Err(Error::Invalid { .. })), "{bad}");
        }
    }

    #[test]
    fn a_secret_opens_with_its_key_at_its_endpoint_only() {
        let (key, id) = (SealingKey::new([1; 32]), Uuid::from_u128(1));
        let (secret, sealed) = make_secret(&key, id).unwrap();
        assert_eq!(open_secret(&key, id, &sealed).unwrap(), secret);
        let elsewhere = open_secret(&key, Uuid::from_u128(2), &sealed).unwrap_err();
        assert!(matches!(elsewhere, Error::Seal { .. }), "{elsewhere}");
        let other_key = open_secret(&SealingKey::new([2; 32]), id, &sealed);
        assert!(other_key.is_err());
    }
}
