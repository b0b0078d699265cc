//! Decides how long a quarantine keeps its files, and which copies it drops.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::time::Wall;

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

/// The trust in the dates in a quarantine. The default trusts only [steady](Entry::is_steady) dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockTrust {
    /// The time for which this process has run. If a clock was set just before its start, all files would be old at
    /// once. So no file is dropped for its age in the first hour, or in the first tenth of a shorter limit, unless the
    /// clocks are known to be [steady](Entry::is_steady).
    pub running: Duration,
    /// The time since the last clock jump (the wall clock and the monotonic clock diverged), if one was noticed. No
    /// file counts as older than that.
    pub since_jump: Option<Duration>,
}

/// The time that [`ClockTrust::running`] must reach at most before ages count.
const MIN_RUNNING: Duration = Duration::from_secs(60 * 60);

/// The shortest time since its move after which a file may be dropped to free space.
const MIN_AGE_FOR_SPACE: Duration = Duration::from_secs(60 * 60);

/// The number of newest copies of one shape in one directory that are never dropped for lack of space. For each copy
/// that is dropped, this many copies exist that are newer and no smaller.
pub const KEPT_PER_SHAPE: usize = 8;

impl ClockTrust {
    /// Returns the time since `entry` was moved, as far as its date can be trusted.
    fn age(&self, entry: &Entry, now: Wall) -> Duration {
        let unknown = rule!("unknown-move-was-just-now", Duration::ZERO, without: Duration::MAX);
        let age = entry.moved.map_or(unknown, |moved| now.since(moved));
        match (entry.is_steady, self.since_jump) {
            (false, Some(last_jump)) => age.min(last_jump),
            _ => age,
        }
    }

    /// Returns the time until ages up to `limit` count for `entry`.
    fn time_until_trusted(&self, entry: &Entry, limit: Duration) -> Duration {
        match entry.is_steady {
            true => Duration::ZERO,
            false => MIN_RUNNING.min(limit / 10).saturating_sub(self.running),
        }
    }

    /// Returns the time until `entry` is older than `limit`. Zero if it already is.
    fn time_until_older(&self, entry: &Entry, now: Wall, limit: Duration) -> Duration {
        let left = limit.saturating_sub(self.age(entry, now));
        left.max(self.time_until_trusted(entry, limit))
    }
}

/// The reason for which a stored file is no longer needed as a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupersededBy {
    /// Its target counts.
    Target,
    /// The copies with these ids are newer, and they are kept.
    Copies(Vec<OsString>),
}

/// The result of applying the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// The files to drop, each with the reason. The copies in the reason must still exist when the file is dropped.
    pub drops: Vec<(Entry, SupersededBy)>,
    /// The time until the next file is too old.
    pub next: Option<Duration>,
}

/// Returns the files to drop. These are the files that are too old and, for lack of space, copies of known shapes. The
/// copies are dropped from the shape and directory with the most bytes first, the oldest copy first.
///
/// Some files are never dropped:
///
/// - The newest copy for a target that is missing or does not count, and any copy that may be the newest. With birth
///   times, one copy is newer than another by its birth time, then by its last write, then by its name. Without them,
///   it is newer only if it was both written and moved later, because several files can be moved within one tick of the
///   clock, and an `mtime` can be set to any date.
/// - A copy that is larger than all newer ones. A killed writer leaves what it had written so far, so only the copy
///   before that may be complete.
/// - For lack of space, the newest [`KEPT_PER_SHAPE`] copies of a shape, and each copy for which fewer than that many
///   newer copies exist that are no smaller.
#[must_use]
pub fn plan(
    entries: &[Entry],
    limits: Limits,
    space: Space,
    now: Wall,
    trust: ClockTrust,
) -> RetentionPlan {
    let mut plan = RetentionPlan::default();
    let time_left = |entry: &Entry| trust.time_until_older(entry, now, limits.age);
    let is_too_old = |entry: &&Entry| !limits.age.is_zero() && time_left(entry).is_zero();
    let mut drops = Vec::new();
    let uid = |entry: &Entry| rule!("others-files-are-no-copies", entry.uid, without: 0);
    let mut copies: HashMap<(&PathBuf, u32), Vec<&Entry>> = HashMap::new();
    for entry in entries {
        match entry.target {
            TargetState::Counts if is_too_old(&entry) => drops.push((entry, SupersededBy::Target)),
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
    drops.extend(superseded.filter(|(entry, _)| is_too_old(entry)));
    drops.sort_by_key(|(entry, _)| (entry.moved, &entry.id));

    let dropped: std::collections::HashSet<&OsString> =
        drops.iter().map(|(entry, _)| &entry.id).collect();
    let remaining: Vec<&Entry> = entries
        .iter()
        .filter(|entry| !dropped.contains(&entry.id))
        .collect();
    let freed_by_age = drops
        .iter()
        .fold(0u64, |sum, (entry, _)| sum.saturating_add(entry.allocated));
    let used = remaining
        .iter()
        .fold(0u64, |sum, entry| sum.saturating_add(entry.allocated));
    let mut shapes = Shapes::of(&remaining);
    let max_bytes = limits.max_bytes(space.size);
    let over = |needed: u64| used.saturating_add(needed).saturating_sub(max_bytes);
    // If not even the smallest new file would fit after all possible drops, no file is dropped for new ones.
    let droppable = shapes.droppable();
    let over = match over(space.needed.smallest) <= droppable {
        true => over(space.needed.total).min(droppable),
        false => over(0),
    };
    let mut freed = shapes.drop_for_space(over, 0, |_| true, &mut drops);
    freed = freed.saturating_add(freed_by_age);
    let bytes = limits.missing_free(space.size, space.free.saturating_add(freed));
    let files = drops.len() as u64;
    let inodes = limits.missing_free(space.inodes, space.inodes_free.saturating_add(files));
    let may_drop = |entry: &Entry| {
        let is_old = trust
            .time_until_older(entry, now, MIN_AGE_FOR_SPACE)
            .is_zero();
        rule!("recent-copies-are-not-dropped", is_old, without: true)
    };
    shapes.drop_for_space(bytes, inodes, may_drop, &mut drops);

    let becomes_too_old =
        |entry: &&Entry| !limits.age.is_zero() && entry.moved.is_some() && !is_too_old(entry);
    plan.next = remaining
        .into_iter()
        .filter(becomes_too_old)
        .map(time_left)
        .min();
    plan.drops = drops
        .into_iter()
        .map(|(entry, reason)| (entry.clone(), reason))
        .collect();
    plan
}

/// The copies that may be dropped for lack of space, by shape and directory.
struct Shapes<'a> {
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
    fn of(entries: &[&'a Entry]) -> Shapes<'a> {
        let mut shapes: BTreeMap<(&PathBuf, u32), Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            if let Some(shape) = &entry.shape {
                shapes.entry((shape, entry.uid)).or_default().push(entry);
            }
        }
        let group = |(shape, copies): ((&'a PathBuf, u32), Vec<&'a Entry>)| {
            let bytes = copies
                .iter()
                .fold(0u64, |sum, entry| sum.saturating_add(entry.allocated));
            let kept = rule!("eight-of-a-shape-stay", KEPT_PER_SHAPE, without: KEPT_PER_SHAPE - 1);
            let mut droppable = superseded(copies, kept);
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
    fn droppable(&self) -> u64 {
        let all = self.groups.iter().flat_map(|group| &group.droppable);
        all.fold(0, |sum, (entry, _)| sum.saturating_add(entry.allocated))
    }

    /// Adds copies to `drops` until `bytes` and `files` are freed or no more may be dropped. Returns the number of
    /// freed bytes.
    fn drop_for_space(
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

/// The largest number of kept copies with which each copy is compared. If there are more of them, each larger than the
/// next, a copy that could be dropped may be kept.
const MAX_COMPARED: usize = 1_000;

/// Returns the copies for which `enough` other copies are newer and no smaller, the newest first. Each has the ids of
/// `enough` such copies, which are kept because they have fewer than `enough` better ones themselves.
fn superseded(mut copies: Vec<&Entry>, enough: usize) -> Vec<(&Entry, SupersededBy)> {
    let has_births = copies.iter().all(|entry| entry.born.is_some());
    match has_births {
        true => copies.sort_by(|a, b| by_birth(b).cmp(&by_birth(a))),
        false => copies.sort_by_key(|entry| std::cmp::Reverse((entry.written, entry.moved))),
    }
    let is_newer = |copy: &Entry, entry: &Entry| match has_births {
        true => {
            by_birth(copy) > by_birth(entry)
                && rule!("written-earlier-is-older", copy.written >= entry.written, without: true)
        }
        false => {
            copy.written > entry.written
                && rule!("moved-earlier-is-older", copy.moved > entry.moved, without: true)
        }
    };
    let mut superseded = Vec::new();
    // The copies that are kept. If a copy has `enough` better ones, at least `enough` of them are kept, because a copy
    // that is better than a better one is better too.
    let mut kept: Vec<&Entry> = Vec::new();
    for entry in copies {
        let is_better = |copy: &&&Entry| {
            let is_as_large = copy.bytes >= entry.bytes;
            let is_as_full = copy.allocated >= entry.allocated;
            is_newer(copy, entry)
                && rule!("smaller-is-no-better", is_as_large, without: true)
                && rule!("less-written-is-no-better", is_as_full, without: true)
        };
        let better = kept
            .iter()
            .take(MAX_COMPARED)
            .filter(is_better)
            .take(enough);
        let better: Vec<OsString> = better.map(|copy| copy.id.clone()).collect();
        match better.len() == enough {
            true => superseded.push((entry, SupersededBy::Copies(better))),
            false => kept.push(entry),
        }
    }
    superseded
}

/// Returns the key that orders copies with known birth times. The newest copy has the largest key.
fn by_birth(entry: &Entry) -> (Option<Wall>, Wall, &PathBuf, &OsString) {
    (entry.born, entry.written, &entry.below, &entry.id)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    const TRUST: ClockTrust = ClockTrust {
        running: MIN_RUNNING,
        since_jump: None,
    };

    const SPACE: Space = Space {
        size: 1_000,
        free: 1_000,
        inodes: 0,
        inodes_free: 0,
        needed: NeededSpace {
            total: 0,
            smallest: 0,
        },
    };

    fn day(days_ago: i64) -> Wall {
        Wall {
            sec: (100 - days_ago) * DAY,
            nsec: 0,
        }
    }

    fn entry(id: &str, days_ago: i64, bytes: u64, copy_of: &str, target_whole: bool) -> Entry {
        Entry {
            id: id.into(),
            below: format!("{copy_of}.tmp").into(),
            bytes,
            allocated: bytes,
            moved: Some(day(days_ago)),
            is_steady: false,
            born: None,
            written: day(days_ago),
            uid: 0,
            copy_of: copy_of.into(),
            shape: None,
            target: match target_whole {
                true => TargetState::Counts,
                false => TargetState::Nothing,
            },
        }
    }

    /// A copy of a known shape.
    fn shaped(id: &str, days_ago: i64, bytes: u64, shape: &str) -> Entry {
        Entry {
            born: Some(day(days_ago)),
            shape: Some(shape.into()),
            ..entry(id, days_ago, bytes, shape, false)
        }
    }

    fn drops(entries: &[Entry], limits: Limits, trust: ClockTrust) -> Vec<(Entry, SupersededBy)> {
        plan(entries, limits, SPACE, day(0), trust).drops
    }

    fn ids(plan: &RetentionPlan) -> Vec<&str> {
        plan.drops
            .iter()
            .map(|(entry, _)| entry.id.to_str().unwrap())
            .collect()
    }

    #[track_caller]
    fn check(entries: &[Entry], limits: Limits, want: &[&str]) {
        assert_eq!(ids(&plan(entries, limits, SPACE, day(0), TRUST)), want);
    }

    #[test]
    fn the_oldest_are_dropped_first_and_the_last_copy_never() {
        let limits = Limits::default();
        let no_limit = Limits {
            age: Duration::ZERO,
            percent: 0,
            min_free: 0,
        };
        let whole = [entry("a", 8, 1, "x", true), entry("b", 6, 1, "x", true)];
        check(&whole, limits, &["a"]);
        check(&whole, no_limit, &[]);
        let missing = [
            entry("a", 9, 1, "x", false),
            entry("b", 8, 1, "x", false),
            entry("c", 30, 1, "y", false),
        ];
        check(&missing, limits, &["a"]);
        let other = |entry| Entry {
            target: TargetState::Other,
            ..entry
        };
        check(&missing.map(other), limits, &["a"]);
        // Younger files are kept, although there is no space.
        let large = [
            entry("a", 1, 60, "x", true),
            entry("b", 3, 60, "x", true),
            entry("c", 2, 60, "y", false),
        ];
        check(&large, limits, &[]);
    }

    /// Checks which copies are dropped, each with the copy that supersedes it.
    #[track_caller]
    fn check_pairs(entries: &[Entry], want: &[(u8, u8)]) {
        let mut found: Vec<_> = drops(entries, Limits::default(), TRUST)
            .into_iter()
            .map(|(one, better)| (one.id, better))
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let better = |(id, better): &(u8, u8)| {
            let copy = SupersededBy::Copies(vec![better.to_string().into()]);
            (id.to_string().into(), copy)
        };
        let want: Vec<(OsString, SupersededBy)> = want.iter().map(better).collect();
        assert_eq!(found, want, "{entries:?}");
    }

    /// Each row has copies for one missing target, without birth times: the days since they were written and moved, and
    /// the pairs of a dropped copy and the one that supersedes it.
    #[test]
    fn a_newer_copy_was_written_and_moved_later() {
        for (copies, want) in [
            (&[(9, 9), (8, 8)][..], &[(0, 1)][..]),
            (&[(8, 8), (9, 9)], &[(1, 0)]),
            (&[(9, 9), (10, 10), (8, 8)], &[(0, 2), (1, 2)]),
            // All copies are moved in the same tick.
            (&[(9, 8), (8, 8)], &[]),
            (&[(9, 8), (8, 8), (10, 9)], &[(2, 1)]),
            // The order is unknown.
            (&[(9, 8), (9, 8)], &[]),
            (&[(9, 9), (9, 8)], &[]),
            (&[(10, 8), (9, 9)], &[]),
            (&[(10, 8), (9, 9), (11, 9)], &[(2, 0)]),
            (&[(8, 9), (9, 8), (10, 10)], &[(2, 0)]),
            (&[(8, 10), (8, 9), (9, 10)], &[(2, 1)]),
        ] {
            let entries: Vec<Entry> = copies
                .iter()
                .enumerate()
                .map(|(id, (written, moved))| Entry {
                    written: day(*written),
                    ..entry(&id.to_string(), *moved, 1, "x", false)
                })
                .collect();
            check_pairs(&entries, want);
        }
    }

    /// Each row has copies for one missing target, all moved at the same time: the days since they were created and
    /// written, and the pairs of a dropped copy and the one that supersedes it.
    #[test]
    fn birth_times_decide_which_copies_are_newer() {
        for (copies, want) in [
            (&[(9, 9), (8, 8)][..], &[(0, 1)][..]),
            (&[(8, 8), (9, 9)], &[(1, 0)]),
            // Both are written in the same tick, so the name decides.
            (&[(9, 9), (9, 9)], &[(0, 1)]),
            // A process can set an mtime to any date.
            (&[(9, 8), (8, 9)], &[]),
            (&[(9, 8), (8, 8)], &[(0, 1)]),
        ] {
            let entries: Vec<Entry> = copies
                .iter()
                .enumerate()
                .map(|(id, (born, written))| Entry {
                    born: Some(day(*born)),
                    written: day(*written),
                    ..entry(&id.to_string(), 8, 1, "x", false)
                })
                .collect();
            check_pairs(&entries, want);
        }
    }

    /// Each row has copies for one missing target, moved on consecutive days: their sizes, and the pairs of a dropped
    /// copy and the one that supersedes it.
    #[test]
    fn a_smaller_copy_supersedes_none() {
        for (sizes, want) in [
            (&[1, 0][..], &[][..]),
            (&[0, 1], &[(0, 1)]),
            (&[0, 0, 0], &[(0, 2), (1, 2)]),
            (&[1, 1, 0], &[(0, 1)]),
            (&[0, 1, 0], &[(0, 2)]),
            // The writer of the newer copy may have been killed in the middle of its write.
            (&[9, 1], &[]),
            (&[1, 9], &[(0, 1)]),
            (&[5, 9, 3], &[(0, 1)]),
            (&[5, 3, 9], &[(0, 2), (1, 2)]),
            (&[9, 5, 3, 5, 3], &[(1, 3), (2, 4)]),
        ] {
            let entries: Vec<Entry> = sizes
                .iter()
                .zip(0i64..)
                .map(|(&bytes, n)| entry(&n.to_string(), 20 - n, bytes, "x", false))
                .collect();
            check_pairs(&entries, want);
        }
    }

    /// Random values from which an entry is built: written, moved, bytes, allocated, shape, target counts.
    type Drawn = (i64, i64, u64, u64, u8, bool);

    fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
        vec(
            (0i64..6, 0i64..20, 0u64..4, 0u64..3, 0u8..3, any::<bool>()),
            0..40,
        )
    }

    fn entries(drawn: &[Drawn], has_births: bool) -> Vec<Entry> {
        let copy =
            |(n, &(written, moved, bytes, allocated, shape, whole)): (usize, &Drawn)| Entry {
                written: day(20 - written),
                allocated: allocated * 10,
                born: has_births.then(|| day(20 - written)),
                uid: u32::from(shape == 2),
                ..match whole && shape == 1 {
                    true => Entry {
                        target: TargetState::Counts,
                        ..shaped(&n.to_string(), moved, bytes, "x")
                    },
                    false => shaped(
                        &n.to_string(),
                        moved,
                        bytes,
                        if shape == 0 { "x" } else { "y" },
                    ),
                }
            };
        drawn.iter().enumerate().map(copy).collect()
    }

    proptest! {
        /// For any limits, each dropped file has a reason that is true, and the copies in the reason are kept.
        #[test]
        fn no_drop_violates_the_rules(
            drawn in drawn(),
            has_births in any::<bool>(),
            (keep, percent, min_free) in (0u64..9, 0u8..3, 0u8..60),
            (free, inodes_free, needed) in (0u64..1_000, 0u64..1_000, 0u64..30),
        ) {
            let entries = entries(&drawn, has_births);
            let limits = Limits {
                age: Duration::from_secs(keep * DAY as u64),
                percent,
                min_free,
            };
            let space = Space { size: 1_000, free, inodes: 1_000, inodes_free, needed: NeededSpace { total: needed, smallest: needed / 2 } };
            let plan = plan(&entries, limits, space, day(0), TRUST);
            let dropped: HashMap<&OsString, &SupersededBy> =
                plan.drops.iter().map(|(entry, better)| (&entry.id, better)).collect();
            prop_assert_eq!(dropped.len(), plan.drops.len(), "no file is dropped twice");
            let is_newer = |a: &Entry, b: &Entry| match has_births {
                true => {
                    let order = |e: &Entry| (e.born, e.written, e.below.clone(), e.id.clone());
                    order(a) > order(b) && a.written >= b.written
                }
                false => a.written > b.written && a.moved > b.moved,
            };
            let is_better = |a: &Entry, b: &Entry| {
                is_newer(a, b) && a.uid == b.uid && a.bytes >= b.bytes && a.allocated >= b.allocated
            };
            for (one, better) in &plan.drops {
                let age = day(0).since(one.moved.unwrap());
                let too_old = keep > 0 && age >= limits.age;
                match better {
                    SupersededBy::Target => prop_assert!(one.target == TargetState::Counts && too_old),
                    SupersededBy::Copies(ids) => {
                        let copies: Vec<&Entry> =
                            ids.iter().map(|id| entries.iter().find(|e| e.id == *id).unwrap()).collect();
                        prop_assert!(copies.iter().all(|copy| is_better(copy, one)));
                        prop_assert!(ids.iter().all(|id| !dropped.contains_key(id)), "they are kept");
                        match ids.len() {
                            1 => {
                                prop_assert!(too_old && one.target != TargetState::Counts);
                                prop_assert_eq!(&copies[0].copy_of, &one.copy_of);
                            }
                            KEPT_PER_SHAPE => {
                                prop_assert_eq!(one.target, TargetState::Nothing);
                                prop_assert!(copies.iter().all(|copy| copy.shape == one.shape));
                                let newer = entries.iter().filter(|other| {
                                    other.shape == one.shape && other.uid == one.uid && is_newer(other, one)
                                });
                                prop_assert!(newer.count() >= KEPT_PER_SHAPE);
                            }
                            other => prop_assert!(false, "{other} copies"),
                        }
                    }
                }
            }
            // A file that is too old but kept has no better copy.
            for one in entries.iter().filter(|one| keep > 0 && !dropped.contains_key(&one.id)) {
                if day(0).since(one.moved.unwrap()) >= limits.age && one.target != TargetState::Counts {
                    let better = |other: &&Entry| {
                        other.target != TargetState::Counts && other.copy_of == one.copy_of && is_better(other, one)
                    };
                    prop_assert!(!entries.iter().any(|other| better(&other)));
                }
            }
        }
    }

    /// A writer that sets the length first may be killed before it writes any data.
    #[test]
    fn a_copy_with_less_written_data_supersedes_none() {
        let of = |id, days_ago, allocated| Entry {
            allocated,
            ..entry(id, days_ago, 1 << 20, "x", false)
        };
        let entries = [of("0", 10, 1 << 20), of("1", 9, 0), of("2", 8, 4_096)];
        check_pairs(&entries, &[(1, 2)]);
    }

    #[test]
    fn a_file_of_another_owner_is_not_a_copy() {
        let by = |id, days_ago, uid| Entry {
            uid,
            ..entry(id, days_ago, 1, "x", false)
        };
        let entries = [by("0", 10, 1), by("1", 9, 2), by("2", 8, 1), by("3", 7, 0)];
        check_pairs(&entries, &[(0, 2)]);
    }

    /// Returns twelve copies of one shape and ten of another, one for each day.
    fn two_shapes() -> Vec<Entry> {
        let large = (0..12).map(|n| shaped(&format!("a{n:02}"), 20 - n, 10, "a"));
        let small = (0..10).map(|n| shaped(&format!("b{n:02}"), 30 - n, 1, "b"));
        large.chain(small).collect()
    }

    #[test]
    fn for_lack_of_space_the_oldest_of_the_largest_shape_are_dropped() {
        let limits = |percent, min_free| Limits {
            age: Duration::ZERO,
            percent,
            min_free,
        };
        let plan_for = |percent, all, least| {
            let needed = NeededSpace {
                total: all,
                smallest: least,
            };
            let space = Space { needed, ..SPACE };
            plan(&two_shapes(), limits(percent, 0), space, day(0), TRUST)
        };
        let six = ["a00", "a01", "a02", "a03", "b00", "b01"];
        // The quarantine has 130 bytes, and the file system 1,000.
        for (percent, all, least, want) in [
            (13, 0, 0, &[][..]),
            (13, 10, 10, &["a00"]),
            (12, 0, 0, &["a00"]),
            (11, 0, 0, &["a00", "a01"]),
            (10, 0, 0, &["a00", "a01", "a02"]),
            // Eight copies of each shape are kept.
            (9, 0, 0, &["a00", "a01", "a02", "a03"]),
            (8, 0, 0, &six),
            // If no new file would fit, no copy is dropped. If some would fit, all possible copies are.
            (13, 100, 50, &[]),
            (13, 100, 40, &six),
            (0, 5_000, 5_000, &[]),
        ] {
            let plan = plan_for(percent, all, least);
            assert_eq!(ids(&plan), want, "{percent} % with {all}");
        }
        // Two copies have only seven others that are newer and no smaller, so they are kept, although they are not
        // among the newest eight.
        let mut grown = two_shapes();
        grown[0].bytes = 11;
        grown[1].allocated = 11;
        let plan = plan(&grown, limits(9, 0), SPACE, day(0), TRUST);
        assert_eq!(ids(&plan), ["a02", "a03", "b00", "b01"]);
    }

    #[test]
    fn copies_are_dropped_to_keep_bytes_and_inodes_free() {
        let dropped = |entries: &[Entry], free, inodes, inodes_free, trust| {
            let limits = Limits {
                age: Duration::ZERO,
                percent: 0,
                min_free: 5,
            };
            let space = Space {
                free,
                inodes,
                inodes_free,
                ..SPACE
            };
            let plan = plan(entries, limits, space, day(0), trust);
            ids(&plan)
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        for (free, inodes, inodes_free, want) in [
            (50, 0, 0, &[][..]),
            (49, 0, 0, &["a00"]),
            (29, 0, 0, &["a00", "a01", "a02"]),
            (50, 1_000, 50, &[]),
            (50, 1_000, 48, &["a00", "a01"]),
            (0, 1_000, 0, &["a00", "a01", "a02", "a03", "b00", "b01"]),
        ] {
            assert_eq!(
                dropped(&two_shapes(), free, inodes, inodes_free, TRUST),
                want,
                "{free} {inodes_free}"
            );
        }
        // Files that were just moved, or may have been, are kept.
        let just_now = ClockTrust {
            running: MIN_RUNNING - Duration::from_secs(1),
            ..TRUST
        };
        assert!(dropped(&two_shapes(), 50, 0, 0, just_now).is_empty());
        let with_move =
            |moved: Option<Wall>| two_shapes().into_iter().map(move |e| Entry { moved, ..e });
        for moved in [None, Some(day(0))] {
            let entries: Vec<Entry> = with_move(moved).collect();
            assert_eq!(dropped(&entries, 0, 1_000, 0, TRUST), none);
        }
        // Copies are dropped only if their target is missing, and only if they have a known shape.
        for change in [
            |e: Entry| Entry {
                target: TargetState::Other,
                ..e
            },
            |e: Entry| Entry { shape: None, ..e },
        ] {
            let entries: Vec<Entry> = two_shapes().into_iter().map(change).collect();
            assert_eq!(dropped(&entries, 0, 1_000, 0, TRUST), none);
        }
    }

    #[test]
    fn a_file_system_of_unknown_size_has_no_limit() {
        let limits = Limits {
            age: Duration::ZERO,
            ..Limits::default()
        };
        for (size, want) in [(0, 0), (1_000, 3)] {
            let space = Space {
                size,
                free: 0,
                ..SPACE
            };
            let limits = Limits {
                min_free: 0,
                ..limits
            };
            assert_eq!(
                plan(&two_shapes(), limits, space, day(0), TRUST)
                    .drops
                    .len(),
                want
            );
        }
        let space = Space {
            size: 0,
            free: 0,
            ..SPACE
        };
        assert_eq!(plan(&two_shapes(), limits, space, day(0), TRUST).drops, []);
    }

    #[test]
    fn a_clock_set_forward_makes_no_file_old() {
        let week_old = [entry("a", 8, 1, "x", true)];
        let it_is_dropped = [(entry("a", 8, 1, "x", true), SupersededBy::Target)];
        let dropped = |trust| drops(&week_old, Limits::default(), trust);
        assert_eq!(dropped(TRUST), it_is_dropped);
        let started = |seconds| ClockTrust {
            running: Duration::from_secs(seconds),
            ..TRUST
        };
        assert_eq!(dropped(started(59 * 60)), []);
        assert_eq!(dropped(started(60 * 60)), it_is_dropped);
        let an_hour = Limits {
            age: Duration::from_secs(60 * 60),
            ..Limits::default()
        };
        for (minutes, want) in [(5, &[][..]), (6, &it_is_dropped)] {
            let dropped = drops(&week_old, an_hour, started(minutes * 60));
            assert_eq!(dropped, want, "a tenth of the limit, {minutes} min");
        }
        let jumped = ClockTrust {
            since_jump: Some(Duration::from_secs(6 * 24 * 60 * 60)),
            ..TRUST
        };
        assert_eq!(dropped(jumped), []);
        // If it is known that no clock was set since the move, the age counts.
        let steady = [Entry {
            is_steady: true,
            ..week_old[0].clone()
        }];
        for trust in [started(0), jumped] {
            assert_eq!(drops(&steady, Limits::default(), trust).len(), 1);
        }
    }

    #[test]
    fn a_move_of_unknown_time_was_just_now() {
        let unknown = [Entry {
            moved: None,
            is_steady: true,
            ..entry("a", 80, 1, "x", true)
        }];
        check(&unknown, Limits::default(), &[]);
    }

    #[test]
    fn the_next_drop_is_planned() {
        let next =
            |entries: &[Entry], trust| plan(entries, Limits::default(), SPACE, day(0), trust).next;
        let days = |days: u64| Duration::from_secs(days * DAY as u64);
        assert_eq!(next(&[], TRUST), None);
        let entries = [
            entry("a", 8, 1, "x", false),
            entry("b", 5, 1, "x", false),
            entry("c", 6, 1, "y", false),
        ];
        assert_eq!(next(&entries, TRUST), Some(days(1)));
        // The newest copy is kept, and is never due.
        assert_eq!(next(&[entry("a", 8, 1, "x", false)], TRUST), None);
        let started = ClockTrust {
            running: Duration::from_secs(60),
            ..TRUST
        };
        assert_eq!(
            next(&[entry("a", 8, 1, "x", true)], started),
            Some(Duration::from_secs(59 * 60))
        );
        assert_eq!(
            next(
                &[Entry {
                    moved: None,
                    ..entry("a", 8, 1, "x", true)
                }],
                TRUST
            ),
            None
        );
    }

    #[test]
    fn a_clock_set_back_drops_no_file() {
        let future = [entry("a", -400, 1, "x", true)];
        check(&future, Limits::default(), &[]);
    }
}
