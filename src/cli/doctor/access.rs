//! Judges whether a root exists, and whether this user may list and remove its files.

use std::path::{Path, PathBuf};

use orphand::core::own_names::OWN_PREFIX;
use orphand::fs::dir::RootError;
use orphand::fs::root::Refused;
use orphand::sys::passwd::{self, Account};
use rustix::io::Errno;

use super::check::{Check, error_text};
use crate::cli::output::shell::{self, Suggestion};
use crate::cli::output::text;

/// The facts of a root that could be opened.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// The uid of the owner.
    pub(super) owner: u32,
    /// The uid of this process.
    pub(super) uid: u32,
    /// The permissions.
    pub(super) mode: u32,
    /// The root is immutable or append-only.
    pub(super) protected: bool,
    /// The result of reading the first names.
    pub(super) listed: Result<(), Errno>,
    /// The result of creating and removing a file or, if the disk was too full for that, of checking the permissions.
    pub(super) written: Result<(), Errno>,
}

/// Returns the check for a root that orphand refuses.
pub(super) fn refused(refused: &Refused) -> Check {
    let (what, fix) = match refused {
        Refused::Broad { what, .. } => (
            format!("it is {what}: too broad for a tool that deletes files"),
            "give the directory in which the program leaves its temps\n\
             or, to allow all of this: --allow-broad-root, or broad = true in its rule"
                .to_owned(),
        ),
        Refused::Symlink { path, leads_to } => (
            "it is a symlink, whose target may change".to_owned(),
            match leads_to {
                Some(path) => format!("name its target: {}", shell::word(path)),
                None => format!("its target does not exist: ls -ld {}", shell::word(path)),
            },
        ),
        Refused::NotADirectory(path) => (
            "it is not a directory".to_owned(),
            format!(
                "to explain a single file: {}",
                Suggestion::new("explain").configured().arg(path)
            ),
        ),
        Refused::Quarantine(_) => (
            "it is in a quarantine".to_owned(),
            format!("give the directory that contains {OWN_PREFIX}"),
        ),
        Refused::Policy { error, .. } => (
            format!("its rule is invalid: {error}"),
            Suggestion::new("config check").configured().to_string(),
        ),
    };
    Check::error("root", what, fix)
}

/// Returns the check for a root that cannot be opened. `blocked_by` is the nearest ancestor that could be examined, and
/// its owner.
pub(super) fn cannot_open(
    path: &Path,
    error: &RootError,
    blocked_by: Option<(PathBuf, u32)>,
) -> Check {
    let (what, fix) = match error {
        RootError::Missing => (
            "it does not exist: its permissions and the proof could not be tested; watch waits for it, and sweep without DIR skips it"
                .to_owned(),
            format!("check the name, or: mkdir -p {}", shell::word(path)),
        ),
        RootError::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let (folder, owner) = blocked_by.unwrap_or((path.to_owned(), 0));
            let (shown, user) = (text::escaped(&folder), user(owner));
            let is_own = owner == rustix::process::geteuid().as_raw();
            (
                format!("it cannot be opened: {shown} belongs to {user} and denies you access"),
                access_fix(is_own, owner, &folder, path),
            )
        }
        error => (
            format!("it cannot be opened: {error}"),
            format!("ls -ld {}", shell::word(path)),
        ),
    };
    Check::error("root", what, fix)
}

pub(super) fn judge(path: &Path, seen: &Access) -> Check {
    if let Err(error) = seen.listed {
        return denied_check(path, seen, "its files cannot be listed", error);
    }
    match seen.written {
        Ok(()) if seen.mode & STICKY != 0 && seen.uid != 0 && seen.owner != seen.uid => Check::ok(
            "root",
            "its files can be listed; it has the sticky bit, so only your own files can be removed",
        ),
        Ok(()) => Check::ok("root", "its files can be listed and removed"),
        Err(_) if seen.protected => Check::error(
            "root",
            "it is immutable or append-only: its files cannot be removed",
            match cfg!(target_os = "macos") {
                true => format!(
                    "sudo chflags nouchg,nouappnd,noschg,nosappnd {}",
                    shell::word(path)
                ),
                false => format!("sudo chattr -i -a {}", shell::word(path)),
            },
        ),
        Err(Errno::ROFS) => Check::error(
            "root",
            "its file system is mounted read-only: its files cannot be removed",
            match cfg!(target_os = "macos") {
                true => "remount the mount point that df shows: sudo mount -uw MOUNT_POINT",
                false => {
                    "remount the mount point that df shows: sudo mount -o remount,rw MOUNT_POINT\n\
                     if the kernel made it read-only, find the cause first: dmesg"
                }
            },
        ),
        Err(error) => denied_check(path, seen, "its files cannot be removed", error),
    }
}

/// `S_ISVTX` of stat(2).
const STICKY: u32 = 0o1000;

fn denied_check(path: &Path, seen: &Access, what: &str, error: Errno) -> Check {
    let (owner, mode) = (user(seen.owner), seen.mode & 0o7777);
    let what = format!(
        "{what} ({}): it belongs to {owner}, mode {mode:04o}, and you are {}",
        error_text(error),
        user(seen.uid)
    );
    let is_own = seen.owner == seen.uid;
    Check::error("root", what, access_fix(is_own, seen.owner, path, path))
}

/// Returns the fix for a `folder`, which is `root` or above it, that denies access.
fn access_fix(is_own: bool, owner: u32, folder: &Path, root: &Path) -> String {
    if is_own {
        return format!("chmod u+rwx {}", shell::word(folder));
    }
    let name = name_of(owner).unwrap_or_else(|| format!("'#{owner}'"));
    let watch = Suggestion::new("watch").configured().arg(root);
    format!("run orphand as the owner: sudo -u {name} {watch}")
}

fn user(uid: u32) -> String {
    match name_of(uid) {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

/// Returns the user name in the password file. Other sources of users are not read.
fn name_of(uid: u32) -> Option<String> {
    name_in(passwd::accounts(), uid)
}

/// Returns the name of `uid`, if it needs no quotes in a shell.
fn name_in(accounts: Vec<Account>, uid: u32) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let of_uid = accounts.into_iter().filter(|account| account.uid == uid);
    let mut names = of_uid.map(|account| account.name);
    let name = names.find(|name| !name.is_empty() && name.iter().all(plain))?;
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    const FINE: Access = Access {
        owner: 501,
        uid: 501,
        mode: 0o755,
        protected: false,
        listed: Ok(()),
        written: Ok(()),
    };

    #[test]
    fn a_root_without_access_is_an_error() {
        let denied = Err(Errno::ACCESS);
        for (seen, state, words) in [
            (FINE, CheckState::Ok, ["listed and removed", ""]),
            (
                Access {
                    mode: 0o1777,
                    owner: 77_777,
                    ..FINE
                },
                CheckState::Ok,
                ["sticky", ""],
            ),
            // The owner of a sticky folder, and root, may remove anything.
            (
                Access {
                    mode: 0o1777,
                    ..FINE
                },
                CheckState::Ok,
                ["removed", ""],
            ),
            (
                Access {
                    mode: 0o555,
                    written: denied,
                    ..FINE
                },
                CheckState::Error,
                ["mode 0555", "chmod u+rwx '/a b'"],
            ),
            (
                Access {
                    owner: 77_777,
                    written: denied,
                    ..FINE
                },
                CheckState::Error,
                ["uid 77777", "sudo -u '#77777' orphand watch '/a b'"],
            ),
            (
                Access {
                    owner: 77_777,
                    listed: denied,
                    written: denied,
                    ..FINE
                },
                CheckState::Error,
                ["cannot be listed", "sudo -u"],
            ),
            (
                Access {
                    protected: true,
                    written: Err(Errno::PERM),
                    ..FINE
                },
                CheckState::Error,
                ["immutable", "'/a b'"],
            ),
            (
                Access {
                    written: Err(Errno::ROFS),
                    ..FINE
                },
                CheckState::Error,
                ["read-only", "remount,rw"],
            ),
        ] {
            let check = judge(Path::new("/a b"), &seen);
            assert_eq!(check.state, state, "{seen:?}: {check:?}");
            let [what, fix] = words;
            assert!(check.what.contains(what), "{seen:?}: {check:?}");
            let shown = check.fix.unwrap_or_default();
            assert!(shown.contains(fix), "{seen:?}: {shown}");
            assert_eq!(shown.is_empty(), state == CheckState::Ok, "{seen:?}");
        }
    }

    #[test]
    fn user_names_are_read_from_the_password_file() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\n#c\nbad name:x:7:7::/:\nann:x:501:20::/h:/bin/zsh\n";
        for (uid, want) in [(0, Some("root")), (501, Some("ann")), (7, None), (9, None)] {
            let found = name_in(passwd::parse(passwd.as_bytes()), uid);
            assert_eq!(found.as_deref(), want, "{uid}");
        }
    }

    #[test]
    fn a_root_that_cannot_be_opened_is_an_error() {
        let path = Path::new("/srv/app");
        let missing = cannot_open(path, &RootError::Missing, None);
        assert_eq!(missing.state, CheckState::Error);
        assert!(missing.what.contains("could not be tested"), "{missing:?}");
        let error = std::io::Error::from_raw_os_error(libc::EACCES);
        let blocked_by = Some((PathBuf::from("/srv"), 77_777));
        let denied = cannot_open(path, &RootError::Io(error), blocked_by);
        assert!(
            denied.what.contains("/srv belongs to uid 77777"),
            "{denied:?}"
        );
        assert!(
            denied
                .fix
                .is_some_and(|fix| fix.ends_with("orphand watch /srv/app"))
        );
    }
}
