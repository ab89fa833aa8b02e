//! Platform accounts: the entries of `sources`, as they are written, and what makes them unusable.
//!
//! What needs no secret is checked for every command, so that a wrong entry is found before it is
//! used. Each error says which entry it is about and what to write instead.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use domain::cleanup::{Keep, Rules};
use domain::ids::{Timestamp, is_account_id, is_source_name};
use domain::region::{RegionRules, is_country};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use super::{Config, duration};

/// A platform account.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// Its name: part of subjects and of the webhook's path. Never change it.
    pub(crate) name: String,
    /// The platform's address.
    #[serde(default = "platform_url")]
    pub(crate) base_url: String,
    /// A permanent API token.
    pub(crate) token: Option<SecretString>,
    /// A file that holds it.
    pub(crate) token_file: Option<PathBuf>,
    /// A user, where there is no permanent token.
    pub(crate) username: Option<String>,
    /// The user's password.
    pub(crate) password: Option<SecretString>,
    /// A file that holds it.
    pub(crate) password_file: Option<PathBuf>,
    /// Send the body of a create inside `{"stream": ..}`.
    #[serde(default)]
    pub(crate) wrap_create: bool,
    /// Secrets of the webhook's path: several while one is replaced.
    #[serde(default)]
    pub(crate) webhook_tokens: Vec<WebhookToken>,
    /// Networks its webhooks may come from, as CIDR ranges; empty: any. It narrows, the path's
    /// secret authenticates.
    #[serde(default)]
    pub(crate) allow_from: Vec<String>,
    /// Live streams of the account that may be active at a time; none: not known, a refusal tells.
    pub(crate) active_streams: Option<NonZeroU32>,
    /// Requests in a second, of all processes together; none: no limit.
    pub(crate) rate_per_second: Option<f64>,
    /// Requests at once after a rest.
    pub(crate) burst: Option<f64>,
    /// What cleanup may delete.
    #[serde(default)]
    pub(crate) cleanup: Cleanup,
    /// Transcoding regions by the user's country.
    #[serde(default)]
    pub(crate) regions: Regions,
}

/// A secret of the webhook's path. One of `token`, `token_file`, `sha256`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookToken {
    /// Its name in numbers and logs [default: its place in the list].
    pub(crate) name: Option<String>,
    /// The secret itself, at least 16 characters.
    pub(crate) token: Option<SecretString>,
    /// A file that holds it.
    pub(crate) token_file: Option<PathBuf>,
    /// Its SHA-256, hexadecimal.
    pub(crate) sha256: Option<String>,
    /// Until when it is accepted, RFC 3339.
    pub(crate) not_after: Option<Timestamp>,
}

/// What cleanup may delete.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cleanup {
    /// A live stream of a deleted account goes when it was idle for this long.
    #[serde(deserialize_with = "duration")]
    pub(crate) inactive_after: Duration,
    /// A live stream that no session has goes at this age; at least an hour.
    #[serde(deserialize_with = "duration")]
    pub(crate) orphans_after: Duration,
    /// Recordings go with the live stream of a deleted account.
    pub(crate) delete_recordings: bool,
    /// How long recordings are kept after their session ended, or `forever`; none: for ever, unless
    /// they go with their live stream.
    #[serde(deserialize_with = "keep")]
    pub(crate) keep_recordings: Keep,
    /// The same for single accounts of the product.
    #[serde(deserialize_with = "keeps")]
    pub(crate) keep_recordings_of: BTreeMap<String, Keep>,
    /// Most live streams of a run.
    pub(crate) cap: u32,
}

impl Default for Cleanup {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            inactive_after: rules.inactive_after,
            orphans_after: rules.orphans_after,
            delete_recordings: rules.delete_recordings,
            keep_recordings: rules.keep_recordings,
            keep_recordings_of: rules.keep_recordings_of,
            cap: rules.cap,
        }
    }
}

/// Transcoding regions by the user's country.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Regions {
    /// For countries without one of their own; none: the platform chooses.
    pub(crate) default: Option<String>,
    /// By ISO 3166-1 code, such as `DE = "ed1"`.
    pub(crate) countries: BTreeMap<String, String>,
}

impl Cleanup {
    fn rules(&self) -> Rules {
        Rules {
            inactive_after: self.inactive_after,
            orphans_after: self.orphans_after,
            delete_recordings: self.delete_recordings,
            keep_recordings: self.keep_recordings,
            keep_recordings_of: self.keep_recordings_of.clone(),
            cap: self.cap,
        }
    }
}

impl Regions {
    fn rules(&self) -> RegionRules {
        let countries = self.countries.iter();
        let countries = countries.map(|(code, region)| (code.to_ascii_uppercase(), region.clone()));
        RegionRules { default: self.default.clone(), countries: countries.collect() }
    }
}

impl Config {
    /// What cleanup may delete, by source.
    pub(crate) fn cleanup_rules(&self) -> HashMap<String, Rules> {
        self.sources.iter().map(|source| (source.name.clone(), source.cleanup.rules())).collect()
    }

    /// Which region a user's country has, by source.
    pub(crate) fn region_rules(&self) -> HashMap<String, RegionRules> {
        self.sources.iter().map(|source| (source.name.clone(), source.regions.rules())).collect()
    }

    /// Finds the first entry of `sources` that cannot be used, as far as it says so without its
    /// secrets.
    ///
    /// # Errors
    /// Which entry it is, what is wrong, and what to write.
    pub(super) fn check_sources(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut secrets = BTreeMap::new();
        for source in &self.sources {
            let name = source.name.as_str();
            source.check().with_context(|| format!("read source \"{name}\""))?;
            ensure!(
                names.insert(name),
                "two sources have the name \"{name}\": give each its own, since it is part of what \
                 is stored for ever"
            );
            source.check_secrets(&mut secrets)?;
        }
        Ok(())
    }
}

impl Source {
    fn check(&self) -> Result<()> {
        let Self { name, base_url, .. } = self;
        ensure!(is_source_name(name), "name \"{name}\" must be 1 to 63 of a-z, 0-9 and -");
        let is_url = base_url.starts_with("https://") || base_url.starts_with("http://");
        ensure!(is_url, "base_url \"{base_url}\" must begin with https://, as {}", platform_url());
        self.check_credentials()?;
        self.cleanup.check()?;
        self.regions.check()
    }

    /// None at all is no error here: only a worker needs them, and says so.
    fn check_credentials(&self) -> Result<()> {
        let has_token = self.token.is_some() || self.token_file.is_some();
        let has_password = self.password.is_some() || self.password_file.is_some();
        if self.token.is_some() && self.token_file.is_some() {
            bail!("token and token_file are both given: keep one");
        }
        if has_token && (self.username.is_some() || has_password) {
            bail!("a token and a username are both given: keep one way to log in");
        }
        if self.username.is_some() != has_password {
            bail!("username and password (or password_file) go together: give both");
        }
        Ok(())
    }

    /// A secret that two sources share would let each speak for the other.
    fn check_secrets<'a>(&'a self, seen: &mut BTreeMap<&'a str, &'a str>) -> Result<()> {
        let source = self.name.as_str();
        let mut names = BTreeSet::new();
        for (at, token) in self.webhook_tokens.iter().enumerate() {
            let name = token.name(at);
            ensure!(
                is_source_name(&name),
                "the name \"{name}\" of a webhook token of source \"{source}\" must be 1 to 63 of \
                 a-z, 0-9 and -"
            );
            if !names.insert(name.clone()) {
                bail!("source \"{source}\" has two webhook tokens named \"{name}\"");
            }
            let text = token.token.as_ref().map(ExposeSecret::expose_secret);
            let Some(text) = text.or(token.sha256.as_deref()) else { continue };
            if let Some(other) = seen.insert(text, source) {
                bail!(
                    "the webhook token \"{name}\" of source \"{source}\" is a secret of source \
                     \"{other}\" already: make another with `tallylight token new`"
                );
            }
        }
        Ok(())
    }
}

impl WebhookToken {
    /// Its name: its own, or its place in the list, from 1.
    pub(crate) fn name(&self, at: usize) -> String {
        self.name.clone().unwrap_or_else(|| (at + 1).to_string())
    }
}

impl Cleanup {
    fn check(&self) -> Result<()> {
        ensure!(self.cap > 0, "cleanup.cap must be 1 or more: it is the most a run deletes");
        ensure!(
            self.orphans_after >= Duration::from_hours(1),
            "cleanup.orphans_after must be 1h or more: a session may still be making its live stream"
        );
        let bad = self.keep_recordings_of.keys().find(|account| !is_account_id(account));
        if let Some(bad) = bad {
            bail!("cleanup.keep_recordings_of names \"{bad}\", which is no account's id");
        }
        Ok(())
    }
}

impl Regions {
    fn check(&self) -> Result<()> {
        if let Some(code) = self.countries.keys().find(|code| !is_country(code)) {
            bail!(
                "regions.countries names \"{code}\": two letters by ISO 3166-1 are needed, as in \
                 DE = \"ed1\""
            );
        }
        let regions = self.countries.values().chain(&self.default);
        let is_bad = |region: &&String| region.is_empty() || region.len() > 63;
        if let Some(region) = regions.into_iter().find(is_bad) {
            bail!("regions has \"{region}\": a region is a word of the platform, such as \"ed1\"");
        }
        Ok(())
    }
}

/// A time for which recordings are kept: a duration, or `forever`.
#[derive(Deserialize)]
#[serde(transparent)]
struct KeepText(#[serde(deserialize_with = "keep")] Keep);

fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Keep, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "forever" {
        return Ok(Keep::Forever);
    }
    humantime::parse_duration(&text).map(Keep::For).map_err(|error| {
        serde::de::Error::custom(format!("\"{text}\" is neither \"forever\" nor a time: {error}"))
    })
}

fn keeps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Keep>, D::Error> {
    let keeps = BTreeMap::<String, KeepText>::deserialize(deserializer)?;
    Ok(keeps.into_iter().map(|(account, KeepText(keep))| (account, keep)).collect())
}

pub(super) fn platform_url() -> String {
    "https://api.gcore.com".to_owned()
}

#[cfg(test)]
mod tests;
