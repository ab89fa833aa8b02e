//! Live streams: create, read, list, change, delete, and give a new push token.

use serde_json::Value;

use super::{Client, Pages, decode};
use crate::{
    Error, Operation,
    wire::{NewStream, Stream, StreamPatch},
};

/// What came of giving a live stream a new push token. It is new in any case.
#[derive(Clone, Debug)]
pub enum TokenReset {
    /// Whoever pushed with the old token was cut off. The live stream, with its new addresses.
    Cut(Box<Stream>),
    /// Whoever pushes with the old token still does; the platform's words. Read the live stream
    /// for its new addresses.
    StillRunning(String),
}

impl Client {
    /// Creates a live stream. Twice called, it makes two: after [`crate::Disposition::Ambiguous`]
    /// look for the tag in `client_entity_data` first, by [`Pages::matching`].
    pub async fn create_stream(&self, new: &NewStream) -> Result<Stream, Error> {
        let secrets = new.srt_passphrase.iter().chain(&new.uri);
        self.to(Operation::CreateStream).fields(new).hiding(secrets).object().await
    }

    /// Reads a live stream.
    pub async fn get_stream(&self, id: i64) -> Result<Stream, Error> {
        self.on(Operation::GetStream, [id]).object_with_id(id).await
    }

    /// The live streams of the account, ours and others'.
    pub fn streams(&self) -> Pages<'_, Stream> {
        self.to(Operation::ListStreams).pages()
    }

    /// The same, each with the broadcasts that show it.
    pub fn streams_with_broadcasts(&self) -> Pages<'_, Stream> {
        self.to(Operation::ListStreams).query("with_broadcasts", 1).pages()
    }

    /// Changes a live stream. Repeating it changes nothing more. `live` in the answer lags behind.
    pub async fn update_stream(&self, id: i64, patch: &StreamPatch) -> Result<Stream, Error> {
        self.on(Operation::UpdateStream, [id]).fields(patch).changed(id).await
    }

    /// Deletes a live stream for good; its videos stay, its statistics go. If it is gone already,
    /// the error's disposition is [`crate::Disposition::Done`].
    pub async fn delete_stream(&self, id: i64) -> Result<(), Error> {
        self.on(Operation::DeleteStream, [id]).done().await
    }

    /// Gives a live stream a new push token; the old one dies at once. A second time makes another:
    /// after [`crate::Disposition::Ambiguous`] read the live stream, and never repeat it unasked.
    pub async fn reset_push_token(&self, id: i64) -> Result<TokenReset, Error> {
        let operation = Operation::ResetPushToken;
        let answer = self.on(operation, [id]).send().await?;
        let body = decode::value(operation, &answer)?;
        match body.get("message").and_then(Value::as_str) {
            Some(words) if answer.status == 202 => Ok(TokenReset::StillRunning(words.to_owned())),
            _ => Ok(TokenReset::Cut(Box::new(decode::object_with_id(operation, &answer, id)?))),
        }
    }
}
