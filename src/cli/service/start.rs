//! `service start`, `stop` and `restart`, and the wait until the started watcher answers.

use std::thread;
use std::time::{Duration, Instant};

use super::context::ServiceContext;
use super::job::Scope;
use super::paths::{ServiceManager, ServicePaths};
use super::timeouts;
use crate::cli::commands::status::client;
use crate::cli::commands::status::client::RunningWatch;
use crate::cli::exit::{Exit, Failure};

/// The pause between two requests to the started watcher.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn start(context: &ServiceContext<'_>) -> Result<Exit, Failure> {
    check_installed(context.service)?;
    let found = context.control.state()?;
    if found.running == Some(true) {
        let pid = found.pid.map(|pid| format!(" (pid {pid})"));
        context.line(format!(
            "Already running{}.   to restart it:   {}",
            pid.unwrap_or_default(),
            context.service.command("restart")
        ));
        return Ok(Exit::Done);
    }
    context.control.start(&found, false)?;
    wait_until_running(context, None)
}

pub(super) fn restart(context: &ServiceContext<'_>) -> Result<Exit, Failure> {
    check_installed(context.service)?;
    let found = context.control.state()?;
    context.control.start(&found, true)?;
    wait_until_running(context, found.pid)
}

pub(super) fn stop(context: &ServiceContext<'_>) -> Result<Exit, Failure> {
    let service = context.service;
    let found = context.control.state();
    if let Err(missing) = check_installed(service) {
        // A loaded job is stopped even if its service file has been removed.
        if !matches!(&found, Ok(found) if found.domain.is_some()) {
            return Err(missing);
        }
    }
    let found = found?;
    context.control.stop(&found)?;
    let next = match (service.manager, service.scope) {
        (ServiceManager::Systemd, _) if found.enabled != Some(true) => {
            "it stays stopped until it is started"
        }
        (_, Scope::System) => "it starts again at the next boot",
        (ServiceManager::Launchd, Scope::User) => "it starts again at the next login",
        // With lingering, systemd starts user services at boot.
        (ServiceManager::Systemd, Scope::User) => "it starts again at the next login or boot",
    };
    let done = match found.loaded && found.running != Some(false) {
        true => "Stopped",
        false => "Not running",
    };
    context.line(format!(
        "{done}; {next}.   to start it now:   {}   to remove it:   {}",
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
    context: &ServiceContext<'_>,
    before: Option<u32>,
) -> Result<Exit, Failure> {
    if let Some(watcher) = wait_for_answer(context.service, before) {
        context.line(format!(
            "Started    pid {} ({})",
            watcher.answer.pid, watcher.answer.version
        ));
        for problem in &watcher.answer.problems {
            context.warn(problem);
        }
        return Ok(Exit::Done);
    }
    let now = context.control.state()?;
    if now.running == Some(false) || now.last_run_error.is_some() {
        let logs = || format!("to find the cause:   {}", context.service.command("logs"));
        let why = now.last_run_error.unwrap_or_else(logs);
        return Err(Failure::failed(format!(
            "it was started but is not running\n  {why}"
        )));
    }
    let pid = now.pid.map(|pid| format!("pid {pid}; "));
    context.line(format!(
        "Started    {}orphand has not answered yet.   to see its state:   {}",
        pid.unwrap_or_default(),
        context.service.command("status")
    ));
    Ok(Exit::Done)
}

fn wait_for_answer(service: &ServicePaths, before: Option<u32>) -> Option<RunningWatch> {
    let limit = match service.manager {
        ServiceManager::Launchd => timeouts::answer_limit(),
        ServiceManager::Systemd => Duration::ZERO,
    };
    let end = Instant::now() + limit;
    loop {
        let watcher = find_watcher(service).filter(|watcher| Some(watcher.answer.pid) != before);
        if watcher.is_some() || Instant::now() >= end {
            return watcher;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Returns the watcher that the service runs, if it answers.
pub(super) fn find_watcher(service: &ServicePaths) -> Option<RunningWatch> {
    let running = client::running(&service.folders());
    running
        .into_iter()
        .find(|running| running.answer.is_background)
}
