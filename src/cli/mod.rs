//! The command line: parse, build, run. One file for each command.

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
use orphand::look::{RootError, RootId, answer};
use orphand::pass::Engine;
use orphand::reap::Reaper;
use orphand::root::{Refused, Root, absolute};
use orphand::state::Folders;

use args::{CliCommand, RuleOptions};
use config_file::{Config, Covered, RuleAt, RuleSettings};
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

/// How a command ends, where it does not simply fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All is done, also where temps were kept.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// Wrong usage, or a directory that is refused.
    Usage = 2,
    /// Something could not be read, removed, or told.
    Partly = 3,
    /// There is no service.
    NotInstalled = 4,
    /// The service runs, and something keeps it from its work.
    Degraded = 5,
    /// Orphans were found, and the exit code was to say so.
    Found = 10,
    /// Another orphand works there.
    Busy = 75,
    /// The configuration is wrong.
    Config = 78,
    /// SIGHUP ended it in order.
    HungUp = 129,
    /// SIGINT ended it in order, or a second signal at once.
    Interrupted = 130,
    /// SIGTERM ended it in order.
    Terminated = 143,
}

impl Exit {
    /// The service is installed and does not run: systemctl's number for it.
    const STOPPED: Exit = Exit::Partly;
}

/// An error on its way to stderr: what, why, and what to do.
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

/// Runs what the command line says.
pub(crate) fn main() -> ExitCode {
    let cli = variables::parse().unwrap_or_else(|error| error.exit());
    log::start(&cli.look);
    let look = cli.look;
    let end = match cli.command {
        CliCommand::Watch(command) => watch::run(&command, &look),
        CliCommand::Scan(command) => scan::run(&command, &look),
        CliCommand::Sweep(command) => sweep::run(&command, &look),
        CliCommand::Explain(command) => explain::run(&command, &look),
        CliCommand::History(command) => history::run(&command, &look),
        CliCommand::Restore(command) => restore::run(&command, &look),
        CliCommand::Quarantine(command) => quarantine::run(&command, &look),
        CliCommand::Status(command) => status::run(&command, &look),
        CliCommand::Service(command) => service::run(&command, &look),
        CliCommand::Config(command) => config::run(&command, &look),
        CliCommand::Doctor(command) => doctor::run(&command, &look),
        CliCommand::Completions(command) => completions::run(&command),
        CliCommand::Man(command) => man::run(&command),
    };
    let exit = end.unwrap_or_else(|failure| {
        // An error in a file begins with the file's name, so that editors can jump to it.
        let who = if failure.exit == Exit::Config {
            ""
        } else {
            "orphand: "
        };
        // If stderr cannot be written, there is no other place for the message.
        let _ = writeln!(anstream::stderr(), "{who}{}", failure.text);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// The settings and roots of a command that names directories.
struct Plan {
    config: Config,
    roots: Vec<Root>,
    /// The `[[watch]]` rules that hold in roots, by their paths.
    rules: BTreeMap<PathBuf, RuleAt>,
    /// The roots that may be broad ones.
    broad: BTreeSet<PathBuf>,
}

impl Plan {
    /// Returns the rule that holds in a root.
    fn rule(&self, root: &Root) -> Option<&RuleAt> {
        self.rules.get(&root.path)
    }

    /// Returns why a root may only be looked at, if it may not be changed.
    fn refuses_to_act(&self, root: &Root) -> Option<Refused> {
        let broad = self.broad.contains(&root.path);
        Root::new(&root.path, Arc::clone(&root.policy), broad).err()
    }

    /// Says which rule of the configuration file holds where.
    fn name_rules(&self, look: &args::OutputOptions) {
        const MOST: usize = 20;
        let named = self.roots.iter().filter_map(|root| {
            let path = text::escaped(&root.path);
            let rule = self.rule(root)?;
            Some(match &rule.excluded {
                Some(glob) => format!(
                    "nothing in {path} is taken: the [[watch]] rule at {rule} excludes it ({glob})"
                ),
                None => format!("{path} has its [[watch]] rule at {rule}"),
            })
        });
        let mut named: Vec<String> = named.collect();
        let more = named.len().saturating_sub(MOST);
        named.truncate(MOST);
        if more > 0 {
            named.push(format!("and {more} more directories have theirs"));
        }
        for line in named.iter().filter(|_| !look.quiet) {
            // It only goes with the data.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// For what a directory is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    /// To be watched: by the `[defaults]`, whatever rule it has.
    Watch,
    /// To be changed.
    Act,
    /// To be looked at.
    Look,
}

fn plan(
    rule: &RuleOptions,
    typed: RuleSettings,
    dirs: &[PathBuf],
    intent: Intent,
) -> Result<Plan, Failure> {
    let config = Config::load(rule.config.as_deref())?;
    // What is typed here is meant for these directories; a default is not.
    let typed_broad = typed.broad.unwrap_or(false);
    let covered = match intent {
        Intent::Watch => {
            let policy = typed.over(&config.defaults).policy()?;
            let covered = |dir: &PathBuf| Covered {
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
    // All at once: those that do not answer are waited for together.
    let _ = answer::silent(covered.iter().map(|one| one.path.as_path()));
    let (mut rules, mut broad) = (BTreeMap::new(), BTreeSet::new());
    for one in covered {
        let policy = Arc::new(one.policy);
        let root = match intent {
            Intent::Look => Root::for_inspection(&one.path, policy),
            Intent::Act | Intent::Watch => Root::new(&one.path, policy, typed_broad || one.broad),
        };
        let root = root.map_err(|why| {
            let explain = rule.repeat(Suggestion::new("explain"));
            Failure::new(Exit::Usage, shell::refused(&why, explain))
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

/// The same for the directories that the configuration file lists. `verb` is what is to be done with them.
fn listed(rule: &RuleOptions, typed: &RuleSettings, verb: &str) -> Result<Plan, Failure> {
    let config = Config::load(rule.config.as_deref())?;
    let mut roots = config.roots(typed)?;
    if roots.is_empty() {
        return Err(nothing_listed(&config, verb));
    }
    let places = config.watch.iter().map(|rule| config.place_of(rule));
    let rules = roots.iter().map(|root| root.path.clone()).zip(places);
    let rules = rules.collect();
    // Each was asked about already, by its own rule.
    let broad = roots.iter().map(|root| root.path.clone()).collect();
    // A watcher waits for those that are not there; here nothing waits.
    roots.retain(|root| {
        let is_there = !answer::answers(&root.path)
            || !matches!(RootId::of(&root.path), Err(RootError::Missing));
        if !is_there {
            ::log::warn!("{:?} does not exist, and is left out", root.path);
        }
        is_there
    });
    Ok(Plan {
        config,
        roots,
        rules,
        broad,
    })
}

/// No directory was given, and the file lists none: both ways out are named.
fn nothing_listed(config: &Config, verb: &str) -> Failure {
    let file = match &config.path {
        Some(path) => format!("{path:?} lists none"),
        None => match Config::usual_path() {
            Some(path) => format!("there is no {path:?}"),
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

/// `--writer list`: the named grammars, and whose they are. Says whether that was asked for.
fn list_writers(rule: &RuleOptions) -> Result<bool, Failure> {
    let wanted = rule.writer.iter().any(|writer| writer == "list");
    if wanted {
        let rows = temp_name::writers().map(|writer| {
            let (name, patterns) = (writer.name, writer.patterns.join("  "));
            format!("{name:<12} {patterns}\n{:<12} {}\n", "", writer.producer)
        });
        print(rows.collect::<String>().as_bytes())?;
    }
    Ok(wanted)
}

/// The tools of a command that works by itself, without a watcher.
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

/// Asks a yes-or-no question on the terminal, again where the answer is neither. No answer is no, which is said.
fn confirmed(question: &str) -> bool {
    let mut lines = io::stdin().lines();
    let _ = write!(io::stderr(), "{question} [y/N] ");
    loop {
        let answer = lines.next().and_then(Result::ok);
        let is_end = answer.is_none();
        match answer.unwrap_or_default().trim().to_lowercase().as_str() {
            "y" | "yes" => return true,
            "" | "n" | "no" => {
                // Ctrl-D ends no line.
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

/// Writes `text` to stdout. That its reader has ended (`| head`) is no failure.
fn print(text: &[u8]) -> io::Result<Exit> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text).and_then(|()| out.flush());
    is_read(written).map(|_| Exit::Done)
}

/// Returns whether the output still has a reader, by the result of a write. A pipe that its reader has
/// closed is no error: the output ends, and nothing else changes.
fn is_read(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let what = format!("cannot write the output: {error}");
            Err(io::Error::new(error.kind(), what))
        }
    }
}

/// A missing directory, said where nobody waits for it.
fn missing(path: &Path) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("{path:?} does not exist; check the name (orphand watch --wait waits for it)"),
    )
}

/// Says that the file system of `path` does not answer, and how to find out why.
fn no_answer(path: &Path) -> String {
    format!(
        "{path:?} does not answer: nothing came from its file system for {} s; to see what it is: \
         orphand doctor {path:?}",
        answer::PATIENCE.as_secs()
    )
}

/// A bar on stderr for what takes long, and only where somebody watches.
fn progress_bar(look: &args::OutputOptions, what: &'static str) -> indicatif::ProgressBar {
    if look.quiet || !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{spinner} {msg} {human_pos}/{human_len}");
    let bar = indicatif::ProgressBar::new(0).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn lossy(name: &OsStr) -> String {
    text::escaped(Path::new(name))
}
