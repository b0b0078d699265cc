//! The calls that move and remove files, on any other Unix: they are not made. Nothing is proven
//! there, so nothing is taken; and not all of these systems have a rename that overwrites nothing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use crate::evidence::Proof;

fn not_here() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

/// Refuses.
pub(super) fn rename(_: BorrowedFd<'_>, _: &OsStr, _: BorrowedFd<'_>, _: &OsStr) -> io::Result<()> {
    Err(not_here())
}

/// Refuses: there is no proof.
pub(super) fn unlink_proven(_: BorrowedFd<'_>, _: &OsStr, _: &Proof) -> io::Result<()> {
    Err(not_here())
}

/// Refuses: without a claim the user's wish could hit another file than the one that was judged.
pub(super) fn unlink(_: BorrowedFd<'_>, _: &OsStr) -> io::Result<()> {
    Err(not_here())
}

/// Refuses: without a rename nothing can be moved into a quarantine.
pub(super) fn make_dir(_: BorrowedFd<'_>, _: &OsStr) -> io::Result<()> {
    Err(not_here())
}

/// Refuses: there is no quarantine.
pub(super) fn remove_empty_dir(_: BorrowedFd<'_>, _: &OsStr) -> io::Result<()> {
    Err(not_here())
}
