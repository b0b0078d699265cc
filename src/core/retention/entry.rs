//! The files in a quarantine.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::core::time::Wall;

/// One file in a quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id in the quarantine.
    pub id: OsString,
    /// Its path before the move, relative to the root.
    pub below: PathBuf,
    /// Its length (`st_size`), in bytes.
    pub bytes: u64,
    /// Its space on the disk, in bytes. This is less than the length if the length was set before the data was written.
    pub allocated: u64,
    /// The latest possible time of its move to the quarantine. `None` if that is unknown, which counts as just now.
    pub moved: Option<Wall>,
    /// No clock was set since its move, so its age is known.
    pub is_steady: bool,
    /// Its birth time, if the file system keeps one.
    pub born: Option<Wall>,
    /// The time of its last write (`mtime`).
    pub written: Wall,
    /// Its target, as a path relative to the root. If the target is unknown, the shape of its name in its directory.
    pub copy_of: PathBuf,
    /// The shape of its name in its directory, if the shape is a known one.
    pub shape: Option<PathBuf>,
    /// Its target, as a path relative to the root, if its name belongs to a [group](crate::core::group).
    pub group: Option<PathBuf>,
    /// Its data, in bytes, if it belongs to a group. May be a lower bound.
    pub data: u64,
    /// It can replace other copies of its group, if no process uses it. The caller proves that before a copy is
    /// dropped.
    pub is_reliable: bool,
    /// The directory that it was moved from. `None` if that was not recorded.
    pub origin: Option<Vec<u8>>,
    /// The uid of its owner. A file of another owner in the same directory does not count as a copy of it.
    pub uid: u32,
    /// The present state of its target.
    pub target: TargetState,
}

/// The state of the target of a stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// The target is a file that counts and has not changed since before the move. So the stored file is not the only
    /// copy.
    Counts,
    /// The target is missing or unknown.
    Nothing,
    /// The target does not count, or it was created or changed after the move.
    Other,
}

/// Returns the space of all `entries` on the disk, in bytes.
pub(super) fn allocated<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    let entries = entries.into_iter();
    entries.fold(0, |sum: u64, entry| sum.saturating_add(entry.allocated))
}
