//! The processes that use files.

use std::collections::{HashMap, HashSet};

use crate::core::observation::{Fingerprint, Holder};

/// The identity of a file in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl From<&Fingerprint> for FileId {
    fn from(seen: &Fingerprint) -> FileId {
        FileId {
            dev: seen.dev,
            ino: seen.ino,
        }
    }
}

/// The result of a scan of all processes.
#[derive(Clone, Debug, Default)]
pub struct ProcessScan {
    /// The processes that use the requested files.
    pub holders: HashMap<FileId, Vec<Holder>>,
    /// The requested files that another process may use: it uses a file with the same inode number, on a device that
    /// may be the same one under another number.
    pub uncertain: HashSet<FileId>,
    /// The descriptors and mappings of every process on this machine were examined, and no process could be hidden.
    /// Only then does an absence from this result prove anything.
    pub complete: bool,
}

impl ProcessScan {
    /// Returns the processes that use `file`.
    #[must_use]
    pub fn holders_of(&self, file: FileId) -> Vec<Holder> {
        self.holders.get(&file).cloned().unwrap_or_default()
    }

    /// Reports whether the scan proves that no process has `file` mapped.
    #[must_use]
    pub fn proves_unmapped(&self, file: FileId) -> bool {
        let is_held = self.holders.contains_key(&file) || self.uncertain.contains(&file);
        self.complete && !is_held
    }
}
