//! Versions of stored bodies, and the way from an old one to the present.
//!
//! A *version* is a shape of an event type's body; a stored body keeps its version for ever. An
//! *upcaster* is a pure step from the body of one version to that of the next. [`Versions::raise`]
//! takes all steps up to the current version before a body is decoded, so decoding knows the
//! current shapes only. A version newer than this build knows is told apart: reading it as an
//! older one would lose what the newer build meant. Unknown *types* are nobody's business here.

use std::borrow::Cow;

use serde_json::Value;

use super::{StoredEvent, storable};

/// The version that every type begins with.
const FIRST: i16 = 1;

/// What this build knows of versions.
pub(crate) struct Versions {
    /// Every type that is written, with its current version.
    pub(crate) current: &'static [(&'static str, i16)],
    /// Every step from a version to the next.
    pub(crate) upcasters: &'static [Upcaster],
}

/// The step of one type from one version to the next.
pub(crate) struct Upcaster {
    /// The event's name.
    pub(crate) event_type: &'static str,
    /// The version it takes; it makes the next one.
    pub(crate) from: i16,
    /// Makes the next version's body. Total: what it does not know it leaves as it is.
    pub(crate) step: fn(Value) -> Value,
}

/// The current version of every type. A webhook's body is the platform's, so its version counts
/// only how ingest stores it. A raised number needs its upcaster below and a golden body.
pub(crate) const VERSIONS: Versions = Versions {
    current: &[
        ("WebhookReceived", 1),
        ("SessionRequested", 2),
        ("GoLiveRequested", 1),
        ("EndRequested", 1),
        ("RetryRequested", 1),
        ("AccountDeleted", 1),
        ("AccountErased", 1),
        ("CleanupRequested", 1),
        ("ReconcileRequested", 1),
        ("SeenOtherwise", 1),
        ("SessionBound", 2),
        ("Bound", 1),
        ("VideoChanged", 1),
        ("BroadcastChanged", 1),
        ("CallIntended", 1),
        ("CallSucceeded", 1),
        ("CallFailed", 1),
        ("TimerElapsed", 1),
        ("LimitExceeded", 1),
        ("SlotRequested", 1),
        ("SlotReleased", 1),
        ("SlotGranted", 1),
        ("SlotQueued", 1),
        ("SlotsConfigured", 1),
        ("JobCompleted", 1),
        ("JobDiscarded", 1),
        ("JobCancelled", 1),
        ("SessionReady", 1),
        ("SessionTestStarted", 1),
        ("SessionWentLive", 1),
        ("SessionInterrupted", 1),
        ("SessionResumed", 1),
        ("SessionStopped", 1),
        ("SessionEnded", 1),
        ("SessionFailed", 1),
        ("SessionUnstable", 1),
        ("RecordingPartReady", 1),
        ("RecordingPartOverdue", 1),
        ("RecordingPartDeleted", 1),
        ("RecordingReady", 1),
        ("CleanupDone", 1),
        ("QuotaWaiting", 1),
        ("EndpointDisabled", 1),
        ("CleanupStarted", 1),
        ("CleanupJudged", 1),
        ("CleanupListed", 1),
        ("CleanupSettled", 1),
        ("CleanupFinished", 1),
        ("LiveStreamCaptured", 1),
        ("VideoDeleted", 1),
    ],
    upcasters: &[
        // Personal values may be sealed: a build that does not know that would send them to the
        // platform as they are. A body without sealed ones is one of version 2.
        Upcaster { event_type: "SessionRequested", from: 1, step: unchanged },
        Upcaster { event_type: "SessionBound", from: 1, step: unchanged },
    ],
};

/// The step to a version that allows what the one before did not.
fn unchanged(body: Value) -> Value {
    body
}

/// An event was written by a newer build, in a shape that this one does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerVersion {
    /// The event's name.
    pub event_type: String,
    /// The version it was written in.
    pub version: i16,
    /// The newest version that this build reads.
    pub known: i16,
}

impl std::error::Error for NewerVersion {}

impl std::fmt::Display for NewerVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { event_type, version, known } = self;
        write!(
            f,
            "{event_type} has version {version} and this build reads up to {known}: \
             it was written by a newer build, run that one or a later one"
        )
    }
}

/// Whether this build can read an event. An unknown type can be: it has no effect. A consumer sets
/// a newer version aside instead of folding it, since [`Event::decode`](super::Event::decode)
/// reads it as unrecognized.
///
/// # Errors
/// [`NewerVersion`] where its type is known and its version is not yet.
pub fn readable(stored: StoredEvent<'_>) -> Result<(), NewerVersion> {
    VERSIONS.check(stored.event_type, stored.schema_version)
}

/// Every type that is written.
#[cfg(test)]
pub(crate) fn current_types() -> impl Iterator<Item = &'static str> {
    VERSIONS.current.iter().map(|(name, _)| *name)
}

impl Versions {
    /// The version in which this build writes a type; `None`: it writes no such type.
    pub(crate) fn of(&self, event_type: &str) -> Option<i16> {
        self.current.iter().find(|(name, _)| *name == event_type).map(|(_, version)| *version)
    }

    /// Tells a version apart that is newer than the current one of its type.
    fn check(&self, event_type: &str, version: i16) -> Result<(), NewerVersion> {
        // Nearly all events have the first version: they are not looked up.
        if version <= FIRST {
            return Ok(());
        }
        match self.of(event_type) {
            Some(known) if version > known => {
                Err(NewerVersion { event_type: event_type.to_owned(), version, known })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The body in the current version of its type; borrowed where it is that already. A body that
    /// is no JSON is left as it is: decoding will not know it either.
    ///
    /// # Errors
    /// [`NewerVersion`], as [`readable`].
    pub(crate) fn raise<'a>(
        &self,
        event_type: &str,
        version: i16,
        body: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, NewerVersion> {
        self.check(event_type, version)?;
        let Some(first) = self.step_from(event_type, version) else {
            return Ok(Cow::Borrowed(body));
        };
        let Ok(mut value) = serde_json::from_slice::<Value>(&storable(body)) else {
            return Ok(Cow::Borrowed(body));
        };
        let mut next = Some(first);
        while let Some(upcaster) = next {
            value = (upcaster.step)(value);
            next = self.step_from(event_type, upcaster.from.saturating_add(1));
        }
        Ok(Cow::Owned(super::json(&value)))
    }

    fn step_from(&self, event_type: &str, version: i16) -> Option<&Upcaster> {
        self.upcasters.iter().find(|u| u.from == version && u.event_type == event_type)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A type that changed twice: a number got its unit, then moved into an object.
    const CHANGED: Versions = Versions {
        current: &[("Paused", 3), ("Other", 1)],
        upcasters: &[
            Upcaster { event_type: "Paused", from: 2, step: into_object },
            Upcaster { event_type: "Paused", from: 1, step: into_milliseconds },
        ],
    };

    fn into_milliseconds(mut body: Value) -> Value {
        if let Some(object) = body.as_object_mut()
            && let Some(seconds) = object.remove("seconds").as_ref().and_then(Value::as_i64)
        {
            object.insert("ms".to_owned(), seconds.saturating_mul(1000).into());
        }
        body
    }

    fn into_object(mut body: Value) -> Value {
        if let Some(object) = body.as_object_mut()
            && let Some(ms) = object.remove("ms")
        {
            object.insert("length".to_owned(), json!({ "ms": ms }));
        }
        body
    }

    fn raised(event_type: &str, version: i16, body: &Value) -> Value {
        let body = body.to_string();
        let raised = CHANGED.raise(event_type, version, body.as_bytes()).unwrap();
        serde_json::from_slice(&raised).unwrap()
    }

    #[test]
    fn an_old_body_takes_every_step_to_the_current_version() {
        let current = json!({"length": {"ms": 2000}, "kept": true});
        assert_eq!(raised("Paused", 1, &json!({"seconds": 2, "kept": true})), current);
        assert_eq!(raised("Paused", 2, &json!({"ms": 2000, "kept": true})), current);
    }

    #[test]
    fn a_current_body_and_a_foreign_one_stay_as_they_are() {
        for (event_type, version) in [("Paused", 3), ("Other", 1), ("Foreign", 1), ("Foreign", 9)] {
            let body = br#"{ "seconds": 2 }"#;
            let raised = CHANGED.raise(event_type, version, body).unwrap();
            assert!(matches!(raised, Cow::Borrowed(same) if same == body), "{event_type}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_stays_as_it_is() {
        assert_eq!(CHANGED.raise("Paused", 1, b"\xff{").unwrap().as_ref(), b"\xff{");
    }

    #[test]
    fn a_newer_version_of_a_known_type_is_told_apart() {
        let newer = NewerVersion { event_type: "Paused".to_owned(), version: 4, known: 3 };
        assert_eq!(CHANGED.raise("Paused", 4, b"{}"), Err(newer.clone()));
        assert_eq!(
            newer.to_string(),
            "Paused has version 4 and this build reads up to 3: it was written by a newer build, \
             run that one or a later one"
        );
        assert_eq!(CHANGED.check("Foreign", 4), Ok(()));
    }

    #[test]
    fn every_type_has_a_step_from_each_of_its_old_versions_and_no_other() {
        for versions in [&VERSIONS, &CHANGED] {
            for (name, current) in versions.current {
                for version in FIRST..*current {
                    assert!(versions.step_from(name, version).is_some(), "{name} v{version}");
                }
            }
            for upcaster in versions.upcasters {
                let Upcaster { event_type, from, .. } = upcaster;
                let current = versions.of(event_type).unwrap();
                assert!((FIRST..current).contains(from), "{event_type} v{from}");
                let same = |u: &&Upcaster| u.event_type == *event_type && u.from == *from;
                assert_eq!(versions.upcasters.iter().filter(same).count(), 1, "{event_type}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_body_and_no_version_makes_a_step_fail(
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                r#"\{"(seconds|ms|length)":(-?[0-9]{1,19}|null|\{\}|\[1\]|"x")\}"#
                    .prop_map(String::into_bytes),
            ],
            version in any::<i16>(),
        ) {
            for versions in [&VERSIONS, &CHANGED] {
                for (name, current) in versions.current {
                    prop_assert_eq!(versions.raise(name, version, &body).is_ok(), version <= *current);
                }
            }
        }
    }
}
