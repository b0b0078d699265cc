//! The system calls that move, copy and remove files on macOS: renameatx_np(2), unlinkat(2), mkdirat(2), and fcopyfile(3)
//! for the attributes of a copy. No other module makes these calls (except that `evidence/macos.rs` tries unlinkat on a file
//! that it has created itself). This code is type-checked only; see docs/platforms.md.
//!
//! Not used on purpose: system call 226, `delete`, with which the Carbon library removed files that are not busy. It
//! would be a kernel proof on systems before macOS 26. But no header declares it, it has no stub, it takes a path
//! instead of a directory handle, and it has never been run in a test of orphand.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

use crate::evidence::CheckedFile;

/// Renames the file `name` in `from` to `new` in `to`. Fails if that name exists.
///
/// This condition is a capability of the volume (`VOL_CAP_INT_RENAME_EXCL`). If the volume lacks it, the call fails
/// with [`io::ErrorKind::Unsupported`] and moves nothing. An earlier check of the name would not be a substitute.
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

/// Removes the name of a file that `checked` has proven unused, as far as it can. A file in use is kept, and the call
/// fails with [`io::ErrorKind::ResourceBusy`].
///
/// If the kernel can check this, the call asks it to. Otherwise the result of a process scan that began after the claim
/// has to suffice.
///
/// RACE: without the kernel's check, a process that the scan has already examined may open the file by the name of the
/// claim, or return from an `open` that began before the claim. Worst case: the process goes on with a file that has no
/// name. With the kernel's check, the same holds for the moment between the check and the removal, within one system
/// call; whether APFS closes this gap is not public.
pub(super) fn unlink_proven(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    checked: &CheckedFile,
) -> io::Result<()> {
    match checked.removal_flags() {
        Some(flags) => Ok(rustix::fs::unlinkat(dir, name, flags)?),
        None if checked.is_still_unused() => Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?),
        None => Err(Errno::BUSY.into()),
    }
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

/// Fails: APFS shares blocks only with a file that it creates itself, under its final name.
pub(super) fn share_blocks(_: &File, _: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Gives `copy` the extended attributes and the access control list of `from`, by fcopyfile(3).
///
/// # Errors
///
/// The file system of the copy does not accept them.
pub(super) fn copy_attributes(from: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::COPYFILE_ACL | libc::COPYFILE_XATTR;
    // SAFETY: both descriptors are open, and a null state is allowed.
    let copied = unsafe {
        libc::fcopyfile(
            from.as_raw_fd(),
            copy.as_raw_fd(),
            std::ptr::null_mut(),
            flags,
        )
    };
    match copied {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
