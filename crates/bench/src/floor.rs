//! Floors: what plain PostgreSQL does for the same bytes, with its own tools, on the same cluster.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::processes::output;

/// One-row INSERTs by pgbench: 64 clients, prepared, a row of the same bytes per transaction. The
/// table is what one would make by hand: a bigserial key, and one unique index over event ids.
pub(crate) struct Inserts {
    payload: String,
}

/// Its clients: half of what the webhooks come on, as many as PostgreSQL's own limit of 100
/// connections takes beside others.
const CLIENTS: &str = "64";

/// Threads of pgbench.
const THREADS: &str = "2";

impl Inserts {
    /// Makes the table and the script.
    pub(crate) async fn prepare(cluster: &Cluster, payload: &[u8]) -> Result<Self> {
        let mut connection = cluster.connect().await?;
        sqlx::raw_sql(
            "CREATE TABLE public.floor (id bigserial PRIMARY KEY, event_id uuid NOT NULL UNIQUE,
                                        payload text NOT NULL)",
        )
        .execute(&mut connection)
        .await
        .context("make the floor's table")?;
        let script = cluster.directory().join("floor.sql");
        let mut file = std::fs::File::create(script).context("write the floor's script")?;
        file.write_all(
            b"INSERT INTO public.floor (event_id, payload) VALUES (gen_random_uuid(), :payload);\n",
        )?;
        let payload = String::from_utf8(payload.to_vec()).context("the payload is text")?;
        Ok(Self { payload })
    }

    /// Runs one turn and returns rows per second, as pgbench tells them, after a check that all
    /// of them are there.
    pub(crate) async fn turn(&self, cluster: &Cluster, time: Duration) -> Result<f64> {
        let before = count(cluster).await?;
        let mut command = postgres_client(cluster, "pgbench")?;
        command
            .args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", THREADS])
            .args(["-T", &time.as_secs().to_string()])
            .arg("-f")
            .arg(cluster.directory().join("floor.sql"))
            .arg("-D")
            .arg(format!("payload={}", self.payload));
        let told = output(&mut command).await?;
        let rows = count(cluster).await? - before;
        let done = number(&told, "number of transactions actually processed: ")?;
        #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
        if (rows as f64 - done).abs() > 0.5 {
            bail!("pgbench tells of {done} rows, the table has {rows} more");
        }
        number(&told, "tps = ")
    }
}

async fn count(cluster: &Cluster) -> Result<i64> {
    let mut connection = cluster.connect().await?;
    sqlx::query_scalar("SELECT count(*) FROM public.floor")
        .fetch_one(&mut connection)
        .await
        .context("count the floor's rows")
}

/// A program of PostgreSQL's, told where the database is without its password among the arguments.
pub(crate) fn postgres_client(cluster: &Cluster, program: &str) -> Result<Command> {
    let url = cluster.url();
    let address = Address::of(&url).context("read the cluster's address")?;
    let mut command = Command::new(cluster.program(program));
    command
        .env_clear()
        .env("PGUSER", address.user)
        .env("PGPASSWORD", address.password)
        .env("PGHOST", address.host)
        .env("PGPORT", address.port)
        .env("PGDATABASE", address.database);
    Ok(command)
}

/// Parts of `postgres://user:password@host:port/database`, as the managed cluster writes it.
struct Address<'a> {
    user: &'a str,
    password: &'a str,
    host: &'a str,
    port: &'a str,
    database: &'a str,
}

impl<'a> Address<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (login, place) = url.strip_prefix("postgres://")?.split_once('@')?;
        let (user, password) = login.split_once(':')?;
        let (place, database) = place.split_once('/')?;
        let (host, port) = place.split_once(':')?;
        Some(Self { user, password, host, port, database })
    }
}

/// The number after `name` in what pgbench tells.
fn number(told: &str, name: &str) -> Result<f64> {
    let line = told.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("pgbench tells no \"{name}\": {told}"))?;
    let end = line.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(line.len());
    line[..end].parse().with_context(|| format!("read \"{line}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_pgbench_are_read() {
        let told = "number of transactions actually processed: 91234\n\
                    number of failed transactions: 0 (0.000%)\n\
                    tps = 9123.456789 (without initial connection time)\n";
        assert!((number(told, "tps = ").unwrap() - 9_123.456_789).abs() < 1e-6);
        let done = number(told, "number of transactions actually processed: ").unwrap();
        assert!((done - 91_234.0).abs() < 0.5);
        assert!(number(told, "latency average = ").is_err());
    }

    #[test]
    fn the_address_of_a_managed_cluster_is_taken_apart() {
        let address = Address::of("postgres://tallylight:a-b_c@127.0.0.1:25432/tallylight");
        let Address { user, password, host, port, database } = address.unwrap();
        assert_eq!(
            [user, password, host, port, database],
            ["tallylight", "a-b_c", "127.0.0.1", "25432", "tallylight"]
        );
    }
}
