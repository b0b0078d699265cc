//! The calls that move and remove files on Linux: renameat2(2), unlinkat(2), mkdirat(2). They
//! stand here and nowhere else.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, RenameFlags};

use crate::evidence::LeasedFile;

/// Gives the file `name` in `from` the name `new` in `to`, if nothing has that name yet.
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

/// Removes the name of a file that `leased` says nobody holds. The lease has that said; the call
/// itself asks nothing more.
pub(super) fn unlink_proven(dir: BorrowedFd<'_>, name: &OsStr, _: &LeasedFile) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes the name of a file by the user's explicit wish, held or not.
pub(super) fn unlink(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Makes a directory that only its owner may enter.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::RWXU)?)
}

/// Removes an empty directory of the quarantine's own.
pub(super) fn remove_empty_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}
