//! `orphand config`: makes, checks and shows the configuration file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use orphand::json::Object;
use orphand::look::answer;
use orphand::root::{Root, absolute};
use serde_json::Value;

use super::args::OutputOptions;
use super::config_file::{self, ConfigError, RootsError, RuleSettings};
use super::event_printer::EventPrinter;
use super::shell::Suggestion;
use super::{Exit, Failure, list_writers, print, text, watch};
use show::Options;
use sources::WithSources;

mod init;
mod show;
mod sources;
mod value;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a file in which every setting is explained and none is changed; never overwrites
    Init(WithSources<CheckedFile>),
    /// Say what the file is about, or its first mistake
    Check(WithSources<CheckedFile>),
    /// Show what is in force for each directory, and where each value comes from
    Show(WithSources<Options>),
    /// Show where the file is looked for, and which is read
    Path(WithSources<CheckedFile>),
}

/// Which file.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckedFile {
    /// This configuration file instead of the usual one
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(command: &ConfigCommand, look: &OutputOptions) -> Result<Exit, Failure> {
    let mut report = EventPrinter::new(look, Vec::new());
    match command {
        ConfigCommand::Init(named) => init(place(named)?, look, &mut report),
        ConfigCommand::Check(named) => check(named.options.config.as_deref(), look, &mut report),
        ConfigCommand::Show(options) => show(options, look, &mut report),
        ConfigCommand::Path(named) => path(named, look, &mut report),
    }
}

/// The file that is read if it is there.
fn place(named: &WithSources<CheckedFile>) -> Result<PathBuf, Failure> {
    let named = named.options.config.as_deref().map(absolute);
    let place = named.or_else(config_file::Config::usual_path);
    place.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "there is no place for a configuration file: neither XDG_CONFIG_HOME nor HOME \
             is set to an absolute path; name one: --config FILE",
        )
    })
}

fn init(path: PathBuf, look: &OutputOptions, report: &mut EventPrinter) -> Result<Exit, Failure> {
    init::write(&path)?;
    if look.json {
        let made = Object::default().with_path("path", Some(&path));
        report.line(&made.into_value().to_string())?;
    } else if !look.quiet {
        let path = text::escaped(&path);
        report.line(&format!(
            "wrote {path}: every setting is in it, and nothing is watched yet.\n\
             next: name a directory in it (at [[watch]]), then: {}",
            Suggestion::new("config check").configured()
        ))?;
    }
    Ok(Exit::Done)
}

fn check(
    named: Option<&Path>,
    look: &OutputOptions,
    report: &mut EventPrinter,
) -> Result<Exit, Failure> {
    let read = || -> Result<_, ConfigError> {
        let config = config_file::Config::load(named)?;
        match config.roots(&RuleSettings::default()) {
            Ok(roots) => Ok((config.path, roots)),
            Err(RootsError::File(error)) => Err(error),
            // Nothing was typed, and rule by rule the file was read.
            Err(RootsError::Typed(error)) => Err(ConfigError {
                path: config.path.unwrap_or_default(),
                place: None,
                what: error.to_string(),
            }),
        }
    };
    match read() {
        Ok((path, roots)) if look.json => {
            let document = document(path.as_deref(), None, &roots);
            report.line(&document.to_string())?;
            Ok(Exit::Done)
        }
        Ok((path, roots)) => {
            if !look.quiet {
                summary(path.as_deref(), &roots)
                    .iter()
                    .try_for_each(|line| report.line(line))?;
            }
            Ok(Exit::Done)
        }
        Err(error) if look.json => {
            let document = document(Some(&error.path), Some(&error), &[]);
            report.line(&document.to_string())?;
            Ok(Exit::Config)
        }
        Err(error) => Err(error.into()),
    }
}

/// `path`, whether it is right, its first mistake, and what it lists.
fn document(path: Option<&Path>, error: Option<&ConfigError>, roots: &[Root]) -> Value {
    let mistake = error.map(|error| {
        Object::default()
            .with("line", error.place.map(|(line, _)| line))
            .with("column", error.place.map(|(_, column)| column))
            .with("what", error.what.clone())
            .into_value()
    });
    // They were written in UTF-8.
    let roots = roots.iter().map(|root| root.path.to_string_lossy());
    Object::default()
        .with_path("path", path)
        .with("ok", error.is_none())
        .with("error", mistake)
        .with("roots", roots.map(Value::from).collect::<Vec<_>>())
        .into_value()
}

fn summary(path: Option<&Path>, roots: &[Root]) -> Vec<String> {
    let Some(path) = path else {
        let places = looked_at().into_iter().map(|(_, line)| line);
        let head = "there is no configuration file, and none is needed; looked at:".to_owned();
        return std::iter::once(head).chain(places).collect();
    };
    let path = text::escaped(path);
    if roots.is_empty() {
        return vec![format!(
            "{path} is right, and lists no directory: watch has nothing to do until it does; to watch one: \
             [[watch]] and its path"
        )];
    }
    let number = text::counted(roots.len() as u64, "directory", "directories");
    let rule = |root: &Root| {
        let policy = &root.policy;
        let deep = match policy.recursive {
            true => "and below it",
            false => "not below it",
        };
        let (names, grace) = (&policy.names, watch::grace(policy));
        let excluded = match policy.exclude.is_empty() {
            true => String::new(),
            false => format!(", without {}", policy.exclude),
        };
        let there = match answer::answers(&root.path) {
            false => "; it does not answer: it is watched when it does",
            true if root.path.symlink_metadata().is_err() => "; not there yet: it is waited for",
            true => "",
        };
        let path = text::escaped(&root.path);
        format!("  {path} ({deep}{excluded}) for {names}; the grace is {grace}{there}")
    };
    let head = format!("{path} is right, and lists {number}:");
    let mut lines = vec![head];
    for root in roots {
        lines.push(rule(root));
        let narrower = root.policy.names.narrower();
        lines.extend(narrower.iter().map(|one| format!("    note: {one}")));
        let without = root.policy.names.ineffective_globs();
        lines.extend(without.iter().map(|(glob, row)| {
            format!(
                "    note: the name pattern {glob:?} takes nothing: {} is reserved ({}); \
                 write the whole name of the file",
                row.pattern, row.kind
            )
        }));
    }
    lines
}

fn show(
    options: &WithSources<Options>,
    look: &OutputOptions,
    report: &mut EventPrinter,
) -> Result<Exit, Failure> {
    if list_writers(&options.options.rule)? {
        return Ok(Exit::Done);
    }
    let config = config_file::Config::load(options.options.rule.config.as_deref())?;
    let typed = options.options.settings();
    // As a watcher would, so that nothing is shown as in force that is refused.
    config.roots(&typed)?;
    typed.clone().over(&config.defaults).policy()?;
    let shown = show::sections(&config, &typed, &options.givers);
    let shown = match look.json {
        true => show::document(config.path.as_deref(), &shown).to_string(),
        false => show::file(config.path.as_deref(), &shown),
    };
    report.line(&shown)?;
    Ok(Exit::Done)
}

fn path(
    named: &WithSources<CheckedFile>,
    look: &OutputOptions,
    report: &mut EventPrinter,
) -> Result<Exit, Failure> {
    let path = place(named)?;
    if look.json {
        let document = Object::default()
            .with_path("path", Some(&path))
            .with("exists", path.exists());
        report.line(&document.into_value().to_string())?;
        return Ok(Exit::Done);
    }
    if !look.quiet {
        let named = named.givers.get("config").map(|giver| {
            let line = format!("  {giver}: {}", whether_there(&path));
            (true, line)
        });
        let places = named.into_iter().chain(looked_at());
        let mut found = false;
        for (set, line) in places {
            let mark = match set && !found {
                true => "<- this one is read if it is there",
                false => "",
            };
            found |= set;
            let line = format!("{line}  {mark}");
            let _ = writeln!(anstream::stderr(), "{}", line.trim_end());
        }
    }
    // As it is: a script is to find the file.
    use std::os::unix::ffi::OsStrExt as _;
    Ok(print(&[path.as_os_str().as_bytes(), b"\n"].concat())?)
}

/// The usual places, one line each, and whether what it depends on is set.
fn looked_at() -> Vec<(bool, String)> {
    let line = |(written, path): (&str, Option<PathBuf>)| match path {
        Some(path) => (true, format!("  {written}: {}", whether_there(&path))),
        None => (false, format!("  {written}: its variable is not set")),
    };
    config_file::Config::usual_paths()
        .into_iter()
        .map(line)
        .collect()
}

fn whether_there(path: &Path) -> String {
    let there = match path.try_exists() {
        Ok(true) => "is there".to_owned(),
        Ok(false) => "is not there".to_owned(),
        Err(error) => format!("cannot be looked at: {error}"),
    };
    format!("{} {there}", text::escaped(path))
}
