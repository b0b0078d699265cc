//! The command line: parses it, builds the rules, and runs the command. Each command has its own file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use orphand::decide::temp_name;
use orphand::evidence::container_pids::ContainerPids;
use orphand::evidence::locks::Locks;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::evidence::siblings::Listings;
use orphand::evidence::writer_names::WriterNames;
use orphand::journal::Journal;
use orphand::look::{RootError, RootId, response};
use orphand::pass::Engine;
use orphand::reap::Reaper;
use orphand::root::{Refused, Root, absolute};
use orphand::state::Folders;

use args::{CliCommand, RuleOptions};
use config_file::{Config, CoveredDir, RuleLocation, RuleSettings};
use shell::Suggestion;

mod args;
mod choices;
mod completions;
mod config;
mod config_file;
mod doctor;
mod duration;
mod event_printer;
mod explain;
mod history;
mod log;
mod man;
mod messages;
mod metrics;
mod moment;
mod program;
mod quarantine;
mod quarantines;
mod restore;
mod scan;
mod service;
mod service_notify;
mod shell;
mod size;
mod status;
mod sweep;
mod text;
mod variables;
mod watch;
mod watch_status;

/// The exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// The command succeeded, even if temps were kept.
    Done = 0,
    /// The command failed.
    Failed = 1,
    /// The usage is wrong, or a directory is refused.
    Usage = 2,
    /// Something could not be read, removed or determined.
    Partial = 3,
    /// The service is not installed.
    NotInstalled = 4,
    /// The service is running, but a problem keeps it from doing its work.
    Degraded = 5,
    /// Orphans were found, and `--exit-code` was given.
    Found = 10,
    /// Another orphand works on the directory.
    Busy = 75,
    /// The configuration file is invalid.
    Config = 78,
    /// SIGHUP ended the command in order.
    HungUp = 129,
    /// SIGINT ended the command in order, or a second signal ended it at once.
    Interrupted = 130,
    /// SIGTERM ended the command in order.
    Terminated = 143,
}

impl Exit {
    /// The service is installed but not running: the same exit code as systemctl's.
    const STOPPED: Exit = Exit::Partial;
}

/// An error that ends a command: its exit code, and the message for stderr, which names the thing, the cause and
/// the fix.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    fn new(exit: Exit, text: impl fmt::Display) -> Failure {
        Failure {
            exit,
            text: text.to_string(),
        }
    }
}

impl From<config_file::ConfigError> for Failure {
    fn from(error: config_file::ConfigError) -> Failure {
        Failure::new(Exit::Config, error)
    }
}

impl From<config_file::RootsError> for Failure {
    fn from(error: config_file::RootsError) -> Failure {
        match error {
            config_file::RootsError::Typed(error) => error.into(),
            config_file::RootsError::File(error) => error.into(),
        }
    }
}

impl From<config_file::SettingsError> for Failure {
    fn from(error: config_file::SettingsError) -> Failure {
        Failure::new(Exit::Usage, error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(Exit::Failed, error)
    }
}

/// Runs the command that the command line names.
pub(crate) fn main() -> ExitCode {
    let cli = variables::parse().unwrap_or_else(|error| error.exit());
    log::init(&cli.output);
    let output = cli.output;
    let end = match cli.command {
        CliCommand::Watch(command) => watch::run(&command, &output),
        CliCommand::Scan(command) => scan::run(&command, &output),
        CliCommand::Sweep(command) => sweep::run(&command, &output),
        CliCommand::Explain(command) => explain::run(&command, &output),
        CliCommand::History(command) => history::run(&command, &output),
        CliCommand::Restore(command) => restore::run(&command, &output),
        CliCommand::Quarantine(command) => quarantine::run(&command, &output),
        CliCommand::Status(command) => status::run(&command, &output),
        CliCommand::Service(command) => service::run(&command, &output),
        CliCommand::Config(command) => config::run(&command, &output),
        CliCommand::Doctor(command) => doctor::run(&command, &output),
        CliCommand::Completions(command) => completions::run(&command),
        CliCommand::Man(command) => man::run(&command),
    };
    let exit = end.unwrap_or_else(|failure| {
        // An error in a file begins with the file's name, so that editors can jump to the position.
        let prefix = if failure.exit == Exit::Config {
            ""
        } else {
            "error: "
        };
        // If stderr cannot be written, there is no other place for the message.
        let _ = writeln!(anstream::stderr(), "{prefix}{}", failure.text);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// The settings and roots of a command that works on directories.
struct Plan {
    config: Config,
    roots: Vec<Root>,
    /// The `[[watch]]` rule of each root that has one, by the path of the root.
    rules: BTreeMap<PathBuf, RuleLocation>,
    /// The roots that are allowed to be broad directories.
    broad: BTreeSet<PathBuf>,
}

impl Plan {
    /// Returns the `[[watch]]` rule of a root.
    fn rule(&self, root: &Root) -> Option<&RuleLocation> {
        self.rules.get(&root.path)
    }

    /// Returns the reason why nothing may be removed in a root, if there is one.
    fn refusal_to_change(&self, root: &Root) -> Option<Refused> {
        let broad = self.broad.contains(&root.path);
        Root::new(&root.path, Arc::clone(&root.policy), broad).err()
    }

    /// Prints the rule of the configuration file that applies to each root, on stderr.
    fn report_rules(&self, output: &args::OutputOptions) {
        const MAX_LINES: usize = 20;
        let lines = self.roots.iter().filter_map(|root| {
            let path = text::escaped(&root.path);
            let rule = self.rule(root)?;
            Some(match &rule.excluded {
                Some(glob) => format!(
                    "{path} is left alone: the [[watch]] rule at {rule} excludes it ({glob})"
                ),
                None => format!("{path} has its [[watch]] rule at {rule}"),
            })
        });
        let mut lines: Vec<String> = lines.collect();
        let more = lines.len().saturating_sub(MAX_LINES);
        lines.truncate(MAX_LINES);
        if more > 0 {
            lines.push(format!("{more} more directories have [[watch]] rules"));
        }
        for line in lines.iter().filter(|_| !output.quiet) {
            // These lines only accompany the data: if they cannot be written, the command continues.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// The use that a command makes of a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    /// The directory is watched by the `[defaults]`, even if it has a rule of its own.
    Watch,
    /// Files in the directory may be changed.
    Act,
    /// The directory is only read.
    Look,
}

/// Returns the settings and roots for the directories `dirs` of the command line.
fn plan(
    rule: &RuleOptions,
    typed: RuleSettings,
    dirs: &[PathBuf],
    intent: Intent,
) -> Result<Plan, Failure> {
    let config = Config::load(rule.config.as_deref())?;
    // A flag of the command line is meant for these directories; a `broad` in `[defaults]` is not.
    let typed_broad = typed.broad.unwrap_or(false);
    let covered = match intent {
        Intent::Watch => {
            let policy = typed.over(&config.defaults).policy()?;
            let covered = |dir: &PathBuf| CoveredDir {
                path: absolute(dir),
                policy: policy.clone(),
                rule: None,
                broad: false,
            };
            dirs.iter().map(covered).collect()
        }
        Intent::Act | Intent::Look => config.covered(dirs, &typed)?,
    };
    let mut roots: Vec<Root> = Vec::new();
    // All paths are probed at the same time: the directories that do not answer cost one wait in total.
    let _ = response::unresponsive(covered.iter().map(|one| one.path.as_path()));
    let (mut rules, mut broad) = (BTreeMap::new(), BTreeSet::new());
    for one in covered {
        let policy = Arc::new(one.policy);
        let root = match intent {
            Intent::Look => Root::for_inspection(&one.path, policy),
            Intent::Act | Intent::Watch => Root::new(&one.path, policy, typed_broad || one.broad),
        };
        let root = root.map_err(|why| {
            let explain = rule.append_to(Suggestion::new("explain"));
            Failure::new(Exit::Usage, shell::refused_text(&why, explain))
        })?;
        rules.extend(one.rule.map(|rule| (root.path.clone(), rule)));
        broad.extend((typed_broad || one.broad).then(|| root.path.clone()));
        if roots.iter().all(|known| known.path != root.path) {
            roots.push(root);
        }
    }
    Ok(Plan {
        config,
        roots,
        rules,
        broad,
    })
}

/// Returns the settings and roots for the directories that the configuration file lists. `verb` is the name of the
/// command, for the error message.
fn listed(rule: &RuleOptions, typed: &RuleSettings, verb: &str) -> Result<Plan, Failure> {
    let config = Config::load(rule.config.as_deref())?;
    let mut roots = config.roots(typed)?;
    if roots.is_empty() {
        return Err(nothing_listed(&config, verb));
    }
    let locations = config.watch.iter().map(|rule| config.location_of(rule));
    let rules = roots.iter().map(|root| root.path.clone()).zip(locations);
    let rules = rules.collect();
    // `Config::roots` has already checked each root by the `broad` of its own rule.
    let broad = roots.iter().map(|root| root.path.clone()).collect();
    // A watch waits for missing directories; these commands do not wait.
    roots.retain(|root| {
        let exists = !response::responds(&root.path)
            || !matches!(RootId::of(&root.path), Err(RootError::Missing));
        if !exists {
            ::log::warn!("{:?} does not exist; skipping it", root.path);
        }
        exists
    });
    Ok(Plan {
        config,
        roots,
        rules,
        broad,
    })
}

/// Returns the error for a command without a directory if the configuration file lists none. It names both fixes.
fn nothing_listed(config: &Config, verb: &str) -> Failure {
    let file = match &config.path {
        Some(path) => format!("{path:?} lists none"),
        None => match Config::default_path() {
            Some(path) => format!("{path:?} does not exist"),
            None => "there is no configuration file".to_owned(),
        },
    };
    let one = format!("{verb} one now:");
    let init = Suggestion::new("config init").configured();
    let next = match config.path {
        Some(_) => "a [[watch]] for each in that file".to_owned(),
        None => format!("{init}, then a [[watch]] for each in that file"),
    };
    Failure::new(
        Exit::Usage,
        format!(
            "no directory to {verb}: none was given, and {file}.\n\
             {one:<20} orphand {verb} DIR\n\
             or list them:        {next}"
        ),
    )
}

/// Returns the error for a configuration file that has disappeared while its rules are in force.
fn config_missing(path: &Path) -> Failure {
    Failure::new(
        Exit::Config,
        format!("{path:?} does not exist; create it again"),
    )
}

/// Prints the known writers, with their patterns and programs, if `--writer list` was given. Returns whether it was.
fn list_writers(rule: &RuleOptions) -> Result<bool, Failure> {
    let is_requested = rule.writer.iter().any(|writer| writer == "list");
    if is_requested {
        let rows = temp_name::writers().map(|writer| {
            let (name, patterns) = (writer.name, writer.patterns.join("  "));
            format!("{name:<12} {patterns}\n{:<12} {}\n", "", writer.producer)
        });
        print(rows.collect::<String>().as_bytes())?;
    }
    Ok(is_requested)
}

/// Returns the engine of a command that runs without a watcher.
fn engine(folders: &Folders, verbose: bool) -> Result<Engine, Failure> {
    let state = folders.state.as_deref();
    Ok(Engine {
        reaper: Reaper::new(),
        journal: Journal::new(state),
        marks: RestoreMarks::new(state),
        writers: WriterNames::default(),
        container_pids: ContainerPids::default(),
        locks: Locks::default(),
        listings: Listings::default(),
        verbose,
    })
}

/// Asks a yes-or-no question on the terminal, and repeats it while the answer is neither. No answer counts as no.
/// A no prints "nothing was removed".
fn confirm(question: &str) -> bool {
    let mut lines = io::stdin().lines();
    let _ = write!(io::stderr(), "{question} [y/N] ");
    loop {
        let answer = lines.next().and_then(Result::ok);
        let is_end = answer.is_none();
        match answer.unwrap_or_default().trim().to_lowercase().as_str() {
            "y" | "yes" => return true,
            "" | "n" | "no" => {
                // Ctrl-D does not end the line.
                let end = if is_end { "\n" } else { "" };
                let _ = writeln!(io::stderr(), "{end}nothing was removed");
                return false;
            }
            _ => _ = write!(io::stderr(), "answer y or n: {question} [y/N] "),
        }
    }
}

fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Writes `text` to stdout. It is not an error if the reader has closed the pipe (`| head`).
fn print(text: &[u8]) -> io::Result<Exit> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text).and_then(|()| out.flush());
    has_reader(written).map(|_| Exit::Done)
}

/// Returns whether the output still has a reader, by the result of a write. It is not an error if the reader has
/// closed the pipe: the output ends, and nothing else changes.
fn has_reader(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let what = format!("cannot write the output: {error}");
            Err(io::Error::new(error.kind(), what))
        }
    }
}

/// Returns the error for a missing directory, for commands that do not wait.
fn missing(path: &Path) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("{path:?} does not exist; check the name (orphand watch --wait waits for it)"),
    )
}

/// Returns the message that the file system of `path` does not answer, with the command that finds the cause.
fn no_answer(path: &Path) -> String {
    format!(
        "{path:?} does not answer: its file system sent no answer for {} s; to find the cause: \
         orphand doctor {path:?}",
        response::RESPONSE_TIMEOUT.as_secs()
    )
}

/// Returns a progress bar on stderr for a long operation. It is hidden if stderr is not a terminal.
fn progress_bar(output: &args::OutputOptions, what: &'static str) -> indicatif::ProgressBar {
    if output.quiet || !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{spinner} {msg} {human_pos}/{human_len}");
    let bar = indicatif::ProgressBar::new(0).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn escaped_name(name: &OsStr) -> String {
    text::escaped(Path::new(name))
}
