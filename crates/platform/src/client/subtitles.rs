//! Subtitles of a video.

use super::Client;
use crate::{
    Error, Operation,
    wire::{Subtitle, SubtitleFields},
};

impl Client {
    /// Adds a subtitle. A second time adds a second: after [`crate::Disposition::Ambiguous`] look
    /// among [`Client::list_subtitles`] for its name and language.
    pub async fn create_subtitle(
        &self,
        video_id: i64,
        new: &SubtitleFields,
    ) -> Result<Subtitle, Error> {
        self.on(Operation::CreateSubtitle, [video_id]).fields(new).object().await
    }

    /// Reads a subtitle.
    pub async fn get_subtitle(&self, video_id: i64, id: i64) -> Result<Subtitle, Error> {
        self.on(Operation::GetSubtitle, [video_id, id]).object_with_id(id).await
    }

    /// The subtitles of a video.
    pub async fn list_subtitles(&self, video_id: i64) -> Result<Vec<Subtitle>, Error> {
        self.on(Operation::ListSubtitles, [video_id]).list().await
    }

    /// Changes a subtitle. Repeating it changes nothing more.
    pub async fn update_subtitle(
        &self,
        video_id: i64,
        id: i64,
        fields: &SubtitleFields,
    ) -> Result<Subtitle, Error> {
        self.on(Operation::UpdateSubtitle, [video_id, id]).fields(fields).changed(id).await
    }

    /// Deletes a subtitle. If it is gone already, the error's disposition is
    /// [`crate::Disposition::Done`].
    pub async fn delete_subtitle(&self, video_id: i64, id: i64) -> Result<(), Error> {
        self.on(Operation::DeleteSubtitle, [video_id, id]).done().await
    }
}
