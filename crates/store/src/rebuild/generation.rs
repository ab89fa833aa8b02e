//! A *generation* of the projections: one set of their tables, in a schema of its own. Loads one,
//! writes to one, reads one back.

use std::io;

use domain::ids::{Subject, Timestamp};
use domain::state::State;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::fold::{Fold, Outcome};
use super::source::{Range, read_chunk};
use crate::consumer::Consumer;
use crate::history::Archive;
use crate::rebuild::lists::Lists;
use crate::{Error, log};

/// Where the tables of a generation are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// The one that is made.
    Shadow,
    /// The one before the last swap.
    Previous,
    /// Tables of this connection that hold the fold of a slice, for a comparison.
    Folded,
}

impl Generation {
    /// Its schema.
    pub(crate) fn schema(self) -> &'static str {
        match self {
            Self::Shadow => "tallylight_shadow",
            Self::Previous => "tallylight_previous",
            Self::Folded => "pg_temp",
        }
    }

    fn table(self, name: &str) -> String {
        let prefix = if self == Self::Folded { "folded_" } else { "" };
        format!("{}.{prefix}{name}", self.schema())
    }
}

/// Bytes of a COPY that are sent at once.
const SEND: usize = 1 << 20;

/// A table's rows as the text of a COPY.
pub(crate) struct CopyText {
    table: &'static str,
    columns: String,
    text: Vec<u8>,
}

/// Writes what a fold came to as text for COPY. Costs processor time.
pub(crate) fn copy_texts(slice: i16, outcome: Outcome) -> Result<Vec<CopyText>, Error> {
    let mut text = Vec::new();
    for (subject, state, position) in &outcome.states {
        field(&mut text, slice.to_string().as_bytes(), b'\t');
        field(&mut text, subject.as_str().as_bytes(), b'\t');
        serde_json::to_writer(Escaped(&mut text), state).map_err(|source| Error::Inconsistent {
            table: "subject_state",
            row: subject.to_string(),
            source,
        })?;
        text.push(b'\t');
        field(&mut text, position.to_string().as_bytes(), b'\n');
    }
    let columns = "slice, subject, state, position".to_owned();
    let mut texts = vec![CopyText { table: "subject_state", columns, text }];
    drop(outcome.states);
    let mut tables = Lists::default();
    for (row, position) in &outcome.rows {
        tables.add(row, *position);
    }
    drop(outcome.rows);
    for (table, rows) in tables.into_lists() {
        texts.extend(copy_text(slice, table, &rows));
    }
    Ok(texts)
}

impl CopyText {
    /// Bytes of its text.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

/// Adds texts to those of the same tables.
pub(crate) fn join_texts(all: &mut Vec<CopyText>, more: Vec<CopyText>) {
    for mut text in more {
        match all.iter_mut().find(|of| of.table == text.table && of.columns == text.columns) {
            Some(of) => of.text.append(&mut text.text),
            None => all.push(text),
        }
    }
}

/// The text for a table whose rows are JSON objects of its columns; `None`: there are none.
fn copy_text(slice: i16, table: &'static str, rows: &[Value]) -> Option<CopyText> {
    let mut columns = "slice".to_owned();
    for name in rows.first()?.as_object()?.keys() {
        columns += ", ";
        columns += name;
    }
    let mut text = Vec::new();
    for row in rows {
        text.extend_from_slice(slice.to_string().as_bytes());
        // The rows of a table have the same columns, and an object has them in one order.
        for value in row.as_object()?.values() {
            text.push(b'\t');
            match value {
                Value::Null => text.extend_from_slice(b"\\N"),
                Value::String(value) => escape(&mut text, value.as_bytes()),
                value
                @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                    escape(&mut text, value.to_string().as_bytes());
                }
            }
        }
        text.push(b'\n');
    }
    Some(CopyText { table, columns, text })
}

fn field(text: &mut Vec<u8>, value: &[u8], end: u8) {
    escape(text, value);
    text.push(end);
}

/// A field that is written piece by piece.
struct Escaped<'a>(&'a mut Vec<u8>);

impl io::Write for Escaped<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        escape(self.0, piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a value so that COPY reads it back. Most have nothing to escape, and are copied whole.
fn escape(text: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'\\' | b'\n' | b'\r' | b'\t')) {
        text.extend_from_slice(&rest[..at]);
        text.extend_from_slice(match rest[at] {
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    text.extend_from_slice(rest);
}

/// Fills empty tables of a generation.
pub(crate) async fn load(
    connection: &mut PgConnection,
    into: Generation,
    texts: Vec<CopyText>,
) -> Result<(), Error> {
    for CopyText { table, columns, text } in texts {
        // COPY takes no parameters, and the macros do not know it: names of ours alone.
        let statement = format!("COPY {} ({columns}) FROM STDIN", into.table(table));
        let mut copy = connection.copy_in_raw(&statement).await?;
        for part in text.chunks(SEND) {
            copy.send(part).await?;
        }
        copy.finish().await?;
    }
    Ok(())
}

/// How far a slice of a generation is folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) slice: i16,
    pub(crate) position: i64,
    pub(crate) recorded_at: Timestamp,
    pub(crate) set_aside: Vec<i64>,
}

impl Progress {
    /// Positions that were passed here and are not what they were: those that were set aside then
    /// and are applied now, and the reverse. Their subjects are to be folded anew.
    pub(crate) fn outdated<'a>(&'a self, set_aside: &'a [i64]) -> impl Iterator<Item = i64> + 'a {
        let retried = self.set_aside.iter().filter(|position| !set_aside.contains(position));
        let was_passed = |position: &&i64| **position <= self.position;
        let late = set_aside.iter().filter(was_passed).filter(|p| !self.set_aside.contains(p));
        retried.chain(late).copied()
    }
}

/// Brings a slice of a generation that has its keys up to `goal`, an applied position, and returns
/// what it has come to.
///
/// Events that were set aside when they were passed, and are not any more, were retried live: their
/// subjects are folded anew from their first event.
pub(crate) async fn follow(
    history: Option<&Archive>,
    connection: &mut PgConnection,
    generation: Generation,
    from: &Progress,
    goal: i64,
) -> Result<(Progress, u64), Error> {
    let slice = from.slice;
    let set_aside = set_aside(connection, slice, goal).await?;
    let mut fold = Fold::new(slice, (from.position, from.recorded_at), &set_aside);
    if from.position < goal {
        let range = Range { slice, after: from.position, to: goal, since: from.recorded_at };
        let chunk = read_chunk(history, connection, range).await?;
        let mut subjects = Vec::new();
        chunk.for_each(|row| {
            if !subjects.iter().any(|subject| subject == row.subject) {
                subjects.push(row.subject.to_owned());
            }
            Ok(())
        })?;
        seed(connection, generation, slice, &subjects, &mut fold).await?;
        fold.apply_chunk(&chunk)?;
    }
    let progress = Progress {
        slice,
        position: fold.position,
        recorded_at: fold.recorded_at,
        set_aside: set_aside.clone(),
    };
    let events = fold.events;
    upsert(connection, (generation, slice), fold.finish(), Over::Older).await?;
    let mut subjects: Vec<Subject> = Vec::new();
    for position in from.outdated(&set_aside) {
        let (after, since) = (position - 1, Timestamp::default());
        let event = log::read(history, connection, slice, after, since, 1).await?.pop();
        if let Some(event) = event
            && !subjects.contains(&event.subject)
        {
            subjects.push(event.subject);
        }
    }
    for subject in subjects {
        let of = (slice, &subject);
        let fold = super::subject::fold(history, connection, of, goal, &set_aside).await?;
        upsert(connection, (generation, slice), fold.finish(), Over::All).await?;
    }
    Ok((progress, events))
}

/// Which rows a write replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Those of earlier events.
    Older,
    /// All: the fold knows the subject from its first event.
    All,
}

/// Positions of a slice up to `goal` that `react` has set aside, in order.
pub(crate) async fn set_aside(
    connection: &mut PgConnection,
    slice: i16,
    goal: i64,
) -> Result<Vec<i64>, Error> {
    let positions = sqlx::query_scalar!(
        "SELECT position FROM tallylight.parked
          WHERE consumer = $1 AND slice = $2 AND position <= $3 ORDER BY position",
        Consumer::React.name(),
        slice,
        goal,
    )
    .fetch_all(connection)
    .await?;
    Ok(positions)
}

/// Seeds a fold with stored states.
async fn seed(
    connection: &mut PgConnection,
    generation: Generation,
    slice: i16,
    subjects: &[String],
    fold: &mut Fold,
) -> Result<(), Error> {
    let rows = sqlx::query!(
        r#"SELECT of_subject AS "subject!", folded AS "state!", at_position AS "position!"
             FROM tallylight.generation_states($1::text::name, $2, $3)"#,
        generation.schema(),
        slice,
        subjects,
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let state: State = serde_json::from_value(row.state).map_err(|source| {
            Error::Inconsistent { table: "subject_state", row: row.subject.clone(), source }
        })?;
        fold.seed(&row.subject, state, row.position);
    }
    Ok(())
}

/// Writes what a fold came to over what is there.
async fn upsert(
    connection: &mut PgConnection,
    (generation, slice): (Generation, i16),
    outcome: Outcome,
    over: Over,
) -> Result<(), Error> {
    let mut tables = Lists::default();
    for (row, position) in &outcome.rows {
        tables.add(row, *position);
    }
    let mut states = Vec::with_capacity(outcome.states.len());
    for (subject, state, position) in &outcome.states {
        states.push(json!({ "subject": subject, "state": state, "position": position }));
    }
    let lists = tables.into_lists();
    for (table, mut rows) in std::iter::once(("subject_state", states)).chain(lists) {
        if rows.is_empty() {
            continue;
        }
        for row in &mut rows {
            row["slice"] = slice.into();
        }
        sqlx::query!(
            "SELECT tallylight.upsert_generation($1::text::name, $2::text::name, $3, $4)",
            generation.schema(),
            table,
            Value::Array(rows),
            over == Over::All,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_field_is_escaped_alike_whole_and_piece_by_piece() {
        let value = "\tname\\\n\"Ä\"\r";
        let expected = "\\tname\\\\\\n\"Ä\"\\r\t";
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        field(&mut whole, value.as_bytes(), b'\t');
        for byte in value.as_bytes() {
            Escaped(&mut pieces).write_all(std::slice::from_ref(byte)).unwrap();
        }
        pieces.push(b'\t');
        assert_eq!(whole, expected.as_bytes());
        assert_eq!(pieces, whole);
    }
}
