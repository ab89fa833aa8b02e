//! Sealing: a closed month leaves the table for segments, and nothing is lost whenever it stops.
//!
//! For each slice: write segments, read each back from its file, compare it with the table row by
//! row, note it. Then detach the month, then drop it. Each step is committed on its own and looks
//! for what was done before, so a run that was killed is continued by the next one.

use std::time::{Duration, Instant};

use domain::ids::Timestamp;
use sha2::{Digest as _, Sha256};

use super::Segment;
use super::archive::{Archive, check_same, failed};
use super::damage::Damage;
use super::format::{self, Header, Index, Writer};
use super::table::{self, last_position, records};
use crate::consumer::{Consumer, micros};
use crate::digest::hex;
use crate::{Error, Store};

/// A month of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Month {
    /// Its partition, such as `event_2025_10`.
    pub name: String,
    /// Its first instant.
    pub from: Timestamp,
    /// The first instant after it.
    pub until: Timestamp,
    /// It is part of the log's table; else sealing was stopped before the drop.
    pub attached: bool,
    /// Events in it, as the database's statistics estimate them.
    pub events: i64,
    /// Why it is not sealed now; `None`: it can be.
    pub kept: Option<String>,
}

/// What sealing did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Months that left the database.
    pub months: u64,
    /// Segments noted.
    pub segments: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Time was up before all was done.
    pub is_cut_short: bool,
}

impl Store {
    /// The months before the present one, oldest first, with the reason why each is kept. A month
    /// is sealed `seal_after` after its end, when each consumer has passed it, nothing of it is set
    /// aside, and no rebuild is under way.
    pub async fn history_plan(&self, seal_after: Duration) -> Result<Vec<Month>, Error> {
        let mut months = self.past_months(seal_after).await?;
        let stray = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM tallylight.event_default) AS "stray!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let rebuilds = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM tallylight.rebuild
                               WHERE state NOT IN ('live', 'aborted', 'rolled_back')) AS "open!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let mut earlier: Option<String> = None;
        for month in &mut months {
            if month.kept.is_some() {
                // Too young: it needs no other reason.
            } else if let Some(name) = &earlier {
                month.kept = Some(format!("{name} comes first"));
            } else if stray {
                month.kept = Some("events lie in the default partition".to_owned());
            } else if rebuilds {
                month.kept = Some("the projections are being rebuilt".to_owned());
            } else if month.attached {
                month.kept = self.needed(month).await?;
            }
            if month.kept.is_some() {
                earlier.get_or_insert_with(|| month.name.clone());
            }
        }
        Ok(months)
    }

    async fn past_months(&self, seal_after: Duration) -> Result<Vec<Month>, Error> {
        let rows = sqlx::query!(
            r#"SELECT m.name AS "name!", m.begins AS "begins!", m.ends AS "ends!",
                      m.attached AS "attached!", m.events AS "events!",
                      m.ends + $1::bigint * interval '1 microsecond' <= now() AS "is_due!"
                 FROM (SELECT c.relname::text AS name,
                              to_date(substr(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' AS begins,
                              (to_date(substr(c.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' AS ends,
                              EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) AS attached,
                              greatest(c.reltuples, 0)::bigint AS events
                         FROM pg_class c
                        WHERE c.relnamespace = 'tallylight'::regnamespace AND c.relkind = 'r'
                          AND c.relname ~ '^event_[0-9]{4}_[0-9]{2}$') AS m
                WHERE m.ends <= now() ORDER BY m.name"#,
            micros(seal_after),
        )
        .fetch_all(&self.pool)
        .await?;
        let too_young = |is_due: bool| (!is_due).then(|| "not old enough".to_owned());
        let month = rows.into_iter().map(|row| Month {
            name: row.name,
            from: row.begins,
            until: row.ends,
            attached: row.attached,
            events: row.events,
            kept: too_young(row.is_due),
        });
        Ok(month.collect())
    }

    /// Who still needs a month in the table.
    async fn needed(&self, month: &Month) -> Result<Option<String>, Error> {
        for slice in self.slices.slices() {
            let Some(last) = last_position(&self.pool, slice, month.from, month.until).await?
            else {
                continue;
            };
            let behind = sqlx::query_scalar!(
                "SELECT consumer FROM tallylight.checkpoint
                  WHERE slice = $1 AND consumer <> $2 AND position < $3 LIMIT 1",
                slice,
                Consumer::Jobs.name(),
                last,
            )
            .fetch_optional(&self.pool)
            .await?;
            if let Some(consumer) = behind {
                return Ok(Some(format!("consumer {consumer} has not passed it in slice {slice}")));
            }
            let parked = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM tallylight.parked
                                   WHERE slice = $1 AND position <= $2 AND skipped_at IS NULL)
                     AS "parked!""#,
                slice,
                last,
            )
            .fetch_one(&self.pool)
            .await?;
            if parked {
                return Ok(Some(format!("events of it are set aside in slice {slice}")));
            }
        }
        Ok(None)
    }

    /// Seals all months that can be, oldest first, until `deadline`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where this process knows no place for segments; else as for
    /// [`Store::seal_month`].
    pub async fn seal_due(&self, seal_after: Duration, deadline: Instant) -> Result<Sealed, Error> {
        let mut sealed = Sealed::default();
        for month in self.history_plan(seal_after).await? {
            if month.kept.is_some() || sealed.is_cut_short {
                break;
            }
            self.seal_month(&month, deadline, &mut sealed).await?;
        }
        Ok(sealed)
    }

    /// Seals one month: segments, then detach, then drop. Adds to `sealed` what was done.
    ///
    /// # Errors
    /// [`Error::Segment`] where a file does not read back as it was written. [`Error::Invalid`]
    /// where the month is kept, or has rows that no segment holds.
    pub async fn seal_month(
        &self,
        month: &Month,
        deadline: Instant,
        sealed: &mut Sealed,
    ) -> Result<(), Error> {
        if let Some(reason) = &month.kept {
            return Err(Error::Invalid { reason: format!("seal {}: {reason}", month.name) });
        }
        if month.attached {
            for slice in self.slices.slices() {
                self.seal_slice(month, slice, deadline, sealed).await?;
                if sealed.is_cut_short {
                    return Ok(());
                }
            }
            self.detach_month(month).await?;
        }
        self.drop_month(month).await?;
        tracing::info!(month = month.name, "a month of the log is sealed and left the database");
        sealed.months += 1;
        Ok(())
    }

    /// The first step, for one slice: its events of a month are written to segments and noted.
    ///
    /// # Errors
    /// As for [`Store::seal_month`]; [`Error::Hole`] where a position is missing.
    pub async fn seal_slice(
        &self,
        month: &Month,
        slice: i16,
        deadline: Instant,
        sealed: &mut Sealed,
    ) -> Result<(), Error> {
        let last = last_position(&self.pool, slice, month.from, month.until).await?;
        while let Some(goal) = last {
            let after = self.sealed_to(slice).await?;
            if after >= goal {
                break;
            }
            if Instant::now() >= deadline {
                sealed.is_cut_short = true;
                return Ok(());
            }
            let segment = self.write_segment(month, slice, after).await?;
            self.compare(month, &segment).await?;
            self.note(&segment).await?;
            sealed.segments += 1;
            sealed.events += segment.events();
            sealed.bytes += segment.bytes.unsigned_abs();
        }
        Ok(())
    }

    /// The last position of a slice that is sealed; 0: none is.
    pub async fn sealed_to(&self, slice: i16) -> Result<i64, Error> {
        let to = sqlx::query_scalar!(
            r#"SELECT coalesce(max(to_position), 0) AS "to!" FROM tallylight.segment WHERE slice = $1"#,
            slice,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(to)
    }

    /// Writes the next segment of a slice and its file.
    async fn write_segment(&self, month: &Month, slice: i16, after: i64) -> Result<Segment, Error> {
        let broken =
            |damage: Damage| Error::Invalid { reason: format!("seal slice {slice}: {damage}") };
        let mut writer = Writer::new(slice, self.installation);
        while !writer.is_full() {
            let from = writer.last().unwrap_or(after);
            let rows = records(&self.pool, slice, from, month.from, month.until).await?;
            let Some(first) = rows.first() else { break };
            if first.position != from + 1 {
                return Err(Error::Hole { slice, after: from, found: first.position });
            }
            for row in &rows {
                writer.push(row).map_err(broken)?;
            }
        }
        // The caller saw later events of the month: with none here, the next ones are missing.
        let missing = Error::Hole { slice, after, found: after + table::CHUNK };
        let (header, bytes) = writer.finish().map_err(broken)?.ok_or(missing)?;
        let sha256 = Sha256::digest(&bytes).to_vec();
        let segment = noted(&header, &bytes, sha256);
        self.archive()?.put(&segment.file, bytes).await?;
        Ok(segment)
    }

    /// Reads a segment back from its file and compares it with the table, event by event.
    async fn compare(&self, month: &Month, segment: &Segment) -> Result<(), Error> {
        let (bytes, index) = load(self.archive()?, segment).await?;
        let mut rows = Vec::new().into_iter();
        let mut after = segment.from - 1;
        for block in &index.blocks {
            let damaged = |damage: Damage| failed(segment, damage.into());
            let part = format::part(&bytes, &block.range()).map_err(damaged)?;
            for event in block.decode_events(part).map_err(damaged)? {
                if rows.len() == 0 {
                    rows = records(&self.pool, segment.slice, after, month.from, month.until)
                        .await?
                        .into_iter();
                }
                after = event.position;
                if rows.next().as_ref() != Some(&event) {
                    return Err(damaged(Damage::Differs(event.position)));
                }
            }
        }
        Ok(())
    }

    /// Notes a segment that was compared. From here on readers may use it.
    async fn note(&self, segment: &Segment) -> Result<(), Error> {
        sqlx::query!(
            "SELECT tallylight.note_segment($1, $2, $3, $4, $5, $6, $7, $8)",
            segment.slice,
            segment.from,
            segment.to,
            segment.from_at,
            segment.to_at,
            segment.file,
            segment.bytes,
            segment.sha256,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The second step: takes a month out of the log's table. It waits for readers in short tries,
    /// so that appends are held up for a tenth of a second at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a row of it is in no segment; a transient one where it is in use.
    pub async fn detach_month(&self, month: &Month) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        without_time_limit(&mut tx).await?;
        sqlx::query!("SELECT tallylight.detach_sealed($1)", month.name).fetch_one(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// The last step: drops a detached month.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a row of it is in no segment, or it is still attached.
    pub async fn drop_month(&self, month: &Month) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        without_time_limit(&mut tx).await?;
        sqlx::query!("SELECT tallylight.drop_sealed($1)", month.name).fetch_one(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}

/// Counting a month takes as long as it takes.
async fn without_time_limit(connection: &mut sqlx::PgConnection) -> Result<(), Error> {
    sqlx::query!("SELECT set_config('statement_timeout', '0', true)").fetch_one(connection).await?;
    Ok(())
}

/// How a file is noted. Its name says its range, and no two contents have the same name.
fn noted(header: &Header, bytes: &[u8], sha256: Vec<u8>) -> Segment {
    let mark: String = hex(sha256.get(..6).unwrap_or_default());
    Segment {
        slice: header.slice,
        from: header.from,
        to: header.to,
        from_at: header.from_at,
        to_at: header.to_at,
        file: format!("{:04}/{:019}-{:019}-{mark}.tlseg", header.slice, header.from, header.to),
        bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        sha256,
        sealed_at: header.to_at,
    }
}

/// Reads a whole file and checks its checksum and that it is the noted segment.
pub(super) async fn load(archive: &Archive, segment: &Segment) -> Result<(Vec<u8>, Index), Error> {
    let damaged = |damage: Damage| failed(segment, damage.into());
    let bytes = archive.whole(segment).await?;
    if Sha256::digest(&bytes)[..] != segment.sha256[..] {
        return Err(damaged(Damage::Checksum("the file")));
    }
    let index = format::open(&bytes).map_err(damaged)?;
    check_same(&index.header, segment).map_err(damaged)?;
    Ok((bytes, index))
}
