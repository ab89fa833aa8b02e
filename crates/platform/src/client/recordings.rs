//! Recording of a live stream: start, stop, clips, and clearing what viewers can rewind to.

use secrecy::SecretString;
use serde_json::Value;

use super::{Client, decode};
use crate::{
    Error, Operation, refusal,
    wire::{Clip, NewClip, Video},
};

/// What came of asking for a recording. It begins some seconds later in any case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StartRecording {
    /// The platform will record.
    Started,
    /// The platform will record, and warns, e.g. `client_storage_almost_exceeded`.
    Warned(Vec<String>),
    /// The platform answered with a success status and errors: it will not record.
    Refused(Vec<String>),
}

impl StartRecording {
    /// Reads the body of a success: none, or `{data, warnings, errors}`.
    pub(super) fn read(body: &Value, own: &[SecretString]) -> Self {
        let texts = |name| refusal::texts(body.get(name), own);
        let (errors, warnings) = (texts("errors"), texts("warnings"));
        match (errors.is_empty(), warnings.is_empty()) {
            (false, _) => Self::Refused(errors),
            (true, false) => Self::Warned(warnings),
            (true, true) => Self::Started,
        }
    }
}

impl Client {
    /// Starts a recording. The stream must be live. A second start may cut the recording in two:
    /// after [`crate::Disposition::Ambiguous`] read the stream first.
    pub async fn start_recording(&self, stream_id: i64) -> Result<StartRecording, Error> {
        let operation = Operation::StartRecording;
        let answer = self.on(operation, [stream_id]).send().await?;
        Ok(StartRecording::read(&decode::value(operation, &answer)?, &self.inner.auth.secrets()))
    }

    /// Stops the recording and returns its video; `None` if nothing was recorded.
    ///
    /// A second stop also returns `None`: after [`crate::Disposition::Ambiguous`] find the video
    /// by [`Client::videos_recorded`].
    pub async fn stop_recording(&self, stream_id: i64) -> Result<Option<Video>, Error> {
        self.on(Operation::StopRecording, [stream_id]).optional().await
    }

    /// Clears what viewers can rewind to. Before a live stream is used again, else they rewind
    /// into the session before; never while a session runs.
    pub async fn dvr_cleanup(&self, stream_id: i64) -> Result<(), Error> {
        self.on(Operation::DvrCleanup, [stream_id]).done().await
    }

    /// Cuts a clip out of what viewers can rewind to. A second time makes a second one: after
    /// [`crate::Disposition::Ambiguous`] look among [`Client::list_clips`] for one of this start
    /// and length.
    pub async fn create_clip(&self, stream_id: i64, new: &NewClip) -> Result<Clip, Error> {
        self.on(Operation::CreateClip, [stream_id]).fields(new).object().await
    }

    /// The clips of a live stream that can still be fetched.
    pub async fn list_clips(&self, stream_id: i64) -> Result<Vec<Clip>, Error> {
        self.on(Operation::ListClips, [stream_id]).list().await
    }
}
