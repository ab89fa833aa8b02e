//! Restreams: send a live stream on to another service.

use super::{Client, Pages};
use crate::{
    Error, Operation,
    wire::{Restream, RestreamFields},
};

impl Client {
    /// Creates a restream. The platform may answer without a body: then `id` is `None`, and the
    /// restream is to be found in the list by its name and stream.
    ///
    /// Twice called, it makes two: after [`crate::Disposition::Ambiguous`] look first, by
    /// [`Pages::matching`].
    pub async fn create_restream(&self, new: &RestreamFields) -> Result<Restream, Error> {
        let call = self.to(Operation::CreateRestream).fields(new).hiding(&new.uri);
        Ok(call.optional().await?.unwrap_or_default())
    }

    /// Reads a restream.
    pub async fn get_restream(&self, id: i64) -> Result<Restream, Error> {
        self.on(Operation::GetRestream, [id]).object_with_id(id).await
    }

    /// The restreams of the account.
    pub fn restreams(&self) -> Pages<'_, Restream> {
        self.to(Operation::ListRestreams).pages()
    }

    /// Changes a restream. Repeating it changes nothing more.
    pub async fn update_restream(
        &self,
        id: i64,
        fields: &RestreamFields,
    ) -> Result<Restream, Error> {
        let call = self.on(Operation::UpdateRestream, [id]).fields(fields).hiding(&fields.uri);
        call.changed(id).await
    }

    /// Deletes a restream. If it is gone already, the error's disposition is
    /// [`crate::Disposition::Done`].
    pub async fn delete_restream(&self, id: i64) -> Result<(), Error> {
        self.on(Operation::DeleteRestream, [id]).done().await
    }
}
