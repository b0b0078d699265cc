//! The folders for orphand's own files.

use std::env;
use std::path::PathBuf;

/// The folders for orphand's own files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    /// The folder for the journal and the restore marks: `$XDG_STATE_HOME/orphand`, else `~/.local/state/orphand`, on
    /// macOS `~/Library/Application Support/orphand`.
    pub state: Option<PathBuf>,
    /// The folder for locks: `$XDG_RUNTIME_DIR/orphand`, else the state folder.
    pub runtime: Option<PathBuf>,
}

impl Folders {
    /// Returns the folders that the environment variables set.
    #[must_use]
    pub fn from_env() -> Folders {
        let folder = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let at_home = if cfg!(target_os = "macos") {
            "Library/Application Support/orphand"
        } else {
            ".local/state/orphand"
        };
        let state = folder("XDG_STATE_HOME")
            .map(|state| state.join("orphand"))
            .or_else(|| folder("HOME").map(|home| home.join(at_home)));
        let runtime = folder("XDG_RUNTIME_DIR")
            .map(|runtime| runtime.join("orphand"))
            .or_else(|| state.clone());
        Folders { state, runtime }
    }
}
