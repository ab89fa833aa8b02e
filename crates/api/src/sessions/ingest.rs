//! What an encoder needs to push to a session's live stream: the one answer that holds secrets.
//! They are opened for it and stand nowhere else.

use axum::Json;
use axum::extract::State;
use domain::ids::{LiveStreamId, Subject};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::find;
use crate::Api;
use crate::error::Problem;
use crate::extract::{Params, SessionId};

/// Push addresses and keys of a session. No `Debug`: they are not to be logged.
#[derive(Serialize)]
pub(super) struct Ingest {
    session: Uuid,
    live_stream_id: LiveStreamId,
    #[serde(flatten)]
    credentials: Credentials,
}

/// Under the platform's names, as they were sealed.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Credentials {
    /// Push token, part of the addresses.
    token: Option<String>,
    /// RTMP.
    push_url: Option<String>,
    /// RTMP, second way in.
    backup_push_url: Option<String>,
    /// SRT.
    push_url_srt: Option<String>,
    /// SRT, second way in.
    backup_push_url_srt: Option<String>,
    /// WHIP.
    push_url_whip: Option<String>,
    /// SRT passphrase.
    srt_passphrase: Option<String>,
}

/// Hands out the push addresses.
pub(super) async fn ingest(
    State(api): State<Api>,
    SessionId(id): SessionId,
    Params(params): Params,
) -> Result<Json<Ingest>, Problem> {
    params.finish()?;
    let key = api.config().sealing_key.as_ref().ok_or_else(|| {
        Problem::not_set_up("this installation has no sealing key, so it keeps no push addresses")
    })?;
    let view = find(&api, id).await?;
    let not_yet = || {
        Problem::conflict(
            "no-ingest-yet",
            format!("the session is {}: its push addresses are not known yet", view.status),
        )
    };
    let live_stream = view.live_stream.ok_or_else(not_yet)?;
    let subject = Subject::live_stream(&view.source, live_stream);
    let sealed = api.store().unseal(key, &subject).await?.ok_or_else(not_yet)?;
    let credentials = serde_json::from_slice(&sealed).map_err(|error| {
        // Its kind only: its text may quote a secret.
        tracing::error!(subject = %subject, kind = ?error.classify(), "sealed secrets are unreadable");
        Problem::internal()
    })?;
    Ok(Json(Ingest { session: id, live_stream_id: live_stream, credentials }))
}
