//! Decides whether a temp's target counts, so that the temp is not the only copy of its data.
//!
//! A target with less data than the temp does not count, unless it is older than the temp. A program that lost its file
//! starts with an empty state and writes that; a truncated copy of the temp is short as well. A target with less than a
//! sixteenth of the data of a temp of at least 4 KiB never counts.

use std::time::Duration;

use super::observation::Kind;
use super::time::Wall;

/// The smallest size of a temp, in bytes of data, from which its target can be far smaller.
const LARGE: u64 = 4096;

/// A target with less than one part in this many of the temp's data is far smaller.
const FAR_SMALLER_RATIO: u64 = 16;

/// The state of the temp's target, the file that the temp was to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// The temp's name does not identify the target.
    Unknown,
    /// No file with that name exists.
    Absent,
    /// A regular file without data: it is empty, or consists only of holes or preallocated space.
    Empty,
    /// A regular file that cannot be opened, or whose data is not on this disk.
    Unreadable,
    /// A directory, a FIFO, a socket or a device.
    NotRegular(Kind),
    /// A symlink that is not accepted as a target.
    Link(LinkFault),
    /// The temp itself, mounted at the name of the target.
    Itself,
    /// A regular file with several names, in a directory in which other users can create names. One of them may have
    /// given it this name.
    Linked,
    /// A regular file that belongs neither to the temp's owner nor to root. In a sticky directory any user can create
    /// such a file beside the temp of another user, so it need not come from the temp's writer.
    Foreign,
    /// A regular file with less than a sixteenth of the temp's data.
    FarSmaller,
    /// A regular file that has less data than the temp and is not known to be older than the temp's last write. It may
    /// be a new file of a program that lost the old one, or a truncated copy of the temp.
    Short,
    /// A regular file that counts: as long as it exists, the temp is not the only copy.
    Whole {
        /// The target is another hard link to the temp itself.
        same_file: bool,
    },
}

impl Target {
    /// Reports whether the target counts, so that the temp is not the only copy.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Target::Whole { .. })
    }

    /// Returns the reason for which the target does not count, as a predicate such as `is missing`. Returns `None` if
    /// it counts or is unknown.
    #[must_use]
    pub fn fault(self) -> Option<&'static str> {
        Some(match self {
            Target::Unknown | Target::Whole { .. } => return None,
            Target::Absent => "is missing",
            Target::Empty => "has no content",
            Target::Unreadable => "cannot be read",
            Target::NotRegular(Kind::Dir) => "is a directory",
            Target::NotRegular(_) => "is a FIFO, a socket or a device",
            Target::Link(LinkFault::Dangling) => "is a symlink that leads to nothing",
            Target::Link(LinkFault::Foreign) => "leads through a symlink of another user",
            Target::Link(LinkFault::Writable) => {
                "is a symlink through a directory that other users can write"
            }
            Target::Link(LinkFault::OtherMount) => "is a symlink to another mount",
            Target::Link(LinkFault::Temp) => "is a symlink to another temp",
            Target::Foreign => "belongs to another user",
            Target::Itself => "is the temp itself, mounted there",
            Target::Linked => {
                "has other hard links, and other users can create names in this directory"
            }
            Target::FarSmaller => "has less than a sixteenth of the temp's data",
            Target::Short => "has less data, and is not older",
        })
    }
}

/// The reason why a symlink does not count as a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkFault {
    /// It points to a missing file, or is part of a loop.
    Dangling,
    /// It, or another symlink on its path, belongs neither to the temp's owner nor to root.
    Foreign,
    /// A directory on its path can be written by other users, or cannot be searched.
    Writable,
    /// Its path crosses a mount.
    OtherMount,
    /// It points to a file that is a temp by the rule, or into the quarantine.
    Temp,
}

/// A regular file with the name of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetFile {
    /// Uid of the owner.
    pub uid: u32,
    /// Data in bytes. May be a lower bound if that suffices for the decision.
    pub data: u64,
    /// Last change of content, name or metadata: the newer of mtime and ctime. `None` if this does not show since when
    /// the file has been the target, because it is reached through a symlink or is a mount point.
    pub changed: Option<Wall>,
}

/// The temp that the target is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TempFile {
    /// Uid of the owner.
    pub uid: u32,
    /// Data in bytes. May be an upper bound if that suffices for the decision.
    pub data: u64,
    /// Last write of its content. `None` if its dates do not show it: an mtime later than ctime was set explicitly.
    pub written: Option<Wall>,
}

impl TempFile {
    /// Returns when a file with these dates was last written, if the dates show it.
    ///
    /// A rename sets ctime, also a rename by orphand. So only mtime counts, and only if it is not later than ctime.
    #[must_use]
    pub fn written(mtime: Wall, ctime: Wall) -> Option<Wall> {
        rule!("mtime-after-ctime-tells-nothing", mtime <= ctime, without: true).then_some(mtime)
    }
}

/// Returns whether `target` counts for `temp`. `step` is the smallest difference between two different dates.
#[must_use]
pub fn assess(target: &TargetFile, temp: &TempFile, now: Wall, step: Duration) -> Target {
    if target.uid != temp.uid && target.uid != 0 {
        return Target::Foreign;
    }
    if rule!("empty-target-does-not-count", target.data == 0) {
        return Target::Empty;
    }
    let is_far_smaller =
        temp.data >= LARGE && target.data.saturating_mul(FAR_SMALLER_RATIO) < temp.data;
    if rule!("far-smaller-target-never-counts", is_far_smaller) {
        return Target::FarSmaller;
    }
    let is_older = match (temp.written, target.changed) {
        (Some(written), Some(changed)) => {
            let is_later = written.since(changed) >= step;
            rule!("future-temp-is-not-later", written <= now, without: true)
                && rule!("equal-date-is-not-older", is_later, without: written >= changed)
        }
        _ => rule!("unknown-age-is-not-older", false, without: true),
    };
    let is_short = target.data < temp.data && !is_older;
    match rule!("short-target-does-not-count", is_short) {
        true => Target::Short,
        false => Target::Whole { same_file: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Wall {
        Wall {
            sec: ms.div_euclid(1_000),
            nsec: u32::try_from(ms.rem_euclid(1_000)).unwrap() * 1_000_000,
        }
    }

    const WHOLE: Target = Target::Whole { same_file: false };

    /// Each row: data of the target and of the temp, change of the target and write of the temp in ms, result.
    #[test]
    fn which_targets_count() {
        let (now, step) = (at(10_000), Duration::from_millis(10));
        #[rustfmt::skip]
        let rows = [
            // At least as much data: the dates do not matter.
            (7, 7, 2_000, Some(1_000), WHOLE),
            (8, 7, 2_000, None, WHOLE),
            // No data.
            (0, 7, 1_000, Some(2_000), Target::Empty),
            (0, 0, 1_000, Some(2_000), Target::Empty),
            // Less data: counts only if it is older.
            (6, 7, 1_000, Some(2_000), WHOLE),
            (6, 7, 2_000, Some(1_000), Target::Short),
            (6, 7, 1_000, Some(1_010), WHOLE),
            (6, 7, 1_000, Some(1_009), Target::Short),
            (6, 7, 1_000, Some(1_000), Target::Short),
            (6, 7, 1_000, None, Target::Short),
            // A temp with a date in the future is never the later one.
            (6, 7, 1_000, Some(10_000), WHOLE),
            (6, 7, 1_000, Some(10_001), Target::Short),
            // Far smaller, from 4 KiB on: the dates do not matter.
            (255, 4_096, 1_000, Some(2_000), Target::FarSmaller),
            (256, 4_096, 1_000, Some(2_000), WHOLE),
            (1, 4_095, 1_000, Some(2_000), WHOLE),
            (2, 20_000, 3_000, Some(2_000), Target::FarSmaller),
            (u64::MAX, u64::MAX, 1_000, Some(2_000), WHOLE),
        ];
        for (target, temp, changed, written, want) in rows {
            let row = (target, temp, changed, written);
            let target = TargetFile {
                uid: 1000,
                data: target,
                changed: Some(at(changed)),
            };
            let temp = TempFile {
                uid: 1000,
                data: temp,
                written: written.map(at),
            };
            assert_eq!(assess(&target, &temp, now, step), want, "{row:?}");
        }
    }

    /// A symlink or a mount may have been pointed to an old file after the temp was written.
    #[test]
    fn a_target_of_unknown_age_is_not_older() {
        for (data, want) in [(6, Target::Short), (7, WHOLE)] {
            let target = TargetFile {
                uid: 1000,
                data,
                changed: None,
            };
            let temp = TempFile {
                uid: 1000,
                data: 7,
                written: Some(at(2_000)),
            };
            let found = assess(&target, &temp, at(3_000), Duration::ZERO);
            assert_eq!(found, want, "{data}");
        }
    }

    #[test]
    fn a_target_of_another_user_does_not_count() {
        for (target, temp, want) in [
            (1000, 1000, WHOLE),
            (0, 1000, WHOLE),
            (0, 0, WHOLE),
            (1001, 1000, Target::Foreign),
            (1000, 0, Target::Foreign),
        ] {
            let (data, changed) = (7, Some(at(1_000)));
            let file = TargetFile {
                uid: target,
                data,
                changed,
            };
            let other = TempFile {
                uid: temp,
                data,
                written: None,
            };
            let found = assess(&file, &other, at(2_000), Duration::ZERO);
            assert_eq!(found, want, "{target} {temp}");
        }
    }

    /// A rename sets ctime. It must not make the temp appear newer.
    #[test]
    fn a_rename_is_not_a_write() {
        for (mtime, ctime, want) in [
            (1_000, 1_000, Some(1_000)),
            (1_000, 5_000, Some(1_000)),
            (5_000, 1_000, None),
        ] {
            let found = TempFile::written(at(mtime), at(ctime));
            assert_eq!(found, want.map(at), "{mtime} {ctime}");
        }
    }
}
