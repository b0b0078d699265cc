//! The command line: parse, build, run. One file for each command.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use orphand::decide::temp_name;
use orphand::evidence::locks::Locks;
use orphand::evidence::namespaces::Nested;
use orphand::evidence::restored::Marks;
use orphand::evidence::writers::Writers;
use orphand::journal::Journal;
use orphand::look::answer;
use orphand::pass::Tools;
use orphand::reap::Reaper;
use orphand::root::{Refused, Root, absolute};
use orphand::state::Folders;

use args::{Cli, Command, Rule};
use config_file::{Config, RuleSettings};

mod args;
mod board;
mod choices;
mod completions;
mod config;
mod config_file;
mod doctor;
mod duration;
mod explain;
mod history;
mod log;
mod man;
mod metrics;
mod program;
mod quarantine;
mod report;
mod restore;
mod scan;
mod service;
mod size;
mod status;
mod supervisor;
mod sweep;
mod text;
mod watch;
mod words;

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

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::new(Exit::Usage, refused)
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
    let cli = Cli::parse();
    log::start(&cli.look);
    let look = cli.look;
    let end = match cli.command {
        Command::Watch(command) => watch::run(&command, &look),
        Command::Scan(command) => scan::run(&command, &look),
        Command::Sweep(command) => sweep::run(&command, &look),
        Command::Explain(command) => explain::run(&command, &look),
        Command::History(command) => history::run(&command, &look),
        Command::Restore(command) => restore::run(&command, &look),
        Command::Quarantine(command) => quarantine::run(&command, &look),
        Command::Status(command) => status::run(&command, &look),
        Command::Service(command) => service::run(&command, &look),
        Command::Config(command) => config::run(&command, &look),
        Command::Doctor(command) => doctor::run(&command, &look),
        Command::Completions(command) => completions::run(&command),
        Command::Man(command) => man::run(&command),
    };
    let exit = end.unwrap_or_else(|failure| {
        // An error in a file begins with the file's name, so that editors can jump to it.
        let who = if failure.exit == Exit::Config {
            ""
        } else {
            "orphand: "
        };
        anstream::eprintln!("{who}{}", failure.text);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// The settings and roots of a command that names directories.
struct Plan {
    config: Config,
    roots: Vec<Root>,
}

/// For what a directory is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    /// To be changed.
    Act,
    /// To be looked at.
    Look,
}

fn plan(
    rule: &Rule,
    typed: RuleSettings,
    dirs: &[PathBuf],
    intent: Intent,
) -> Result<Plan, Failure> {
    let config = Config::load(rule.config.as_deref())?;
    // What is typed here is meant for these directories; a default is not.
    let broad = typed.broad.unwrap_or(false);
    let settings = typed.over(&config.defaults);
    let policy = Arc::new(settings.policy()?);
    let mut roots: Vec<Root> = Vec::new();
    // All at once: those that do not answer are waited for together.
    let paths: Vec<PathBuf> = dirs.iter().map(|dir| absolute(dir)).collect();
    let _ = answer::silent(paths.iter().map(PathBuf::as_path));
    for dir in dirs {
        let policy = Arc::clone(&policy);
        let root = match intent {
            Intent::Act => Root::new(dir, policy, broad)?,
            Intent::Look => Root::to_look_at(dir, policy)?,
        };
        if roots.iter().all(|known| known.path != root.path) {
            roots.push(root);
        }
    }
    Ok(Plan { config, roots })
}

/// `--writer list`: the named grammars, and whose they are.
fn list_writers(rule: &Rule) -> bool {
    let wanted = rule.writer.iter().any(|writer| writer == "list");
    if wanted {
        for writer in temp_name::writers() {
            println!("{:<12} {}", writer.name, writer.patterns.join("  "));
            println!("{:<12} {}", "", writer.producer);
        }
    }
    wanted
}

/// The tools of a command that works by itself, without a watcher.
fn tools(folders: &Folders, verbose: bool) -> Result<Tools, Failure> {
    let state = folders.state.as_deref();
    Ok(Tools {
        reaper: Reaper::new(),
        journal: Journal::new(state),
        marks: Marks::new(state),
        writers: Writers::default(),
        nested: Nested::default(),
        locks: Locks::default(),
        verbose,
    })
}

/// Asks a yes-or-no question on the terminal, again where the answer is neither. No answer is no, which is said.
fn confirmed(question: &str) -> bool {
    let mut lines = io::stdin().lines();
    eprint!("{question} [y/N] ");
    loop {
        let answer = lines.next().and_then(Result::ok);
        let is_end = answer.is_none();
        match answer.unwrap_or_default().trim().to_lowercase().as_str() {
            "y" | "yes" => return true,
            "" | "n" | "no" => {
                // Ctrl-D ends no line.
                let end = if is_end { "\n" } else { "" };
                eprintln!("{end}nothing was removed");
                return false;
            }
            _ => eprint!("answer y or n: {question} [y/N] "),
        }
    }
}

fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// One text on stdout. That nobody reads it to its end (`| head`) is no failure.
fn print(text: &[u8]) -> io::Result<Exit> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(Exit::Done),
    }
}

/// A missing directory, said where nobody waits for it.
fn missing(path: &Path) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("{path:?} does not exist; check the name (watch would wait for it)"),
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
fn progress_bar(look: &args::Look, what: &'static str) -> indicatif::ProgressBar {
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
