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
            format!("{name:<12} {patterns}\n{:<12} {}\n", "", writer.producer)
        });
        print(rows.collect::<String>().as_bytes())?;
    }
    Ok(is_requested)
}
