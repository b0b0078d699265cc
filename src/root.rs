//! Roots: the directories that the user listed. Nothing outside of them is ever touched.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decide::policy::{Policy, PolicyError};
use crate::look::{RootError, RootId, answer};

/// A root and its rule.
#[derive(Clone, Debug)]
pub struct Root {
    /// As given, made absolute; symlinks on the way to it are not resolved.
    pub path: PathBuf,
    /// The rule.
    pub policy: Arc<Policy>,
}

/// Why a root is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It holds more than one program's files.
    #[error("{}", too_broad(.path, .what, "say --allow-broad-root"))]
    Broad {
        /// The root.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It is a symlink.
    #[error("{path:?} is a symlink, and what it leads to may change; {}", instead(.leads_to.as_deref()))]
    Symlink {
        /// The root.
        path: PathBuf,
        /// What to type instead.
        leads_to: Option<PathBuf>,
    },
    /// It is a file.
    #[error(
        "{0:?} is not a directory; to see what orphand thinks of a file: orphand explain {0:?}"
    )]
    NotADirectory(PathBuf),
    /// Its rule means nothing.
    #[error("the rule for {path:?} cannot mean anything: {error}")]
    Policy {
        /// The root.
        path: PathBuf,
        /// Why.
        error: PolicyError,
    },
}

impl Refused {
    /// The same words, but where the command line has a flag for it this is the way out.
    #[must_use]
    pub fn with_way_out(&self, way_out: &str) -> String {
        match self {
            Refused::Broad { path, what } => too_broad(path, what, way_out),
            refused => refused.to_string(),
        }
    }
}

fn too_broad(path: &Path, what: &str, way_out: &str) -> String {
    format!(
        "{path:?} is {what}: too much to let loose a tool that deletes; \
         name the directory that the leaking program writes to, or {way_out}"
    )
}

fn instead(leads_to: Option<&Path>) -> String {
    match leads_to {
        Some(path) => format!("give {path:?} instead"),
        None => "and it leads nowhere now".to_owned(),
    }
}

/// Folders of the system itself, on Linux and on macOS, where some of them lie in `/private`.
const SYSTEM: &[&str] = &[
    "/",
    "/usr",
    "/etc",
    "/var",
    "/boot",
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/tmp",
    "/Library",
    "/System",
    "/Users",
    "/home",
    "/private",
    "/private/etc",
    "/private/tmp",
    "/private/var",
];

impl Root {
    /// The root at `path`, with a rule. What stands there now is looked at; that nothing does is
    /// no reason to refuse it, nor is that its file system does not answer.
    pub fn new(path: &Path, policy: Arc<Policy>, allow_broad: bool) -> Result<Root, Refused> {
        let root = Root::to_look_at(path, policy)?;
        if !allow_broad {
            let homes = homes();
            // A root that does not answer is looked at by the watcher when it does: `leads_to_broad`.
            let canonical = answer::answers(&root.path).then(|| fs::canonicalize(&root.path));
            let real = canonical.and_then(|real| broad(&real.ok()?, &homes));
            let what = broad(&root.path, &homes).or(real);
            if let Some(what) = what {
                let path = root.path;
                return Err(Refused::Broad { path, what });
            }
        }
        Ok(root)
    }

    /// The same for whoever changes nothing: any directory will do.
    pub fn to_look_at(path: &Path, policy: Arc<Policy>) -> Result<Root, Refused> {
        let path = absolute(path);
        if let Err(error) = policy.check(crate::watch::CLOSE_EVENTS) {
            return Err(Refused::Policy { path, error });
        }
        if !answer::answers(&path) {
            return Ok(Root { path, policy });
        }
        match RootId::of(&path) {
            Err(RootError::Symlink { leads_to }) => Err(Refused::Symlink { path, leads_to }),
            Err(RootError::NotADirectory) => Err(Refused::NotADirectory(path)),
            _ => Ok(Root { path, policy }),
        }
    }

    /// The way from the root to the directory `dir`, if that is one that the rule covers.
    #[must_use]
    pub fn below<'a>(&self, dir: &'a Path) -> Option<&'a Path> {
        let below = dir.strip_prefix(&self.path).ok()?;
        let covered = below.as_os_str().is_empty()
            || (self.policy.recursive
                && !below.components().any(|part| is_own(part.as_os_str()))
                && !self.policy.exclude.excludes(below));
        covered.then_some(below)
    }
}

/// Returns what makes the directory too broad to which `path` leads through a symlink, if anything does: for
/// a root that could not be looked at when it was given.
#[must_use]
pub(crate) fn leads_to_broad(path: &Path) -> Option<&'static str> {
    let real = fs::canonicalize(path).ok()?;
    (real != path).then(|| broad(&real, &homes())).flatten()
}

/// Whether `name` is one of orphand's own: the quarantine, or a claim.
#[must_use]
pub fn is_own(name: &std::ffi::OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    name.as_bytes().starts_with(crate::reap::claim::OWN)
}

/// `path` made absolute, without resolving symlinks and without a slash at its end.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect()
}

fn broad(path: &Path, homes: &[PathBuf]) -> Option<&'static str> {
    let parent = path.parent();
    if SYSTEM.iter().any(|system| path == Path::new(system)) {
        return Some("one of the system's own top folders");
    }
    let in_homes = |parent: &Path| parent == Path::new("/home") || parent == Path::new("/Users");
    if homes.iter().any(|home| home == path) || parent.is_some_and(in_homes) {
        return Some("a home directory");
    }
    if homes.iter().any(|home| home.starts_with(path)) {
        return Some("a folder that holds a home directory");
    }
    None
}

/// Home directories: this user's, root's, and those of the people in the password file. Accounts
/// of services are left out: their homes are where the leaks are.
fn homes() -> Vec<PathBuf> {
    let mut homes = vec![PathBuf::from("/root"), PathBuf::from("/var/root")];
    if let Some(home) = env::var_os("HOME").filter(|home| !home.is_empty()) {
        homes.push(absolute(Path::new(&home)));
    }
    for line in fs::read_to_string("/etc/passwd")
        .unwrap_or_default()
        .lines()
    {
        let mut fields = line.split(':').skip(2);
        let uid: Option<u32> = fields.next().and_then(|uid| uid.parse().ok());
        let home = fields.nth(2).unwrap_or_default();
        if uid.is_some_and(|uid| (1000..60_000).contains(&uid)) && home.len() > 1 {
            homes.push(PathBuf::from(home));
        }
    }
    // A home on a server that is gone must not stop everything.
    let silent = answer::silent(homes.iter().map(PathBuf::as_path));
    let real = homes
        .iter()
        .filter(|home| !silent.contains(home.as_path()))
        .filter_map(|home| fs::canonicalize(home).ok())
        .collect::<Vec<_>>();
    homes.extend(real);
    homes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::exclude::Exclude;

    #[test]
    fn what_is_too_broad() {
        let homes = [PathBuf::from("/srv/people/ann")];
        for (path, refused) in [
            ("/", true),
            ("/tmp", true),
            ("/tmp/x", false),
            ("/var", true),
            ("/var/lib/app", false),
            ("/home", true),
            ("/home/bob", true),
            ("/home/bob/.app", false),
            ("/Users/bob", true),
            ("/srv/people/ann", true),
            ("/srv/people", true),
            ("/srv", true),
            ("/srv/people/ann/.app/sessions", false),
            ("/srv/app", false),
        ] {
            assert_eq!(broad(Path::new(path), &homes).is_some(), refused, "{path}");
        }
    }

    #[test]
    fn a_rule_covers_its_root_and_with_recursion_what_is_below() {
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
    fn a_rule_does_not_cover_what_it_excludes() {
        let root = Root {
            path: "/cache/r".into(),
            policy: Arc::new(Policy {
                recursive: true,
                exclude: Exclude::new(&["cache", "a/b"]).expect("globs"),
                ..Policy::default()
            }),
        };
        let covers = |dir: &str| root.below(Path::new(dir)).is_some();
        assert!(covers("/cache/r"), "only what is below it");
        assert!(covers("/cache/r/a") && covers("/cache/r/b/a/b"));
        assert!(
            !covers("/cache/r/a/b") && !covers("/cache/r/a/b/c") && !covers("/cache/r/x/cache")
        );
    }
}
