//! Recording of a live stream: start, stop, and clearing what viewers can rewind to.

use reqwest::Method;
use secrecy::SecretString;
use serde_json::Value;

use super::{Call, Client, decode, streams};
use crate::{Error, Operation, refusal, wire::Video};

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
        let path = format!("{}/start_recording", streams::path(stream_id));
        let answer = self.call(Call::new(operation, Method::PUT, path)).await?;
        Ok(StartRecording::read(&decode::value(operation, &answer)?, &self.inner.secrets))
    }

    /// Stops the recording and returns its video; `None` if nothing was recorded.
    ///
    /// A second stop also returns `None`: after [`crate::Disposition::Ambiguous`] find the video
    /// by stream and time.
    pub async fn stop_recording(&self, stream_id: i64) -> Result<Option<Video>, Error> {
        let operation = Operation::StopRecording;
        let path = format!("{}/stop_recording", streams::path(stream_id));
        let answer = self.call(Call::new(operation, Method::PUT, path)).await?;
        decode::optional(operation, &answer)
    }

    /// Clears what viewers can rewind to. Before a live stream is used again, else they rewind
    /// into the session before; never while a session runs.
    pub async fn dvr_cleanup(&self, stream_id: i64) -> Result<(), Error> {
        let path = format!("{}/dvr_cleanup", streams::path(stream_id));
        self.call(Call::new(Operation::DvrCleanup, Method::PUT, path)).await?;
        Ok(())
    }
}
