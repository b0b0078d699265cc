//! `service uninstall`.

use std::fs;
use std::path::PathBuf;

use orphand::reap::quarantine::StoredSum;
use orphand::store::journal::Journal;
use rustix::process::geteuid;

use super::context::ServiceContext;
use super::install::unwritable;
use super::job::Scope;
use super::paths::ServicePaths;
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::shell;
use crate::cli::output::text::{counted, escaped};
use crate::cli::runtime::quarantines::Quarantines;

/// Stops the service, removes its file, and lists the remaining files.
pub(super) fn uninstall(context: &ServiceContext<'_>) -> Result<Exit, Failure> {
    let service = context.service;
    if service.scope == Scope::System && !geteuid().is_root() {
        return Err(Failure::failed(format!(
            "only root can remove a system service:   sudo {}",
            service.command("uninstall")
        )));
    }
    let path = service.file();
    let file_exists = path.symlink_metadata().is_ok();
    let config = service
        .installed_service()
        .and_then(|installed| installed.config);
    let found = context.control.state();
    // launchd keeps a job loaded after its file has been removed.
    let is_left_over = matches!(&found, Ok(found) if found.domain.is_some());
    if !file_exists && !is_left_over {
        let path = escaped(&path);
        context.line(format!(
            "Not installed: {path} does not exist. Nothing was changed."
        ));
        return Ok(Exit::Done);
    }
    context.control.disable(&found?)?;
    if file_exists {
        fs::remove_file(&path).map_err(|error| unwritable(&path, &error))?;
        context.control.file_removed()?;
    }
    context.line(format!("Removed    {}", escaped(&path)));
    let left = remaining(service, config);
    if !left.is_empty() {
        context.line("\nThese files remain; to remove them:");
    }
    for (what, command) in left {
        context.line(format!("{what:<10} {command}"));
    }
    Ok(Exit::Done)
}

/// Returns the files that remain after the service is removed, each with the command that removes it.
fn remaining(service: &ServicePaths, config: Option<PathBuf>) -> Vec<(&'static str, String)> {
    let state = service.folders().state;
    let path = config.or_else(|| service.default_config());
    // A wrong configuration file names no roots; the roots of the journal are searched anyway.
    let config = path
        .as_deref()
        .and_then(|path| Config::load(Some(path)).ok());
    let journal = Journal::new(state.as_deref());
    let quarantines = Quarantines::known(&config.unwrap_or_default(), &journal, None);
    let with_files = quarantines
        .roots()
        .map(|root| (root, StoredSum::in_root(root).files))
        .filter(|(_, files)| *files > 0);
    let (roots, files): (Vec<&PathBuf>, Vec<u64>) = with_files.unzip();
    let mut left = Vec::new();
    if !roots.is_empty() {
        let files = counted(files.iter().sum(), "file", "files");
        left.push((
            "Quarantine",
            format!("{}   ({files})", shell::purge_command(roots)),
        ));
    }
    if let Some(path) = path.filter(|path| path.exists()) {
        left.push(("Config", format!("rm {}", shell::word(&path))));
    }
    let state = state.filter(|state| state.exists());
    if let Some(state) = &state {
        left.push(("Journal", format!("rm -r {}", shell::word(state))));
    }
    let logs = service.log().into_iter().chain([service.crash_log()]);
    let mut folders: Vec<PathBuf> = logs
        .filter_map(|log| Some(log.parent()?.to_owned()))
        .collect();
    folders.dedup();
    folders.retain(|folder| folder.exists() && Some(folder) != state.as_ref());
    left.extend(
        folders
            .iter()
            .map(|folder| ("Log", format!("rm -r {}", shell::word(folder)))),
    );
    left
}
