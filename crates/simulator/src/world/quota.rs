//! The quota of active streams: it counts entities with `active:true`, live or not.

use super::options::Options;
use super::{ErrorShape, Reply, World, error_body};
use crate::QuotaBreach;

/// Plausible refusals: no document prints the real one.
const BREACHES: [(u16, ErrorShape, &str); 6] = [
    (422, ErrorShape::A, "Live streams limit is exceeded"),
    (400, ErrorShape::B, "Active streams quota exceeded"),
    (403, ErrorShape::E, "Quota limit reached for active streams"),
    (409, ErrorShape::C, "The limit of active streams has been reached"),
    (422, ErrorShape::D, "You have exceeded the number of live streams"),
    (429, ErrorShape::C, "Active streams limit reached"),
];

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
    pub(super) fn admit(&mut self, was_active: bool, options: &Options) -> Admission {
        let needs_slot = options.flag("active") && !was_active;
        if !needs_slot || self.active_streams() < self.active_quota {
            return Admission::Admitted;
        }
        match &self.behaviour.quota_breach {
            QuotaBreach::StaysInactive => Admission::StaysInactive,
            QuotaBreach::Varied => self.varied_breach(),
            QuotaBreach::Refused(refusal) => Admission::Refused(Reply {
                status: refusal.status,
                body: error_body(refusal.shape, refusal.status, &refusal.text),
            }),
        }
    }

    /// One of the plausible answers.
    fn varied_breach(&mut self) -> Admission {
        let count = u64::try_from(BREACHES.len()).unwrap_or_default();
        let n = usize::try_from(self.dice.below(count + 1)).unwrap_or_default();
        BREACHES.get(n).map_or(Admission::StaysInactive, |&(status, shape, text)| {
            Admission::Refused(Reply { status, body: error_body(shape, status, text) })
        })
    }
}
