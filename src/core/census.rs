//! The findings of a scan beside temps: directories and special files whose names match the rule. They are only
//! counted, and never removed.

use std::path::PathBuf;
use std::time::Duration;

use super::observation::{FileSize, Kind};

/// A directory or special file whose name matches the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its path.
    pub path: PathBuf,
    /// Its type, which is not that of a regular file.
    pub kind: Kind,
    /// The files in it. `None` if it could not be read, or was not counted because there are too many.
    pub content: Option<TreeContent>,
}

/// The files in a directory and in the directories below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeContent {
    /// The number of files of all types except directories.
    pub files: u64,
    /// The sum of the sizes of the regular files.
    pub size: FileSize,
    /// The time since the newest change of a file or directory in it.
    pub newest: Duration,
    /// Everything was counted: the limit was not reached, and every directory could be read.
    pub is_complete: bool,
}

/// Removes the trees that lie within another one.
pub fn retain_outermost(trees: &mut Vec<(PathBuf, Kind)>) {
    // A directory comes directly before the paths in it.
    trees.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut last: Option<PathBuf> = None;
    trees.retain(|(path, _)| {
        let is_within = last.as_ref().is_some_and(|last| path.starts_with(last));
        if !is_within {
            last = Some(path.clone());
        }
        !is_within
    });
}

/// The maximum number of trees that are listed for one root.
pub const MAX_TREES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_trees_remain() {
        let trees = [
            "b.tmp/x/c.tmp",
            "a.tmp",
            "b.tmp",
            "b.tmp-2",
            "b.tmp/c.tmp",
            "c/b.tmp",
        ];
        let mut trees: Vec<_> = trees.map(|path| (PathBuf::from(path), Kind::Dir)).into();
        retain_outermost(&mut trees);
        let left: Vec<_> = trees
            .iter()
            .map(|(path, _)| path.to_str().unwrap())
            .collect();
        assert_eq!(left, ["a.tmp", "b.tmp", "b.tmp-2", "c/b.tmp"]);
    }
}
