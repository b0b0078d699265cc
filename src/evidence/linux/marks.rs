//! Extended attributes: the marks of orphand, and those of users.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// The extended attribute that marks a restored file.
pub(in crate::evidence) const RESTORED: &str = "user.orphand.restored";

/// The extended attribute of a directory in a quarantine that names the original directory of its files.
pub const ORIGIN: &str = "user.orphand.origin";

/// The extended attribute of a directory in a quarantine that names the set for which it was created, by the digits of its
/// claims.
pub const SET: &str = "user.orphand.set";

/// Sets the extended attribute `name` of `file`.
pub fn set_mark(file: BorrowedFd<'_>, name: &str, mark: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::fsetxattr(file, name, mark, flags)?)
}

/// Returns the extended attribute `name` of `file`. Returns `None` if the file has none, or if the file system has no
/// extended attributes.
pub fn read_mark(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut found = [0; 128];
    match rustix::fs::fgetxattr(file, name, &mut found[..]) {
        Ok(length) => Ok(found.get(..length).map(<[u8]>::to_vec)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => rule!("unreadable-mark-keeps", Err(error.into()), without: Ok(None)),
    }
}

/// Returns `false`: the permissions of the group limit what an access control list grants, and a directory of mode 0700
/// has none (acl(5)).
pub(crate) fn may_let_others_in(_: BorrowedFd<'_>) -> bool {
    false
}

/// Reports whether `file` has extended attributes of users, other than those of orphand (xattr(7)).
pub(in crate::evidence) fn has_attributes(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut names = [0; 1024];
    match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => {
            let mut names = names[..length].split(|byte| *byte == 0);
            Ok(names.any(|name| name.starts_with(b"user.") && !name.starts_with(b"user.orphand.")))
        }
        // They are more than fit into the buffer.
        Err(Errno::RANGE) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
