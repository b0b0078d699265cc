//! Observes files on Linux by statx(2), openat2(2) and statfs(2).

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use super::common::{
    BLOCK, DIRECTORY, FileSystemInfo, PathPart, entry_kind, kind, open_step_by_step,
};
use crate::core::judge::{Dates, LeaseCoverage};
use crate::core::observation::{Fingerprint, Kind, Observation};
use crate::core::time::Wall;

/// The folder that shows processes.
pub const PROC: Option<&str> = Some("/proc");

const WANTED: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

pub(super) fn observe_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Observation, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, WANTED).map(|seen| observation(&seen))
}

pub(super) fn observe_fd(fd: BorrowedFd<'_>) -> Result<Observation, Errno> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, WANTED).map(|seen| observation(&seen))
}

fn observation(seen: &Statx) -> Observation {
    let time = |t: rustix::fs::StatxTimestamp| Wall {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    };
    let has = |flag| seen.stx_mask & flag == flag;
    let attributes = seen.stx_attributes;
    Observation {
        fingerprint: Fingerprint {
            dev: rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor),
            ino: seen.stx_ino,
            kind: kind(u32::from(seen.stx_mode)),
            size: seen.stx_size,
            mtime: time(seen.stx_mtime),
            ctime: time(seen.stx_ctime),
            btime: has(StatxFlags::BTIME.bits()).then(|| time(seen.stx_btime)),
            links: u64::from(seen.stx_nlink),
            uid: seen.stx_uid,
        },
        mode: u32::from(seen.stx_mode),
        mount: has(StatxFlags::MNT_ID.bits()).then_some(seen.stx_mnt_id),
        mount_root: attributes.contains(StatxAttributes::MOUNT_ROOT),
        protected: attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
        dataless: false,
        allocated: seen.stx_blocks.saturating_mul(BLOCK),
    }
}

/// Reports whether the number of blocks says nothing about the data of a file. On Linux the number can always be used:
/// a compressed file on btrfs or f2fs has fewer blocks.
pub(super) fn is_compressed(_: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(false)
}

/// Flags for an ancestor of a root. They do not need the right to read the directory.
pub(super) const TRAVERSED: OFlags = DIRECTORY.union(OFlags::PATH);

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_FS: u32 = 0x0000_9FA0;

/// Returns the component `name` of the directory `at`. A symlink is held open while its owner and its target are read,
/// so both belong to the same symlink.
pub(super) fn path_part(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathPart> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let part = rustix::fs::openat(at, name, flags, Mode::empty())?;
    let seen = rustix::fs::fstat(&part)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::Symlink {
        return Ok(PathPart::Plain);
    }
    // A link in /proc to a directory of a process contains the path as that process sees it.
    let to = match rustix::fs::fstatfs(part.as_fd())?.f_type as u32 {
        PROC_FS => None,
        _ => Some(rustix::fs::readlinkat(&part, "", Vec::new())?),
    };
    Ok(PathPart::Link {
        owner: seen.st_uid,
        to: to.map(|to| OsString::from_vec(to.into_bytes())),
    })
}

/// Opens `below` from `root`. The kernel itself refuses symlinks and other mounts. Without openat2(2) (before Linux
/// 5.6, or with a seccomp filter that hides it) each component is opened in turn.
pub(super) fn open_beneath(root: BorrowedFd<'_>, below: &Path) -> io::Result<OwnedFd> {
    let no_symlinks =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let no_mounts = ResolveFlags::NO_XDEV;
    let how = rule!("no-symlink-below-the-root", no_symlinks, without: ResolveFlags::empty())
        | rule!("no-mount-below-the-root", no_mounts, without: ResolveFlags::empty());
    match rustix::fs::openat2(root, below, DIRECTORY, Mode::empty(), how) {
        Ok(fd) => Ok(fd),
        Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(root, below),
        Err(error) => Err(error.into()),
    }
}

/// Opens the directory at `path` by one openat2(2), if no component of the path is a symlink. Returns `None` if one is, if
/// the kernel lacks the call, or if the directory cannot be opened.
pub(super) fn open_without_symlinks(path: &Path) -> Option<OwnedFd> {
    let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(rustix::fs::CWD, path, DIRECTORY, Mode::empty(), how).ok()
}

/// Memory for the directory entries of one getdents64(2). It is reused for the next directory.
#[derive(Debug)]
pub struct Buffer(Vec<MaybeUninit<u8>>);

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer(vec![MaybeUninit::uninit(); 64 * 1024])
    }
}

/// Calls `each` with the names in `dir` until `each` returns `false`. It calls getdents64(2) directly, because the C
/// library's functions take ownership of the descriptor, so that the directory would have to be opened a second time.
pub(super) fn read(
    dir: BorrowedFd<'_>,
    buffer: &mut Buffer,
    each: &mut dyn FnMut(&[u8], Option<Kind>) -> bool,
) -> io::Result<()> {
    let mut entries = RawDir::new(dir, &mut buffer.0);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !each(entry.file_name().to_bytes(), entry_kind(entry.file_type())) {
            break;
        }
    }
    Ok(())
}

/// Returns the properties of the file system of `dir`, by the magic numbers of statfs(2) and linux/magic.h.
///
/// [`LeaseCoverage::OpensAndMaps`] is for file systems on which it was measured that the kernel refuses a lease while
/// any process has the file open or mapped. A file system that is not in the list is named by its number. On such a one
/// a granted lease proves nothing: before Linux 7.0 a file system that does not implement leases grants them, even if
/// it does not see its other clients.
pub(super) fn file_system(dir: BorrowedFd<'_>) -> io::Result<FileSystemInfo> {
    let magic = rustix::fs::fstatfs(dir)?.f_type as u32;
    let (name, lease_coverage, dates) = match magic {
        0x0000_EF53 => ("ext4", LeaseCoverage::OpensAndMaps, Dates::FineIfBorn), // ext2 and ext3 as well
        0x5846_5342 => ("xfs", LeaseCoverage::OpensAndMaps, Dates::Fine),
        0x9123_683E => ("btrfs", LeaseCoverage::OpensAndMaps, Dates::Fine),
        0xF2F5_2010 => ("f2fs", LeaseCoverage::OpensAndMaps, Dates::Fine),
        0x0102_1994 => ("tmpfs", LeaseCoverage::OpensAndMaps, Dates::Fine),
        0x794C_7630 => ("overlayfs", LeaseCoverage::OpensOnly, Dates::FineIfBorn),
        0x0000_6969 => ("nfs", LeaseCoverage::Unknown, Dates::Unknown),
        0xFF53_4D42 | 0xFE53_4D42 => ("cifs", LeaseCoverage::Unknown, Dates::Unknown),
        0x0102_1997 => ("9p", LeaseCoverage::Unknown, Dates::Unknown),
        0x6573_5546 => ("fuse", LeaseCoverage::Unknown, Dates::Unknown),
        0x2FC1_2FC1 => ("zfs", LeaseCoverage::Unknown, Dates::Fine),
        0x00C3_6400 => ("ceph", LeaseCoverage::Unknown, Dates::Unknown),
        0xCA45_1A4E => ("bcachefs", LeaseCoverage::Unknown, Dates::Fine),
        0x8584_58F6 => ("ramfs", LeaseCoverage::Unknown, Dates::Fine),
        _ => (
            &*format!("{magic:#x}"),
            LeaseCoverage::Unknown,
            Dates::Unknown,
        ),
    };
    Ok(FileSystemInfo {
        name: name.to_owned(),
        lease_coverage,
        dates,
    })
}

/// Reports whether a read of the file at `path` changes its access time, as far as its mount shows (statvfs(3)).
#[must_use]
pub fn has_access_times(path: &Path) -> bool {
    let flags = rustix::fs::statvfs(path).map(|system| system.f_flag);
    flags.is_ok_and(|flags| !flags.contains(rustix::fs::StatVfsMountFlags::NOATIME))
}
