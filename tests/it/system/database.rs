//! The database as an outsider sees it: what our own code never asks is asked here, and jobs are
//! enqueued as another service would, inside its own transaction.

use domain::ids::Timestamp;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use store::Consumer;
use uuid::Uuid;

/// A connection of somebody else's.
pub(crate) struct Database(PgPool);

impl Database {
    /// Connects.
    pub(crate) async fn connect(url: &str) -> Self {
        Self(PgPool::connect(url).await.unwrap())
    }

    /// Begins a transaction of the caller's own.
    pub(crate) async fn begin(&self) -> Transaction<'static, Postgres> {
        self.0.begin().await.unwrap()
    }

    /// Enqueues a plain job inside the caller's transaction.
    pub(crate) async fn enqueue(
        transaction: &mut Transaction<'static, Postgres>,
        kind: &str,
        args: &Value,
    ) -> Uuid {
        sqlx::query_scalar("SELECT tallylight.enqueue($1, $2)")
            .bind(kind)
            .bind(args)
            .fetch_one(&mut **transaction)
            .await
            .unwrap()
    }

    /// The workers that have told that they live.
    pub(crate) async fn processes(&self) -> Vec<Uuid> {
        sqlx::query_scalar("SELECT id FROM tallylight.process").fetch_all(&self.0).await.unwrap()
    }

    /// When a worker last told that it lives.
    pub(crate) async fn last_seen(&self, worker: Uuid) -> Timestamp {
        sqlx::query_scalar("SELECT seen_at FROM tallylight.process WHERE id = $1")
            .bind(worker)
            .fetch_one(&self.0)
            .await
            .unwrap()
    }

    /// Who holds a slice for a consumer.
    pub(crate) async fn holder(&self, consumer: Consumer, slice: i16) -> Option<Uuid> {
        sqlx::query_scalar(
            "SELECT owner FROM tallylight.checkpoint WHERE consumer = $1 AND slice = $2",
        )
        .bind(consumer.name())
        .bind(slice)
        .fetch_one(&self.0)
        .await
        .unwrap()
    }

    /// Who holds the slices of both consumers; `None`: nobody.
    pub(crate) async fn holders(&self) -> Vec<Option<Uuid>> {
        sqlx::query_scalar("SELECT owner FROM tallylight.checkpoint")
            .fetch_all(&self.0)
            .await
            .unwrap()
    }

    /// Kinds and arguments of the jobs that are left, without those that recur and the timers
    /// that end by themselves. A timer to poll is left as long as somebody waits.
    pub(crate) async fn jobs_left(&self) -> Vec<(String, Value)> {
        sqlx::query_as(
            "SELECT kind, args FROM tallylight.job
              WHERE NOT coalesce((args ->> 'recurs')::bool, false)
                AND NOT (kind = 'timer' AND (args ->> 'timer' <> 'poll' OR run_at > now() + interval '5 s'))",
        )
        .fetch_all(&self.0)
        .await
        .unwrap()
    }

    /// Whether a job is among the living or the dead.
    pub(crate) async fn has_job(&self, id: Uuid) -> bool {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tallylight.job WHERE id = $1)
                 OR EXISTS (SELECT FROM tallylight.job_dead WHERE id = $1)",
        )
        .bind(id)
        .fetch_one(&self.0)
        .await
        .unwrap()
    }

    /// How often events with these ids are stored, in the order of the ids.
    pub(crate) async fn stored(&self, event_ids: &[Uuid]) -> Vec<i64> {
        sqlx::query_scalar(
            "SELECT count(e.event_id) FROM unnest($1) WITH ORDINALITY AS asked (id, n)
               LEFT JOIN tallylight.event e ON e.event_id = asked.id GROUP BY n ORDER BY n",
        )
        .bind(event_ids)
        .fetch_all(&self.0)
        .await
        .unwrap()
    }

    /// Every row of every table as text; bytes stand there in hexadecimal.
    pub(crate) async fn everything(&self) -> Vec<String> {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
              WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
        )
        .fetch_all(&self.0)
        .await
        .unwrap();
        let mut rows = Vec::new();
        for table in tables {
            let all = format!("SELECT '{table} ' || t::text FROM {table} AS t");
            rows.extend(
                sqlx::query_scalar::<_, String>(AssertSqlSafe(all))
                    .fetch_all(&self.0)
                    .await
                    .unwrap(),
            );
        }
        rows
    }
}
