//! A compact form of a fingerprint, for the map of tracked temps, which may have a million entries.
//!
//! It contains all fields, so two packed fingerprints are equal exactly if the fingerprints are.

use super::observation::{Fingerprint, Kind};
use super::time::Wall;

/// A fingerprint without padding between its fields: 69 bytes instead of 112.
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

/// A missing date. It differs from every date, because none has that many nanoseconds.
const NONE: PackedWall = PackedWall {
    sec: 0,
    nsec: u32::MAX,
};

impl Packed {
    /// A placeholder for a fingerprint that is not known yet.
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

    /// Packs a fingerprint. 32 bits suffice for the number of links: `statx` has no more.
    #[must_use]
    pub fn new(fingerprint: &Fingerprint) -> Packed {
        Packed {
            dev: fingerprint.dev,
            ino: fingerprint.ino,
            size: fingerprint.size,
            mtime: fingerprint.mtime.into(),
            ctime: fingerprint.ctime.into(),
            btime: fingerprint.btime.map_or(NONE, PackedWall::from),
            links: u32::try_from(fingerprint.links).unwrap_or(u32::MAX),
            uid: fingerprint.uid,
            kind: fingerprint.kind,
        }
    }

    /// Returns the inode number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Returns `st_size`, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns a key that orders files by their birth time, then by their last write. The newest file has the largest
    /// key.
    #[must_use]
    pub fn age_key(&self) -> (Option<Wall>, Wall) {
        let born = self.btime;
        let born = (born != NONE).then(|| born.into());
        (born, self.mtime.into())
    }

    /// Returns the uid of the owner.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

impl From<PackedWall> for Wall {
    fn from(packed: PackedWall) -> Wall {
        Wall {
            sec: packed.sec,
            nsec: packed.nsec,
        }
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
        fn packed_ones_are_equal_exactly_if_the_fingerprints_are(
            one in fingerprint(),
            other in fingerprint(),
            field in 0..9_usize,
        ) {
            // Two random fingerprints are rarely equal. This one differs in one field at most.
            let near = match field {
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
