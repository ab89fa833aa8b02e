//! Broadcasts: create, read, list, change, delete.

use reqwest::Method;
use serde_json::json;

use super::{Call, Client, decode, pages};
use crate::{
    Error, Operation,
    wire::{Broadcast, BroadcastPatch, NewBroadcast},
};

impl Client {
    /// Creates a broadcast. The platform may answer without a body: then `id` is `None`, and the
    /// broadcast is to be found in the list by its name and streams.
    ///
    /// Twice called, it makes two: after [`crate::Disposition::Ambiguous`] look first.
    pub async fn create_broadcast(&self, new: &NewBroadcast) -> Result<Broadcast, Error> {
        let operation = Operation::CreateBroadcast;
        let call = Call::new(operation, Method::POST, "/streaming/broadcasts".to_owned());
        let answer = self.call(call.body(json!({"broadcast": new}))).await?;
        Ok(decode::optional(operation, &answer)?.unwrap_or_default())
    }

    /// Reads a broadcast.
    pub async fn get_broadcast(&self, id: i64) -> Result<Broadcast, Error> {
        let operation = Operation::GetBroadcast;
        let answer = self.call(Call::new(operation, Method::GET, path(id))).await?;
        decode::object_with_id(operation, &answer, id)
    }

    /// One page of the broadcasts, counted from 1. An empty page is past the end.
    pub async fn list_broadcasts(&self, page: u32) -> Result<Vec<Broadcast>, Error> {
        let operation = Operation::ListBroadcasts;
        let call = Call::new(operation, Method::GET, "/streaming/broadcasts".to_owned());
        decode::list(operation, &self.call(call.query("page", &page)).await?)
    }

    /// All broadcasts of the account. One that is not in the result may exist; rows without an id
    /// may come twice.
    pub async fn all_broadcasts(&self) -> Result<Vec<Broadcast>, Error> {
        let page = |page| self.list_broadcasts(page);
        pages::walk(Operation::ListBroadcasts, pages::PAGE_CAP, |row: &Broadcast| row.id, page)
            .await
    }

    /// Changes a broadcast. Repeating it changes nothing more.
    pub async fn update_broadcast(
        &self,
        id: i64,
        patch: &BroadcastPatch,
    ) -> Result<Broadcast, Error> {
        let operation = Operation::UpdateBroadcast;
        let call = Call::new(operation, Method::PATCH, path(id));
        let answer = self.call(call.body(json!({"broadcast": patch}))).await?;
        decode::changed(operation, &answer, id)
    }

    /// Deletes a broadcast; streams and videos stay. If it is gone already, the error's
    /// disposition is [`crate::Disposition::Done`].
    pub async fn delete_broadcast(&self, id: i64) -> Result<(), Error> {
        self.call(Call::new(Operation::DeleteBroadcast, Method::DELETE, path(id))).await?;
        Ok(())
    }
}

/// The path of a broadcast.
fn path(id: i64) -> String {
    format!("/streaming/broadcasts/{id}")
}
