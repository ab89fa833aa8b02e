//! What a backup and a restore need of the database; PostgreSQL's own programs do the copying.
//!
//! An installation is restored beside nothing: what is there is *set aside* under another schema
//! name first, put back if the restore fails, and dropped once it has succeeded. The new
//! incarnation is `migrate`'s doing. Starting programs and asking people is not this file's job.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use crate::{Config, Error, connect_options};

/// What a database holds before a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Which installation; `None`: the schema is there and the tables are not.
    pub installation: Option<Uuid>,
    /// Events of its log.
    pub events: i64,
    /// Its live jobs.
    pub jobs: i64,
}

impl Present {
    /// Whether it was made and never used, so that nothing is lost with it.
    pub fn is_unused(&self) -> bool {
        self.installation.is_some() && self.events == 0 && self.jobs == 0
    }
}

/// A connection for what the owner of the schema does while no role runs.
#[derive(Debug)]
pub struct OwnerConnection(pub(crate) PgConnection);

impl OwnerConnection {
    /// Connects to the database of `config`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where nothing answers or it does not exist.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        Ok(Self(connect_options(config)?.connect().await?))
    }

    /// The server's major version, such as 15.
    pub async fn server_major(&mut self) -> Result<u32, Error> {
        let number = sqlx::query_scalar!(
            r#"SELECT current_setting('server_version_num')::int / 10000 AS "major!""#
        )
        .fetch_one(&mut self.0)
        .await?;
        Ok(u32::try_from(number).unwrap_or_default())
    }

    /// Connections of ours to this database besides this one: programs that still run. A role that
    /// may not see whose a connection is counts it.
    pub async fn programs(&mut self) -> Result<i64, Error> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                  AND coalesce(application_name, 'tallylight') = 'tallylight'"#
        )
        .fetch_one(&mut self.0)
        .await?;
        Ok(count)
    }

    /// What the database holds; `None`: nothing of ours.
    ///
    /// # Errors
    /// [`Error::SetAside`] where an earlier restore was interrupted after its work was done. One
    /// interrupted before that is undone first.
    pub async fn present(&mut self) -> Result<Option<Present>, Error> {
        let found = sqlx::query!(
            r#"SELECT to_regnamespace('tallylight') IS NOT NULL AS "schema!",
                      to_regnamespace('tallylight_replaced') IS NOT NULL AS "set_aside!",
                      to_regclass('tallylight.installation') IS NOT NULL AS "tables!""#
        )
        .fetch_one(&mut self.0)
        .await?;
        match (found.schema, found.set_aside) {
            (true, true) => return Err(Error::SetAside),
            (false, false) => return Ok(None),
            (false, true) => self.put_back().await?,
            (true, false) if !found.tables => {
                return Ok(Some(Present { installation: None, events: 0, jobs: 0 }));
            }
            (true, false) => {}
        }
        let row = sqlx::query!(
            r#"SELECT (SELECT id FROM tallylight.installation) AS installation,
                      (SELECT coalesce(sum(position), 0)::bigint FROM tallylight.slice_head) AS "events!",
                      (SELECT count(*) FROM tallylight.job) AS "jobs!""#
        )
        .fetch_one(&mut self.0)
        .await?;
        let Some(installation) = row.installation else {
            return Ok(Some(Present { installation: None, events: row.events, jobs: row.jobs }));
        };
        let installation = Some(installation);
        Ok(Some(Present { installation, events: row.events, jobs: row.jobs }))
    }

    /// Sets the installation aside, whole.
    pub async fn set_aside(&mut self) -> Result<(), Error> {
        sqlx::query!("ALTER SCHEMA tallylight RENAME TO tallylight_replaced")
            .execute(&mut self.0)
            .await?;
        Ok(())
    }

    /// Puts back what was set aside; nothing may have taken its place.
    pub async fn put_back(&mut self) -> Result<(), Error> {
        sqlx::query!("ALTER SCHEMA tallylight_replaced RENAME TO tallylight")
            .execute(&mut self.0)
            .await?;
        Ok(())
    }

    /// Drops what was set aside, if anything was.
    pub async fn drop_set_aside(&mut self) -> Result<(), Error> {
        sqlx::query!("DROP SCHEMA IF EXISTS tallylight_replaced CASCADE")
            .execute(&mut self.0)
            .await?;
        Ok(())
    }

    /// Ends the connection.
    pub async fn close(self) -> Result<(), Error> {
        self.0.close().await?;
        Ok(())
    }
}

/// How PostgreSQL's own programs reach the database of `config`: names and values of environment
/// variables, so that the password stands in nobody's list of processes.
///
/// # Errors
/// [`Error::BadUrl`].
pub fn libpq_environment(config: &Config) -> Result<Vec<(&'static str, SecretString)>, Error> {
    let options = connect_options(config)?;
    let host = match options.get_socket() {
        Some(socket) => socket.to_string_lossy().into_owned(),
        None => options.get_host().trim_start_matches('[').trim_end_matches(']').to_owned(),
    };
    let user = options.get_username();
    let mut all = vec![
        ("PGHOST", host),
        ("PGPORT", options.get_port().to_string()),
        ("PGUSER", user.to_owned()),
        // As for any client, the role's own name is the default.
        ("PGDATABASE", options.get_database().unwrap_or(user).to_owned()),
        ("PGAPPNAME", "tallylight".to_owned()),
    ];
    // What has no reader of its own stands in the address that the options make of themselves.
    let url = options.to_url_lossy();
    if let Some(password) = url.password() {
        all.push(("PGPASSWORD", percent_decoded(password)));
    }
    let mode = url.query_pairs().find(|(name, _)| name == "sslmode");
    all.extend(mode.map(|(_, value)| ("PGSSLMODE", value.into_owned())));
    // Certificates as they were given: the driver tells them in words of its own.
    let query = config.url.expose_secret().split_once('?').map_or("", |(_, query)| query);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let variable = match name {
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "PGSSLROOTCERT",
            "sslcert" | "ssl-cert" => "PGSSLCERT",
            "sslkey" | "ssl-key" => "PGSSLKEY",
            _ => continue,
        };
        all.push((variable, percent_decoded(value)));
    }
    Ok(all.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
}

/// Reads text that was percent-encoded for an address.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|h| str::from_utf8(h).ok());
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn environment(url: &str) -> Vec<(&'static str, String)> {
        let all = libpq_environment(&Config::new(url)).unwrap();
        all.into_iter().map(|(name, value)| (name, value.expose_secret().to_owned())).collect()
    }

    fn value(url: &str, name: &str) -> Option<String> {
        environment(url).into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    #[test]
    fn an_address_reaches_the_programs_in_full() {
        let url = "postgres://me:a%20%25%2Fb%C3%A4@db.example:6543/shop?sslmode=verify-full&sslrootcert=/ca.pem";
        for (name, expected) in [
            ("PGHOST", "db.example"),
            ("PGPORT", "6543"),
            ("PGUSER", "me"),
            ("PGDATABASE", "shop"),
            ("PGPASSWORD", "a %/bä"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca.pem"),
        ] {
            assert_eq!(value(url, name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn sockets_and_ipv6_are_told_as_libpq_wants_them() {
        let socket = "postgres://me@localhost/shop?host=/run/postgresql";
        assert_eq!(value(socket, "PGHOST").as_deref(), Some("/run/postgresql"));
        assert_eq!(value("postgres://me@[::1]/shop", "PGHOST").as_deref(), Some("::1"));
    }
}
