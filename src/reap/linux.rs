//! The system calls that move, copy and remove files on Linux: renameat2(2), unlinkat(2), mkdirat(2), the ioctl FICLONE,
//! and those for extended attributes of a copy. No other module moves or removes files.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

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

/// The extended attributes that a copy gets, except those of the program itself: those of users and of privileged programs,
/// the access control list, and the capabilities of a program. All others belong to the file system or to a security module,
/// which sets them itself (xattr(7)).
fn is_copied(name: &[u8]) -> bool {
    let is_of_user = name.starts_with(b"user.") && !name.starts_with(b"user.orphand.");
    // The attributes of overlayfs describe the file in its own place.
    let is_trusted = name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay.");
    is_of_user || is_trusted || name == ACL.as_bytes() || name == b"security.capability"
}

/// The access control list of a file (acl(5)).
const ACL: &str = "system.posix_acl_access";

/// Gives `copy` the extended attributes of `from`, with its access control list, and no other list: the directory of the
/// copy may have a default one (acl(5)).
///
/// # Errors
///
/// An attribute cannot be read, or the file system of the copy does not accept it.
pub(super) fn copy_attributes(from: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::fs::fremovexattr(copy, ACL) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        length => length?,
    };
    let names = names.get(..length).unwrap_or_default();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| is_copied(name))
    {
        let failed = |error: Errno| {
            let name = name.escape_ascii();
            io::Error::new(
                io::Error::from(error).kind(),
                format!("the copy cannot have the attribute \"{name}\" of the file: {error}"),
            )
        };
        // The largest value that the kernel allows.
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..]).map_err(failed)?;
        let value = value.get(..length).unwrap_or_default();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(copy, name, value, flags).map_err(failed)?;
    }
    Ok(())
}
