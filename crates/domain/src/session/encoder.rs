//! What an encoder's coming and going means for its session.
//!
//! A *loss* is a connection that was there and is not. While on air it opens an *interruption*:
//! suspected first, shown only if it outlasts the grace period and the platform, asked after that,
//! says so too. [`MAX_LOSSES`] losses within a short time are an encoder that reconnects in a loop:
//! it is *unstable*, until it has sent steadily for a while.

use serde::{Deserialize, Serialize};

use super::Session;
use crate::ids::Timestamp;

/// Losses that make an encoder unstable, if they come within the time that the policy says. People
/// who start over three or four times are common.
const MAX_LOSSES: usize = 5;

/// The encoder's connection was lost while on air.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// Which one on its live stream, from 1: the grace timer's generation.
    pub number: u64,
    /// When it began.
    pub since: Timestamp,
    /// It outlasted the grace period, and the platform said so when it was asked: it is shown.
    pub confirmed: bool,
    /// It outlasted the grace period.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasts: bool,
    /// The platform was asked, not only heard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
}

/// Losses of the encoder, on air or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// When the latest were, at most [`MAX_LOSSES`] of them.
    pub recent: Vec<Timestamp>,
    /// The number of the last one on its live stream: the steady timer's generation.
    pub last: u64,
    /// Since when the encoder is unstable.
    pub unstable_since: Option<Timestamp>,
}

impl Losses {
    /// Whether nothing was ever lost.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, number: u64, at: Timestamp) {
        self.last = number;
        if self.recent.len() == MAX_LOSSES {
            self.recent.remove(0);
        }
        self.recent.push(at);
    }

    /// The first and the last of the latest [`MAX_LOSSES`], if there were so many.
    pub(crate) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let is_full = self.recent.len() == MAX_LOSSES;
        self.recent.first().copied().zip(self.recent.last().copied()).filter(|_| is_full)
    }

    /// Applies that those since `since` were too many, unless there are others by now.
    pub(crate) fn are_too_many(&mut self, since: Timestamp) {
        if let Some((_, last)) = self.span().filter(|(first, _)| *first == since) {
            self.unstable_since = self.unstable_since.or(Some(last));
        }
    }
}

impl Session {
    /// Whether its encoder reconnects again and again.
    pub fn is_unstable(&self) -> bool {
        self.losses.unstable_since.is_some()
    }

    /// Whether the encoder has been away for longer than the grace period.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interruption.as_ref().is_some_and(|i| i.confirmed)
    }

    /// Whether the platform is to be asked if the encoder is away before that is shown.
    pub(crate) fn doubts_loss(&self) -> bool {
        self.interruption.as_ref().is_some_and(|i| i.lasts && !i.asked)
    }

    /// Applies that the encoder came (`on_air`) or went, its `number`th loss on the live stream.
    pub(crate) fn encoder(&mut self, on_air: bool, at: Timestamp, number: u64) {
        if self.end {
            return;
        }
        if on_air {
            // Shorter than the grace period: nothing visible. Longer: over once on air again.
            self.interruption.take_if(|i| !i.confirmed);
            return;
        }
        self.losses.add(number, at);
        if self.went_live_at.is_some() && self.interruption.is_none() {
            self.interruptions += 1;
            let (confirmed, lasts, asked) = (false, false, false);
            self.interruption = Some(Interruption { number, since: at, confirmed, lasts, asked });
        }
    }

    /// Applies that the grace period of interruption `number` is over, and the encoder not back.
    pub(crate) fn grace_elapsed(&mut self, number: u64) {
        if let Some(i) = self.interruption.as_mut().filter(|i| i.number == number) {
            i.lasts = true;
        }
    }

    /// Applies that the platform was asked, and the encoder is away.
    pub(crate) fn loss_told(&mut self) {
        if let Some(i) = self.interruption.as_mut() {
            i.asked = true;
        }
    }

    /// Applies that the platform was asked in vain: after the grace period what was heard has to do.
    pub(crate) fn loss_asked_in_vain(&mut self) {
        if let Some(i) = self.interruption.as_mut() {
            i.asked |= i.lasts;
        }
    }

    /// Applies that the encoder has sent steadily since its `number`th loss.
    pub(crate) fn steady(&mut self, number: u64) {
        if self.losses.last == number {
            self.losses.recent.clear();
            self.losses.unstable_since = None;
        }
    }
}

#[cfg(test)]
mod tests;
