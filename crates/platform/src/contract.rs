//! Every request that the client sends, and every answer of the simulator, held against the
//! platform's own file.
//!
//! `tests/fixtures/openapi.json` is the OpenAPI file of the platform without its prose. What the
//! client or the simulator does otherwise is a *deviation*: it stands in a list with its reason, and
//! the list may hold none that no longer occurs.

mod deviations;
mod file;
mod page;
mod schema;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use simulator::RequestLogEntry;

use self::{
    deviations::{DEVIATIONS, Deviation},
    file::File,
};
use crate::{Operation, operation::Form};

/// What was found wrong, and where it was found first.
type Findings = BTreeMap<String, String>;

#[test]
fn the_table_and_the_file_have_the_same_operations() {
    let file = File::read();
    let ours: BTreeSet<(String, String)> = Operation::ALL
        .iter()
        .map(|operation| {
            let row = operation.row();
            (row.method.as_str().to_lowercase(), row.path.to_owned())
        })
        .collect();
    let mut theirs = file.operations();
    for login in ["/iam/auth/jwt/login", "/iam/auth/jwt/refresh"] {
        assert!(theirs.remove(&("post".to_owned(), login.to_owned())), "{login}: see auth/jwt.rs");
    }
    assert_eq!(ours, theirs);
    for operation in Operation::ALL {
        let row = operation.row();
        let described = file.operation(row.method.as_str(), row.path);
        let has_body = described.get("requestBody").is_some();
        assert_eq!(row.form != Form::Nothing, has_body, "{operation}");
    }
    let names: BTreeSet<&str> = Operation::ALL.iter().map(|one| one.as_str()).collect();
    assert_eq!(names.len(), Operation::ALL.len(), "names are unique");
}

#[tokio::test]
async fn all_that_is_sent_and_answered_is_as_the_file_says_or_a_listed_deviation() {
    let log = walk::walk().await;
    let file = File::read();
    let called: BTreeSet<&str> =
        log.iter().filter_map(operation_of).map(Operation::as_str).collect();
    let all: BTreeSet<&str> = Operation::ALL.iter().map(|one| one.as_str()).collect();
    assert_eq!(called, all, "the walk makes every call");
    let mut findings = Findings::new();
    for entry in &log {
        let Some(operation) = operation_of(entry) else { continue };
        for finding in file.findings(operation, entry) {
            let example = format!("{} {} -> {}", entry.method, entry.path, entry.status);
            findings.entry(finding).or_insert(example);
        }
    }
    let listed: BTreeSet<String> = DEVIATIONS.iter().flat_map(Deviation::findings).collect();
    let new: Vec<_> = findings.iter().filter(|(one, _)| !listed.contains(*one)).collect();
    assert!(new.is_empty(), "deviations that are not listed: {new:#?}");
    let old: Vec<_> = listed.iter().filter(|one| !findings.contains_key(*one)).collect();
    assert!(old.is_empty(), "listed, and no longer found: {old:#?}");
}

/// The operation of a logged request: of several paths that fit, the one with fewer ids.
fn operation_of(entry: &RequestLogEntry) -> Option<Operation> {
    let fits = |path: &str| {
        let (path, given): (Vec<_>, Vec<_>) =
            (path.split('/').collect(), entry.path.split('/').collect());
        let mut pairs = path.iter().zip(&given);
        path.len() == given.len()
            && pairs.all(|(part, given)| part.starts_with('{') || part == given)
    };
    let fitting = Operation::ALL.iter().copied().filter(|operation| {
        let row = operation.row();
        row.method.as_str() == entry.method && fits(row.path)
    });
    fitting.min_by_key(|operation| operation.row().path.matches('{').count())
}
