//! Decides which copies of a target are needed: the best copies of a group, and those that better ones supersede.
//!
//! A *group* is the temps of one target, one owner and one directory, in place or in the quarantine. A killed writer
//! leaves what it had written so far, so no single copy is known to be whole. A copy is therefore superseded only by
//! several later copies that have at least as much data. Which names form a group is decided by
//! [`temp_name`](super::temp_name).

use std::ffi::OsString;

use super::observation::Fingerprint;
use super::sort::sort_by;
use super::time::Wall;

/// The number of better copies that supersede a copy.
pub const ENOUGH: usize = 3;

/// The number of copies of a group that are never dropped for lack of space.
pub const KEPT_PER_GROUP: usize = 8;

/// The largest number of needed copies with which each copy is compared. With more of them, each with more data than
/// the next, a copy that is superseded may be kept.
const MAX_COMPARED: usize = 1_000;

/// One copy of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCopy {
    /// The base name of the temp.
    pub name: OsString,
    /// Its birth time, if the file system stores one.
    pub born: Option<Wall>,
    /// The time of its last write (`mtime`).
    pub written: Wall,
    /// Its length (`st_size`), in bytes.
    pub bytes: u64,
    /// Its data in bytes, without holes and reserved space. May be a lower bound.
    pub data: u64,
    /// Where it is.
    pub place: Place,
    /// It can replace other copies: it has one link, none of its dates is in the future, it comes from the present
    /// directory of the group, and no process uses it, by proof.
    pub is_reliable: bool,
}

/// The place of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its directory. Every gate except the one against sole copies passes.
    Orphan,
    /// In the quarantine.
    Quarantine,
}

/// The decision about one copy of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The copy is needed. An orphan is moved to the quarantine, a stored copy stays there.
    Needed,
    /// The copy is needed, but at least [`KEPT_PER_GROUP`] others are more valuable. It may be dropped for lack of
    /// space.
    Spare,
    /// The [`ENOUGH`] copies with these indices are better. This copy is removed once all of them are in the
    /// quarantine.
    Superseded(Vec<usize>),
}

impl Fate {
    /// Returns the indices of the copies that supersede this one, if it is superseded.
    #[must_use]
    pub fn better(&self) -> Option<&[usize]> {
        match self {
            Fate::Superseded(better) => Some(better),
            Fate::Needed | Fate::Spare => None,
        }
    }
}

impl GroupCopy {
    /// Returns the key that orders the copies of a group. The newest copy has the largest key.
    fn order(&self) -> (Option<Wall>, Wall, &OsString) {
        (self.born, self.written, &self.name)
    }

    /// Reports whether `self` can replace `other`: it is later, and has data for the whole length of `other`.
    fn is_better_than(&self, other: &GroupCopy) -> bool {
        // An mtime can be set to any date, so a copy that was born later but written earlier is not later.
        let is_later = self.order() > other.order() && self.written >= other.written;
        let has_births = self.born.is_some() && other.born.is_some();
        let has_as_much_data = self.data >= other.bytes && self.data > 0;
        rule!("group-better-is-later", is_later, without: true)
            && rule!("group-needs-births", has_births, without: true)
            && rule!("group-better-has-data", has_as_much_data, without: true)
            && rule!("group-better-is-reliable", self.is_reliable, without: true)
    }
}

/// Reports whether a copy can replace others, as far as its fingerprint shows. Dates in the future come from a clock
/// that was set back since, so later copies look older.
#[must_use]
pub fn is_reliable(fingerprint: &Fingerprint, now: Wall) -> bool {
    let has_past_dates = fingerprint.has_past_dates(now);
    fingerprint.links == 1 && rule!("better-copy-has-past-dates", has_past_dates, without: true)
}

/// Returns the decision about each copy of a group, in the order of `copies`.
///
/// The result assumes that the needed orphans will be moved. Before a superseded copy is removed, the caller must prove
/// that its better copies are in the quarantine, unchanged and unused.
#[must_use]
pub fn decide(copies: &[GroupCopy]) -> Vec<Fate> {
    let mut newest_first: Vec<usize> = (0..copies.len()).collect();
    sort_by(&mut newest_first, |&a, &b| {
        copies[b].order().cmp(&copies[a].order())
    });
    let mut fates = vec![Fate::Needed; copies.len()];
    // If a copy has enough better ones, enough of these are needed ones: a copy that is better than a better one is
    // better too.
    let mut needed: Vec<usize> = Vec::new();
    for at in newest_first {
        let better = needed.iter().take(MAX_COMPARED).copied();
        let better = better.filter(|&other| copies[other].is_better_than(&copies[at]));
        let enough = rule!("three-better-copies", ENOUGH, without: ENOUGH - 1);
        let better: Vec<usize> = better.take(enough).collect();
        if better.len() == enough {
            fates[at] = Fate::Superseded(better);
        } else {
            needed.push(at);
        }
    }
    for at in spare(copies, needed) {
        fates[at] = Fate::Spare;
    }
    fates
}

/// Returns the needed copies, newest first, without the [`KEPT_PER_GROUP`] most valuable ones: the newest, the largest,
/// and the next ones by their data.
fn spare(copies: &[GroupCopy], needed: Vec<usize>) -> Vec<usize> {
    let mut others = needed.into_iter();
    let _newest = others.next();
    let mut others: Vec<usize> = others.collect();
    // The sort is stable, so of copies with equal data the newer ones come first.
    let data = |at: usize| (copies[at].data, copies[at].bytes);
    sort_by(&mut others, |&a, &b| data(b).cmp(&data(a)));
    others.split_off(others.len().min(KEPT_PER_GROUP - 1))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A reliable orphan that was born and written at `second` and has `bytes` bytes of data.
    fn copy(second: i64, bytes: u64) -> GroupCopy {
        let time = Wall {
            sec: second,
            nsec: 0,
        };
        GroupCopy {
            name: format!("a.{second:04}.tmp").into(),
            born: Some(time),
            written: time,
            bytes,
            data: bytes,
            place: Place::Orphan,
            is_reliable: true,
        }
    }

    /// Checks the decisions: one letter for each copy, `n`eeded, s`p`are or `s`uperseded.
    #[track_caller]
    fn check(copies: &[GroupCopy], expected: &str) {
        let fates = decide(copies);
        let letter = |fate: &Fate| match fate {
            Fate::Needed => 'n',
            Fate::Spare => 'p',
            Fate::Superseded(better) => {
                assert_eq!(better.len(), ENOUGH);
                for &at in better {
                    assert!(!matches!(fates[at], Fate::Superseded(_)), "{fates:?}");
                }
                's'
            }
        };
        let letters: String = fates.iter().map(letter).collect();
        assert_eq!(letters, expected, "{copies:?}");
    }

    /// Returns copies with these sizes, the oldest first.
    fn copies(sizes: &[u64]) -> Vec<GroupCopy> {
        (0..)
            .zip(sizes)
            .map(|(at, &bytes)| copy(at, bytes))
            .collect()
    }

    #[test]
    fn three_later_copies_with_as_much_data_supersede() {
        for (sizes, expected) in [
            (&[][..], ""),
            (&[5], "n"),
            (&[5, 5, 5], "nnn"),
            (&[5, 5, 5, 5], "snnn"),
            (&[5, 5, 5, 5, 5], "ssnnn"),
            // An older copy that is larger may be the only whole one.
            (&[6, 5, 5, 5], "nnnn"),
            (&[5, 6, 6, 6], "snnn"),
            // Each temp of a crash loop on a full disk is shorter than the one before.
            (&[9, 8, 7, 6, 5], "nnnnn"),
            (&[5, 6, 7, 8, 9], "ssnnn"),
            (&[5, 9, 5, 5, 5], "snnnn"),
            (&[5, 4, 5, 4, 5, 5], "ssnnnn"),
            // Empty copies supersede nothing, but larger ones supersede them.
            (&[0, 0, 0, 0], "nnnn"),
            (&[0, 1, 1, 1], "snnn"),
            // More than eight copies are needed: the newest, the largest, and the next six by size stay.
            (&[20, 19, 18, 17, 16, 15, 14, 13], "nnnnnnnn"),
            (&[20, 19, 18, 17, 16, 15, 14, 13, 12], "nnnnnnnpn"),
            (&[20, 19, 18, 17, 16, 15, 14, 13, 12, 11], "nnnnnnnppn"),
        ] {
            check(&copies(sizes), expected);
        }
    }

    #[test]
    fn each_property_of_a_better_copy_counts() {
        type Change = fn(&mut GroupCopy);
        let cases: &[(&str, Change)] = &[
            ("nothing", |_| {}),
            ("in the quarantine", |c| c.place = Place::Quarantine),
            ("written earlier than the old copy", |c| c.written.sec = -1),
            ("born earlier than the old copy", |c| {
                c.born = Some(Wall { sec: -1, nsec: 0 })
            }),
            ("without a birth time", |c| c.born = None),
            ("with less data", |c| c.data -= 1),
            ("in use, or with two links", |c| c.is_reliable = false),
        ];
        for (index, (what, change)) in cases.iter().enumerate() {
            let mut copies = copies(&[5, 5, 5, 5]);
            change(&mut copies[2]);
            let fate = &decide(&copies)[0];
            let is_superseded = matches!(fate, Fate::Superseded(_));
            assert_eq!(
                is_superseded,
                index < 2,
                "one of the better copies is {what}"
            );
        }
        let mut copies = copies(&[5, 5, 5, 5]);
        copies[0].born = None;
        check(&copies, "nnnn");
        copies[0].born = Some(Wall { sec: 0, nsec: 0 });
        copies[0].bytes += 1;
        check(&copies, "nnnn");
        copies[0].bytes -= 1;
        copies[0].is_reliable = false;
        check(&copies, "snnn");
    }

    /// Every group of a copy and up to four others, each of any age, size, place and reliability. The number of better
    /// copies is counted with no order and no chains.
    #[test]
    fn of_every_combination_only_three_better_copies_supersede() {
        let mut others = Vec::new();
        for (second, bytes, data) in [0, 9].into_iter().flat_map(|second| {
            [(9, 9), (8, 8), (7, 7), (0, 0), (9, 1)].map(|(bytes, data)| (second, bytes, data))
        }) {
            for (place, is_reliable) in [
                (Place::Orphan, true),
                (Place::Quarantine, true),
                (Place::Quarantine, false),
            ] {
                others.push(GroupCopy {
                    data,
                    place,
                    is_reliable,
                    ..copy(second, bytes)
                });
            }
        }
        for old in [copy(5, 8), copy(5, 0)] {
            let mut groups = vec![(0, vec![old.clone()])];
            while let Some((from, group)) = groups.pop() {
                let is_better = |other: &&GroupCopy| {
                    let GroupCopy { data, bytes, .. } = **other;
                    let is_later = other.born > old.born;
                    is_later && other.is_reliable && data > 0 && bytes.min(data) >= old.bytes
                };
                let better = group.iter().filter(is_better).count();
                let is_superseded = matches!(decide(&group)[0], Fate::Superseded(_));
                assert_eq!(is_superseded, better >= 3, "{group:?}");
                for (at, other) in others.iter().enumerate().skip(from) {
                    if group.len() <= 4 {
                        let name = format!("a.{}.tmp", group.len()).into();
                        let other = GroupCopy {
                            name,
                            ..other.clone()
                        };
                        groups.push((at, [&group[..], &[other]].concat()));
                    }
                }
            }
        }
    }

    #[test]
    fn of_copies_born_at_once_the_name_decides() {
        let mut copies = vec![copy(1, 5); 8];
        for (at, copy) in copies.iter_mut().enumerate() {
            copy.name = format!("a.{}.tmp", 9 - at).into();
        }
        check(&copies, "nnnsssss");
    }

    #[test]
    fn fifty_thousand_copies_are_decided_at_once() {
        let fates = decide(&copies(&vec![7; 50_000]));
        let needed = fates.iter().filter(|fate| **fate == Fate::Needed).count();
        assert_eq!(needed, 3);
    }

    /// A step in the life of a directory with one target.
    #[derive(Clone, Debug)]
    enum Step {
        /// A writer is killed after so many bytes.
        Kill(u64),
        /// A sweep decides, moves, and then removes up to so many superseded copies before it is killed itself.
        Sweep(usize),
        /// A process opens the copy with this number, or closes it.
        Toggle(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u64..6).prop_map(Step::Kill),
            (0usize..6).prop_map(Step::Sweep),
            (0usize..20).prop_map(Step::Toggle),
        ]
    }

    proptest! {
        /// The truth beside the decisions: every copy that ever existed. Each lost copy has three later ones with as
        /// much data that still exist.
        #[test]
        fn no_copy_is_lost_without_three_later_ones(steps in vec(step(), 0..60)) {
            let mut lost: Vec<GroupCopy> = Vec::new();
            let mut here: Vec<GroupCopy> = Vec::new();
            for (second, step) in (0..).zip(steps) {
                match step {
                    Step::Kill(bytes) => here.push(copy(second, bytes)),
                    Step::Toggle(at) => if let Some(copy) = here.get_mut(at) {
                        copy.is_reliable = !copy.is_reliable;
                    },
                    Step::Sweep(mut left) => {
                        let fates = decide(&here);
                        for (copy, fate) in here.iter_mut().zip(&fates) {
                            if *fate == Fate::Needed || *fate == Fate::Spare {
                                copy.place = Place::Quarantine;
                            }
                        }
                        let mut rest = Vec::new();
                        for (copy, fate) in here.iter().zip(fates) {
                            let may_go = match fate {
                                Fate::Superseded(better) => better.iter().all(|&at| here[at].place == Place::Quarantine),
                                _ => false,
                            };
                            if may_go && left > 0 && copy.is_reliable {
                                left -= 1;
                                lost.push(copy.clone());
                            } else {
                                rest.push(copy.clone());
                            }
                        }
                        here = rest;
                    }
                }
                for gone in &lost {
                    let is_better = |c: &&GroupCopy| {
                        c.born > gone.born && c.written >= gone.written && c.bytes >= gone.bytes
                            && c.data >= gone.bytes && c.bytes > 0
                    };
                    prop_assert!(here.iter().filter(is_better).count() >= ENOUGH, "{gone:?} {here:?}");
                }
            }
        }
    }
}
