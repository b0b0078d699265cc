//! The folder of a quarantine: it is opened, created and checked, and removed when it is empty.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Dir as Entries, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::core::observation::{Kind, Observation};
use crate::core::own_names;
use crate::core::temp_name::Names;
use crate::evidence::{self, FileId};
use crate::fs::dir;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::reap::calls;

/// The name of the folder.
pub const FOLDER: &str = own_names::OWN_PREFIX;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The maximum depth of a quarantined file below its folder. Files below it are not found.
pub(super) const MAX_DEPTH: usize = 256;

/// How often the folder is created while other threads and processes remove it as an empty one. A thread that removes it
/// may be stopped in between, for as long as others need its core.
const TRIES: usize = 500;

/// The pause before the next try.
const PAUSE: Duration = Duration::from_millis(1);

/// The open quarantine of one root.
#[derive(Debug)]
pub struct Quarantine {
    pub(super) root: Dir,
    pub(super) fd: OwnedFd,
    /// Whether this may have created the folder. It is then locked, and removed at the end if it is empty.
    pub(super) is_creator: bool,
}

/// Reports whether `root` has a quarantine or one could be created. Changes nothing.
#[must_use]
pub fn is_possible(root: &Dir) -> bool {
    match root.observe(OsStr::new(FOLDER)) {
        Ok(None) => true,
        Ok(Some(seen)) => is_ours(root, &seen),
        Err(_) => false,
    }
}

/// Reports whether this is a directory of orphand's user, closed to all others, on the root's own mount.
pub(super) fn is_ours(root: &Dir, seen: &Observation) -> bool {
    let has_our_owner = || seen.fingerprint.uid == rustix::process::geteuid().as_raw();
    seen.fingerprint.kind == Kind::Dir
        && rule!("quarantine-has-our-owner", has_our_owner(), without: true)
        && rule!("quarantine-closed-to-others", seen.mode & 0o077 == 0, without: true)
        && seen.fingerprint.dev == root.id().dev
        && seen.mount == root.properties().mount
        && !seen.mount_root
}

impl Quarantine {
    /// Opens the quarantine of the root at `root`. Creates it if it does not exist. No other thread or process removes
    /// it as an empty one before this is dropped.
    pub fn open_or_create(root: &Path, id: Option<RootId>) -> Result<Quarantine, RootError> {
        let root = Dir::open_root(root, id)?;
        for _ in 0..TRIES {
            match calls::make_dir(root.fd(), OsStr::new(FOLDER)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error.into());
                }
                _ => {}
            }
            let Some(fd) = open_folder(&root)? else {
                continue;
            };
            let is_locked = lock(&fd, FlockOperation::NonBlockingLockShared)?;
            if is_locked && is_linked(root.fd(), OsStr::new(FOLDER), &fd)? {
                return Ok(Quarantine {
                    root,
                    fd,
                    is_creator: true,
                });
            }
            // Another thread or process is removing it.
            std::thread::sleep(PAUSE);
        }
        Err(RootError::Io(Errno::NOENT.into()))
    }

    /// Opens the quarantine of the root at `root`, if it exists.
    pub fn open_existing(root: &Path, id: Option<RootId>) -> Result<Option<Quarantine>, RootError> {
        let root = Dir::open_root(root, id)?;
        let fd = open_folder(&root)?;
        Ok(fd.map(|fd| Quarantine {
            root,
            fd,
            is_creator: false,
        }))
    }

    /// Returns the identity of its folder, which is the same for all mounts of it.
    pub fn folder_id(&self) -> io::Result<FileId> {
        Ok(FileId::from(&dir::observe_fd(self.fd.as_fd())?.fingerprint))
    }

    /// Returns the root that contains it.
    #[must_use]
    pub fn root(&self) -> &Dir {
        &self.root
    }

    pub(super) fn open_inner(&self, inner: &Path) -> io::Result<OwnedFd> {
        inner
            .components()
            .try_fold(self.fd.try_clone()?, |fd, part| {
                open_dir(fd.as_fd(), part.as_os_str())
            })
    }

    /// Removes the empty directories of `folder`, from `below` upwards, unless another thread or process is about to
    /// use them.
    pub(super) fn remove_empty(&self, folder: &str, below: &Path) {
        let Ok(top) = open_dir(self.fd.as_fd(), OsStr::new(folder)) else {
            return;
        };
        let is_locked = lock(&top, FlockOperation::NonBlockingLockExclusive).unwrap_or(false);
        if rule!("folder-in-use-stays", !is_locked) {
            return;
        }
        let mut at = PathBuf::from(folder).join(below);
        while let Some(name) = at.file_name().map(OsStr::to_owned) {
            at.pop();
            let Ok(parent) = self.open_inner(&at) else {
                return;
            };
            if calls::remove_empty_dir(parent.as_fd(), &name).is_err() {
                return;
            }
        }
        if !self.is_creator {
            self.remove_if_empty();
        }
    }

    /// Removes the quarantine if it is empty, unless another thread or process is about to use it. On a file system
    /// without locks that process's next call fails with ENOENT, and it opens the quarantine again.
    pub(super) fn remove_if_empty(&self) {
        if lock(&self.fd, FlockOperation::NonBlockingLockExclusive).unwrap_or(false) {
            let _ = calls::remove_empty_dir(self.root.fd(), OsStr::new(FOLDER));
            let _ = lock(&self.fd, FlockOperation::Unlock);
        }
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        if self.is_creator {
            self.remove_if_empty();
        }
    }
}

/// Opens the folder of a quarantine, if it exists.
fn open_folder(root: &Dir) -> Result<Option<OwnedFd>, RootError> {
    let fd = match open_dir(root.fd(), OsStr::new(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let seen = dir::observe_fd(fd.as_fd())?;
    let is_closed = !evidence::may_let_others_in(fd.as_fd());
    if rule!("quarantine-is-ours", !is_ours(root, &seen) || !is_closed) {
        return Err(RootError::Io(Errno::PERM.into()));
    }
    Ok(Some(fd))
}

/// Reports whether `name` in `at` still leads to `folder`, which may have been removed before it was locked.
pub(super) fn is_linked(at: BorrowedFd<'_>, name: &OsStr, folder: &OwnedFd) -> io::Result<bool> {
    let opened = FileId::from(&dir::observe_fd(folder.as_fd())?.fingerprint);
    match observe(at, name) {
        Ok(there) => Ok(FileId::from(&there.fingerprint) == opened),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks a folder. Returns `false` if another process or thread has locked it. On a file system without locks it always
/// succeeds.
pub(super) fn lock(folder: &OwnedFd, how: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(folder, how) {
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn open_dir(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, name, DIRECTORY, Mode::empty())?)
}

pub(super) fn observe(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Observation> {
    dir::observe_at(at, name)
}

pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Entries::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Fails if the directory `to` has a file that would be read as a part of one of the files `restored`, the first of which is
/// the main file, or of which one of these would be read as a part. A log of another database would damage the restored
/// one, and a restored log another database.
///
/// RACE: such a file may be created between this check and the rename of the restored file (µs). Worst case: it damages
/// the restored file, or is damaged by it.
pub(super) fn check_neighbors(
    to: BorrowedFd<'_>,
    rule_names: &Names,
    restored: &[OsString],
) -> io::Result<()> {
    let Some(main) = restored.first() else {
        return Ok(());
    };
    let listed = || -> io::Result<Vec<OsString>> {
        let is_companion = |name: &OsString| rule_names.temps_of(name).any(|temp| temp == main);
        Ok(names(to)?.into_iter().filter(is_companion).collect())
    };
    let companions = match rule_names.companion_names(main) {
        Some(companions) => companions,
        None => listed()?,
    };
    for name in companions {
        if rule!(
            "foreign-companion-stops-a-restore",
            !restored.contains(&name) && exists(to, &name)?
        ) {
            return Err(io::Error::other(format!(
                "{name:?} exists beside it, may belong to another file, and would be read as a part of the restored file"
            )));
        }
    }
    for name in restored {
        for temp in rule_names.temps_of(name) {
            let is_restored = restored.iter().any(|one| one == temp);
            if rule!(
                "restored-companion-has-no-foreign-main",
                !is_restored && exists(to, temp)?
            ) {
                return Err(io::Error::other(format!(
                    "{temp:?} exists, and {name:?} would be read as a part of it"
                )));
            }
        }
    }
    Ok(())
}

fn exists(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    match observe(dir, name) {
        Ok(_) => Ok(true),
        // No file can have a name that is too long.
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
