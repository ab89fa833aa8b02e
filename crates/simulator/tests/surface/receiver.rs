//! A webhook receiver that keeps what it hears and lets a test wait for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What was heard, shared with the server's task.
#[derive(Default)]
struct Heard {
    bodies: Mutex<Vec<Value>>,
    headers: Mutex<Vec<HeaderMap>>,
    changed: Notify,
    /// Status to answer with; 0 is no answer at all.
    status: Mutex<u16>,
}

/// A receiver on a local port.
pub(crate) struct Receiver {
    pub(crate) url: String,
    heard: Arc<Heard>,
}

impl Receiver {
    /// Starts a receiver that answers every webhook with a status.
    pub(crate) async fn answering(status: u16) -> Self {
        let heard = Arc::new(Heard { status: Mutex::new(status), ..Heard::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(hear)).with_state(heard.clone());
        tokio::spawn(serve(listener, router));
        Self { url, heard }
    }

    /// Returns all bodies so far.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.heard.bodies.lock().unwrap().clone()
    }

    /// Returns the headers of all webhooks so far.
    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.heard.headers.lock().unwrap().clone()
    }

    /// Waits until a body passes a test, and returns it.
    pub(crate) async fn wait_for(&self, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        self.wait_after(0, what, test).await.1
    }

    /// Waits until a body passes a test, leaving out those heard earlier. Returns its index, too.
    pub(crate) async fn wait_after(
        &self,
        earlier: usize,
        what: &str,
        test: impl Fn(&Value) -> bool,
    ) -> (usize, Value) {
        let found = async {
            loop {
                let changed = self.heard.changed.notified();
                let bodies = self.bodies().into_iter().enumerate().skip(earlier);
                if let Some(found) = bodies.into_iter().find(|(_, body)| test(body)) {
                    return found;
                }
                changed.await;
            }
        };
        let Ok(found) = tokio::time::timeout(PATIENCE, found).await else {
            panic!("no webhook says {what}; heard {:#?}", self.bodies());
        };
        found
    }
}

/// Serves connections; a handler without an answer leaves its connection open.
async fn serve(listener: TcpListener, router: Router) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let router = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(&mut stream);
            let served = hyper::server::conn::http1::Builder::new().serve_connection(io, router);
            if served.await.is_ok() {
                let _ = stream.shutdown().await;
            }
        });
    }
}

async fn hear(State(heard): State<Arc<Heard>>, headers: HeaderMap, body: String) -> StatusCode {
    heard.bodies.lock().unwrap().push(serde_json::from_str(&body).unwrap());
    heard.headers.lock().unwrap().push(headers);
    heard.changed.notify_waiters();
    let status = *heard.status.lock().unwrap();
    if status == 0 {
        std::future::pending::<()>().await;
    }
    StatusCode::from_u16(status).unwrap()
}
