//! What the kernel's table of locks says of a file: for words. That it says nothing proves nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{FileId, system};
use crate::clock;
use crate::decide::observation::Fingerprint;
use crate::decide::time::Mono;

/// Which files are locked, as it was a moment ago. The table is the machine's, and may be long (5 to 16 ms for
/// 3,000 locks, measured on Linux 6.18): one reading answers for all that is looked at in the meantime.
#[derive(Debug, Default)]
pub struct Locks(Mutex<LockTable>);

#[derive(Debug, Default)]
struct LockTable {
    /// Until when it is not read again.
    until: Mono,
    /// By the number of the file, the devices.
    files: HashMap<u64, Vec<u64>>,
}

/// So many times as long as a reading took, it is not read again.
const REUSE_FACTOR: u32 = 9;

impl Locks {
    /// Whether `file` is seen to be locked, or somebody to wait for a lock on it.
    #[must_use]
    pub fn is_locked(&self, file: &Fingerprint) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::mono();
        if table.until <= now {
            table.files = by_number(system::locked_files().unwrap_or_default());
            let read = clock::mono();
            table.until = read.after(read.since(now) * REUSE_FACTOR);
        }
        let is_it = |device: &u64| system::may_be_device(*device, file.dev);
        let devices = table.files.get(&file.ino);
        devices.is_some_and(|devices| devices.iter().any(is_it))
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
    use crate::decide::observation::Kind;
    use crate::decide::time::Wall;

    #[test]
    fn which_files_it_tells_of() {
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
