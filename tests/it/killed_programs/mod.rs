//! Real writers, killed while they rename, and what orphand does with the temps that they leave.
//!
//! `rows.rs` lists the writers, and `kill.rs` runs and kills them under strace(1). The table in docs/killed-writers.md
//! is made from the same list. `soak.rs` runs all of them beside a watch. `.ci/run tools` installs the programs; a test
//! prints which ones it skips because they are missing.

mod kill;
mod rows;
mod soak;
mod table;

use crate::fixture::{in_parallel, report_skipped};
use rows::Writer;

pub(crate) use rows::is_clearly_random;

/// Kills each of these writers, and checks what orphand does.
fn check(writers: &[Writer]) {
    in_parallel(writers, |writer| match writer.missing_tool() {
        Some(tool) => report_skipped(&format!("{} needs {tool}", writer.name)),
        None => kill::check(writer),
    });
}

#[test]
fn packages_of_npm() {
    check(rows::NPM);
}

#[test]
fn python_and_its_packages() {
    check(rows::PYTHON);
}

#[test]
fn git() {
    check(rows::GIT);
}

#[test]
fn tools_for_files() {
    check(rows::TOOLS);
}

#[test]
fn databases_and_backups() {
    check(rows::DATABASES);
}

#[test]
fn systems_of_packages() {
    check(rows::PACKAGES);
}
