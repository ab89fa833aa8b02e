//! What the demonstration runs on: a database of its own, the simulated platform, ingest and API
//! in this process, the worker as a child, so that it can be killed.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use simulator::{Behaviour, Simulator};
use store::{SealingKey, Store};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::show;
use super::story::Story;
use crate::admin::Admin;
use crate::cli::Demo;
use crate::config::Config;
use crate::database::{self, start_cluster};
use crate::home::random_secret;
use crate::http::Client;
use crate::output::say;
use crate::roles::{self, Server};

/// The demonstration's source.
pub(crate) const SOURCE: &str = "demo";

/// Databases of demonstrations begin with this.
const DATABASE_PREFIX: &str = "tallylight_demo_";

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) store: Store,
    pub(crate) simulator: Simulator,
    pub(crate) api: Client,
    database: store::Config,
    /// `None`: the database is somebody else's.
    cluster: Option<postgres::Cluster>,
    config_file: PathBuf,
    /// What opens personal values, to show them.
    pub(crate) sealing_key: Option<SealingKey>,
    spool: PathBuf,
    worker: Mutex<Child>,
    servers: Vec<Server>,
    stop: CancellationToken,
    token: String,
}

impl Stage {
    /// Starts everything. `DATABASE_URL` plays no part.
    pub(crate) async fn set(options: &Demo, told: Option<&Story>) -> Result<Self> {
        show::line("Starting PostgreSQL, a simulated platform, ingest, API and worker ..");
        let (cluster, database) = find_database(options).await?;
        let store = Store::connect(&database).await.context("connect to the database")?;
        let platform_token = format!("1_{}", random_secret());
        let simulator = Simulator::start(simulator::Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: options.seed,
            time_scale: options.speed,
            legacy_broadcast_webhooks: true,
            token: Some(platform_token.clone()),
            active_quota: told
                .and_then(|story| story.quota)
                .unwrap_or(simulator::Config::default().active_quota),
            behaviour: told.map_or_else(Behaviour::default, |story| story.platform.clone()),
            ..simulator::Config::default()
        })
        .await
        .context("start the simulated platform")?;

        let (token, path_secret) = (random_secret(), random_secret());
        let secrets = Secrets { platform_token, api: token.clone(), path: path_secret.clone() };
        let spool = std::env::temp_dir().join(format!("tallylight-demo-{}", random_secret()));
        let text = config_text(options, &database, &simulator.base_url(), &secrets, &spool);
        let config_file = write_config(&text)?;
        let config = Config::load(Some(&config_file))?;
        let stop = CancellationToken::new();
        // The demonstration has no operator: what is counted is told to nobody.
        let mut admin = Admin::new();
        let locked = roles::lock_spool(&config)?;
        let ingest =
            roles::start_ingest(&config, store.clone(), locked, &mut admin, stop.clone()).await?;
        let key = config.sealing_key()?;
        let api =
            roles::start_api(&config, store.clone(), key.clone(), &mut admin, stop.clone()).await?;
        let hook = format!("http://{}/webhooks/{SOURCE}/{path_secret}", ingest.address);
        simulator.set_webhook_url(Some(hook));
        let client = Client::new(api.address, token.clone());
        let worker = Mutex::new(start_worker(&config_file)?);
        let servers = vec![ingest, api];
        Ok(Self {
            store,
            simulator,
            api: client,
            database,
            cluster,
            config_file,
            sealing_key: key,
            spool,
            worker,
            servers,
            stop,
            token,
        })
    }

    /// Kills the worker as hard as a machine can die.
    pub(crate) async fn kill_worker(&self) -> Result<()> {
        self.worker.lock().await.kill().await.context("kill the worker")
    }

    /// Kills the worker and starts another.
    pub(crate) async fn replace_worker(&self) -> Result<()> {
        self.kill_worker().await?;
        *self.worker.lock().await = start_worker(&self.config_file)?;
        Ok(())
    }

    /// Says how to go on by hand.
    pub(crate) fn invite(&self) {
        let api = self.servers.last().map_or_else(String::new, |server| server.address.to_string());
        if let Ok(mut worker) = self.worker.try_lock()
            && let Ok(child) = start_worker(&self.config_file)
        {
            *worker = child;
        }
        say("");
        say("Everything goes on running, with a new worker. Try a session of your own:");
        say("");
        say(format!("  export API=http://{api} TOKEN={}", self.token));
        say("  curl -s $API/v1/sessions -H \"Authorization: Bearer $TOKEN\" \\");
        say(
            "       -H 'Idempotency-Key: mine-1' -H 'Content-Type: application/json' -d '{\"name\":\"mine\"}'",
        );
        say("  curl -s $API/v1/sessions -H \"Authorization: Bearer $TOKEN\"");
        say(format!(
            "  curl -s -X POST {}/_control/streams/ID/push   # the encoder connects",
            self.simulator.base_url()
        ));
        say("");
        say("Ctrl-C ends it.");
    }

    /// Stops everything and removes the demonstration's database.
    pub(crate) async fn clear(self) -> Result<()> {
        let mut worker = self.worker.into_inner();
        if worker.try_wait()?.is_none() {
            worker.kill().await.context("kill the worker")?;
        }
        self.stop.cancel();
        for server in self.servers {
            server.stopped().await;
        }
        self.simulator.shutdown().await;
        self.store.close().await;
        let _ = std::fs::remove_file(&self.config_file);
        let _ = std::fs::remove_dir_all(&self.spool);
        if let Some(cluster) = self.cluster {
            let dropped = store::drop_database(&self.database).await;
            dropped.context("drop the demonstration's database")?;
            tokio::task::spawn_blocking(move || cluster.stop()).await??;
        }
        Ok(())
    }
}

/// Secrets made for one demonstration.
struct Secrets {
    platform_token: String,
    api: String,
    path: String,
}

/// The database that was named, else a new one on the managed cluster.
async fn find_database(options: &Demo) -> Result<(Option<postgres::Cluster>, store::Config)> {
    if let Some(url) = &options.database {
        return Ok((None, store::Config::new(url.clone())));
    }
    let cluster = start_cluster(database::settings(&Config::default())).await?;
    let database = fresh_database(&cluster).await?;
    store::migrate(&database, None).await.context("migrate the database")?;
    Ok((Some(cluster), database))
}

/// A new database; those that earlier demonstrations left behind are dropped.
async fn fresh_database(cluster: &postgres::Cluster) -> Result<store::Config> {
    let server = store::Config::new(cluster.url("postgres"));
    for left in store::idle_databases(&server, DATABASE_PREFIX).await? {
        // Another demonstration may be dropping it too.
        let _ = store::drop_database(&store::Config::new(cluster.url(&left))).await;
    }
    let name = format!("{DATABASE_PREFIX}{}", std::process::id());
    let config = store::Config::new(cluster.url(&name));
    store::create_database(&config).await.context("create the demonstration's database")?;
    Ok(config)
}

/// The configuration of the demonstration's worker, and of its servers.
fn config_text(
    options: &Demo,
    database: &store::Config,
    platform: &str,
    secrets: &Secrets,
    spool: &Path,
) -> String {
    use secrecy::ExposeSecret;
    let policy = domain::timer::Policy::default().scaled(options.speed);
    let duration = |d| humantime::format_duration(d).to_string();
    format!(
        "[database]\nurl = \"{url}\"\n\
         [ingest]\nlisten = \"127.0.0.1:0\"\nspool_dir = \"{spool}\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[api.tokens]]\nname = \"demo\"\ntoken = \"{api}\"\nscopes = [\"admin\"]\n\
         [sealing]\nkey = \"{key}\"\n\
         [session]\ngrace = \"{grace}\"\nsettle = \"{settle}\"\nslot = \"{slot}\"\nwatch = \"{watch}\"\nvideos = \"{videos}\"\nsweep = \"{sweep}\"\n\
         [[sources]]\nname = \"{SOURCE}\"\nbase_url = \"{platform}\"\ntoken = \"{token}\"\n\
         [[sources.webhook_tokens]]\ntoken = \"{path}\"\n",
        url = database.url.expose_secret(),
        api = secrets.api,
        key = random_secret(),
        grace = duration(policy.grace),
        settle = duration(policy.settle),
        slot = duration(policy.slot),
        watch = duration(policy.watch),
        videos = duration(policy.videos),
        sweep = duration(policy.sweep),
        token = secrets.platform_token,
        path = secrets.path,
        spool = spool.display(),
    )
}

/// Writes the configuration where only we can read it.
fn write_config(text: &str) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("tallylight-demo-{}.toml", random_secret()));
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn start_worker(config: &std::path::Path) -> Result<Child> {
    let program = std::env::current_exe().context("find this program")?;
    Command::new(program)
        .arg("--config")
        .arg(config)
        .arg("worker")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start the worker")
}
