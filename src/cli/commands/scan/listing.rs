//! The kinds of output of a scan.

use super::Scan;
use crate::cli::options::OutputOptions;

/// What is printed about the temps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// One JSON document with all temps.
    Json,
    /// The paths of the orphans that a sweep would remove, each with a zero byte.
    Paths,
    /// One line for each temp.
    Temps,
    /// One line for each of the largest groups.
    Groups,
    /// Only the last line.
    Nothing,
}

impl Listing {
    pub(super) fn new(command: &Scan, output: &OutputOptions) -> Listing {
        match command.list.list || output.verbose > 0 {
            _ if command.list.print0 => Listing::Paths,
            _ if output.json => Listing::Json,
            _ if output.quiet => Listing::Nothing,
            true => Listing::Temps,
            false => Listing::Groups,
        }
    }

    /// Reports whether output appears while the scan runs.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Listing::Json | Listing::Paths | Listing::Temps)
    }
}
