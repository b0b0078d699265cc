//! The copies in a quarantine that supersede a temp.

use std::path::PathBuf;
use std::sync::Arc;

use super::quarantine::{HeldCopies, Quarantine, Stored};
use crate::core::policy::Policy;
use crate::evidence::UseChecker;

/// Copies in a quarantine that are later than a temp and have at least as much data. Because of them the temp is not
/// needed.
#[derive(Clone, Debug)]
pub struct BetterCopies {
    quarantine: Arc<Quarantine>,
    copies: Vec<Arc<Stored>>,
}

impl BetterCopies {
    /// Creates the value from copies that are in `quarantine`, the newest first.
    #[must_use]
    pub fn new(quarantine: Arc<Quarantine>, copies: Vec<Arc<Stored>>) -> BetterCopies {
        BetterCopies { quarantine, copies }
    }

    /// Returns the path of the newest copy, below the root.
    #[must_use]
    pub fn newest(&self) -> Option<PathBuf> {
        self.copies.first().map(|copy| copy.path())
    }

    /// Reports whether every copy is in the quarantine and unchanged.
    pub(super) fn are_unchanged(&self) -> bool {
        !self.copies.is_empty() && self.quarantine.are_unchanged(&self.copies)
    }

    /// Reports whether every copy is in the quarantine, unchanged, and used by no process, by proof. The copies stay
    /// leased in `held`.
    pub(super) fn are_proven(
        &self,
        held: &HeldCopies,
        policy: &Policy,
        use_checker: &UseChecker,
    ) -> bool {
        held.are_proven(&self.quarantine, &self.copies, policy, use_checker)
    }
}
