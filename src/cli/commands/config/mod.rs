//! `orphand config`: creates, checks and shows the configuration file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use orphand::fs::response;
use orphand::fs::root::{Root, absolute};
use orphand::store::json::Object;
use serde_json::Value;

use super::watch;
use crate::cli::config;
use crate::cli::config::{ConfigError, RootsError, RuleSettings};
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::standard_streams::print;
use crate::cli::output::text;
use crate::cli::output::writer_list::list_writers;
use sources::WithSources;

mod init;
mod show;
mod sources;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a file that explains every setting and changes none; never overwrites
    Init(WithSources<CheckedFile>),
    /// Check the file: print a summary, or its first error
    Check(WithSources<CheckedFile>),
    /// Show the settings in force for each directory, and where each value comes from
    Show(WithSources<PolicyOptions>),
    /// Print the path of the file, and the places in which orphand looks for it
    Path(WithSources<CheckedFile>),
}

/// The option that names the file.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckedFile {
    /// Use this configuration file instead of the default one
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
}

pub(crate) fn run(command: &ConfigCommand, output: &OutputOptions) -> Result<Exit, Failure> {
    let mut printer = EventPrinter::new(output, Vec::new());
    match command {
        ConfigCommand::Init(named) => init(file_path(named)?, output, &mut printer),
        ConfigCommand::Check(named) => check(named.options.config.as_deref(), output, &mut printer),
        ConfigCommand::Show(options) => show(options, output, &mut printer),
        ConfigCommand::Path(named) => path(named, output, &mut printer),
    }
}

/// Returns the path of the file that is read if it exists.
fn file_path(named: &WithSources<CheckedFile>) -> Result<PathBuf, Failure> {
    let named = named.options.config.as_deref().map(absolute);
    let path = named.or_else(config::Config::default_path);
    path.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "cannot find the folder of the configuration file: neither XDG_CONFIG_HOME nor HOME \
             is set to an absolute path; name the file: --config FILE",
        )
    })
}

fn init(
    path: PathBuf,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    init::write(&path)?;
    if output.json {
        let document = Object::default().with_path("path", Some(&path));
        printer.line(&document.into_value().to_string())?;
    } else if !output.quiet {
        let path = text::escaped(&path);
        printer.line(&format!(
            "Wrote {path}. It lists no directory yet.\n\
             Next: add a [[watch]] section with a path, then run: {}",
            Suggestion::new("config check").configured()
        ))?;
    }
    Ok(Exit::Done)
}

fn check(
    named: Option<&Path>,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    let read = || -> Result<_, ConfigError> {
        let config = config::Config::load(named)?;
        match config.roots(&RuleSettings::default()) {
            Ok(roots) => Ok((config.path, roots)),
            Err(RootsError::File(error)) => Err(error),
            // Cannot happen: there are no options, and reading the file has checked each rule.
            Err(RootsError::Typed(error)) => Err(ConfigError {
                path: config.path.unwrap_or_default(),
                position: None,
                message: error.to_string(),
            }),
        }
    };
    match read() {
        Ok((path, roots)) if output.json => {
            let document = check_document(path.as_deref(), None, &roots);
            printer.line(&document.to_string())?;
            Ok(Exit::Done)
        }
        Ok((path, roots)) => {
            if !output.quiet {
                check_summary(path.as_deref(), &roots)
                    .iter()
                    .try_for_each(|line| printer.line(line))?;
            }
            Ok(Exit::Done)
        }
        Err(error) if output.json => {
            let document = check_document(Some(&error.path), Some(&error), &[]);
            printer.line(&document.to_string())?;
            Ok(Exit::Config)
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the JSON of `check`: the path, whether the file is valid, its first error, and its roots.
fn check_document(path: Option<&Path>, error: Option<&ConfigError>, roots: &[Root]) -> Value {
    let error_object = error.map(|error| {
        Object::default()
            .with("line", error.position.map(|(line, _)| line))
            .with("column", error.position.map(|(_, column)| column))
            .with("what", error.message.clone())
            .into_value()
    });
    // The paths come from a file in UTF-8.
    let roots = roots.iter().map(|root| root.path.to_string_lossy());
    Object::default()
        .with_path("path", path)
        .with("ok", error.is_none())
        .with("error", error_object)
        .with("roots", roots.map(Value::from).collect::<Vec<_>>())
        .into_value()
}

/// Returns the lines that `check` prints for a valid or missing file.
fn check_summary(path: Option<&Path>, roots: &[Root]) -> Vec<String> {
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
    let rule = |root: &Root| {
        let policy = &root.policy;
        let deep = match policy.recursive {
            true => "with subfolders",
            false => "without subfolders",
        };
        let (names, grace) = (&policy.names, watch::grace(policy));
        let excluded = match policy.exclude.is_empty() {
            true => String::new(),
            false => format!(", excluding {}", policy.exclude),
        };
        let state = match response::responds(&root.path) {
            false => "; it does not answer; orphand watches it once it answers",
            true if root.path.symlink_metadata().is_err() => {
                "; it does not exist yet; orphand watches it once it exists"
            }
            true => "",
        };
        let path = text::escaped(&root.path);
        format!("  {path} ({deep}{excluded}) for {names}; the grace is {grace}{state}")
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

fn show(
    options: &WithSources<PolicyOptions>,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    if list_writers(&options.options.rule)? {
        return Ok(Exit::Done);
    }
    let config = config::Config::load(options.options.rule.config.as_deref())?;
    let typed = options.options.settings();
    // Checks the same as a watcher, so that no setting is shown as in force that a watcher would refuse.
    config.roots(&typed)?;
    typed.clone().over(&config.defaults).policy()?;
    let shown = show::shown_sections(&config, &typed, &options.sources);
    let shown = match output.json {
        true => show::render_json(config.path.as_deref(), &shown),
        false => show::render_file(config.path.as_deref(), &shown),
    };
    printer.line(&shown)?;
    Ok(Exit::Done)
}

fn path(
    named: &WithSources<CheckedFile>,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    let path = file_path(named)?;
    if output.json {
        let document = Object::default()
            .with_path("path", Some(&path))
            .with("exists", path.exists());
        printer.line(&document.into_value().to_string())?;
        return Ok(Exit::Done);
    }
    if !output.quiet {
        let named = named.sources.get("config").map(|source| {
            let line = format!("  {source}: {}", path_state(&path));
            (true, line)
        });
        let locations = named.into_iter().chain(default_locations());
        let mut found = false;
        for (is_set, line) in locations {
            let mark = match is_set && !found {
                true if path.exists() => "<- used",
                true => "<- would be used",
                false => "",
            };
            found |= is_set;
            let line = format!("{line}  {mark}");
            let _ = writeln!(anstream::stderr(), "{}", line.trim_end());
        }
    }
    // The bytes of the path are not escaped, so that a script can use it.
    use std::os::unix::ffi::OsStrExt as _;
    Ok(print(&[path.as_os_str().as_bytes(), b"\n"].concat())?)
}

/// Returns a line for each default path of the file, and whether the variable that it depends on is set.
fn default_locations() -> Vec<(bool, String)> {
    let line = |(written, path): (&str, Option<PathBuf>)| match path {
        Some(path) => (true, format!("  {written}: {}", path_state(&path))),
        None => (
            false,
            format!(
                "  {written}: {} is not set to an absolute path",
                match written.starts_with('~') {
                    true => "HOME",
                    false => "XDG_CONFIG_HOME",
                }
            ),
        ),
    };
    config::Config::default_paths()
        .into_iter()
        .map(line)
        .collect()
}

fn path_state(path: &Path) -> String {
    let state = match path.try_exists() {
        Ok(true) => "exists".to_owned(),
        Ok(false) => "does not exist".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    format!("{} {state}", text::escaped(path))
}
