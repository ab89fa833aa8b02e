//! Videos by their ids, many with one request. Absence is never concluded from it: what a list does
//! not show is told as missing, which leads to a GET.

use std::collections::BTreeSet;

use domain::ids::VideoId;
use domain::reconcile::VideoSigns;
use domain::webhook;
use platform::{Client, VideoFilter};

/// Videos asked for at once: their ids fit in an address.
pub(super) const AT_ONCE: usize = 100;

/// What the platform shows of at most [`AT_ONCE`] videos.
pub(super) async fn signs_of(
    platform: &Client,
    ids: &[VideoId],
) -> Result<Vec<VideoSigns>, platform::Error> {
    let filter = VideoFilter {
        ids: Some(ids.iter().map(|id| id.0).collect()),
        per_page: u32::try_from(ids.len()).ok(),
        ..VideoFilter::default()
    };
    let mut left: BTreeSet<VideoId> = ids.iter().copied().collect();
    let mut signs = Vec::new();
    let mut pages = platform.videos(&filter);
    // As many pages as there can be rows, for a platform that does not know the filter.
    for _ in 0..=ids.len() {
        let Some(rows) = pages.next_page().await? else { break };
        let seen = rows.iter().filter_map(|row| webhook::video(&row.observed()));
        signs.extend(seen.filter(|seen| left.remove(&seen.id)).map(|seen| VideoSigns::of(&seen)));
        if left.is_empty() {
            break;
        }
    }
    signs.extend(left.into_iter().map(VideoSigns::missing));
    Ok(signs)
}
