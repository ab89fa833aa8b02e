//! The platform's objects as JSON has them, and the bodies of requests.
//!
//! Reading is lenient. Ids are numbers or numeric strings, times come in three notations, unknown
//! fields are ignored, and a field of an unexpected type is `None` rather than an error: one odd
//! value must not hide that a stream is live. The shapes follow the platform's public OpenAPI file
//! (`G-Core/product-documentation`, `streaming_api.yaml`, 2026-08).
//!
//! Secrets are [`secrecy::SecretString`]: they do not show in `Debug`, the answers cannot be
//! serialized, and `observed()` is the view without secrets that may enter the event log.
//!
//! Not the job of this module: deciding what a status means.

mod account;
mod ai;
mod broadcast;
mod clip;
mod directory;
mod fields;
mod macros;
mod overlay;
mod player;
mod playlist;
mod quality_set;
mod restream;
mod secret;
mod statistics;
mod stream;
mod subtitle;
mod video;

#[cfg(test)]
mod tests;

use std::hash::Hash;

use serde::de::DeserializeOwned;

pub use self::{
    account::{Account, AccountServices, ServiceStatus},
    ai::{AiTask, AiTaskData, AiTaskTime, AiWork, NewAiTask},
    broadcast::{Broadcast, BroadcastPatch, BroadcastStatus, NewBroadcast},
    clip::{Clip, NewClip},
    directory::{Directory, DirectoryItem, DirectoryPatch, NewDirectory},
    overlay::{Overlay, OverlayFields},
    player::{Player, PlayerFields},
    playlist::{Playlist, PlaylistFields},
    quality_set::{DefaultQualitySet, DefaultQualitySets, Quality, QualitySet, QualitySets},
    restream::{Restream, RestreamFields},
    statistics::{Count, Heat, ProbeSample, Series, Watched},
    stream::{IngestCredentials, NewStream, Stream, StreamPatch},
    subtitle::{Subtitle, SubtitleFields},
    video::{Rendition, Upload, UploadServer, Video, VideoFields, VideoName},
};

/// A row of a list that comes in pages.
pub trait Listed: DeserializeOwned {
    /// What identifies it.
    type Id: Eq + Hash;

    /// The field of the body that holds the rows; `None` where the body is the list.
    const WITHIN: Option<&'static str> = None;

    /// Its id, if it tells one.
    fn id(&self) -> Option<Self::Id>;
}

/// Says that rows of a type are identified by their `id`.
macro_rules! listed {
    ($($row:ident: $id:expr,)+) => {$(
        impl Listed for $row {
            type Id = i64;

            fn id(&self) -> Option<i64> {
                let id: fn(&Self) -> Option<i64> = $id;
                id(self)
            }
        }
    )+};
}

listed! {
    Stream: |row| Some(row.id),
    Broadcast: |row| row.id,
    Restream: |row| row.id,
    Video: |row| Some(row.id),
    Playlist: |row| row.id,
    Player: |row| row.id,
}

impl Listed for AiTask {
    type Id = String;

    const WITHIN: Option<&'static str> = Some("results");

    fn id(&self) -> Option<String> {
        self.task_id.clone()
    }
}
