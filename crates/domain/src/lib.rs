//! The domain: events, state, `evolve`, `decide`, effects and job arguments, as plain values.
//!
//! One way round: an event is appended, [`evolve`](state::evolve) folds it into the state of its
//! subject, [`decide`](decide::decide) names the effects of the change, the worker performs them,
//! and what comes of them is appended again. Nothing here reads a clock, the environment or
//! anything outside its arguments; nothing here fails.
//!
//! * [`ids`], [`slice`](mod@slice): subjects, derived ids, the slice of a subject
//! * [`event`], [`announcement`], [`call`], [`timer`], [`limit`], [`slot`]: what the log
//!   holds
//! * [`webhook`], [`redact`](mod@redact): the platform's bodies, read leniently, without secrets
//! * [`personal`]: what may tell of a person, and how it is kept
//! * [`request`], [`live_stream`], [`session`], [`recording`], [`video`], [`broadcast`],
//!   [`account`], [`quota`], [`cleanup`]: state and its fold
//! * [`state`], [`plan`], [`decide`](mod@decide), [`effect`], [`retry`]: the way round
//! * [`reconcile`]: what a sweep over many live streams looks at, and what it makes of it
//! * [`message`], [`endpoint`]: what the product is told, and who hears it
//! * [`region`]: which transcoding region a user's country has
//! * [`schedule`]: when recurring jobs fire, by cron expression and time zone
//! * [`view`]: rows of the projections; [`summary`]: events in words
//!
//! Words: a *session* is one run on a *live stream*; a *recording* is its ordered parts, each a
//! *video*; a *subject* groups events, a *slice* groups subjects; a *source* is a platform account.

pub mod ids;
pub mod slice;

pub mod announcement;
pub mod call;
pub mod event;
pub mod limit;
pub mod slot;
pub mod timer;

pub mod personal;
pub mod redact;
pub mod webhook;

pub mod account;
pub mod broadcast;
pub mod cleanup;
pub mod live_stream;
pub mod quota;
pub mod recording;
pub mod request;
pub mod session;
pub mod video;

pub mod endpoint;
pub mod message;

pub mod decide;
pub mod effect;
pub mod plan;
pub mod reconcile;
pub mod region;
pub mod retry;
pub mod schedule;
pub mod state;
pub mod summary;
pub mod view;

#[cfg(any(test, feature = "testing"))]
pub mod scenario;
