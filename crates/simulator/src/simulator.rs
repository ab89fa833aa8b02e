//! A running simulator: starts it, drives it from the same process, ends it.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;

use crate::shared::Shared;
use crate::world::{Action, Line};
use crate::{
    Behaviour, Config, ControlError, Encoders, Error, Faults, Mishap, RequestLogEntry,
    WebhookLogEntry, control, http,
};

/// A pretend platform on a local port. Dropping it ends it, without waiting.
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    _ends_on_drop: DropGuard,
}

impl Simulator {
    /// Binds the address and starts to serve on the current tokio runtime.
    ///
    /// # Errors
    /// The address is not loopback and that is not allowed, cannot be bound, or the time scale is not
    /// a positive number.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let listen = config.listen;
        if !config.allow_remote && !listen.ip().to_canonical().is_loopback() {
            return Err(Error::NotLoopback { listen });
        }
        if !(config.time_scale.is_finite() && config.time_scale > 0.0) {
            return Err(Error::TimeScale { time_scale: config.time_scale });
        }
        let client = webhook_client(&config)?;
        let bind = |source| Error::Bind { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;

        let shared = Arc::new(Shared::new(&config));
        let control = control::router(shared.clone());
        shared.tasks.spawn(http::serve(listener, shared.clone(), control));
        let timekeeper = shared.clone();
        shared.tasks.spawn(async move { timekeeper.keep_time().await });
        let sender = shared.clone();
        shared.tasks.spawn(async move { sender.deliveries.run(&client, &sender.shutdown).await });
        tracing::info!(%address, seed = config.seed, "simulator is listening");
        let ends_on_drop = shared.shutdown.clone().drop_guard();
        Ok(Self { address, shared, _ends_on_drop: ends_on_drop })
    }

    /// Returns the address of the API, e.g. `http://127.0.0.1:40001`, without a final slash.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes where webhooks go, from the next one on; `None` drops them with a note in the log.
    pub fn set_webhook_url(&self, url: Option<String>) {
        self.shared.deliveries.set_url(url);
    }

    /// Connects an encoder to the primary line; `live:true` follows about a nominal second later.
    ///
    /// # Errors
    /// No such stream, inactive, connected already.
    pub fn push(&self, stream_id: i64) -> Result<(), ControlError> {
        self.encoder(stream_id, Line::Primary, Action::Push)
    }

    /// Lets the encoder's connection break: media ends now, `live` falls 3 nominal seconds later.
    ///
    /// # Errors
    /// No such stream, not connected.
    pub fn drop_connection(&self, stream_id: i64) -> Result<(), ControlError> {
        self.encoder(stream_id, Line::Primary, Action::Drop)
    }

    /// Lets the encoder come back after a break.
    ///
    /// # Errors
    /// No such stream, inactive, connected already.
    pub fn return_connection(&self, stream_id: i64) -> Result<(), ControlError> {
        self.encoder(stream_id, Line::Primary, Action::Push)
    }

    /// Lets the encoder end properly: `live` falls at once.
    ///
    /// # Errors
    /// No such stream, not connected.
    pub fn stop(&self, stream_id: i64) -> Result<(), ControlError> {
        self.encoder(stream_id, Line::Primary, Action::Stop)
    }

    /// Connects an encoder to the backup line, shown as `backup_live`.
    ///
    /// # Errors
    /// No such stream, inactive, connected already.
    pub fn push_backup(&self, stream_id: i64) -> Result<(), ControlError> {
        self.encoder(stream_id, Line::Backup, Action::Push)
    }

    /// Lets the backup encoder end properly.
    ///
    /// # Errors
    /// No such stream, not connected.
    pub fn stop_backup(&self, stream_id: i64) -> Result<(), ControlError> {
        self.encoder(stream_id, Line::Backup, Action::Stop)
    }

    /// Returns the last 20 000 requests of the API in the order of their arrival, without secrets.
    pub fn requests(&self) -> Vec<RequestLogEntry> {
        self.shared.requests.all()
    }

    /// Returns the last 20 000 webhooks whose turn has come, in that order, as they were sent: the
    /// `uri` of a stream holds its push token. Lost ones are among them, with their outcome.
    pub fn webhooks(&self) -> Vec<WebhookLogEntry> {
        self.shared.deliveries.log.all()
    }

    /// Replaces all faults; `Faults::default()` ends them.
    pub fn faults(&self, faults: Faults) {
        self.shared.set_faults(faults);
    }

    /// Lets something happen that platform or people do by themselves: to the named stream, or to
    /// one that chance picks. Returns whether there was anything that it could happen to.
    pub fn strike(&self, mishap: Mishap, stream_id: Option<i64>) -> bool {
        self.shared.with_world(|world, now| world.mishap(now, mishap, stream_id)).0
    }

    /// Changes the encoders that come by themselves; `None`: nobody does.
    pub fn encoders(&self, encoders: Option<Encoders>) {
        self.shared.with_world(|world, _| world.set_encoders(encoders));
    }

    /// Returns what really happened: the run, then each stream, as the lines of `GET /_truth`.
    pub fn truth(&self) -> Vec<Value> {
        control::truth_of(&self.shared, 0, usize::MAX)
    }

    /// Replaces all switches; what is planned already stays planned.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.with_world(|world, _| world.behave(behaviour));
    }

    /// Returns the state of the world without secrets, as `GET /_control/state` does.
    pub fn state(&self) -> Value {
        control::current_state(&self.shared)
    }

    /// Ends the simulator: cuts all connections and returns when nothing of it runs any more.
    pub async fn shutdown(self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Does an encoder's action.
    fn encoder(&self, stream_id: i64, line: Line, action: Action) -> Result<(), ControlError> {
        self.shared.with_world(|world, now| world.encoder(now, stream_id, line, action)).0
    }
}

/// Makes the client that sends webhooks: no proxy, no redirects, one time-out for everything.
fn webhook_client(config: &Config) -> Result<reqwest::Client, Error> {
    // Fails if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(config.webhook_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|source| Error::HttpClient { source })
}
