//! `orphand service`: installs and controls orphand as a launchd agent or a systemd unit.
//!
//! `launchd` and `systemd` render the service files with pure functions, `launchctl` and `systemctl` call the service
//! managers, and the subcommands combine both.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use orphand::fs::root::absolute;
use orphand::store::folders::Folders;

use super::exit::{Exit, Failure};
use super::options::OutputOptions;
use crate::cli::commands::status::client;
use crate::cli::commands::status::client::RunningWatch;
use crate::cli::output::shell;
use crate::cli::output::standard_streams;
use crate::cli::output::text::escaped;
use job::{InstalledService, Scope};
use messages::Messages;
use paths::{ServiceManager, ServicePaths};
use tool::Tool;

mod control;
mod file;
mod install;
mod job;
mod launchctl;
mod launchd;
mod manager;
mod messages;
mod paths;
mod program;
mod start;
mod status;
mod systemctl;
mod systemd;
mod template;
mod timeouts;
mod tool;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes of status: 0 running · 3 installed, but not running · 4 not installed · \
5 running, but it cannot do its work. The other commands exit with 4 if nothing is installed.")]
pub(crate) struct Service {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Install the service, and start it now and at every login (with --system: at every boot); repeating this changes
    /// nothing
    Install {
        #[command(flatten)]
        which: ServiceSelector,
        #[command(flatten)]
        config: ServiceConfig,
    },
    /// Stop and remove the service; configuration, journal, log and quarantine are kept
    Uninstall(ServiceSelector),
    /// Start the service
    Start(ServiceSelector),
    /// Stop the service until the next login (with --system: until the next boot)
    Stop(ServiceSelector),
    /// Stop and start the service, for example after an upgrade
    Restart(ServiceSelector),
    /// Show whether the service is installed, enabled, loaded and running, and its problems
    Status(ServiceSelector),
    /// Show the log of the service
    Logs {
        #[command(flatten)]
        which: ServiceSelector,
        /// Continue with new lines as they are logged
        #[arg(short, long)]
        follow: bool,
        /// Show the last N lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        lines: u32,
    },
    /// Print the service file, without changing anything
    Print {
        #[command(flatten)]
        which: ServiceSelector,
        #[command(flatten)]
        config: ServiceConfig,
        /// Print a system unit that runs as this user, without any privileges of root
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

/// The options that select a service.
#[derive(Clone, Copy, Debug, clap::Args)]
struct ServiceSelector {
    /// Use launchd, even if this system has systemd
    #[arg(long, conflicts_with = "systemd")]
    launchd: bool,
    /// Use systemd, even if this system has launchd
    #[arg(long)]
    systemd: bool,
    /// Use the service for the whole machine instead of the user's
    #[arg(long)]
    system: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct ServiceConfig {
    /// Make the service read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
}

/// Parses the name of a user, in the form that systemd accepts.
fn parse_user(name: &str) -> Result<String, String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    match begins && name.chars().all(is_fine) {
        true => Ok(name.to_owned()),
        false => Err(format!("{name:?} is not a valid user name")),
    }
}

pub(super) fn run(command: &Service, output: &OutputOptions) -> Result<Exit, Failure> {
    let messages = Messages::new(output);
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
    let service = selected(*which)?;
    let done = match &command.verb {
        Verb::Install { config, .. } => {
            install::install(&service, config.config.as_deref(), &folders, &messages)
        }
        Verb::Uninstall(_) => install::uninstall(&service, &folders, &messages),
        Verb::Start(_) => start::start(&service, &folders, &messages),
        Verb::Stop(_) => start::stop(&service, &messages),
        Verb::Restart(_) => start::restart(&service, &folders, &messages),
        Verb::Status(_) => status::run(&service, &folders, output),
        Verb::Logs { follow, lines, .. } => logs(&service, &folders, *follow, *lines),
        Verb::Print { config, run_as, .. } => {
            print(&service, config.config.as_deref(), run_as.clone())
        }
    };
    if changes && output.json {
        // The steps were printed to stderr; the document has the resulting state.
        let _ = status::run(&service, &folders, output);
    }
    done
}

fn selected(which: ServiceSelector) -> Result<ServicePaths, Failure> {
    let manager = match (which.launchd, which.systemd) {
        (true, _) => ServiceManager::Launchd,
        (_, true) => ServiceManager::Systemd,
        _ => ServiceManager::OURS,
    };
    let scope = if which.system {
        Scope::System
    } else {
        Scope::User
    };
    ServicePaths::new(manager, scope).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "HOME is not set, so the user of the service is not known; set it, or add --system",
        )
    })
}

fn print(
    service: &ServicePaths,
    config: Option<&Path>,
    run_as: Option<String>,
) -> Result<Exit, Failure> {
    if run_as.is_some() && service.manager == ServiceManager::Launchd {
        return Err(Failure::new(
            Exit::Usage,
            "--run-as needs systemd; add --systemd",
        ));
    }
    let job = job::Job {
        run_as,
        ..service.job(program::current()?, config.map(absolute))
    };
    let text = service.render(&job);
    let text = text.map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(standard_streams::print(text.as_bytes())?)
}

/// Replaces this process with the program that shows the log.
fn logs(
    service: &ServicePaths,
    folders: &Folders,
    follow: bool,
    lines: u32,
) -> Result<Exit, Failure> {
    let lines = lines.to_string();
    let mut args: Vec<OsString>;
    let tool = match service.manager {
        ServiceManager::Systemd => {
            let unit = match service.scope {
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
        // `tail -F` continues with the new file after the log is rotated.
        args.push(
            if service.manager == ServiceManager::Launchd {
                "-F"
            } else {
                "-f"
            }
            .into(),
        );
    }
    if service.manager == ServiceManager::Launchd {
        let log = service.log(folders).unwrap_or_default();
        if !log.exists() {
            start::check_installed(service)?;
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "there is no log yet: {log:?} is created when the service runs\n  to see its state:   {}",
                    service.command("status")
                ),
            ));
        }
        let crashes = service.crash_log();
        if fs::metadata(&crashes).is_ok_and(|meta| meta.len() > 0) {
            log::warn!(
                "the service has crashed before; its output: {}",
                escaped(&crashes)
            );
        }
        args.push(log.into());
    }
    let error = tool.command(&args).exec();
    Err(Failure::new(
        Exit::Failed,
        format!("cannot start {}: {error}", tool.command_line(&args)),
    ))
}

/// A problem of the service that keeps orphand from working, now or soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The problem, for people.
    pub(crate) what: String,
    /// The command that fixes it.
    pub(crate) fix: String,
}

/// Returns the problems of the services that are installed on this system. It reads their files and asks the watchers,
/// but calls no service manager, so it never waits for one.
pub(crate) fn problems(folders: &Folders) -> Vec<Problem> {
    let mut problems = Vec::new();
    for scope in [Scope::User, Scope::System] {
        let Some(service) = ServicePaths::new(ServiceManager::OURS, scope) else {
            continue;
        };
        problems.extend(file_problems(&service));
        if service.file().exists() {
            let running = client::running(&service.folders(folders));
            let background = running.iter().find(|running| running.answer.is_background);
            problems.extend(background.and_then(|running| outdated_problem(running, &service)));
        }
    }
    problems
}

/// Returns the problems of the file of one service.
fn file_problems(service: &ServicePaths) -> Vec<Problem> {
    let mut problems = Vec::new();
    let path = service.file();
    let mut add = |what: String, fix: String| problems.push(Problem { what, fix });
    let file = match service.installed() {
        Ok(None) => return problems,
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            add(
                format!("cannot read {path:?}: {error}"),
                format!("ls -l {}", shell::word(&path)),
            );
            return problems;
        }
    };
    if let Some(homebrew) = service.homebrew_file() {
        let fix = "brew services stop orphand".to_owned();
        add(format!("Homebrew runs orphand too: {homebrew:?}"), fix);
    }
    let Some(started) = service.read(&file) else {
        let what = format!("{path:?} was not written by orphand");
        add(what, service.command("install"));
        return problems;
    };
    let install = match &started.config {
        Some(config) => format!(
            "{} --config {}",
            service.command("install"),
            shell::word(config)
        ),
        None => service.command("install"),
    };
    if !started.program.exists() {
        add(
            format!(
                "{path:?} starts {:?}, which does not exist",
                started.program
            ),
            install,
        );
        return problems;
    }
    let Ok(ours) = program::current() else {
        return problems;
    };
    if !is_same_file(&started.program, &ours) {
        let what = format!(
            "{path:?} starts {:?}, but this is {ours:?}",
            started.program
        );
        add(what, install);
        return problems;
    }
    let now = service.render(&service.job(started.program, started.config));
    if now.is_ok_and(|now| now != file) {
        add(
            format!("{path:?} differs from the file that would be installed now"),
            install,
        );
    }
    problems
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(a), Ok(b)) if a == b)
}

/// Returns the problem that the running watcher is older than the installed program, as after an upgrade.
fn outdated_problem(running: &RunningWatch, service: &ServicePaths) -> Option<Problem> {
    let ours = env!("CARGO_PKG_VERSION");
    let what = match (running.answer.version == ours, running.is_outdated) {
        (true, false) => return None,
        (true, true) => "the program on disk is newer than the running one".to_owned(),
        (false, _) => format!(
            "version {} is running, but this is {ours}",
            running.answer.version
        ),
    };
    Some(Problem {
        what,
        fix: service.command("restart"),
    })
}

/// Returns the command in the installed service file, if the file can be read.
fn installed_service(service: &ServicePaths) -> Option<InstalledService> {
    service.read(&String::from_utf8(service.installed().ok()??).ok()?)
}
