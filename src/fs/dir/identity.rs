//! The identity of a directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::root_error::RootError;
use super::root_path::open_root;
use super::system;
use crate::core::learn::DirId;
use crate::core::observation::Observation;
use crate::core::time::Wall;

/// The identity of a directory when it was opened as a root. No handle is kept, because that would prevent unmounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RootId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    pub(super) mount: Option<u64>,
    /// Birth time. A directory that is removed and created again may get the same inode number.
    pub(super) born: Option<Wall>,
}

impl RootId {
    /// Returns the birth time, if the file system stores it.
    #[must_use]
    pub fn born(&self) -> Option<Wall> {
        self.born
    }

    /// Returns an id of the directory that does not depend on its path and mount: its inode number and birth time.
    /// Returns `None` if the file system stores no birth times, because the next directory may get the same number.
    #[must_use]
    pub fn inode(&self) -> Option<String> {
        let Wall { sec, nsec } = self.born?;
        Some(format!("1 {} {sec}.{nsec:09}", self.ino))
    }

    /// Returns the identity of the directory at `path`.
    pub fn of(path: &Path) -> Result<RootId, RootError> {
        // Usually there are no symlinks. A configuration may have thousands of roots.
        let fd = match system::open_without_symlinks(path) {
            Some(fd) => fd,
            None => open_root(path)?,
        };
        Ok(identify(fd.as_fd())?.0)
    }
}

impl From<RootId> for DirId {
    fn from(id: RootId) -> DirId {
        DirId {
            dev: id.dev,
            ino: id.ino,
            born: id.born,
        }
    }
}

pub(super) fn identify(fd: BorrowedFd<'_>) -> io::Result<(RootId, Observation)> {
    let seen = system::observe_fd(fd)?;
    let id = RootId {
        dev: seen.fingerprint.dev,
        ino: seen.fingerprint.ino,
        mount: seen.mount,
        born: seen.fingerprint.btime,
    };
    Ok((id, seen))
}

#[cfg(test)]
mod tests {
    use super::super::PROC;
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_in_the_path_of_a_root_are_followed() {
        let base = tempfile::tempdir().unwrap();
        let base = std::fs::canonicalize(base.path()).unwrap();
        let at = |name: &str| base.join(name);
        std::fs::create_dir_all(at("a/b/root")).unwrap();
        std::fs::create_dir(at("c")).unwrap();
        for (name, to) in [
            ("relative", "a/b"),
            ("absolute", at("a").to_str().unwrap()),
            ("c/up", "../a"),
            ("twice", "c/up/b"),
            ("loop", "loop"),
            ("nowhere", "missing"),
            ("a/b/last", "root"),
        ] {
            symlink(to, at(name)).unwrap();
        }
        let root = RootId::of(&at("a/b/root")).unwrap();
        for path in [
            "relative/root",
            "absolute/b/root",
            "c/up/b/root",
            "twice/root",
            "a/../c/up/../a/b/root",
            "a/b/root/../../b/./root",
        ] {
            assert_eq!(RootId::of(&at(path)).ok(), Some(root), "{path}");
        }
        for (path, want) in [
            ("loop/root", "it does not exist"),
            ("nowhere/root", "it does not exist"),
            ("a/b/none", "it does not exist"),
            ("relative/last", "it is a symlink"),
            ("relative", "it is a symlink"),
        ] {
            let error = RootId::of(&at(path)).expect_err(path).to_string();
            assert_eq!(error, want, "{path}");
        }
        // Only the kernel knows the target of this symlink.
        if let Some(proc) = PROC {
            let path = Path::new(proc)
                .join("self/root")
                .join(at("a/b/root").strip_prefix("/").unwrap());
            assert_eq!(RootId::of(&path).ok(), Some(root));
        }
        assert_eq!(
            RootId::of(Path::new("/")).ok(),
            RootId::of(Path::new("/..")).ok()
        );
        let is_direct = |name: &str| system::open_without_symlinks(&at(name)).is_some();
        assert_eq!(is_direct("a/b/root"), cfg!(target_os = "linux"));
        for path in ["relative/root", "a/../c/up/b", "a/b/last", "loop/root"] {
            assert!(
                !is_direct(path),
                "{path}: a symlink may belong to another user"
            );
        }
    }
}
