//! `orphand doctor`: checks the machine and the roots for problems, each reported with its fix.
//!
//! [`roots`] gathers the facts of the roots, and `system` those that differ between operating systems. One pure
//! function for each check judges them. doctor changes no existing file. It only creates one file in each root, which
//! it removes at once ([`proof`]).
//!
//! The states:
//!
//! - **error** (`trouble` in JSON): orphand does not work on a root, or would keep everything in it. Causes: a wrong
//!   configuration; a root that is missing, refused, not answering, unreadable or not writable; a file system on which
//!   nothing can be proven; a proof that fails when it is tried; leases that are disabled; a service file that starts
//!   nothing. Exit 3.
//! - **warning**: orphand works, but later (inotify limits: directories are scanned periodically instead), with less
//!   (no names of holders, no journal, no lock, no quarantine; on overlayfs a quarantine instead of a deletion), or
//!   with a risk that the proof cannot see (exported directories, trusted file systems, wrong clocks). A full disk is a
//!   warning too: deletions are needed then, and they still work.
//! - **ok**: measured values, and limits that cannot and need not be changed.

use std::path::PathBuf;
use std::sync::Arc;

use orphand::fs::root::absolute;
use orphand::store::folders::Folders;
use orphand::store::lock::lock_holders;
use orphand::sys::clock;

use super::exit::{Exit, Failure};
use super::options::OutputOptions;
use super::service;
use crate::cli::config::Config;
use check::{Check, CheckState};
use roots::{CheckedRoot, no_answer, within_limit};

mod access;
mod check;
#[cfg(any(target_os = "linux", test))]
mod kernel;
mod machine;
mod orphands;
#[cfg(any(target_os = "macos", test))]
mod privacy;
mod proof;
mod roots;
mod storage;
mod tree;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
doctor changes no existing file. In each directory it creates an empty file,
.orphand-doctor-<random>, and removes it at once, to test whether orphand can
prove there that a file is unused. This changes the modification time of the
directory.

Exit: 0 if orphand works, even with warnings; 3 if it does not work, or would
keep everything

Examples:
  orphand doctor             this machine, and the configured directories
  orphand doctor -q ~/.app   only the problems of this machine and of ~/.app
  orphand doctor --json | jq '.checks[] | select(.state != \"ok\")'")]
pub(crate) struct Doctor {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
    /// Directories to check; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

pub(super) fn run(command: &Doctor, output: &OutputOptions) -> Result<Exit, Failure> {
    let explicit = command.config.clone();
    let file = explicit.clone().or_else(Config::default_path);
    let read = within_limit(move || Config::load(explicit.as_deref()));
    let mut checks = vec![match &read {
        Some(read) => machine::config(read, file.as_deref(), !command.dirs.is_empty()),
        None => no_answer("config", &file.unwrap_or_default()),
    }];
    let roots = checked_roots(command, &read.and_then(Result::ok).unwrap_or_default())?;
    let dirs = roots.iter().map(|root| root.path.clone()).collect();
    let of_roots = roots::check_all(roots);
    checks.extend(system::machine_checks(of_roots.directories));
    checks.extend(machine_checks(dirs));
    // A service file may no longer start this program, or two may start it.
    let problems = service::problems().into_iter();
    checks.extend(problems.map(|problem| Check::error("service", problem.what, problem.fix)));
    checks.extend(of_roots.checks);
    let exit = match checks.iter().any(|check| check.state == CheckState::Error) {
        true => Exit::Partial,
        false => Exit::Done,
    };
    check::print_report(output, checks)?;
    Ok(exit)
}

/// Returns the given directories, or those of the configuration file if none were given. A directory that the file
/// lists has the policy of its rule.
fn checked_roots(command: &Doctor, config: &Config) -> Result<Vec<CheckedRoot>, Failure> {
    let paths: Vec<PathBuf> = match command.dirs.is_empty() {
        true => config.watch.iter().map(|rule| rule.path.clone()).collect(),
        false => command.dirs.iter().map(|dir| absolute(dir)).collect(),
    };
    let mut roots: Vec<CheckedRoot> = Vec::new();
    for path in paths {
        if roots.iter().any(|known| known.path == path) {
            continue;
        }
        let rule = config.watch.iter().find(|rule| rule.path == path);
        let settings = rule.map(|rule| rule.settings.clone()).unwrap_or_default();
        let settings = settings.over(&config.defaults);
        roots.push(CheckedRoot {
            path,
            policy: Arc::new(settings.policy()?),
            // `broad` counts only in a rule, because the defaults name no directory.
            broad: rule.is_some() && settings.broad.unwrap_or(false),
        });
    }
    Ok(roots)
}

/// Runs the checks of the machine that exist on every system.
fn machine_checks(dirs: Vec<PathBuf>) -> Vec<Check> {
    let folders = Folders::from_env();
    let now = clock::now();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let mut checks = vec![
        machine::clock(now.wall, now.mono.since_boot()),
        machine::open_files(files.current),
    ];
    let (runtime, pids) = (folders.runtime.clone(), system::watcher_pids());
    checks.extend(within_limit(move || {
        let held = runtime.as_deref().map(lock_holders);
        // The locks have paths with symlinks resolved.
        let real = |dir: PathBuf| std::fs::canonicalize(&dir).unwrap_or(dir);
        let dirs: Vec<PathBuf> = dirs.into_iter().map(real).collect();
        orphands::judge(&orphands::running(&pids, &held.unwrap_or_default()), &dirs)
    }));
    let state = folders.state.clone().unwrap_or_default();
    match within_limit(move || machine::folders(&folders)) {
        Some(found) => checks.extend(found),
        None => checks.push(no_answer("state", &state)),
    }
    checks
}
