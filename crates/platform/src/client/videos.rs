//! Videos: create, read, list, change, delete, upload.

use chrono::{DateTime, Utc};

use super::{Client, Pages, decode};
use crate::{
    Error, Operation,
    wire::{Upload, Video, VideoFields, VideoName},
};

/// Most videos that the platform takes at once.
pub const MOST_VIDEOS: usize = 500;

/// Videos of a live stream asked for at once. The largest page is not published; a smaller one is
/// walked on to its end all the same.
const PER_PAGE: u32 = 100;

/// Which videos are listed; `None` lists them whatever they are.
#[derive(Clone, Debug, Default)]
pub struct VideoFilter {
    /// Recorded from this live stream.
    pub stream_id: Option<i64>,
    /// `empty`, `pending`, `viewable`, `ready` or `error`.
    pub status: Option<String>,
    /// Of this user of the caller's.
    pub client_user_id: Option<i64>,
    /// Of this id, slug, or of this text in the name.
    pub search: Option<String>,
    /// One of these.
    pub ids: Option<Vec<i64>>,
    /// The fields that the answer is cut down to.
    pub fields: Option<String>,
    /// Rows on a page.
    pub per_page: Option<u32>,
}

impl Client {
    /// Creates a video. Twice called, it makes two: after [`crate::Disposition::Ambiguous`] look for
    /// its name first, by [`Pages::matching`]. `None` if the platform does not say which it made.
    pub async fn create_video(&self, new: &VideoFields) -> Result<Option<Video>, Error> {
        let operation = Operation::CreateVideo;
        let secrets = new.origin_url.iter().chain(&new.origin_http_headers);
        let answer = self.to(operation).fields(new).hiding(secrets).send().await?;
        // The OpenAPI file has a list, the platform's own library one video.
        if decode::value(operation, &answer)?.is_array() {
            return Ok(decode::list(operation, &answer, None)?.pop());
        }
        decode::optional(operation, &answer)
    }

    /// Creates many videos, at most [`MOST_VIDEOS`]. Twice called, it makes them twice.
    pub async fn create_videos(&self, new: &[VideoFields]) -> Result<Vec<Video>, Error> {
        let secrets =
            new.iter().flat_map(|one| one.origin_url.iter().chain(&one.origin_http_headers));
        self.to(Operation::CreateVideos).fields(&new).hiding(secrets).list().await
    }

    /// Reads a video: the only place of `error` and `updated_at`.
    pub async fn get_video(&self, id: i64) -> Result<Video, Error> {
        self.on(Operation::GetVideo, [id]).object_with_id(id).await
    }

    /// The videos of the account that pass a filter.
    pub fn videos(&self, filter: &VideoFilter) -> Pages<'_, Video> {
        self.to(Operation::ListVideos)
            .query_if("id", filter.ids.as_deref().map(joined))
            .query_if("stream_id", filter.stream_id)
            .query_if("status", filter.status.as_ref())
            .query_if("client_user_id", filter.client_user_id)
            .query_if("search", filter.search.as_ref())
            .query_if("fields", filter.fields.as_ref())
            .query_if("per_page", filter.per_page)
            .pages()
    }

    /// All videos recorded from a live stream. One that is not in the result may exist, though on a
    /// page as large as this there are few live streams whose videos could shift past the reader.
    pub async fn videos_of_stream(&self, stream_id: i64) -> Result<Vec<Video>, Error> {
        let filter = VideoFilter {
            stream_id: Some(stream_id),
            per_page: Some(PER_PAGE),
            ..VideoFilter::default()
        };
        let mut videos = self.videos(&filter).all().await?;
        // A platform that ignored the filter would hand out other people's videos as ours.
        videos.retain(|video| video.stream_id.is_none_or(|id| id == stream_id));
        Ok(videos)
    }

    /// The videos of a live stream whose recording began at or after `since`, in their order: what
    /// a stop left behind whose answer was lost.
    ///
    /// A video that tells no such time counts by when it was made.
    pub async fn videos_recorded(
        &self,
        stream_id: i64,
        since: DateTime<Utc>,
    ) -> Result<Vec<Video>, Error> {
        let began = |video: &Video| video.recording_started_at.or(video.created_at);
        let mut videos = self.videos_of_stream(stream_id).await?;
        videos.retain(|video| began(video).is_some_and(|began| began >= since));
        videos.sort_by_key(|video| (began(video), video.id));
        Ok(videos)
    }

    /// The names of videos; those that do not exist are left out.
    pub async fn name_videos(&self, ids: &[i64]) -> Result<Vec<VideoName>, Error> {
        self.to(Operation::NameVideos).query("ids", joined(ids)).list().await
    }

    /// Changes a video. Repeating it changes nothing more.
    pub async fn update_video(&self, id: i64, fields: &VideoFields) -> Result<Video, Error> {
        let secrets = fields.origin_url.iter().chain(&fields.origin_http_headers);
        let call = self.on(Operation::UpdateVideo, [id]).fields(fields).hiding(secrets);
        call.changed(id).await
    }

    /// Deletes a video for good. Takes a video's id, which looks like a stream's. If it is gone
    /// already, the error's disposition is [`crate::Disposition::Done`].
    pub async fn delete_video(&self, id: i64) -> Result<(), Error> {
        self.on(Operation::DeleteVideo, [id]).done().await
    }

    /// Where the file of a video is uploaded to.
    pub async fn get_upload(&self, id: i64) -> Result<Upload, Error> {
        self.on(Operation::GetUpload, [id]).object().await
    }
}

/// Ids with commas between.
fn joined(ids: &[i64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
