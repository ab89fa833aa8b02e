//! Videos: read, list by live stream, delete.

use reqwest::Method;

use super::{Call, Client, decode, pages};
use crate::{Error, Operation, wire::Video};

impl Client {
    /// Reads a video: the only place of `error` and `updated_at`.
    pub async fn get_video(&self, id: i64) -> Result<Video, Error> {
        let operation = Operation::GetVideo;
        let answer = self.call(Call::new(operation, Method::GET, path(id))).await?;
        decode::object_with_id(operation, &answer, id)
    }

    /// One page of the videos recorded from a live stream, counted from 1. An empty page is past
    /// the end.
    pub async fn list_videos(&self, stream_id: i64, page: u32) -> Result<Vec<Video>, Error> {
        let operation = Operation::ListVideos;
        let call = Call::new(operation, Method::GET, "/streaming/videos".to_owned());
        let call = call.query("stream_id", &stream_id).query("page", &page);
        decode::list(operation, &self.call(call).await?)
    }

    /// All videos recorded from a live stream. One that is not in the result may exist.
    pub async fn videos_of_stream(&self, stream_id: i64) -> Result<Vec<Video>, Error> {
        let id = |video: &Video| Some(video.id);
        let page = |page| self.list_videos(stream_id, page);
        let mut videos = pages::walk(Operation::ListVideos, pages::PAGE_CAP, id, page).await?;
        // A platform that ignored the filter would hand out other people's videos as ours.
        videos.retain(|video| video.stream_id.is_none_or(|id| id == stream_id));
        Ok(videos)
    }

    /// Deletes a video for good. Takes a video's id, which looks like a stream's. If it is gone
    /// already, the error's disposition is [`crate::Disposition::Done`].
    pub async fn delete_video(&self, id: i64) -> Result<(), Error> {
        self.call(Call::new(Operation::DeleteVideo, Method::DELETE, path(id))).await?;
        Ok(())
    }
}

/// The path of a video.
fn path(id: i64) -> String {
    format!("/streaming/videos/{id}")
}
