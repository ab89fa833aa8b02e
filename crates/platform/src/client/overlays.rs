//! Overlays of a live stream. The live stream needs `html_overlay`.

use super::Client;
use crate::{
    Error, Operation,
    wire::{Overlay, OverlayFields},
};

impl Client {
    /// Puts overlays on a live stream. A second time puts them there twice: after
    /// [`crate::Disposition::Ambiguous`] look among [`Client::list_overlays`] for their addresses.
    pub async fn create_overlays(
        &self,
        stream_id: i64,
        new: &[OverlayFields],
    ) -> Result<Vec<Overlay>, Error> {
        self.on(Operation::CreateOverlays, [stream_id]).fields(&new).list().await
    }

    /// Reads an overlay.
    pub async fn get_overlay(&self, stream_id: i64, id: i64) -> Result<Overlay, Error> {
        self.on(Operation::GetOverlay, [stream_id, id]).object_with_id(id).await
    }

    /// The overlays of a live stream.
    pub async fn list_overlays(&self, stream_id: i64) -> Result<Vec<Overlay>, Error> {
        self.on(Operation::ListOverlays, [stream_id]).list().await
    }

    /// Changes an overlay. Repeating it changes nothing more.
    pub async fn update_overlay(
        &self,
        stream_id: i64,
        id: i64,
        fields: &OverlayFields,
    ) -> Result<Overlay, Error> {
        self.on(Operation::UpdateOverlay, [stream_id, id]).fields(fields).changed(id).await
    }

    /// Changes many overlays, each named by its `id`. Repeating it changes nothing more.
    pub async fn update_overlays(
        &self,
        stream_id: i64,
        fields: &[OverlayFields],
    ) -> Result<Vec<Overlay>, Error> {
        self.on(Operation::UpdateOverlays, [stream_id]).fields(&fields).list().await
    }

    /// Takes an overlay away. If it is gone already, the error's disposition is
    /// [`crate::Disposition::Done`].
    pub async fn delete_overlay(&self, stream_id: i64, id: i64) -> Result<(), Error> {
        self.on(Operation::DeleteOverlay, [stream_id, id]).done().await
    }
}
