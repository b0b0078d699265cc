//! Opens directories and observes files. Only this module turns a path into a fingerprint.
//!
//! A directory is opened through its root at the time of the look. Every file in it is accessed by that handle and a
//! base name, so no path is resolved twice. A symlink is never followed at a root or below it. A symlink in the path of
//! a root is followed only if no other user could replace it. No other mount and no other subvolume is entered.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::core::judge::{Dates, DirProperties, LeaseCoverage};
use crate::core::observation::{Kind, Observation};
use crate::core::time::Wall;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

mod data;
mod follow;

pub use data::{data_at_least, data_at_most};
pub use follow::Followed;
pub use system::{Buffer, PROC};

/// Flags with which a directory is opened: a symlink is not followed, and child processes do not inherit the
/// descriptor.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The unit of `st_blocks`, in bytes. It does not depend on the block size of the file system: stat(2).
const BLOCK: u64 = 512;

/// Properties of a file system.
struct FileSystemInfo {
    /// The kernel's name for its type.
    name: String,
    /// The kinds of use of a file that the proof detects on it.
    lease_coverage: LeaseCoverage,
    /// The precision of its dates.
    dates: Dates,
}

/// The identity of a directory when it was opened as a root. No handle is kept, because that would prevent unmounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RootId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    mount: Option<u64>,
    /// Birth time. A directory that is removed and created again may get the same inode number.
    born: Option<Wall>,
}

/// An open root, or an open directory below a root.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    below: PathBuf,
    properties: DirProperties,
    id: RootId,
}

/// The reason for which a root cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The root or one of its ancestors does not exist.
    #[error("it does not exist")]
    Missing,
    /// The root is a symlink, whose target may change at any time.
    #[error("it is a symlink")]
    Symlink {
        /// The current target.
        leads_to: Option<PathBuf>,
    },
    /// A symlink in the path of the root belongs neither to root nor to this user. Its owner could replace it at any
    /// time, and redirect every operation in the root.
    #[error(
        "its path contains {link:?}, a symlink of uid {owner}, who can change its target at any time; \
         give the directory that it points to"
    )]
    ForeignLink {
        /// The symlink.
        link: PathBuf,
        /// Uid of the symlink's owner.
        owner: u32,
    },
    /// The root is not a directory.
    #[error("it is not a directory")]
    NotADirectory,
    /// The path leads to a different directory than before.
    #[error("it has been replaced by another directory")]
    Replaced,
    /// The system reported an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RootError {
    /// Reports whether the error means that the root's directory no longer exists at its path: the path is missing, or
    /// leads to a file, a symlink, another mount or another directory.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            RootError::Io(error) => RootError::is_missing_error(error),
            _ => true,
        }
    }

    /// Reports whether an error of the system means that the directory no longer exists at its path.
    #[must_use]
    pub fn is_missing_error(error: &io::Error) -> bool {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV)
        )
    }
}

impl RootId {
    /// Returns an id of the directory that does not depend on its path and mount: its inode number and birth time.
    /// Returns `None` if the file system stores no birth times, because the next directory may get the same number.
    #[must_use]
    pub fn inode(&self) -> Option<String> {
        let Wall { sec, nsec } = self.born?;
        Some(format!("1 {} {sec}.{nsec:09}", self.ino))
    }

    /// Returns the identity of the directory at `path`.
    pub fn of(path: &Path) -> Result<RootId, RootError> {
        let fd = open_root(path)?;
        Ok(identify(fd.as_fd())?.0)
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, RootError> {
    let error = match walk_to(path) {
        Err(RootError::Io(error)) => error,
        result => return result,
    };
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Err(RootError::Missing),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => Err(RootError::Symlink {
                leads_to: std::fs::canonicalize(path).ok(),
            }),
            // One of its ancestors is a file: the root does not exist.
            Err(_) => Err(RootError::Missing),
            Ok(_) => Err(RootError::NotADirectory),
        },
        _ => Err(RootError::Io(error)),
    }
}

/// The number of symlinks that one path may contain on Linux. Other systems allow fewer.
const MAX_LINKS: usize = 40;

/// One component of a path.
enum PathPart {
    /// Anything but a symlink.
    Plain,
    /// A symlink.
    Link {
        /// Uid of its owner.
        owner: u32,
        /// Its target. `None` if only the system knows the target (`/proc/PID/root`).
        to: Option<OsString>,
    },
}

/// Returns the component `name` of the directory `at`. This is for systems on which a symlink cannot be opened itself.
///
/// `RACE:` a symlink may be replaced and put back between the calls. Worst case: if that happens within one tick of the
/// file system's clock, the target of a foreign symlink is used as the target of one of ours.
#[cfg(not(target_os = "linux"))]
fn path_part_by_name(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathPart> {
    use std::os::unix::ffi::OsStringExt;
    let seen = system::observe_at(at, name)?;
    if seen.fingerprint.kind != Kind::Symlink {
        return Ok(PathPart::Plain);
    }
    let to = rustix::fs::readlinkat(at, name, Vec::new())?;
    if system::observe_at(at, name)? != seen {
        return Err(Errno::LOOP.into());
    }
    Ok(PathPart::Link {
        owner: seen.fingerprint.uid,
        to: Some(OsString::from_vec(to.into_bytes())),
    })
}

/// Opens the directory at `path`, one component at a time.
///
/// A symlink in the path is followed only if it belongs to root or to this user. Otherwise another user who can write
/// to a directory of the path could redirect it, and have files deleted that only this user may delete (CVE-2018-6954
/// and similar ones).
fn walk_to(path: &Path) -> Result<OwnedFd, RootError> {
    let us = rustix::process::geteuid().as_raw();
    let open = |at: BorrowedFd<'_>, name: &OsStr, flags| {
        rustix::fs::openat(at, name, flags, Mode::empty()).map_err(io::Error::from)
    };
    let start = |path: &Path| match path.is_absolute() {
        true => open(rustix::fs::CWD, OsStr::new("/"), system::TRAVERSED),
        false => open(rustix::fs::CWD, OsStr::new("."), system::TRAVERSED),
    };
    let parts = |path: &Path| -> Vec<OsString> {
        let parts = path.components().rev();
        let parts = parts.filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut at = start(path)?;
    let mut rest = parts(path);
    let mut links = 0;
    // Used only in messages.
    let mut walked = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    while let Some(name) = rest.pop() {
        if rest.is_empty() {
            return Ok(open(at.as_fd(), &name, DIRECTORY)?);
        }
        match system::path_part(at.as_fd(), &name)? {
            PathPart::Plain => {
                at = open(at.as_fd(), &name, system::TRAVERSED)?;
                walked.push(&name);
            }
            PathPart::Link { owner, .. }
                if rule!("root-links-are-ours", owner != 0 && owner != us) =>
            {
                let link = walked.join(&name);
                return Err(RootError::ForeignLink { link, owner });
            }
            PathPart::Link { to: Some(to), .. } => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(RootError::Io(Errno::LOOP.into()));
                }
                let to = Path::new(&to);
                if to.is_absolute() {
                    at = start(to)?;
                    walked = PathBuf::from("/");
                }
                rest.extend(parts(to));
            }
            PathPart::Link { to: None, .. } => {
                at = open(at.as_fd(), &name, system::TRAVERSED - OFlags::NOFOLLOW)?;
                walked.push(&name);
            }
        }
    }
    // The path was "/" or ".".
    Ok(open(at.as_fd(), OsStr::new("."), DIRECTORY)?)
}

fn identify(fd: BorrowedFd<'_>) -> io::Result<(RootId, Observation)> {
    let seen = system::observe_fd(fd)?;
    let id = RootId {
        dev: seen.fingerprint.dev,
        ino: seen.fingerprint.ino,
        mount: seen.mount,
        born: seen.fingerprint.btime,
    };
    Ok((id, seen))
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

/// Opens `below` from `root`, one component at a time, without following a symlink. The caller compares the result with
/// the root to refuse another mount.
fn open_step_by_step(root: BorrowedFd<'_>, below: &Path) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for part in below.components() {
        let Component::Normal(name) = part else {
            return Err(Errno::INVAL.into());
        };
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        at = Some(rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?);
    }
    at.ok_or_else(|| Errno::INVAL.into())
}

fn kind(mode: u32) -> Kind {
    entry_kind(FileType::from_raw_mode(mode as rustix::fs::RawMode)).unwrap_or(Kind::Other)
}

/// Returns the kind of a directory entry. Returns `None` if the file system does not report it.
fn entry_kind(kind: FileType) -> Option<Kind> {
    match kind {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Dir),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::Unknown => None,
        _ => Some(Kind::Other),
    }
}

#[cfg(test)]
mod tests {
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
    }
}
