//! What is not there any more on the platform. What it answers it does not know was deleted before,
//! or the answer is wrong in passing: that is asked for, and believed when it is not found either.

use platform::{Client, Disposition, Error};

use super::JobError;

/// Deletes a live stream, now or before.
pub(super) async fn live_stream(platform: &Client, id: i64) -> Result<(), JobError> {
    let deleted = platform.delete_stream(id).await;
    gone(deleted, async || platform.get_stream(id).await.map(drop)).await
}

/// Deletes a video, now or before.
pub(super) async fn video(platform: &Client, id: i64) -> Result<(), JobError> {
    let deleted = platform.delete_video(id).await;
    gone(deleted, async || platform.get_video(id).await.map(drop)).await
}

/// Deletes a broadcast, now or before.
pub(super) async fn broadcast(platform: &Client, id: i64) -> Result<(), JobError> {
    let deleted = platform.delete_broadcast(id).await;
    gone(deleted, async || platform.get_broadcast(id).await.map(drop)).await
}

async fn gone(
    deleted: Result<(), Error>,
    look: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<(), JobError> {
    match deleted {
        Err(error) if error.disposition() == Disposition::Done => confirmed(&error, look).await,
        deleted => Ok(deleted?),
    }
}

/// Looks whether what was not found, as `told`, is not there.
pub(super) async fn confirmed(
    told: &Error,
    look: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<(), JobError> {
    match look().await {
        Ok(()) => Err(JobError::retry(format!("{told}, and shows it"))),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
