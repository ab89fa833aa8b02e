//! The house rules that a compiler cannot check: which crate may see which, what every file says
//! of itself, how large it may grow. A change of the snapshot is a decision, to be read in review.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Arrows between our crates, `user > used`; in brackets those of tests only.
const ARROWS: &[&str] = &[
    "api > domain",
    "api > store",
    "bench > domain",
    "bench > postgres",
    "bench > store",
    "bench > worker",
    "cli > api",
    "cli > domain",
    "cli > ingest",
    "cli > platform",
    "cli > postgres",
    "cli > simulator",
    "cli > store",
    "cli > worker",
    "[client > store]",
    "ingest > domain",
    "[platform > simulator]",
    "ingest > store",
    "store > domain",
    "store > postgres (optional)",
    "worker > domain",
    "worker > platform",
    "worker > store",
];

/// Most lines of a file before its tests.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Our packages' names with the folder of each.
fn packages(metadata: &Value) -> Vec<(String, PathBuf, &Value)> {
    let list = metadata["packages"].as_array().unwrap();
    let package = |p| {
        let p: &Value = p;
        let manifest = PathBuf::from(p["manifest_path"].as_str().unwrap());
        (p["name"].as_str().unwrap().to_owned(), manifest.parent().unwrap().to_owned(), p)
    };
    list.iter().map(package).collect()
}

/// All Rust files of ours.
fn sources() -> Vec<PathBuf> {
    let mut folders = vec![root().join("crates"), root().join("tests")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(files.len() > 100, "the files are found");
    files
}

fn is_test(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains("/tests/") || text.ends_with("tests.rs") || text.contains("/testing")
}

#[test]
fn crates_see_only_what_they_may() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let ours: BTreeSet<&str> = packages.iter().map(|(name, ..)| name.as_str()).collect();
    let mut arrows = BTreeSet::new();
    for (name, _, package) in &packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if !ours.contains(used) || used == name {
                continue;
            }
            let optional = if dependency["optional"] == true { " (optional)" } else { "" };
            let is_dev = dependency["kind"] == "dev";
            let arrow = format!("{name} > {used}{optional}");
            arrows.insert((is_dev, arrow));
        }
    }
    // What the crate itself may use, its tests may.
    let plain: BTreeSet<String> =
        arrows.iter().filter(|(dev, _)| !dev).map(|(_, a)| a.clone()).collect();
    let known =
        |arrow: &str| plain.contains(arrow) || plain.contains(&format!("{arrow} (optional)"));
    let mut found: Vec<String> = plain.iter().cloned().collect();
    found.extend(arrows.iter().filter(|(dev, a)| *dev && !known(a)).map(|(_, a)| format!("[{a}]")));
    found.sort();
    let mut expected: Vec<&str> = ARROWS.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected, "an arrow was added or removed: is it meant?");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "files that do not begin with `//!`: {silent:#?}");
}

#[test]
fn no_file_outgrows_a_reader() {
    let production = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
    };
    let large: Vec<(PathBuf, usize)> = sources()
        .into_iter()
        .filter(|path| !is_test(path))
        .map(|path| (path.clone(), production(&path)))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(large.is_empty(), "split along a seam: {large:#?}");
}

#[test]
fn every_package_takes_lints_and_versions_from_the_workspace() {
    let metadata = metadata();
    for (name, folder, _) in packages(&metadata) {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name}: [lints] workspace = true");
        let mut in_dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
                let from_workspace =
                    line.contains("workspace = true") || line.contains("path = \".\"");
                assert!(from_workspace, "{name}: versions stand in the root manifest: {line}");
            }
        }
    }
}

#[test]
fn the_map_names_every_crate() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (name, ..) in packages(&metadata()) {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name `{name}`");
    }
}

#[test]
fn every_fault_names_tests_that_exist() {
    let sources: String = sources().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with('|') && line.contains('`'));
    for row in rows {
        let shown = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "docs/faults.md: no test {test}");
        }
    }
}

#[test]
fn the_table_of_kinds_has_every_kind_of_job() {
    let page = fs::read_to_string(root().join("docs/jobs.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| kind |")).skip(2);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
        })
        .collect();
    let mut told: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    told.sort_unstable();
    let engine = [
        domain::effect::TIMER,
        domain::effect::FORWARD,
        domain::effect::RELAY,
        domain::endpoint::DELIVER,
    ];
    let mut kinds = [&domain::call::Call::KINDS[..], &worker::jobs::KINDS, &engine].concat();
    kinds.sort_unstable();
    assert_eq!(told, kinds);
    for row in rows {
        assert!(
            row.len() == 6 && row.iter().all(|cell| !cell.is_empty()),
            "a cell is empty: {row:?}"
        );
    }
}

/// What a heading of a page is linked by.
#[test]
fn the_table_of_events_has_every_type_that_was_ever_written() {
    let page = fs::read_to_string(root().join("docs/log.md")).unwrap();
    let golden = fs::read_dir(root().join("crates/domain/golden")).unwrap();
    let files = golden.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let types: BTreeSet<String> = files
        .filter_map(|file| Some(file.strip_suffix(".json")?.split_once('.')?.0.to_owned()))
        .collect();
    assert!(types.len() > 40, "{types:?}");
    let untold: Vec<&String> =
        types.iter().filter(|name| !page.contains(&format!("\n| `{name}` | "))).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_a_page_leads_to_a_page_and_its_heading() {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let tops = ["README.md", "ARCHITECTURE.md"].map(|name| root().join(name));
    for page in pages.chain(tops) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split([')', ' ']).next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(to.exists(), "{}: {link}", page.display());
            if !heading.is_empty() && to.extension().is_some_and(|ending| ending == "md") {
                let there = fs::read_to_string(&to).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(
                    headings.any(|known| known == heading),
                    "{}: {link}: there is no such heading",
                    page.display()
                );
            }
        }
    }
}

/// Who comes from another engine looks for its words.
#[test]
fn the_page_of_jobs_has_the_words_of_other_engines() {
    let page = fs::read_to_string(root().join("docs/jobs.md")).unwrap();
    let words = "JobArgs, InsertTx, InsertMany, perform/1, UniqueSkippedAsDuplicate, ByPeriod, \
                 ScheduledAt, JobSnooze, JobCancel, MaxAttempts, NextRetry, rescuer, Lifeline, Pruner, \
                 reindexer, periodic jobs, Cron, crontab, ResumableStep, workflow, batch, chunk, chain, \
                 sequence, global_limit, rate_limit, RecordOutput, fetch_recorded, rivertest, \
                 drain_queue, add_job, add_jobs, queue_name, job_key, job_key_mode, reschedule_jobs, \
                 force_unlock_workers, dead letter queue, QueuePause, pause_queue, retry_all_jobs, \
                 remove_job, tags, metadata";
    let words = words.split(", ").filter(|word| !page.contains(word));
    assert_eq!(words.collect::<Vec<_>>(), Vec::<&str>::new(), "docs/jobs.md");
    let numbers = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let told = page.split_once("\n## Numbers").unwrap().1.split_once("\n## ").unwrap().0;
    for name in told.split('`').filter(|word| word.starts_with("tallylight_")) {
        assert!(numbers.contains(&format!("`{name}`")), "docs/metrics.md: {name}");
    }
}

#[test]
fn unsafe_stands_in_one_place() {
    let marked: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| !path.ends_with("it/architecture.rs"))
        .filter(|path| fs::read_to_string(path).unwrap().contains("unsafe_code"))
        .collect();
    assert_eq!(marked.len(), 1, "one exception, in crates/postgres: {marked:#?}");
    assert!(marked[0].starts_with(root().join("crates/postgres")));
}
