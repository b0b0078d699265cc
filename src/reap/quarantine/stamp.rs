//! The names of the folders in a quarantine. They show when the files in a folder were moved there.
//!
//! A name is a letter and fifteen base-62 characters. The letter shows why the files were moved ([`MovedAs`]), and
//! whether the folder is that of one set. The characters encode the wall
//! clock when the folder was created, the monotonic clock at the same moment (which reveals later changes of either
//! clock), and a few bits of the path of the file that the folder was created for: the id of that file is the folder's
//! name. The rest is a checksum, so that other names are not mistaken for ours.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::core::time::{Mono, Now, Wall};

/// The letters with which names begin, each with the reason for the move, and whether the folder is that of one set.
const PREFIXES: [(char, MovedAs, bool); 5] = [
    ('m', MovedAs::SoleCopy, false),
    ('l', MovedAs::LongestName, false),
    ('o', MovedAs::TargetCounted, false),
    ('s', MovedAs::SoleCopy, true),
    ('t', MovedAs::TargetCounted, true),
];
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 15;

/// The number of bits of each part of a name, the lowest first.
const CHECK: u32 = 12;
const TAG: u32 = 8;
const MONO: u32 = 24;
const WALL: u32 = 45;

/// 2020-01-01. An earlier date means that the clock was not set when the file was moved.
const EPOCH: i64 = 1_577_836_800;

/// The unit of the wall clock, in nanoseconds. 45 bits cover seventy years.
const TICK: u32 = 62_500;

/// The unit of the monotonic clock, in seconds. 24 bits cover two years.
const UNIT: u64 = 4;

/// The time for which a folder accepts more files.
const OPEN: Duration = Duration::from_secs(60 * 60);

/// The maximum difference between the clocks and the values in a folder's name, in nanoseconds.
const DRIFT: i128 = 2_000_000_000;

/// The reason for the move of the files in a folder, as far as the limits of the quarantine depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovedAs {
    /// Its target did not count, so no target that is older than the move can make it superfluous.
    SoleCopy,
    /// Another file in the directory showed that its target may have a longer name. That file may be removed later, so no
    /// target makes the copy superfluous.
    LongestName,
    /// It was moved for another reason, and its target counted.
    TargetCounted,
}

/// A parsed folder name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The wall clock, in [`TICK`]s since [`EPOCH`]; 0 if unknown.
    wall: u64,
    /// The monotonic clock, in [`UNIT`]s; the highest value if unknown.
    mono: u64,
    /// Hash bits of the path of the file that the folder was created for.
    tag: u64,
    /// The reason for the move of the files.
    moved_as: MovedAs,
    /// The folder contains one set, and is shared with no other file.
    is_set: bool,
}

impl Stamp {
    /// Creates the stamp of a new folder for the file at `below`. `number` distinguishes folders that are created at
    /// the same moment.
    pub(super) fn new(now: Now, number: u64, below: &Path, moved_as: MovedAs) -> Stamp {
        let since = now.wall.as_nanos() - i128::from(EPOCH) * 1_000_000_000;
        let ticks = u64::try_from(since / i128::from(TICK)).unwrap_or(0);
        // A clock outside this range is recorded as unknown.
        let known = ticks > 0 && ticks <= mask(WALL);
        Stamp {
            // Too early is the safe side: a file that changed since then counts as changed after the moves.
            wall: if known {
                ticks.saturating_sub(number).max(1)
            } else {
                0
            },
            mono: (now.mono.0 / 1_000_000_000 / UNIT).min(mask(MONO)),
            tag: tag(below) ^ if known { 0 } else { number },
            moved_as,
            is_set: false,
        }
    }

    /// Creates the stamp of a new folder for the set with the members at `below`. It differs from the stamps of all its
    /// members, so that none of them has the folder's name as its id.
    pub(super) fn of_set(
        now: Now,
        below: &[PathBuf],
        number: u64,
        moved_as: MovedAs,
    ) -> Option<Stamp> {
        let path = PathBuf::from(number.to_string());
        // A set is no copy of another file, so its longest name makes no difference.
        let moved_as = match moved_as {
            MovedAs::LongestName => MovedAs::SoleCopy,
            other => other,
        };
        let stamp = Stamp {
            is_set: true,
            ..Stamp::new(now, number, &path, moved_as)
        };
        let is_free = !below.iter().any(|below| stamp.is_made_for(below));
        is_free.then_some(stamp)
    }

    /// Reports whether this is the name of a folder of a set.
    pub(super) fn is_of_set(name: &str) -> bool {
        Stamp::parse(name).is_some_and(|stamp| stamp.is_set)
    }

    /// Returns the reason for the move of the files.
    pub(super) fn moved_as(self) -> MovedAs {
        self.moved_as
    }

    /// Parses a folder's name. Returns `None` for any other name.
    pub(super) fn parse(name: &str) -> Option<Stamp> {
        let first = name.chars().next()?;
        let known = PREFIXES.iter().find(|(prefix, ..)| *prefix == first);
        let (prefix, moved_as, is_set) = *known?;
        let digits = name.strip_prefix(prefix)?;
        if digits.len() != LENGTH {
            return None;
        }
        let bits = digits.bytes().try_fold(0u128, |bits, digit| {
            let value = DIGITS.iter().position(|known| *known == digit)?;
            Some(bits * 62 + value as u128)
        })?;
        let part = |shift: u32, length: u32| (bits >> shift) as u64 & mask(length);
        let stamp = Stamp {
            wall: part(CHECK + TAG + MONO, WALL),
            mono: part(CHECK + TAG, MONO),
            tag: part(CHECK, TAG),
            moved_as,
            is_set,
        };
        rule!("folder-name-check-sum", stamp.name() == name, without: true).then_some(stamp)
    }

    /// Returns the name of the folder.
    pub(super) fn name(&self) -> String {
        let bits = u128::from(self.wall) << MONO | u128::from(self.mono);
        let bits = bits << TAG | u128::from(self.tag);
        let check = hash(&bits.to_be_bytes()) & mask(CHECK);
        let mut bits = bits << CHECK | u128::from(check);
        let mut digits = [0; LENGTH];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS.get((bits % 62) as usize).copied().unwrap_or(b'0');
            bits /= 62;
        }
        let digits = digits.iter().map(|digit| char::from(*digit));
        let is_ours = |(_, moved_as, is_set): &&(char, MovedAs, bool)| {
            (*moved_as, *is_set) == (self.moved_as, self.is_set)
        };
        let prefix = PREFIXES.iter().find(is_ours).map(|(prefix, ..)| *prefix);
        // [`Stamp::of_set`] makes no set with `LongestName`, so a prefix is always found.
        std::iter::once(prefix.unwrap_or('s'))
            .chain(digits)
            .collect()
    }

    /// Returns the time when the folder was created, if it is known. No file in it was moved earlier.
    pub(super) fn since(self) -> Option<Wall> {
        const SECOND: u64 = 1_000_000_000 / TICK as u64;
        let sec = EPOCH.checked_add_unsigned(self.wall / SECOND)?;
        (self.wall > 0).then_some(Wall {
            sec,
            nsec: (self.wall % SECOND) as u32 * TICK,
        })
    }

    /// Reports whether the wall clock and the monotonic clock have advanced by the same amount since the folder was
    /// created.
    pub(super) fn is_steady(self, now: Now) -> bool {
        let Some(since) = self.since().filter(|_| self.mono < mask(MONO)) else {
            return false;
        };
        let unit = UNIT * 1_000_000_000;
        let made = Mono(self.mono * unit);
        if now.mono < made {
            return false;
        }
        let walls = now.wall.as_nanos() - since.as_nanos();
        let monos = i128::from(now.mono.0 - made.0);
        // The folder was created up to one unit later than its name says.
        (monos - i128::from(unit) - DRIFT..=monos + DRIFT).contains(&walls)
    }

    /// Reports whether the folder accepts more files that are moved for this reason.
    pub(super) fn is_open(self, now: Now, moved_as: MovedAs) -> bool {
        let is_young = |since: Wall| since <= now.wall && now.wall.since(since) < OPEN;
        let is_shared = rule!("folder-of-a-set-is-not-shared", !self.is_set, without: true);
        is_shared
            && self.moved_as == moved_as
            && self.is_steady(now)
            && self.since().is_some_and(is_young)
    }

    /// Reports whether the folder was created for the file at `below`.
    pub(super) fn is_made_for(self, below: &Path) -> bool {
        self.tag == tag(below)
    }

    /// Returns the id of the file at `below` in the folder with this `name`.
    pub(super) fn id(self, name: &str, below: &Path) -> String {
        if self.is_made_for(below) {
            return name.to_owned();
        }
        const BASE: u64 = 36;
        let text = [name.as_bytes(), b"/", below.as_os_str().as_bytes()].concat();
        let (mut bits, mut digits) = (hash(&text), [b'0'; 13]);
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"
                .get((bits % BASE) as usize)
                .copied()
                .unwrap_or(b'0');
            bits /= BASE;
        }
        let digits = digits.iter().map(|digit| char::from(*digit));
        std::iter::once('n').chain(digits).collect()
    }
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

fn tag(below: &Path) -> u64 {
    hash(below.as_os_str().as_bytes()) & mask(TAG)
}

/// FNV-1a, with its bits mixed at the end. It must not change, because one version writes names that another version
/// reads.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(wall: i64, mono: u64) -> Now {
        Now {
            wall: Wall {
                sec: wall,
                nsec: 7_000_000,
            },
            mono: Mono(mono * 1_000_000_000),
        }
    }

    const NOON: i64 = 1_764_000_000;

    fn stamp(now: Now) -> Stamp {
        Stamp::new(now, 0, Path::new("sub/a.tmp"), MovedAs::SoleCopy)
    }

    proptest! {
        #[test]
        fn a_folder_name_round_trips(wall in 0u64..1 << WALL, mono in 0u64..1 << MONO, tag in 0u64..1 << TAG, prefix in 0..PREFIXES.len()) {
            let (_, moved_as, is_set) = PREFIXES[prefix];
            let stamp = Stamp { wall, mono, tag, moved_as, is_set };
            prop_assert_eq!(stamp.name().len(), 16);
            prop_assert!(stamp.name().bytes().all(|b| b.is_ascii_alphanumeric()));
            prop_assert_eq!(Stamp::parse(&stamp.name()), Some(stamp));
        }

        #[test]
        fn a_time_is_kept_to_the_tick(sec in EPOCH + 1..EPOCH + 2_000_000_000, mono in 0u64..60_000_000) {
            let now = at(sec, mono);
            prop_assert_eq!(stamp(now).since(), Some(now.wall));
            prop_assert!(stamp(now).is_steady(now) && stamp(now).is_open(now, MovedAs::SoleCopy));
        }
    }

    #[test]
    fn other_names_are_rejected() {
        let name = stamp(at(NOON, 5)).name();
        assert!(Stamp::parse(&name).is_some());
        let changed = name.replace(name.chars().last().unwrap(), "-");
        for other in [
            "",
            "m",
            "meetingnotes2024",
            "q0123abc",
            &changed,
            &name[1..],
            &format!("{name}0"),
        ] {
            assert_eq!(Stamp::parse(other), None, "{other:?}");
        }
        assert_eq!(Stamp::parse(&format!("M{}", &name[1..])), None);
    }

    #[test]
    fn a_clock_change_is_detected() {
        let made = stamp(at(NOON, 1_000));
        for (wall, mono, steady) in [
            (NOON, 1_000, true),
            (NOON + 600_000, 601_000, true),
            (NOON + 600_002, 601_000, true),
            (NOON + 600_007, 601_000, false),
            (NOON + 599_990, 601_000, false),
            (NOON + 31_536_000, 1_010, false),
            // After a reboot.
            (NOON + 2_000, 60, false),
        ] {
            assert_eq!(made.is_steady(at(wall, mono)), steady, "{wall} {mono}");
        }
        for (seconds, open) in [(3_599, true), (3_601, false)] {
            let now = at(NOON + seconds as i64, 1_000 + seconds);
            assert_eq!(made.is_open(now, MovedAs::SoleCopy), open, "{seconds}");
        }
    }

    #[test]
    fn an_unset_clock_is_recorded_as_unknown() {
        for wall in [0, EPOCH - 1, -5, i64::MAX] {
            let made = stamp(at(wall, 5));
            assert_eq!(made.since(), None, "{wall}");
            assert!(
                !made.is_steady(at(wall, 5)) && !made.is_open(at(wall, 5), MovedAs::SoleCopy),
                "{wall}"
            );
            assert!(Stamp::parse(&made.name()).is_some());
        }
        assert_ne!(
            Stamp::new(at(0, 5), 0, Path::new("a"), MovedAs::TargetCounted).name(),
            Stamp::new(at(0, 5), 1, Path::new("a"), MovedAs::TargetCounted).name()
        );
        // A monotonic clock beyond the range of the name is unknown too.
        assert!(!stamp(at(NOON, 1 << 30)).is_steady(at(NOON, 1 << 30)));
    }

    #[test]
    fn an_id_depends_on_the_folder_and_the_path() {
        let (one, other) = (stamp(at(NOON, 5)), stamp(at(NOON + 1, 5)));
        let id = |stamp: Stamp, below: &str| stamp.id(&stamp.name(), Path::new(below));
        assert_eq!(id(one, "sub/a.tmp"), one.name());
        let ids = [
            id(one, "sub/b.tmp"),
            id(one, "sub/c.tmp"),
            id(other, "sub/b.tmp"),
        ];
        for id in &ids {
            assert_eq!(id.len(), 14, "{id}");
            assert!(
                id.starts_with('n') && id.bytes().all(|b| b.is_ascii_alphanumeric()),
                "{id}"
            );
        }
        assert!(ids[0] != ids[1] && ids[0] != ids[2], "{ids:?}");
        // Users may have noted this id, so it must not change.
        assert_eq!(ids[0], "n0zgtv1llgkm4s");
    }
}
