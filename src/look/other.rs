//! Looking on any other Unix. No proof is known there, so every file system has the reach
//! `Unknown` and every temp is kept.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir as Entries, OFlags, Stat};
use rustix::io::Errno;

use super::{BLOCK, DIRECTORY, entry_kind, kind};
pub(super) use super::{open_step_by_step as open_beneath, stands_by_name as stands};
use crate::decide::judge::Reach;
use crate::decide::observation::{Fingerprint, Kind, Observation};
use crate::decide::time::Wall;

/// Not relied on.
pub const PROC: Option<&str> = None;

pub(super) fn observe_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Observation, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|seen| observation(&seen))
}

pub(super) fn observe_fd(fd: BorrowedFd<'_>) -> Result<Observation, Errno> {
    rustix::fs::fstat(fd).map(|seen| observation(&seen))
}

#[allow(clippy::unnecessary_cast)] // the widths differ from system to system
fn observation(seen: &Stat) -> Observation {
    let time = |sec: i64, nsec: i64| Wall {
        sec,
        nsec: u32::try_from(nsec).unwrap_or(0),
    };
    let mode = seen.st_mode as u32;
    Observation {
        fingerprint: Fingerprint {
            dev: seen.st_dev as u64,
            ino: seen.st_ino as u64,
            kind: kind(mode),
            size: u64::try_from(seen.st_size).unwrap_or(0),
            mtime: time(seen.st_mtime as i64, seen.st_mtime_nsec as i64),
            ctime: time(seen.st_ctime as i64, seen.st_ctime_nsec as i64),
            btime: None,
            links: seen.st_nlink as u64,
            uid: seen.st_uid,
        },
        mode,
        mount: None,
        mount_root: false,
        protected: false,
        dataless: false,
        allocated: u64::try_from(seen.st_blocks)
            .unwrap_or(0)
            .saturating_mul(BLOCK),
    }
}

/// Flags for a directory on the way to a root.
pub(super) const ON_THE_WAY: OFlags = DIRECTORY;

pub(super) fn file_system(_: BorrowedFd<'_>) -> io::Result<(String, Reach)> {
    Ok((std::env::consts::OS.to_owned(), Reach::Unknown))
}

/// Nothing that is used again: the C library has a buffer of its own.
#[derive(Debug, Default)]
pub struct Buffer(());

/// Calls `each` with the names in `dir` as long as it says so.
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
