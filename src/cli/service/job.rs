//! The parts of a service file that differ between installations.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// The scope of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    /// A service of the user who installs it.
    User,
    /// A system service, which root installs.
    System,
}

/// The command that a service starts, and its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) scope: Scope,
    /// The absolute path of the program.
    pub(super) program: PathBuf,
    /// The absolute path of the configuration file; `None` for the default one.
    pub(super) config: Option<PathBuf>,
    /// The environment variables that name its folders. A service inherits no variables from a shell.
    pub(super) environment: Vec<(&'static str, PathBuf)>,
    /// The file to which launchd redirects stderr, which only a crash writes to.
    pub(super) crash_log: PathBuf,
    /// The user as which systemd runs a system service, if not root.
    pub(super) run_as: Option<String>,
}

/// The command in an installed service file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstalledService {
    pub(super) program: PathBuf,
    pub(super) config: Option<PathBuf>,
}

impl Job {
    /// Returns the arguments of the program.
    pub(super) fn arguments(&self) -> Vec<&Path> {
        let mut arguments = vec![Path::new("watch")];
        if let Some(config) = &self.config {
            arguments.extend([Path::new("--config"), config]);
        }
        arguments
    }
}

impl InstalledService {
    /// Parses the words of a command line.
    pub(super) fn of(words: &[String]) -> Option<InstalledService> {
        let config = words.iter().position(|word| word == "--config");
        let config = config.and_then(|at| words.get(at + 1));
        Some(InstalledService {
            program: words.first()?.into(),
            config: config.map(PathBuf::from),
        })
    }
}

/// The error for a path that cannot be written into a service file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} cannot be written into a service file, because it is not UTF-8 or has a control character; move it to \
     another path"
)]
pub(super) struct UnsupportedPath(PathBuf);

/// Returns the path as text, if a service file can contain it.
pub(super) fn path_text(path: &Path) -> Result<&str, UnsupportedPath> {
    let text = path.to_str();
    text.filter(|text| {
        !text.contains(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
    })
    .ok_or_else(|| UnsupportedPath(path.to_owned()))
}
