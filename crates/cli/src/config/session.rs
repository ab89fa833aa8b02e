//! How long sessions wait for what: the section `session` of the configuration.
//!
//! Keys that begin with `max_` are the longest waits, and zero means without a limit. Not its job:
//! what follows when a wait is over, which the domain decides.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::timer::{Limits, Policy};
use serde::Deserialize;

use super::duration;

/// How long sessions wait for what.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Session {
    /// Time a lost encoder has to come back before the interruption is shown.
    #[serde(deserialize_with = "duration")]
    pub(crate) grace: Duration,
    /// Ask the platform this long after a call whose effect was not heard of.
    #[serde(deserialize_with = "duration")]
    pub(crate) settle: Duration,
    /// Look for a slot after this long while the account's quota has none free, and less and less
    /// often.
    #[serde(deserialize_with = "duration")]
    pub(crate) slot: Duration,
    /// Hold the slots that are granted against the platform this often.
    #[serde(deserialize_with = "duration")]
    pub(crate) slot_sweep: Duration,
    /// Look this often while an encoder is expected or on air.
    #[serde(deserialize_with = "duration")]
    pub(crate) watch: Duration,
    /// Look this often while videos are processed, and less and less often.
    #[serde(deserialize_with = "duration")]
    pub(crate) videos: Duration,
    /// Look at all live streams this often, and ask for each that something is waited of.
    #[serde(deserialize_with = "duration")]
    pub(crate) sweep: Duration,
    /// Look through the recordings of sessions that are over this often; zero: never.
    #[serde(deserialize_with = "duration")]
    pub(crate) recordings: Duration,
    /// Only through those of sessions that ended within this time.
    #[serde(deserialize_with = "duration")]
    pub(crate) recordings_within: Duration,
    /// Five losses of the encoder within this time are a loop.
    #[serde(deserialize_with = "duration")]
    pub(crate) loop_window: Duration,
    /// An encoder that reconnected in a loop is trusted again when it has sent for this long.
    #[serde(deserialize_with = "duration")]
    pub(crate) steady: Duration,
    /// A platform call is tried for this long.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_call: Duration,
    /// A call that takes a session off air is tried for this long.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_end_call: Duration,
    /// A session waits for a slot of the quota for this long, and fails then.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_slot: Duration,
    /// A session waits for its first encoder for this long, and fails then.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_encoder: Duration,
    /// A session whose encoder sends waits for its show for this long, and ends then.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_testing: Duration,
    /// A session waits for its lost encoder for this long, and ends then.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_interrupted: Duration,
    /// A failed session waits for a retry for this long, and ends then.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_failed: Duration,
    /// A recording waits for a video for this long, and is completed without it then.
    #[serde(deserialize_with = "duration")]
    pub(crate) max_videos: Duration,
}

impl Default for Session {
    fn default() -> Self {
        let policy = Policy::default();
        let limits = policy.limits;
        Self {
            grace: policy.grace,
            settle: policy.settle,
            slot: policy.slot,
            slot_sweep: policy.slot_sweep,
            watch: policy.watch,
            videos: policy.videos,
            sweep: policy.sweep,
            recordings: policy.recordings,
            recordings_within: policy.recordings_within,
            loop_window: limits.loop_window,
            steady: policy.steady,
            max_call: limits.call,
            max_end_call: limits.end_call,
            max_slot: limits.slot,
            max_encoder: limits.encoder,
            max_testing: limits.testing,
            max_interrupted: limits.interrupted,
            max_failed: limits.failed,
            max_videos: limits.videos,
        }
    }
}

impl Session {
    /// The same as the domain takes it; the slots of sources stand with them.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            grace: self.grace,
            settle: self.settle,
            slot: self.slot,
            slots: BTreeMap::new(),
            slot_sweep: self.slot_sweep,
            watch: self.watch,
            videos: self.videos,
            sweep: self.sweep,
            recordings: self.recordings,
            recordings_within: self.recordings_within,
            steady: self.steady,
            limits: Limits {
                call: self.max_call,
                end_call: self.max_end_call,
                slot: self.max_slot,
                encoder: self.max_encoder,
                testing: self.max_testing,
                interrupted: self.max_interrupted,
                failed: self.max_failed,
                videos: self.max_videos,
                loop_window: self.loop_window,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_is_the_domains_default() {
        assert_eq!(Session::default().policy(), Policy::default());
    }
}
