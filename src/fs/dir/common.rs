//! Types and functions that the code of each system uses.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::core::judge::{Dates, LeaseCoverage};
use crate::core::observation::Kind;

/// Flags with which a directory is opened: a symlink is not followed, and child processes do not inherit the
/// descriptor.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The unit of `st_blocks`, in bytes. It does not depend on the block size of the file system: stat(2).
pub(super) const BLOCK: u64 = 512;

/// Properties of a file system.
pub(super) struct FileSystemInfo {
    /// The kernel's name for its type.
    pub(super) name: String,
    /// The kinds of use of a file that the proof detects on it.
    pub(super) lease_coverage: LeaseCoverage,
    /// The precision of its dates.
    pub(super) dates: Dates,
}

/// One component of a path.
pub(super) enum PathPart {
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

/// Opens `below` from `root`, one component at a time, without following a symlink. The caller compares the result with
/// the root to refuse another mount.
pub(super) fn open_step_by_step(root: BorrowedFd<'_>, below: &Path) -> io::Result<OwnedFd> {
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

pub(super) fn kind(mode: u32) -> Kind {
    entry_kind(FileType::from_raw_mode(mode as rustix::fs::RawMode)).unwrap_or(Kind::Other)
}

/// Returns the kind of a directory entry. Returns `None` if the file system does not report it.
pub(super) fn entry_kind(kind: FileType) -> Option<Kind> {
    match kind {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Dir),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::Unknown => None,
        _ => Some(Kind::Other),
    }
}
