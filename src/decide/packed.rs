//! A fingerprint in as few bytes as it takes, for the map: there may be a million of them.
//!
//! Nothing is left out, so two of these are equal exactly if the fingerprints are.

use super::observation::{Fingerprint, Kind};
use super::time::Wall;

/// A fingerprint without the padding between its parts: 69 bytes instead of 112.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed)]
pub struct Packed {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: PackedWall,
    ctime: PackedWall,
    btime: PackedWall,
    links: u32,
    uid: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed)]
struct PackedWall {
    sec: i64,
    nsec: u32,
}

/// No moment has so many nanoseconds: there is no birth time.
const NONE: PackedWall = PackedWall {
    sec: 0,
    nsec: u32::MAX,
};

impl Packed {
    /// In the place of one that is not known yet.
    pub const NONE: Packed = Packed {
        dev: 0,
        ino: 0,
        size: 0,
        mtime: NONE,
        ctime: NONE,
        btime: NONE,
        links: 0,
        uid: 0,
        kind: Kind::Other,
    };

    /// `seen`, packed. No file has 2^32 links: `statx` itself has no room for more.
    #[must_use]
    pub fn new(seen: &Fingerprint) -> Packed {
        Packed {
            dev: seen.dev,
            ino: seen.ino,
            size: seen.size,
            mtime: seen.mtime.into(),
            ctime: seen.ctime.into(),
            btime: seen.btime.map_or(NONE, PackedWall::from),
            links: u32::try_from(seen.links).unwrap_or(u32::MAX),
            uid: seen.uid,
            kind: seen.kind,
        }
    }

    /// Inode number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// `st_size`, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl From<Wall> for PackedWall {
    fn from(wall: Wall) -> PackedWall {
        PackedWall {
            sec: wall.sec,
            nsec: wall.nsec,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wall() -> impl Strategy<Value = Wall> {
        (-2..2_i64, 0..3_u32).prop_map(|(sec, nsec)| Wall { sec, nsec })
    }

    fn fingerprint() -> impl Strategy<Value = Fingerprint> {
        let kind = prop::sample::select(vec![Kind::File, Kind::Dir, Kind::Symlink, Kind::Other]);
        let numbers = (0..2_u64, 0..2_u64, 0..2_u64, 0..2_u64, 0..2_u32);
        let times = (wall(), wall(), prop::option::of(wall()));
        (numbers, kind, times).prop_map(|((dev, ino, size, links, uid), kind, times)| {
            let (mtime, ctime, btime) = times;
            Fingerprint {
                dev,
                ino,
                kind,
                size,
                mtime,
                ctime,
                btime,
                links,
                uid,
            }
        })
    }

    proptest! {
        #[test]
        fn two_are_equal_exactly_if_the_fingerprints_are(
            one in fingerprint(),
            other in fingerprint(),
            part in 0..9_usize,
        ) {
            // Alone, two drawn at random are hardly ever equal: this one differs in one part at most.
            let near = match part {
                0 => Fingerprint { dev: other.dev, ..one },
                1 => Fingerprint { ino: other.ino, ..one },
                2 => Fingerprint { kind: other.kind, ..one },
                3 => Fingerprint { size: other.size, ..one },
                4 => Fingerprint { mtime: other.mtime, ..one },
                5 => Fingerprint { ctime: other.ctime, ..one },
                6 => Fingerprint { btime: other.btime, ..one },
                7 => Fingerprint { links: other.links, ..one },
                _ => Fingerprint { uid: other.uid, ..one },
            };
            prop_assert_eq!(Packed::new(&one) == Packed::new(&near), one == near);
            prop_assert_eq!(Packed::new(&one) == Packed::new(&other), one == other);
        }
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Packed>(), 69);
    }
}
