//! Any other Unix: nothing is proven there, and nothing more is asked.

use std::path::Path;

use orphand::evidence::Proof;
use orphand::look::Dir;
use orphand::root::Root;

use super::check::Check;
use super::tree::Count;

/// How a clock is set right.
pub(super) const CLOCK_CURE: &str = "set it, as root: date";

/// What may stand behind a root that does not answer, and what to do.
pub(super) const SILENT: (&str, &str) = (
    "a file server that is away, or a disk that fails",
    "look what it is: df",
);

/// The checks of the machine.
pub(super) fn machine(_: Count) -> Vec<Check> {
    vec![Check::trouble(
        "system",
        format!(
            "{}: there is no proof that nobody holds a file, so every temp is kept",
            std::env::consts::OS
        ),
        "scan lists them; what is to go you have to decide yourself",
    )]
}

/// Not known.
pub(super) fn file_system_type(_: &Dir) -> Option<String> {
    None
}

/// Not known.
pub(super) fn folds_case(_: &Dir) -> Option<bool> {
    None
}

/// Nothing is.
pub(super) fn sees_all() -> bool {
    false
}

/// Nothing stands behind it.
pub(super) fn proof_by(_: &Proof) -> &'static str {
    "no proof"
}

/// Nothing.
pub(super) fn beforehand(_: &Path) -> Option<Check> {
    None
}

/// Not known.
pub(super) fn watchers() -> Vec<u32> {
    Vec::new()
}

/// Returns the directories of a watcher that the folder of locks does not show: unknown on this system.
pub(super) fn worked_on(_: u32) -> Vec<Root> {
    Vec::new()
}
