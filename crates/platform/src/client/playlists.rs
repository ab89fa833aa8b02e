//! Playlists and directories: how videos are put together.

use super::{Client, Pages};
use crate::{
    Error, Operation,
    wire::{Directory, DirectoryPatch, NewDirectory, Playlist, PlaylistFields, Video},
};

impl Client {
    /// Creates a playlist. Twice called, it makes two: after [`crate::Disposition::Ambiguous`] look
    /// for its name first, by [`Pages::matching`].
    pub async fn create_playlist(&self, new: &PlaylistFields) -> Result<Playlist, Error> {
        let made = self.to(Operation::CreatePlaylist).fields(new).optional().await?;
        Ok(made.unwrap_or_default())
    }

    /// Reads a playlist.
    pub async fn get_playlist(&self, id: i64) -> Result<Playlist, Error> {
        self.on(Operation::GetPlaylist, [id]).object_with_id(id).await
    }

    /// The playlists of the account.
    pub fn playlists(&self) -> Pages<'_, Playlist> {
        self.to(Operation::ListPlaylists).pages()
    }

    /// The videos of a playlist, in their order.
    pub async fn list_playlist_videos(&self, id: i64) -> Result<Vec<Video>, Error> {
        self.on(Operation::ListPlaylistVideos, [id]).list().await
    }

    /// Changes a playlist. Repeating it changes nothing more.
    pub async fn update_playlist(
        &self,
        id: i64,
        fields: &PlaylistFields,
    ) -> Result<Playlist, Error> {
        self.on(Operation::UpdatePlaylist, [id]).fields(fields).changed(id).await
    }

    /// Deletes a playlist; its videos stay. If it is gone already, the error's disposition is
    /// [`crate::Disposition::Done`].
    pub async fn delete_playlist(&self, id: i64) -> Result<(), Error> {
        self.on(Operation::DeletePlaylist, [id]).done().await
    }

    /// Creates a directory. Twice called, it makes two: after [`crate::Disposition::Ambiguous`] look
    /// for its name in [`Client::get_directory_tree`] first.
    pub async fn create_directory(&self, new: &NewDirectory) -> Result<Directory, Error> {
        self.to(Operation::CreateDirectory).fields(new).object().await
    }

    /// Reads a directory with what is in it.
    pub async fn get_directory(&self, id: i64) -> Result<Directory, Error> {
        self.on(Operation::GetDirectory, [id]).object_in("directory").await
    }

    /// The directories at the top, with those in them.
    pub async fn get_directory_tree(&self) -> Result<Vec<Directory>, Error> {
        self.to(Operation::GetDirectoryTree).list_in("tree").await
    }

    /// Renames or moves a directory. Repeating it changes nothing more.
    pub async fn update_directory(
        &self,
        id: i64,
        patch: &DirectoryPatch,
    ) -> Result<Directory, Error> {
        self.on(Operation::UpdateDirectory, [id]).fields(patch).changed(id).await
    }

    /// Deletes a directory with everything in it. If it is gone already, the error's disposition is
    /// [`crate::Disposition::Done`].
    pub async fn delete_directory(&self, id: i64) -> Result<(), Error> {
        self.on(Operation::DeleteDirectory, [id]).done().await
    }
}
