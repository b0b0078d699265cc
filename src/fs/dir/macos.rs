//! Observes files on macOS by fstatat(2), openat(2) and fstatfs(2). This code is type-checked but was never run; see
//! docs/platforms.md.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir as Entries, OFlags, Stat};
use rustix::io::Errno;

pub(super) use super::common::open_step_by_step as open_beneath;
use super::common::{BLOCK, DIRECTORY, FileSystemInfo, PathPart, entry_kind, kind};
use crate::core::judge::{Dates, LeaseCoverage};
use crate::core::observation::{Fingerprint, Kind, Observation};
use crate::core::time::Wall;

/// macOS has no `/proc`.
pub const PROC: Option<&str> = None;

/// Flags in `st_flags` (sys/stat.h) by which the owner, root or the system protects a file.
const PROTECTED: u32 = 0x0000_0002 // UF_IMMUTABLE
    | 0x0000_0004 // UF_APPEND
    | 0x0000_0080 // UF_DATAVAULT
    | 0x0002_0000 // SF_IMMUTABLE
    | 0x0004_0000 // SF_APPEND
    | 0x0008_0000 // SF_RESTRICTED
    | 0x0010_0000; // SF_NOUNLINK
/// Flag of a file whose data is not on this disk.
const SF_DATALESS: u32 = 0x4000_0000;

pub(super) fn observe_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Observation, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|seen| observation(&seen))
}

/// Opens nothing: not every supported version of macOS can refuse all symlinks of a path in one call.
pub(super) fn open_without_symlinks(_path: &Path) -> Option<OwnedFd> {
    None
}

/// Returns the component `name` of the directory `at`. A symlink cannot be opened itself here.
///
/// `RACE:` a symlink may be replaced and put back between the calls. Worst case: if that happens within one tick of the
/// file system's clock, the target of a foreign symlink is used as the target of one of ours.
pub(super) fn path_part(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathPart> {
    let seen = observe_at(at, name)?;
    if seen.fingerprint.kind != Kind::Symlink {
        return Ok(PathPart::Plain);
    }
    let to = rustix::fs::readlinkat(at, name, Vec::new())?;
    if observe_at(at, name)? != seen {
        return Err(Errno::LOOP.into());
    }
    Ok(PathPart::Link {
        owner: seen.fingerprint.uid,
        to: Some(OsString::from_vec(to.into_bytes())),
    })
}

pub(super) fn observe_fd(fd: BorrowedFd<'_>) -> Result<Observation, Errno> {
    rustix::fs::fstat(fd).map(|seen| observation(&seen))
}

fn observation(seen: &Stat) -> Observation {
    let time = |sec: i64, nsec: i64| Wall {
        sec,
        nsec: u32::try_from(nsec).unwrap_or(0),
    };
    let flags = seen.st_flags;
    let mode = u32::from(seen.st_mode);
    Observation {
        fingerprint: Fingerprint {
            // Not sign-extended, because the process tables report it as `u32`.
            dev: u64::from(seen.st_dev.cast_unsigned()),
            ino: seen.st_ino,
            kind: kind(mode),
            size: u64::try_from(seen.st_size).unwrap_or(0),
            mtime: time(seen.st_mtime, seen.st_mtime_nsec),
            ctime: time(seen.st_ctime, seen.st_ctime_nsec),
            // HFS+ and APFS move the birth time back when mtime is set to an earlier time, so it is no identity.
            btime: None,
            links: u64::from(seen.st_nlink),
            uid: seen.st_uid,
        },
        mode,
        // macOS does not number mounts. Each mount has its own device number.
        mount: None,
        mount_root: false,
        protected: flags & PROTECTED != 0,
        dataless: flags & SF_DATALESS != 0,
        allocated: u64::try_from(seen.st_blocks)
            .unwrap_or(0)
            .saturating_mul(BLOCK),
    }
}

/// `UF_COMPRESSED` of sys/stat.h: the data is compressed, in an extended attribute or the resource fork.
const UF_COMPRESSED: u32 = 0x0000_0020;

/// Reports whether the number of blocks says nothing about the data of a file.
pub(super) fn is_compressed(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstat(file)?.st_flags & UF_COMPRESSED != 0)
}

/// Flags for an ancestor of a root. They do not need the right to read the directory. `O_SEARCH` of fcntl.h is
/// `O_EXEC | O_DIRECTORY`.
pub(super) const TRAVERSED: OFlags = DIRECTORY.union(OFlags::from_bits_retain(0x4000_0000));

/// Returns the properties of the file system of `dir`, by `f_fstypename`. The disks of every Mac have APFS or HFS+.
pub(super) fn file_system(dir: BorrowedFd<'_>) -> io::Result<FileSystemInfo> {
    let seen = rustix::fs::fstatfs(dir)?;
    let bytes: Vec<u8> = seen
        .f_fstypename
        .iter()
        .take_while(|&&c| c != 0)
        .map(|&c| c as u8)
        .collect();
    let name = String::from_utf8_lossy(&bytes).into_owned();
    let (lease_coverage, dates) = match name.as_str() {
        "apfs" => (LeaseCoverage::OpensAndMaps, Dates::Fine),
        "hfs" => (LeaseCoverage::OpensAndMaps, Dates::WholeSeconds),
        _ => (LeaseCoverage::Unknown, Dates::Unknown),
    };
    Ok(FileSystemInfo {
        name,
        lease_coverage,
        dates,
    })
}

/// Empty: the C library has its own buffer.
#[derive(Debug, Default)]
pub struct Buffer(());

/// Calls `each` with the names in `dir` until `each` returns `false`.
pub(super) fn read(
    dir: BorrowedFd<'_>,
    _: &mut Buffer,
    each: &mut dyn FnMut(&[u8], Option<Kind>) -> bool,
) -> io::Result<()> {
    for entry in Entries::read_from(dir)? {
        let entry = entry?;
        if !each(entry.file_name().to_bytes(), entry_kind(entry.file_type())) {
            break;
        }
    }
    Ok(())
}

/// Reports whether a read of the file at `path` changes its access time. Returns false: no documentation says when APFS
/// does that.
#[must_use]
pub fn has_access_times(_: &Path) -> bool {
    false
}
