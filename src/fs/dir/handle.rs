//! Handles of directories.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::common::{DIRECTORY, FileSystemInfo};
use super::identity::{RootId, identify};
use super::root_error::RootError;
use super::root_path::{open_root, walk_to_parent};
use super::system::{self, Buffer};
use crate::core::judge::{Dates, DirProperties, LeaseCoverage};
use crate::core::observation::{Kind, Observation};

/// An open root, or an open directory below a root.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    below: PathBuf,
    properties: DirProperties,
    id: RootId,
}

impl Dir {
    /// Opens the root at `root`. If `expected` is given, the root must still have that identity.
    pub fn open_root(root: &Path, expected: Option<RootId>) -> Result<Dir, RootError> {
        let fd = open_root(root)?;
        let (id, _) = identify(fd.as_fd())?;
        if expected.is_some_and(|expected| expected != id) {
            return Err(RootError::Replaced);
        }
        Ok(Dir::new(fd, root.to_owned(), PathBuf::new(), id)?)
    }

    /// Opens the directory `below` the root at `root`. Symlinks and other mounts in `below` are refused.
    pub fn open_below(
        root: &Path,
        expected: Option<RootId>,
        below: &Path,
    ) -> Result<Dir, RootError> {
        let root_dir = Dir::open_root(root, expected)?;
        if below.as_os_str().is_empty() {
            return Ok(root_dir);
        }
        root_dir.open_within(below)
    }

    /// Opens the directory `below` this root, under the same conditions. This is for a scan that ends soon: as long as
    /// the handle of the root is open, its file system cannot be unmounted.
    pub fn open_within(&self, below: &Path) -> Result<Dir, RootError> {
        let fd = system::open_beneath(self.fd(), below)?;
        self.check_mount(fd, below.to_owned())
    }

    /// Opens this directory again, for a second reading.
    pub(in crate::fs) fn reopen(&self) -> io::Result<Dir> {
        let fd = rustix::fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())?;
        Ok(Dir {
            fd,
            path: self.path.clone(),
            below: self.below.clone(),
            properties: self.properties.clone(),
            id: self.id,
        })
    }

    /// Opens the subdirectory `name`, under the same conditions.
    pub fn open_child(&self, name: &OsStr) -> Result<Dir, RootError> {
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty())
            .map_err(io::Error::from)?;
        self.check_mount(fd, self.below.join(name))
    }

    /// Returns the directory `fd` if it is on the same mount and device as this one.
    fn check_mount(&self, fd: OwnedFd, below: PathBuf) -> Result<Dir, RootError> {
        let (id, seen) = identify(fd.as_fd())?;
        // A subvolume has its own device number on the same mount. A bind mount has its own mount number on the same
        // device. So both numbers must be those of the root.
        let is_elsewhere = id.dev != self.id.dev || id.mount != self.id.mount || seen.mount_root;
        if rule!("no-mount-below-the-root", is_elsewhere) {
            return Err(RootError::Io(Errno::XDEV.into()));
        }
        let mut path = self.path.clone();
        if let Ok(more) = below.strip_prefix(&self.below) {
            path.push(more);
        }
        // The mount is the same, so the file system is too.
        Ok(Dir {
            fd,
            path,
            below,
            properties: self.properties.clone(),
            id,
        })
    }

    /// Opens the directory that contains `path`, and returns it with the last component of `path`. A relative path
    /// begins at this directory, and none of its components is a symlink. The directory may be outside of the root, and
    /// on another file system.
    ///
    /// # Errors
    ///
    /// The path has no last component, or its directory cannot be opened.
    pub fn open_parent_of(&self, path: &Path) -> Result<(Dir, OsString), RootError> {
        let (fd, name) = match path.is_absolute() {
            true => walk_to_parent(path)?,
            false => self.walk_from_here(path)?,
        };
        let name = name.ok_or_else(|| RootError::Io(Errno::INVAL.into()))?;
        let (id, _) = identify(fd.as_fd())?;
        let path = path.parent().unwrap_or(Path::new(""));
        let dir = Dir::new(fd, self.path.join(path), PathBuf::new(), id)?;
        Ok((dir, name))
    }

    fn walk_from_here(&self, path: &Path) -> io::Result<(OwnedFd, Option<OsString>)> {
        let enter = |at: BorrowedFd<'_>, name: &OsStr| {
            let flags = system::TRAVERSED | OFlags::NOFOLLOW;
            rustix::fs::openat(at, name, flags, Mode::empty())
        };
        let mut at = enter(self.fd(), OsStr::new("."))?;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            match part {
                Component::CurDir => {}
                Component::Normal(name) if parts.peek().is_none() => {
                    return Ok((at, Some(name.to_owned())));
                }
                part => at = enter(at.as_fd(), part.as_os_str())?,
            }
        }
        Ok((at, None))
    }

    fn new(fd: OwnedFd, path: PathBuf, below: PathBuf, id: RootId) -> io::Result<Dir> {
        let FileSystemInfo {
            name,
            lease_coverage,
            dates,
        } = system::file_system(fd.as_fd())?;
        let properties = DirProperties {
            dev: id.dev,
            mount: id.mount,
            file_system: name.into(),
            lease_coverage,
            // Directories have inodes of the same size as files.
            dates: match dates {
                Dates::FineIfBorn if id.born.is_none() => {
                    rule!("no-birth-no-fraction", Dates::WholeSeconds, without: Dates::Fine)
                }
                dates => dates,
            },
            quarantine: false,
        };
        Ok(Dir {
            fd,
            path,
            below,
            properties,
            id,
        })
    }

    /// Returns the handle.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns the path: the root's path as it was given, and the path below the root. It is for messages and events.
    /// No file is accessed by it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path relative to the root. It is empty for the root itself.
    #[must_use]
    pub fn below(&self) -> &Path {
        &self.below
    }

    /// Returns the identity of the directory.
    #[must_use]
    pub fn id(&self) -> RootId {
        self.id
    }

    /// Returns the facts about the directory that the judge needs. Its field `quarantine` is always `false`: the caller
    /// sets it.
    #[must_use]
    pub fn properties(&self) -> &DirProperties {
        &self.properties
    }

    /// Returns the kinds of use of a file that the proof detects in this directory.
    #[must_use]
    pub fn lease_coverage(&self) -> LeaseCoverage {
        self.properties.lease_coverage
    }

    /// Calls `each` with every name in the directory, and with its kind if the file system reports it. Only the first
    /// call on a handle returns names: a second call goes on at the end.
    pub fn read(
        &self,
        buffer: &mut Buffer,
        each: &mut dyn FnMut(&OsStr, Option<Kind>),
    ) -> io::Result<()> {
        let mut each = |name: &OsStr, kind| {
            each(name, kind);
            true
        };
        self.read_names(buffer, &mut each)
    }

    /// Calls `each` with the names in the directory until `each` returns `false`. It begins at the first name, even if
    /// the handle was read before.
    pub fn read_while(
        &self,
        buffer: &mut Buffer,
        each: &mut dyn FnMut(&OsStr, Option<Kind>) -> bool,
    ) -> io::Result<()> {
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))?;
        self.read_names(buffer, each)
    }

    fn read_names(
        &self,
        buffer: &mut Buffer,
        each: &mut dyn FnMut(&OsStr, Option<Kind>) -> bool,
    ) -> io::Result<()> {
        system::read(self.fd(), buffer, &mut |name, kind| {
            name == b"." || name == b".." || each(OsStr::from_bytes(name), kind)
        })
    }

    /// Reports whether a process has read the file `name` since its last write, or whether this cannot be known.
    pub fn was_read_after_write(&self, name: &OsStr) -> io::Result<bool> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let seen = rustix::fs::statat(self.fd(), name, flags)?;
        let accessed = (seen.st_atime, seen.st_atime_nsec);
        let written = (seen.st_mtime, seen.st_mtime_nsec);
        let is_known = system::has_access_times(&self.path.join(name));
        Ok(rule!(
            "read-file-is-not-taken",
            accessed > written || !is_known
        ))
    }

    /// Observes the file `name` without following a symlink. Returns `None` if it does not exist.
    pub fn observe(&self, name: &OsStr) -> io::Result<Option<Observation>> {
        match system::observe_at(self.fd(), name) {
            Ok(seen) => Ok(Some(seen)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens the regular file `name` in `at` to measure its data. Returns `None` if there is no permission to open it, and
/// if opening it would break a lease of another process.
///
/// # Errors
///
/// The system reports an error, or the file does not exist any more.
pub fn open_to_measure(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ACCESS | Errno::PERM | Errno::AGAIN | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Observes the file `name` in the directory `at` without following a symlink.
pub fn observe_at(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Observation> {
    Ok(system::observe_at(at, name)?)
}

/// Observes an open file.
pub fn observe_fd(fd: BorrowedFd<'_>) -> io::Result<Observation> {
    Ok(system::observe_fd(fd)?)
}
