//! `status`: how far each slice is applied, who holds it, and what stands still.

use anyhow::{Result, bail};
use store::SliceStatus;

use crate::config::Config;
use crate::database::with_store;
use crate::output::say;

/// A slice whose next event waits for longer than this stands still.
const STALL_MS: i64 = 30_000;

/// Prints it, and exits with an error where a slice stands still.
pub(crate) async fn run(config: Config) -> Result<()> {
    let slices = with_store(&config, async |store| Ok(store.slice_status().await?)).await?;
    say("slice      head   applied      lag  lag s  parked  epoch  worker");
    for slice in &slices {
        say(line(slice));
    }
    let wrong: Vec<String> = slices.iter().filter_map(complaint).collect();
    for complaint in &wrong {
        say(complaint);
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{} slices stand still", wrong.len()) }
}

fn line(s: &SliceStatus) -> String {
    let owner = s.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string());
    let seconds = s.waits_ms.unwrap_or_default() / 1_000;
    format!(
        "{:>5}  {:>8}  {:>8}  {:>7}  {seconds:>5}  {:>6}  {:>5}  {owner}",
        s.slice,
        s.head,
        s.position,
        s.lag(),
        s.parked,
        s.epoch
    )
}

/// What is wrong with a slice, if anything is.
pub(crate) fn complaint(s: &SliceStatus) -> Option<String> {
    if s.has_hole() {
        return Some(format!(
            "slice {}: position {} is missing, and the log goes on to {}; react stands still. \
             Restore the missing events from a backup",
            s.slice,
            s.position + 1,
            s.head
        ));
    }
    let waits = s.waits_ms.filter(|ms| *ms > STALL_MS)?;
    let why = if s.owner.is_some() {
        "its worker's log says why"
    } else {
        "no worker holds it: start `tallylight worker`"
    };
    Some(format!(
        "slice {}: react stands at {} while the head is {}, for {} s; {why}",
        s.slice,
        s.position,
        s.head,
        waits / 1_000
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(head: i64, waits_ms: Option<i64>) -> SliceStatus {
        SliceStatus { slice: 3, head, position: 7, waits_ms, owner: None, epoch: 1, parked: 0 }
    }

    #[test]
    fn a_slice_is_complained_of_by_its_number_and_consumer() {
        assert_eq!(complaint(&slice(7, None)), None);
        assert_eq!(complaint(&slice(9, Some(20))), None, "it has just begun to wait");
        let stalled = complaint(&slice(9, Some(31_000))).unwrap();
        assert!(stalled.contains("slice 3: react stands at 7 while the head is 9, for 31 s"));
        let hole = complaint(&slice(9, None)).unwrap();
        assert!(hole.contains("slice 3: position 8 is missing"), "{hole}");
    }
}
