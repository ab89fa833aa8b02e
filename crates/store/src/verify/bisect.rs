//! Where a live row parts from the log: the fold of its subject, event by event.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{Difference, Parting};
use crate::rebuild::lists::Lists;
use crate::rebuild::{EventRow, Fold};
use crate::{Error, log};

/// Events read and compared at once.
const PAGE: i64 = 500;

/// What of the log was compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log<'a> {
    pub(super) slice: i16,
    /// The last position.
    pub(super) goal: i64,
    /// Positions that are not folded.
    pub(super) set_aside: &'a [i64],
}

/// Finds the first event after which the live row of `difference` is not what its subject folds to.
pub(super) async fn parting(
    connection: &mut PgConnection,
    log: Log<'_>,
    difference: &Difference,
) -> Result<Parting, Error> {
    let Some(subject) = &difference.subject else { return Ok(Parting::NoEvent) };
    let live = difference.live.clone().map(comparable);
    let mut fold = Fold::new(log.slice, Default::default(), log.set_aside);
    let (mut after, mut first, mut parted) = (0, None, None);
    // Before the first event there is no row, which is right for one that is missing.
    let mut is_equal = live.is_none();
    loop {
        let mut page = log::read_subject(connection, log.slice, subject, after, PAGE).await?;
        page.retain(|event| event.position <= log.goal);
        let Some(last) = page.last() else { break };
        after = last.position;
        let mut steps = Vec::with_capacity(page.len());
        for event in &page {
            fold.apply_one(&EventRow::of(event))?;
            steps.push(row_now(&fold, log.slice, difference));
        }
        let steps = as_stored(connection, &difference.table, steps).await?;
        for (event, folded) in page.iter().zip(steps) {
            first.get_or_insert(event.position);
            let was_equal = is_equal;
            is_equal = folded.map(comparable) == live;
            if was_equal && !is_equal {
                parted = Some(event.position);
            }
        }
    }
    Ok(match (parted, first) {
        (Some(position), _) => Parting::At(position),
        (None, Some(first)) => Parting::NeverEqual { first },
        (None, None) => Parting::NoEvent,
    })
}

/// The row that differs, as the fold of its subject has it now.
fn row_now(fold: &Fold, slice: i16, difference: &Difference) -> Option<Value> {
    let mut tables = Lists::default();
    for (row, position) in &fold.rows() {
        tables.add(row, *position);
    }
    let states = fold
        .states()
        .map(|(subject, state, position)| {
            json!({ "subject": subject, "state": state, "position": position })
        })
        .collect();
    let lists = std::iter::once(("subject_state", states)).chain(tables.into_lists());
    let mut rows = lists.filter(|(table, _)| *table == difference.table).flat_map(|(_, rows)| rows);
    let is_it = |row: &Value| {
        let key = difference.key.as_object();
        key.is_some_and(|key| key.iter().all(|(name, value)| row.get(name) == Some(value)))
    };
    rows.find_map(|mut row| {
        row["slice"] = slice.into();
        is_it(&row).then_some(row)
    })
}

/// Rows as they would be read back from the table.
async fn as_stored(
    connection: &mut PgConnection,
    table: &str,
    rows: Vec<Option<Value>>,
) -> Result<Vec<Option<Value>>, Error> {
    let present: Vec<Value> = rows.iter().flatten().cloned().collect();
    let stored = sqlx::query_scalar!(
        r#"SELECT stored AS "stored!" FROM tallylight.rows_as_stored($1::text::name, $2) AS r (stored)"#,
        table,
        Value::Array(present),
    )
    .fetch_all(connection)
    .await?;
    let mut stored = stored.into_iter();
    Ok(rows.into_iter().map(|row| row.and_then(|_| stored.next())).collect())
}

/// The row but for the event that it follows from: what it tells is compared.
fn comparable(mut row: Value) -> Value {
    if let Some(row) = row.as_object_mut() {
        row.remove("position");
    }
    row
}
