//! What a worker process of a story calls: the database and the platform, until it dies.
//!
//! A *dead* process is one whose calls are never answered any more: neither arrives what it sends
//! from then on. What it had sent to the platform before stays done.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use platform::testing::{Exchange, Received, Sent, Transport};
use simulator::testing::{Asked, Outcome};
use store::testing::{Fate, Line};
use tokio::time::sleep;

use super::platform::Shared;

/// Time of a request to the platform, and of its answer.
const ON_THE_WAY: Duration = Duration::from_millis(20);

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the dead wait.
const FOR_EVER: Duration = Duration::from_hours(1_000_000);

/// Whether a process lives.
#[derive(Debug, Clone, Default)]
pub(super) struct Life(Arc<AtomicBool>);

impl Life {
    pub(super) fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Line for Life {
    fn fate(&self, _: &'static str) -> Fate {
        if self.is_over() {
            return Fate::Answered { there: FOR_EVER, back: FOR_EVER };
        }
        Fate::AT_ONCE
    }

    fn hears(&self) -> bool {
        !self.is_over()
    }
}

/// The way from one process to the platform.
pub(super) struct Way {
    pub(super) life: Life,
    pub(super) platform: Shared,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Way {
    async fn make(&self, sent: Sent) -> Received {
        sleep(ON_THE_WAY).await;
        self.go_on().await;
        if self.platform.kills_before(&sent) {
            self.life.end();
            self.go_on().await;
        }
        let has_killed = self.platform.kills_after(&sent);
        let Sent { method, path, query, authorization, body } = sent;
        let outcome = self.platform.ask(Asked { method, path, query, authorization, body });
        if has_killed {
            self.life.end();
        }
        let Outcome::Answered { status, retry_after, body, late_ms } = outcome else {
            sleep(ON_THE_WAY).await;
            return Received::Unknown;
        };
        let late = Duration::from_millis(late_ms);
        sleep((ON_THE_WAY + late).min(PATIENCE)).await;
        self.go_on().await;
        if late >= PATIENCE {
            return Received::Unknown;
        }
        let retry_after = retry_after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
        Received::Answer { status, retry_after, body }
    }

    /// Goes on, unless the process is dead.
    async fn go_on(&self) {
        if self.life.is_over() {
            sleep(FOR_EVER).await;
        }
    }
}

impl Transport for Way {
    fn exchange(&self, sent: Sent) -> Exchange<'_> {
        Box::pin(async move {
            let _changing = self.platform.begins(&sent);
            self.make(sent).await
        })
    }
}

/// The content of a lock, whether or not somebody has panicked meanwhile.
pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
