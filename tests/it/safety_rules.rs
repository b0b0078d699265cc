//! Checks that each rule that the source marks has a test in `tests/rules`.
//!
//! This test only compares the lists. `tests/without-each-rule` runs the listed tests without their rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex_lite::Regex;

/// Returns all Rust source in a folder.
fn read_source(dir: &Path) -> String {
    let mut text = String::new();
    let mut entries: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            text += &read_source(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// Returns the ids of the rules that the source marks, including the gates.
fn marked_ids(src: &Path) -> BTreeSet<String> {
    let text = read_source(src);
    let mark = Regex::new(r#"(?m)(?:rule!\(|^    gate\()\s*"([^"]+)","#).unwrap();
    let mut ids: BTreeSet<String> = mark
        .captures_iter(&text)
        .map(|at| at[1].to_owned())
        .collect();
    ids.remove("id");
    ids
}

/// Returns the tests in `tests/rules`, by the rule's id.
fn listed_tests(root: &Path) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root.join("tests/rules")).unwrap();
    let mut rules = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (id, tests) = line
            .rsplit_once(": ")
            .unwrap_or_else(|| panic!("no test listed: {line}"));
        let before = rules.insert(
            id.to_owned(),
            tests.split(", ").map(str::to_owned).collect(),
        );
        assert_eq!(before, None, "{id} is listed twice");
    }
    rules
}

#[test]
fn each_rule_that_the_source_marks_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = listed_tests(root);
    let ids: BTreeSet<String> = rules.keys().cloned().collect();
    assert_eq!(
        marked_ids(&root.join("src")),
        ids,
        "source on the left, tests/rules on the right"
    );
    for (id, tests) in &rules {
        assert!(!tests.is_empty(), "{id}");
        for test in tests {
            let (crate_name, name) = test.split_once(' ').unwrap();
            let folder = match crate_name {
                "it" => root.join("tests/it"),
                "lib" | "bin" => root.join("src"),
                other => panic!("{id}: {other} is not lib, bin or it"),
            };
            let function = name.rsplit("::").next().unwrap();
            assert!(
                read_source(&folder).contains(&format!("fn {function}(")),
                "{id}: no test {name}"
            );
        }
    }
}
