//! Walking a list page by page to its end.
//!
//! The *end* is the empty page: lists tell no total, and pages in the middle may be short. While a
//! list is walked it changes, so rows come twice or are skipped: the last sight of an id counts,
//! and that a row is absent proves nothing. Confirm with a GET.

use std::collections::HashMap;

use crate::{Error, Operation};

/// Most pages of one walk. The page size is not published; even at 10 rows these are 10,000
/// objects. A platform that ignored `page` would otherwise keep us for ever.
pub(super) const PAGE_CAP: u32 = 1000;

/// All rows of a list. `page` fetches one page, counted from 1; `id` identifies a row.
///
/// # Errors
/// Those of `page`, and one of its own when no empty page came within `cap` pages.
pub(super) async fn walk<T, F>(
    operation: Operation,
    cap: u32,
    id: fn(&T) -> Option<i64>,
    page: impl Fn(u32) -> F,
) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<Vec<T>, Error>>,
{
    let mut rows: Vec<T> = Vec::new();
    let mut seen: HashMap<i64, usize> = HashMap::new();
    for number in 1..=cap {
        let fetched = page(number).await?;
        if fetched.is_empty() {
            return Ok(rows);
        }
        for row in fetched {
            match id(&row).map(|id| seen.entry(id).or_insert(rows.len())) {
                Some(at) if *at < rows.len() => rows[*at] = row,
                _ => rows.push(row),
            }
        }
    }
    Err(Error::of_endless_list(operation, cap))
}
