//! `orphand restore --as-target`: copies files of the quarantine to the names of their targets.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orphand::core::learn::KnownShapes;
use orphand::core::observation::Holder;
use orphand::core::own_names::is_own;
use orphand::core::policy::Policy;
use orphand::core::temp_name::{Names, ParsedName, unambiguous_writers};
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::evidence::siblings::Listings;
use orphand::evidence::{self, FileId};
use orphand::fs::dir::{Dir, observe_fd};
use orphand::reap::quarantine::{Quarantine, Stored, StoredSet};
use orphand::store::folders::Folders;

use super::restored_file::{marking, not_restored, set_not_restored};
use crate::cli::config::Config;
use crate::cli::exit::Failure;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;
use crate::cli::runtime::engine::known_shapes;

/// Finds the targets of stored files and copies the files there.
pub(crate) struct TargetRestorer<'c> {
    config: &'c Config,
    known: &'static KnownShapes,
    /// The directories whose open handles were searched.
    searched: HashSet<FileId>,
}

impl<'c> TargetRestorer<'c> {
    pub(crate) fn new(config: &'c Config) -> TargetRestorer<'c> {
        TargetRestorer {
            config,
            known: known_shapes(&Folders::from_env()),
            searched: HashSet::new(),
        }
    }

    /// Copies a stored file to the name of its target, and its companions beside it, if no file has one of these names.
    /// Returns the path of the target.
    pub(crate) fn restore(
        &mut self,
        quarantine: &Quarantine,
        set: &StoredSet,
        marks: &RestoreMarks,
    ) -> Result<PathBuf, Failure> {
        let stored = &set.main;
        let root = quarantine.root();
        let below = stored.below.parent().unwrap_or(Path::new(""));
        let dir = Dir::open_below(root.path(), Some(root.id()), below);
        let dir = dir.map_err(|error| {
            let parent = root.path().join(below);
            not_restored(stored, &parent, io::Error::other(error))
        })?;
        let parsed = self.parse(&dir, stored)?;
        let (name, other) = target_of(stored, &parsed).map_err(|why| no_target(stored, &why))?;
        let target = dir.path().join(&name);
        for name in [Some(&name), other.as_ref()].into_iter().flatten() {
            let path = dir.path().join(name);
            let seen = dir.observe(name);
            if seen
                .map_err(|error| not_restored(stored, &path, error))?
                .is_some()
            {
                return Err(not_restored(stored, &path, io::ErrorKind::AlreadyExists));
            }
        }
        self.warn_if_open(&dir);
        let mark = marking(marks, &target);
        let policy = self.config.policy_in(dir.path().to_owned())?;
        let copied = quarantine.copy_set_out(set, dir.fd().as_fd(), &name, mark, &policy);
        copied.map_err(|error| set_not_restored(set, &target, error))?;
        Ok(target)
    }

    /// Parses the name of `stored` by the rule of its directory. A name that the rule cannot parse is parsed by the
    /// grammars of all writers whose temps show the whole name of their target.
    fn parse(&self, dir: &Dir, stored: &Stored) -> Result<ParsedName, Failure> {
        let name = stored.below.file_name().unwrap_or_default();
        let mut policy = self.config.policy_in(dir.path().to_owned())?;
        if policy.names.parse(name).grammar.is_none() {
            let all: Vec<&str> = unambiguous_writers().collect();
            policy.names = Names::new::<&str, _>(&[], &all).unwrap_or_default();
        }
        policy.names = policy
            .names
            .with_shapes(self.known.telling_in(dir.id().into()));
        let policy: Arc<Policy> = Arc::new(policy);
        let siblings = Listings::default().siblings_of(dir, &policy, 1);
        let siblings = siblings.map_err(|error| not_restored(stored, dir.path(), error))?;
        let (names, uid) = (&policy.names, stored.seen.fingerprint.uid);
        let parsed = siblings.apply(names.parse(name), names, name, uid);
        evidence::with_longer_target(dir, parsed)
            .map_err(|error| not_restored(stored, dir.path(), error))
    }

    /// Warns if another process has the directory open. A running program may create the target itself.
    fn warn_if_open(&mut self, dir: &Dir) {
        let Ok(seen) = observe_fd(dir.fd().as_fd()) else {
            return;
        };
        let id = FileId::from(&seen.fingerprint);
        if !self.searched.insert(id) {
            return;
        }
        let holders = evidence::scan_processes(&[id], dir.lease_coverage()).holders_of(id);
        if let Some(Holder { pid, name }) = holders.first() {
            log::warn!(
                "{} is open in {}: a running program may replace the restored file",
                text::escaped(dir.path()),
                text::process(name, *pid),
            );
        }
    }
}

/// Returns the name to restore to, and another name that must not exist either. The error is the reason why the target
/// is not known.
///
/// A leading dot that the writer added is not a part of the target. But if the name with the dot exists, that file is
/// taken for the target.
fn target_of(stored: &Stored, parsed: &ParsedName) -> Result<(OsString, Option<OsString>), String> {
    let was_longer = stored.has_longest_name() && !parsed.is_longest;
    if rule!("longer-target-is-restored", was_longer) {
        return Err("a file that is gone had shown that its target has a longer name".into());
    }
    let mut names = parsed.targets.iter().cloned();
    let (first, second) = (names.next(), names.next());
    let Some(first) = first.filter(|name| !is_own(name)) else {
        return Err(format!(
            "the name {:?} does not contain the name of a target",
            stored.name()
        ));
    };
    let without_dot = first.as_bytes().strip_prefix(b".");
    match second {
        Some(second) if !parsed.is_longest && parsed.shares_name() => Err(format!(
            "the name {:?} may be that of a temp of {first:?} or of {second:?}",
            stored.name()
        )),
        Some(second) if parsed.dot_is_prefix() && without_dot == Some(second.as_bytes()) => {
            Ok((second, Some(first)))
        }
        _ => Ok((first, None)),
    }
}

fn no_target(stored: &Stored, why: &str) -> Failure {
    Failure::failed(format!(
        "cannot restore {} as its target: {why}; to restore it under another name: {} --to PATH {}",
        stored.id,
        Suggestion::new("restore").configured(),
        stored.id
    ))
}
