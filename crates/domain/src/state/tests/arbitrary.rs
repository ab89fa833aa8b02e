//! Arbitrary events, calls and outcomes of one live stream and what belongs to it.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::STREAM;
use crate::call::{Call, CallResult};
use crate::cleanup::CleanupPolicy;
use crate::event::{
    Bound, BroadcastChanged, CallFailed, CallIntended, CallSucceeded, CleanupRequested, Event,
    ReconcileRequested, SessionBound, SessionOptions, SessionRef, SessionRequested, TimerElapsed,
    VideoChanged,
};
use crate::ids::{BroadcastId, LiveStreamId, Subject, VideoId, derived_id, intent_id};
use crate::scenario::SOURCE;
use crate::slot::{SlotEvent, SlotGranted, SlotQueued, SlotRequested, SlotsConfigured};
use crate::timer::TimerKind;
use crate::webhook;

/// The bodies of all webhooks in the fixtures.
pub(super) fn webhooks() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/webhooks");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

pub(super) fn session(n: u8) -> Uuid {
    derived_id("session", &[&n.to_string()])
}

pub(super) fn arb_call() -> impl Strategy<Value = Call> {
    let live_stream = LiveStreamId(STREAM);
    let options = SessionOptions::default();
    let (broadcast, video) = (BroadcastId(192_470), VideoId(803_111));
    let status = |status: &str| Call::SetBroadcastStatus { broadcast, status: status.to_owned() };
    prop::sample::select(vec![
        Call::CreateLiveStream {
            name: "n".to_owned(),
            options: options.clone(),
            earlier: Vec::new(),
            only_look: false,
        },
        Call::UpdateLiveStream { live_stream, name: "n".to_owned(), options },
        Call::ClearDvr { live_stream },
        Call::CreateBroadcast {
            live_stream,
            name: "n".to_owned(),
            earlier: Vec::new(),
            only_look: false,
        },
        Call::ActivateLiveStream { live_stream },
        Call::DeactivateLiveStream { live_stream },
        status("live"),
        status("paused"),
        status("finished"),
        Call::StartRecording { live_stream },
        Call::StopRecording { live_stream, since: None },
        Call::DeleteBroadcast { broadcast },
        Call::ObserveLiveStream { live_stream },
        Call::ListVideos { live_stream },
        Call::FetchVideo { video },
        Call::ObserveQuota { check: Vec::new() },
        Call::DeleteLiveStream {
            live_stream,
            run: Uuid::nil(),
            delete_recordings: false,
            policy: CleanupPolicy::default(),
            made_before: None,
        },
        Call::DeleteRecordings {
            live_stream,
            run: Uuid::nil(),
            videos: vec![video],
            made_before: None,
        },
    ])
}

pub(super) fn arb_stream() -> impl Strategy<Value = serde_json::Value> {
    let flag = prop::option::of(any::<bool>());
    (flag.clone(), flag.clone(), flag.clone(), flag).prop_map(
        |(active, live, backup, recording)| {
            json!({"id": STREAM, "active": active, "live": live, "backup_live": backup,
            "recording": recording})
        },
    )
}

pub(super) fn arb_video() -> impl Strategy<Value = serde_json::Value> {
    let status = prop::sample::select(vec!["empty", "pending", "viewable", "ready", "error", "?"]);
    let rendition = prop::sample::select(vec!["processing", "complete", "error"]);
    (803_111..803_114_i64, status, prop::option::of(any::<i64>()), rendition, any::<bool>())
        .prop_map(|(id, status, duration, rendition, tells)| {
            let began = tells.then_some("2022-06-03T13:24:29.000Z");
            json!({"id": id, "status": status, "duration": duration, "stream_id": STREAM,
                "recording_started_at": began,
                "converted_videos": [{"name": "a", "status": rendition}]})
        })
}

pub(super) fn arb_result() -> impl Strategy<Value = CallResult> {
    prop_oneof![
        arb_stream().prop_map(|observed| CallResult::LiveStream { observed }),
        prop::sample::select(vec![json!({"id": 192_470, "status": "live"}), json!(null)])
            .prop_map(|observed| CallResult::Broadcast { observed }),
        Just(CallResult::RecordingStarted { warnings: vec!["w".to_owned()] }),
        Just(CallResult::RecordingRefused { errors: vec!["e".to_owned()] }),
        prop::option::of(arb_video()).prop_map(|video| CallResult::RecordingStopped { video }),
        prop::collection::vec(arb_video(), 0..3)
            .prop_map(|observed| CallResult::Videos { observed }),
        arb_video().prop_map(|observed| CallResult::Video { observed }),
        Just(CallResult::Gone),
        Just(CallResult::Done),
        Just(CallResult::Deleted { videos: Vec::new() }),
        Just(CallResult::Kept { reason: "k".to_owned() }),
        Just(CallResult::Deferred { reason: "d".to_owned() }),
        Just(CallResult::ActiveStreams {
            active: vec![LiveStreamId(STREAM), LiveStreamId(7)],
            inactive: Vec::new(),
        }),
        Just(CallResult::RecordingsDeleted { videos: vec![VideoId(803_111)], kept: Vec::new() }),
    ]
}

pub(super) fn arb_bound() -> impl Strategy<Value = Event> {
    (0..3_u8, any::<[bool; 5]>()).prop_map(|(n, [created, go_live, end, record, auto])| {
        let options = SessionOptions { record, auto_go_live: auto, ..SessionOptions::default() };
        let request = SessionRequested {
            session: session(n),
            source: SOURCE.to_owned(),
            account: None,
            name: "n".to_owned(),
            live_stream: None,
            options,
        };
        let live_stream = LiveStreamId(STREAM);
        let observed = None;
        Event::SessionBound(SessionBound { request, live_stream, created, observed, go_live, end })
    })
}

pub(super) fn arb_slot() -> impl Strategy<Value = SlotEvent> {
    (0..3_u8, 0..3_u64, any::<bool>(), 0..3_u8).prop_map(|(n, ticket, flag, kind)| {
        let (session, live_stream, account) = (session(n), LiveStreamId(STREAM), None);
        match kind {
            0 => SlotEvent::Granted(SlotGranted { session, ticket }),
            1 => SlotEvent::Queued(SlotQueued { session, ticket, place: ticket + 1 }),
            _ if ticket == 0 => SlotEvent::Configured(SlotsConfigured { slots: flag.then_some(1) }),
            _ => {
                let (refused, place) = (flag, None);
                let asked = SlotRequested { session, live_stream, account, ticket, refused, place };
                SlotEvent::Requested(asked)
            }
        }
    })
}

/// Any event that a live stream's subject may hold, and some that it may not.
pub(super) fn arb_event() -> impl Strategy<Value = Event> {
    let subject = Subject::live_stream(SOURCE, LiveStreamId(STREAM));
    let intent = (0..6_u64).prop_map(move |n| intent_id(&subject, n));
    let session = (0..3_u8).prop_map(|n| SessionRef { session: session(n) });
    let webhook = prop::sample::select(webhooks());
    let told =
        arb_stream().prop_map(|stream| json!({"type": "stream", "message": {"stream": stream}}));
    let video = arb_video().prop_filter_map("a video", |video| webhook::video(&video));
    let status = prop::sample::select(vec!["pending", "live", "paused", "finished"]);
    prop_oneof![
        2 => webhook.prop_map(|body| Event::WebhookReceived(webhook::read(&body))),
        4 => told.prop_map(|b| Event::WebhookReceived(webhook::read(b.to_string().as_bytes()))),
        2 => arb_bound(),
        1 => session.clone().prop_map(Event::GoLiveRequested),
        1 => session.clone().prop_map(Event::EndRequested),
        1 => session.prop_map(Event::RetryRequested),
        2 => video.prop_map(|video| Event::VideoChanged(VideoChanged { video })),
        1 => status.prop_map(|status| Event::BroadcastChanged(BroadcastChanged {
            broadcast: BroadcastId(192_470), status: status.to_owned() })),
        1 => Just(Event::Bound(Bound { live_stream: LiveStreamId(STREAM) })),
        1 => any::<bool>().prop_map(|recordings| Event::CleanupRequested(CleanupRequested {
            run: Uuid::nil(), reason: "r".to_owned(), delete_recordings: true,
            policy: CleanupPolicy::default(), made_before: None,
            videos: recordings.then_some(VideoId(803_111)).into_iter().collect() })),
        1 => Just(Event::ReconcileRequested(ReconcileRequested { reason: "r".to_owned() })),
        4 => (intent.clone(), arb_call())
            .prop_map(|(intent, call)| Event::CallIntended(CallIntended { intent, call })),
        4 => (intent.clone(), arb_result())
            .prop_map(|(intent, result)| Event::CallSucceeded(CallSucceeded { intent, result })),
        2 => intent.prop_map(|intent| Event::CallFailed(CallFailed {
            intent, reason: "r".to_owned() })),
        2 => (any::<bool>(), 0..8_u64).prop_map(|(grace, generation)| {
            let timer = if grace { TimerKind::Grace } else { TimerKind::Poll };
            Event::TimerElapsed(TimerElapsed { timer, generation })
        }),
        2 => arb_slot().prop_map(Event::Slot),
        1 => Just(Event::Unrecognized),
    ]
}

pub(super) fn arb_events() -> impl Strategy<Value = Vec<(Event, i64)>> {
    prop::collection::vec((arb_event(), -100..100_000_i64), 0..40)
}
