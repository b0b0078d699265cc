//! Directories that are too broad for a tool that deletes files: they hold files of more than one program.

use std::env;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::StatVfsMountFlags;

use crate::fs::response;
use crate::sys::mutex::guard;
use crate::sys::passwd;
use crate::sys::passwd::Account;

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

/// Returns a description of the directory at `path` if it is too broad, by its path as given or by its path without
/// symlinks. If its file system does not respond, only the path as given is checked: the watcher calls
/// [`leads_to_broad`] as soon as it responds.
pub(super) fn broad_kind(path: &Path) -> Option<&'static str> {
    let machine = Machine::recent();
    let responds = response::responds(path);
    let shared = responds && is_shared(path);
    machine.broad_kind(path, shared).or_else(|| {
        let real = responds.then(|| fs::canonicalize(path).ok()).flatten()?;
        // Usually there are no symlinks. A configuration may have thousands of roots.
        let differs = real.as_os_str() != path.as_os_str();
        differs.then(|| machine.broad_kind(&real, shared)).flatten()
    })
}

/// Follows the symlinks in `path`, and returns a description of the directory if it is too broad. Returns `None` if it
/// is not, or if `path` contains no symlinks. For a root that could not be checked when it was given.
#[must_use]
pub(crate) fn leads_to_broad(path: &Path) -> Option<&'static str> {
    let real = fs::canonicalize(path).ok()?;
    let is_shared = is_shared(&real);
    (real != path)
        .then(|| Machine::recent().broad_kind(&real, is_shared))
        .flatten()
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
    /// Returns the directories as they were at most a second ago. A configuration may have thousands of roots.
    fn recent() -> Arc<Machine> {
        const VALIDITY: Duration = Duration::from_secs(1);
        static LAST: Mutex<Option<(Instant, Arc<Machine>)>> = Mutex::new(None);
        let mut last = guard(&LAST);
        if let Some((read, machine)) = &*last
            && read.elapsed() < VALIDITY
        {
            return Arc::clone(machine);
        }
        let machine = Arc::new(Machine::read());
        *last = Some((Instant::now(), Arc::clone(&machine)));
        machine
    }

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
        homes.push(std::path::absolute(&home).unwrap_or_else(|_| home.into()));
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
}
