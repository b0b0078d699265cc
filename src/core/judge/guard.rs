//! Guard files: nothing is taken while a process uses the file that the key `unless_open` of a rule names.
//!
//! A program that keeps its lock file open as long as it runs may close its temps and open them again by name. Its
//! temps then look unused, but the lock file shows that the program is running.

use std::path::PathBuf;

use super::verdict::Reason;
use crate::core::observation::Fingerprint;

/// The state of a guard file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuardState {
    /// It exists, and no process has it open or locked.
    Unused,
    /// It does not exist, but its directory does.
    Missing,
    /// A process has it open or locked.
    InUse,
    /// It cannot be determined whether a process uses it.
    Unknown,
}

impl GuardState {
    /// Returns the reason to keep all temps that the file guards, if there is one.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            GuardState::Unused | GuardState::Missing => None,
            GuardState::InUse => {
                rule!("used-guard-keeps", Some(Reason::InUse), without: None)
            }
            GuardState::Unknown => {
                rule!("unknown-guard-keeps", Some(Reason::CannotTell), without: None)
            }
        }
    }
}

/// A guard file that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardFile {
    /// Its path, as the rule has it: absolute, or relative to the directory of the temp.
    pub path: PathBuf,
    /// The result of the check.
    pub state: GuardState,
    /// The file that was found. `None` if it is missing or could not be observed.
    pub seen: Option<Fingerprint>,
}

impl GuardFile {
    /// Returns its state, as a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let path = &self.path;
        match self.state {
            GuardState::Unused => format!("{path:?} is neither open nor locked"),
            GuardState::Missing => format!("{path:?} does not exist"),
            GuardState::InUse => format!("a process has {path:?} open or locked"),
            GuardState::Unknown => format!("cannot tell whether a process has {path:?} open"),
        }
    }
}
