//! Copies that are dropped for lack of space, from the shape with the most bytes first.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;

use super::copies::{SupersededBy, superseded};
use super::entry::{Entry, TargetState, allocated};

/// The number of newest copies of one shape in one directory that are never dropped for lack of space. For each copy
/// that is dropped, this many copies exist that are newer and no smaller.
pub const KEPT_PER_SHAPE: usize = 8;

/// The copies that may be dropped for lack of space, by shape and directory.
pub(super) struct Shapes<'a> {
    /// One group for each shape. The group with the most bytes is first.
    groups: BinaryHeap<Group<'a>>,
}

/// The copies of one shape in one directory.
struct Group<'a> {
    /// The space of all copies that are not dropped, in bytes.
    bytes: u64,
    shape: (&'a PathBuf, u32),
    /// The copies that may be dropped, the newest first.
    droppable: Vec<(&'a Entry, SupersededBy)>,
}

impl Ord for Group<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.bytes, self.shape).cmp(&(other.bytes, other.shape))
    }
}

impl PartialOrd for Group<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Group<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Group<'_> {}

impl<'a> Shapes<'a> {
    /// Returns the copies that may be dropped. Those with the ids `needed` stay.
    pub(super) fn of(entries: &[&'a Entry], needed: &HashSet<&OsString>) -> Shapes<'a> {
        let mut shapes: BTreeMap<(&PathBuf, u32), Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            if let Some(shape) = &entry.shape {
                shapes.entry((shape, entry.uid)).or_default().push(entry);
            }
        }
        let group = |(shape, copies): ((&'a PathBuf, u32), Vec<&'a Entry>)| {
            let bytes = allocated(copies.iter().copied());
            let kept = rule!("eight-of-a-shape-stay", KEPT_PER_SHAPE, without: KEPT_PER_SHAPE - 1);
            let mut droppable = superseded(copies, kept);
            // Copies of the same shape whose targets may have had longer names are of no group.
            if rule!("best-of-a-group-stay", true) {
                droppable.retain(|(entry, _)| !needed.contains(&entry.id));
            }
            if rule!("space-drops-only-without-target", true) {
                droppable.retain(|(entry, _)| entry.target == TargetState::Nothing);
            }
            Group {
                bytes,
                shape,
                droppable,
            }
        };
        Shapes {
            groups: shapes.into_iter().map(group).collect(),
        }
    }

    /// Returns the space of all copies that may be dropped, in bytes.
    pub(super) fn droppable(&self) -> u64 {
        let all = self.groups.iter().flat_map(|group| &group.droppable);
        allocated(all.map(|(entry, _)| *entry))
    }

    /// Adds copies to `drops` until `bytes` and `files` are freed or no more may be dropped. Returns the number of
    /// freed bytes.
    pub(super) fn drop_for_space(
        &mut self,
        bytes: u64,
        files: u64,
        may_drop: impl Fn(&Entry) -> bool,
        drops: &mut Vec<(&'a Entry, SupersededBy)>,
    ) -> u64 {
        let (mut freed, mut count) = (0u64, 0u64);
        let mut done = Vec::new();
        while freed < bytes || count < files {
            let Some(mut group) = self.groups.pop() else {
                break;
            };
            match group
                .droppable
                .iter()
                .rposition(|(entry, _)| may_drop(entry))
            {
                Some(oldest) => {
                    let one = group.droppable.remove(oldest);
                    freed = freed.saturating_add(one.0.allocated);
                    count += 1;
                    group.bytes = group.bytes.saturating_sub(one.0.allocated);
                    drops.push(one);
                    self.groups.push(group);
                }
                None => done.push(group),
            }
        }
        self.groups.extend(done);
        freed
    }
}
