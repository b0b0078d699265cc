//! `orphand service`: as a launchd agent or a systemd unit.
//!
//! What a service file says is rendered by pure functions (`launchd`, `systemd`), what the
//! supervisor is asked stands in `launchctl` and `systemctl`, and the verbs are built out of both.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use orphand::root::absolute;
use orphand::state::Folders;

use super::args::OutputOptions;
use super::status::client::{self, RunningWatch};
use super::text::escaped;
use super::{Exit, Failure, shell};
use job::{InstalledUnit, Scope};
use messages::Messages;
use paths::{ServiceManager, ServicePaths};
use tool::Tool;

mod control;
mod file;
mod install;
mod job;
mod launchctl;
mod launchd;
mod messages;
mod paths;
mod program;
mod start;
mod status;
mod systemctl;
mod systemd;
mod template;
mod tool;
mod waits;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit of status: 0 it runs · 3 installed, but does not run · 4 not installed · \
5 it runs, but something keeps it from its work. The others end with 4 where nothing is installed.")]
pub(crate) struct Service {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Install it, and start it now and at every login; twice does no more than once
    Install {
        #[command(flatten)]
        which: ServiceSelector,
        #[command(flatten)]
        config: ServiceConfig,
    },
    /// Stop and remove it; configuration, journal, log and quarantine stay
    Uninstall(ServiceSelector),
    /// Start it
    Start(ServiceSelector),
    /// Stop it until the next login
    Stop(ServiceSelector),
    /// Stop it and start it again, for example after an upgrade
    Restart(ServiceSelector),
    /// Show whether it is installed, enabled, loaded and running, and what is wrong with it
    Status(ServiceSelector),
    /// Show what it has logged
    Logs {
        #[command(flatten)]
        which: ServiceSelector,
        /// Go on with what it logs from now on
        #[arg(short, long)]
        follow: bool,
        /// So many of the last lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        lines: u32,
    },
    /// Print the service file; changes nothing
    Print {
        #[command(flatten)]
        which: ServiceSelector,
        #[command(flatten)]
        config: ServiceConfig,
        /// For a unit of the whole machine that runs as this user, without any powers of root's
        #[arg(
            long,
            value_name = "USER",
            value_parser = parse_user,
            requires = "system",
            conflicts_with = "launchd"
        )]
        run_as: Option<String>,
    },
}

/// Which service is meant.
#[derive(Clone, Copy, Debug, clap::Args)]
struct ServiceSelector {
    /// That of launchd, whatever this system has
    #[arg(long, conflicts_with = "systemd")]
    launchd: bool,
    /// That of systemd, whatever this system has
    #[arg(long)]
    systemd: bool,
    /// That of the whole machine, run by root, instead of this user's
    #[arg(long)]
    system: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct ServiceConfig {
    /// Let the service read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
}

/// A user's name as systemd takes it.
fn parse_user(name: &str) -> Result<String, String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    match begins && name.chars().all(is_fine) {
        true => Ok(name.to_owned()),
        false => Err(format!("{name:?} is not the name of a user")),
    }
}

pub(super) fn run(command: &Service, look: &OutputOptions) -> Result<Exit, Failure> {
    let voice = Messages::new(look);
    let folders = Folders::from_env();
    let (which, changes) = match &command.verb {
        Verb::Install { which, .. } => (which, true),
        Verb::Uninstall(which) | Verb::Start(which) | Verb::Stop(which) | Verb::Restart(which) => {
            (which, true)
        }
        Verb::Status(which) | Verb::Logs { which, .. } | Verb::Print { which, .. } => {
            (which, false)
        }
    };
    let place = selected(*which)?;
    let done = match &command.verb {
        Verb::Install { config, .. } => {
            install::install(&place, config.config.as_deref(), &folders, &voice)
        }
        Verb::Uninstall(_) => install::uninstall(&place, &folders, &voice),
        Verb::Start(_) => start::start(&place, &folders, &voice),
        Verb::Stop(_) => start::stop(&place, &voice),
        Verb::Restart(_) => start::restart(&place, &folders, &voice),
        Verb::Status(_) => status::run(&place, &folders, look),
        Verb::Logs { follow, lines, .. } => logs(&place, &folders, *follow, *lines),
        Verb::Print { config, run_as, .. } => {
            print(&place, config.config.as_deref(), run_as.clone())
        }
    };
    if changes && look.json {
        // What was done is said in words; the document is what came of it.
        let _ = status::run(&place, &folders, look);
    }
    done
}

fn selected(which: ServiceSelector) -> Result<ServicePaths, Failure> {
    let supervisor = match (which.launchd, which.systemd) {
        (true, _) => ServiceManager::Launchd,
        (_, true) => ServiceManager::Systemd,
        _ => ServiceManager::OURS,
    };
    let scope = if which.system {
        Scope::System
    } else {
        Scope::User
    };
    ServicePaths::new(supervisor, scope).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "HOME is not set, so it is not known whose service this is; set it, or say --system",
        )
    })
}

fn print(
    place: &ServicePaths,
    config: Option<&Path>,
    run_as: Option<String>,
) -> Result<Exit, Failure> {
    if run_as.is_some() && place.manager == ServiceManager::Launchd {
        return Err(Failure::new(
            Exit::Usage,
            "--run-as is for systemd; say --systemd too",
        ));
    }
    let job = job::Job {
        run_as,
        ..place.job(program::current()?, config.map(absolute))
    };
    let text = place.render(&job);
    let text = text.map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(crate::cli::print(text.as_bytes())?)
}

/// Becomes the program that shows the log.
fn logs(
    place: &ServicePaths,
    folders: &Folders,
    follow: bool,
    lines: u32,
) -> Result<Exit, Failure> {
    let lines = lines.to_string();
    let mut args: Vec<OsString>;
    let tool = match place.manager {
        ServiceManager::Systemd => {
            let unit = match place.scope {
                Scope::User => "--user-unit",
                Scope::System => "--unit",
            };
            args = [unit, systemd::UNIT, "-n", &lines]
                .map(OsString::from)
                .into();
            let paths = [
                "/usr/bin/journalctl",
                "/bin/journalctl",
                "/run/current-system/sw/bin/journalctl",
            ];
            Tool::find("journalctl", "ORPHAND_JOURNALCTL", &paths)
        }
        ServiceManager::Launchd => {
            args = ["-n", &lines].map(OsString::from).into();
            Tool::find("tail", "ORPHAND_TAIL", &["/usr/bin/tail", "/bin/tail"])
        }
    };
    if follow {
        // tail's -F goes on with the new file when the log is rotated.
        args.push(
            if place.manager == ServiceManager::Launchd {
                "-F"
            } else {
                "-f"
            }
            .into(),
        );
    }
    if place.manager == ServiceManager::Launchd {
        let log = place.log(folders).unwrap_or_default();
        if !log.exists() {
            start::check_installed(place)?;
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "there is no log yet: {log:?} is written once it runs\n  does it:   {}",
                    place.command("status")
                ),
            ));
        }
        let crashes = place.crash_log();
        if fs::metadata(&crashes).is_ok_and(|meta| meta.len() > 0) {
            log::warn!("it has crashed before, and printed: {}", escaped(&crashes));
        }
        args.push(log.into());
    }
    let error = tool.command(&args).exec();
    Err(Failure::new(
        Exit::Failed,
        format!("{} cannot be started: {error}", tool.command_line(&args)),
    ))
}

/// Something about the service that keeps orphand from its work, or soon will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What is wrong; in words.
    pub(crate) what: String,
    /// The command that mends it.
    pub(crate) fix: String,
}

/// What is wrong with the services of this system that are installed, told from their files and from
/// the watcher itself: no supervisor is asked, so it never waits for one.
pub(crate) fn problems(folders: &Folders) -> Vec<Problem> {
    let mut problems = Vec::new();
    for scope in [Scope::User, Scope::System] {
        let Some(place) = ServicePaths::new(ServiceManager::OURS, scope) else {
            continue;
        };
        problems.extend(file_problems(&place));
        if place.file().exists() {
            let running = client::running(&place.folders(folders));
            let background = running.iter().find(|running| running.is_background);
            problems.extend(background.and_then(|running| outdated_problem(running, &place)));
        }
    }
    problems
}

/// What is wrong with the file of one service.
fn file_problems(place: &ServicePaths) -> Vec<Problem> {
    let mut problems = Vec::new();
    let path = place.file();
    let mut add = |what: String, fix: String| problems.push(Problem { what, fix });
    let file = match place.installed() {
        Ok(None) => return problems,
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            add(
                format!("{path:?} cannot be read: {error}"),
                format!("ls -l {}", shell::word(&path)),
            );
            return problems;
        }
    };
    if let Some(theirs) = place.homebrew_file() {
        let fix = "brew services stop orphand".to_owned();
        add(format!("Homebrew runs orphand too: {theirs:?}"), fix);
    }
    let Some(started) = place.read(&file) else {
        let what = format!("{path:?} is not as orphand writes it");
        add(what, place.command("install"));
        return problems;
    };
    let install = match &started.config {
        Some(config) => format!(
            "{} --config {}",
            place.command("install"),
            shell::word(config)
        ),
        None => place.command("install"),
    };
    if !started.program.exists() {
        add(
            format!("{path:?} starts {:?}, which is not there", started.program),
            install,
        );
        return problems;
    }
    let Ok(ours) = program::current() else {
        return problems;
    };
    if !is_same_file(&started.program, &ours) {
        let what = format!(
            "{path:?} starts {:?}, and this is {ours:?}",
            started.program
        );
        add(what, install);
        return problems;
    }
    let now = place.render(&place.job(started.program, started.config));
    if now.is_ok_and(|now| now != file) {
        add(
            format!("{path:?} is not what would be installed now"),
            install,
        );
    }
    problems
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(a), Ok(b)) if a == b)
}

/// After an upgrade: the running watcher is still the old one.
fn outdated_problem(running: &RunningWatch, place: &ServicePaths) -> Option<Problem> {
    let ours = env!("CARGO_PKG_VERSION");
    let what = match (running.version == ours, running.is_outdated) {
        (true, false) => return None,
        (true, true) => "the program on disk is newer than the one that runs".to_owned(),
        (false, _) => format!("{} runs, and this is {ours}", running.version),
    };
    Some(Problem {
        what,
        fix: place.command("restart"),
    })
}

/// What the installed file starts, if there is one that can be read.
fn installed_unit(place: &ServicePaths) -> Option<InstalledUnit> {
    place.read(&String::from_utf8(place.installed().ok()??).ok()?)
}
