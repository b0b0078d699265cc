//! The targets of the files in a quarantine.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::core::group;
use crate::core::judge::Target;
use crate::core::policy::SoleCopy;
use crate::core::retention::{Entry, TargetState};
use crate::core::temp_name::strip_number;
use crate::core::time::Now;
use crate::evidence::{self, ComparedTemp, FlushedTargets};
use crate::fs::dir::{Buffer, Dir, RootError, RootId};
use crate::fs::root::Root;
use crate::reap::quarantine::{Quarantine, Stored, StoredSet, origin_id};

/// Checks the targets of stored files.
pub(super) struct StoredTargets<'a> {
    root: &'a Root,
    quarantine: &'a Quarantine,
    id: Option<RootId>,
    /// The targets that are on the disk.
    flushed_targets: &'a FlushedTargets,
    /// For each directory, the names that also exist with digits or a uuid appended; `None` if the directory cannot be
    /// read.
    siblings: HashMap<PathBuf, Option<HashSet<OsString>>>,
    /// For each folder of the quarantine and each directory in it, the directory that its files were moved from.
    origins: HashMap<(String, PathBuf), Option<Vec<u8>>>,
}

impl<'a> StoredTargets<'a> {
    pub(super) fn new(
        root: &'a Root,
        quarantine: &'a Quarantine,
        id: Option<RootId>,
        flushed_targets: &'a FlushedTargets,
    ) -> StoredTargets<'a> {
        StoredTargets {
            root,
            quarantine,
            id,
            flushed_targets,
            siblings: HashMap::new(),
            origins: HashMap::new(),
        }
    }

    /// Returns the state of the target of a stored file with its companions.
    pub(super) fn state(&mut self, set: &StoredSet) -> TargetState {
        let stored = &set.main;
        let mut parsed = self.root.policy.names.parse(stored.name());
        if !parsed.numbered_targets.is_empty() {
            let targets = parsed.targets.clone();
            let mut targets = targets.iter();
            if targets.any(|target| self.has_sibling(stored.original_dir(), target)) {
                parsed = parsed.with_numbered_targets();
            }
        }
        let dir = match Dir::open_below(&self.root.path, self.id, stored.original_dir()) {
            Ok(dir) => dir,
            Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return TargetState::Nothing;
            }
            Err(_) => return TargetState::Other,
        };
        let temp = ComparedTemp {
            seen: &stored.seen,
            file: None,
            companion_bytes: set.companion_size().bytes,
            shared: None,
            flushed: Some(self.flushed_targets),
        };
        match evidence::find_target(&dir, &self.root.policy, &parsed, temp) {
            Ok(found) if matches!(found.target, Target::Absent | Target::Unknown) => {
                TargetState::Nothing
            }
            Ok(found) if found.target.counts() => {
                // A target that was created or changed after the move may have been made after a loss.
                let since = stored.folder_since();
                let is_older = found
                    .newest_date()
                    .zip(since)
                    .is_some_and(|(newest, since)| newest < since);
                let is_origin =
                    || rule!("same-directory-as-then", self.is_origin(&dir, stored), without: true);
                // A target that is older than the move and did not count then is taken for another reason: another name
                // was its target, or a file system was mounted since.
                // Of two names with and without a leading dot, the first one may have been the target.
                let is_first = found.index == Some(0) || parsed.shares_name();
                match rule!("target-counted-at-the-move", stored.had_target(), without: true)
                    && rule!("first-name-is-the-target", is_first, without: true)
                    && rule!("target-older-than-move", is_older, without: true)
                    && is_origin()
                {
                    true => TargetState::Counts,
                    false => TargetState::Other,
                }
            }
            _ => TargetState::Other,
        }
    }

    /// Returns the data of a stored file, with its companions, that the limits need.
    ///
    /// A set is no copy of another file: with its companions, its size does not show how much it contains. So it
    /// neither supersedes another file nor is superseded. A file whose target may have had a longer name is no copy
    /// of another file either, but counts by its shape. A file whose name fits the temps of several targets, or has only
    /// a part of its target, is no copy of another file, and does not count by its shape.
    pub(super) fn retention_entry(&mut self, set: &StoredSet, now: Now) -> Entry {
        let stored = &set.main;
        let is_single = rule!("stored-set-is-no-copy", !stored.is_of_set(), without: true);
        let has_longest_name = rule!("longest-name-has-no-copies", stored.has_longest_name());
        let (original_dir, seen) = (stored.original_dir(), &stored.seen.fingerprint);
        let companions = set.companion_size();
        let names = &self.root.policy.names;
        let (shape, parsed) = (names.shape(stored.name()), names.parse(stored.name()));
        let is_shared = rule!(
            "copy-has-one-target",
            parsed.shares_name() || parsed.is_truncated(stored.name())
        );
        // Digits may be part of the target's name.
        // Without a uuid, the temp was judged as one of the longest target that can be meant. So it is no copy of a file
        // whose name has a certain target.
        let has_uncertain_target = shape.numbered_target.is_some()
            && parsed.targets.first() == shape.numbered_target.as_ref();
        let longer = shape.numbered_target.filter(|longer| {
            let target = shape.target.as_deref();
            let has_sibling = |target| target != longer && self.has_sibling(original_dir, target);
            has_longest_name || rule!("digits-like-a-sibling", target.is_some_and(has_sibling))
        });
        let is_known = shape.is_known && longer.is_none() && !is_shared;
        let target = match rule!("uncertain-target-is-no-certain-one", has_uncertain_target) {
            true => None,
            false => shape.target,
        };
        let longest = longer.or(target).unwrap_or_else(|| shape.form.clone());
        let copy_of = rule!("copy-of-longest-name", longest,
            without: longest.to_string_lossy().trim_start_matches('.').into());
        let sole_copy = self.root.policy.sole_copy;
        let may_supersede = rule!("kept-sole-copies-supersede-nothing", sole_copy == SoleCopy::Quarantine, without: true);
        let origin = self.origin(stored);
        Entry {
            id: stored.id.clone().into(),
            below: stored.below.clone(),
            bytes: seen.size.saturating_add(companions.bytes),
            allocated: stored.seen.allocated.saturating_add(companions.disk_bytes),
            moved: stored.folder_since().map(|since| since.max(seen.ctime)),
            is_steady: stored.is_steady(now),
            born: seen.btime,
            written: seen.mtime,
            data: 0,
            group: shape
                .group
                .filter(|_| may_supersede && stored.may_be_of_group())
                .map(|target| original_dir.join(target)),
            is_reliable: group::is_reliable(seen, now.wall) && origin.is_some(),
            origin,
            uid: seen.uid,
            copy_of: match is_single && !has_longest_name && !is_shared {
                true => original_dir.join(copy_of),
                false => stored.path(),
            },
            shape: (is_known && is_single).then(|| original_dir.join(&shape.form)),
            target: self.state(set),
        }
    }

    /// Returns the directory that `stored` was moved from, if it is known. It is empty for the root.
    fn origin(&mut self, stored: &Stored) -> Option<Vec<u8>> {
        let dir = stored.original_dir().to_owned();
        let origins = self.origins.entry((stored.folder_name().to_owned(), dir));
        let origin = || self.quarantine.origin_of(stored);
        origins.or_insert_with(origin).clone()
    }

    /// Reports whether `dir` is the directory that `stored` was moved from. The name may have been given to another
    /// directory, with files that are older than the move.
    fn is_origin(&self, dir: &Dir, stored: &Stored) -> bool {
        let present = origin_id(dir);
        present.is_some() && self.quarantine.origin_of(stored) == present
    }

    /// Reports whether the directory contains a name that is `target` with digits or a uuid appended. Digits in the
    /// name of a temp may then be part of its target's name.
    fn has_sibling(&mut self, dir: &Path, target: &OsStr) -> bool {
        let (root, id) = (&self.root.path, self.id);
        let siblings = self.siblings.entry(dir.to_owned());
        let siblings = siblings.or_insert_with(|| siblings_in(root, id, dir));
        // A directory that cannot be read may contain one.
        siblings.as_ref().is_none_or(|all| all.contains(target))
    }
}

/// Returns the names that also exist in the directory with digits or a uuid appended, or `None` if the directory cannot
/// be read.
fn siblings_in(root: &Path, id: Option<RootId>, below: &Path) -> Option<HashSet<OsString>> {
    let dir = match Dir::open_below(root, id, below) {
        Ok(dir) => dir,
        Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Some(HashSet::new());
        }
        Err(_) => return None,
    };
    let mut all = HashSet::new();
    let mut add = |name: &OsStr, _| {
        let mut rest = name.as_bytes();
        while let Some(before) = strip_number(rest) {
            all.insert(OsStr::from_bytes(before).to_owned());
            rest = before;
        }
    };
    dir.read(&mut Buffer::default(), &mut add).ok()?;
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_with_trailing_digits_are_siblings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let uuid = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
        for name in ["a.1", "b.1.2", &format!("c.{uuid}"), "d.tmp", "e.1x", "f."] {
            fs::write(path.join(name), "").unwrap();
        }
        let mut found: Vec<_> = siblings_in(&path, None, Path::new(""))
            .unwrap()
            .into_iter()
            .collect();
        found.sort();
        assert_eq!(found, ["a", "b", "b.1", "c"]);
        assert_eq!(
            siblings_in(&path, None, Path::new("missing")),
            Some(HashSet::new())
        );
        assert_eq!(siblings_in(&path, None, Path::new("a.1")), None);
    }
}
