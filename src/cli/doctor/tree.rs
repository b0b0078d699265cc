//! Counts the directories of a root: the number of watches it needs where one watch covers one directory.

use std::path::PathBuf;
use std::time::Instant;

use orphand::core::own_names::is_own;
use orphand::fs::dir::Dir;
use orphand::fs::root::Root;
use orphand::watch::RECURSIVE;
use rustix::fs::{Dir as Entries, FileType};

/// The number of directories that would be watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TreeSize {
    pub(super) directories: u64,
    /// The number is a lower bound: the count took too long, or some directories could not be read.
    pub(super) at_least: bool,
}

impl TreeSize {
    pub(super) fn plus(self, other: TreeSize) -> TreeSize {
        TreeSize {
            directories: self.directories.saturating_add(other.directories),
            at_least: self.at_least || other.at_least,
        }
    }
}

/// Counts the directories of `root`, until `end` at the latest. Like a scan, it does not enter symlinks, other mounts
/// and orphand's own directories.
pub(super) fn count(root: &Root, end: Instant) -> TreeSize {
    let mut count = TreeSize {
        directories: 1,
        at_least: false,
    };
    if RECURSIVE || !root.policy.recursive {
        return count;
    }
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        if Instant::now() >= end {
            count.at_least = true;
            break;
        }
        let read = Dir::open_below(&root.path, None, &below)
            .ok()
            .and_then(|dir| Some((Entries::read_from(dir.fd()).ok()?, dir)));
        let Some((entries, dir)) = read else {
            count.at_least = true;
            continue;
        };
        for entry in entries.flatten() {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            let is_dir = entry.file_type() == FileType::Directory;
            if is_dir && name != "." && name != ".." && !is_own(name) {
                // Opening fails for another mount, which is not entered.
                if dir.open_child(name).is_ok() {
                    count.directories += 1;
                    todo.push(below.join(name));
                }
            }
        }
    }
    count
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use orphand::core::policy::Policy;
    use std::time::Duration;

    #[test]
    fn directories_are_counted_until_the_time_limit() {
        let folder = tempfile::tempdir().unwrap();
        for dir in ["a/b/c", "d", ".orphand/7f3a/e"] {
            std::fs::create_dir_all(folder.path().join(dir)).unwrap();
        }
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        let root = |recursive| Root {
            path: folder.path().to_owned(),
            policy: std::sync::Arc::new(Policy {
                recursive,
                ..Policy::default()
            }),
        };
        let soon = Instant::now() + Duration::from_secs(60);
        let counted = |directories, at_least| TreeSize {
            directories,
            at_least,
        };
        assert_eq!(count(&root(true), soon), counted(5, false));
        assert_eq!(count(&root(false), soon), counted(1, false));
        assert_eq!(count(&root(true), Instant::now()), counted(1, true));
        let sum = counted(5, false).plus(counted(2, true));
        assert_eq!(sum, counted(7, true));
    }
}
