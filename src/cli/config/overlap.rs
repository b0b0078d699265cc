//! Finds rules that overlap. With two rules for one temp it would be unclear which one applies, so such a file is
//! refused.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use orphand::core::glob;
use orphand::fs::root::Root;

use super::schema::WatchRule;
use crate::cli::output::text::quoted;

/// The directories of the rules so far, in the order of the file and by path. A new rule is compared only with those
/// above and below its own directory.
#[derive(Debug, Default)]
pub(super) struct KnownRoots {
    roots: Vec<Root>,
    by_path: BTreeMap<PathKey, usize>,
    /// The same. A path has several ancestors, and each is found here without comparing many paths.
    exact: HashMap<PathKey, usize>,
}

/// The parts of a path, each with a slash after it. It is a prefix of the keys of exactly those paths that are below the
/// path, so in a sorted map these follow it directly. Comparing such keys takes much less time than comparing paths.
type PathKey = Vec<u8>;

impl KnownRoots {
    /// Returns the first rule in the file that overlaps with `root`, as its index, and how they overlap.
    pub(super) fn overlap(&self, root: &Root) -> Option<(usize, Overlap)> {
        let near = self.near(root).into_iter();
        let overlaps = near.filter_map(|index| {
            let first = self.roots.get(index)?;
            Some((index, Overlap::of(first, root)?))
        });
        overlaps.min_by_key(|(index, _)| *index)
    }

    pub(super) fn add(&mut self, root: Root) {
        let key = path_key(&root.path);
        self.by_path.insert(key.clone(), self.roots.len());
        self.exact.insert(key, self.roots.len());
        self.roots.push(root);
    }

    /// Returns the indices of the rules that could overlap with `root`.
    fn near(&self, root: &Root) -> Vec<usize> {
        let key = path_key(&root.path);
        let ends = key.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let above = ends.filter_map(|(end, _)| key.get(..=end));
        let mut near: Vec<usize> = above
            .filter_map(|key| self.exact.get(key).copied())
            .collect();
        if root.policy.recursive {
            let from = (Bound::Excluded(key.as_slice()), Bound::Unbounded);
            let below = self.by_path.range::<[u8], _>(from);
            let below = below.take_while(|(path, _)| path.starts_with(&key));
            near.extend(below.map(|(_, index)| *index));
        }
        near
    }
}

fn path_key(path: &Path) -> PathKey {
    let mut key = Vec::with_capacity(path.as_os_str().len() + 2);
    for part in path.components() {
        key.extend_from_slice(part.as_os_str().as_bytes());
        key.push(b'/');
    }
    key
}

/// The relation of the directories of two rules that would both apply to one temp.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Overlap {
    /// Both rules have the same directory.
    Same,
    /// The first rule covers the second rule's directory, which has this path below the first one.
    InFirst(PathBuf),
    /// The second rule covers the first rule's directory, which has this path below the second one.
    InSecond(PathBuf),
}

impl Overlap {
    /// Returns how two rules overlap, if a temp could have both. A rule does not cover the directories that it
    /// excludes.
    pub(super) fn of(first: &Root, second: &Root) -> Option<Overlap> {
        let covers = |one: &Root, other: &Root| one.below(&other.path).map(Path::to_owned);
        match (covers(first, second), covers(second, first)) {
            (Some(below), _) if below.as_os_str().is_empty() => Some(Overlap::Same),
            (Some(below), _) => Some(Overlap::InFirst(below)),
            (None, Some(below)) => Some(Overlap::InSecond(below)),
            (None, None) => None,
        }
    }

    /// Returns the error message, for the position of the second rule's path.
    pub(super) fn message(&self, first: &WatchRule, second: &WatchRule) -> String {
        let (one, two, (line, _)) = (&first.path, &second.path, first.position);
        match self {
            Overlap::Same if one == two => {
                format!("{two:?} already has a rule in line {line}; merge the two rules")
            }
            Overlap::Same => format!(
                "{two:?} leads to the same directory as {one:?}, which already has a rule \
                 in line {line}; merge the two rules"
            ),
            Overlap::InFirst(below) => format!(
                "{two:?} is in {one:?}, whose rule in line {line} is recursive: \
                 a temp would have two rules; {}merge the two rules",
                exclude_advice(below, "to that rule")
            ),
            Overlap::InSecond(below) => format!(
                "{two:?} is recursive and contains {one:?}, which has a rule in line {line}: \
                 a temp would have two rules; {}merge the two rules",
                exclude_advice(below, "to this rule")
            ),
        }
    }
}

/// Returns the advice to exclude the path `below` in the rule of the outer folder. `rule` names that rule. A path that
/// is not UTF-8 has no advice, because no glob matches it and nothing else.
fn exclude_advice(below: &Path, rule: &str) -> String {
    let advice = |below| format!("add exclude = [{}] {rule}, or ", quoted(&exact_glob(below)));
    below.to_str().map(advice).unwrap_or_default()
}

/// Returns a glob that excludes this folder and no other.
fn exact_glob(below: &str) -> String {
    let glob = glob::escape(below);
    // Without a "/" the glob would match the name at any depth.
    match glob.contains('/') {
        true => glob,
        false => format!("{glob}/**"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orphand::core::policy::Policy;
    use std::ffi::OsStr;
    use std::sync::Arc;

    fn root(path: &str, recursive: bool) -> Root {
        let policy = Policy {
            recursive,
            ..Policy::default()
        };
        Root {
            path: path.into(),
            policy: Arc::new(policy),
        }
    }

    /// With thousands of rules, comparing each of them with each other one would take too long.
    #[test]
    fn a_rule_is_compared_only_with_those_above_and_below_it() {
        let mut known = KnownRoots::default();
        let mut compared = 0;
        for n in 0..4_000 {
            let root = root(&format!("/srv/{}/{n}/in", n % 7), n % 2 == 0);
            compared += known.near(&root).len();
            assert_eq!(known.overlap(&root), None, "{n}");
            known.add(root);
        }
        assert_eq!(compared, 0);
        assert_eq!(known.near(&root("/srv/3/10/in/deep", false)), [10]);
        assert_eq!(known.near(&root("/srv/3/10", false)), [0; 0]);
        assert_eq!(known.near(&root("/srv/3/10", true)), [10]);
        assert_eq!(known.near(&root("/", true)).len(), 4_000);
        assert_eq!(known.near(&root("//srv/./3/10/in/", false)), [10]);
        known.add(root("/", true));
        assert_eq!(known.near(&root("/tmp", false)), [4_000]);
    }

    #[test]
    fn the_first_rule_that_overlaps_is_named() {
        let mut known = KnownRoots::default();
        for (path, recursive) in [
            ("/a/x/y", false),
            ("/a/x-y", false),
            ("/a/x", false),
            ("/a/b", true),
        ] {
            known.add(root(path, recursive));
        }
        for (path, recursive, want) in [
            ("/a/x", false, Some((2, Overlap::Same))),
            ("/a/x", true, Some((0, Overlap::InSecond("y".into())))),
            ("/a/x/y/z", false, None),
            ("/a", false, None),
            ("/a", true, Some((0, Overlap::InSecond("x/y".into())))),
            ("/a/b/c/d", false, Some((3, Overlap::InFirst("c/d".into())))),
            ("/a/bc", true, None),
        ] {
            assert_eq!(known.overlap(&root(path, recursive)), want, "{path}");
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_has_no_advice() {
        let advice = |bytes| exclude_advice(Path::new(OsStr::from_bytes(bytes)), "to this rule");
        assert_eq!(advice(b"a\xff"), "");
        assert_eq!(advice(b"a"), "add exclude = [\"a/**\"] to this rule, or ");
    }
}
