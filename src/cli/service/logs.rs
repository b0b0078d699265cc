//! `service logs`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;

use super::job::Scope;
use super::paths::{ServiceManager, ServicePaths};
use super::tool::Tool;
use super::{start, systemd};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::text::escaped;

/// Replaces this process with the program that shows the log.
pub(super) fn logs(service: &ServicePaths, follow: bool, lines: u32) -> Result<Exit, Failure> {
    let lines = lines.to_string();
    let (tool, args) = match service.manager {
        ServiceManager::Systemd => journalctl(service, follow, lines),
        ServiceManager::Launchd => tail(service, follow, lines)?,
    };
    let error = tool.command(&args).exec();
    Err(Failure::failed(format!(
        "cannot start {}: {error}",
        tool.command_line(&args)
    )))
}

fn journalctl(service: &ServicePaths, follow: bool, lines: String) -> (Tool, Vec<OsString>) {
    let unit = match service.scope {
        Scope::User => "--user-unit",
        Scope::System => "--unit",
    };
    let mut args = vec![unit.into(), systemd::UNIT.into(), "-n".into(), lines.into()];
    args.extend(follow.then(|| "-f".into()));
    let paths = [
        "/usr/bin/journalctl",
        "/bin/journalctl",
        "/run/current-system/sw/bin/journalctl",
    ];
    (Tool::find("journalctl", "ORPHAND_JOURNALCTL", &paths), args)
}

fn tail(
    service: &ServicePaths,
    follow: bool,
    lines: String,
) -> Result<(Tool, Vec<OsString>), Failure> {
    let log = service.log().unwrap_or_default();
    if !log.exists() {
        start::check_installed(service)?;
        return Err(Failure::failed(format!(
            "there is no log yet: {log:?} is created when the service runs\n  to see its state:   {}",
            service.command("status")
        )));
    }
    let crashes = service.crash_log();
    if fs::metadata(&crashes).is_ok_and(|meta| meta.len() > 0) {
        log::warn!(
            "the service has crashed before; its output: {}",
            escaped(&crashes)
        );
    }
    let mut args = vec!["-n".into(), lines.into()];
    // `tail -F` continues with the new file after the log is rotated.
    args.extend(follow.then(|| "-F".into()));
    args.push(log.into());
    Ok((
        Tool::find("tail", "ORPHAND_TAIL", &["/usr/bin/tail", "/bin/tail"]),
        args,
    ))
}
