//! Looking: the one place where a path becomes a fingerprint.
//!
//! A directory is opened through its root, as it stands at this moment, and everything in it is
//! asked for by that handle and a bare name. No path is resolved twice, no symlink followed below
//! or at a root, on the way to a root none that somebody else could turn elsewhere, no other mount
//! and no other subvolume entered.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::decide::judge::{Dates, DirProperties, LeaseCoverage};
use crate::decide::observation::{Kind, Observation};
use crate::decide::time::Wall;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

pub mod answer;
mod data;
mod follow;

pub use data::{data_at_least, data_at_most};
pub use follow::Followed;
pub use system::{Buffer, PROC};

/// Flags with which a directory is opened: never through a symlink, never inherited.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The unit of `st_blocks`, in bytes, whatever the file system's own block size is: stat(2).
const BLOCK: u64 = 512;

/// What is known of a file system.
struct FileSystemInfo {
    /// The kernel's name of it.
    name: String,
    /// How far the proof reaches on it.
    reach: LeaseCoverage,
    /// How exact its dates are.
    dates: Dates,
}

/// What a directory was when it was opened as a root. No handle is kept: that would pin its mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RootId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    mount: Option<u64>,
    /// A directory that is removed and made again may well get the same inode number.
    born: Option<Wall>,
}

/// An open directory below a root.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    below: PathBuf,
    place: DirProperties,
    id: RootId,
}

/// Why a root cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Nothing is there, or a part of the way to it is missing.
    #[error("it does not exist")]
    Missing,
    /// It is a symlink: what it points to may change under us.
    #[error("it is a symlink")]
    Symlink {
        /// Where it leads now.
        leads_to: Option<PathBuf>,
    },
    /// A symlink on the way to it belongs to neither root nor us: its owner may turn it elsewhere
    /// at any time, and with it everything that is done in the root.
    #[error(
        "the way to it leads through {link:?}, a symlink of uid {owner}, who may turn it elsewhere; \
         give the directory that it leads to"
    )]
    ForeignLink {
        /// The symlink.
        link: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It is no directory.
    #[error("it is not a directory")]
    NotADirectory,
    /// Another directory than at the start stands there now.
    #[error("another directory has taken its place")]
    Replaced,
    /// The system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RootError {
    /// Whether it says that no directory of this root is there any more: nothing, a file, a symlink,
    /// another mount, or another directory.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            RootError::Io(error) => RootError::is_gone_by(error),
            _ => true,
        }
    }

    /// The same of the system's own word.
    #[must_use]
    pub fn is_gone_by(error: &io::Error) -> bool {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV)
        )
    }
}

impl RootId {
    /// The directory itself, wherever it stands and however it is mounted: its inode number and birth. `None` where the
    /// file system keeps no births: the next directory may get the same number.
    #[must_use]
    pub fn inode(&self) -> Option<String> {
        let Wall { sec, nsec } = self.born?;
        Some(format!("1 {} {sec}.{nsec:09}", self.ino))
    }

    /// What stands at `path` now.
    pub fn of(path: &Path) -> Result<RootId, RootError> {
        let fd = open_root(path)?;
        Ok(identify(fd.as_fd())?.0)
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, RootError> {
    let error = match walk_to(path) {
        Err(RootError::Io(error)) => error,
        answer => return answer,
    };
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Err(RootError::Missing),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => Err(RootError::Symlink {
                leads_to: std::fs::canonicalize(path).ok(),
            }),
            // A file stands where one of its parents should be: it is simply not there yet.
            Err(_) => Err(RootError::Missing),
            Ok(_) => Err(RootError::NotADirectory),
        },
        _ => Err(RootError::Io(error)),
    }
}

/// As many symlinks as a path may lead through on Linux; elsewhere it is fewer.
const MOST_LINKS: usize = 40;

/// What stands at a name on the way to a root.
enum PathPart {
    /// No symlink.
    Plain,
    /// A symlink.
    Link {
        /// Whose.
        owner: u32,
        /// What it says; `None` where only the system knows where it leads (`/proc/PID/root`).
        to: Option<OsString>,
    },
}

/// What stands at `name`, asked by name: for systems that cannot hold a symlink while it is asked.
/// `RACE:` a symlink may be swapped and swapped back between the calls; worst case, within one tick
/// of the file system's clock, what another one says is taken for what one of ours says.
#[cfg(not(target_os = "linux"))]
fn stands_by_name(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathPart> {
    use std::os::unix::ffi::OsStringExt;
    let seen = system::observe_at(at, name)?;
    if seen.fingerprint.kind != Kind::Symlink {
        return Ok(PathPart::Plain);
    }
    let says = rustix::fs::readlinkat(at, name, Vec::new())?;
    if system::observe_at(at, name)? != seen {
        return Err(Errno::LOOP.into());
    }
    Ok(PathPart::Link {
        owner: seen.fingerprint.uid,
        to: Some(OsString::from_vec(says.into_bytes())),
    })
}

/// Opens the directory at `path`, part by part.
///
/// Where the way leads through a symlink, what that says is walked instead, and only if it belongs
/// to root or to us. Whoever else may write to a directory on the way could turn it elsewhere, and
/// have files deleted that only we may delete (CVE-2018-6954 and its like).
fn walk_to(path: &Path) -> Result<OwnedFd, RootError> {
    let us = rustix::process::geteuid().as_raw();
    let open = |at: BorrowedFd<'_>, name: &OsStr, flags| {
        rustix::fs::openat(at, name, flags, Mode::empty()).map_err(io::Error::from)
    };
    let start = |path: &Path| match path.is_absolute() {
        true => open(rustix::fs::CWD, OsStr::new("/"), system::ON_THE_WAY),
        false => open(rustix::fs::CWD, OsStr::new("."), system::ON_THE_WAY),
    };
    let parts = |path: &Path| -> Vec<OsString> {
        let parts = path.components().rev();
        let parts = parts.filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut at = start(path)?;
    let mut rest = parts(path);
    let mut links = 0;
    // For people, and for nothing else.
    let mut way = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    while let Some(name) = rest.pop() {
        if rest.is_empty() {
            return Ok(open(at.as_fd(), &name, DIRECTORY)?);
        }
        match system::stands(at.as_fd(), &name)? {
            PathPart::Plain => {
                at = open(at.as_fd(), &name, system::ON_THE_WAY)?;
                way.push(&name);
            }
            PathPart::Link { owner, .. }
                if rule!("root-links-are-ours", owner != 0 && owner != us) =>
            {
                let link = way.join(&name);
                return Err(RootError::ForeignLink { link, owner });
            }
            PathPart::Link { to: Some(to), .. } => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(RootError::Io(Errno::LOOP.into()));
                }
                let to = Path::new(&to);
                if to.is_absolute() {
                    at = start(to)?;
                    way = PathBuf::from("/");
                }
                rest.extend(parts(to));
            }
            PathPart::Link { to: None, .. } => {
                at = open(at.as_fd(), &name, system::ON_THE_WAY - OFlags::NOFOLLOW)?;
                way.push(&name);
            }
        }
    }
    // Nothing but "/" or ".".
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
    /// Opens the root at `root`, which must still be `expected` where that is given.
    pub fn open_root(root: &Path, expected: Option<RootId>) -> Result<Dir, RootError> {
        let fd = open_root(root)?;
        let (id, _) = identify(fd.as_fd())?;
        if expected.is_some_and(|expected| expected != id) {
            return Err(RootError::Replaced);
        }
        Ok(Dir::new(fd, root.to_owned(), PathBuf::new(), id)?)
    }

    /// Opens the directory `below` the root at `root`: through no symlink, on no other mount.
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

    /// Opens the directory `below` this one, which is a root's, under the same conditions. For a walk
    /// that ends soon: as long as the handle of a root lives, its file system cannot be unmounted.
    pub fn open_within(&self, below: &Path) -> Result<Dir, RootError> {
        let fd = system::open_beneath(self.fd(), below)?;
        self.adopt(fd, below.to_owned())
    }

    /// Opens the directory `name` in this one, under the same conditions.
    pub fn open_child(&self, name: &OsStr) -> Result<Dir, RootError> {
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty())
            .map_err(io::Error::from)?;
        self.adopt(fd, self.below.join(name))
    }

    fn adopt(&self, fd: OwnedFd, below: PathBuf) -> Result<Dir, RootError> {
        let (id, seen) = identify(fd.as_fd())?;
        // A subvolume has its own device number on the same mount, a bind mount its own mount
        // number on the same device: both must be the root's.
        let is_elsewhere = id.dev != self.id.dev || id.mount != self.id.mount || seen.mount_root;
        if rule!("no-mount-below-the-root", is_elsewhere) {
            return Err(RootError::Io(Errno::XDEV.into()));
        }
        let mut path = self.path.clone();
        if let Ok(more) = below.strip_prefix(&self.below) {
            path.push(more);
        }
        // The same mount is the same file system.
        Ok(Dir {
            fd,
            path,
            below,
            place: self.place.clone(),
            id,
        })
    }

    fn new(fd: OwnedFd, path: PathBuf, below: PathBuf, id: RootId) -> io::Result<Dir> {
        let FileSystemInfo { name, reach, dates } = system::file_system(fd.as_fd())?;
        let place = DirProperties {
            dev: id.dev,
            mount: id.mount,
            file_system: name.into(),
            lease_coverage: reach,
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
            place,
            id,
        })
    }

    /// The handle.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The root's path as given, plus the rest: for people and events, never for acting.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The way from the root to it; empty for the root itself.
    #[must_use]
    pub fn below(&self) -> &Path {
        &self.below
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> RootId {
        self.id
    }

    /// What the judge needs to know of it. Whether a quarantine can be is for others to say.
    #[must_use]
    pub fn place(&self) -> &DirProperties {
        &self.place
    }

    /// How far the proof reaches in it.
    #[must_use]
    pub fn reach(&self) -> LeaseCoverage {
        self.place.lease_coverage
    }

    /// Calls `each` with every name in it and what kind of thing it is, where the file system says so.
    /// Once only: what has been read of a handle is not read again.
    pub fn read(
        &self,
        buffer: &mut Buffer,
        each: &mut dyn FnMut(&OsStr, Option<Kind>),
    ) -> io::Result<()> {
        let mut each = |name: &OsStr, kind| {
            each(name, kind);
            true
        };
        self.read_on(buffer, &mut each)
    }

    /// Calls `each` with the names in it from the first one on, also where it was read before, as long as
    /// `each` says so.
    pub fn read_while(
        &self,
        buffer: &mut Buffer,
        each: &mut dyn FnMut(&OsStr, Option<Kind>) -> bool,
    ) -> io::Result<()> {
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))?;
        self.read_on(buffer, each)
    }

    fn read_on(
        &self,
        buffer: &mut Buffer,
        each: &mut dyn FnMut(&OsStr, Option<Kind>) -> bool,
    ) -> io::Result<()> {
        system::read(self.fd(), buffer, &mut |name, kind| {
            name == b"." || name == b".." || each(OsStr::from_bytes(name), kind)
        })
    }

    /// What stands at `name`, not followed; `None` where nothing does.
    pub fn observe(&self, name: &OsStr) -> io::Result<Option<Observation>> {
        match system::observe_at(self.fd(), name) {
            Ok(seen) => Ok(Some(seen)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens the regular file `name` in `at` to ask how much data it holds. Returns `None` where it may not be opened, and
/// where opening it would break a lease of another process.
///
/// # Errors
///
/// The system has no answer; nothing stands at `name` any more.
pub fn open_to_measure(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ACCESS | Errno::PERM | Errno::AGAIN | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What stands at `name` in the directory `at`, not followed.
pub fn observe_at(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Observation> {
    Ok(system::observe_at(at, name)?)
}

/// What an open file is.
pub fn observe_fd(fd: BorrowedFd<'_>) -> io::Result<Observation> {
    Ok(system::observe_fd(fd)?)
}

/// Opens `below` from `root`, part by part, none of them a symlink. That no mount was crossed
/// shows in what is opened, and the caller compares that.
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

/// `None` where the file system does not say.
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
    fn the_way_to_a_root() {
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
        for way in [
            "relative/root",
            "absolute/b/root",
            "c/up/b/root",
            "twice/root",
            "a/../c/up/../a/b/root",
            "a/b/root/../../b/./root",
        ] {
            assert_eq!(RootId::of(&at(way)).ok(), Some(root), "{way}");
        }
        for (way, want) in [
            ("loop/root", "it does not exist"),
            ("nowhere/root", "it does not exist"),
            ("a/b/none", "it does not exist"),
            ("relative/last", "it is a symlink"),
            ("relative", "it is a symlink"),
        ] {
            let error = RootId::of(&at(way)).expect_err(way).to_string();
            assert_eq!(error, want, "{way}");
        }
        // Only the kernel knows where this one leads.
        if let Some(proc) = PROC {
            let way = Path::new(proc)
                .join("self/root")
                .join(at("a/b/root").strip_prefix("/").unwrap());
            assert_eq!(RootId::of(&way).ok(), Some(root));
        }
        assert_eq!(
            RootId::of(Path::new("/")).ok(),
            RootId::of(Path::new("/..")).ok()
        );
    }
}
