//! The calls that move and remove files on macOS: renameatx_np(2), unlinkat(2), mkdirat(2). They
//! stand here and nowhere else (`evidence/macos.rs` tries unlinkat on a file of its own making).
//! Type-checked only; see docs/platforms.md.
//!
//! Absent on purpose: system call 226, `delete`, with which the Carbon library removed files that
//! are not busy and which would be a kernel proof before macOS 26. No header declares it, it has
//! no stub, it takes a path instead of a directory handle, and nobody has run it here.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

use crate::evidence::LeasedFile;

/// Gives the file `name` in `from` the name `new` in `to`, if nothing has that name yet.
///
/// That condition is a property of the volume (`VOL_CAP_INT_RENAME_EXCL`). Where it is missing the
/// answer is [`io::ErrorKind::Unsupported`] and nothing was moved: a look beforehand would not do
/// instead.
pub(super) fn rename(
    from: BorrowedFd<'_>,
    name: &OsStr,
    to: BorrowedFd<'_>,
    new: &OsStr,
) -> io::Result<()> {
    match rustix::fs::renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        Err(error @ (Errno::NOTSUP | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
        answer => Ok(answer?),
    }
}

/// Removes the name of a file that nobody holds, as far as `leased` can say so. A file in use is
/// left alone and gives [`io::ErrorKind::ResourceBusy`].
///
/// Where the kernel can be asked, the call asks it. Elsewhere the answer of a walk over the
/// processes that began after the claim has to do.
///
/// RACE: without the kernel's refusal a process may open the claim by its own name, or come out of
/// an `open` that began before the claim, after the walk has passed it by. Worst case: it goes on
/// with a file that has no name. With it the same is true of the moment between the kernel's check
/// and the removal, within one system call; how APFS closes that is not public.
pub(super) fn unlink_proven(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    leased: &LeasedFile,
) -> io::Result<()> {
    match leased.removal_flags() {
        Some(flags) => Ok(rustix::fs::unlinkat(dir, name, flags)?),
        None if leased.is_still_unused() => Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?),
        None => Err(Errno::BUSY.into()),
    }
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
