//! Tests of the whole plan.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::age::MIN_RUNNING;
use super::*;
use crate::core::time::Wall;

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
        group: None,
        data: bytes,
        is_reliable: true,
        origin: None,
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
    let copy = |(n, &(written, moved, bytes, allocated, shape, whole)): (usize, &Drawn)| Entry {
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

/// A copy that reserves space looks as large as a whole one.
#[test]
fn the_most_valuable_copies_of_a_group_stay() {
    let limits = Limits {
        age: Duration::ZERO,
        percent: 1,
        min_free: 0,
    };
    let mut copies: Vec<Entry> = (0..10)
        .map(|n| shaped(&format!("a{n}"), 20 - n, 10, "a"))
        .collect();
    for (copy, data) in copies.iter_mut().zip([10, 4, 5, 5, 5, 5, 5, 5, 5, 5]) {
        copy.data = data;
    }
    check(&copies, limits, &["a0", "a1"]);
    for copy in &mut copies {
        copy.group = Some("a".into());
    }
    check(&copies, limits, &["a1"]);
}

/// Copies from a directory that later had the same path have the same shape, but they are no copies of the same target.
#[test]
fn the_best_copies_from_each_directory_stay() {
    let limits = Limits {
        age: Duration::ZERO,
        percent: 1,
        min_free: 0,
    };
    for (origin, dropped) in [("here", &["a0", "a1"][..]), ("elsewhere", &["a1"])] {
        let copies = (0..10).map(|n| Entry {
            group: Some("a".into()),
            is_reliable: false,
            origin: Some(if n == 0 { origin } else { "here" }.into()),
            ..shaped(&format!("a{n}"), 20 - n, 10, "a")
        });
        check(&Vec::from_iter(copies), limits, dropped);
    }
}

/// Copies of the same shape that are of no group do not replace the best ones of a group.
#[test]
fn copies_of_no_group_replace_none_of_a_group() {
    let limits = Limits {
        age: Duration::ZERO,
        percent: 1,
        min_free: 0,
    };
    let copies = (0..12).map(|n| Entry {
        group: (n < 2).then(|| "a".into()),
        ..shaped(&format!("a{n:02}"), 20 - n, 10, "a")
    });
    check(&Vec::from_iter(copies), limits, &["a02", "a03"]);
}

/// Neither the age nor a lack of space drops a copy because of copies from another directory.
#[test]
fn copies_of_another_directory_make_none_superfluous() {
    let copies = |origin: &str| {
        let copies = (0..10).map(|n| Entry {
            origin: Some(if n == 0 { origin } else { "here" }.into()),
            ..shaped(&format!("a{n}"), 20 - n, 10, "a")
        });
        copies.collect::<Vec<Entry>>()
    };
    let of_space = Limits {
        age: Duration::ZERO,
        percent: 1,
        min_free: 0,
    };
    check(&copies("here"), of_space, &["a0", "a1"]);
    check(&copies("elsewhere"), of_space, &["a1"]);
    let of_age = Limits {
        age: Duration::from_secs(15 * 24 * 60 * 60),
        percent: 0,
        min_free: 0,
    };
    check(&copies("here")[..2], of_age, &["a0"]);
    check(&copies("elsewhere")[..2], of_age, &[]);
}

/// Space that was reserved for a newer copy is no reason to drop an old one.
#[test]
fn old_copies_of_a_group_stay_if_the_newer_ones_have_less_data() {
    let limits = Limits {
        age: Duration::from_secs(7 * 24 * 60 * 60),
        percent: 0,
        min_free: 0,
    };
    for (data, dropped) in [(10, &["a0"][..]), (9, &[])] {
        let copy = |id, days_ago, data| Entry {
            group: Some("a".into()),
            data,
            ..shaped(id, days_ago, 10, "a")
        };
        check(&[copy("a0", 20, 10), copy("a1", 1, data)], limits, dropped);
    }
}

/// Dropped at once, whatever the limits are.
#[test]
fn copies_that_better_ones_of_their_group_supersede_are_dropped() {
    let group = |is_reliable, owner, origin: &str| {
        let copies = (0..5).map(|n| Entry {
            group: Some("a".into()),
            is_reliable: n != 3 || is_reliable,
            origin: Some(if n == 2 { origin } else { "here" }.into()),
            uid: if n == 4 { owner } else { 0 },
            ..shaped(&format!("a{n}"), 20 - n, 10, "a")
        });
        copies.collect::<Vec<Entry>>()
    };
    let no_limit = Limits {
        age: Duration::ZERO,
        percent: 0,
        min_free: 0,
    };
    check(&group(true, 0, "here"), no_limit, &["a0", "a1"]);
    check(&group(false, 0, "here"), no_limit, &["a0"]);
    check(&group(true, 1, "here"), no_limit, &["a0"]);
    check(&group(true, 0, "elsewhere"), no_limit, &["a0"]);
    check(&group(false, 1, "here"), no_limit, &[]);
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
