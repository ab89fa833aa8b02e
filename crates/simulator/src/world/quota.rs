//! The quota of active streams: it counts entities with `active:true`, live or not.

use super::options::Options;
use super::{Reply, World, error_body};
use crate::QuotaBreach;

/// Whether a stream may have the options it asks for.
pub(super) enum Admission {
    /// Within the quota.
    Admitted,
    /// Over the quota: everything is applied except `active`.
    StaysInactive,
    /// Over the quota: nothing is applied.
    Refused(Reply),
}

impl World {
    /// Returns how many streams take a slot.
    pub(super) fn active_streams(&self) -> usize {
        self.streams.values().filter(|stream| stream.is_active()).count()
    }

    /// Decides whether a stream may become active; one that is active already keeps its slot.
    pub(super) fn admit(&self, was_active: bool, options: &Options) -> Admission {
        let needs_slot = options.flag("active") && !was_active;
        if !needs_slot || self.active_streams() < self.active_quota {
            return Admission::Admitted;
        }
        match &self.behaviour.quota_breach {
            QuotaBreach::StaysInactive => Admission::StaysInactive,
            QuotaBreach::Refused(refusal) => Admission::Refused(Reply {
                status: refusal.status,
                body: error_body(refusal.shape, refusal.status, &refusal.text),
            }),
        }
    }
}
