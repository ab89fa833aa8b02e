//! Commands to a session: go live, end, retry. Accepted means appended; a command that was given
//! before adds nothing. One that cannot work in the present state is refused, with those that can.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use domain::event::{Event, SessionRef};
use domain::ids::{Subject, derived_id};
use serde::Serialize;
use uuid::Uuid;

use super::{RequestLog, find, read_request};
use crate::Api;
use crate::auth::Caller;
use crate::error::Problem;
use crate::extract::{IdempotencyKey, OptionalBody, SessionId};

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    GoLive,
    End,
    Retry,
}

impl Command {
    /// Its name in the path.
    fn name(self) -> &'static str {
        match self {
            Self::GoLive => "go-live",
            Self::End => "end",
            Self::Retry => "retry",
        }
    }

    /// What is appended.
    fn event(self, session: Uuid) -> Event {
        match self {
            Self::GoLive => Event::GoLiveRequested(SessionRef { session }),
            Self::End => Event::EndRequested(SessionRef { session }),
            Self::Retry => Event::RetryRequested(SessionRef { session }),
        }
    }
}

/// What decides whether a command can work.
#[derive(Debug, Clone, Copy)]
struct Stand<'a> {
    /// The session's status.
    status: &'a str,
    /// Go-live was commanded.
    go_live: bool,
    /// The end was commanded.
    end: bool,
}

impl Stand<'_> {
    /// The commands that can work.
    fn allowed(self) -> Vec<Command> {
        if self.status == "ended" {
            return Vec::new();
        }
        let go_live = (!self.end).then_some(Command::GoLive);
        let retry = (self.status == "failed").then_some(Command::Retry);
        go_live.into_iter().chain([Command::End]).chain(retry).collect()
    }

    /// Whether `command` was given before and still stands. An end that failed is tried again.
    fn has_been_told(self, command: Command) -> bool {
        match command {
            Command::GoLive => self.go_live,
            Command::End => self.end && self.status != "failed",
            Command::Retry => false,
        }
    }

    /// Why `command` cannot work, if so.
    fn refusal(self, command: Command) -> Option<Problem> {
        let allowed = self.allowed();
        if allowed.contains(&command) {
            return None;
        }
        let names: Vec<&'static str> = allowed.into_iter().map(Command::name).collect();
        let end =
            if self.end && self.status != "ended" { " and its end was requested" } else { "" };
        let can = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let detail = format!(
            "{} is not possible: the session is {}{end}; possible now: {can}",
            command.name(),
            self.status,
        );
        Some(Problem::not_now(detail, self.status, names))
    }
}

/// What was accepted.
#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    session: Uuid,
    accepted: bool,
}

/// The answer to a command.
type Answer = Result<(StatusCode, Json<Accepted>), Problem>;

/// Shows the session to the audience, as soon as its encoder sends.
pub(super) async fn go_live(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    SessionId(id): SessionId,
    key: IdempotencyKey,
    OptionalBody(fields): OptionalBody,
) -> Answer {
    fields.finish()?;
    command(&api, &caller, id, Command::GoLive, key).await
}

/// Ends the session.
pub(super) async fn end(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    SessionId(id): SessionId,
    key: IdempotencyKey,
    OptionalBody(fields): OptionalBody,
) -> Answer {
    fields.finish()?;
    command(&api, &caller, id, Command::End, key).await
}

/// Tries again what failed.
pub(super) async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    SessionId(id): SessionId,
    key: IdempotencyKey,
    OptionalBody(fields): OptionalBody,
) -> Answer {
    fields.finish()?;
    command(&api, &caller, id, Command::Retry, key).await
}

/// Appends a command to the request's subject, unless it was given before or cannot work.
///
/// The log says what was commanded, the projection how far it has come: between the two a command
/// may slip through that no longer fits, and then changes nothing.
async fn command(
    api: &Api,
    caller: &Caller,
    id: Uuid,
    command: Command,
    key: IdempotencyKey,
) -> Answer {
    let view = find(api, id).await?;
    let not_found = || Problem::not_found("session");
    let request = read_request(api, &view.source, id).await?.ok_or_else(not_found)?;
    let key = key.0.map(|key| derived_id("command", &[&id.to_string(), command.name(), &key]));
    let stand =
        Stand { status: &view.status, go_live: request.state.go_live, end: request.state.end };
    if !key.is_some_and(|key| has_event(&request, key)) {
        if let Some(problem) = stand.refusal(command) {
            return Err(problem);
        }
        if !stand.has_been_told(command) {
            let subject = Subject::request(&view.source, id);
            api.append(caller, subject, &command.event(id), key).await?;
        }
    }
    Ok((StatusCode::ACCEPTED, Json(Accepted { session: id, accepted: true })))
}

/// Whether the event of `key` is among those of the request: its id follows from the key.
fn has_event(request: &RequestLog, key: Uuid) -> bool {
    let event_id = derived_id("event", &[&key.to_string()]);
    request.events.iter().any(|(stored, _)| stored.event_id == event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(status: &str, end: bool) -> Vec<&'static str> {
        let stand = Stand { status, go_live: false, end };
        stand.allowed().into_iter().map(Command::name).collect()
    }

    #[test]
    fn what_can_work_follows_from_the_state() {
        for status in ["requested", "preparing", "ready", "testing", "live", "interrupted"] {
            assert_eq!(names(status, false), ["go-live", "end"], "{status}");
            assert_eq!(names(status, true), ["end"], "{status}");
        }
        assert_eq!(names("ending", true), ["end"]);
        assert_eq!(names("processing", true), ["end"]);
        assert_eq!(names("failed", false), ["go-live", "end", "retry"]);
        assert_eq!(names("failed", true), ["end", "retry"]);
        assert!(names("ended", true).is_empty());
        assert!(names("ended", false).is_empty());
    }

    #[test]
    fn an_end_that_failed_is_told_again() {
        let stand = |status| Stand { status, go_live: true, end: true };
        assert!(stand("ending").has_been_told(Command::End));
        assert!(!stand("failed").has_been_told(Command::End));
        assert!(!stand("failed").has_been_told(Command::Retry));
        assert!(stand("failed").has_been_told(Command::GoLive));
    }
}
