//! `service start`, `stop` and `restart`, and the wait until the started watcher answers.

use std::thread;
use std::time::{Duration, Instant};

use orphand::store::folders::Folders;

use super::control::Control;
use super::job::Scope;
use super::manager::control_of;
use super::messages::Messages;
use super::paths::{ServiceManager, ServicePaths};
use super::timeouts;
use crate::cli::commands::status::client;
use crate::cli::commands::status::client::RunningWatch;
use crate::cli::exit::{Exit, Failure};

/// The pause between two requests to the started watcher.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn start(
    service: &ServicePaths,
    folders: &Folders,
    messages: &Messages,
) -> Result<Exit, Failure> {
    check_installed(service)?;
    let control = control_of(service);
    let found = control.state()?;
    if found.running == Some(true) {
        let pid = found
            .pid
            .map(|pid| format!(" (pid {pid})"))
            .unwrap_or_default();
        messages.line(&format!(
            "Already running{pid}.   to restart it:   {}",
            service.command("restart")
        ));
        return Ok(Exit::Done);
    }
    control.start(&found)?;
    wait_until_running(service, folders, control.as_ref(), None, messages)
}

pub(super) fn restart(
    service: &ServicePaths,
    folders: &Folders,
    messages: &Messages,
) -> Result<Exit, Failure> {
    check_installed(service)?;
    let control = control_of(service);
    let found = control.state()?;
    control.restart(&found)?;
    wait_until_running(service, folders, control.as_ref(), found.pid, messages)
}

pub(super) fn stop(service: &ServicePaths, messages: &Messages) -> Result<Exit, Failure> {
    let control = control_of(service);
    // A loaded job is stopped even if its service file has been removed.
    let found = match check_installed(service) {
        Ok(()) => control.state()?,
        Err(missing) => match control.state() {
            Ok(found) if found.domain.is_some() => found,
            _ => return Err(missing),
        },
    };
    let was_running = found.loaded && found.running != Some(false);
    control.stop(&found)?;
    let next = match (service.manager, service.scope) {
        (ServiceManager::Systemd, _) if found.enabled != Some(true) => {
            "it stays stopped until it is started"
        }
        (_, Scope::System) => "it starts again at the next boot",
        (ServiceManager::Launchd, Scope::User) => "it starts again at the next login",
        // With lingering, systemd starts user services at boot.
        (ServiceManager::Systemd, Scope::User) => "it starts again at the next login or boot",
    };
    messages.line(&format!(
        "{}; {next}.   to start it now:   {}   to remove it:   {}",
        if was_running {
            "Stopped"
        } else {
            "Not running"
        },
        service.command("start"),
        service.command("uninstall")
    ));
    Ok(Exit::Done)
}

/// Fails if no service is installed.
pub(super) fn check_installed(service: &ServicePaths) -> Result<(), Failure> {
    let file = service.file();
    if file.exists() {
        return Ok(());
    }
    let homebrew = match service.homebrew_file() {
        Some(_) => "\n  Homebrew manages the service:   brew services info orphand",
        None => "",
    };
    Err(Failure::new(
        Exit::NotInstalled,
        format!(
            "not installed as a service: {file:?} does not exist\n  \
             install and start:   {}\n  \
             run without one:     orphand watch DIR{homebrew}",
            service.command("install")
        ),
    ))
}

/// Reports whether the watcher that was just started is running. launchctl returns before the watcher runs, so this
/// waits for its answer; systemctl has already waited. `before` is the pid of the watcher that was just stopped, which
/// may still answer.
pub(super) fn wait_until_running(
    service: &ServicePaths,
    folders: &Folders,
    control: &dyn Control,
    before: Option<u32>,
    messages: &Messages,
) -> Result<Exit, Failure> {
    if let Some(watcher) = wait_for_answer(service, folders, before) {
        messages.line(&format!(
            "Started    pid {} ({})",
            watcher.answer.pid, watcher.answer.version
        ));
        for problem in &watcher.answer.problems {
            messages.warn(problem);
        }
        return Ok(Exit::Done);
    }
    let now = control.state()?;
    let has_ended = now.running == Some(false) || now.last_run_error.is_some();
    if has_ended {
        let why = now
            .last_run_error
            .unwrap_or_else(|| format!("to find the cause:   {}", service.command("logs")));
        return Err(Failure::new(
            Exit::Failed,
            format!("it was started but is not running\n  {why}"),
        ));
    }
    let pid = now
        .pid
        .map(|pid| format!("pid {pid}; "))
        .unwrap_or_default();
    messages.line(&format!(
        "Started    {pid}orphand has not answered yet.   to see its state:   {}",
        service.command("status")
    ));
    Ok(Exit::Done)
}

fn wait_for_answer(
    service: &ServicePaths,
    folders: &Folders,
    before: Option<u32>,
) -> Option<RunningWatch> {
    let limit = match service.manager {
        ServiceManager::Launchd => timeouts::answer_limit(),
        ServiceManager::Systemd => Duration::ZERO,
    };
    let end = Instant::now() + limit;
    loop {
        let watcher =
            find_watcher(service, folders).filter(|watcher| Some(watcher.answer.pid) != before);
        if watcher.is_some() || Instant::now() >= end {
            return watcher;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Returns the watcher that the service runs, if it answers.
pub(super) fn find_watcher(service: &ServicePaths, folders: &Folders) -> Option<RunningWatch> {
    let running = client::running(&service.folders(folders));
    running
        .into_iter()
        .find(|running| running.answer.is_background)
}
