//! The system calls that move and remove files on Linux: renameat2(2), unlinkat(2), mkdirat(2), and the ioctl
//! FICLONE. No other module makes these calls.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, RenameFlags};

use crate::evidence::CheckedFile;

/// Renames the file `name` in `from` to `new` in `to`. Fails if that name exists.
pub(super) fn rename(
    from: BorrowedFd<'_>,
    name: &OsStr,
    to: BorrowedFd<'_>,
    new: &OsStr,
) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        from,
        name,
        to,
        new,
        rule!("rename-overwrites-nothing", RenameFlags::NOREPLACE, without: RenameFlags::empty()),
    )?)
}

/// Removes the name of a file that `checked` has proven unused. The lease is the proof; the call itself checks nothing
/// more.
pub(super) fn unlink_proven(dir: BorrowedFd<'_>, name: &OsStr, _: &CheckedFile) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes the name of a file, in use or not: at the request of the policy or the user, or to remove an incomplete
/// copy.
pub(super) fn unlink(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Creates a directory that only its owner may enter.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::RWXU)?)
}

/// Removes an empty directory of the quarantine.
pub(super) fn remove_empty_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Gives the empty file `copy` the content of `from`, on the same blocks. Few file systems can do that.
pub(super) fn share_blocks(from: &File, copy: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(copy, from)?)
}
