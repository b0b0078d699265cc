//! Two rules for one temp: which of them would decide is nobody's guess, so the file refuses it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use orphand::root::Root;

use super::WatchRule;
use crate::cli::text::quoted;

/// The rules so far, in the order of the file, by their directories: each new one is compared only with those
/// above and below its own.
#[derive(Debug, Default)]
pub(super) struct KnownRoots {
    roots: Vec<Root>,
    by_path: BTreeMap<PathBuf, usize>,
}

impl KnownRoots {
    /// The first of the rules that a temp could have beside `root`, by its place, and how they overlap.
    pub(super) fn overlap(&self, root: &Root) -> Option<(usize, Overlap)> {
        let near = self.near(root).into_iter();
        let overlaps = near.filter_map(|index| {
            let first = self.roots.get(index)?;
            Some((index, Overlap::of(first, root)?))
        });
        overlaps.min_by_key(|(index, _)| *index)
    }

    pub(super) fn add(&mut self, root: Root) {
        self.by_path.insert(root.path.clone(), self.roots.len());
        self.roots.push(root);
    }

    /// The places of the rules that could overlap with `root`.
    fn near(&self, root: &Root) -> Vec<usize> {
        let above = root.path.ancestors();
        let mut near: Vec<usize> = above
            .filter_map(|path| self.by_path.get(path).copied())
            .collect();
        if root.policy.recursive {
            // Paths are in the order of their parts: what is below one follows it.
            let from = (Bound::Excluded(&root.path), Bound::Unbounded);
            let below = self.by_path.range::<PathBuf, _>(from);
            let below = below.take_while(|(path, _)| path.starts_with(&root.path));
            near.extend(below.map(|(_, index)| *index));
        }
        near
    }
}

/// How the directories of two rules lie to each other, where a temp would have both.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Overlap {
    /// They are the same.
    Same,
    /// The first rule covers the second's directory, which lies this way below its own.
    InFirst(PathBuf),
    /// The other way round.
    InSecond(PathBuf),
}

impl Overlap {
    /// Whether a temp could have both rules. A directory that is excluded has one.
    pub(super) fn of(first: &Root, second: &Root) -> Option<Overlap> {
        let covers = |one: &Root, other: &Root| one.below(&other.path).map(Path::to_owned);
        match (covers(first, second), covers(second, first)) {
            (Some(way), _) if way.as_os_str().is_empty() => Some(Overlap::Same),
            (Some(way), _) => Some(Overlap::InFirst(way)),
            (None, Some(way)) => Some(Overlap::InSecond(way)),
            (None, None) => None,
        }
    }

    /// What is said at the path of the second rule.
    pub(super) fn message(&self, first: &WatchRule, second: &WatchRule) -> String {
        let (one, two, (line, _)) = (&first.path, &second.path, first.position);
        match self {
            Overlap::Same if one == two => {
                format!("{two:?} has a rule already, in line {line}; make one of the two")
            }
            Overlap::Same => format!(
                "{two:?} leads to the same directory as {one:?}, which has a rule already, \
                 in line {line}; make one of the two"
            ),
            Overlap::InFirst(way) => format!(
                "{two:?} lies in {one:?}, whose rule in line {line} is recursive: \
                 a temp would have two rules; {}make one of the two",
                exclude_advice(way, "in that one")
            ),
            Overlap::InSecond(way) => format!(
                "{two:?} is recursive and holds {one:?}, which has a rule in line {line}: \
                 a temp would have two rules; {}make one of the two",
                exclude_advice(way, "in this one")
            ),
        }
    }
}

/// What to say in the rule of the folder above, as the file has it. No text excludes a name that is
/// not UTF-8 and nothing else.
fn exclude_advice(way: &Path, here: &str) -> String {
    let exclude = |way| format!("say exclude = [{}] {here}, or ", quoted(&exact_glob(way)));
    way.to_str().map(exclude).unwrap_or_default()
}

/// What excludes this folder and no other.
fn exact_glob(way: &str) -> String {
    // `globset::escape` leaves a backslash as it is, and in a glob that takes the next character.
    let glob = globset::escape(way).replace('\\', r"\\");
    // Without a "/" it would be any part.
    match glob.contains('/') {
        true => glob,
        false => format!("{glob}/**"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orphand::decide::policy::Policy;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
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

    /// The figure is for thousands of rules: each of them compared with each other one is too much.
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
    fn what_no_text_can_name_is_not_proposed() {
        let way = |bytes| exclude_advice(Path::new(OsStr::from_bytes(bytes)), "here");
        assert_eq!(way(b"a\xff"), "");
        assert_eq!(way(b"a"), "say exclude = [\"a/**\"] here, or ");
    }
}
