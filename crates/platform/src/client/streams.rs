//! Live streams: create, read, list, change, delete.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Call, Client, decode, pages};
use crate::{
    CreateBody, Error, Operation,
    wire::{NewStream, Stream, StreamPatch},
};

impl Client {
    /// Creates a live stream. Twice called, it makes two: after [`crate::Disposition::Ambiguous`]
    /// look for the tag in `client_entity_data` first.
    pub async fn create_stream(&self, new: &NewStream) -> Result<Stream, Error> {
        let operation = Operation::CreateStream;
        let body = match self.inner.create_body {
            CreateBody::Flat => json!(new),
            CreateBody::Wrapped => json!({"stream": new}),
        };
        let mut call = Call::new(operation, Method::POST, "/streaming/streams".to_owned());
        call.secrets = new.srt_passphrase.iter().chain(&new.uri).cloned().collect();
        decode::object(operation, &self.call(call.body(body)).await?)
    }

    /// Reads a live stream.
    pub async fn get_stream(&self, id: i64) -> Result<Stream, Error> {
        let operation = Operation::GetStream;
        let answer = self.call(Call::new(operation, Method::GET, path(id))).await?;
        decode::object_with_id(operation, &answer, id)
    }

    /// One page of the live streams, counted from 1. An empty page is past the end; a short one
    /// is not.
    pub async fn list_streams(&self, page: u32) -> Result<Vec<Stream>, Error> {
        let operation = Operation::ListStreams;
        let call = Call::new(operation, Method::GET, "/streaming/streams".to_owned());
        decode::list(operation, &self.call(call.query("page", &page)).await?)
    }

    /// All live streams of the account, ours and others'; see the warning in [`pages`]: a stream
    /// that is not in the result may exist.
    pub async fn all_streams(&self) -> Result<Vec<Stream>, Error> {
        let id = |stream: &Stream| Some(stream.id);
        let page = |page| self.list_streams(page);
        pages::walk(Operation::ListStreams, pages::PAGE_CAP, id, page).await
    }

    /// Changes a live stream. Repeating it changes nothing more. `live` in the answer lags behind.
    pub async fn update_stream(&self, id: i64, patch: &StreamPatch) -> Result<Stream, Error> {
        let operation = Operation::UpdateStream;
        let body: Value = json!({"stream": patch});
        let answer = self.call(Call::new(operation, Method::PATCH, path(id)).body(body)).await?;
        decode::changed(operation, &answer, id)
    }

    /// Deletes a live stream for good; its videos stay. If it is gone already, the error's
    /// disposition is [`crate::Disposition::Done`].
    pub async fn delete_stream(&self, id: i64) -> Result<(), Error> {
        self.call(Call::new(Operation::DeleteStream, Method::DELETE, path(id))).await?;
        Ok(())
    }
}

/// The path of a live stream.
pub(super) fn path(id: i64) -> String {
    format!("/streaming/streams/{id}")
}
