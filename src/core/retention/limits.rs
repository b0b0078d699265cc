//! The limits of a quarantine, and the space on its file system.

use std::time::Duration;

/// The limits of a quarantine. Zero means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time for which a file is kept.
    pub age: Duration,
    /// The largest part of the file system that all files together may take, in percent.
    pub percent: u8,
    /// The part of the bytes and of the inodes of the file system that must be free, in percent.
    pub min_free: u8,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            age: Duration::from_secs(7 * 24 * 60 * 60),
            percent: 10,
            min_free: 5,
        }
    }
}

impl Limits {
    /// Returns how many bytes a quarantine may take on a file system of `size` bytes.
    #[must_use]
    pub fn max_bytes(&self, size: u64) -> u64 {
        match self.percent {
            0 => u64::MAX,
            // The file system does not report its size, so a part of it is unknown.
            _ if size == 0 => u64::MAX,
            percent => (size / 100).saturating_mul(u64::from(percent)),
        }
    }

    /// Returns how many of `all` bytes or inodes must be freed, if `free` are free. 0 if there is no such limit.
    #[must_use]
    pub fn missing_free(&self, all: u64, free: u64) -> u64 {
        let needed = (all / 100).saturating_mul(u64::from(self.min_free));
        needed.saturating_sub(free)
    }
}

/// The space on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size, in bytes. 0 if it does not report its size.
    pub size: u64,
    /// Its free space, in bytes.
    pub free: u64,
    /// The number of its inodes. 0 if the number has no limit.
    pub inodes: u64,
    /// The number of its free inodes.
    pub inodes_free: u64,
    /// The space for the files that are about to be moved into the quarantine.
    pub needed: NeededSpace,
}

/// The space for files that are about to be moved into a quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeededSpace {
    /// The size of all files together, in bytes.
    pub total: u64,
    /// The size of the smallest file, in bytes.
    pub smallest: u64,
}
