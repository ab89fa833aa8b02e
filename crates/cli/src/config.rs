//! Configuration: defaults, then `tallylight.toml`, then `TALLYLIGHT__SECTION__KEY`. The only
//! reader of the environment. Unknown keys are errors; secrets can be read from files.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use domain::timer::Policy;
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use worker::Handlers;

mod calls;
mod session;
mod sources;
mod webhooks;

pub(crate) use sources::{Source, WebhookToken};

use session::Session;

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The database.
    pub(crate) database: Database,
    /// The webhook endpoint.
    pub(crate) ingest: Ingest,
    /// The API.
    pub(crate) api: Api,
    /// Worker processes.
    pub(crate) worker: Worker,
    /// How long sessions wait for what.
    pub(crate) session: Session,
    /// The key that seals push addresses.
    pub(crate) sealing: Sealing,
    /// What becomes of the log's past.
    pub(crate) history: History,
    /// What is kept of jobs that have ended.
    pub(crate) jobs: Jobs,
    /// Platform accounts.
    pub(crate) sources: Vec<Source>,
    /// Calls to other services.
    pub(crate) http_call: calls::HttpCall,
    /// Messages to endpoints of the product.
    pub(crate) webhooks: webhooks::Webhooks,
    /// Numbers and signs of life for the operator.
    pub(crate) admin: Admin,
    /// Log output.
    pub(crate) log: Log,
    /// Kinds of jobs that this program has beside Tallylight's own. No file says them.
    #[serde(skip)]
    pub(crate) handlers: Handlers,
}

/// Numbers and signs of life for the operator.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// Where they are served, such as `127.0.0.1:9090`; none: nowhere.
    pub(crate) listen: Option<SocketAddr>,
    /// Serve them on an address that other machines can reach, although they ask for no token.
    pub(crate) allow_remote: bool,
}

/// The database.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Database {
    /// `postgres://..`; none: `DATABASE_URL`, else the managed cluster.
    pub(crate) url: Option<SecretString>,
    /// A file that holds the address.
    pub(crate) url_file: Option<PathBuf>,
    /// Most connections of a process.
    pub(crate) max_connections: u32,
    /// The managed cluster's directory.
    pub(crate) data_dir: Option<PathBuf>,
    /// Where PostgreSQL's programs are, if they are not found.
    pub(crate) pg_bin: Option<PathBuf>,
}

impl Default for Database {
    fn default() -> Self {
        Self { url: None, url_file: None, max_connections: 8, data_dir: None, pg_bin: None }
    }
}

/// The webhook endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ingest {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Largest body in bytes; larger ones get 413.
    pub(crate) body_limit: usize,
    /// Most connections at a time; for a further one the idlest goes.
    pub(crate) max_connections: usize,
    /// Proxies whose `X-Forwarded-For` is believed: addresses or CIDR ranges.
    pub(crate) trusted_proxies: Vec<String>,
    /// Time between "not ready" and the end of accepting when the process stops: as long as a load
    /// balancer takes to notice.
    #[serde(deserialize_with = "duration")]
    pub(crate) drain_delay: Duration,
    /// Where it keeps what the database does not take; none: beside the managed cluster's place.
    pub(crate) spool_dir: Option<PathBuf>,
    /// Most bytes of the spool; then callers get 503.
    pub(crate) spool_limit: u64,
    /// How long an event may wait for its commit before it is spooled.
    #[serde(deserialize_with = "duration")]
    pub(crate) spool_after: Duration,
    /// Who may send batches of events.
    pub(crate) tokens: Vec<BatchToken>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            body_limit: 1024 * 1024,
            max_connections: 1024,
            trusted_proxies: Vec::new(),
            drain_delay: Duration::ZERO,
            spool_dir: None,
            spool_limit: 1 << 30,
            spool_after: Duration::from_secs(1),
            tokens: Vec::new(),
        }
    }
}

/// A bearer token for batches of events. One of `token`, `token_file`, `sha256`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchToken {
    /// Its name; stands in the log beside each event.
    pub(crate) name: String,
    /// The token itself.
    pub(crate) token: Option<SecretString>,
    /// A file that holds it.
    pub(crate) token_file: Option<PathBuf>,
    /// Its SHA-256, hexadecimal.
    pub(crate) sha256: Option<String>,
    /// For which sources it may tell events.
    pub(crate) sources: BTreeSet<String>,
    /// Until when it is accepted, RFC 3339.
    pub(crate) not_after: Option<domain::ids::Timestamp>,
}

/// The API.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Who may call it.
    pub(crate) tokens: Vec<ApiToken>,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: loopback(8081), tokens: Vec::new() }
    }
}

/// A bearer token of the API. One of `token`, `token_file`, `sha256`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiToken {
    /// Its name, for logs.
    pub(crate) name: String,
    /// The token itself.
    pub(crate) token: Option<SecretString>,
    /// A file that holds it.
    pub(crate) token_file: Option<PathBuf>,
    /// Its SHA-256, hexadecimal.
    pub sha256: Option<String>,
    /// What it may do.
    pub(crate) scopes: BTreeSet<String>,
    /// Until when it is accepted, RFC 3339.
    pub(crate) not_after: Option<domain::ids::Timestamp>,
}

/// Worker processes.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Worker {
    /// How long a lease lasts without renewal.
    #[serde(deserialize_with = "duration")]
    pub(crate) lease: Duration,
    /// Longest wait for news that no wake-up told.
    #[serde(deserialize_with = "duration")]
    pub(crate) poll: Duration,
    /// Jobs that run at once.
    pub(crate) concurrency: usize,
    /// Time that running handlers get when the process stops.
    #[serde(deserialize_with = "duration")]
    pub(crate) grace: Duration,
    /// Jobs are counted for the numbers this often, at most; zero: never.
    #[serde(deserialize_with = "duration")]
    pub(crate) sample_every: Duration,
    /// Live rows of some slices are compared with the log this often; zero: never.
    #[serde(deserialize_with = "duration")]
    pub(crate) verify_every: Duration,
}

impl Default for Worker {
    fn default() -> Self {
        let worker = worker::Config::default();
        Self {
            lease: worker.lease,
            poll: worker.poll,
            concurrency: worker.concurrency,
            grace: worker.grace,
            sample_every: worker.sample_every.unwrap_or_default(),
            verify_every: worker.verify_every.unwrap_or_default(),
        }
    }
}

/// The key that seals push addresses: 64 hexadecimal digits.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sealing {
    /// The key itself.
    pub(crate) key: Option<SecretString>,
    /// A file that holds it.
    pub(crate) key_file: Option<PathBuf>,
}

/// What becomes of the log's past.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct History {
    /// Where sealed months lie: `file:///DIRECTORY`.
    pub(crate) url: Option<String>,
    /// A month is sealed this long after its end; none: never.
    #[serde(deserialize_with = "some_duration")]
    pub(crate) seal_after: Option<Duration>,
    /// Idempotency keys are removed at this age; at least 7 days.
    #[serde(deserialize_with = "key_age")]
    pub(crate) keys_for: Duration,
}

impl Default for History {
    fn default() -> Self {
        let worker = worker::Config::default();
        Self { url: None, seal_after: worker.seal_after, keys_for: worker.keys_for }
    }
}

/// What is kept of jobs that have ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Jobs {
    /// `none`, `failures` (failed runs; jobs that were given up or cancelled) or `all`.
    pub(crate) history: JobHistory,
    /// It is dropped at this age, by whole days; at least one.
    #[serde(deserialize_with = "days")]
    pub(crate) keep_history: Duration,
}

impl Default for Jobs {
    fn default() -> Self {
        let keep_history = worker::Config::default().keep_job_history;
        Self { history: JobHistory::default(), keep_history }
    }
}

/// How much is kept of jobs that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobHistory {
    /// Nothing.
    None,
    /// Failures.
    #[default]
    Failures,
    /// All of them.
    All,
}

impl From<JobHistory> for store::JobHistory {
    fn from(history: JobHistory) -> Self {
        match history {
            JobHistory::None => Self::None,
            JobHistory::Failures => Self::Failures,
            JobHistory::All => Self::All,
        }
    }
}

/// Log output.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// `auto` (pretty on a terminal, else JSON), `pretty` or `json`.
    pub(crate) format: LogFormat,
    /// A filter such as `info` or `worker=debug,info`.
    pub(crate) level: Option<String>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// For programs.
    Json,
}

impl Config {
    /// Reads the configuration. Without `file`, `tallylight.toml` is read where it exists.
    ///
    /// # Errors
    /// Where a file named by hand is missing, a key is unknown, or a value is wrong; the message
    /// names the key and where it was set.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self> {
        let file = match file {
            Some(path) if !path.exists() => bail!("read {}: no such file", path.display()),
            Some(path) => path.to_owned(),
            None => PathBuf::from("tallylight.toml"),
        };
        let config: Self = Figment::new()
            .merge(Toml::file(file))
            .merge(Env::prefixed("TALLYLIGHT__").split("__"))
            .extract()
            .context("read the configuration")?;
        config.check_sources().context("read the configuration")?;
        Ok(config)
    }

    /// The kinds of jobs that can be enqueued: Tallylight's own and this program's.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let ours = worker::jobs::KINDS.into_iter();
        ours.chain(self.handlers.kinds()).map(ToOwned::to_owned).collect()
    }

    /// Whether a worker of this program runs jobs of `kind`.
    pub(crate) fn knows(&self, kind: &str) -> bool {
        worker::jobs::knows(kind) || self.handlers.kinds().any(|own| own == kind)
    }

    /// The database's address from the configuration or `DATABASE_URL`; `None`: managed.
    pub(crate) fn database_url(&self) -> Result<Option<SecretString>> {
        let database = &self.database;
        if let Some(url) = secret(database.url.as_ref(), database.url_file.as_ref())? {
            return Ok(Some(url));
        }
        Ok(environment("DATABASE_URL").filter(|url| !url.is_empty()).map(SecretString::from))
    }

    /// How long sessions wait for what, and how many of each source run at a time.
    pub(crate) fn policy(&self) -> Policy {
        let slots = |s: &Source| Some((s.name.clone(), s.active_streams?.get()));
        let slots = self.sources.iter().filter_map(slots).collect();
        Policy { slots, ..self.session.policy() }
    }

    /// The sealing key, if one is configured.
    pub(crate) fn sealing_key(&self) -> Result<Option<store::SealingKey>> {
        let text = secret(self.sealing.key.as_ref(), self.sealing.key_file.as_ref())?;
        text.map(|text| {
            let bytes = digest(text.expose_secret()).context("read sealing.key")?;
            Ok(store::SealingKey::new(bytes))
        })
        .transpose()
    }
}

/// A secret given by itself or in a file; white space around it is not part of it.
pub(crate) fn secret(
    value: Option<&SecretString>,
    file: Option<&PathBuf>,
) -> Result<Option<SecretString>> {
    match (value, file) {
        (Some(_), Some(path)) => {
            bail!("a secret is given twice, by itself and in {}: keep one", path.display())
        }
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read the secret in {}", path.display()))?;
            Ok(Some(SecretString::from(text.trim().to_owned())))
        }
        (None, None) => Ok(None),
    }
}

/// 32 bytes from 64 hexadecimal digits.
pub(crate) fn digest(text: &str) -> Result<[u8; 32]> {
    let text = text.trim();
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        bail!("64 hexadecimal digits are needed, here are {} characters", text.chars().count());
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).context("not hexadecimal")?;
    }
    Ok(bytes)
}

/// Hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An environment variable that is not ours, such as `DATABASE_URL`.
#[expect(clippy::disallowed_methods, reason = "this file is the one reader of the environment")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("\"{text}\" is no duration such as 20s: {error}"))
    })
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let age = duration(deserializer)?;
    if age < Duration::from_hours(24) {
        return Err(serde::de::Error::custom("at least 1 day is needed: whole days are dropped"));
    }
    Ok(age)
}

fn key_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let age = duration(deserializer)?;
    if age < store::MIN_KEY_AGE {
        let why = "at least 7 days are needed: retries and spools need their keys";
        return Err(serde::de::Error::custom(why));
    }
    Ok(age)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str) -> Result<Config> {
        Figment::new().merge(Toml::string(toml)).extract().context("read")
    }

    #[test]
    fn durations_are_written_for_people() {
        let config = parse("[session]\ngrace = \"45s\"\n").unwrap();
        assert_eq!(config.session.grace, Duration::from_secs(45));
        assert!(parse("[session]\ngrace = \"soon\"\n").is_err());
    }

    #[test]
    fn history_is_kept_for_ever_unless_told_and_keys_for_a_week_at_least() {
        let config = parse("").unwrap();
        assert_eq!(config.history.seal_after, None);
        let config =
            parse("[history]\nseal_after = \"13 months\"\nkeys_for = \"7 days\"\n").unwrap();
        assert!(config.history.seal_after.unwrap() > Duration::from_hours(395 * 24));
        assert_eq!(config.history.keys_for, Duration::from_hours(7 * 24));
        let error = format!("{:#}", parse("[history]\nkeys_for = \"6 days\"\n").unwrap_err());
        assert!(error.contains("7 days"), "{error}");
    }

    #[test]
    fn failures_of_jobs_are_kept_unless_told_otherwise_and_for_a_day_at_least() {
        assert_eq!(parse("").unwrap().jobs.history, JobHistory::Failures);
        let config = parse("[jobs]\nhistory = \"all\"\nkeep_history = \"2 days\"\n").unwrap();
        assert_eq!(config.jobs.history, JobHistory::All);
        assert_eq!(config.jobs.keep_history, Duration::from_hours(48));
        assert!(parse("[jobs]\nkeep_history = \"1 h\"\n").is_err());
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = format!("{:#}", parse("[ingest]\nlisten_on = \"x\"\n").unwrap_err());
        assert!(error.contains("listen_on"), "{error}");
    }

    #[test]
    fn secrets_never_show() {
        let config = parse("[[sources]]\nname = \"a\"\ntoken = \"123_secret\"\n").unwrap();
        assert!(!format!("{config:?}").contains("123_secret"));
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(digest(&"0f".repeat(32)).unwrap(), [15; 32]);
        assert!(digest("0f").is_err());
        assert!(digest(&"zz".repeat(32)).is_err());
    }
}
