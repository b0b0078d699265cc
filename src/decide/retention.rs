//! How long a quarantine keeps what lies in it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::time::Wall;

/// One file in a quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id: the name of its folder.
    pub id: OsString,
    /// The way from the root to where it lay.
    pub below: PathBuf,
    /// `st_size`, bytes.
    pub bytes: u64,
    /// How much of the file system it takes, bytes: less than that where its length was set before it was written.
    pub allocated: u64,
    /// When it was moved here.
    pub since: Wall,
    /// When it was written last, as far as its `mtime` and its birth say so.
    pub written: Wall,
    /// What it may be a copy of: its target's way from the root, or its own where the target is
    /// not known.
    pub copy_of: PathBuf,
    /// The pid in its name. It may be the end of the target's name as well (`page.4711` beside
    /// `page.4712`), so those of different numbers are no copies of one.
    pub pid: Option<u32>,
    /// Whose it is. What anybody else may put beside it is no copy of it.
    pub uid: u32,
    /// That target exists and has content, so this is not the only copy.
    pub target_whole: bool,
}

/// How much a quarantine may keep. Zero means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time that a file lies there.
    pub age: Duration,
    /// The largest part of the file system that all of them may take, in percent.
    pub percent: u8,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            age: Duration::from_secs(7 * 24 * 60 * 60),
            percent: 10,
        }
    }
}

/// How far the dates in a quarantine can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// For how long this process has run. A clock that was set just before it began would make
    /// everything old at once; so nothing is dropped for its age in the first hour, or the first
    /// tenth of a shorter limit.
    pub running: Duration,
    /// How long ago the wall clock and the monotonic clock parted, if that was noticed: nothing is
    /// taken to be older.
    pub since_parted: Option<Duration>,
}

/// The longest time that [`Trust::running`] must reach.
const SETTLING: Duration = Duration::from_secs(60 * 60);

/// Where the bytes are of which a stored file is a copy no longer needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Better {
    /// At its target.
    Target,
    /// In the newer copy with this id, which stays.
    Copy(OsString),
}

/// What is to be dropped, oldest first: what is too old, then as much as is over the size. Each with what
/// makes it dispensable, as long as that is there.
///
/// Never dropped is the newest copy for a target that is missing or empty, nor one that may be: several are
/// moved within one tick of the clock, and anybody can set an `mtime`. So one is older only if it was written
/// before the other and also moved before it. Nor is one that is larger than all newer ones: a killed writer
/// leaves what it had written so far, and only the copy before that may be whole.
#[must_use]
pub fn overdue(
    entries: &[Entry],
    limits: Limits,
    now: Wall,
    trust: Trust,
    file_system: u64,
) -> Vec<(Entry, Better)> {
    let mut copies: HashMap<(&PathBuf, Option<u32>, u32), Vec<&Entry>> = HashMap::new();
    for entry in entries.iter().filter(|entry| !entry.target_whole) {
        let of = (&entry.copy_of, entry.pid, entry.uid);
        copies.entry(of).or_default().push(entry);
    }
    let whole = entries.iter().filter(|entry| entry.target_whole);
    let mut old: Vec<(&Entry, Better)> = whole.map(|entry| (entry, Better::Target)).collect();
    old.extend(copies.into_values().flat_map(outdated));
    old.sort_by(|(a, _), (b, _)| (a.since, &a.id).cmp(&(b.since, &b.id)));

    // Only what may be dropped counts: dropping the rest because the spared ones are large would
    // destroy it and help nobody.
    let mut left = old
        .iter()
        .fold(0u64, |sum, (entry, _)| sum.saturating_add(entry.bytes));
    let room = match limits.percent {
        0 => u64::MAX,
        // A file system that does not say how large it is has no tenth.
        _ if file_system == 0 => u64::MAX,
        percent => (file_system / 100).saturating_mul(u64::from(percent)),
    };
    let settled = trust.running >= SETTLING.min(limits.age / 10);
    let too_old = |entry: &Entry| {
        let age = now.since(entry.since);
        let age = trust.since_parted.map_or(age, |since| age.min(since));
        !limits.age.is_zero() && settled && age >= limits.age
    };
    let mut dropped = Vec::new();
    for (entry, better) in old {
        if left > room || too_old(entry) {
            left = left.saturating_sub(entry.bytes);
            dropped.push((entry.clone(), better));
        }
    }
    dropped
}

/// So many that may be better are looked at for each copy. With more of them, each larger than the next, one that
/// could go may stay.
const COMPARED: usize = 1_000;

/// Those copies of one target than which one is known to be newer, and is no smaller; and such a one, which
/// stays itself.
fn outdated(mut copies: Vec<&Entry>) -> Vec<(&Entry, Better)> {
    copies.sort_by_key(|entry| std::cmp::Reverse(entry.written));
    let mut outdated = Vec::new();
    // Those that were written later, and stay. Nothing is better than them, so what any copy is worse than is
    // worse than one of these.
    let mut stay: Vec<&Entry> = Vec::new();
    for at_once in copies.chunk_by(|a, b| a.written == b.written) {
        let mut newest = Vec::new();
        for &entry in at_once {
            let is_better = |copy: &&&Entry| {
                copy.since > entry.since
                    && copy.bytes >= entry.bytes
                    && copy.allocated >= entry.allocated
            };
            match stay.iter().take(COMPARED).find(is_better) {
                Some(copy) => outdated.push((entry, Better::Copy(copy.id.clone()))),
                None => newest.push(entry),
            }
        }
        stay.extend(newest);
    }
    outdated
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    const TRUST: Trust = Trust {
        running: SETTLING,
        since_parted: None,
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
            allocated: 0,
            since: day(days_ago),
            written: day(days_ago),
            pid: None,
            uid: 0,
            copy_of: copy_of.into(),
            target_whole,
        }
    }

    #[track_caller]
    fn check(entries: &[Entry], limits: Limits, want: &[&str]) {
        let now = Wall {
            sec: 100 * DAY,
            nsec: 0,
        };
        let dropped = overdue(entries, limits, now, TRUST, 1_000);
        let ids: Vec<_> = dropped
            .iter()
            .map(|(entry, _)| entry.id.to_str().unwrap())
            .collect();
        assert_eq!(ids, want);
    }

    #[test]
    fn the_oldest_go_first_and_the_last_copy_never() {
        let limits = Limits::default();
        let no_limit = Limits {
            age: Duration::ZERO,
            percent: 0,
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
        let large = [
            entry("a", 1, 60, "x", true),
            entry("b", 3, 60, "x", true),
            entry("c", 2, 60, "y", false),
        ];
        check(&large, limits, &["b"]);
        let exactly = [entry("a", 1, 100, "x", true)];
        check(&exactly, limits, &[]);
    }

    /// Which of them go because of which.
    #[track_caller]
    fn which(entries: &[Entry], want: &[(u8, u8)]) {
        let mut found: Vec<_> = overdue(entries, Limits::default(), day(0), TRUST, 1_000)
            .into_iter()
            .map(|(one, better)| (one.id, better))
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let better = |(id, better): &(u8, u8)| {
            let copy = Better::Copy(better.to_string().into());
            (id.to_string().into(), copy)
        };
        let want: Vec<(OsString, Better)> = want.iter().map(better).collect();
        assert_eq!(found, want, "{entries:?}");
    }

    /// Each row is copies for one missing target: when they were written and moved, in days; and which of
    /// them go because of which.
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

    proptest! {
        /// A copy goes if any other is better, and only because of one that stays.
        #[test]
        fn what_is_better_stays(copies in vec((0i64..6, 0i64..6, 0u64..6, 0u64..3), 0..12)) {
            let copy = |(n, &(written, moved, bytes, allocated)): (usize, &(_, i64, _, _))| Entry {
                written: day(20 - written),
                allocated,
                ..entry(&n.to_string(), 20 - moved, bytes, "x", false)
            };
            let entries: Vec<Entry> = copies.iter().enumerate().map(copy).collect();
            let is_better = |a: &Entry, b: &Entry| {
                let is_newer = a.written > b.written && a.since > b.since;
                is_newer && a.bytes >= b.bytes && a.allocated >= b.allocated
            };
            let mut goes: HashMap<OsString, Better> = HashMap::new();
            for (one, better) in overdue(&entries, Limits::default(), day(0), TRUST, 1_000) {
                goes.insert(one.id, better);
            }
            for one in &entries {
                let any = entries.iter().any(|other| is_better(other, one));
                prop_assert_eq!(goes.contains_key(&one.id), any);
                if let Some(better) = goes.get(&one.id) {
                    let is_it = |other: &&Entry| *better == Better::Copy(other.id.clone());
                    let better = entries.iter().find(is_it).unwrap();
                    prop_assert!(is_better(better, one) && !goes.contains_key(&better.id));
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

    #[test]
    fn other_numbers_may_be_other_targets() {
        let numbered = |id, days_ago, pid| Entry {
            pid: Some(pid),
            ..entry(id, days_ago, 1, "x", false)
        };
        let entries = [
            numbered("a", 10, 1),
            numbered("b", 9, 2),
            numbered("c", 8, 1),
        ];
        check(&entries, Limits::default(), &["a"]);
    }

    #[test]
    fn a_file_system_that_does_not_say_its_size_has_no_limit() {
        let now = Wall {
            sec: 100 * DAY,
            nsec: 0,
        };
        let a = entry("a", 1, 100, "x", true);
        let one = [a.clone()];
        assert_eq!(overdue(&one, Limits::default(), now, TRUST, 0), []);
        let one_goes = [(a, Better::Target)];
        assert_eq!(overdue(&one, Limits::default(), now, TRUST, 999), one_goes);
    }

    #[test]
    fn a_clock_that_was_set_forward_makes_nothing_old() {
        let now = Wall {
            sec: 100 * DAY,
            nsec: 0,
        };
        let week_old = [entry("a", 8, 1, "x", true)];
        let it_goes = [(entry("a", 8, 1, "x", true), Better::Target)];
        let dropped = |trust| overdue(&week_old, Limits::default(), now, trust, 1_000);
        assert_eq!(dropped(TRUST), it_goes);
        let started = |seconds| Trust {
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
            let dropped = overdue(&week_old, an_hour, now, started(minutes * 60), 1_000);
            assert_eq!(dropped, want, "a tenth of the limit, {minutes} min");
        }
        let jumped = Trust {
            since_parted: Some(Duration::from_secs(6 * 24 * 60 * 60)),
            ..TRUST
        };
        assert_eq!(dropped(jumped), []);
    }

    #[test]
    fn what_is_spared_does_not_drive_the_rest_out() {
        let entries = [
            entry("a", 1, 90, "x", true),
            entry("b", 1, 5_000, "y", false),
        ];
        check(&entries, Limits::default(), &[]);
    }

    #[test]
    fn a_clock_that_was_set_back_drops_nothing() {
        let future = [entry("a", -400, 1, "x", true)];
        check(&future, Limits::default(), &[]);
    }
}
