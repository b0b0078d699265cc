//! The list of known writers, for `--writer list`.

use orphand::core::temp_name::{self, Uncommitted, WriterGrammar};
use serde::Serialize;

use super::standard_streams::print;
use crate::cli::exit::Failure;
use crate::cli::options::{OutputOptions, RuleOptions};

/// The document of `--writer list --json`.
#[derive(Serialize)]
struct Document {
    writers: Vec<&'static WriterGrammar>,
}

/// Prints the known writers, with their patterns and programs, if `--writer list` was given. Returns whether it was.
pub(crate) fn list_writers(rule: &RuleOptions, output: &OutputOptions) -> Result<bool, Failure> {
    let is_requested = rule.writers.iter().any(|writer| writer == "list");
    if is_requested {
        let rows = temp_name::writers();
        let text = match output.json {
            true => json(&Document {
                writers: rows.collect(),
            })?,
            false => rows.map(row_text).collect(),
        };
        print(text.as_bytes())?;
    }
    Ok(is_requested)
}

fn json(document: &Document) -> Result<String, Failure> {
    let text = serde_json::to_string(document);
    let text = text.map_err(Failure::failed)?;
    Ok(text + "\n")
}

/// Returns the lines about one writer.
fn row_text(writer: &WriterGrammar) -> String {
    const WIDTH: usize = 18;
    let mut text = format!("{:<WIDTH$} {}\n", writer.name, writer.patterns.join("  "));
    let mut line = |line: &str| text.push_str(&format!("{:<WIDTH$} {line}\n", ""));
    if writer.default {
        line("on by default");
    }
    if !writer.targets.is_empty() {
        line(&format!(
            "only for the targets {}",
            writer.targets.join(", ")
        ));
    }
    if writer.uncommitted == Uncommitted::Discard {
        line("discards: removes a temp whose target is missing, or not in the name");
    }
    if !writer.companions.is_empty() {
        line(&format!(
            "with the companions {}",
            writer.companions.join(", ")
        ));
    }
    if let Some(path) = &writer.unless_open {
        line(&format!("only while no process has {path} open"));
    }
    line(&writer.source);
    text
}
