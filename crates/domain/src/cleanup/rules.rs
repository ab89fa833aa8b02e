//! What a source lets cleanup delete: ages, retention, and the cap of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;

use crate::ids::Timestamp;

/// How long recordings are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nobody said: no run deletes them for their age.
    #[default]
    Unset,
    /// No run deletes them at all.
    Forever,
    /// Until so long after their session ended.
    For(Duration),
}

impl Keep {
    /// How old a recording is that need not be kept; `None`: none is for its age.
    pub fn time(self) -> Option<Duration> {
        if let Self::For(time) = self { Some(time) } else { None }
    }

    /// The moment before which a recording was made that need not be kept.
    pub fn before(self, now: Timestamp) -> Option<Timestamp> {
        self.time().map(|time| earlier(now, time))
    }

    /// The same, and kept for `time` at least.
    #[must_use]
    pub fn at_least(self, time: Duration) -> Self {
        if let Self::For(kept) = self { Self::For(kept.max(time)) } else { self }
    }
}

/// What a source lets a run delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// A live stream of a deleted account goes when it has been idle for this long.
    pub inactive_after: Duration,
    /// An orphan goes at this age.
    pub orphans_after: Duration,
    /// Recordings go with the live stream of a deleted account, where they are old enough.
    pub delete_recordings: bool,
    /// How long recordings are kept.
    pub keep_recordings: Keep,
    /// The same for accounts of the product that have a rule of their own.
    pub keep_recordings_of: BTreeMap<String, Keep>,
    /// Most live streams that a run proposes.
    pub cap: u32,
}

impl Default for Rules {
    fn default() -> Self {
        let day = |days: u64| Duration::from_hours(24 * days);
        Self {
            inactive_after: day(30),
            orphans_after: day(7),
            delete_recordings: false,
            keep_recordings: Keep::Unset,
            keep_recordings_of: BTreeMap::new(),
            cap: 20,
        }
    }
}

impl Rules {
    /// How long recordings of an account are kept.
    pub fn keeps(&self, account: Option<&str>) -> Keep {
        let own = account.and_then(|account| self.keep_recordings_of.get(account));
        own.copied().unwrap_or(self.keep_recordings)
    }

    /// The shortest time that any recording is kept; `None`: no rule lets any go.
    pub fn shortest_keep(&self) -> Option<Duration> {
        let own = self.keep_recordings_of.values().copied();
        own.chain([self.keep_recordings]).filter_map(Keep::time).min()
    }
}
/// `age` before `now`; a time too far away to be written is as good as none.
pub fn earlier(now: Timestamp, age: Duration) -> Timestamp {
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(age).unwrap_or(Timestamp::MIN_UTC)
}

/// A time in days, for people.
pub fn days(age: Duration) -> String {
    let hours = age.as_secs() / 3600;
    match (hours / 24, hours % 24) {
        (1, 0) => "1 day".to_owned(),
        (days, 0) => format!("{days} days"),
        _ => format!("{hours} h"),
    }
}
