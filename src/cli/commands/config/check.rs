//! `config check`: prints a summary of the file, or its first error.

use std::path::{Path, PathBuf};

use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::store::json::{WirePath, field};
use serde::Serialize;

use super::path::default_locations;
use crate::cli::commands::watch;
use crate::cli::config::{Config, ConfigError, RootsError, RuleSettings};
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::text;

/// The JSON of the command.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten, with = "field::path")]
    path: WirePath<'a>,
    ok: bool,
    error: Option<FirstError<'a>>,
    roots: Vec<String>,
}

#[derive(Serialize)]
struct FirstError<'a> {
    line: Option<usize>,
    column: Option<usize>,
    what: &'a str,
}

pub(super) fn run(
    named: Option<&Path>,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    match read(named) {
        Err(RootsError::File(error)) if output.json => {
            printer.json(&report(Some(&error.path), &[], Some(&error)))?;
            return Ok(Exit::Config);
        }
        Err(error) => return Err(error.into()),
        Ok((path, roots)) if output.json => printer.json(&report(path.as_deref(), &roots, None))?,
        Ok(_) if output.quiet => {}
        Ok((path, roots)) => {
            let lines = summary(path.as_deref(), &roots);
            lines.iter().try_for_each(|line| printer.line(line))?;
        }
    }
    Ok(Exit::Done)
}

/// Returns the path of the file, and its roots.
fn read(named: Option<&Path>) -> Result<(Option<PathBuf>, Vec<Root>), RootsError> {
    let config = Config::load(named)?;
    let roots = config.roots(&RuleSettings::default())?;
    Ok((config.path, roots))
}

fn report<'a>(
    path: Option<&'a Path>,
    roots: &[Root],
    error: Option<&'a ConfigError>,
) -> Report<'a> {
    // The paths come from a file in UTF-8.
    let root = |root: &Root| root.path.to_string_lossy().into_owned();
    Report {
        path: path.map(Into::into),
        ok: error.is_none(),
        error: error.map(|error| FirstError {
            line: error.position.map(|(line, _)| line),
            column: error.position.map(|(_, column)| column),
            what: &error.message,
        }),
        roots: roots.iter().map(root).collect(),
    }
}

/// Returns the lines that `check` prints for a valid or missing file.
fn summary(path: Option<&Path>, roots: &[Root]) -> Vec<String> {
    let Some(path) = path else {
        let locations = default_locations().into_iter().map(|(_, line)| line);
        let head =
            "there is no configuration file, and none is needed; looked for it here:".to_owned();
        return std::iter::once(head).chain(locations).collect();
    };
    let path = text::escaped(path);
    if roots.is_empty() {
        return vec![format!(
            "{path} is valid but lists no directory. To add one, write a [[watch]] section with a path"
        )];
    }
    let number = text::counted(roots.len() as u64, "directory", "directories");
    let silent = response::unresponsive(roots.iter().map(|root| root.path.as_path()));
    let rule = |root: &Root| {
        let policy = &root.policy;
        let deep = match policy.recursive {
            true => "with subfolders",
            false => "without subfolders",
        };
        let (names, grace) = (&policy.names, watch::grace(policy));
        let (excluded, permissions) = (watch::exclusions(policy), watch::permissions(policy));
        let state = match !silent.contains(root.path.as_path()) {
            false => "; it does not answer; orphand watches it once it answers",
            true if root.path.symlink_metadata().is_err() => {
                "; it does not exist yet; orphand watches it once it exists"
            }
            true => "",
        };
        let path = text::escaped(&root.path);
        format!("  {path} ({deep}{excluded}) for {names}; the grace is {grace}{permissions}{state}")
    };
    let head = format!("{path} is valid and lists {number}:");
    let mut lines = vec![head];
    for root in roots {
        lines.push(rule(root));
        let narrower = root.policy.names.narrower();
        lines.extend(narrower.iter().map(|one| format!("    note: {one}")));
        let without = root.policy.names.ineffective_globs();
        lines.extend(without.iter().map(|(glob, row)| {
            format!(
                "    note: the name pattern {glob:?} has no effect: names like {} are reserved ({}); \
                 write the whole name of the file",
                row.pattern, row.kind
            )
        }));
    }
    lines
}
