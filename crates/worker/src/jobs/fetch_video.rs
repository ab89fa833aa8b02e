//! Asks how a video is: the only place that tells its error and when its recording began.

use domain::call::CallResult;
use domain::ids::VideoId;

use super::{CallContext, JobError, deleted};

/// Asks. "Not found" is believed only when told again and again.
pub(super) async fn run(call: &CallContext<'_>, video: VideoId) -> Result<CallResult, JobError> {
    match call.platform.get_video(video.0).await {
        Ok(video) => Ok(CallResult::Video { observed: video.observed() }),
        Err(error) if error.is_not_found() && call.believes_not_found() => {
            let look = async || call.platform.get_video(video.0).await.map(drop);
            deleted::confirmed(&error, look).await?;
            Ok(CallResult::Gone)
        }
        Err(error) => Err(error.into()),
    }
}
