//! Where subjects lie: what is keyed by slice must hold when two subjects share one.

use domain::ids::{LiveStreamId, Subject, session_id};

use crate::system::{SOURCE, Setup, TestSystem};

#[tokio::test]
async fn a_session_whose_request_lies_in_the_slice_of_its_live_stream_runs_as_any_other() {
    let system = TestSystem::start(Setup::default()).await;
    // The simulator's first live stream has this id.
    let stream = system.store.slice_of(&Subject::live_stream(SOURCE, LiveStreamId(320_423)));
    let lies_there = |key: &String| {
        let request = Subject::request(SOURCE, session_id(SOURCE, key));
        system.store.slice_of(&request) == stream
    };
    let key = (0..1000).map(|n| format!("same-slice-{n}")).find(lies_there).unwrap();
    let on_air = system.on_air(&key).await;
    assert_eq!(on_air.stream, 320_423);
    let end = system.finish(on_air.session).await;
    assert!(end.is_all_ready());
    system.end().await;
}
