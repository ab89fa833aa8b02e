//! Waiting for a condition, with a deadline: no test sleeps for a time that somebody guessed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longest wait for anything: above the longest wait of the product that a test goes through, the
/// 30 s after which a full quota is tried again.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(15);

/// Waits until `condition` is some value and returns it.
pub(crate) async fn until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, condition).await
}

/// The same, where it may take `patience`.
pub(crate) async fn until_within<T>(
    patience: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begun.elapsed() < patience, "{patience:?} passed, and not: {what}");
        sleep(EVERY).await;
    }
}
