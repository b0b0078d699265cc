//! Copies a file out of the quarantine and compares the copy. The original is kept, or removed by the caller.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::core::observation::Observation;
use crate::core::own_names::OWN_PREFIX;
use crate::core::time::Wall;
use crate::evidence::FileId;
use crate::fs::dir;
use crate::reap::calls;
use crate::sys::random::random_u64;

/// The number of bytes that are read at a time. Blocks of zeros are skipped, so that holes stay holes.
const CHUNK: usize = 1 << 16;

/// A complete copy that has not got its name yet. It has a name that no rule matches and that is not a claim, which a
/// crash leaves. When this value is dropped, the copy is removed.
#[derive(Debug)]
pub(super) struct StagedCopy<'d> {
    to: BorrowedFd<'d>,
    own_name: OsString,
    made: FileId,
    is_published: bool,
}

impl<'d> StagedCopy<'d> {
    /// Copies `from` to the directory `to`, compares the copy, and calls `mark` with it.
    pub(super) fn new(
        from: &File,
        seen: &Observation,
        to: BorrowedFd<'d>,
        mark: &dyn Fn(BorrowedFd<'_>, &Observation),
    ) -> io::Result<StagedCopy<'d>> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own_name = OsString::from(format!("{OWN_PREFIX}-restore-{:016x}", random_u64()));
        let mode = Mode::RUSR | Mode::WUSR;
        let copy = File::from(rustix::fs::openat(to, &own_name, flags, mode)?);
        let staged = StagedCopy {
            to,
            own_name,
            made: FileId::from(&dir::observe_fd(copy.as_fd())?.fingerprint),
            is_published: false,
        };
        fill(from, &copy, seen)?;
        let now = dir::observe_fd(from.as_fd())?.fingerprint;
        let before = &seen.fingerprint;
        if (now.size, now.mtime) != (before.size, before.mtime) {
            return Err(Errno::BUSY.into());
        }
        mark(copy.as_fd(), &dir::observe_fd(copy.as_fd())?);
        // The original may be removed next, so this comes after the last change of the copy.
        copy.sync_all()?;
        Ok(staged)
    }

    /// Gives the copy its name, without overwriting anything. Returns the identity of the copy.
    pub(super) fn publish(mut self, name: &OsStr) -> io::Result<FileId> {
        calls::rename(self.to, &self.own_name, self.to, name)?;
        self.is_published = true;
        Ok(self.made)
    }
}

impl Drop for StagedCopy<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            remove(self.to, &self.own_name, self.made);
        }
    }
}

/// Removes the copy `made`, if it still has this name.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &OsStr, made: FileId) {
    // RACE: the name may be given to another file at any time. Worst case: a file that got the name between this check
    // and the removal is lost.
    let now = dir::observe_at(dir, name);
    if now.is_ok_and(|now| FileId::from(&now.fingerprint) == made) {
        let _ = calls::unlink(dir, name);
    }
}

/// Copies the bytes, owner, mode, attributes and times, and reads the bytes again to compare them. If the file system can
/// share the blocks, no bytes are written.
fn fill(from: &File, copy: &File, seen: &Observation) -> io::Result<()> {
    let length = match calls::share_blocks(from, copy) {
        Ok(()) => copy.metadata()?.len(),
        Err(_) => copy_bytes(from, copy)?,
    };
    let file = &seen.fingerprint;
    if length != file.size {
        return Err(Errno::BUSY.into());
    }
    compare(from, copy, length)?;
    let gid = rustix::fs::fstat(from)?.st_gid;
    let group = Gid::from_raw(gid);
    if file.uid != rustix::process::geteuid().as_raw() {
        rustix::fs::fchown(copy, Some(Uid::from_raw(file.uid)), Some(group))?;
    } else {
        // A user who is not in that group cannot give it to the copy.
        let _ = rustix::fs::fchown(copy, None, Some(group));
    }
    // The copy may still be written to, and its group has no right that only the access control list takes away.
    calls::copy_attributes(from.as_fd(), copy.as_fd())?;
    // Another group than that of the original gets no rights.
    let is_of_group = rustix::fs::fstat(copy)?.st_gid == gid;
    let rights = match rule!("other-group-gets-no-rights", is_of_group, without: true) {
        true => 0o7777,
        false => 0o7777 & !0o2070,
    };
    let mode = (seen.mode & rights) as rustix::fs::RawMode;
    rustix::fs::fchmod(copy, Mode::from_raw_mode(mode))?;
    let time = |wall: Wall| Timespec {
        tv_sec: wall.sec,
        tv_nsec: wall.nsec.into(),
    };
    let times = Timestamps {
        last_access: time(file.mtime),
        last_modification: time(file.mtime),
    };
    Ok(rustix::fs::futimens(copy, &times)?)
}

/// Copies all bytes to an empty file, and returns their number.
fn copy_bytes(mut from: &File, mut copy: &File) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let read = match from.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        match bytes.iter().all(|byte| *byte == 0) {
            true => _ = copy.seek(SeekFrom::Current(read as i64))?,
            false => copy.write_all(bytes)?,
        }
        length += read as u64;
    }
    copy.set_len(length)?;
    Ok(length)
}

/// Returns an error if the files differ in their first `length` bytes.
fn compare(from: &File, copy: &File, length: u64) -> io::Result<()> {
    let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK);
        let (ours, theirs) = (ours.get_mut(..wanted), theirs.get_mut(..wanted));
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            break;
        };
        from.read_exact_at(ours, at)?;
        copy.read_exact_at(theirs, at)?;
        if rule!("copy-is-compared", ours != theirs) {
            return Err(io::Error::other("the copy differs from the original"));
        }
        at += wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_different_copy_is_detected() {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        };
        let long = vec![7; CHUNK + 5];
        let mut other = long.clone();
        other[CHUNK + 3] = 8;
        let compared = |ours: &[u8], theirs: &[u8]| {
            compare(&file(ours), &file(theirs), ours.len() as u64).is_ok()
        };
        assert!(compared(b"", b"") && compared(&long, &long));
        assert!(!compared(&long, &other) && !compared(&long, &long[1..]));
    }
}
