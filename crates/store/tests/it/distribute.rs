//! What a Citus cluster asks of the schema and of every statement, checked on a plain PostgreSQL.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::Executor;
use store::{Config, Error, OwnerConnection};

use crate::support::{Db, db};

async fn owner(db: &Db) -> OwnerConnection {
    OwnerConnection::open(&Config::new(db.url.as_str())).await.unwrap()
}

/// Tables that have no slice, and why.
const UNSLICED: [(&str, &str); 10] = [
    ("account_key", "read where values are shown or sent; a reference table"),
    ("endpoint", "few rows, read where an announcement is folded; a reference table"),
    ("installation", "one row; a reference table"),
    ("job_pause", "read by every worker again and again; a reference table"),
    ("migration", "of the migrator; stays on the coordinator"),
    ("process", "a row per worker process; a reference table"),
    ("projection", "read by rebuilds only; stays on the coordinator"),
    ("rate_bucket", "a row per rate that the fleet shares; stays on the coordinator"),
    ("rebuild", "a row per rebuild; stays on the coordinator"),
    ("role_grant", "read by `migrate` only; stays on the coordinator"),
];

#[tokio::test]
async fn every_table_is_keyed_by_slice_or_has_a_reason_not_to_be() {
    let db = db().await;
    let catalogue = owner(&db).await.catalogue().await.unwrap();
    assert_eq!(catalogue.unfit, Vec::<String>::new(), "each unique index contains the slice");
    let known: Vec<&str> = UNSLICED.iter().map(|(name, _)| *name).collect();
    assert_eq!(catalogue.others, known);
    for (what, count) in [
        ("foreign keys", "SELECT count(*) FROM pg_constraint WHERE connamespace = 'tallylight'::regnamespace AND contype = 'f'"),
        ("numbers of a sequence", "SELECT count(*) FROM pg_class WHERE relnamespace = 'tallylight'::regnamespace AND relkind = 'S'"),
        ("sliced tables without a primary key", "SELECT count(*) FROM pg_class c WHERE relnamespace = 'tallylight'::regnamespace AND relkind IN ('r', 'p')
            AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'slice')
            AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"),
    ] {
        assert_eq!(db.number(count).await, 0, "{what}");
    }
}

#[tokio::test]
async fn every_sliced_table_every_trigger_and_append_are_distributed() {
    let db = db().await;
    let catalogue = owner(&db).await.catalogue().await.unwrap();
    let statements = catalogue.statements();
    let at = |text: &str| statements.iter().position(|s| s.contains(text));
    let head =
        at("create_distributed_table('tallylight.slice_head', 'slice', shard_count").unwrap();
    for table in
        ["event", "event_key", "checkpoint", "parked", "job", "job_dead", "sealed", "session"]
    {
        let own = at(&format!("'tallylight.{table}', 'slice', colocate_with")).unwrap();
        assert!(own > head, "{table} lies with the heads");
    }
    let distributed = statements.iter().filter(|s| s.contains("create_distributed_table"));
    assert_eq!(
        distributed.count(),
        catalogue.sliced.len(),
        "each once, partitions with their table"
    );
    let append = at("create_distributed_function('tallylight.append(smallint,");
    assert!(append.is_some_and(|at| at > head), "{statements:#?}");
    assert!(at("create_reference_table('tallylight.process')").is_some());

    // What can run here does, so that no name is wrong: without its triggers the log has none.
    for statement in statements.iter().filter(|s| s.starts_with("DROP TRIGGER")) {
        db.pool.execute(sqlx::AssertSqlSafe(statement.clone())).await.unwrap();
    }
    assert!(owner(&db).await.catalogue().await.unwrap().triggers.is_empty());
}

#[tokio::test]
async fn a_plain_postgresql_is_told_what_is_missing_and_left_as_it_is() {
    let db = db().await;
    let mut owner = owner(&db).await;
    let before = owner.catalogue().await.unwrap();
    let error = owner.distribute().await.unwrap_err();
    assert!(matches!(error, Error::NoCitus), "{error}");
    assert!(error.to_string().contains("CREATE EXTENSION citus"), "{error}");
    assert_eq!(owner.catalogue().await.unwrap(), before);
}

/// Statements on sliced tables that name no slice: how each begins, and why it may. None of them
/// stands between a webhook and its effect but those by which a worker asks over all its slices.
const OVER_ALL_SLICES: [(&str, &str); 38] = [
    (
        "SELECT slice, live_stream_id, status, status_at",
        "sweeps: a source's sessions that are not over",
    ),
    ("SELECT pg_table_size('tallylight.subject_state')", "a rebuild: how much there is to fold"),
    ("SELECT to_date(substr(c.relname, 7), 'YYYY_MM')", "a rebuild: months and their sizes"),
    ("SELECT h.position AS head, coalesce(s.sealed_to, 0)", "the feed: where each slice ends"),
    ("INSERT INTO tallylight.checkpoint (consumer, slice) SELECT $1, generate", "migrate"),
    ("INSERT INTO tallylight.slice_head (slice) SELECT generate_series", "migrate"),
    ("SELECT (SELECT id FROM tallylight.installation) AS installation", "db backup and restore"),
    ("SELECT (extract(epoch FROM min(j.run_at) - now())", "a worker's own leases, joined by slice"),
    ("SELECT min(f.fair_key) FROM tallylight.checkpoint", "a worker's own leases, joined by slice"),
    ("SELECT (extract(epoch FROM min(s.next_fire_at)", "a worker's own leases, joined by slice"),
    ("SELECT s.slice, s.name, s.version, s.cron", "a worker's own leases, joined by slice"),
    (
        "SELECT name, cron, time_zone, kind, args, opts, missed, catch_up, paused, next_fire_at, last_fire_at, last_error, made_at, changed_at FROM tallylight.schedule ORDER BY",
        "schedules list",
    ),
    ("SELECT j.slice, j.id, j.kind, j.subject, j.args", "a worker's own leases, joined by slice"),
    (
        "WITH free AS ( SELECT c.slice FROM tallylight.checkpoint c",
        "a worker's own leases; `renew` falls back to one at a time",
    ),
    ("SELECT count(*) FILTER (WHERE state = 'available')", "jobs status"),
    ("SELECT id, tallylight.job_state(run_epoch", "jobs list"),
    ("SELECT h.slice, h.position AS head, c.position", "status, joined by slice"),
    ("SELECT d.id, d.kind, d.subject, d.args, d.attempt, d.state", "jobs dead"),
    ("SELECT (SELECT count(*) FROM tallylight.event_default)", "maintenance: gauges of history"),
    ("SELECT slice, from_position AS \"from\"", "history list, plan and verify"),
    ("SELECT f.slice, f.subject, f.position, f.error", "parked list, joined by slice"),
    ("SELECT slice, position, subject, error, requested_by", "parked list --skipped"),
    (
        "SELECT position FROM tallylight.checkpoint WHERE consumer = $1 ORDER BY",
        "swap of a rebuild",
    ),
    ("UPDATE tallylight.checkpoint SET epoch = epoch + 1, owner = NULL", "swap of a rebuild"),
    ("SELECT r.id, r.state, r.began_at, r.state_at", "projections status"),
    ("SELECT slice, position, recorded_at, set_aside FROM tallylight.rebuild_slice", "a rebuild"),
    ("SELECT line AS \"line!\" FROM ( SELECT 1 AS t", "digest: reads everything"),
    (
        "SELECT l.live_stream_id, a.account, l.installation",
        "cleanup, daily; its join is not by slice: docs/citus.md",
    ),
    (
        "SELECT s.session_id, s.live_stream_id, s.account, s.status_at, v.videos",
        "cleanup, daily; its join is not by slice: docs/citus.md",
    ),
    ("SELECT d.id AS \"id!\", d.state AS \"state!\", d.attempt AS", "endpoints deliveries"),
    ("SELECT session_id FROM tallylight.session WHERE source", "cleanup: who has a live stream"),
    ("SELECT session_id, live_stream_id, status, requested_at", "cleanup: who made a live stream"),
    ("SELECT session_id, live_stream_id, status_at, detail FROM", "the sweep of old recordings"),
    (
        "SELECT r.session_id, r.source, r.account",
        "sessions by id and lists; their join is not by slice: docs/citus.md",
    ),
    ("SELECT source, live_stream_id, account, installation", "a list over all live streams"),
    ("SELECT r.session_id AS session, r.source,", "accounts erase; its join is not by slice"),
    ("SELECT (SELECT count(*) FROM tallylight.session_request WHERE", "accounts erase --dry-run"),
    (
        "SELECT video_id, status FROM tallylight.video WHERE source",
        "a safety look before a deletion",
    ),
];

/// The texts of all statements, on one line each.
fn statements() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.sqlx");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    let text = |path| {
        let file: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let query = file["query"].as_str().unwrap().to_owned();
        query.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut all: Vec<String> = json.map(text).collect();
    all.sort();
    all
}

/// Whether a statement names its slices: by a filter with a parameter, or as the first columns of
/// what it inserts.
fn names_its_slice(statement: &str) -> bool {
    const BY: [&str; 15] = [
        "slice = $",
        // Rows that bring their slices along: of one slice where the database takes one at a time.
        "FROM unnest($1::smallint[], ",
        "slice = ANY ($",
        "SELECT $1, u.",
        "SELECT $1, r.",
        "(slice, subject, nonce, ciphertext) VALUES ($1,",
        "INSERT INTO tallylight.parked (consumer, slice, position, subject, error, attempts, awaits_build) SELECT $1, $2,",
        "(rebuild, slice, position, recorded_at, set_aside, events, subjects) VALUES ($1, $2,",
        "INSERT INTO tallylight.schedule_fire (slice, name, fire_at) VALUES ($1,",
        "INSERT INTO tallylight.schedule_fire (slice, name, fire_at, job, by_hand) VALUES ($1,",
        "missed, catch_up, paused, next_fire_at) VALUES ($1,",
        "INSERT INTO tallylight.job_step (slice, job, name, kind, value, awaits, until, on_failure, on_cancel, closed_at) VALUES ($1,",
        "INSERT INTO tallylight.event_wait (slice, subject, job, step, job_slice, types, after, until) VALUES ($1,",
        "append($1,",
        "append_batch($1,",
    ];
    BY.iter().any(|by| statement.contains(by))
}

#[tokio::test]
async fn every_statement_names_its_slice_or_is_listed_with_a_reason() {
    let db = db().await;
    let sliced = owner(&db).await.catalogue().await.unwrap().sliced;
    let touches = |statement: &str| {
        let words: BTreeSet<&str> =
            statement.split(|c: char| !(c.is_alphanumeric() || "_.".contains(c))).collect();
        sliced.iter().any(|table| words.contains(format!("tallylight.{table}").as_str()))
    };
    let all = statements();
    assert!(all.len() > 50, "the statements are found");
    let free: Vec<&String> = all.iter().filter(|s| touches(s) && !names_its_slice(s)).collect();
    let listed =
        |statement: &str| OVER_ALL_SLICES.iter().any(|(start, _)| statement.starts_with(start));
    let new: Vec<_> = free.iter().filter(|statement| !listed(statement)).collect();
    assert!(new.is_empty(), "filter on a slice, or list it with a reason: {new:#?}");
    for (start, _) in OVER_ALL_SLICES {
        assert!(free.iter().any(|s| s.starts_with(start)), "no such statement any more: {start}");
    }
}

#[test]
fn no_statement_changes_rows_in_a_with_by_what_differs_from_node_to_node() {
    let volatile = ["clock_timestamp", "random", "nextval"];
    for statement in statements() {
        let changes =
            ["AS ( INSERT", "AS ( UPDATE", "AS ( DELETE", "AS (INSERT", "AS (UPDATE", "AS (DELETE"]
                .iter()
                .any(|change| statement.contains(change));
        let is_volatile = volatile.iter().any(|function| statement.contains(function));
        assert!(!(changes && is_volatile), "{statement}");
        assert!(
            !statement.contains("SKIP LOCKED") || SKIPPING.iter().any(|s| statement.starts_with(s)),
            "Citus takes no SKIP LOCKED over several shards: {statement}"
        );
    }
}

/// Statements with SKIP LOCKED: where Citus refuses this one, each lease is renewed by itself.
const SKIPPING: [&str; 1] = ["WITH free AS ( SELECT c.slice FROM tallylight.checkpoint c"];
