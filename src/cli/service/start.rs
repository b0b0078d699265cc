//! `start`, `stop` and `restart`, and the wait for the watcher that was started.

use std::thread;
use std::time::{Duration, Instant};

use orphand::state::Folders;

use super::control::{self, Control};
use super::messages::Messages;
use super::paths::{ServiceManager, ServicePaths};
use super::waits;
use crate::cli::status::client::{self, RunningWatch};
use crate::cli::{Exit, Failure};

/// Between two questions whether it answers.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn start(
    place: &ServicePaths,
    folders: &Folders,
    voice: &Messages,
) -> Result<Exit, Failure> {
    check_installed(place)?;
    let control = control::of(place);
    let found = control.state()?;
    if found.running == Some(true) {
        let pid = found
            .pid
            .map(|pid| format!(" (pid {pid})"))
            .unwrap_or_default();
        voice.line(&format!(
            "It runs already{pid}.   anew:   {}",
            place.command("restart")
        ));
        return Ok(Exit::Done);
    }
    control.start(&found)?;
    wait_until_running(place, folders, control.as_ref(), None, voice)
}

pub(super) fn restart(
    place: &ServicePaths,
    folders: &Folders,
    voice: &Messages,
) -> Result<Exit, Failure> {
    check_installed(place)?;
    let control = control::of(place);
    let found = control.state()?;
    control.restart(&found)?;
    wait_until_running(place, folders, control.as_ref(), found.pid, voice)
}

pub(super) fn stop(place: &ServicePaths, voice: &Messages) -> Result<Exit, Failure> {
    let control = control::of(place);
    // What is loaded is stopped, also if somebody has removed its file.
    let found = match check_installed(place) {
        Ok(()) => control.state()?,
        Err(missing) => match control.state() {
            Ok(found) if found.domain.is_some() => found,
            _ => return Err(missing),
        },
    };
    let was_running = found.loaded && found.running != Some(false);
    control.stop(&found)?;
    let next = match place.manager {
        ServiceManager::Launchd => "it starts again at the next login or boot",
        ServiceManager::Systemd if found.enabled == Some(true) => {
            "it starts again at the next login or boot"
        }
        ServiceManager::Systemd => "it stays so until it is started",
    };
    voice.line(&format!(
        "{}; {next}.   now:   {}   never:   {}",
        if was_running {
            "Stopped"
        } else {
            "It does not run"
        },
        place.command("start"),
        place.command("uninstall")
    ));
    Ok(Exit::Done)
}

/// Says what to do where nothing is installed.
pub(super) fn check_installed(place: &ServicePaths) -> Result<(), Failure> {
    let file = place.file();
    if file.exists() {
        return Ok(());
    }
    let theirs = match place.homebrew_file() {
        Some(_) => "\n  it is Homebrew's here:   brew services info orphand",
        None => "",
    };
    Err(Failure::new(
        Exit::NotInstalled,
        format!(
            "not installed as a service: there is no {file:?}\n  \
             install and start:   {}\n  \
             just run it here:    orphand watch DIR{theirs}",
            place.command("install")
        ),
    ))
}

/// Says how the watcher that was just started fares. launchd answers before it runs, so it is waited
/// for; systemd has waited itself. `before` ended just now, and may still answer.
pub(super) fn wait_until_running(
    place: &ServicePaths,
    folders: &Folders,
    control: &dyn Control,
    before: Option<u32>,
    voice: &Messages,
) -> Result<Exit, Failure> {
    if let Some(watcher) = wait_for_answer(place, folders, before) {
        voice.line(&format!(
            "Started    pid {} ({})",
            watcher.pid, watcher.version
        ));
        for trouble in &watcher.problems {
            voice.warn(trouble);
        }
        return Ok(Exit::Done);
    }
    let now = control.state()?;
    let has_ended = now.running == Some(false) || now.last_run_error.is_some();
    if has_ended {
        let why = now
            .last_run_error
            .unwrap_or_else(|| format!("why:   {}", place.command("logs")));
        return Err(Failure::new(
            Exit::Failed,
            format!("it was started and does not run\n  {why}"),
        ));
    }
    let pid = now
        .pid
        .map(|pid| format!("pid {pid}; "))
        .unwrap_or_default();
    voice.line(&format!(
        "Started    {pid}it has not answered yet.   how it fares:   {}",
        place.command("status")
    ));
    Ok(Exit::Done)
}

fn wait_for_answer(place: &ServicePaths, folders: &Folders, before: Option<u32>) -> Option<RunningWatch> {
    let limit = match place.manager {
        ServiceManager::Launchd => waits::answer_limit(),
        ServiceManager::Systemd => Duration::ZERO,
    };
    let end = Instant::now() + limit;
    loop {
        let watcher = find_watcher(place, folders).filter(|watcher| Some(watcher.pid) != before);
        if watcher.is_some() || Instant::now() >= end {
            return watcher;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The watcher that the service runs, if it answers.
pub(super) fn find_watcher(place: &ServicePaths, folders: &Folders) -> Option<RunningWatch> {
    let running = client::running(&place.folders(folders));
    running.into_iter().find(|running| running.is_background)
}
