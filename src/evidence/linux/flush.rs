//! Writes a file system to the disk.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::kernel_version;

/// The first version of Linux in which syncfs(2) reports each error of its file system (fs/sync.c): it reports those of
/// data since 5.8, and those of the file system itself since 5.17.
const REPORTS_ERRORS: (u32, u32) = (5, 17);

/// The file systems on which syncfs(2), with the fsync(2) of one file after it, does for each file what fsync does.
const FLUSHED: [&str; 3] = ["btrfs", "ext4", "xfs"];

/// Writes all files to the disk that are on the file system of the directory `dir`, which has the type `file_system`.
/// Returns `false` if that does less than fsync(2) of each file, or fails.
pub(crate) fn flush_file_system(dir: BorrowedFd<'_>, file_system: &str) -> bool {
    let flush = || -> io::Result<()> {
        rustix::fs::syncfs(dir)?;
        // Without a journal, ext4 writes metadata after it has flushed the cache of the disk.
        Ok(rustix::fs::fsync(dir)?)
    };
    let is_possible = FLUSHED.contains(&file_system) && kernel_version::is_at_least(REPORTS_ERRORS);
    is_possible && rule!("failed-flush-of-all-does-not-count", flush().is_ok(), without: true)
}
