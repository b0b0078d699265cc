//! The steps of the protocol, and the values that go into it and come out of it.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::better_copies::BetterCopies;
use super::quarantine::MovedAs;
use crate::core::judge::{Reason, Verdict};
use crate::core::observation::{FileSize, Observation, UseState};
use crate::evidence::{CheckedFile, EvidenceContext, FoundTarget, TempInfo, UseChecker};
use crate::fs::dir::{Dir, RootError, RootId};

/// Defines the enum and the list of its variants together, so that the list is always complete.
macro_rules! steps {
    ($($(#[$what:meta])* $step:ident,)*) => {
        /// The steps of the protocol, in their order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Step {
            $($(#[$what])* $step,)*
        }

        impl Step {
            /// All steps, in their order.
            pub const ALL: [Step; [$(Step::$step),*].len()] = [$(Step::$step),*];
        }
    };
}

steps! {
    /// Check that the path of the directory, below the root, still leads to the same directory.
    Resolve,
    /// Check that the name still refers to the file that was looked at.
    Look,
    /// Open the file, and check that it is the same file.
    Open,
    /// Request a lease: the kernel's proof that no process holds the file.
    Prove,
    /// Observe the file again while it is leased, and judge it.
    Judge,
    /// Rename the file to its claim, or into the quarantine, without overwriting anything.
    Claim,
    /// Check that the claimed file is the file that was judged.
    Compare,
    /// Check that no process waits to open the file or is inside an `open` of it.
    ProveAgain,
    /// Release the lease, so that a process inside an `open` can finish it.
    Release,
    /// Wait for such processes, once for each batch, and resolve the directory again.
    Wait,
    /// Request the lease once more, and observe the file once more.
    ProveLast,
    /// Remove the claim.
    Unlink,
}

impl Step {
    /// Returns the action that failed if this step fails, for a message such as `cannot rename it`. A put-back and a
    /// move to the quarantine are renames too, and their failures are reported as [`Step::Claim`].
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Step::Resolve | Step::Wait => "check its directory",
            Step::Look | Step::Judge | Step::Compare => "examine it",
            Step::Open => "open it",
            Step::Prove | Step::ProveAgain | Step::Release => "check whether it is in use",
            Step::Claim => "rename it",
            Step::ProveLast => "check it again before its removal",
            Step::Unlink => "remove it",
        }
    }
}

/// A function that is called *before* each step of each temp; before `Resolve` and `Wait` once for each batch, with the
/// name of its first temp. Tests use it to act between two steps. It is an ordinary
/// value, so that the code under test is the code that runs in production.
#[derive(Clone)]
pub struct Hook(Arc<Call>);

type Call = dyn Fn(Step, &OsStr) + Send + Sync;

impl Hook {
    /// Creates a hook that calls `at` with the step and the temp's file name.
    pub fn new(at: impl Fn(Step, &OsStr) + Send + Sync + 'static) -> Hook {
        Hook(Arc::new(at))
    }

    pub(super) fn call(&self, step: Step, name: &OsStr) {
        (self.0)(step, name);
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// The result of the protocol for one temp.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// The temp was removed, which freed this much space (none if the file has another hard link).
    Reaped {
        /// The freed space.
        freed: FileSize,
    },
    /// The temp was moved to the quarantine.
    Quarantined {
        /// Its id in the quarantine.
        id: String,
        /// The name of its folder in the quarantine.
        folder: String,
    },
    /// The temp was kept, or put back after its claim.
    Kept(Reason),
    /// Another process renamed or removed the temp during the protocol.
    Settled,
    /// A system call failed. The temp was kept, or was put back if possible.
    Failed {
        /// The step that failed.
        step: Step,
        /// The error of the system call.
        error: io::Error,
    },
}

/// The context of one batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchContext<'a> {
    /// The root's path.
    pub root: &'a Path,
    /// The identity that the directory at the root's path must have; `None` if any is accepted.
    pub id: Option<RootId>,
    /// The directory that contains the temps.
    pub dir: &'a Dir,
    /// Checks whether a process uses a file.
    pub use_checker: &'a UseChecker,
    /// The evidence that all temps of the batch share.
    pub context: EvidenceContext<'a>,
}

impl BatchContext<'_> {
    /// Checks that the directory's path below the root still leads to the same directory.
    pub(super) fn check_not_moved(&self) -> Result<(), RootError> {
        let now = Dir::open_below(self.root, self.id, self.dir.below())?;
        match now.id() == self.dir.id() {
            true => Ok(()),
            false => Err(RootError::Replaced),
        }
    }
}

/// A temp to be removed or moved, with the verdict of the look before the protocol.
#[derive(Debug)]
pub struct Candidate {
    /// The temp.
    pub temp_info: TempInfo,
    /// The verdict.
    pub verdict: Verdict,
    /// Its target counted by the look that led to the verdict.
    pub target_counts: bool,
    /// The copies in the quarantine because of which the verdict is to remove it although its target does not count.
    pub better: Option<BetterCopies>,
    /// The move makes other copies superfluous, and so frees more space than it takes.
    pub frees_space: bool,
    /// The file, if it is still open since the look that led to the verdict. It is then not opened again, but the
    /// protocol still checks that the name refers to it.
    pub opened: Option<CheckedFile>,
    /// The state of the file by the look that led to the verdict, if that look has left the proof to the protocol. The
    /// protocol then opens the name without another look, and the file must be in this state.
    pub looked: Option<Looked>,
    /// Its companions. They are removed or moved together with it.
    pub companions: Vec<Companion>,
}

/// The result of a look that has not checked whether a process uses the file.
#[derive(Debug)]
pub struct Looked {
    /// The file. Its space on the disk may have changed since, when its data was written to the disk.
    pub observation: Observation,
    /// Its target, if the protocol for the temp begins right after the look.
    pub target: Option<FoundTarget>,
}

/// A companion of a temp that is to be removed or moved.
#[derive(Debug)]
pub struct Companion {
    /// The companion. Its `expected` is the fingerprint at the last look.
    pub temp_info: TempInfo,
    /// The result for the companion, if its temp was removed or moved.
    pub result: CompanionResult,
}

/// The result for a companion whose temp was removed or moved.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum CompanionResult {
    /// It has its name, or the name of a claim.
    #[default]
    Left,
    /// It was removed, which freed this much space.
    Reaped(FileSize),
    /// It was moved to the quarantine, and has this id there.
    Quarantined(String),
}

impl Candidate {
    /// Returns the reason for its move, if it is moved.
    pub(super) fn moved_as(&self) -> MovedAs {
        let parsed = &self.temp_info.parsed;
        match (parsed.is_longest, self.target_counts) {
            (true, _) => MovedAs::LongestName,
            (false, true) => MovedAs::TargetCounted,
            (false, false) => MovedAs::SoleCopy,
        }
    }
}

impl AsMut<Candidate> for Candidate {
    fn as_mut(&mut self) -> &mut Candidate {
        self
    }
}

/// The reason for which the protocol ends before its last step.
pub(super) enum EarlyEnd {
    /// The temp is to be kept.
    Keep(Reason),
    /// Another process renamed or removed the temp.
    Settled,
    /// A system call failed.
    Failed(io::Error),
}

impl EarlyEnd {
    /// Returns the outcome for a temp that has its name. `step` is the step that ended early.
    pub(super) fn outcome(self, step: Step) -> Outcome {
        match self {
            EarlyEnd::Keep(reason) => Outcome::Kept(reason),
            EarlyEnd::Settled => Outcome::Settled,
            EarlyEnd::Failed(error) => Outcome::Failed { step, error },
        }
    }

    /// Returns the end if the removal of a file fails with `error`.
    pub(super) fn of_removal(error: io::Error) -> EarlyEnd {
        match error.kind() {
            io::ErrorKind::NotFound => EarlyEnd::Settled,
            io::ErrorKind::ResourceBusy => EarlyEnd::Keep(Reason::InUse),
            _ => EarlyEnd::Failed(error),
        }
    }
}

impl From<io::Error> for EarlyEnd {
    fn from(error: io::Error) -> EarlyEnd {
        EarlyEnd::Failed(error)
    }
}

/// The end for a directory that was replaced or could not be checked.
impl From<&RootError> for EarlyEnd {
    fn from(error: &RootError) -> EarlyEnd {
        match error {
            RootError::Io(error) if !RootError::is_missing_error(error) => {
                EarlyEnd::Failed(crate::sys::error::copy(error))
            }
            _ => EarlyEnd::Keep(Reason::Changed),
        }
    }
}

/// Returns the reason to keep a file with this use state, if there is one. A lock counts as use.
pub(super) fn held_reason(use_state: UseState) -> Option<Reason> {
    match use_state {
        UseState::Unused => None,
        UseState::InUse | UseState::Locked => Some(Reason::InUse),
        UseState::Unknown => Some(Reason::CannotTell),
    }
}

pub(super) fn failed(step: Step) -> impl Fn(io::Error) -> Outcome {
    move |error| Outcome::Failed { step, error }
}
