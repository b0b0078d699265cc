//! Caches the kernel's table of locks. An entry keeps a temp; a missing entry proves nothing. A missing entry proves nothing.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{FileId, system};
use crate::core::observation::Fingerprint;
use crate::core::time::Mono;
use crate::sys::clock;
use crate::sys::mutex::guard;

/// The files that were locked when the table was read last. The table is the one of the whole machine and may be long
/// (reading 3,000 locks takes 5 to 16 ms, measured on Linux 6.18), so one reading is used for several files.
#[derive(Debug, Default)]
pub struct Locks(Mutex<LockTable>);

#[derive(Debug, Default)]
struct LockTable {
    /// The time until which the table is not read again.
    until: Mono,
    /// The devices of the locked files, by inode number.
    files: HashMap<u64, Vec<u64>>,
}

/// A reading is reused for this multiple of the time that it took.
const REUSE_FACTOR: u32 = 9;

impl Locks {
    /// Reports whether the table shows a lock on `file`, or a process that waits for one.
    #[must_use]
    pub fn is_locked(&self, file: &Fingerprint) -> bool {
        let mut table = guard(&self.0);
        let now = clock::mono();
        if table.until <= now {
            table.files = by_number(system::locked_files().unwrap_or_default());
            let read = clock::mono();
            table.until = read.after(read.since(now) * REUSE_FACTOR);
        }
        let matches = |device: &u64| system::may_be_device(*device, file.dev);
        let devices = table.files.get(&file.ino);
        devices.is_some_and(|devices| devices.iter().any(matches))
    }
}

fn by_number(locked: Vec<FileId>) -> HashMap<u64, Vec<u64>> {
    let mut files: HashMap<u64, Vec<u64>> = HashMap::new();
    for file in locked {
        files.entry(file.ino).or_default().push(file.dev);
    }
    files
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::core::observation::Kind;
    use crate::core::time::Wall;

    #[test]
    fn locked_files_are_found_by_inode_and_device() {
        let dev = rustix::fs::makedev;
        let locked = [(dev(8, 1), 123), (dev(0, 0x27), 77)].map(|(dev, ino)| FileId { dev, ino });
        let locks = Locks(Mutex::new(LockTable {
            until: Mono(u64::MAX),
            files: by_number(locked.to_vec()),
        }));
        let subvolume = dev(0, 0x40);
        for (what, dev, ino, want) in [
            ("locked", dev(8, 1), 123, true),
            ("of another disk", dev(8, 2), 123, false),
            ("another file", dev(8, 1), 12, false),
            ("of a subvolume", subvolume, 77, true),
            ("of a disk with that number", dev(8, 0x27), 77, false),
            ("another of a subvolume", subvolume, 7, false),
        ] {
            let file = Fingerprint {
                dev,
                ino,
                kind: Kind::File,
                size: 0,
                mtime: Wall::default(),
                ctime: Wall::default(),
                btime: None,
                links: 1,
                uid: 0,
            };
            assert_eq!(locks.is_locked(&file), want, "{what}");
        }
    }
}
