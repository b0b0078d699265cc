//! What a service file says, apart from what is the same in each of them.

use std::path::{Path, PathBuf};

/// Whose service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Of the user who installs it.
    User,
    /// Of the whole machine: root's.
    System,
}

/// What is to be started, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) scope: Scope,
    /// Absolute.
    pub(super) program: PathBuf,
    /// Absolute; without one, the usual file.
    pub(super) config: Option<PathBuf>,
    /// Variables that lead to its folders. Supervisors hand on nothing of a shell's.
    pub(super) environment: Vec<(&'static str, PathBuf)>,
    /// Where launchd puts what a crash prints.
    pub(super) crash_log: PathBuf,
    /// As whom systemd starts a system service that is not to be root's.
    pub(super) run_as: Option<String>,
}

/// What an installed file starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstalledUnit {
    pub(super) program: PathBuf,
    pub(super) config: Option<PathBuf>,
}

impl Job {
    /// The words behind the program.
    pub(super) fn arguments(&self) -> Vec<&Path> {
        let mut arguments = vec![Path::new("watch")];
        if let Some(config) = &self.config {
            arguments.extend([Path::new("--config"), config]);
        }
        arguments
    }
}

impl InstalledUnit {
    /// Out of a command line.
    pub(super) fn of(words: &[String]) -> Option<InstalledUnit> {
        let config = words.iter().position(|word| word == "--config");
        let config = config.and_then(|at| words.get(at + 1));
        Some(InstalledUnit {
            program: words.first()?.into(),
            config: config.map(PathBuf::from),
        })
    }
}

/// A path that no service file can hold.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} cannot be written into a service file: it is not UTF-8, or has a control character in \
     it; move it to a path without"
)]
pub(super) struct UnsupportedPath(PathBuf);

/// The path as text.
pub(super) fn path_text(path: &Path) -> Result<&str, UnsupportedPath> {
    let text = path.to_str();
    text.filter(|text| {
        !text.contains(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
    })
    .ok_or_else(|| UnsupportedPath(path.to_owned()))
}
