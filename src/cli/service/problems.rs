//! The problems of an installed service that its files and its watcher show.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::job::{InstalledService, Scope};
use super::paths::{ServiceManager, ServicePaths};
use super::{program, start};
use crate::cli::commands::status::client::RunningWatch;
use crate::cli::output::shell;

/// A problem of the service that keeps orphand from working, now or soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// The problem, for people.
    pub(crate) what: String,
    /// The command that fixes it.
    #[serde(rename = "cure")]
    pub(crate) fix: String,
}

/// Returns the problems of the services that are installed on this system. It reads their files and asks the watchers,
/// but calls no service manager, so it never waits for one.
pub(crate) fn problems() -> Vec<Problem> {
    let scopes = [Scope::User, Scope::System].into_iter();
    let services = scopes.filter_map(|scope| ServicePaths::new(ServiceManager::OURS, scope));
    let of_service = |service: ServicePaths| {
        let mut problems = file_problems(&service);
        if service.file().exists() {
            let watcher = start::find_watcher(&service);
            problems.extend(watcher.and_then(|watcher| outdated_problem(&watcher, &service)));
        }
        problems
    };
    services.flat_map(of_service).collect()
}

/// Returns the problems of the file of one service.
pub(super) fn file_problems(service: &ServicePaths) -> Vec<Problem> {
    let path = service.file();
    let file = match service.installed() {
        Ok(None) => return Vec::new(),
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            return vec![Problem {
                what: format!("cannot read {path:?}: {error}"),
                fix: format!("ls -l {}", shell::word(&path)),
            }];
        }
    };
    let homebrew = service.homebrew_file().map(|homebrew| Problem {
        what: format!("Homebrew runs orphand too: {homebrew:?}"),
        fix: "brew services stop orphand".to_owned(),
    });
    homebrew
        .into_iter()
        .chain(content_problem(service, &path, &file))
        .collect()
}

/// Returns the problem of the content of a service file.
fn content_problem(service: &ServicePaths, path: &Path, file: &str) -> Option<Problem> {
    let install = service.command("install");
    let Some(InstalledService { program, config }) = service.read(file) else {
        return Some(Problem {
            what: format!("{path:?} was not written by orphand"),
            fix: install,
        });
    };
    let fix = match &config {
        Some(config) => format!("{install} --config {}", shell::word(config)),
        None => install,
    };
    if !program.exists() {
        let what = format!("{path:?} starts {program:?}, which does not exist");
        return Some(Problem { what, fix });
    }
    let ours = program::current().ok()?;
    let what = match is_same_file(&program, &ours) {
        false => format!("{path:?} starts {program:?}, but this is {ours:?}"),
        true if service.render(&service.job(program, config)).ok()? == file => return None,
        true => format!("{path:?} differs from the file that would be installed now"),
    };
    Some(Problem { what, fix })
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(a), Ok(b)) if a == b)
}

/// Returns the problem that the running watcher is older than the installed program, as after an upgrade.
pub(super) fn outdated_problem(running: &RunningWatch, service: &ServicePaths) -> Option<Problem> {
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
