//! `session`: looks at sessions and commands them, straight in the database.

use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use domain::event::{Event, NewEvent, SessionRef};
use domain::ids::{Subject, Timestamp};
use store::{AsOf, Page, SealingKey, SessionFilter, SessionView, Store};
use uuid::Uuid;

use crate::cli::Session;
use crate::config::Config;
use crate::database::with_store;
use crate::home;
use crate::narrate;
use crate::output::say;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Session) -> Result<()> {
    with_store(&config, async |store| {
        let key = home::sealing_key(&config)?;
        let key = key.as_ref();
        match command {
            Session::List { status, limit } => list(store, key, status, limit).await?,
            Session::Show { id, as_of } => show(store, key, id, as_of).await?,
            Session::GoLive { id } => command_session(store, id, Event::GoLiveRequested).await?,
            Session::End { id } => command_session(store, id, Event::EndRequested).await?,
            Session::Retry { id } => command_session(store, id, Event::RetryRequested).await?,
        }
        Ok(())
    })
    .await
}

async fn list(
    store: &Store,
    key: Option<&SealingKey>,
    status: Option<String>,
    limit: i64,
) -> Result<()> {
    let filter = SessionFilter { status, ..SessionFilter::default() };
    let mut sessions = store.sessions(&filter, &Page { limit, before: None }).await?;
    store.open_sessions(key, &mut sessions).await?;
    if sessions.is_empty() {
        say("no sessions");
    }
    for s in sessions {
        let at = s.requested_at.format("%F %T");
        let stream = s.live_stream.map_or_else(|| "-".to_owned(), |id| id.to_string());
        say(format!("{}  {at}  {:<11}  stream {stream:<8}  {}", s.id, s.status, s.name));
    }
    Ok(())
}

async fn show(store: &Store, key: Option<&SealingKey>, id: Uuid, at: Option<AsOf>) -> Result<()> {
    let mut session = find(store, id).await?;
    if let Some(at) = at {
        let Some(then) = store.session_as_of(&session.source, id, at).await? else {
            bail!("nothing was known of session {id} then");
        };
        session = then.session;
    }
    let mut sessions = [session];
    store.open_sessions(key, &mut sessions).await?;
    let [session] = sessions;
    say(format!("session   {id}"));
    say(format!("name      {}", session.name));
    say(format!("status    {}", session.status));
    say(format!("source    {}", session.source));
    if let Some(live_stream) = session.live_stream {
        say(format!("stream    {live_stream}"));
    }
    if at.is_none()
        && let Some(place) = store.slot_place(&session).await?
    {
        say(format!("waits     for a slot, as number {place}"));
    }
    if let Some(reason) = &session.failure {
        say(format!("failed    {reason}"));
    }
    if let Some(detail) = &session.detail {
        if let Some(failure) = &detail.failure {
            say(format!("failed    {}: {}", failure.call, failure.reason));
        }
        if let Some(reason) = &detail.end_reason {
            say(format!("ended     {reason}"));
        }
        for problem in &detail.problems {
            say(format!("problem   {problem}"));
        }
        for (n, part) in detail.parts.iter().enumerate() {
            let seconds = part.duration_ms.unwrap_or_default() / 1000;
            let by_hand = if part.by_hand { ", by hand" } else { "" };
            let overdue = if part.overdue { ", overdue" } else { "" };
            let (video, status) = (part.video, &part.status);
            say(format!("part {}    video {video} {status} {seconds} s{by_hand}{overdue}", n + 1));
        }
        for gap in &detail.gaps {
            say(format!("gap       {} ms after part {}", gap.ms, gap.after_part));
        }
    }
    say("timeline");
    for line in timeline(store, key, &session, at).await? {
        say(line);
    }
    Ok(())
}

/// The events of the session's subjects, in order of time.
async fn timeline(
    store: &Store,
    key: Option<&SealingKey>,
    session: &SessionView,
    at: Option<AsOf>,
) -> Result<Vec<String>> {
    let mut subjects = vec![Subject::request(&session.source, session.id)];
    subjects.extend(session.live_stream.map(|id| Subject::live_stream(&session.source, id)));
    let mut events = Vec::new();
    for subject in &subjects {
        let mut position = 0;
        loop {
            let page = store.read_subject(subject, position, 1_000).await?;
            let Some(last) = page.last() else { break };
            position = last.position;
            // A live stream that is reused has a history before this session.
            events.extend(page.into_iter().filter(|e| e.received_at >= session.requested_at));
        }
    }
    if let Some(at) = at {
        let until = store.time_of(at).await?;
        events.retain(|event| event.recorded_at <= until);
    }
    store.open_events(key, &mut events).await?;
    events.sort_by_key(|event| event.recorded_at);
    let line = |event| {
        let told = narrate::tell(event)?;
        Some(format!("  {}  {told}", event.recorded_at.format("%F %T%.3f")))
    };
    Ok(events.iter().filter_map(line).collect())
}

async fn command_session(store: &Store, id: Uuid, command: fn(SessionRef) -> Event) -> Result<()> {
    let session = find(store, id).await?;
    let event = command(SessionRef { session: id });
    let subject = Subject::request(&session.source, id);
    let now = Timestamp::from(SystemTime::now());
    let name = event.name();
    store.append_one(NewEvent::new(subject, &event, now, Uuid::now_v7())).await?;
    say(format!("{name} appended; `tallylight session show {id}` tells what came of it"));
    Ok(())
}

async fn find(store: &Store, id: Uuid) -> Result<SessionView> {
    match store.session(id).await.context("read the session")? {
        Some(session) => Ok(session),
        None => bail!("session {id} is not known: `tallylight session list` shows which are"),
    }
}
