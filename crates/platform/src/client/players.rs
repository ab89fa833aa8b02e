//! Players and quality sets: what viewers see, and how well.

use super::{Client, Pages};
use crate::{
    Error, Operation,
    wire::{DefaultQualitySets, Player, PlayerFields, QualitySets},
};

impl Client {
    /// Creates a player. The platform may answer without a body: then `id` is `None`.
    ///
    /// Twice called, it makes two: after [`crate::Disposition::Ambiguous`] look for its name first,
    /// by [`Pages::matching`].
    pub async fn create_player(&self, new: &PlayerFields) -> Result<Player, Error> {
        let made = self.to(Operation::CreatePlayer).fields(new).optional().await?;
        Ok(made.unwrap_or_default())
    }

    /// Reads a player.
    pub async fn get_player(&self, id: i64) -> Result<Player, Error> {
        self.on(Operation::GetPlayer, [id]).object_with_id(id).await
    }

    /// The players of the account.
    pub fn players(&self) -> Pages<'_, Player> {
        self.to(Operation::ListPlayers).pages()
    }

    /// The page of a player with nothing to play, HTML.
    pub async fn preview_player(&self, id: i64) -> Result<String, Error> {
        let answer = self.on(Operation::PreviewPlayer, [id]).send().await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Changes a player. Repeating it changes nothing more.
    pub async fn update_player(&self, id: i64, fields: &PlayerFields) -> Result<Player, Error> {
        self.on(Operation::UpdatePlayer, [id]).fields(fields).changed(id).await
    }

    /// Deletes a player. If it is gone already, the error's disposition is
    /// [`crate::Disposition::Done`].
    pub async fn delete_player(&self, id: i64) -> Result<(), Error> {
        self.on(Operation::DeletePlayer, [id]).done().await
    }

    /// The quality sets of the account.
    pub async fn list_quality_sets(&self) -> Result<QualitySets, Error> {
        self.to(Operation::ListQualitySets).object().await
    }

    /// Chooses the quality sets that are used where none is named. Repeating it changes nothing
    /// more.
    pub async fn set_default_quality_sets(
        &self,
        choice: &DefaultQualitySets,
    ) -> Result<QualitySets, Error> {
        self.to(Operation::SetDefaultQualitySets).fields(choice).object().await
    }
}
