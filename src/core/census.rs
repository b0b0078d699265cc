//! The findings of a scan beside temps: directories and special files whose names match the rule, and files whose names
//! look like temps although the rule does not match them. They are only counted, and never removed.

use crate::core::sort::sort_by;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
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

/// The reason why a name looks like a temp although the rule does not match it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Likeness {
    /// It has the form of this writer, which the rule does not turn on.
    Writer(&'static str),
    /// It differs only in letter case from a name that the rule takes. This glob matches it.
    Case(String),
}

/// Files whose names look like temps for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookalike {
    /// The reason.
    pub likeness: Likeness,
    /// The number of the files.
    pub files: u64,
    /// The sum of their sizes, as far as these were read.
    pub size: FileSize,
    /// The sizes of all of them were read.
    pub is_complete: bool,
    /// The path of a directory that contains one of them.
    pub dir: PathBuf,
}

/// Counts the files whose names look like temps.
#[derive(Debug, Default)]
pub struct LookalikeCounts {
    groups: HashMap<Likeness, Lookalike>,
}

impl LookalikeCounts {
    /// Counts a file in the directory `dir`. `size` is `None` if it was not read.
    pub fn add(&mut self, likeness: Likeness, dir: &Path, size: Option<FileSize>) {
        if self.groups.len() >= MAX_LOOKALIKES && !self.groups.contains_key(&likeness) {
            return;
        }
        let group = self.groups.entry(likeness.clone());
        let group = group.or_insert_with(|| Lookalike {
            likeness,
            files: 0,
            size: FileSize::default(),
            is_complete: true,
            dir: dir.to_owned(),
        });
        group.files += 1;
        group.is_complete &= size.is_some();
        group.size = group.size.plus(size.unwrap_or_default());
        // Of several directories, the first one, whatever the order of the scan.
        if dir < group.dir {
            group.dir = dir.to_owned();
        }
    }

    /// Returns the groups, the one with the most bytes on the disk first.
    #[must_use]
    pub fn largest_first(self) -> Vec<Lookalike> {
        let mut groups: Vec<Lookalike> = self.groups.into_values().collect();
        sort_by(&mut groups, |one, other| {
            let key = |of: &Lookalike| (of.size.disk_bytes, of.files);
            let by_size = key(other).cmp(&key(one));
            by_size.then_with(|| one.likeness.cmp(&other.likeness))
        });
        groups
    }
}

/// The maximum number of groups of such files.
const MAX_LOOKALIKES: usize = 1_000;

/// Removes the trees that lie within another one.
pub fn retain_outermost(trees: &mut Vec<(PathBuf, Kind)>) {
    // A directory comes directly before the paths in it.
    sort_by(trees, |(one, _), (other, _)| one.cmp(other));
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

    #[test]
    fn lookalikes_are_summed_and_sorted() {
        let size = |disk_bytes| {
            Some(FileSize {
                bytes: 1,
                disk_bytes,
            })
        };
        let mut counts = LookalikeCounts::default();
        let case = |glob: &str| Likeness::Case(glob.to_owned());
        counts.add(case("*.TMP"), Path::new("b"), size(512));
        counts.add(case("*.TMP"), Path::new("a"), size(512));
        counts.add(Likeness::Writer("rsync"), Path::new("c"), size(4096));
        counts.add(Likeness::Writer("rsync"), Path::new("c"), None);
        let groups = counts.largest_first();
        let row = |one: &Lookalike| (one.files, one.size.disk_bytes, one.is_complete);
        let rows: Vec<_> = groups.iter().map(row).collect();
        assert_eq!(rows, [(2, 4096, false), (2, 1024, true)]);
        assert_eq!(groups[1].dir, Path::new("a"));
    }
}
