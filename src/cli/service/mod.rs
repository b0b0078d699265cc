//! `orphand service`: installs and controls orphand as a launchd agent or a systemd unit.
//!
//! `launchd` and `systemd` render the service files with pure functions, `launchctl` and `systemctl` call the service
//! managers, and the subcommands combine both.

use std::path::{Path, PathBuf};

use orphand::fs::root::absolute;

use super::exit::{Exit, Failure};
use super::options::OutputOptions;
use crate::cli::output::standard_streams;
use context::ServiceContext;
use control::Control;
use job::{Job, Scope};
use launchctl::Launchctl;
use paths::{ServiceManager, ServicePaths};
use systemctl::Systemctl;

pub(crate) use problems::problems;

mod context;
mod control;
mod file;
mod install;
mod job;
mod launchctl;
mod launchd;
mod logs;
mod paths;
mod problems;
mod program;
mod start;
mod status;
mod systemctl;
mod systemd;
mod template;
mod timeouts;
mod tool;
mod uninstall;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes of status: 0 running; 3 installed, but not running;
4 not installed; 5 running, but it cannot do its work.
start, stop and restart exit with 4 if nothing is installed.")]
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
    let (which, changes) = match &command.verb {
        Verb::Install { which, .. }
        | Verb::Uninstall(which)
        | Verb::Start(which)
        | Verb::Stop(which)
        | Verb::Restart(which) => (which, true),
        Verb::Status(which) | Verb::Logs { which, .. } | Verb::Print { which, .. } => {
            (which, false)
        }
    };
    let service = &selected(*which)?;
    let control: &dyn Control = match service.manager {
        ServiceManager::Launchd => &Launchctl::new(service),
        ServiceManager::Systemd => &Systemctl::new(service),
    };
    let context = ServiceContext {
        service,
        control,
        output,
    };
    let done = match &command.verb {
        Verb::Install { config, .. } => install::install(&context, config.config.as_deref()),
        Verb::Uninstall(_) => uninstall::uninstall(&context),
        Verb::Start(_) => start::start(&context),
        Verb::Stop(_) => start::stop(&context),
        Verb::Restart(_) => start::restart(&context),
        Verb::Status(_) => status::run(&context),
        Verb::Logs { follow, lines, .. } => logs::logs(service, *follow, *lines),
        Verb::Print { config, run_as, .. } => {
            print(service, config.config.as_deref(), run_as.clone())
        }
    };
    if changes && output.json {
        // The steps were printed to stderr; the document has the resulting state.
        let _ = status::run(&context);
    }
    done
}

fn selected(which: ServiceSelector) -> Result<ServicePaths, Failure> {
    let manager = match (which.launchd, which.systemd) {
        (true, _) => ServiceManager::Launchd,
        (_, true) => ServiceManager::Systemd,
        _ => ServiceManager::OURS,
    };
    let scope = match which.system {
        true => Scope::System,
        false => Scope::User,
    };
    ServicePaths::new(manager, scope).ok_or_else(|| {
        Failure::failed(
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
    let job = Job {
        run_as,
        ..service.job(program::current()?, config.map(absolute))
    };
    let text = service.render(&job).map_err(Failure::failed)?;
    Ok(standard_streams::print(text.as_bytes())?)
}
