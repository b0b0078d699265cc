//! `service install`.

use std::fs;
use std::io;
use std::path::Path;

use orphand::fs::root::absolute;
use rustix::process::geteuid;

use super::context::ServiceContext;
use super::control::ServiceState;
use super::job::Scope;
use super::paths::{ServiceManager, ServicePaths};
use super::{file, program, start, systemd};
use crate::cli::config::{Config, ConfigError};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::shell;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text::{counted, escaped};

/// Writes the service file and starts the service. If the service is up to date, nothing is changed.
pub(super) fn install(
    context: &ServiceContext<'_>,
    config: Option<&Path>,
) -> Result<Exit, Failure> {
    let service = context.service;
    let named = config.map(absolute);
    let config = config_line(service, &load(service, named.as_deref())?, named.as_deref());
    check_user(context)?;
    check_alone(service)?;
    let job = service.job(program::current()?, named);
    check_program(context, &job.program)?;
    let text = service.render(&job).map_err(Failure::failed)?;
    let found = context.control.state()?;
    let path = service.file();
    let before = service.installed_service().map(|before| before.program);
    let there = service.installed().map_err(|error| {
        Failure::failed(format!(
            "cannot read {path:?}: {error}; check its permissions"
        ))
    })?;
    let is_same = there.as_deref() == Some(text.as_bytes());
    if is_same && is_up_to_date(&found) {
        let pid = found.pid.map(|pid| format!(" (pid {pid})"));
        context.line(format!(
            "Already up to date{}: {}. Nothing was changed.",
            pid.unwrap_or_default(),
            escaped(&path)
        ));
        context.line(config);
        return Ok(Exit::Done);
    }
    context.line(config);
    let done = match before.filter(|before| *before != job.program) {
        Some(before) => format!("written; the old file started {}", escaped(&before)),
        None if is_same => "unchanged".to_owned(),
        None => "written".to_owned(),
    };
    if !is_same {
        write_file(service, &path, &text)?;
    }
    report_files(context, &job.program, &done);
    context.control.load(&found)?;
    start::wait_until_running(context, found.pid)?;
    report_commands(context);
    Ok(Exit::Done)
}

fn write_file(service: &ServicePaths, path: &Path, text: &str) -> Result<(), Failure> {
    check_own(service, path)?;
    let crashes = service.crash_log();
    if let (ServiceManager::Launchd, Some(folder)) = (service.manager, crashes.parent()) {
        // Without this folder launchd does not start the job, and reports 78.
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    file::write(path, text).map_err(|error| unwritable(path, &error))
}

fn is_up_to_date(state: &ServiceState) -> bool {
    state.loaded && !state.is_stale && state.enabled != Some(false) && state.running != Some(false)
}

/// Prints the paths of the service file, of the program and of the log.
fn report_files(context: &ServiceContext<'_>, program: &Path, done: &str) {
    let service = context.service;
    let (file, program) = (escaped(&service.file()), escaped(program));
    context.line(format!("{:<10} {file}  {done}", service.kind_name()));
    context.line(format!(
        "Program    {program}  ({})",
        env!("CARGO_PKG_VERSION")
    ));
    if let (ServiceManager::Launchd, Some(log)) = (service.manager, service.log()) {
        context.line(format!("Log        {}", escaped(&log)));
    }
}

/// Prints what happens from now on, and the commands for it.
fn report_commands(context: &ServiceContext<'_>) {
    let service = context.service;
    context.line("");
    context.line(match (service.manager, service.scope) {
        (ServiceManager::Launchd, _) => {
            "macOS will show \"Background Items Added\" for this service."
        }
        (ServiceManager::Systemd, Scope::User) => {
            "The service runs while you are logged in. To keep it running, as on a server:   loginctl enable-linger"
        }
        (ServiceManager::Systemd, Scope::System) => "The service starts at every boot.",
    });
    for (what, verb) in [
        ("Status", "status"),
        ("Stop", "stop"),
        ("Remove", "uninstall"),
    ] {
        context.line(format!("{what:<10} {}", service.command(verb)));
    }
}

/// Reads the configuration of the service: the named file, which must exist, or the default file of its scope.
fn load(service: &ServicePaths, named: Option<&Path>) -> Result<Config, ConfigError> {
    match (named, service.scope) {
        (None, Scope::System) => match service.default_config() {
            Some(default) if default.exists() => Config::load(Some(&default)),
            _ => Ok(Config::default()),
        },
        (named, _) => Config::load(named),
    }
}

fn config_line(service: &ServicePaths, config: &Config, named: Option<&Path>) -> String {
    let default = service.default_config().unwrap_or_default();
    let path = config.path.as_deref().or(named).unwrap_or(&default);
    let what = match (&config.path, config.watch.len() as u64) {
        (None, _) => {
            let init = Suggestion::new("config init");
            let init = match service.scope {
                Scope::User => init.configured().to_string(),
                Scope::System => format!("ORPHAND_CONFIG={} {init}", shell::word(path)),
            };
            format!("does not exist, so nothing is watched yet.   to create it:   {init}")
        }
        (Some(_), 0) => "lists no directory, so nothing is watched until one is added".to_owned(),
        (Some(_), rules) => format!("({})", counted(rules, "directory", "directories")),
    };
    format!("Config     {}  {what}", escaped(path))
}

/// Refuses to install if the service file would belong to the wrong user.
fn check_user(context: &ServiceContext<'_>) -> Result<(), Failure> {
    let service = context.service;
    let is_root = geteuid().is_root();
    match service.scope {
        Scope::System if !is_root => Err(Failure::failed(format!(
            "only root can install a system service:   sudo {}\n  \
             for this user only:   orphand service install",
            service.command("install")
        ))),
        Scope::User if !service.is_home_ours() => Err(Failure::failed(format!(
            "{:?} belongs to another user, so the service would too\n  \
             for that user:   orphand service install   (without sudo)\n  \
             for the whole machine:   sudo orphand service install --system",
            service.home()
        ))),
        Scope::User if is_root => {
            context.warn(
                "this is the user service of root, which runs while root is logged in. To run from boot on, for the \
                 files of all users:   orphand service install --system",
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses to install a second service beside that of Homebrew.
fn check_alone(service: &ServicePaths) -> Result<(), Failure> {
    let Some(homebrew) = service.homebrew_file() else {
        return Ok(());
    };
    Err(Failure::new(
        Exit::Busy,
        format!(
            "Homebrew already has a service for orphand: {homebrew:?}. Two watchers cannot work on the same \
             directories\n  \
             use that one:   brew services restart orphand\n  \
             or this one:    brew services stop orphand && {}",
            service.command("install")
        ),
    ))
}

/// Refuses a program that the service manager would not start, and warns about one that is in a temporary place.
fn check_program(context: &ServiceContext<'_>, program: &Path) -> Result<(), Failure> {
    let is_systemd = context.service.manager == ServiceManager::Systemd;
    if is_systemd
        && program
            .to_str()
            .is_some_and(|program| !systemd::is_startable(program))
    {
        return Err(Failure::failed(format!(
            "systemd does not start a program with a quote or a backslash in its path: {program:?}; move it, then \
             install again"
        )));
    }
    if let Some(place) = program::temporary_place(program) {
        context.warn(format!(
            "{program:?} is in {place}; without the program the service cannot start. Move it to a permanent place \
             (cargo install does), and install from there"
        ));
    }
    Ok(())
}

/// Refuses to replace a symlink: a user who keeps service files elsewhere wants to change them there.
fn check_own(service: &ServicePaths, path: &Path) -> Result<(), Failure> {
    let Ok(leads_to) = fs::read_link(path) else {
        return Ok(());
    };
    Err(Failure::failed(format!(
        "{path:?} is a symlink to {leads_to:?}, which differs from the file that would be installed now\n  \
         change it there:   {} > {}\n  \
         or remove it:      rm {}",
        service.command("print"),
        shell::word(&leads_to),
        shell::word(path)
    )))
}

pub(super) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!(
        "cannot change {path:?}: {error}; check the permissions of its folder"
    ))
}
