//! `service install` and `service uninstall`.

use std::fs;
use std::path::{Path, PathBuf};

use orphand::fs::root::absolute;
use orphand::reap::quarantine::Quarantine;
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use rustix::process::geteuid;

use super::control::ServiceState;
use super::job::Scope;
use super::manager::control_of;
use super::messages::Messages;
use super::paths::{ServiceManager, ServicePaths};
use super::{file, program, start, systemd};
use crate::cli::config::{Config, ConfigError};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::shell;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text::{counted, escaped};
use crate::cli::runtime::quarantines::Quarantines;

/// Writes the service file and starts the service. If the service is up to date, nothing is changed.
pub(super) fn install(
    service: &ServicePaths,
    config: Option<&Path>,
    folders: &Folders,
    messages: &Messages,
) -> Result<Exit, Failure> {
    let named = config.map(absolute);
    let config = load(service, named.as_deref())?;
    check_user(service, messages)?;
    check_alone(service)?;
    let job = service.job(program::current()?, named.clone());
    check_program(service, &job.program, messages)?;
    let text = service.render(&job).map_err(failed)?;
    let control = control_of(service);
    let found = control.state()?;
    let path = service.file();
    let before = super::installed_service(service);
    let there = service
        .installed()
        .map_err(|error| unreadable(&path, &error))?;
    let same = there.as_deref() == Some(text.as_bytes());
    if same && is_up_to_date(&found) {
        let pid = found
            .pid
            .map(|pid| format!(" (pid {pid})"))
            .unwrap_or_default();
        messages.line(&format!(
            "Already up to date{pid}: {}. Nothing was changed.",
            escaped(&path)
        ));
        messages.line(&config_line(service, &config, named.as_deref()));
        return Ok(Exit::Done);
    }
    messages.line(&config_line(service, &config, named.as_deref()));
    if !same {
        write_file(service, &path, &text)?;
    }
    let noun = capitalized(service.kind_name());
    let done = match before.filter(|before| before.program != job.program) {
        Some(before) => format!("written; the old file started {}", escaped(&before.program)),
        None if same => "unchanged".to_owned(),
        None => "written".to_owned(),
    };
    messages.line(&format!("{noun:<10} {}  {done}", escaped(&path)));
    let version = env!("CARGO_PKG_VERSION");
    messages.line(&format!(
        "Program    {}  ({version})",
        escaped(&job.program)
    ));
    if let (ServiceManager::Launchd, Some(log)) = (service.manager, service.log(folders)) {
        messages.line(&format!("Log        {}", escaped(&log)));
    }
    control.load(&found)?;
    start::wait_until_running(service, folders, control.as_ref(), found.pid, messages)?;
    messages.line("");
    messages.line(post_install_hint(service));
    for (what, verb) in [
        ("Status", "status"),
        ("Stop", "stop"),
        ("Remove", "uninstall"),
    ] {
        messages.line(&format!("{what:<10} {}", service.command(verb)));
    }
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
fn check_user(service: &ServicePaths, messages: &Messages) -> Result<(), Failure> {
    let is_root = geteuid().is_root();
    match service.scope {
        Scope::System if !is_root => Err(Failure::new(
            Exit::Failed,
            format!(
                "only root can install a system service:   sudo {}\n  \
                 for this user only:   orphand service install",
                service.command("install")
            ),
        )),
        Scope::User if !service.is_home_ours() => Err(Failure::new(
            Exit::Failed,
            format!(
                "{:?} belongs to another user, so the service would too\n  \
                 for that user:   orphand service install   (without sudo)\n  \
                 for the whole machine:   sudo orphand service install --system",
                service.home()
            ),
        )),
        Scope::User if is_root => {
            messages.warn(
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
fn check_program(
    service: &ServicePaths,
    program: &Path,
    messages: &Messages,
) -> Result<(), Failure> {
    let refused = service.manager == ServiceManager::Systemd
        && program
            .to_str()
            .is_some_and(|program| !systemd::is_startable(program));
    if refused {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "systemd does not start a program with a quote or a backslash in its path: {program:?}; move it, then \
                 install again"
            ),
        ));
    }
    if let Some(place) = program::temporary_place(program) {
        messages.warn(&format!(
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
    Err(Failure::new(
        Exit::Failed,
        format!(
            "{path:?} is a symlink to {leads_to:?}, which differs from the file that would be installed now\n  \
             change it there:   {} > {}\n  \
             or remove it:      rm {}",
            service.command("print"),
            shell::word(&leads_to),
            shell::word(path)
        ),
    ))
}

fn post_install_hint(service: &ServicePaths) -> &'static str {
    match (service.manager, service.scope) {
        (ServiceManager::Launchd, _) => {
            "macOS will show \"Background Items Added\" for this service."
        }
        (ServiceManager::Systemd, Scope::User) => {
            "The service runs while you are logged in. To keep it running, as on a server:   loginctl enable-linger"
        }
        (ServiceManager::Systemd, Scope::System) => "The service starts at every boot.",
    }
}

/// Stops the service, removes its file, and lists the remaining files.
pub(super) fn uninstall(
    service: &ServicePaths,
    folders: &Folders,
    messages: &Messages,
) -> Result<Exit, Failure> {
    check_user_to_remove(service)?;
    let path = service.file();
    let file_exists = path.symlink_metadata().is_ok();
    let started = super::installed_service(service);
    let control = control_of(service);
    let found = control.state();
    // launchd keeps a job loaded after its file has been removed.
    let is_left_over = matches!(&found, Ok(found) if found.domain.is_some());
    if !file_exists && !is_left_over {
        messages.line(&format!(
            "Not installed: {} does not exist. Nothing was changed.",
            escaped(&path)
        ));
        return Ok(Exit::Done);
    }
    control.disable(&found?)?;
    if file_exists {
        fs::remove_file(&path).map_err(|error| unwritable(&path, &error))?;
        control.file_removed()?;
    }
    messages.line(&format!("Removed    {}", escaped(&path)));
    let config = started.and_then(|started| started.config);
    let left = remaining(service, config, folders);
    if !left.is_empty() {
        messages.line("\nThese files remain; to remove them:");
    }
    for (what, command) in left {
        messages.line(&format!("{what:<10} {command}"));
    }
    Ok(Exit::Done)
}

fn check_user_to_remove(service: &ServicePaths) -> Result<(), Failure> {
    match service.scope == Scope::System && !geteuid().is_root() {
        true => Err(Failure::new(
            Exit::Failed,
            format!(
                "only root can remove a system service:   sudo {}",
                service.command("uninstall")
            ),
        )),
        false => Ok(()),
    }
}

/// Returns the files that remain after the service is removed, each with the command that removes it.
fn remaining(
    service: &ServicePaths,
    config: Option<PathBuf>,
    ours: &Folders,
) -> Vec<(&'static str, String)> {
    let folders = service.folders(ours);
    let path = config.or_else(|| service.default_config());
    let mut left = Vec::new();
    // A wrong configuration file names no roots; the roots of the journal are searched anyway.
    let config = path
        .as_deref()
        .and_then(|path| Config::load(Some(path)).ok());
    let journal = Journal::new(folders.state.as_deref());
    let quarantines = Quarantines::known(&config.unwrap_or_default(), &journal, None);
    let held: usize = quarantines.roots().map(|root| stored_files(root)).sum();
    if held > 0 {
        let files = counted(held as u64, "file", "files");
        left.push((
            "Quarantine",
            format!("orphand quarantine purge   ({files})"),
        ));
    }
    if let Some(path) = path.filter(|path| path.exists()) {
        left.push(("Config", format!("rm {}", shell::word(&path))));
    }
    let state = folders.state.filter(|state| state.exists());
    if let Some(state) = &state {
        left.push(("Journal", format!("rm -r {}", shell::word(state))));
    }
    let logs = [service.log(ours), Some(service.crash_log())]
        .into_iter()
        .flatten();
    let mut logs: Vec<PathBuf> = logs
        .filter_map(|log| log.parent().map(Path::to_owned))
        .collect();
    logs.dedup();
    for logs in logs
        .into_iter()
        .filter(|logs| logs.exists() && Some(logs) != state.as_ref())
    {
        left.push(("Log", format!("rm -r {}", shell::word(&logs))));
    }
    left
}

fn stored_files(root: &Path) -> usize {
    let Ok(Some(quarantine)) = Quarantine::open_existing(root, None) else {
        return 0;
    };
    quarantine.stored().map_or(0, |stored| stored.len())
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    failed(format!(
        "cannot read {path:?}: {error}; check its permissions"
    ))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    failed(format!(
        "cannot change {path:?}: {error}; check the permissions of its folder"
    ))
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
