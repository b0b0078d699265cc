//! Roots: the directories that the user listed. orphand never touches a file outside of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::judge::Dates;
use crate::core::own_names::{self, OWN_PREFIX};
use crate::core::policy::{Policy, PolicyError};
use crate::fs::broad::broad_kind;
use crate::fs::dir::{RootError, RootId};
use crate::fs::response;
use crate::sys::kernel_events::CLOSE_EVENTS;

/// A root and its rule.
#[derive(Clone, Debug)]
pub struct Root {
    /// The path as given, made absolute. Symlinks in it are not resolved.
    pub path: PathBuf,
    /// The rule for it.
    pub policy: Arc<Policy>,
}

/// The reason for which a root is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It contains files of more than one program.
    #[error("{}", too_broad(.path, .what, "use --allow-broad-root"))]
    Broad {
        /// The root.
        path: PathBuf,
        /// The description of the directory, as the end of a sentence.
        what: &'static str,
    },
    /// It is a symlink.
    #[error("{path:?} is a symlink, and its target may change; {}", instead(.leads_to.as_deref()))]
    Symlink {
        /// The root.
        path: PathBuf,
        /// The path to give instead.
        leads_to: Option<PathBuf>,
    },
    /// It is not a directory.
    #[error("{0:?} is not a directory")]
    NotADirectory(PathBuf),
    /// It is a quarantine, or in one.
    #[error(
        "{0:?} is in a quarantine, whose files only its own limits and `orphand quarantine purge` remove; give the \
         directory that contains {OWN_PREFIX:?}"
    )]
    Quarantine(PathBuf),
    /// Its rule contradicts itself.
    #[error("the rule for {path:?} is invalid: {error}")]
    Policy {
        /// The root.
        path: PathBuf,
        /// The error in the rule.
        error: PolicyError,
    },
}

impl Refused {
    /// Returns the message, with `advice` in the place of an option of the command line.
    #[must_use]
    pub fn with_advice(&self, advice: &str) -> String {
        match self {
            Refused::Broad { path, what } => too_broad(path, what, advice),
            refused => refused.to_string(),
        }
    }
}

fn too_broad(path: &Path, what: &str, advice: &str) -> String {
    format!(
        "{path:?} is {what}: too broad for a tool that deletes files; \
         give the directory in which the program leaves its temps, or {advice}"
    )
}

fn instead(leads_to: Option<&Path>) -> String {
    match leads_to {
        Some(path) => format!("give {path:?} instead"),
        None => "its target does not exist now".to_owned(),
    }
}

/// Returns the item whose root covers the directory `dir`, by its rule: that of the innermost root if there are several.
pub fn innermost<'r, T>(
    items: impl IntoIterator<Item = T>,
    root_of: impl Fn(&T) -> &'r Root,
    dir: &Path,
) -> Option<T> {
    let covering = items
        .into_iter()
        .filter(|item| root_of(item).below(dir).is_some());
    covering.max_by_key(|item| root_of(item).path.as_os_str().len())
}

impl Root {
    /// Creates the root at `path` with a rule, and checks the directory. A missing directory is not refused, nor is one
    /// whose file system does not respond. A rule that only reports may have any directory. No other rule may have a
    /// quarantine.
    pub fn new(path: &Path, policy: Arc<Policy>, allow_broad: bool) -> Result<Root, Refused> {
        let root = Root::for_inspection(path, policy)?;
        match root.refusal(allow_broad) {
            Some(refused) => Err(refused),
            None => Ok(root),
        }
    }

    /// Creates the root at `path` for a command that changes no file. A broad directory is not refused.
    pub fn for_inspection(path: &Path, policy: Arc<Policy>) -> Result<Root, Refused> {
        let path = absolute(path);
        if let Err(error) = policy.check(CLOSE_EVENTS) {
            return Err(Refused::Policy { path, error });
        }
        if !response::responds(&path) {
            return Ok(Root { path, policy });
        }
        match RootId::of(&path) {
            Err(RootError::Symlink { leads_to }) => Err(Refused::Symlink { path, leads_to }),
            Err(RootError::NotADirectory) => Err(Refused::NotADirectory(path)),
            _ => Ok(Root { path, policy }),
        }
    }

    /// Returns the reason why no file below the root may be changed, if there is one: the root is in a quarantine, or it
    /// is a broad directory, which `allow_broad` permits. A rule that only reports may have any directory.
    #[must_use]
    pub fn refusal(&self, allow_broad: bool) -> Option<Refused> {
        if self.policy.is_dry_run() {
            return None;
        }
        let path = self.path.clone();
        if rule!("no-root-in-a-quarantine", is_in_quarantine(&path)) {
            return Some(Refused::Quarantine(path));
        }
        if rule!("broad-roots-are-refused", allow_broad, without: true) {
            return None;
        }
        let what = broad_kind(&path)?;
        Some(Refused::Broad { path, what })
    }

    /// Logs that a short grace is raised, if the dates on the root's file system are too coarse for it.
    #[doc(hidden)]
    pub fn report_coarse_dates(&self, dates: Dates) {
        let lag = dates.usual_lag();
        if let Some(raised) = self.policy.raised_grace(lag) {
            log::warn!(
                "the file system of {:?} stores dates with a resolution of {} s, so two changes within that time look \
                 like one: a grace below {} s is raised to this minimum",
                self.path,
                lag.as_secs(),
                raised.as_secs()
            );
        }
    }

    /// Returns the path of the directory `dir` relative to the root. Returns `None` if the rule does not cover `dir`.
    #[must_use]
    pub fn below<'a>(&self, dir: &'a Path) -> Option<&'a Path> {
        let below = dir.strip_prefix(&self.path).ok()?;
        let covered = below.as_os_str().is_empty()
            || (self.policy.recursive
                && !below
                    .components()
                    .any(|part| own_names::is_own(part.as_os_str()))
                && !self.policy.exclude.excludes(below));
        covered.then_some(below)
    }
}

/// Reports whether `path` is a quarantine or below one, as given or without symlinks.
fn is_in_quarantine(path: &Path) -> bool {
    let has_quarantine = |path: &Path| path.iter().any(|part| part == OWN_PREFIX);
    let real = || {
        response::responds(path)
            .then(|| path.canonicalize().ok())
            .flatten()
    };
    has_quarantine(path) || real().is_some_and(|real| has_quarantine(&real))
}

/// Makes `path` absolute and removes a slash at its end. Symlinks are not resolved.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect()
}
#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::core::exclude::Exclude;
    use crate::core::policy::Action;

    /// The files there belong to the quarantine.
    #[test]
    fn a_quarantine_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        fs::create_dir_all(path.join(".orphand/n1/d")).unwrap();
        fs::create_dir(path.join(".orphand-old")).unwrap();
        std::os::unix::fs::symlink(path.join(".orphand"), path.join("link")).unwrap();
        let check = |below: &str, action, want_refused| {
            let policy = Policy {
                action,
                ..Policy::default()
            };
            let root = Root::new(&path.join(below), Arc::new(policy), true);
            let is_refused = matches!(root, Err(Refused::Quarantine(_)));
            assert_eq!(is_refused, want_refused, "{below} {action:?}");
        };
        for below in [".orphand", ".orphand/n1", ".orphand/n1/d", "link/n1"] {
            check(below, Action::Delete, true);
            check(below, Action::Report, false);
        }
        for below in ["", ".orphand-old", "missing"] {
            check(below, Action::Delete, false);
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |mode, action| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(dir.path(), mode).unwrap();
            let policy = Policy {
                action,
                ..Policy::default()
            };
            let root = Root::new(dir.path(), Arc::new(policy), false);
            matches!(root, Err(Refused::Broad { .. }))
        };
        for (mode, want) in [
            (0o700, false),
            (0o755, false),
            (0o777, true),
            (0o1777, true),
            (0o703, true),
        ] {
            assert_eq!(refused(mode, Action::Delete), want, "{mode:o}");
            assert!(
                !refused(mode, Action::Report),
                "{mode:o}: a report changes no file"
            );
        }
        // A directory that the other users cannot reach is not refused.
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&inner, mode(0o777)).unwrap();
        for (outer, want) in [(0o700, false), (0o711, true)] {
            fs::set_permissions(dir.path(), mode(outer)).unwrap();
            let root = Root::new(&inner, Arc::default(), false);
            let refused = matches!(root, Err(Refused::Broad { .. }));
            assert_eq!(refused, want, "{outer:o}");
        }
        let root = Root::new(Path::new("/usr"), Arc::default(), false);
        assert!(matches!(root, Err(Refused::Broad { .. })));
    }

    #[test]
    fn a_rule_covers_its_root_and_with_recursion_all_below() {
        let root = |recursive| Root {
            path: "/r".into(),
            policy: Arc::new(Policy {
                recursive,
                ..Policy::default()
            }),
        };
        let below = |recursive, dir: &'static str| root(recursive).below(Path::new(dir));
        assert_eq!(below(false, "/r"), Some(Path::new("")));
        assert_eq!(below(false, "/r/a"), None);
        assert_eq!(below(true, "/r/a/b"), Some(Path::new("a/b")));
        assert_eq!(below(true, "/rr"), None);
        assert_eq!(below(true, "/r/.orphand/7f3a"), None);
    }

    #[test]
    fn a_rule_does_not_cover_excluded_folders() {
        let root = Root {
            path: "/cache/r".into(),
            policy: Arc::new(Policy {
                recursive: true,
                exclude: Exclude::new(&["cache", "a/b"]).expect("globs"),
                ..Policy::default()
            }),
        };
        let covers = |dir: &str| root.below(Path::new(dir)).is_some();
        assert!(covers("/cache/r"), "only parts below the root count");
        assert!(covers("/cache/r/a") && covers("/cache/r/b/a/b"));
        assert!(
            !covers("/cache/r/a/b") && !covers("/cache/r/a/b/c") && !covers("/cache/r/x/cache")
        );
    }
}
