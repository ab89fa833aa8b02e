//! Asks the statistics of a live stream when its encoder sent: the only place that still knows of
//! times that came and went unheard.

use std::time::Duration;

use domain::call::CallResult;
use domain::cleanup::air_times;
use domain::ids::LiveStreamId;
use platform::Span;

use super::{CallContext, JobError};

/// The interval of the platform's own example, and the shortest that its documentation shows.
const INTERVAL: Duration = Duration::from_secs(10);

/// Asks. Statistics that are not found tell nothing.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    span: Span,
) -> Result<CallResult, JobError> {
    let samples = match call.platform.probe_stream(live_stream.0, span, INTERVAL).await {
        Err(error) if error.is_not_found() => Vec::new(),
        samples => samples?,
    };
    let samples = samples.into_iter().filter_map(|sample| Some((sample.time?, sample.avg_bitrate)));
    let times = air_times(samples, INTERVAL);
    Ok(CallResult::AirTimes { times, precision_s: INTERVAL.as_secs() })
}
