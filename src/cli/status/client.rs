//! Asks the watchers that run what they do.

use std::path::PathBuf;

use orphand::state::Folders;
use serde_json::Value;

/// What a running watcher says of itself.
#[derive(Clone, Debug)]
#[allow(dead_code)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: u32,
    /// Its version, which may be older than ours.
    pub(crate) version: String,
    /// The path of its program, as it was started.
    pub(crate) program: Option<PathBuf>,
    /// The program at that path is another one by now: an upgrade that it does not run yet.
    pub(crate) is_outdated: bool,
    /// It watches what the configuration file lists, not what somebody typed.
    pub(crate) is_background: bool,
    /// Something keeps it from its work; in words.
    pub(crate) trouble: Vec<String>,
    /// All that it said.
    pub(crate) answer: Value,
}

/// Every watcher of this user that answers, the background one first.
#[allow(dead_code)]
pub(crate) fn running(_folders: &Folders) -> Vec<Running> {
    Vec::new()
}
