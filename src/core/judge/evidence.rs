//! The facts that a verdict is based on.

use std::sync::Arc;
use std::time::Duration;

use super::dates::Dates;
use super::guard::GuardFile;
use crate::core::observation::{Fingerprint, Observation, UseState};
use crate::core::policy::Policy;
use crate::core::reserved::Reserved;
use crate::core::target::Target;

/// The state of the process whose pid is in the temp's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The name contains no pid.
    NoPid,
    /// No process with that pid can have written it.
    Gone(u32),
    /// A process with that pid is running, or may be.
    Alive(u32),
    /// A process that has that pid in a pid namespace below this one (a container) is running.
    InContainer(u32),
    /// It cannot be determined whether a process in a container has that pid.
    Unknown(u32),
}

impl Writer {
    /// Returns the pid in the name.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        match self {
            Writer::NoPid => None,
            Writer::Gone(pid)
            | Writer::Alive(pid)
            | Writer::InContainer(pid)
            | Writer::Unknown(pid) => Some(pid),
        }
    }
}

/// The kinds of use of a file that the proof detects on a file system. The proof is a lease on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseCoverage {
    /// All descriptors and mappings.
    OpensAndMaps,
    /// Descriptors, but neither mappings without a descriptor nor uses through the lower layers (overlayfs).
    OpensOnly,
    /// The coverage is not known, or other machines can use the file system.
    Unknown,
}

/// The properties of the directory that contains a temp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirProperties {
    /// Its device number.
    pub dev: u64,
    /// The id of its mount, if the system has mount ids.
    pub mount: Option<u64>,
    /// The kernel's name for its file system.
    pub file_system: Arc<str>,
    /// The kinds of use that the proof detects on its file system.
    pub lease_coverage: LeaseCoverage,
    /// The precision of the dates of its files.
    pub dates: Dates,
    /// True if a quarantine exists or can be created.
    pub quarantine: bool,
}

impl DirProperties {
    /// Reports whether the proof is accepted here: it is known to be valid, or the rule trusts the file system.
    #[must_use]
    pub fn has_proof(&self, policy: &Policy) -> bool {
        let mut trusted = policy.trusted_file_systems.iter();
        self.lease_coverage != LeaseCoverage::Unknown
            || trusted.any(|name| **name == *self.file_system)
    }
}

/// Everything that the verdict is based on, gathered at the last moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The current state of the temp.
    pub observation: Observation,
    /// The fingerprint that the earlier look saw; `None` if there was no earlier look.
    pub expected: Option<Fingerprint>,
    /// The time for which the temp has been quiet.
    pub quiet: Duration,
    /// The time for which it must be quiet.
    pub grace: Duration,
    /// The time for which no process has used it; this limits how long the pid in its name counts.
    pub unused: Duration,
    /// The properties of its directory.
    pub dir: DirProperties,
    /// The effective uid of this process.
    pub our_uid: u32,
    /// The process whose pid is in its name.
    pub writer: Writer,
    /// True if an event reported that a writer closed it.
    pub closed: bool,
    /// The use state of the temp.
    pub use_state: UseState,
    /// True if it could be opened, so that its locks can be checked.
    pub opened: bool,
    /// True if every process could be examined for mappings in another way, and none had the file mapped. It matters
    /// only if the proof does not cover mappings.
    pub mappings_examined: bool,
    /// The sum of the sizes of its companions, in bytes.
    pub companion_bytes: u64,
    /// The state of its target.
    pub target: Target,
    /// True if its writer never removes or truncates the target before it has replaced it, and no possible target is
    /// hidden: the temp is not needed where the target is missing or not in the name.
    pub discarded: bool,
    /// True if better copies of its target are in the quarantine, or will be before it is removed, by [`group`](crate::core::group).
    pub superseded: bool,
    /// True if the rule does not take its name, and only a learned shape does. The name may have been chosen by a person,
    /// so the temp is never destroyed.
    pub by_shape: bool,
    /// True if its name has a random part according to a grammar.
    pub random_name: bool,
    /// True if it is empty and has extended attributes, in which a program may store data: Samba stores alternate streams
    /// there.
    pub has_attributes: bool,
    /// True if it has the mark of a restored file and has not changed since.
    pub restored: bool,
    /// The reason why its name is reserved, if it is.
    pub reserved: Option<Reserved>,
    /// The guard file of its rule. Of several ones, the first that keeps the temp. `None` if the rule names none.
    pub guard: Option<GuardFile>,
}
