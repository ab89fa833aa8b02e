//! Leave to call, on a clock that the test moves: what is put off, until when, and what that costs.

use std::sync::Arc;

use domain::ids::{Subject, Timestamp};
use domain::slice::SliceCount;
use serde_json::json;
use store::SealingKey;
use store::testing::{Fate, Line, Memory};
use uuid::Uuid;

use super::*;
use crate::Config;

/// A process whose store is in memory, on the runtime's clock.
fn context(rates: Rates) -> Context {
    context_over(rates, |memory| memory)
}

fn context_over(rates: Rates, over: impl FnOnce(Memory) -> Memory) -> Context {
    let begun = Instant::now();
    let clock = move || Timestamp::default() + Instant::now().duration_since(begun);
    let store = over(Memory::new(SliceCount::DEFAULT, clock));
    let config = Config { rates, chance: || 0.0, ..Config::default() };
    Context::new(store, HashMap::new(), SealingKey::new([7; 32]), config)
}

/// A source that may be called so often.
fn rated(per_second: f64, burst: f64) -> Rates {
    let rate = Rate::new(per_second, Some(burst)).unwrap();
    Rates { sources: HashMap::from([("a".to_owned(), rate)]), ..Rates::default() }
}

fn job(errors: i32) -> ClaimedJob {
    ClaimedJob {
        slice: 0,
        epoch: 1,
        id: Uuid::now_v7(),
        kind: "http_call".to_owned(),
        subject: Subject::job(Uuid::nil()),
        args: json!({}),
        attempt: errors + 1,
        errors,
        max_attempts: 5,
        causation_id: None,
        correlation_id: None,
        waits: None,
    }
}

async fn ask(ctx: &Context, errors: i32) -> Result<Permit, Duration> {
    ask_of(ctx, "a", errors).await
}

async fn ask_of(ctx: &Context, source: &str, errors: i32) -> Result<Permit, Duration> {
    match admit(ctx, &job(errors), Destination::source(ctx, source)).await {
        Ok(permit) => Ok(permit),
        Err(JobError::Snooze { after, .. }) => Err(after),
        Err(other) => panic!("nothing else puts a call off: {other}"),
    }
}

async fn fail_until_paused(ctx: &Context) -> Duration {
    for _ in 0..100 {
        match ask(ctx, 0).await {
            Ok(permit) => permit.saw(Sign::Down),
            Err(wait) => return wait,
        }
    }
    panic!("the breaker did not open")
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_is_paused_until_its_probe_and_others_are_not() {
    let ctx = context(Rates::default());
    let wait = fail_until_paused(&ctx).await;
    assert!(wait >= Duration::from_secs(2) && wait <= Duration::from_secs(5), "{wait:?}");
    let other = admit(&ctx, &job(0), Destination::source(&ctx, "b")).await;
    assert!(other.is_ok());

    tokio::time::advance(wait).await;
    let probe = ask(&ctx, 3).await.unwrap();
    assert_eq!(ask(&ctx, 0).await.unwrap_err(), Duration::from_secs(5), "one probe at a time");
    probe.saw(Sign::Up);
    assert!(ask(&ctx, 0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_probe_come_again_one_after_another() {
    let ctx = context(Rates::default());
    let first = fail_until_paused(&ctx).await;
    for n in 1..=3 {
        assert_eq!(ask(&ctx, 0).await.unwrap_err(), first + APART * n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_cancelled_leaves_its_place_to_the_next_call() {
    let ctx = context(Rates::default());
    let wait = fail_until_paused(&ctx).await;
    tokio::time::advance(wait).await;
    drop(ask(&ctx, 0).await.unwrap());
    let next = ask(&ctx, 0).await.unwrap();
    assert!(next.ticket.is_probe);
}

#[tokio::test(start_paused = true)]
async fn further_tries_wait_when_too_many_are_made_and_first_ones_do_not() {
    let ctx = context(Rates::default());
    let mut further = 0;
    let wait = loop {
        match ask(&ctx, 1).await {
            Ok(_) => further += 1,
            Err(wait) => break wait,
        }
    };
    assert_eq!(further, 20);
    assert!(ask(&ctx, 0).await.is_ok());
    tokio::time::advance(wait).await;
    assert!(ask(&ctx, 1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_token_waits_for_the_next_one_and_keeps_its_credit() {
    let ctx = context(rated(0.1, 1.0));
    assert!(ask(&ctx, 1).await.is_ok());
    for _ in 0..100 {
        assert!(ask(&ctx, 1).await.is_err());
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(ask(&ctx, 1).await.is_ok(), "what was not made cost no credit");
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_one_source_is_not_spent_by_another() {
    let mut rates = rated(0.1, 1.0);
    rates.sources.insert("b".to_owned(), Rate::new(0.1, Some(1.0)).unwrap());
    let ctx = context(rates);
    assert!(ask_of(&ctx, "a", 0).await.is_ok());
    assert!(ask_of(&ctx, "a", 0).await.is_err(), "its rate is spent");
    assert!(ask_of(&ctx, "b", 0).await.is_ok());
    assert!(ask_of(&ctx, "c", 0).await.is_ok(), "and one without a rate has none to spend");
}

#[tokio::test(start_paused = true)]
async fn further_tries_at_one_source_leave_those_at_another_alone() {
    let ctx = context(Rates::default());
    while ask_of(&ctx, "a", 1).await.is_ok() {}
    assert!(ask_of(&ctx, "b", 1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn every_request_of_a_run_costs_a_token_and_waits_for_it() {
    let ctx = context(rated(0.5, 2.0));
    let begun = Instant::now();
    let permit = ask(&ctx, 0).await.unwrap();
    for _ in 0..5 {
        permit.pass().await;
    }
    // Two at once, the other three every two seconds.
    assert_eq!(begun.elapsed().as_secs(), 6);
}

#[derive(Debug)]
struct Away;

impl Line for Away {
    fn fate(&self, _: &'static str) -> Fate {
        Fate::Refused
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_is_made_on_a_token_that_the_database_did_not_give() {
    let ctx = context_over(rated(10.0, 10.0), |memory| memory.over(Arc::new(Away)));
    assert_eq!(ask(&ctx, 0).await.unwrap_err(), NO_ANSWER_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_busy_is_asked_by_nobody_before_it_wants_to_be() {
    let ctx = context(Rates::default());
    let after = Duration::from_secs(7);
    for _ in 0..3 {
        ask(&ctx, 0).await.unwrap().saw(Sign::Busy { after: Some(after) });
    }
    assert_eq!(ask(&ctx, 0).await.unwrap_err(), after);
    assert!(ask_of(&ctx, "b", 0).await.is_ok());
    tokio::time::advance(after).await;
    let permit = ask(&ctx, 0).await.unwrap();
    // A run that makes more requests waits for each turn.
    let begun = Instant::now();
    for _ in 0..3 {
        permit.pass().await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
}
