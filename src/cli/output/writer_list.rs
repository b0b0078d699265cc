//! The list of known writers, for `--writer list`.

use orphand::core::temp_name;

use super::standard_streams::print;
use crate::cli::exit::Failure;
use crate::cli::options::RuleOptions;

/// Prints the known writers, with their patterns and programs, if `--writer list` was given. Returns whether it was.
pub(crate) fn list_writers(rule: &RuleOptions) -> Result<bool, Failure> {
    let is_requested = rule.writers.iter().any(|writer| writer == "list");
    if is_requested {
        let rows = temp_name::writers().map(|writer| {
            let (name, patterns) = (writer.name, writer.patterns.join("  "));
            let mut row = format!("{name:<12} {patterns}\n{:<12} {}\n", "", writer.producer);
            if !writer.targets.is_empty() {
                let targets = writer.targets.join(", ");
                row.push_str(&format!("{:<12} only for the targets {targets}\n", ""));
            }
            if writer.default {
                row.push_str(&format!("{:<12} on by default\n", ""));
            }
            row
        });
        print(rows.collect::<String>().as_bytes())?;
    }
    Ok(is_requested)
}
