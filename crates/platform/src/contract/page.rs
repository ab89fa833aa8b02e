//! `docs/platform.md` against the code: its tables are those of the client.

use std::{collections::BTreeMap, fs, path::Path};

use super::deviations::DEVIATIONS;
use crate::{
    Disposition, Operation,
    disposition::{of_answer, of_unknown},
    refusal::Refusal,
};

/// The rows of the table under a heading: the texts of their cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/platform.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| {
        let line = line.trim_matches('|').trim();
        line.split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// Rows as the page has them.
fn written(rows: &[Vec<String>]) -> String {
    let lines: Vec<String> = rows.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    lines.join("\n")
}

/// The word of the page for a disposition.
fn word(disposition: Disposition) -> &'static str {
    if disposition == Disposition::FeatureMissing {
        "feature missing"
    } else {
        disposition.as_str()
    }
}

/// The disposition of an answer with a text in it.
fn answered(operation: Operation, status: u16, body: &str) -> Disposition {
    of_answer(operation, status, &Refusal::read(body.as_bytes(), &[]), None)
}

#[test]
fn the_page_tells_every_operation_as_the_code_has_it() {
    let expected: Vec<Vec<String>> = Operation::ALL
        .iter()
        .map(|&operation| {
            let row = operation.row();
            let request = format!("`{} {}`", row.method, row.path);
            let lost = word(of_unknown(operation, None)).to_owned();
            let missing = word(answered(operation, 404, "{}")).to_owned();
            vec![format!("`{operation}`"), request, lost, missing]
        })
        .collect();
    let found: Vec<Vec<String>> = table("Operations");
    assert_eq!(found, expected, "the table has to be:\n{}", written(&expected));
}

#[test]
fn the_page_says_how_each_write_that_must_not_be_repeated_is_looked_up() {
    let told: Vec<String> =
        table("After a lost answer").into_iter().map(|row| row[0].clone()).collect();
    let ambiguous: Vec<String> = Operation::ALL
        .iter()
        .filter(|&&operation| of_unknown(operation, None) == Disposition::Ambiguous)
        .map(|operation| format!("`{operation}`"))
        .collect();
    assert_eq!(told, ambiguous);
}

#[test]
fn the_page_tells_what_each_status_means() {
    let texts: BTreeMap<&str, &str> = [
        ("", "{}"),
        ("names a limit", r#"{"error":"Live streams limit is exceeded"}"#),
        ("names a request rate", r#"{"error":"Too many requests"}"#),
        (
            "\"Feature is disabled\"",
            r#"{"error":"Feature is disabled. Contact support to enable."}"#,
        ),
    ]
    .into();
    for row in table("Statuses") {
        let body = texts[row[1].as_str()];
        for status in row[0].split(", ") {
            let status: u16 = status.parse().unwrap();
            // Of a class whose answers depend on nothing else.
            let found = word(answered(Operation::ListStreams, status, body));
            assert_eq!(found, row[2], "{status} {body}");
        }
    }
}

#[test]
fn the_page_lists_the_deviations() {
    let expected: Vec<Vec<String>> = DEVIATIONS
        .iter()
        .map(|one| {
            let fields: Vec<String> = one.fields.iter().map(|field| format!("`{field}`")).collect();
            [one.of.to_owned(), fields.join(", "), one.problem.to_owned(), one.reason.to_owned()]
                .into()
        })
        .collect();
    assert_eq!(table("Deviations"), expected, "the table has to be:\n{}", written(&expected));
}
