//! How long a quarantine keeps what lies in it.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::time::Wall;

/// One file in a quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: OsString,
    /// The way from the root to where it lay.
    pub below: PathBuf,
    /// `st_size`, bytes.
    pub bytes: u64,
    /// The space that it takes on the disk, bytes: less than that where its length was set before it was written.
    pub allocated: u64,
    /// When it was moved here, at the latest. `None`: that is not known, and counts as just now.
    pub moved: Option<Wall>,
    /// Neither clock was set since it was moved, so its age is known.
    pub is_steady: bool,
    /// Its birth, where the file system keeps one.
    pub born: Option<Wall>,
    /// When it was written last (`mtime`).
    pub written: Wall,
    /// The target, as a path from the root; or the shape of the name in its directory, if the target is not known.
    pub copy_of: PathBuf,
    /// The shape of its name in its directory, if that is a known one.
    pub shape: Option<PathBuf>,
    /// Whose it is. What anybody else may put beside it is no copy of it.
    pub uid: u32,
    /// The state of its target now.
    pub target: TargetState,
}

/// The state of the target of a stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// A file that counts, and has not changed since before the move: so the stored file is not the only copy.
    Counts,
    /// Nothing, or the target is not known.
    Nothing,
    /// Something that does not count, or that was born or changed after the move.
    Other,
}

/// How much a quarantine may keep. Zero means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time that a file lies there.
    pub age: Duration,
    /// The largest part of the file system that all of them may take, in percent.
    pub percent: u8,
    /// The part of the file system's bytes and of its inodes that is to be free, in percent.
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
            // A file system that does not say how large it is has no tenth.
            _ if size == 0 => u64::MAX,
            percent => (size / 100).saturating_mul(u64::from(percent)),
        }
    }

    /// Returns how many of `all` are to become free; 0 where there is no such limit.
    #[must_use]
    pub fn missing_free(&self, all: u64, free: u64) -> u64 {
        let wanted = (all / 100).saturating_mul(u64::from(self.min_free));
        wanted.saturating_sub(free)
    }
}

/// The space on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of its bytes; 0 where it does not say.
    pub size: u64,
    /// Bytes that are free.
    pub free: u64,
    /// All of its inodes; 0 where their number has no limit.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
    /// The files to be moved into the quarantine now.
    pub needed: NeededSpace,
}

/// Bytes that are to be moved into a quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeededSpace {
    /// Those of all files together.
    pub total: u64,
    /// Those of the smallest file.
    pub smallest: u64,
}

/// How far the dates in a quarantine can be trusted. The default trusts none but the steady ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockTrust {
    /// For how long this process has run. A clock that was set just before it began would make
    /// everything old at once; so nothing is dropped for its age in the first hour, or the first
    /// tenth of a shorter limit, unless the clocks are known to be [steady](Entry::is_steady).
    pub running: Duration,
    /// How long ago the wall clock and the monotonic clock parted, if that was noticed: nothing is
    /// taken to be older.
    pub since_jump: Option<Duration>,
}

/// The longest time that [`ClockTrust::running`] must reach.
const SETTLING: Duration = Duration::from_secs(60 * 60);

/// The shortest time since its move after which a file may be dropped to free space.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// The number of newest copies of one shape in one directory that are never dropped for lack of room. Each copy that is
/// dropped has this many that are newer and no smaller.
pub const KEPT_PER_SHAPE: usize = 8;

impl ClockTrust {
    /// Returns how long ago `entry` was moved, as far as that can be trusted.
    fn age(&self, entry: &Entry, now: Wall) -> Duration {
        let unknown = rule!("unknown-move-was-just-now", Duration::ZERO, without: Duration::MAX);
        let age = entry.moved.map_or(unknown, |moved| now.since(moved));
        match (entry.is_steady, self.since_jump) {
            (false, Some(last_jump)) => age.min(last_jump),
            _ => age,
        }
    }

    /// Returns how long it takes until ages up to `limit` count for `entry`.
    fn settles_in(&self, entry: &Entry, limit: Duration) -> Duration {
        match entry.is_steady {
            true => Duration::ZERO,
            false => SETTLING.min(limit / 10).saturating_sub(self.running),
        }
    }

    /// Returns how long it takes until `entry` is older than `limit`; zero if it is.
    fn reaches(&self, entry: &Entry, now: Wall, limit: Duration) -> Duration {
        let left = limit.saturating_sub(self.age(entry, now));
        left.max(self.settles_in(entry, limit))
    }
}

/// Where the bytes are of which a stored file is a copy no longer needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupersededBy {
    /// At its target.
    Target,
    /// In the newer copies with these ids, which stay.
    Copies(Vec<OsString>),
}

/// The result of applying the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// The files to drop, each with the better copies that must still exist then.
    pub drops: Vec<(Entry, SupersededBy)>,
    /// The time until the next file is too old.
    pub next: Option<Duration>,
}

/// Returns the files to drop: those that are too old, and for lack of room copies of known shapes, from the shape and
/// directory with the most bytes first, the oldest first.
///
/// Never dropped is the newest copy for a target that is missing or does not count, nor one that may be. One copy is
/// newer than another by its birth, then by its last write, then by its name; where there are no births only if it
/// was written and also moved later: several are moved within one tick of the clock, and an `mtime` can
/// be set to any date. Nor is a copy dropped that is larger than all newer ones: a killed writer leaves what it had written so
/// far, and only the copy before that may be whole. For lack of room the newest [`KEPT_PER_SHAPE`] of a shape stay, and each
/// with fewer than that many that are newer and no smaller.
#[must_use]
pub fn plan(
    entries: &[Entry],
    limits: Limits,
    space: Space,
    now: Wall,
    trust: ClockTrust,
) -> RetentionPlan {
    let mut plan = RetentionPlan::default();
    let reaches = |entry: &Entry| trust.reaches(entry, now, limits.age);
    let too_old = |entry: &&Entry| !limits.age.is_zero() && reaches(entry).is_zero();
    let mut goes = Vec::new();
    let uid = |entry: &Entry| rule!("others-files-are-no-copies", entry.uid, without: 0);
    let mut copies: HashMap<(&PathBuf, u32), Vec<&Entry>> = HashMap::new();
    for entry in entries {
        match entry.target {
            TargetState::Counts if too_old(&entry) => goes.push((entry, SupersededBy::Target)),
            TargetState::Counts => {}
            _ => copies
                .entry((&entry.copy_of, uid(entry)))
                .or_default()
                .push(entry),
        }
    }
    let outdated = copies.into_values().flat_map(|copies| outdated(copies, 1));
    goes.extend(outdated.filter(|(entry, _)| too_old(entry)));
    goes.sort_by_key(|(entry, _)| (entry.moved, &entry.id));

    let is_gone: std::collections::HashSet<&OsString> =
        goes.iter().map(|(entry, _)| &entry.id).collect();
    let left: Vec<&Entry> = entries
        .iter()
        .filter(|entry| !is_gone.contains(&entry.id))
        .collect();
    let gone = goes
        .iter()
        .fold(0u64, |sum, (entry, _)| sum.saturating_add(entry.allocated));
    let used = left
        .iter()
        .fold(0u64, |sum, entry| sum.saturating_add(entry.allocated));
    let mut shapes = Shapes::of(&left);
    let room = limits.max_bytes(space.size);
    let over = |wanted: u64| used.saturating_add(wanted).saturating_sub(room);
    // Nothing is dropped for temps that would not fit even then.
    let droppable = shapes.droppable();
    let over = match over(space.needed.smallest) <= droppable {
        true => over(space.needed.total).min(droppable),
        false => over(0),
    };
    let mut freed = shapes.take(over, 0, |_| true, &mut goes);
    freed = freed.saturating_add(gone);
    let bytes = limits.missing_free(space.size, space.free.saturating_add(freed));
    let files = goes.len() as u64;
    let inodes = limits.missing_free(space.inodes, space.inodes_free.saturating_add(files));
    let is_settled = |entry: &Entry| {
        let is_old = trust.reaches(entry, now, FRESH).is_zero();
        rule!("fresh-ones-free-no-space", is_old, without: true)
    };
    shapes.take(bytes, inodes, is_settled, &mut goes);

    let waits = |entry: &&Entry| !limits.age.is_zero() && entry.moved.is_some() && !too_old(entry);
    plan.next = left.into_iter().filter(waits).map(reaches).min();
    plan.drops = goes
        .into_iter()
        .map(|(entry, better)| (entry.clone(), better))
        .collect();
    plan
}

/// The copies that may be dropped for lack of room, by shape and directory.
struct Shapes<'a> {
    /// The bytes of all copies of one shape, and those that may be dropped, the newest first.
    groups: BinaryHeap<Group<'a>>,
}

struct Group<'a> {
    bytes: u64,
    shape: (&'a PathBuf, u32),
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
            let spared = rule!("eight-of-a-shape-stay", KEPT_PER_SHAPE, without: KEPT_PER_SHAPE - 1);
            let mut droppable = outdated(copies, spared);
            if rule!("room-only-where-no-target", true) {
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

    fn droppable(&self) -> u64 {
        let all = self.groups.iter().flat_map(|group| &group.droppable);
        all.fold(0, |sum, (entry, _)| sum.saturating_add(entry.allocated))
    }

    /// Moves entries to `goes` until `bytes` and `files` are freed, and returns the number of freed bytes.
    fn take(
        &mut self,
        bytes: u64,
        files: u64,
        may_go: impl Fn(&Entry) -> bool,
        goes: &mut Vec<(&'a Entry, SupersededBy)>,
    ) -> u64 {
        let (mut freed, mut count) = (0u64, 0u64);
        let mut done = Vec::new();
        while freed < bytes || count < files {
            let Some(mut group) = self.groups.pop() else {
                break;
            };
            match group.droppable.iter().rposition(|(entry, _)| may_go(entry)) {
                Some(oldest) => {
                    let one = group.droppable.remove(oldest);
                    freed = freed.saturating_add(one.0.allocated);
                    count += 1;
                    group.bytes = group.bytes.saturating_sub(one.0.allocated);
                    goes.push(one);
                    self.groups.push(group);
                }
                None => done.push(group),
            }
        }
        self.groups.extend(done);
        freed
    }
}

/// So many that may be better are looked at for each copy. With more of them, each larger than the next, one that
/// could go may stay.
const COMPARED: usize = 1_000;

/// Returns the copies for which `enough` others are newer and no smaller, the newest first; each with `enough` such
/// others, which have fewer than `enough` better ones themselves.
fn outdated(mut copies: Vec<&Entry>, enough: usize) -> Vec<(&Entry, SupersededBy)> {
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
    let mut outdated = Vec::new();
    // Those that stay. Of what is better than any copy, at least as many are among these as are enough: what is
    // better than a better one is better too.
    let mut stay: Vec<&Entry> = Vec::new();
    for entry in copies {
        let is_better = |copy: &&&Entry| {
            let is_as_large = copy.bytes >= entry.bytes;
            let is_as_full = copy.allocated >= entry.allocated;
            is_newer(copy, entry)
                && rule!("smaller-is-no-better", is_as_large, without: true)
                && rule!("less-written-is-no-better", is_as_full, without: true)
        };
        let better = stay.iter().take(COMPARED).filter(is_better).take(enough);
        let better: Vec<OsString> = better.map(|copy| copy.id.clone()).collect();
        match better.len() == enough {
            true => outdated.push((entry, SupersededBy::Copies(better))),
            false => stay.push(entry),
        }
    }
    outdated
}

/// The order of copies whose births are known.
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
        running: SETTLING,
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

    fn overdue(entries: &[Entry], limits: Limits, trust: ClockTrust) -> Vec<(Entry, SupersededBy)> {
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
    fn the_oldest_go_first_and_the_last_copy_never() {
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
        // What is younger than that stays, though there is no room.
        let large = [
            entry("a", 1, 60, "x", true),
            entry("b", 3, 60, "x", true),
            entry("c", 2, 60, "y", false),
        ];
        check(&large, limits, &[]);
    }

    /// Which of them go because of which.
    #[track_caller]
    fn which(entries: &[Entry], want: &[(u8, u8)]) {
        let mut found: Vec<_> = overdue(entries, Limits::default(), TRUST)
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

    /// Each row is copies for one missing target, where there are no births: when they were written and moved, in
    /// days; and which of them go because of which.
    #[test]
    fn which_copies_are_the_newest() {
        for (copies, want) in [
            (&[(9, 9), (8, 8)][..], &[(0, 1)][..]),
            (&[(8, 8), (9, 9)], &[(1, 0)]),
            (&[(9, 9), (10, 10), (8, 8)], &[(0, 2), (1, 2)]),
            // All are moved in the same tick.
            (&[(9, 8), (8, 8)], &[]),
            (&[(9, 8), (8, 8), (10, 9)], &[(2, 1)]),
            // Nobody can tell.
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
            which(&entries, want);
        }
    }

    /// Each row is copies for one missing target, all moved at once: when they were born and written, in days; and
    /// which of them go because of which.
    #[test]
    fn births_tell_which_copies_are_the_newest() {
        for (copies, want) in [
            (&[(9, 9), (8, 8)][..], &[(0, 1)][..]),
            (&[(8, 8), (9, 9)], &[(1, 0)]),
            // Written in the same tick: the name decides.
            (&[(9, 9), (9, 9)], &[(0, 1)]),
            // Anybody can set an mtime.
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
            which(&entries, want);
        }
    }

    /// Each row is copies for one missing target, moved one day after the other: how large they are, and
    /// which of them go because of which.
    #[test]
    fn a_smaller_copy_is_no_better() {
        for (sizes, want) in [
            (&[1, 0][..], &[][..]),
            (&[0, 1], &[(0, 1)]),
            (&[0, 0, 0], &[(0, 2), (1, 2)]),
            (&[1, 1, 0], &[(0, 1)]),
            (&[0, 1, 0], &[(0, 2)]),
            // Its writer may have died in the middle of it.
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
            which(&entries, want);
        }
    }

    /// Numbers draw these, and the rest follows from them.
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
        /// Whatever the limits: what is dropped has what makes it dispensable, and that stays.
        #[test]
        fn no_drop_violates_what_must_never_go(
            drawn in drawn(),
            has_births in any::<bool>(),
            (keep, percent, min_free) in (0u64..9, 0u8..3, 0u8..60),
            (free, inodes_free, wanted) in (0u64..1_000, 0u64..1_000, 0u64..30),
        ) {
            let entries = entries(&drawn, has_births);
            let limits = Limits {
                age: Duration::from_secs(keep * DAY as u64),
                percent,
                min_free,
            };
            let space = Space { size: 1_000, free, inodes: 1_000, inodes_free, needed: NeededSpace { total: wanted, smallest: wanted / 2 } };
            let plan = plan(&entries, limits, space, day(0), TRUST);
            let goes: HashMap<&OsString, &SupersededBy> =
                plan.drops.iter().map(|(entry, better)| (&entry.id, better)).collect();
            prop_assert_eq!(goes.len(), plan.drops.len(), "none twice");
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
                        prop_assert!(ids.iter().all(|id| !goes.contains_key(id)), "they stay");
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
            // And what is left over its age has nothing that is better than it.
            for one in entries.iter().filter(|one| keep > 0 && !goes.contains_key(&one.id)) {
                if day(0).since(one.moved.unwrap()) >= limits.age && one.target != TargetState::Counts {
                    let better = |other: &&Entry| {
                        other.target != TargetState::Counts && other.copy_of == one.copy_of && is_better(other, one)
                    };
                    prop_assert!(!entries.iter().any(|other| better(&other)));
                }
            }
        }
    }

    /// Whoever sets the length first may be killed before anything is written.
    #[test]
    fn a_copy_of_which_less_was_written_is_no_better() {
        let of = |id, days_ago, allocated| Entry {
            allocated,
            ..entry(id, days_ago, 1 << 20, "x", false)
        };
        let entries = [of("0", 10, 1 << 20), of("1", 9, 0), of("2", 8, 4_096)];
        which(&entries, &[(1, 2)]);
    }

    #[test]
    fn what_is_anybody_elses_is_no_copy() {
        let by = |id, days_ago, uid| Entry {
            uid,
            ..entry(id, days_ago, 1, "x", false)
        };
        let entries = [by("0", 10, 1), by("1", 9, 2), by("2", 8, 1), by("3", 7, 0)];
        which(&entries, &[(0, 2)]);
    }

    /// Twelve of one shape and three of another, one a day, and how many bytes are to be moved there beside them.
    fn crowd() -> Vec<Entry> {
        let large = (0..12).map(|n| shaped(&format!("a{n:02}"), 20 - n, 10, "a"));
        let small = (0..10).map(|n| shaped(&format!("b{n:02}"), 30 - n, 1, "b"));
        large.chain(small).collect()
    }

    #[test]
    fn for_want_of_room_the_oldest_of_the_largest_shape_go() {
        let limits = |percent, min_free| Limits {
            age: Duration::ZERO,
            percent,
            min_free,
        };
        let room = |percent, all, least| {
            let wanted = NeededSpace {
                total: all,
                smallest: least,
            };
            let space = Space {
                needed: wanted,
                ..SPACE
            };
            plan(&crowd(), limits(percent, 0), space, day(0), TRUST)
        };
        let six = ["a00", "a01", "a02", "a03", "b00", "b01"];
        // 130 bytes of 1,000 lie there.
        for (percent, all, least, want) in [
            (13, 0, 0, &[][..]),
            (13, 10, 10, &["a00"]),
            (12, 0, 0, &["a00"]),
            (11, 0, 0, &["a00", "a01"]),
            (10, 0, 0, &["a00", "a01", "a02"]),
            // Eight of each shape stay.
            (9, 0, 0, &["a00", "a01", "a02", "a03"]),
            (8, 0, 0, &six),
            // For what finds no room nothing is dropped; for some of it all that may be.
            (13, 100, 50, &[]),
            (13, 100, 40, &six),
            (0, 5_000, 5_000, &[]),
        ] {
            let plan = room(percent, all, least);
            assert_eq!(ids(&plan), want, "{percent} % with {all}");
        }
        // Two have seven that are newer and no smaller: they stay, though they are not among the newest eight.
        let mut grown = crowd();
        grown[0].bytes = 11;
        grown[1].allocated = 11;
        let plan = plan(&grown, limits(9, 0), SPACE, day(0), TRUST);
        assert_eq!(ids(&plan), ["a02", "a03", "b00", "b01"]);
    }

    #[test]
    fn the_file_system_is_to_have_some_bytes_and_inodes_free() {
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
                dropped(&crowd(), free, inodes, inodes_free, TRUST),
                want,
                "{free} {inodes_free}"
            );
        }
        // What was moved just now stays, and so does what may have been.
        let just_now = ClockTrust {
            running: SETTLING - Duration::from_secs(1),
            ..TRUST
        };
        assert!(dropped(&crowd(), 50, 0, 0, just_now).is_empty());
        let limits_of =
            |moved: Option<Wall>| crowd().into_iter().map(move |e| Entry { moved, ..e });
        for moved in [None, Some(day(0))] {
            let entries: Vec<Entry> = limits_of(moved).collect();
            assert_eq!(dropped(&entries, 0, 1_000, 0, TRUST), none);
        }
        // Only where nothing is there to be replaced, and only what is known to come from one writer.
        for change in [
            |e: Entry| Entry {
                target: TargetState::Other,
                ..e
            },
            |e: Entry| Entry { shape: None, ..e },
        ] {
            let entries: Vec<Entry> = crowd().into_iter().map(change).collect();
            assert_eq!(dropped(&entries, 0, 1_000, 0, TRUST), none);
        }
    }

    #[test]
    fn a_file_system_that_does_not_say_its_size_has_no_limit() {
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
                plan(&crowd(), limits, space, day(0), TRUST).drops.len(),
                want
            );
        }
        let space = Space {
            size: 0,
            free: 0,
            ..SPACE
        };
        assert_eq!(plan(&crowd(), limits, space, day(0), TRUST).drops, []);
    }

    #[test]
    fn a_clock_that_was_set_forward_makes_nothing_old() {
        let week_old = [entry("a", 8, 1, "x", true)];
        let it_goes = [(entry("a", 8, 1, "x", true), SupersededBy::Target)];
        let dropped = |trust| overdue(&week_old, Limits::default(), trust);
        assert_eq!(dropped(TRUST), it_goes);
        let started = |seconds| ClockTrust {
            running: Duration::from_secs(seconds),
            ..TRUST
        };
        assert_eq!(dropped(started(59 * 60)), []);
        assert_eq!(dropped(started(60 * 60)), it_goes);
        let an_hour = Limits {
            age: Duration::from_secs(60 * 60),
            ..Limits::default()
        };
        for (minutes, want) in [(5, &[][..]), (6, &it_goes)] {
            let dropped = overdue(&week_old, an_hour, started(minutes * 60));
            assert_eq!(dropped, want, "a tenth of the limit, {minutes} min");
        }
        let jumped = ClockTrust {
            since_jump: Some(Duration::from_secs(6 * 24 * 60 * 60)),
            ..TRUST
        };
        assert_eq!(dropped(jumped), []);
        // Where it is known that no clock was set since the move, the age holds.
        let steady = [Entry {
            is_steady: true,
            ..week_old[0].clone()
        }];
        for trust in [started(0), jumped] {
            assert_eq!(overdue(&steady, Limits::default(), trust).len(), 1);
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
    fn the_next_one_is_due_when_its_time_has_come() {
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
        // The newest copy stays, and is never due.
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
    fn a_clock_that_was_set_back_drops_nothing() {
        let future = [entry("a", -400, 1, "x", true)];
        check(&future, Limits::default(), &[]);
    }
}
