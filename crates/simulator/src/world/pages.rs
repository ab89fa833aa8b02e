//! Lists, page by page: bare arrays without total or link; a page past the end is empty.

use std::ops::Range;

use super::{Request, World};
use crate::Behaviour;

/// The largest `per_page` that is obeyed.
const MAX_PER_PAGE: usize = 100;

impl World {
    /// Returns the part of a list of `len` items that a request asks for. Where pages shift, those
    /// after the first begin up to so many rows too early or too late, as if the list had changed
    /// meanwhile: rows are repeated and skipped.
    pub(super) fn page_range(
        &mut self,
        request: &Request,
        has_per_page: bool,
        len: usize,
    ) -> Range<usize> {
        let Range { start, end } = page_range(request, &self.behaviour, has_per_page, len);
        let most = usize::from(self.behaviour.pages_shift_by);
        if most == 0 || start == 0 {
            return start..end;
        }
        let by = usize::try_from(self.dice.below(2 * u64::from(self.behaviour.pages_shift_by) + 1));
        let shifted = |at: usize| (at + by.unwrap_or(most)).saturating_sub(most).min(len);
        shifted(start)..shifted(end).max(end.min(len))
    }
}

/// Returns the part of a list of `len` items that a request asks for.
///
/// `page` counts from 1 and anything unreadable is page 1. `per_page` is read where the operation
/// has it; else the page size is a switch.
pub(super) fn page_range(
    request: &Request,
    behaviour: &Behaviour,
    has_per_page: bool,
    len: usize,
) -> Range<usize> {
    let page = number(request, "page").unwrap_or(1).max(1);
    let asked = if has_per_page { number(request, "per_page") } else { None };
    let size = asked.unwrap_or(usize::from(behaviour.page_size)).clamp(1, MAX_PER_PAGE);
    let (start, size) = if behaviour.short_pages {
        with_short_pages(page, size)
    } else {
        ((page - 1).saturating_mul(size), size)
    };
    start.min(len)..start.saturating_add(size).min(len)
}

/// Returns the part of a list of `len` items that is a page of this size, counted from 1.
pub(super) fn range_of(page: usize, size: usize, len: usize) -> Range<usize> {
    let start = (page - 1).saturating_mul(size);
    start.min(len)..start.saturating_add(size).min(len)
}

/// Returns start and size of a page where every second page is half as long as it should be.
fn with_short_pages(page: usize, size: usize) -> (usize, usize) {
    let short = (size / 2).max(1);
    let pairs_before = (page - 1) / 2;
    let start = pairs_before.saturating_mul(size + short);
    if page % 2 == 1 { (start, size) } else { (start.saturating_add(size), short) }
}

/// Reads a whole number from the query.
fn number(request: &Request, key: &str) -> Option<usize> {
    request.query(key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Request, page_range};
    use crate::Behaviour;

    fn range(page: usize, short_pages: bool) -> Vec<usize> {
        let behaviour = Behaviour { page_size: 4, short_pages, ..Behaviour::default() };
        let request =
            Request { query: vec![("page".into(), page.to_string())], ..Request::default() };
        page_range(&request, &behaviour, false, 11).collect()
    }

    #[test]
    fn pages_cover_the_list_once_and_end_with_an_empty_one() {
        for short_pages in [false, true] {
            let mut seen = Vec::new();
            let mut page = 1;
            loop {
                let items = range(page, short_pages);
                if items.is_empty() {
                    break;
                }
                seen.extend(items);
                page += 1;
            }
            assert_eq!(seen, (0..11).collect::<Vec<_>>(), "short_pages {short_pages}");
        }
    }

    #[test]
    fn a_short_page_may_have_a_successor() {
        assert_eq!(range(2, true), [4, 5]);
        assert_eq!(range(3, true), [6, 7, 8, 9]);
    }

    #[test]
    fn an_absurd_page_is_empty() {
        assert!(range(usize::MAX, true).is_empty());
        assert!(range(usize::MAX, false).is_empty());
    }
}
