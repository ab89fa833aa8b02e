//! Verifying history: each file against its note, and the border between segments and table.

use std::collections::HashSet;

use super::archive::failed;
use super::damage::Damage;
use super::format;
use super::sealing::load;
use super::{Segment, segments_after};
use crate::{Error, Store};

impl Store {
    /// Reads a segment as a whole: checksum of the file and of each block, every event.
    ///
    /// # Errors
    /// [`Error::Segment`] where something is wrong with it.
    pub async fn verify_segment(&self, segment: &Segment) -> Result<(), Error> {
        let (bytes, index) = load(self.archive()?, segment).await?;
        let damaged = |damage: Damage| failed(segment, damage.into());
        let mut last_at = segment.from_at;
        for block in &index.blocks {
            let part = format::part(&bytes, &block.range()).map_err(damaged)?;
            for record in block.decode_events(part).map_err(damaged)? {
                if record.recorded_at < last_at {
                    return Err(damaged(Damage::Value("the order of times")));
                }
                last_at = record.recorded_at;
                record.into_event(segment.slice).map_err(damaged)?;
            }
        }
        if last_at == segment.to_at { Ok(()) } else { Err(damaged(Damage::Another("its end"))) }
    }

    /// What is wrong between segments and table, in words: a hole between segments, a table that
    /// begins too late. Empty: nothing.
    pub async fn history_holes(&self) -> Result<Vec<String>, Error> {
        let mut findings = Vec::new();
        for slice in self.slices.slices() {
            let mut connection = self.pool.acquire().await?;
            let mut sealed_to = 0;
            for segment in segments_after(&mut connection, slice, 0, i64::MAX).await? {
                if segment.from != sealed_to + 1 {
                    let found = segment.from;
                    findings.push(format!("slice {slice}: after {sealed_to} comes {found}"));
                }
                sealed_to = segment.to;
            }
            let next = sqlx::query_scalar!(
                "SELECT min(position) FROM tallylight.event WHERE slice = $1 AND position > $2",
                slice,
                sealed_to,
            )
            .fetch_one(&mut *connection)
            .await?;
            let head = self.heads(&[slice]).await?.first().map_or(0, |(_, head)| *head);
            let found = next.unwrap_or(head + 1);
            if found > sealed_to + 1 {
                findings.push(format!(
                    "slice {slice}: sealed up to {sealed_to}, and the table has nothing before {found}"
                ));
            }
        }
        Ok(findings)
    }

    /// Files that no segment names: what a run left that was killed before it noted them. They can
    /// be removed.
    pub async fn unnoted_files(&self) -> Result<Vec<String>, Error> {
        let noted: HashSet<String> =
            self.segments().await?.into_iter().map(|segment| segment.file).collect();
        let mut files = self.archive()?.list().await?;
        files.retain(|file| !noted.contains(file));
        Ok(files)
    }

    /// Noted segments whose file is not there.
    pub async fn missing_segments(&self) -> Result<Vec<String>, Error> {
        let files: HashSet<String> = self.archive()?.list().await?.into_iter().collect();
        let noted = self.segments().await?.into_iter().map(|segment| segment.file);
        Ok(noted.filter(|file| !files.contains(file)).collect())
    }

    /// Sets the gauges of history, and returns the number of events outside of the months.
    pub async fn measure_history(&self) -> Result<i64, Error> {
        let row = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM tallylight.event_default) AS "stray!",
                      count(*) AS "segments!",
                      coalesce(sum(to_position - from_position + 1), 0)::bigint AS "events!"
                 FROM tallylight.segment"#
        )
        .fetch_one(&self.pool)
        .await?;
        self.history_metrics.segments.set(row.segments);
        self.history_metrics.sealed_events.set(row.events);
        self.history_metrics.default_partition_rows.set(row.stray);
        Ok(row.stray)
    }
}
