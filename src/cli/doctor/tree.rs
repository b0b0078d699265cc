//! Walks through a root: counts its directories, and the claims that a killed orphand left in it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::unbounded;
use orphand::fs::root::Root;
use orphand::fs::walk::{self, ScanItem};
use orphand::watch::RECURSIVE;

use super::check::Check;
use crate::cli::runtime::claims::{FoundClaims, put_back_command};

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

/// Counts the directories of a root, and the claims that a killed orphand left in it, until `end` at the latest. The
/// number of directories is the number of watches that it needs where one watch covers one directory.
pub(super) fn walk(root: &Root, end: Instant) -> (TreeSize, Check) {
    let (directories, is_incomplete) = (AtomicU64::new(0), AtomicBool::new(false));
    let (send, claims) = unbounded();
    let on_item = |item: ScanItem<'_>| match item {
        ScanItem::Dir(_) => _ = directories.fetch_add(1, Ordering::Relaxed),
        ScanItem::Denied(..) => is_incomplete.store(true, Ordering::Relaxed),
        ScanItem::Claim(dir, name) => _ = send.send((dir.below().to_owned(), name.to_owned())),
        ScanItem::Name(_)
        | ScanItem::Temp(..)
        | ScanItem::Other(..)
        | ScanItem::Tree(..)
        | ScanItem::Done(_)
        | ScanItem::NotEntered(_) => {}
    };
    let is_over = || {
        let is_over = Instant::now() >= end;
        is_incomplete.fetch_or(is_over, Ordering::Relaxed);
        is_over
    };
    if walk::scan(root, None, Path::new(""), &on_item, &is_over).is_err() {
        is_incomplete.store(true, Ordering::Relaxed);
    }
    let claims: Vec<_> = claims.try_iter().collect();
    let claims = FoundClaims::still_present(root, &claims);
    let claims = match claims.files {
        0 => Check::ok("claims", "no unfinished removals"),
        _ => Check::warning("claims", claims.describe(), put_back_command(root)),
    };
    let size = match RECURSIVE || !root.policy.recursive {
        true => TreeSize {
            directories: 1,
            at_least: false,
        },
        false => TreeSize {
            directories: directories.into_inner(),
            at_least: is_incomplete.into_inner(),
        },
    };
    (size, claims)
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
        assert_eq!(walk(&root(true), soon).0, counted(5, false));
        assert_eq!(walk(&root(false), soon).0, counted(1, false));
        assert_eq!(walk(&root(true), Instant::now()).0, counted(1, true));
        let sum = counted(5, false).plus(counted(2, true));
        assert_eq!(sum, counted(7, true));
    }
}
