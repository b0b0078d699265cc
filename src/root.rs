//! Roots: the directories that the user listed. Nothing outside of them is ever touched.

use std::env;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::StatVfsMountFlags;

use crate::decide::judge::Dates;
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
    #[error("{0:?} is not a directory")]
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

/// Folders whose files belong to the system, with all that is below them.
const SYSTEM_TREES: &[&str] = &[
    "/usr",
    "/etc",
    "/boot",
    "/bin",
    "/sbin",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/System",
    "/Library",
    "/private/etc",
    "/private/var/lib/dpkg",
    "/private/var/lib/rpm",
];

/// Folders for the temporary files of every program; `$TMPDIR` is another one.
const TEMPORARY: &[&str] = &[
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/private/tmp",
    "/private/var/tmp",
];

impl Root {
    /// The root at `path`, with a rule. What stands there now is looked at; that nothing does is
    /// no reason to refuse it, nor is that its file system does not answer. A rule that only reports takes any directory.
    pub fn new(path: &Path, policy: Arc<Policy>, allow_broad: bool) -> Result<Root, Refused> {
        let root = Root::to_look_at(path, policy)?;
        if !allow_broad && rule!("broad-roots-are-refused", !root.policy.is_dry_run()) {
            let machine = Machine::now();
            // A root that does not answer is looked at by the watcher when it does: `leads_to_broad`.
            let answers = answer::answers(&root.path);
            let shared = answers && is_shared(&root.path);
            let real = answers.then(|| fs::canonicalize(&root.path));
            let real = real.and_then(|real| machine.broad(&real.ok()?, shared));
            let what = machine.broad(&root.path, shared).or(real);
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

    /// Logs that a short grace is raised, where the dates on the root's file system are that coarse.
    pub fn report_coarse_dates(&self, dates: Dates) {
        let lag = dates.usual_lag();
        if let Some(raised) = self.policy.raised_grace(lag) {
            log::warn!(
                "the file system of {:?} keeps dates of {} s, so two changes within that time look like one: \
                 a grace below {} s is raised to that",
                self.path,
                lag.as_secs(),
                raised.as_secs()
            );
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
    let is_shared = is_shared(&real);
    (real != path)
        .then(|| Machine::now().broad(&real, is_shared))
        .flatten()
}

/// Whether `name` is one of orphand's own: the quarantine, or a claim.
#[must_use]
pub fn is_own(name: &std::ffi::OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    name.as_bytes().starts_with(crate::reap::claim::OWN_PREFIX)
}

/// `path` made absolute, without resolving symlinks and without a slash at its end.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect()
}

/// Returns true if users other than the owner may write to a directory and can reach it. Many systems give each
/// user a group of the same number, and only that user is in it.
fn is_shared(dir: &Path) -> bool {
    let is_writable = |seen: Metadata| {
        let by_group = seen.mode() & 0o020 != 0 && seen.gid() != seen.uid();
        by_group || seen.mode() & 0o002 != 0
    };
    let can_be_entered = |dir: &Path| fs::metadata(dir).is_ok_and(|seen| seen.mode() & 0o011 != 0);
    let is_read_only = |dir: &Path| {
        let seen = rustix::fs::statvfs(dir);
        seen.is_ok_and(|seen| seen.f_flag.contains(StatVfsMountFlags::RDONLY))
    };
    fs::metadata(dir).is_ok_and(is_writable)
        && dir.ancestors().skip(1).all(can_be_entered)
        && !is_read_only(dir)
}

/// Directories of this machine that are broad because of its users and its environment.
struct Machine {
    homes: Vec<PathBuf>,
    temporary: Vec<PathBuf>,
}

impl Machine {
    fn now() -> Machine {
        let given = env::var_os("TMPDIR").map(PathBuf::from);
        let given = given.filter(|dir| dir.is_absolute());
        let real = given.as_ref().and_then(|dir| fs::canonicalize(dir).ok());
        let fixed = TEMPORARY.iter().map(PathBuf::from);
        Machine {
            homes: homes(),
            temporary: fixed.chain(given).chain(real).collect(),
        }
    }

    /// What `path` is, if that is too broad; `shared`: other users may write to it.
    fn broad(&self, path: &Path, shared: bool) -> Option<&'static str> {
        let parent = path.parent();
        if SYSTEM.iter().any(|system| path == Path::new(system)) {
            return Some("one of the system's own top folders");
        }
        // "/lib" and "/lib64", and what else begins so.
        let library = path.strip_prefix("/").is_ok_and(|rest| {
            use std::os::unix::ffi::OsStrExt;
            rest.as_os_str().as_bytes().starts_with(b"lib")
        });
        let is_system = library || SYSTEM_TREES.iter().any(|tree| path.starts_with(tree));
        if rule!("system-folders-at-any-depth", is_system) {
            return Some("in one of the system's own folders");
        }
        let is_temporary = self.temporary.iter().any(|dir| path.starts_with(dir));
        if rule!("shared-temporary-folders-are-broad", shared && is_temporary) {
            return Some("in a folder for temporary files, and other users may write to it");
        }
        let in_homes =
            |parent: &Path| parent == Path::new("/home") || parent == Path::new("/Users");
        if self.homes.iter().any(|home| home == path) || parent.is_some_and(in_homes) {
            return Some("a home directory");
        }
        if self.homes.iter().any(|home| home.starts_with(path)) {
            return Some("a folder that holds a home directory");
        }
        None
    }
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
    use crate::decide::policy::Action;

    #[test]
    fn what_is_too_broad() {
        let machine = Machine {
            homes: vec!["/srv/people/ann".into()],
            temporary: vec!["/tmp".into(), "/dev/shm".into(), "/scratch".into()],
        };
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
            ("/usr/share/app", true),
            ("/etc/app.d", true),
            ("/boot/efi", true),
            ("/bin/x", true),
            ("/sbin/x", true),
            ("/lib/x", true),
            ("/lib64/x/y", true),
            ("/var/lib/dpkg/info", true),
            ("/var/lib/rpm", true),
            ("/var/lib/dpkg-app", false),
            ("/System/x", true),
            ("/Library/Caches/x", true),
            ("/Users/bob/Library/Caches", false),
            ("/usrx", false),
            ("/dev/shm/x", false),
            ("/scratch", false),
        ] {
            let what = machine.broad(Path::new(path), false);
            assert_eq!(what.is_some(), refused, "{path}");
        }
        for (path, refused) in [
            ("/tmp/x", true),
            ("/tmp/x/y", true),
            ("/dev/shm/x", true),
            ("/scratch", true),
            ("/scratch/x", true),
            ("/srv/app", false),
            ("/tmpx", false),
        ] {
            let what = machine.broad(Path::new(path), true);
            assert_eq!(what.is_some(), refused, "{path}, which others may write to");
        }
    }

    #[test]
    fn a_directory_that_other_users_may_write_to() {
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
                "{mode:o}: it changes nothing"
            );
        }
        // Not one that they cannot reach.
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
