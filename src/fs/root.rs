//! Roots: the directories that the user listed. orphand never touches a file outside of them.

use std::env;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::StatVfsMountFlags;

use crate::core::judge::Dates;
use crate::core::own_names;
use crate::core::policy::{Policy, PolicyError};
use crate::fs::dir::{RootError, RootId};
use crate::fs::response;
use crate::sys::kernel_events::CLOSE_EVENTS;
use crate::sys::passwd;
use crate::sys::passwd::Account;

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

/// Top folders of the system, on Linux and on macOS. On macOS some of them are in `/private`.
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

/// Folders that belong to the system, with everything below them.
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

/// Folders for the temporary files of all programs. `$TMPDIR` is another one.
const TEMPORARY: &[&str] = &[
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/private/tmp",
    "/private/var/tmp",
];

impl Root {
    /// Creates the root at `path` with a rule, and checks the directory. A missing directory is not refused, nor is one
    /// whose file system does not respond. A rule that only reports may have any directory.
    pub fn new(path: &Path, policy: Arc<Policy>, allow_broad: bool) -> Result<Root, Refused> {
        let root = Root::for_inspection(path, policy)?;
        if !allow_broad && rule!("broad-roots-are-refused", !root.policy.is_dry_run()) {
            let machine = Machine::read();
            // If the root does not respond now, the watcher checks it as soon as it does: `leads_to_broad`.
            let responds = response::responds(&root.path);
            let shared = responds && is_shared(&root.path);
            let real = responds.then(|| fs::canonicalize(&root.path));
            let real = real.and_then(|real| machine.broad_kind(&real.ok()?, shared));
            let what = machine.broad_kind(&root.path, shared).or(real);
            if let Some(what) = what {
                let path = root.path;
                return Err(Refused::Broad { path, what });
            }
        }
        Ok(root)
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

/// Follows the symlinks in `path`, and returns a description of the directory if it is too broad. Returns `None` if it
/// is not, or if `path` contains no symlinks. For a root that could not be checked when it was given.
#[must_use]
pub(crate) fn leads_to_broad(path: &Path) -> Option<&'static str> {
    let real = fs::canonicalize(path).ok()?;
    let is_shared = is_shared(&real);
    (real != path)
        .then(|| Machine::read().broad_kind(&real, is_shared))
        .flatten()
}

/// Makes `path` absolute and removes a slash at its end. Symlinks are not resolved.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect()
}

/// Reports whether users other than the owner can reach a directory and may write to it. A group with the same number
/// as the owner does not count: many systems give each user such a group, which has no other members.
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

/// The directories that are broad because of the users of this machine or because of the environment.
struct Machine {
    homes: Vec<PathBuf>,
    temporary: Vec<PathBuf>,
}

impl Machine {
    /// Reads the password file and the environment.
    fn read() -> Machine {
        let given = env::var_os("TMPDIR").map(PathBuf::from);
        let given = given.filter(|dir| dir.is_absolute());
        let real = given.as_ref().and_then(|dir| fs::canonicalize(dir).ok());
        let fixed = TEMPORARY.iter().map(PathBuf::from);
        Machine {
            homes: homes(passwd::accounts()),
            temporary: fixed.chain(given).chain(real).collect(),
        }
    }

    /// Returns a description of `path` if it is too broad. `shared`: other users may write to it.
    fn broad_kind(&self, path: &Path, shared: bool) -> Option<&'static str> {
        let parent = path.parent();
        if SYSTEM.iter().any(|system| path == Path::new(system)) {
            return Some("one of the system's own top folders");
        }
        // "/lib", "/lib64" and all other paths that begin with "/lib".
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
            return Some("a folder that contains a home directory");
        }
        None
    }
}

/// Returns the home directories of this user, of root, and of the regular users among `accounts` (uid 1000 to
/// 59999). Accounts of services are left out, because the leaks are in their home directories.
fn homes(accounts: Vec<Account>) -> Vec<PathBuf> {
    let mut homes = vec![PathBuf::from("/root"), PathBuf::from("/var/root")];
    if let Some(home) = env::var_os("HOME").filter(|home| !home.is_empty()) {
        homes.push(absolute(Path::new(&home)));
    }
    let regular = rule!("homes-of-accounts-are-broad", accounts, without: Vec::new())
        .into_iter()
        .filter(|account| (1000..60_000).contains(&account.uid))
        .map(|account| account.home)
        .filter(|home| home.as_os_str().len() > 1);
    homes.extend(regular);
    // A home directory on a server that does not respond must not block orphand.
    let silent = response::unresponsive(homes.iter().map(PathBuf::as_path));
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
    use crate::core::exclude::Exclude;
    use crate::core::policy::Action;

    #[test]
    fn homes_of_regular_users_are_recognized() {
        let passwd = "ann:x:1000:20::/srv/people/ann:\nweb:x:999:20::/srv/web:\nbob:x:59999:20::/srv/people/bob:\n\
                      nobody:x:65534:20::/srv/nobody:\nroot2:x:1001:20::/:\nempty:x:1002:20:::\n";
        let found = homes(passwd::parse(passwd.as_bytes()));
        for (home, want) in [
            ("/srv/people/ann", true),
            ("/srv/people/bob", true),
            ("/srv/web", false),
            ("/srv/nobody", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(found.contains(&PathBuf::from(home)), want, "{home}");
        }
    }

    #[test]
    fn broad_directories_are_recognized() {
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
            let what = machine.broad_kind(Path::new(path), false);
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
            let what = machine.broad_kind(Path::new(path), true);
            assert_eq!(what.is_some(), refused, "{path}, which others may write to");
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
