//! The result of a scan, without the temps, which are printed while it runs.

use std::path::PathBuf;

use orphand::core::census::{Lookalike, Tree};
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::store::folders::Folders;

use super::tally::Tally;
use crate::cli::output::learned::{self, LearnedFiles};
use crate::cli::runtime::claims::FoundClaims;
use crate::cli::runtime::engine::known_shapes;
use crate::cli::runtime::trees::count_stored;

/// The result of a scan of all roots, without the temps, which were printed.
#[derive(Default)]
pub(super) struct ScanResult<'a> {
    pub(super) tally: Tally,
    /// The directories that were not entered because they are other mounts or subvolumes.
    pub(super) skipped: Vec<PathBuf>,
    /// Directories and special files whose names the rule matches.
    pub(super) trees: Vec<Tree>,
    /// The files whose names look like temps although the rule does not match them.
    pub(super) lookalikes: Vec<Lookalike>,
    /// The claims in each root.
    pub(super) claims: Vec<(&'a Root, FoundClaims)>,
    /// The known shapes of temps that files in the roots fit.
    pub(super) learned: Vec<LearnedFiles>,
    /// The roots with files in quarantine.
    pub(super) stored_in: Vec<PathBuf>,
    /// The number of directories that could not be read.
    pub(super) unread: u64,
    /// A temp could not be examined.
    pub(super) failed: bool,
}

impl ScanResult<'_> {
    /// Finds the learned shapes which files in `roots` fit.
    pub(super) fn find_learned(&mut self, roots: &[Root]) {
        let known = known_shapes(&Folders::from_env());
        for root in roots.iter().filter(|root| response::responds(&root.path)) {
            self.learned.extend(learned::find_files(root, known));
        }
    }

    /// Counts the files in the quarantines of `roots`.
    pub(super) fn count_stored(&mut self, roots: &[Root]) {
        let roots = roots.iter().filter(|root| response::responds(&root.path));
        self.stored_in = count_stored(roots, &mut self.tally.census);
    }

    /// Reports whether a directory could not be read, or the verdict of a temp is not known.
    pub(super) fn is_partial(&self) -> bool {
        self.failed || self.unread > 0 || self.tally.cannot_tell
    }

    pub(super) fn total_claims(&self) -> FoundClaims {
        let claims = self.claims.iter().map(|(_, claims)| *claims);
        claims.fold(FoundClaims::default(), FoundClaims::plus)
    }
}
