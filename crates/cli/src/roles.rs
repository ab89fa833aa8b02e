//! The roles of a process: ingest, API, worker. Each is started from the configuration and runs
//! until it is told to stop.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ingest::{BatchToken, Known, Lanes, PathToken, SourceTokens, SpoolDir};
use platform::{CreateBody, Credentials};
use secrecy::ExposeSecret;
use store::{SealingKey, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::config::{self, Config, Source};
use crate::serve::{self, Limits};
use crate::{database, lifecycle};

/// A server that runs.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Runs what serves `listener` in a task of its own.
    pub(crate) fn spawn<F>(
        listener: TcpListener,
        serve: impl FnOnce(TcpListener) -> F,
    ) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().context("read the address of a listener")?;
        Ok(Self { address, task: tokio::spawn(serve(listener)) })
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(self) {
        let _ = self.task.await;
    }
}

/// Locks the spool of this process.
///
/// # Errors
/// Where another process has it, or it cannot be made.
pub(crate) fn lock_spool(config: &Config) -> Result<SpoolDir> {
    let beside = || database::settings(config).data_dir.with_file_name("spool");
    let dir = config.ingest.spool_dir.clone().unwrap_or_else(beside);
    let max_bytes = config.ingest.spool_limit;
    let settings = ingest::spool::Config { max_bytes, ..ingest::spool::Config::new(dir) };
    SpoolDir::lock(settings).context("open the spool")
}

/// Starts the webhook endpoint.
///
/// # Errors
/// Where a source has no webhook token, the spool cannot be opened, or the address not be bound.
pub(crate) async fn start_ingest(
    config: &Config,
    store: Store,
    spool: SpoolDir,
    admin: &mut Admin,
    stop: CancellationToken,
) -> Result<Server> {
    let settings = ingest::Config {
        listen: config.ingest.listen,
        body_limit: config.ingest.body_limit,
        max_connections: config.ingest.max_connections,
        trusted_proxies: networks(&config.ingest.trusted_proxies, "ingest.trusted_proxies")?,
        sources: config.sources.iter().map(source_tokens).collect::<Result<_>>()?,
        batch_tokens: config.ingest.tokens.iter().map(batch_token).collect::<Result<_>>()?,
        ..ingest::Config::default()
    };
    let limits = Limits {
        header_timeout: settings.header_timeout,
        max_connections: settings.max_connections,
        ..Limits::default()
    };
    lifecycle::check_file_limit(limits.max_connections);
    let known = Known { installation: store.installation(), slices: store.slices() };
    let metrics = Arc::new(ingest::Metrics::new());
    metrics.register(admin.registry());
    let spool = spool.open(known, Arc::clone(&metrics)).context("open the spool")?;
    let spool_after = config.ingest.spool_after;
    let patience = ingest::lanes::Config { spool_after, ..ingest::lanes::Config::default() };
    let lanes = Lanes::start(store.clone(), store.notifier(), spool, metrics, patience);
    check_lanes(admin, &lanes, settings.max_queue_age);
    let endpoint = ingest::Ingest::new(settings, store, lanes.clone(), stop.clone())
        .context("set up the webhook endpoint")?;
    let router = ingest::router(endpoint);
    let drain_delay = config.ingest.drain_delay;
    let listener = bind(config.ingest.listen, "ingest.listen").await?;
    Server::spawn(listener, |listener| async move {
        let accepting = delayed(stop, drain_delay);
        serve::serve(listener, router, limits, accepting).await;
        // What was acknowledged is stored; what waits is stored before the process ends.
        lanes.drain().await;
    })
}

/// Adds what ingest's readiness depends on.
fn check_lanes(admin: &mut Admin, lanes: &Lanes, longest: Duration) {
    let queues = lanes.clone();
    admin.check("queue", move || {
        let waiting = queues.oldest();
        let told = format!("an event has waited {waiting:?} to be kept");
        std::future::ready(if waiting <= longest { Ok(()) } else { Err(told) })
    });
    let lanes = lanes.clone();
    admin.check("spool", move || {
        let told = "it is full or its disk fails".to_owned();
        // What the database takes needs no spool: of a failure before that nothing is left.
        let is_needed = lanes.is_spooling();
        std::future::ready(if is_needed && lanes.is_spool_failing() { Err(told) } else { Ok(()) })
    });
}

/// Starts the API.
///
/// # Errors
/// Where no token is configured: the API answers nobody without one.
pub(crate) async fn start_api(
    config: &Config,
    store: Store,
    key: Option<SealingKey>,
    admin: &mut Admin,
    stop: CancellationToken,
) -> Result<Server> {
    if config.api.tokens.is_empty() {
        bail!(
            "start the API: no token is configured. Make one with `tallylight token new`, and put \
             its digest under [[api.tokens]] with the scopes it needs"
        );
    }
    let settings = api::Config {
        tokens: config.api.tokens.iter().map(api_token).collect::<Result<_>>()?,
        sources: config.sources.iter().map(|source| source.name.clone()).collect(),
        regions: config.region_rules(),
        known_kinds: config.kinds(),
        sealing_key: key,
        plain_endpoints: config.webhooks.private,
        ..api::Config::default()
    };
    let notifier = store.notifier();
    let api = api::Api::new(store.clone(), notifier, settings).context("set up the API")?;
    api.metrics().register(admin.registry());
    admin.check_database(&store);
    let (streams, stopping) = (api.clone(), stop.clone());
    tokio::spawn(async move {
        stopping.cancelled().await;
        streams.end_streams();
    });
    let router = api::router(api);
    let listener = bind(config.api.listen, "api.listen").await?;
    Server::spawn(listener, |listener| serve::serve(listener, router, Limits::default(), stop))
}

/// Starts the worker.
///
/// # Errors
/// Where no sealing key is configured, a source has no credentials, or a place to call, a secret or
/// a rate cannot be used.
pub(crate) fn start_worker(
    config: &Config,
    store: Store,
    key: SealingKey,
    admin: &mut Admin,
) -> Result<worker::Worker> {
    admin.check_database(&store);
    store.history_metrics().register(admin.registry());
    let mut platforms = HashMap::new();
    for source in &config.sources {
        let client = platform::Client::new(platform_config(source)?)
            .with_context(|| format!("set up source \"{}\"", source.name))?;
        platforms.insert(source.name.clone(), client);
    }
    let settings = worker::Config {
        lease: config.worker.lease,
        poll: config.worker.poll,
        concurrency: config.worker.concurrency,
        grace: config.worker.grace,
        policy: config.policy(),
        seal_after: config.history.seal_after,
        keys_for: config.history.keys_for,
        keep_job_history: config.jobs.keep_history,
        outbound: config.outbound()?,
        endpoints: endpoints(config),
        disable_endpoints_after: Some(config.webhooks.disable_after)
            .filter(|after| !after.is_zero()),
        rates: config.rates()?,
        cleanup: config.cleanup_rules(),
        handlers: config.handlers.clone(),
        sample_every: Some(config.worker.sample_every).filter(|every| !every.is_zero()),
        verify_every: Some(config.worker.verify_every).filter(|every| !every.is_zero()),
        ..worker::Config::default()
    };
    let worker = worker::Worker::start(worker::Context::new(store, platforms, key, settings));
    let context = worker.context().clone();
    context.metrics().register(admin.registry());
    let noting = context.clone();
    admin.notes("slices", move || noting.health().notes);
    admin.check("slices", move || std::future::ready(well(&context.health())));
    Ok(worker)
}

/// Where messages may be sent; nowhere, where the machine lacks what TLS needs: sessions run all the
/// same, and messages wait.
fn endpoints(config: &Config) -> platform::outbound::Outbound {
    config.endpoints().unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "no webhooks can be sent from here");
        platform::outbound::Outbound::default()
    })
}

/// What a worker complains of, in one line.
fn well(health: &worker::Health) -> Result<(), String> {
    if health.is_well() {
        return Ok(());
    }
    let complaints: Vec<String> = health.complaints.iter().map(ToString::to_string).collect();
    Err(complaints.join("; "))
}

/// A token that is cancelled some time after `stop`.
fn delayed(stop: CancellationToken, delay: Duration) -> CancellationToken {
    let later = CancellationToken::new();
    let token = later.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        tokio::time::sleep(delay).await;
        token.cancel();
    });
    later
}

/// Binds an address; `key` is what the configuration calls it.
pub(crate) async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}: choose another {key}"))
}

fn networks(texts: &[String], key: &str) -> Result<Vec<ingest::Cidr>> {
    let parse = |text: &String| text.parse().with_context(|| format!("read {key} \"{text}\""));
    texts.iter().map(parse).collect()
}

fn source_tokens(source: &Source) -> Result<SourceTokens> {
    let name = &source.name;
    let mut tokens = Vec::new();
    for (at, token) in source.webhook_tokens.iter().enumerate() {
        let given = config::secret(token.token.as_ref(), token.token_file.as_ref())?;
        let mut path_token = match (&given, &token.sha256) {
            (Some(secret), None) => PathToken::of(secret.expose_secret())
                .with_context(|| format!("read a webhook token of source \"{name}\""))?,
            (None, Some(sha256)) => PathToken::of_digest(
                config::digest(sha256)
                    .with_context(|| format!("read a webhook token of source \"{name}\""))?,
            ),
            _ => {
                bail!("a webhook token of source \"{name}\" needs one of token, token_file, sha256")
            }
        };
        path_token.name = token.name(at);
        path_token.not_after = token.not_after;
        tokens.push(path_token);
    }
    let networks = networks(&source.allow_from, "sources.allow_from")?;
    Ok(SourceTokens { source: name.clone(), tokens, networks })
}

fn batch_token(token: &config::BatchToken) -> Result<BatchToken> {
    let name = &token.name;
    let given = config::secret(token.token.as_ref(), token.token_file.as_ref())?;
    let mut secret = match (&given, &token.sha256) {
        (Some(secret), None) => PathToken::of(secret.expose_secret())
            .with_context(|| format!("read the ingest token \"{name}\""))?,
        (None, Some(sha256)) => PathToken::of_digest(config::digest(sha256)?),
        _ => bail!("the ingest token \"{name}\" needs one of token, token_file, sha256"),
    };
    secret.not_after = token.not_after;
    Ok(BatchToken { name: name.clone(), token: secret, sources: token.sources.clone() })
}

fn api_token(token: &config::ApiToken) -> Result<api::Token> {
    let name = &token.name;
    let scopes = token
        .scopes
        .iter()
        .map(|scope| scope.parse().with_context(|| format!("read a scope of API token \"{name}\"")))
        .collect::<Result<_>>()?;
    let given = config::secret(token.token.as_ref(), token.token_file.as_ref())?;
    let mut api_token = match (&given, &token.sha256) {
        (Some(secret), None) => api::Token::of(name, secret.expose_secret(), scopes),
        (None, Some(sha256)) => api::Token {
            name: name.clone(),
            sha256: config::digest(sha256)?,
            scopes,
            not_after: None,
        },
        _ => bail!("API token \"{name}\" needs one of token, token_file, sha256"),
    };
    api_token.not_after = token.not_after;
    Ok(api_token)
}

fn platform_config(source: &Source) -> Result<platform::Config> {
    let name = &source.name;
    let password = config::secret(source.password.as_ref(), source.password_file.as_ref())?;
    let credentials = match (&source.token, &source.token_file, &source.username, password) {
        (Some(token), None, None, None) => Credentials::Token(token.clone()),
        // Read by the client, again and again: whoever rotates the token restarts nothing.
        (None, Some(path), None, None) => Credentials::TokenFile(path.clone()),
        (None, None, Some(username), Some(password)) => {
            Credentials::Password { username: username.clone(), password }
        }
        _ => {
            bail!("source \"{name}\" needs either token (or token_file), or username and password")
        }
    };
    let mut settings = platform::Config::new(&source.base_url, credentials);
    if source.wrap_create {
        settings.create_body = CreateBody::Wrapped;
    }
    Ok(settings)
}
