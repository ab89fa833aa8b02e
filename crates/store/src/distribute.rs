//! Distributes an installation over the nodes of a Citus cluster, by slice.
//!
//! A table is *sliced* if it has a column `slice`; all of them lie together, so that a transaction
//! on one slice stays on one node. The tables are read from the catalogue, so that none can be
//! forgotten; which statements follow from it is decided without a database. Adding nodes and
//! moving shards is Citus's own work.

use sqlx::{Connection, Executor};

use crate::{Error, OwnerConnection};

/// Shards of each table. On 64 of them, 256 slices lie 144 to 112 on two nodes; 64 slices lie 39 to
/// 25. More shards would cost connections in every statement over all slices.
const SHARDS: u32 = 64;

/// Most events that are copied to the nodes. The copy locks the log until it is done.
const MOST_EVENTS: i64 = 1_000_000;

/// Tables without a slice that every node reads.
const REFERENCE: [&str; 5] = ["account_key", "endpoint", "installation", "job_pause", "process"];

/// What has to be distributed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Tables with a slice, partitions left out.
    pub sliced: Vec<String>,
    /// Tables without.
    pub others: Vec<String>,
    /// Sliced tables with a primary key or unique index that does not contain the slice.
    pub unfit: Vec<String>,
    /// Triggers, as table and name.
    pub triggers: Vec<(String, String)>,
    /// Functions whose first argument is `p_slice`, with their argument types.
    pub functions: Vec<String>,
}

impl Catalogue {
    /// What is still to be done where `done` is distributed already.
    fn without(mut self, done: &[String]) -> Self {
        self.sliced.retain(|table| !done.contains(table));
        self.others.retain(|table| !done.contains(table));
        self
    }

    /// The statements that distribute it, in order.
    pub fn statements(&self) -> Vec<String> {
        let mut all = Vec::new();
        // Citus refuses triggers on distributed tables; privileges are the wall that is left.
        for (table, trigger) in &self.triggers {
            all.push(format!("DROP TRIGGER {trigger} ON tallylight.{table}"));
        }
        // A month that is made later is a partition of a distributed table when its trigger is.
        all.push(
            "ALTER FUNCTION tallylight.attach_month(text, timestamp with time zone) \
             SET citus.enable_unsafe_triggers = 'on'"
                .to_owned(),
        );
        let others = self.others.iter().filter(|table| REFERENCE.contains(&table.as_str()));
        all.extend(
            others.map(|table| format!("SELECT create_reference_table('tallylight.{table}')")),
        );
        let is_first = |table: &&String| *table == "slice_head";
        all.extend(self.sliced.iter().filter(is_first).map(|table| {
            format!(
                "SELECT create_distributed_table('tallylight.{table}', 'slice', shard_count => {SHARDS})"
            )
        }));
        all.extend(self.sliced.iter().filter(|table| !is_first(table)).map(|table| {
            format!(
                "SELECT create_distributed_table('tallylight.{table}', 'slice', \
                 colocate_with => 'tallylight.slice_head')"
            )
        }));
        all.extend(self.functions.iter().map(|function| {
            format!(
                "SELECT create_distributed_function('{function}', 'p_slice', \
                 colocate_with => 'tallylight.slice_head')"
            )
        }));
        all
    }
}

impl OwnerConnection {
    /// Reads from the catalogue what has to be distributed.
    pub async fn catalogue(&mut self) -> Result<Catalogue, Error> {
        let tables = sqlx::query!(
            r#"SELECT c.relname::text AS "name!", a.attnum IS NOT NULL AS "sliced!",
                      EXISTS (SELECT FROM pg_index i
                               WHERE i.indrelid = c.oid AND i.indisunique
                                 AND NOT a.attnum = ANY (i.indkey::smallint[])) AS "unfit!"
                 FROM pg_class c
                 LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'slice'
                WHERE c.relnamespace = 'tallylight'::regnamespace AND c.relkind IN ('r', 'p')
                  AND NOT c.relispartition
                ORDER BY c.relname"#
        )
        .fetch_all(&mut self.0)
        .await?;
        let triggers = sqlx::query!(
            r#"SELECT c.relname::text AS "table!", t.tgname::text AS "name!"
                 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                WHERE c.relnamespace = 'tallylight'::regnamespace AND NOT t.tgisinternal
                  AND t.tgparentid = 0
                ORDER BY 1, 2"#
        )
        .fetch_all(&mut self.0)
        .await?;
        let functions = sqlx::query_scalar!(
            r#"SELECT 'tallylight.' || p.proname || '(' || oidvectortypes(p.proargtypes) || ')' AS "name!"
                 FROM pg_proc p
                WHERE p.pronamespace = 'tallylight'::regnamespace AND p.proargnames[1] = 'p_slice'
                ORDER BY 1"#
        )
        .fetch_all(&mut self.0)
        .await?;
        let names = |wanted: fn(bool, bool) -> bool| {
            let rows = tables.iter().filter(|row| wanted(row.sliced, row.unfit));
            rows.map(|row| row.name.clone()).collect()
        };
        Ok(Catalogue {
            sliced: names(|sliced, _| sliced),
            others: names(|sliced, _| !sliced),
            unfit: names(|sliced, unfit| sliced && unfit),
            triggers: triggers.into_iter().map(|row| (row.table, row.name)).collect(),
            functions,
        })
    }

    /// Distributes what is not distributed yet, in one transaction. Returns how many tables.
    ///
    /// # Errors
    /// [`Error::NoCitus`] on a plain PostgreSQL, [`Error::NotDistributable`] with what is in the
    /// way; nothing is changed then.
    pub async fn distribute(&mut self) -> Result<usize, Error> {
        let has_citus = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') AS "has!""#
        )
        .fetch_one(&mut self.0)
        .await?;
        if !has_citus {
            return Err(Error::NoCitus);
        }
        let refuse = |reason: String| Err(Error::NotDistributable { reason });
        let programs = self.programs().await?;
        if programs > 0 {
            return refuse(format!(
                "{programs} connections of Tallylight are open: stop its roles and a rebuild first"
            ));
        }
        // Citus's own catalogue: no plain server can check this query.
        let done: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_dist_partition d JOIN pg_class c ON c.oid = d.logicalrel
              WHERE c.relnamespace = 'tallylight'::regnamespace",
        )
        .fetch_all(&mut self.0)
        .await?;
        let events = self.present().await?.map_or(0, |present| present.events);
        if done.is_empty() && events > MOST_EVENTS {
            return refuse(format!(
                "the log holds {events} events and up to {MOST_EVENTS} are copied: distribute an \
                 installation while it is new"
            ));
        }
        let catalogue = self.catalogue().await?.without(&done);
        if !catalogue.unfit.is_empty() {
            let tables = catalogue.unfit.join(", ");
            return refuse(format!("a unique index without the slice is on {tables}"));
        }
        if catalogue.sliced.is_empty() {
            return Ok(0);
        }
        let mut tx = self.0.begin().await?;
        // Reference and distributed tables in one transaction want their shards one by one.
        tx.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'").await?;
        for statement in catalogue.statements() {
            tx.execute(sqlx::AssertSqlSafe(statement)).await?;
        }
        tx.commit().await?;
        Ok(catalogue.sliced.len())
    }
}
