//! The files that the limits of a quarantine drop.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::age::{AgeLimit, ClockTrust};
use super::copies::{SupersededBy, superseded};
use super::entry::{Entry, TargetState, allocated};
use super::groups::Groups;
use super::limits::{Limits, Space};
use super::shapes::Shapes;
use crate::core::sort::sort_by;
use crate::core::time::Wall;

/// The shortest time since its move after which a file may be dropped to free space.
const MIN_AGE_FOR_SPACE: Duration = Duration::from_secs(60 * 60);

/// The result of applying the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// The files to drop, each with the reason. The copies in the reason must still exist when the file is dropped.
    pub drops: Vec<(Entry, SupersededBy)>,
    /// The time until the next file is too old.
    pub next: Option<Duration>,
}

/// Returns the files to drop. These are the copies of groups that better copies supersede, the files that are too old,
/// and, for lack of space, copies of known shapes. The latter are dropped from the shape and directory with the most
/// bytes first, the oldest copy first.
///
/// Some files are never dropped:
///
/// - The newest copy for a target that is missing or does not count, and any copy that may be the newest. With birth
///   times, one copy is newer than another by its birth time, then by its last write, then by its name. Without them,
///   it is newer only if it was both written and moved later, because several files can be moved within one tick of the
///   clock, and an `mtime` can be set to any date.
/// - A copy that is larger than all newer ones. A killed writer leaves what it had written so far, so only the copy
///   before that may be complete.
/// - For lack of space, the newest [`KEPT_PER_SHAPE`](super::KEPT_PER_SHAPE) copies of a shape, and each copy for which
///   fewer than that many newer copies exist that are no smaller. Of a group, its [most
///   valuable](crate::core::group::KEPT_PER_GROUP) copies.
#[must_use]
pub fn plan(
    entries: &[Entry],
    limits: Limits,
    space: Space,
    now: Wall,
    trust: ClockTrust,
) -> RetentionPlan {
    let limit = AgeLimit {
        longest: limits.age,
        now,
        trust,
    };
    let groups = Groups::of(entries);
    let mut drops = groups.superseded;
    let is_superseded: HashSet<&OsString> = drops.iter().map(|(entry, _)| &entry.id).collect();
    let old = too_old(entries, limit).into_iter();
    drops.extend(old.filter(|(entry, _)| !is_superseded.contains(&entry.id)));
    let dropped: HashSet<&OsString> = drops.iter().map(|(entry, _)| &entry.id).collect();
    let is_kept = |entry: &&Entry| !dropped.contains(&entry.id);
    let remaining: Vec<&Entry> = entries.iter().filter(is_kept).collect();
    let freed_by_age = allocated(drops.iter().map(|(entry, _)| *entry));
    let mut shapes = Shapes::of(&remaining, &groups.needed);

    let used = allocated(remaining.iter().copied());
    let over = bytes_over(limits, space, used, shapes.droppable());
    let freed = shapes.drop_for_space(over, 0, |_| true, &mut drops);
    let freed = freed.saturating_add(freed_by_age);

    let bytes = limits.missing_free(space.size, space.free.saturating_add(freed));
    let files = drops.len() as u64;
    let inodes = limits.missing_free(space.inodes, space.inodes_free.saturating_add(files));
    let may_drop = |entry: &Entry| {
        let is_old = limit.is_older(entry, MIN_AGE_FOR_SPACE);
        rule!("recent-copies-are-not-dropped", is_old, without: true)
    };
    shapes.drop_for_space(bytes, inodes, may_drop, &mut drops);

    let times = remaining.into_iter();
    RetentionPlan {
        next: times
            .filter_map(|entry| limit.time_until_exceeded(entry))
            .min(),
        drops: drops
            .into_iter()
            .map(|(entry, reason)| (entry.clone(), reason))
            .collect(),
    }
}

/// Returns the files that are too old and are not needed as copies, the oldest first.
fn too_old(entries: &[Entry], limit: AgeLimit) -> Vec<(&Entry, SupersededBy)> {
    let mut drops = Vec::new();
    let uid = |entry: &Entry| rule!("others-files-are-no-copies", entry.uid, without: 0);
    let mut copies: HashMap<(&PathBuf, u32), Vec<&Entry>> = HashMap::new();
    for entry in entries {
        match entry.target {
            TargetState::Counts if limit.is_exceeded(entry) => {
                drops.push((entry, SupersededBy::Target));
            }
            TargetState::Counts => {}
            _ => copies
                .entry((&entry.copy_of, uid(entry)))
                .or_default()
                .push(entry),
        }
    }
    let superseded = copies
        .into_values()
        .flat_map(|copies| superseded(copies, 1));
    drops.extend(superseded.filter(|(entry, _)| limit.is_exceeded(entry)));
    sort_by(&mut drops, |(a, _), (b, _)| {
        (a.moved, &a.id).cmp(&(b.moved, &b.id))
    });
    drops
}

/// Returns how many bytes the files take beyond the maximum, at most the bytes that may be dropped.
///
/// If not even the smallest new file would fit after all possible drops, no file is dropped for new ones.
fn bytes_over(limits: Limits, space: Space, used: u64, droppable: u64) -> u64 {
    let max_bytes = limits.max_bytes(space.size);
    let over = |needed: u64| used.saturating_add(needed).saturating_sub(max_bytes);
    match over(space.needed.smallest) <= droppable {
        true => over(space.needed.total).min(droppable),
        false => over(0),
    }
}
