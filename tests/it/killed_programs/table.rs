//! The table in docs/killed-writers.md, made from the list that the tests use.

use std::fs;
use std::path::Path;

use super::rows::{self, Outcome, Outcomes, Writer};

const DOCUMENT: &str = "docs/killed-writers.md";
const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end -->";

/// Returns the table. A leftover of several files that have one fate is one line.
fn table() -> String {
    let mut table = String::from(
        "| writer | seen with | leaves | row | target whole: by default | with the row | no target: by default | with the row |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for writer in rows::all() {
        let mut fates: Vec<([String; 4], Vec<&str>)> = Vec::new();
        for leftover in writer.leaves {
            let [a, b] = words(leftover.whole);
            let [c, d] = words(leftover.missing);
            let fate = [a, b, c, d];
            match fates.iter_mut().find(|(other, _)| *other == fate) {
                Some((_, shown)) => shown.push(leftover.shown),
                None => fates.push((fate, vec![leftover.shown])),
            }
        }
        for (fate, shown) in fates {
            let shown: Vec<_> = shown.iter().map(|shown| format!("`{shown}`")).collect();
            table.push_str(&format!(
                "| {} | {} | {} | {} | {} |\n",
                writer.name,
                writer.version,
                shown.join(", "),
                row(writer),
                fate.join(" | ")
            ));
        }
    }
    table
}

fn row(writer: &Writer) -> String {
    match writer.rows {
        [] => "–".to_owned(),
        rows => rows.join(", "),
    }
}

fn words(outcomes: Option<Outcomes>) -> [String; 2] {
    let word = |outcome| match outcome {
        Outcome::Removed => "removed".to_owned(),
        Outcome::Moved => "moved".to_owned(),
        Outcome::Kept(reason) => format!("kept, `{reason}`"),
        Outcome::Untouched => "untouched".to_owned(),
    };
    match outcomes {
        Some(Outcomes { default, named }) => [word(default), word(named)],
        None => ["–".to_owned(), "–".to_owned()],
    }
}

#[test]
fn the_table_in_the_documentation_is_true() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let text = fs::read_to_string(&document).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let table = format!("\n{}\n", table());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = format!("{before}{BEGIN}{table}{END}{after}");
        fs::write(&document, text).unwrap();
    } else {
        let update = "to update: UPDATE_EXPECT=1 cargo test --test it killed_programs::table::";
        assert_eq!(found, table, "{update}");
    }
}

/// Counts the writers of which at least one temp is removed.
fn removed(outcome: impl Fn(Outcomes) -> Outcome) -> usize {
    let is_removed = |writer: &&Writer| {
        let mut all =
            (writer.leaves.iter()).filter_map(|leftover| leftover.whole.or(leftover.missing));
        all.any(|outcomes| outcome(outcomes) == Outcome::Removed)
    };
    rows::all().filter(is_removed).count()
}

#[test]
fn enough_writers_are_served() {
    assert!(rows::all().count() >= 20);
    let by_default = removed(|outcomes| outcomes.default);
    let named = removed(|outcomes| outcomes.named);
    assert!(by_default >= 10, "{by_default} by default");
    assert!(named >= 15, "{named} with their rows");
}

/// The versions that `.ci/run` installs are those of the table.
#[test]
fn pinned_versions_are_those_of_the_table() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run");
    // A package of the sources has no such script.
    let Ok(script) = fs::read_to_string(script) else {
        return crate::fixture::report_skipped("there is no .ci/run");
    };
    let mut pinned = 0;
    for writer in rows::all() {
        for tool in writer.tools {
            let pin = match tool.split_once('/') {
                Some(("node_modules", package)) => format!("{package}@{}", writer.version),
                Some((_, package)) => format!("{package}=={}", writer.version),
                None => continue,
            };
            assert!(script.contains(&pin), "{pin} is not in .ci/run");
            pinned += 1;
        }
    }
    assert!(pinned > 0);
}
