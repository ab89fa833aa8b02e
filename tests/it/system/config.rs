//! The configuration of a system's processes, in a file that only we can read.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use domain::timer::Policy;
use uuid::Uuid;

use super::{SOURCE, Setup};

/// Token that may only read sessions.
pub(crate) const READER: &str = "reader-0123456789abcdef";

/// Token that may read sessions and push addresses.
pub(crate) const ENCODER: &str = "encoder-0123456789abcdef";

/// Secrets of one system.
pub(crate) struct Secrets {
    /// Token of the API that may do everything.
    pub(crate) admin: String,
    /// Part of the webhook's path.
    pub(crate) path: String,
    /// Permanent token of the platform's account.
    pub(crate) platform: String,
    /// Seals the push addresses.
    pub(crate) sealing_key: String,
}

impl Secrets {
    pub(crate) fn new() -> Self {
        Self {
            admin: secret("admin-"),
            path: secret("path-"),
            platform: secret("1_"),
            sealing_key: format!("{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple()),
        }
    }
}

/// A new secret that begins with `prefix`.
fn secret(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::now_v7().simple())
}

/// The configuration file.
pub(crate) fn text(
    setup: &Setup,
    database: &str,
    platform: &str,
    secrets: &Secrets,
    spool: &Path,
) -> String {
    let ms = |duration: Duration| format!("{}ms", duration.as_millis());
    let Secrets { admin, path, platform: token, sealing_key } = secrets;
    let Setup { log_level, spool_limit, connections, wrap_create, http_call, .. } = setup;
    format!(
        r#"
[database]
url = "{database}"
max_connections = 8

[ingest]
listen = "127.0.0.1:0"
spool_dir = "{spool}"
spool_limit = {spool_limit}
max_connections = {connections}

[api]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[[api.tokens]]
name = "backend"
token = "{admin}"
scopes = ["admin"]

[[api.tokens]]
name = "reader"
token = "{READER}"
scopes = ["sessions:read"]

[[api.tokens]]
name = "encoder"
token = "{ENCODER}"
scopes = ["sessions:read", "ingest:read"]

[sealing]
key = "{sealing_key}"

[session]
{session}

[worker]
lease = "{lease}"
poll = "50ms"
grace = "5s"

[log]
format = "json"
level = "{log_level}"

[[sources]]
name = "{SOURCE}"
base_url = "{platform}"
token = "{token}"
wrap_create = {wrap_create}
{active_streams}

[[sources.webhook_tokens]]
token = "{path}"{http_call}
"#,
        active_streams = active_streams(&setup.policy),
        session = session(&setup.policy),
        lease = ms(setup.lease),
        spool = spool.display(),
    )
}

/// The slots of the source, where they are known.
fn active_streams(policy: &Policy) -> String {
    policy.slots.get(SOURCE).map(|n| format!("active_streams = {n}")).unwrap_or_default()
}

/// The section `session`: how long is waited for what.
fn session(policy: &Policy) -> String {
    let limits = &policy.limits;
    let waits = [
        ("grace", policy.grace),
        ("settle", policy.settle),
        ("slot", policy.slot),
        ("slot_sweep", policy.sweep),
        ("watch", policy.watch),
        ("videos", policy.videos),
        ("sweep", policy.sweep),
        ("recordings", policy.recordings),
        ("recordings_within", policy.recordings_within),
        ("steady", policy.steady),
        ("loop_window", limits.loop_window),
        ("max_call", limits.call),
        ("max_end_call", limits.end_call),
        ("max_slot", limits.slot),
        ("max_encoder", limits.encoder),
        ("max_testing", limits.testing),
        ("max_interrupted", limits.interrupted),
        ("max_failed", limits.failed),
        ("max_videos", limits.videos),
    ];
    let line = |(key, wait): (&str, Duration)| format!("{key} = \"{}ms\"", wait.as_millis());
    waits.map(line).join("\n")
}

/// Writes it where only we can read it.
pub(crate) fn write(path: &Path, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
