//! The operations of the client, one name each, for errors, dispositions and logs.

use std::fmt;

/// An operation of [`crate::Client`]; its name is the method's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// `POST /streaming/streams`
    CreateStream,
    /// `GET /streaming/streams/{id}`
    GetStream,
    /// `GET /streaming/streams?page=`
    ListStreams,
    /// `PATCH /streaming/streams/{id}`
    UpdateStream,
    /// `DELETE /streaming/streams/{id}`
    DeleteStream,
    /// `PUT /streaming/streams/{id}/start_recording`
    StartRecording,
    /// `PUT /streaming/streams/{id}/stop_recording`
    StopRecording,
    /// `PUT /streaming/streams/{id}/dvr_cleanup`
    DvrCleanup,
    /// `POST /streaming/broadcasts`
    CreateBroadcast,
    /// `GET /streaming/broadcasts/{id}`
    GetBroadcast,
    /// `GET /streaming/broadcasts?page=`
    ListBroadcasts,
    /// `PATCH /streaming/broadcasts/{id}`
    UpdateBroadcast,
    /// `DELETE /streaming/broadcasts/{id}`
    DeleteBroadcast,
    /// `GET /streaming/videos/{id}`
    GetVideo,
    /// `GET /streaming/videos?stream_id=&page=`
    ListVideos,
    /// `DELETE /streaming/videos/{id}`
    DeleteVideo,
}

impl Operation {
    /// The name in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateStream => "create_stream",
            Self::GetStream => "get_stream",
            Self::ListStreams => "list_streams",
            Self::UpdateStream => "update_stream",
            Self::DeleteStream => "delete_stream",
            Self::StartRecording => "start_recording",
            Self::StopRecording => "stop_recording",
            Self::DvrCleanup => "dvr_cleanup",
            Self::CreateBroadcast => "create_broadcast",
            Self::GetBroadcast => "get_broadcast",
            Self::ListBroadcasts => "list_broadcasts",
            Self::UpdateBroadcast => "update_broadcast",
            Self::DeleteBroadcast => "delete_broadcast",
            Self::GetVideo => "get_video",
            Self::ListVideos => "list_videos",
            Self::DeleteVideo => "delete_video",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
