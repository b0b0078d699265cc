//! The directories of a command line, as a filter for paths.

use std::fs;
use std::path::{Path, PathBuf};

use orphand::fs::root::absolute;

/// Matches the paths in some directories. Without a directory, it matches each path.
#[derive(Debug)]
pub(crate) struct DirFilter {
    /// Each directory as given, and with symlinks resolved.
    dirs: Vec<PathBuf>,
}

impl DirFilter {
    pub(crate) fn new(dirs: &[PathBuf]) -> DirFilter {
        let names =
            |dir: &PathBuf| std::iter::once(absolute(dir)).chain(fs::canonicalize(dir).ok());
        DirFilter {
            dirs: dirs.iter().flat_map(names).collect(),
        }
    }

    pub(crate) fn matches_all(&self) -> bool {
        self.dirs.is_empty()
    }

    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.matches_all() || self.dirs.iter().any(|dir| path.starts_with(dir))
    }
}
