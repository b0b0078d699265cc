//! Restores a file to another file system: copies it and compares the copy. The caller removes the original.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::core::observation::Observation;
use crate::core::time::Wall;
use crate::fs::dir;
use crate::reap::calls;

/// The number of bytes that are read at a time. Blocks of zeros are skipped, so that holes stay holes.
const CHUNK: usize = 1 << 16;

/// Copies `from` to `name` in `to`, without overwriting anything, and calls `mark` with the copy. If anything fails,
/// the copy is removed.
pub(super) fn across(
    from: File,
    seen: &Observation,
    to: BorrowedFd<'_>,
    name: &OsStr,
    mark: &dyn Fn(BorrowedFd<'_>, &Observation),
) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = File::from(rustix::fs::openat(
        to,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    let made = dir::observe_fd(copy.as_fd())?.fingerprint;
    let filled = fill(&from, &copy, seen).and_then(|()| {
        let now = dir::observe_fd(from.as_fd())?.fingerprint;
        let before = &seen.fingerprint;
        match (now.size, now.mtime) == (before.size, before.mtime) {
            true => dir::observe_fd(copy.as_fd()),
            false => Err(Errno::BUSY.into()),
        }
    });
    match filled {
        Ok(now) => {
            mark(copy.as_fd(), &now);
            Ok(())
        }
        Err(error) => {
            // RACE: the name may be given to another file at any time. Worst case: a file that got the name between
            // this check and the removal is lost.
            let now = dir::observe_at(to, name).map(|now| now.fingerprint);
            if now.is_ok_and(|now| (now.dev, now.ino) == (made.dev, made.ino)) {
                let _ = calls::unlink(to, name);
            }
            Err(error)
        }
    }
}

/// Copies the bytes, owner, mode and times, and then reads the bytes again to compare them.
fn fill(mut from: &File, mut copy: &File, seen: &Observation) -> io::Result<()> {
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
    copy.sync_all()?;
    compare(from, copy, length)?;
    let file = &seen.fingerprint;
    let group = Gid::from_raw(rustix::fs::fstat(from)?.st_gid);
    if file.uid != rustix::process::geteuid().as_raw() {
        rustix::fs::fchown(copy, Some(Uid::from_raw(file.uid)), Some(group))?;
    } else {
        // A user who is not in that group cannot give it to the copy.
        let _ = rustix::fs::fchown(copy, None, Some(group));
    }
    rustix::fs::fchmod(
        copy,
        Mode::from_raw_mode((seen.mode & 0o7777) as rustix::fs::RawMode),
    )?;
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
