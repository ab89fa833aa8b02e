//! The fold of one subject, read on its own.

use domain::ids::Subject;
use sqlx::PgConnection;

use super::fold::Fold;
use super::source::EventRow;
use crate::{Error, log};

/// Events read at once.
const PAGE: i64 = 1_000;

/// Folds a subject from its first event up to `goal`, without what is set aside.
pub(crate) async fn fold(
    connection: &mut PgConnection,
    slice: i16,
    subject: &Subject,
    goal: i64,
    set_aside: &[i64],
) -> Result<Fold, Error> {
    let mut fold = Fold::new(slice, Default::default(), set_aside);
    let mut after = 0;
    loop {
        let page = log::read_subject(connection, slice, subject, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(fold) };
        after = last.position;
        for event in &page {
            if event.position > goal {
                return Ok(fold);
            }
            fold.apply_one(&EventRow::of(event))?;
        }
    }
}
