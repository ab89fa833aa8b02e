//! Counters in the log: what a server counted, once a minute where it changed, and when it stops.

use std::fmt::Debug;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often.
const EVERY: Duration = Duration::from_mins(1);

/// Logs what `read` tells until `stop`, and once more then.
pub(crate) fn log<T: Debug + PartialEq + Send + 'static>(
    what: &'static str,
    read: impl Fn() -> T + Send + 'static,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let mut last = read();
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            let now = read();
            if now != last {
                tracing::info!(counters = ?now, "{what} counted");
                last = now;
            }
        }
    });
}
