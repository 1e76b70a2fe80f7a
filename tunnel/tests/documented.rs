//! `docs/tunnel.md` names a test for each rule; each of them exists.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

/// Names of functions in the sources under `folder`.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let after = text.split("fn ").skip(1);
            names.extend(after.filter_map(|rest| rest.split(['(', '<']).next()).map(str::to_owned));
        }
    }
}

#[test]
fn every_rule_has_tests_and_every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = BTreeSet::new();
    for folder in ["tunnel/src", "tunnel/tests", "agent/src"] {
        functions(&root.join(folder), &mut names);
    }
    let page = std::fs::read_to_string(root.join("docs/tunnel.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    for rule in 1..=11 {
        let row = rows.iter().find(|row| row.starts_with(&format!("| **{rule}. "))).unwrap();
        assert!(row.contains(&format!("`rule_{rule}_")), "rule {rule} has no test named after it");
    }
    let quoted = page.split('`').skip(1).step_by(2);
    let tests: Vec<&str> =
        quoted.filter(|word| word.matches('_').count() > 2 && !word.contains('/')).collect();
    assert!(tests.len() > 40, "{} tests", tests.len());
    for test in tests
        .iter()
        .filter(|test| test.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
    {
        assert!(names.contains(*test), "{test} is named and does not exist");
    }
}
