//! `projections verify`: tells rows that are not what the log folds to.

use std::time::SystemTime;

use anyhow::{Result, bail};
use domain::ids::Timestamp;
use store::{Difference, Parting, Store, Verified};

use crate::cli::Verify;
use crate::output::say;

/// Verifies slice by slice.
///
/// # Errors
/// Where a row differs, so that the exit code tells.
pub(super) async fn run(store: &Store, what: &Verify) -> Result<()> {
    let slices = slices(store, what)?;
    let (mut rows, mut differing) = (0, 0);
    for slice in &slices {
        let verified = store.verify_slice(*slice).await?;
        tell(&verified);
        rows += verified.rows;
        differing += verified.differing;
    }
    say(format!("{rows} rows of {} slices compared, {differing} differ", slices.len()));
    if differing > 0 {
        bail!(
            "{differing} rows are not what the log folds to: `tallylight projections rebuild` makes them anew"
        );
    }
    Ok(())
}

/// The slices to verify: a sample takes other ones each day.
fn slices(store: &Store, what: &Verify) -> Result<Vec<i16>> {
    let all: Vec<i16> = store.slices().slices().collect();
    if let Some(slice) = what.slice {
        if !all.contains(&slice) {
            bail!("slice {slice} does not exist: there are 0 to {}", all.len() - 1);
        }
        return Ok(vec![slice]);
    }
    let Some(of) = what.sample else { return Ok(all) };
    Ok(store.sample(of, Timestamp::from(SystemTime::now())))
}

fn tell(verified: &Verified) {
    let Verified { slice, position, rows, differing, .. } = verified;
    say(format!("slice {slice:>3} up to {position}: {rows} rows, {differing} differ"));
    for subject in &verified.parked {
        say(format!("  {subject} has events set aside, which are not folded"));
    }
    for difference in &verified.differences {
        tell_difference(*slice, difference);
    }
    let told = u64::try_from(verified.differences.len()).unwrap_or(u64::MAX);
    if *differing > told {
        say(format!("  and {} more", differing - told));
    }
}

fn tell_difference(slice: i16, difference: &Difference) {
    let Difference { table, key, columns, live, folded, .. } = difference;
    let what = match (live, folded) {
        (Some(_), None) => "is there, and the log has no such row".to_owned(),
        (None, Some(_)) => "is missing".to_owned(),
        (_, _) => format!("differs in {}", columns.join(", ")),
    };
    say(format!("  {table} {key} {what}"));
    if let Some(subject) = &difference.subject {
        say(format!("    subject {subject}"));
    }
    for column in columns {
        let of = |row: &Option<serde_json::Value>| {
            row.as_ref().map_or_else(|| "-".to_owned(), |row| row[column.as_str()].to_string())
        };
        say(format!("    {column}: live {}, folded {}", of(live), of(folded)));
    }
    say(match difference.parting {
        Parting::At(position) => {
            format!("    the first event after which they differ is {slice}:{position}")
        }
        Parting::NeverEqual { first } => {
            format!("    they are equal after no event; the subject's first is {slice}:{first}")
        }
        Parting::NoEvent => "    no event tells of it".to_owned(),
    });
}
