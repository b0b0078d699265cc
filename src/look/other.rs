//! Looking on any other Unix. No proof is known there, so every file system has the reach
//! `Unknown` and every temp is kept.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, Dir as Entries, OFlags, Stat};
use rustix::io::Errno;

pub(super) use super::open_step_by_step as open_beneath;
use super::{DIRECTORY, Stands, entry_kind, kind};
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
    }
}

/// Flags for a directory on the way to a root.
pub(super) const ON_THE_WAY: OFlags = DIRECTORY;

/// What stands at `name`, asked by name. `RACE:` a symlink may be swapped and swapped back between
/// the calls; worst case, within one tick of the file system's clock, what another one says is
/// taken for what one of ours says.
pub(super) fn stands(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stands> {
    let look =
        || rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map(|seen| observation(&seen));
    let seen = look()?;
    if seen.fingerprint.kind != Kind::Symlink {
        return Ok(Stands::Plain);
    }
    let says = rustix::fs::readlinkat(at, name, Vec::new())?;
    if look()? != seen {
        return Err(Errno::LOOP.into());
    }
    Ok(Stands::Link {
        owner: seen.fingerprint.uid,
        to: Some(OsString::from_vec(says.into_bytes())),
    })
}

pub(super) fn file_system(_: BorrowedFd<'_>) -> io::Result<(String, Reach)> {
    Ok((std::env::consts::OS.to_owned(), Reach::Unknown))
}

/// Nothing that is used again: the C library has a buffer of its own.
#[derive(Debug, Default)]
pub struct Buffer(());

/// Calls `each` with the names in `dir`.
pub(super) fn read(
    dir: BorrowedFd<'_>,
    _: &mut Buffer,
    each: &mut dyn FnMut(&[u8], Option<Kind>),
) -> io::Result<()> {
    for entry in Entries::read_from(dir)? {
        let entry = entry?;
        each(entry.file_name().to_bytes(), entry_kind(entry.file_type()));
    }
    Ok(())
}
