//! Walking a list page by page to its end.
//!
//! A page that fails in passing is asked for again by itself: of a long list some page nearly always
//! fails, and who began anew each time would never see its end.
//!
//! Who wants the whole list reads pages of a long one side by side: one after the other it takes a
//! large account many seconds, in which the list changes and a process may die.
//!
//! The *end* is the empty page: lists tell no total, and pages in the middle may be short. While a
//! list is walked it changes, so rows come twice or are skipped: the last sight of an id counts,
//! and that a row is absent proves nothing. Confirm with a GET.

use std::{collections::HashMap, marker::PhantomData, time::Duration};

use futures_util::future::try_join_all;

use super::{call::Call, decode};
use crate::{Disposition, Error, wire::Listed};

/// Most pages of one walk. The page size is not published; even at 10 rows these are 10,000
/// objects. A platform that ignored `page` would otherwise keep us for ever.
const PAGE_CAP: u32 = 1000;
/// Requests for one page before its error is told.
const TRIES: u32 = 5;
/// The pause before the second of them; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest wait for a page that the platform asks for; the caller is told of a longer one.
const LONGEST: Duration = Duration::from_secs(5);
/// Most pages that are read side by side.
const ABREAST: u32 = 8;
/// Walks before [`Pages::matching`] returns nothing. An object that is deleted while a list is
/// walked moves its successors to the page before, past the reader; that it moves the same row past
/// two walks takes two deletions at the right moments.
const WALKS: u32 = 2;

/// The pages of a list. Nothing is sent before the first is asked for.
#[derive(Debug)]
pub struct Pages<'a, T> {
    call: Call<'a>,
    /// The page that is fetched next, counted from 1; 0 after the last.
    next: u32,
    cap: u32,
    rows: PhantomData<fn() -> T>,
}

impl<'a, T: Listed> Pages<'a, T> {
    /// The pages of what a call lists.
    pub(super) fn new(call: Call<'a>) -> Self {
        Self { call, next: 1, cap: PAGE_CAP, rows: PhantomData }
    }

    /// The same, but gives up after fewer pages.
    #[cfg(test)]
    pub(super) fn capped(self, cap: u32) -> Self {
        Self { cap, ..self }
    }

    /// One page, counted from 1. An empty page is past the end; a short one is not.
    pub async fn page(&self, number: u32) -> Result<Vec<T>, Error> {
        let call = self.call.clone().query("page", number);
        decode::list(call.operation, &call.send().await?, T::WITHIN)
    }

    /// The next page, beginning with the first; `None` at the end. Rows may come again on a later
    /// page: then the list has shifted, and the later sight is the fresher.
    ///
    /// # Errors
    /// Those of the call, after a few tries where it may be repeated at once; the same page can be
    /// asked for again then. And one of its own when there is no end within 1000 pages.
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>, Error> {
        if self.next == 0 {
            return Ok(None);
        }
        let pages = self.abreast(1).await?;
        Ok(pages.into_iter().next())
    }

    /// So many further pages, or as many as there are.
    async fn abreast(&mut self, count: u32) -> Result<Vec<Vec<T>>, Error> {
        let count = count.min(self.cap.saturating_sub(self.next - 1));
        if count == 0 {
            return Err(Error::of_endless_list(self.call.operation, self.cap));
        }
        let numbers = self.next..self.next + count;
        let mut pages = try_join_all(numbers.map(|number| self.insist(number))).await?;
        let end = pages.iter().position(Vec::is_empty);
        pages.truncate(end.unwrap_or(pages.len()));
        self.next = if end.is_some() { 0 } else { self.next + count };
        Ok(pages)
    }

    /// A page, asked for again where that may help soon.
    async fn insist(&self, number: u32) -> Result<Vec<T>, Error> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            let ended = self.page(number).await;
            let Some(asked) = ended.as_ref().err().and_then(passes_after) else { return ended };
            tokio::time::sleep(pause.max(asked)).await;
            pause *= 2;
        }
        self.page(number).await
    }

    /// All rows, each id once, as it was seen last; rows without an id may come twice. One that is
    /// not among them may exist.
    pub async fn all(mut self) -> Result<Vec<T>, Error> {
        self.walk().await
    }

    /// The rows that `is_it` accepts, to find what an earlier call made whose answer was lost.
    ///
    /// Nothing is only returned after two walks, so that a list that shifts under the reader does
    /// not make an object twice.
    pub async fn matching(mut self, is_it: impl Fn(&T) -> bool) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        for _ in 0..WALKS {
            self.next = 1;
            found = self.walk().await?;
            found.retain(&is_it);
            if !found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// Reads from the next page to the end. As many pages at once as were read before, so that short
    /// lists cost no request more.
    async fn walk(&mut self) -> Result<Vec<T>, Error> {
        let mut rows: Vec<T> = Vec::new();
        let mut seen: HashMap<T::Id, usize> = HashMap::new();
        while self.next != 0 {
            let pages = self.abreast((self.next - 1).clamp(1, ABREAST)).await?;
            for row in pages.into_iter().flatten() {
                match row.id().map(|id| *seen.entry(id).or_insert(rows.len())) {
                    Some(at) if at < rows.len() => rows[at] = row,
                    _ => rows.push(row),
                }
            }
        }
        Ok(rows)
    }
}

/// How long to wait at least before a page that failed this way may well come; `None`: longer than
/// a walk waits, or for ever. Nothing is changed by a read.
fn passes_after(error: &Error) -> Option<Duration> {
    let after = match error.disposition() {
        Disposition::Retry { after } | Disposition::Wait { after } => after.unwrap_or_default(),
        Disposition::Ambiguous => Duration::ZERO,
        Disposition::Done
        | Disposition::Refused
        | Disposition::Unauthorized
        | Disposition::Quota
        | Disposition::FeatureMissing => return None,
    };
    (after <= LONGEST).then_some(after)
}
