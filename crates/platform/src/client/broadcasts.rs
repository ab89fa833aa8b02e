//! Broadcasts: create, read, list, change, delete, count who watches.

use serde_json::Value;

use super::{Client, Pages, decode};
use crate::{
    Error, Operation,
    wire::{Broadcast, BroadcastPatch, NewBroadcast},
};

impl Client {
    /// Creates a broadcast. The platform may answer without a body: then `id` is `None`, and the
    /// broadcast is to be found in the list by its name and streams.
    ///
    /// Twice called, it makes two: after [`crate::Disposition::Ambiguous`] look first, by
    /// [`Pages::matching`].
    pub async fn create_broadcast(&self, new: &NewBroadcast) -> Result<Broadcast, Error> {
        let made = self.to(Operation::CreateBroadcast).fields(new).optional().await?;
        Ok(made.unwrap_or_default())
    }

    /// Reads a broadcast.
    pub async fn get_broadcast(&self, id: i64) -> Result<Broadcast, Error> {
        self.on(Operation::GetBroadcast, [id]).object_with_id(id).await
    }

    /// The broadcasts of the account.
    pub fn broadcasts(&self) -> Pages<'_, Broadcast> {
        self.to(Operation::ListBroadcasts).pages()
    }

    /// Changes a broadcast. Repeating it changes nothing more.
    pub async fn update_broadcast(
        &self,
        id: i64,
        patch: &BroadcastPatch,
    ) -> Result<Broadcast, Error> {
        self.on(Operation::UpdateBroadcast, [id]).fields(patch).changed(id).await
    }

    /// Deletes a broadcast; streams and videos stay. If it is gone already, the error's
    /// disposition is [`crate::Disposition::Done`].
    pub async fn delete_broadcast(&self, id: i64) -> Result<(), Error> {
        self.on(Operation::DeleteBroadcast, [id]).done().await
    }

    /// How many people watch a broadcast right now; `None` when the platform does not say.
    pub async fn count_spectators(&self, id: i64) -> Result<Option<u64>, Error> {
        let operation = Operation::CountSpectators;
        let answer = self.on(operation, [id]).send().await?;
        let body = decode::value(operation, &answer)?;
        Ok(body.get("spectators_count").and_then(Value::as_u64))
    }
}
